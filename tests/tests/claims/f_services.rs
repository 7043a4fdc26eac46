//! Services that several nodes serve: `@service`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::{
    AccessPattern, CallError, Chain, ConnectError, KeepAlive, LocalPlace, NativeLimits, Node, NodeBuilder, NoneServes,
    Offer, Policy, SendError, ServiceNodes, Serving, StreamError, Told,
};
use trunkline_tests::support::*;

fn offer(service: &str, weight: u16) -> Offer {
    Offer { weight, ..Offer::new(service.parse().unwrap()) }
}

/// Returns a node of a host with an embedded registrar.
fn at_home(node: &str, registrar: SocketAddr) -> NodeBuilder {
    dialer(&format!("{node}@{}", registrar.ip()))
        .listen(SocketAddr::new(registrar.ip(), 0))
        .embedded_registrar(registrar)
}

/// Starts a node that serves `@pg`, and answers calls to `whoami` with its name.
async fn serving(node: &str, registrar: SocketAddr, weight: u16) -> Node {
    let node = start(at_home(node, registrar).offer(offer("pg", weight))).await;
    whoami(&node);
    node
}

fn whoami(node: &Node) {
    let mut mailbox = node.register("whoami").unwrap();
    let own = node.name().name().to_owned();
    tokio::spawn(async move {
        while let Some(message) = mailbox.recv().await {
            message.reply(own.clone());
        }
    });
}

async fn asked(app: &Node) -> String {
    let answer = soon(app.call("@pg", "whoami", "", PATIENCE)).await.unwrap();
    assert_eq!(answer, answer.node.name(), "the result tells the node that answered");
    answer.node.name().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_served_by_the_node_with_the_highest_weight_and_by_the_next_one_when_that_is_gone_or_drained() {
    let registrar = own_address();
    let app = start(at_home("app", registrar)).await;
    let error = soon(app.call("@pg", "whoami", "", PATIENCE)).await.unwrap_err();
    assert!(Chain(&error).to_string().contains("no node that serves @pg is known; announce it"), "{}", Chain(&error));
    let (one, two) = (serving("one", registrar, 200).await, serving("two", registrar, 100).await);
    let three = serving("three", registrar, 50).await;
    for _ in 0..3 {
        assert_eq!(asked(&app).await, "one");
    }
    // Drained while it runs: no new use comes.
    soon(one.offer(offer("pg", 0))).await.unwrap();
    let wanted = |expected: &'static str| {
        let app = app.clone();
        soon(async move {
            while asked(&app).await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    wanted("two").await;
    crash(two).await;
    assert_eq!(asked(&app).await, "three", "the next one, also while the registrar still knows the dead one");
    soon(one.offer(offer("pg", 1))).await.unwrap();
    soon(three.offer(offer("pg", 0))).await.unwrap();
    wanted("one").await;
    let service = "pg".parse().unwrap();
    assert_eq!(soon(one.withdraw_offer(&service)).await, Ok(Some(Told::Now)));
    assert_eq!(soon(one.withdraw_offer(&service)).await, Ok(None));
    let error = soon(async {
        loop {
            if let Err(error) = app.call("@pg", "whoami", "", PATIENCE).await {
                break error;
            }
        }
    });
    let CallError::NotSent(SendError::Connect(cause)) = error.await else { panic!("nothing was sent") };
    let Some(ConnectError::NoneServes(none)) = cause.downcast_ref() else { panic!("{cause}") };
    assert_eq!((&none.drained, none.failed.len()), (&vec![three.name().clone()], 0));
    assert!(none.to_string().contains("are drained (weight 0)"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_equal_weights_the_node_with_the_fewest_open_uses_is_next_and_a_connection_stays_with_its_node() {
    let registrar = own_address();
    let app = start(at_home("app", registrar)).await;
    let mut nodes = Vec::new();
    for node in ["one", "two", "three"] {
        let node = start(at_home(node, registrar).offer(offer("pg", 100))).await;
        nodes.push((node.accept("bytes", vec![AccessPattern::new("app@.*").unwrap()]).unwrap(), node));
    }
    let mut open = Vec::new();
    let mut served = BTreeMap::<String, usize>::new();
    for _ in 0..9 {
        let stream = soon(app.open("@pg", "bytes", PATIENCE));
        let accept = async {
            loop {
                for (streams, _) in &mut nodes {
                    if let Ok(Some(incoming)) = tokio::time::timeout(Duration::from_millis(5), streams.next()).await {
                        return incoming.accept();
                    }
                }
            }
        };
        let (stream, accepted) = tokio::join!(stream, soon(accept));
        let stream = stream.unwrap();
        *served.entry(stream.peer().name().to_owned()).or_default() += 1;
        open.push((stream, accepted));
    }
    assert_eq!(served.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    let any = "@pg".parse().unwrap();
    let of = |serves: trunkline::Serves| serves.nodes.into_iter().map(|(_, open)| open).collect::<Vec<_>>();
    assert_eq!(of(app.serving(&any).await), [3, 3, 3]);
    drop(open);
    assert_eq!(of(app.serving(&any).await), [0, 0, 0]);
    // A connection is that of one node.
    let connection = soon(app.connect("@pg")).await.unwrap();
    let peer = connection.info().peer.clone();
    let node = nodes.iter().map(|(_, node)| node).find(|node| *node.name() == peer).unwrap();
    whoami(node);
    for _ in 0..5 {
        let answer = soon(connection.call("whoami", "", b"", PATIENCE)).await.unwrap();
        assert_eq!(answer, peer.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_by_hand_and_tags_choose_the_nodes_and_a_refusal_leads_to_the_next_one() {
    let (one, two) = (start(listener("one@lab")).await, start(listener("two@lab")).await);
    let place = |node: &str, weight: u16, tags: &[&str]| Serving {
        node: name(node),
        weight,
        tags: tags.iter().map(ToString::to_string).collect(),
    };
    let listed = vec![place("gone@lab", 300, &[]), place("one@lab", 200, &["eu"]), place("two@lab", 100, &["us"])];
    let nodes = ServiceNodes::from([("pg".parse().unwrap(), listed)]);
    let app = dialer("app@lab").route("^one@", route_to(&one), 1).route("^two@", route_to(&two), 1);
    let app = start(app.route("^gone@", route_at(nobody()), 1).service_nodes(nodes)).await;
    // The first one is not reached, the second one has no such mailbox.
    whoami(&two);
    assert_eq!(asked(&app).await, "two");
    let error = soon(app.call("@pg#eu", "whoami", "", PATIENCE)).await.unwrap_err();
    let text = Chain(&error).to_string();
    assert!(text.contains("no node that serves @pg#eu could be used") && text.contains("one@lab: "), "{text}");
    assert!(text.contains("no mailbox of that name"), "{text}");
    whoami(&one);
    assert_eq!(soon(app.call("@pg#eu", "whoami", "", PATIENCE)).await.unwrap().node, *one.name());
    assert_eq!(soon(app.ping("@pg#us", PATIENCE)).await.unwrap().0.info().peer, *two.name());
    // A stream that one node refuses is opened at the next one.
    let _streams = two.accept("bytes", vec![AccessPattern::new(".*").unwrap()]).unwrap();
    let opened = tokio::spawn({
        let app = app.clone();
        async move { app.open("@pg", "bytes", PATIENCE).await.map(|stream| stream.peer().clone()) }
    });
    let mut streams = _streams;
    let _stream = soon(streams.next()).await.unwrap().accept();
    assert_eq!(soon(opened).await.unwrap().unwrap(), *two.name());
    let Err(StreamError::Connect(ConnectError::NoneServes(none))) = soon(app.open("@pg", "other", PATIENCE)).await
    else {
        panic!("no node serves it")
    };
    let NoneServes { failed, .. } = &*none;
    assert_eq!(failed.iter().map(|(node, _)| node).collect::<BTreeSet<_>>().len(), 3);
    // An edit counts from the next use on.
    app.set_service_nodes(ServiceNodes::from([("pg".parse().unwrap(), vec![place("two@lab", 1, &[])])]));
    assert_eq!(asked(&app).await, "two");
    assert!(app.connect("@").await.is_err() && app.connect("@a b").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_registrars_that_hang_do_not_keep_a_service_from_the_nodes_that_answer() {
    /// Resolver that never answers.
    #[derive(Debug)]
    struct Hanging;
    impl trunkline::Resolver for Hanging {
        fn resolve<'a>(
            &'a self,
            _: &'a trunkline::NodeName,
        ) -> trunkline::registrar::BoxFuture<'a, Result<Vec<trunkline::Endpoint>, trunkline::registrar::ResolveError>>
        {
            Box::pin(std::future::pending())
        }

        fn serving<'a>(
            &'a self,
            _: &'a trunkline::ServiceName,
        ) -> trunkline::registrar::BoxFuture<'a, Result<Vec<Serving>, trunkline::registrar::ResolveError>> {
            Box::pin(std::future::pending())
        }
    }
    let answers = start(listener("answers@lab")).await;
    whoami(&answers);
    let hole = BlackHole::new().await;
    let serving = |node: &str, weight| Serving { node: name(node), weight, tags: Vec::new() };
    let mut app = dialer("app@lab").route("^answers@", route_to(&answers), 1);
    let mut listed = vec![serving("answers@lab", 1)];
    for nth in 0..8 {
        app = app.route(format!("^hangs{nth}@"), route_at(hole.address), 1);
        listed.push(serving(&format!("hangs{nth}@lab"), 100));
    }
    let app = app
        .policy(Policy { resolve: Duration::from_millis(100), ..Policy::default() })
        .resolver(resolver_id("hanging"), Arc::new(Hanging))
        .discovery(resolver_id("hanging"))
        .service_nodes(ServiceNodes::from([("pg".parse().unwrap(), listed)]));
    let app = start(app).await;
    let call = || app.call("@pg", "whoami", "", Duration::from_secs(4));
    assert_eq!(soon(call()).await.unwrap().node, *answers.name());
    // Those that hung come last now.
    assert_eq!(soon(call()).await.unwrap().node, *answers.name());
    let any = "@pg".parse().unwrap();
    let serves = soon(app.serving(&any)).await;
    assert_eq!(serves.nodes[0].0.node, *answers.name(), "the list shows the order");
    assert_eq!(serves.unanswered.len(), 1);
    // A call for which there is no time has not been sent, and marks no node.
    let error = soon(app.call("@pg", "whoami", "", Duration::ZERO)).await.unwrap_err();
    assert!(matches!(error, CallError::NotSent(_)), "{error}");
    assert_eq!(soon(call()).await.unwrap().node, *answers.name());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_to_a_service_leads_each_connection_to_one_node() {
    let registrar = own_address();
    let app = start(at_home("app", registrar)).await;
    let mut nodes = Vec::new();
    for node in ["one", "two"] {
        let echo = tokio::net::TcpListener::bind(loopback()).await.unwrap();
        let place = echo.local_addr().unwrap().to_string().parse().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = write.write_all(node.as_bytes()).await;
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let node = start(at_home(node, registrar).offer(offer("pg", 100))).await;
        node.serve("echo", place, vec![AccessPattern::new("app@.*").unwrap()]).unwrap();
        nodes.push(node);
    }
    let forward = soon(app.forward(LocalPlace::Tcp(loopback()), "@pg", "echo")).await.unwrap();
    assert_eq!(forward.peer().to_string(), "@pg");
    let LocalPlace::Tcp(address) = forward.place().clone() else { panic!("it is a port") };
    let mut sockets = Vec::new();
    let mut served = BTreeMap::<Vec<u8>, usize>::new();
    for _ in 0..4 {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut node = [0; 3];
        soon(socket.read_exact(&mut node)).await.unwrap();
        *served.entry(node.to_vec()).or_default() += 1;
        sockets.push(socket);
    }
    assert_eq!(served.into_values().collect::<Vec<_>>(), [2, 2]);
    // One node is gone: its connections end, the others stay, and new ones come to the node that is left.
    let gone = nodes.remove(0);
    crash(gone).await;
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut node = [0; 3];
    soon(socket.read_exact(&mut node)).await.unwrap();
    assert_eq!(&node, b"two");
}

/// Counts of calls under load.
#[derive(Default)]
struct Load {
    drained: AtomicUsize,
    answered: AtomicUsize,
    failed: AtomicUsize,
    lost: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_one_node_killed_one_stopped_and_one_drained_every_call_ends_and_every_one_that_is_repeated_succeeds()
 {
    // The nodes of a service behind doors: a door that is frozen is a node that is stopped.
    let limits = NativeLimits {
        keep_alive: KeepAlive {
            idle: Duration::from_millis(300),
            dead: Duration::from_secs(1),
            ..KeepAlive::default()
        },
        ..NativeLimits::default()
    };
    let (mut nodes, mut doors, mut listed) = (Vec::new(), Vec::new(), Vec::new());
    let mut app = dialer("app@lab").limits(limits).times(short_times());
    for node in ["killed", "stopped", "drained", "left"] {
        let started = start(listener(&format!("{node}@lab")).limits(limits)).await;
        whoami(&started);
        let door = Door::to(address(&started)).await;
        app = app.route(format!("^{node}@"), route_at(door.address), 1);
        listed.push(Serving { node: started.name().clone(), weight: 100, tags: Vec::new() });
        doors.push(door);
        nodes.push(started);
    }
    let service = || "pg".parse().unwrap();
    let app = start(app.service_nodes(ServiceNodes::from([(service(), listed.clone())]))).await;
    let (load, stop) = (Arc::new(Load::default()), tokio::sync::watch::Sender::new(false));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (app, load, stop) = (app.clone(), load.clone(), stop.subscribe());
            tokio::spawn(async move {
                while !*stop.borrow() {
                    let mut tries = 0;
                    loop {
                        tries += 1;
                        let call = app.call("@pg", "whoami", "", Duration::from_millis(700));
                        // A call ends in its own time, with an answer or an error.
                        match tokio::time::timeout(Duration::from_secs(5), call).await {
                            Err(_) => drop(load.lost.fetch_add(1, Ordering::Relaxed)),
                            Ok(Ok(answer)) => {
                                assert_eq!(answer, answer.node.name());
                                let is_drained = answer.node.name() == "drained";
                                load.drained.fetch_add(usize::from(is_drained), Ordering::Relaxed);
                                load.answered.fetch_add(1, Ordering::Relaxed);
                                break;
                            }
                            Ok(Err(_)) => drop(load.failed.fetch_add(1, Ordering::Relaxed)),
                        }
                        assert!(tries < 10, "a call that is repeated succeeds");
                    }
                }
            })
        })
        .collect();
    let answered = || load.answered.load(Ordering::Relaxed);
    let wait = async |more: usize| {
        let before = answered();
        until(|| answered() > before + more).await;
    };
    wait(200).await;
    drop(nodes.remove(0));
    doors[0].cut();
    wait(200).await;
    doors[1].freeze();
    wait(200).await;
    listed[2].weight = 0;
    app.set_service_nodes(ServiceNodes::from([(service(), listed.clone())]));
    // Calls that were under way end; none begins there any more.
    soon(async {
        let any = "@pg".parse().unwrap();
        let is_used = |serves: &trunkline::Serves| {
            serves.nodes.iter().any(|(serving, open)| serving.node.name() == "drained" && *open > 0)
        };
        while is_used(&app.serving(&any).await) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    wait(50).await;
    let drained = load.drained.load(Ordering::Relaxed);
    wait(400).await;
    assert_eq!(load.drained.load(Ordering::Relaxed), drained);
    assert!(drained > 0, "it was used before");
    stop.send_replace(true);
    for caller in callers {
        soon(caller).await.unwrap();
    }
    assert_eq!(load.lost.load(Ordering::Relaxed), 0, "no call without an end");
    let serves = app.serving(&"@pg".parse().unwrap()).await;
    assert!(serves.nodes.iter().all(|(_, open)| *open == 0), "{serves:?}");
}
