//! Discovery by etcd, with members of it as processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trunkline::registrar::{Change, RegisterError, Registrar, Registration, ResolveError, Resolver, conformance};
use trunkline::{Chain, EndpointOverride, NetworkRoute, Node, NodeBuilder, NodeName, StartError, TlsMode};
use trunkline_registrar_etcd::{Etcd, EtcdSettings, EtcdTls, EtcdUser};
use trunkline_tests::etcd::{Member, etcd_at};
use trunkline_tests::support::*;

/// Returns a node that listens, and registers in etcd.
fn in_etcd(text: &str, etcd: &Etcd) -> NodeBuilder {
    listener(text).registrar(resolver_id("etcd"), Arc::new(etcd.clone()))
}

async fn found(resolver: &dyn Resolver, node: &str) -> Result<Vec<String>, ResolveError> {
    let found = soon(resolver.resolve(&name(node))).await?;
    Ok(found.iter().map(|endpoint| endpoint.address.to_string()).collect())
}

/// Returns the patterns of the static routes of a node, with their weights.
fn routes(node: &Node) -> Vec<(String, i64)> {
    node.routes().iter().map(|entry| (entry.pattern().as_str().to_owned(), entry.weight())).collect()
}

fn of(resolver: &Node) -> &dyn Resolver {
    &*resolver.resolvers()[&resolver_id("etcd")]
}

/// Waits until a node is found at these addresses.
#[track_caller]
fn is_found(resolver: &dyn Resolver, node: &str, at: &[&str]) -> impl Future<Output = ()> {
    let at: Vec<String> = at.iter().map(ToString::to_string).collect();
    soon(async move {
        while found(resolver, node).await.as_ref() != Ok(&at) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

fn at_port(node: &str, port: u16) -> Registration {
    Registration::new(name(node), vec![endpoint(([127, 0, 0, 1], port).into())])
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_keeps_what_a_registrar_promises() {
    let etcd = Member::alone().await;
    conformance::check("lab", async |_| Arc::new(etcd.registrar()) as Arc<dyn Registrar>).await;
    // The keys of all nodes are gone, and those that asked for a taken name.
    assert_eq!(etcd.keys("/").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_c5_etcd_gives_the_address_and_the_route_forces_tls() {
    let (etcd, ours) = (Member::alone().await, authority());
    let db = start(certified(&ours, "db@lab").listen(loopback())).await;
    let by_hand = format!(r#"{{"endpoints": [{{"host": "127.0.0.1", "port": {}}}]}}"#, address(&db).port());
    etcd.put("/trunkline/nodes/db@lab", &by_hand).await;
    let app = |tls: bool| {
        let over = EndpointOverride { tls: tls.then_some(true), ..EndpointOverride::default() };
        let route = NetworkRoute::resolved_by(resolver_id("etcd")).tls_profile(profile_id("ours")).overriding(over);
        dialer("app@lab")
            .resolver(resolver_id("etcd"), etcd.registrar().resolver())
            .tls_profile(profile_id("ours"), trusting(&ours))
            .route("^db@", route, 1)
    };
    for (tls, mode) in [(true, TlsMode::Verify(Some(profile_id("ours")))), (false, TlsMode::CookieOnly)] {
        let node = start(app(tls)).await;
        let connection = soon(node.connect("db@lab")).await.unwrap();
        assert_eq!(connection.info().address, address(&db));
        assert_eq!(connection.info().tls, mode);
        soon(node.shut_down(PATIENCE)).await;
    }
    // A listener with a certificate of its own making does not pass for the route that forces TLS.
    let other = start(listener("other@lab")).await;
    let by_hand = format!(r#"{{"endpoints": [{{"host": "127.0.0.1", "port": {}}}]}}"#, address(&other).port());
    etcd.put("/trunkline/nodes/db@lab", &by_hand).await;
    let error = no_route(soon(start(app(true)).await.connect("db@lab")).await);
    assert_eq!(error.attempts[0].error.stage(), "tls", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_nodes_register_in_etcd_and_a_node_that_leaves_is_gone_at_once() {
    let etcd = Member::alone().await;
    let (db, app) =
        (start(in_etcd("db@lab", &etcd.registrar())).await, start(in_etcd("app@lab", &etcd.registrar())).await);
    assert_eq!(db.status().registered, Some(true));
    let connection = soon(app.connect("db@lab")).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
    let error = soon(in_etcd("db@lab", &etcd.registrar()).start()).await.map(drop).unwrap_err();
    let StartError::Registrar(RegisterError::Taken { name, endpoints }) = &error else { panic!("{error}") };
    assert_eq!((name, &endpoints[0].address), (db.name(), &endpoint(address(&db)).address));
    soon(db.shut_down(PATIENCE)).await;
    assert_eq!(etcd.keys("/trunkline/nodes/").await, ["/trunkline/nodes/app@lab"]);
    let again = start(in_etcd("db@lab", &etcd.registrar())).await;
    assert_eq!(again.status().registered, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_the_routes_in_etcd_come_to_announced_and_hidden_nodes_and_follow_each_edit() {
    let etcd = Member::alone().await;
    let db = start(listener("db@elsewhere")).await;
    let route = |port: u16| format!(r#"{{"match": "^db@", "host": "127.0.0.1", "port": {port}}}"#);
    etcd.put("/trunkline/routes/db", &route(address(&db).port())).await;
    etcd.put("/trunkline/routes/own", r#"{"match": "^own@", "host": "h", "port": 1}"#).await;
    etcd.put("/trunkline/routes/nonsense", "{").await;
    let app = |text: &str| in_etcd(text, &etcd.registrar()).route("^own@", route_to(&db), 5);
    let (app, hidden) = (start(app("app@lab")).await, start(app("hidden@lab").hidden(true)).await);
    for node in [&app, &hidden] {
        assert_eq!(routes(node), [("^own@".into(), 5), ("^db@".into(), 0)]);
        assert_eq!(soon(node.connect("db@elsewhere")).await.unwrap().info().address, address(&db));
    }
    assert_eq!(hidden.status().registered, None);
    assert_eq!(etcd.keys("/trunkline/nodes/").await, ["/trunkline/nodes/app@lab"]);
    etcd.put("/trunkline/routes/db", &route(1)).await;
    let moved = NetworkRoute::direct("127.0.0.1", 1).unwrap().into();
    until(|| app.routes().get("^db@").is_some_and(|entry| *entry.value() == moved)).await;
    etcd.delete("/trunkline/routes/").await;
    until(|| [&app, &hidden].iter().all(|node| routes(node) == [("^own@".into(), 5)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_a_node_that_starts_again_replaces_its_predecessor_in_etcd_which_does_not_answer_any_more() {
    let etcd = Member::alone().await;
    // A runtime that ends takes everything with it, and nothing is withdrawn.
    let registrar = etcd.registrar();
    let before = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        std::mem::forget(runtime.block_on(registrar.register(at_port("db@lab", 1))).unwrap());
        runtime.shutdown_background();
    });
    before.join().unwrap();
    assert_eq!(etcd.keys("/trunkline/").await, ["/trunkline/nodes/db@lab"]);
    let registrar = etcd.registrar();
    // What is written at a longer name meanwhile is no answer of the holder.
    let mut writer = etcd.client().await;
    let writes = async {
        loop {
            writer.put("/trunkline/nodes/db@lab2", r#"{"endpoints": []}"#, None).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let lease = tokio::select! {
        lease = soon(registrar.register(at_port("db@lab", 2))) => lease.unwrap(),
        () = writes => unreachable!("it goes on"),
    };
    is_found(&*registrar.resolver(), "db@lab", &["127.0.0.1:2"]).await;
    assert_eq!(etcd.keys("/trunkline/").await, ["/trunkline/nodes/db@lab", "/trunkline/nodes/db@lab2"]);
    soon(lease.withdraw()).await;
    assert_eq!(etcd.keys("/trunkline/").await, ["/trunkline/nodes/db@lab2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn p22_the_holder_of_a_name_in_etcd_answers_as_long_as_its_lease_also_without_the_registrar_itself() {
    let etcd = Member::alone().await;
    let lease = soon(etcd.registrar().register(at_port("db@lab", 1))).await.unwrap();
    let registrar = etcd.registrar();
    for _ in 0..2 {
        // The second one asks in the same process as the first one registered.
        let error = soon(registrar.register(at_port("db@lab", 2))).await.map(drop).unwrap_err();
        assert!(matches!(error, RegisterError::Taken { .. }), "{error}");
    }
    let held = soon(registrar.register(at_port("web@lab", 1))).await.unwrap();
    let error = soon(registrar.register(at_port("web@lab", 2))).await.map(drop).unwrap_err();
    assert!(matches!(error, RegisterError::Taken { .. }), "also of the same registrar: {error}");
    assert!(lease.is_held() && held.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_that_was_wiped_and_written_anew_while_it_was_cut_off_is_read_anew() {
    let mut etcd = Member::alone().await;
    let door = Door::to(etcd.address()).await;
    let resolver = etcd_at(&[door.address]).resolver();
    let value = |port: u16| format!(r#"{{"endpoints": [{{"host": "127.0.0.1", "port": {port}}}]}}"#);
    etcd.put("/trunkline/nodes/gone@lab", &value(1)).await;
    etcd.put("/trunkline/nodes/moved@lab", &value(2)).await;
    let mut watch = resolver.watch().unwrap();
    while soon(watch.next()).await != Change::Current {}
    door.freeze();
    door.cut();
    until(|| resolver.stale().is_some()).await;
    etcd.kill();
    etcd.wipe();
    etcd.start().await;
    // The new store has gone further than the old one, and the name that moved was written early.
    etcd.put("/trunkline/nodes/moved@lab", &value(3)).await;
    for _ in 0..10 {
        etcd.put("/trunkline/filler", "x").await;
    }
    door.thaw();
    is_found(&*resolver, "moved@lab", &["127.0.0.1:3"]).await;
    is_found(&*resolver, "gone@lab", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_etcd_stays_connected_and_a_watch_that_it_refuses_is_told() {
    let etcd = Member::alone().await;
    let resolver = etcd.registrar().resolver();
    let mut watch = resolver.watch().unwrap();
    while soon(watch.next()).await != Change::Current {}
    // A connection that pings too often is closed at the third ping.
    let told = tokio::time::timeout(Duration::from_secs(14), watch.next()).await;
    assert_eq!(told.ok(), None, "nothing happened");

    let mut root = etcd.client().await;
    soon(root.user_add("root", "the root's", None)).await.unwrap();
    soon(root.user_grant_role("root", "root")).await.unwrap();
    soon(root.user_add("app", "an app's", None)).await.unwrap();
    soon(root.role_add("nodes")).await.unwrap();
    for part in ["nodes", "routes"] {
        let permission = etcd_client::Permission::read(format!("/trunkline/{part}/")).with_prefix();
        soon(root.role_grant_permission("nodes", permission)).await.unwrap();
    }
    soon(root.user_grant_role("app", "nodes")).await.unwrap();
    soon(root.auth_enable()).await.unwrap();
    let mut settings = EtcdSettings::at(vec![endpoint(etcd.address()).address]);
    settings.user = Some(EtcdUser { name: "app".into(), password: "an app's".to_owned().into() });
    let resolver = Etcd::new(settings).resolver();
    let _watch = resolver.watch().unwrap();
    until(|| resolver.stale().is_some()).await;
    let stale = Chain(&resolver.stale().unwrap()).to_string();
    assert!(stale.contains("etcd refuses to watch /trunkline/"), "{stale}");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_killed_and_wiped_breaks_no_connection_and_every_node_is_registered_again() {
    let mut etcd = Member::alone().await;
    let (db, app) =
        (start(in_etcd("db@lab", &etcd.registrar())).await, start(in_etcd("app@lab", &etcd.registrar())).await);
    let connection = soon(app.connect("db@lab")).await.unwrap();
    let link = connection.info().id;
    let mut watch = of(&app).watch().unwrap();
    while soon(watch.next()).await != Change::Current {}
    let mut left = Vec::new();
    for wipes in [false, true] {
        etcd.kill();
        until(|| of(&app).stale().is_some()).await;
        assert_eq!(soon(watch.next()).await, Change::Lost);
        // What was known is answered, and marked.
        assert_eq!(found(of(&app), "db@lab").await, Ok(vec![address(&db).to_string()]));
        if wipes {
            etcd.wipe();
        }
        etcd.start().await;
        until(|| [&db, &app].iter().all(|node| node.status().registered == Some(true) && of(node).stale().is_none()))
            .await;
        is_found(of(&app), "db@lab", &[&address(&db).to_string()]).await;
        is_found(of(&db), "app@lab", &[&address(&app).to_string()]).await;
        loop {
            match soon(watch.next()).await {
                Change::Left(name) => left.push(name),
                Change::Current => break,
                _ => {}
            }
        }
    }
    // No node was gone for a moment, also while its lease was not there any more.
    while let Some(change) = watch.take() {
        if let Change::Left(name) = change {
            left.push(name);
        }
    }
    assert_eq!(left, []);
    assert_eq!(app.connection(db.name()).unwrap().info().id, link, "the connection is the one of the beginning");
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_stopped_for_longer_than_a_lease_breaks_no_connection_and_every_node_is_registered_again() {
    let etcd = Member::alone().await;
    let (db, app) =
        (start(in_etcd("db@lab", &etcd.registrar())).await, start(in_etcd("app@lab", &etcd.registrar())).await);
    let link = soon(app.connect("db@lab")).await.unwrap().info().id;
    is_found(of(&app), "db@lab", &[&address(&db).to_string()]).await;
    etcd.put("/trunkline/routes/one", r#"{"match": "^far@", "host": "127.0.0.1", "port": 1}"#).await;
    until(|| routes(&app) == [("^far@".into(), 0)]).await;
    etcd.stop();
    until(|| of(&app).stale().is_some() && db.status().registered == Some(false)).await;
    // The stop is the fault itself: a lease is 10 s.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(found(of(&app), "db@lab").await, Ok(vec![address(&db).to_string()]));
    // The lease is over, and the routes that came with it.
    until(|| routes(&app).is_empty()).await;
    etcd.go_on();
    until(|| routes(&app) == [("^far@".into(), 0)]).await;
    until(|| [&db, &app].iter().all(|node| node.status().registered == Some(true) && of(node).stale().is_none())).await;
    is_found(of(&app), "db@lab", &[&address(&db).to_string()]).await;
    assert_eq!(app.connection(db.name()).unwrap().info().id, link);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_members_of_etcd_one_is_killed_and_one_stopped_in_turn_and_each_question_is_answered() {
    let mut members = Member::three().await;
    let addresses: Vec<_> = members.iter().map(Member::address).collect();
    let lease = soon(etcd_at(&addresses).register(at_port("db@lab", 1))).await.unwrap();
    let warm = etcd_at(&addresses);
    // From here on it answers from its copy.
    soon(warm.resolver().nodes()).await.unwrap();
    is_found(&*warm.resolver(), "db@lab", &["127.0.0.1:1"]).await;
    let mut port = 1;
    for (nth, member) in members.iter_mut().enumerate() {
        for stops in [false, true] {
            match stops {
                true => member.stop(),
                false => member.kill(),
            }
            // A client that has a mirror, and one that begins with the member that does not answer, within the 2 s of a node.
            let mut from_here = addresses.clone();
            from_here.rotate_left(nth);
            let at = |port: u16| vec![format!("127.0.0.1:{port}")];
            for (registrar, is_warm) in [(warm.clone(), true), (etcd_at(&from_here), false)] {
                let asked = tokio::time::timeout(Duration::from_secs(2), found(&*registrar.resolver(), "db@lab")).await;
                let answer = asked.expect("within the timeout").unwrap();
                // A member that has just come back may be one change behind, which a client that asks it does not know.
                let is_right = answer == at(port) || !is_warm && answer == at(port.max(2) - 1);
                assert!(is_right, "{nth} {stops}: {answer:?} in place of {port}");
            }
            // The members that are left take a change, and tell it.
            port += 1;
            let updated = soon(lease.update(at_port("db@lab", port))).await;
            assert!(
                updated.is_ok() || updated.is_err_and(|error| error.is_unreachable()),
                "now, or as soon as possible"
            );
            is_found(&*warm.resolver(), "db@lab", &[&format!("127.0.0.1:{port}")]).await;
            match stops {
                true => member.go_on(),
                false => member.start().await,
            }
        }
    }
    until(|| lease.is_held()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_etcd_forgot_while_it_was_cut_off_are_taken_up_by_a_new_list() {
    let etcd = Member::alone().await;
    let door = Door::to(etcd.address()).await;
    let far = etcd_at(&[door.address]);
    let resolver = far.resolver();
    etcd.put("/trunkline/nodes/gone@lab", r#"{"endpoints": [{"host": "127.0.0.1", "port": 1}]}"#).await;
    etcd.put("/trunkline/nodes/moved@lab", r#"{"endpoints": [{"host": "127.0.0.1", "port": 2}]}"#).await;
    let mut watch = resolver.watch().unwrap();
    while soon(watch.next()).await != Change::Current {}
    for compacts in [false, true] {
        door.freeze();
        door.cut();
        until(|| resolver.stale().is_some()).await;
        etcd.delete("/trunkline/nodes/gone@lab").await;
        let port = if compacts { 4 } else { 3 };
        let value = format!(r#"{{"endpoints": [{{"host": "127.0.0.1", "port": {port}}}]}}"#);
        etcd.put("/trunkline/nodes/moved@lab", &value).await;
        if compacts {
            etcd.compact().await;
        }
        door.thaw();
        let mut told = Vec::new();
        while told.last() != Some(&Change::Current) {
            told.push(soon(watch.next()).await);
        }
        assert_eq!(told[..1], [Change::Lost]);
        assert!(told.contains(&Change::Changed(Arc::new(at_port("moved@lab", port)))), "{told:?}");
        assert_eq!(resolver.stale(), None);
        assert_eq!(found(&*resolver, "gone@lab").await.unwrap().len(), usize::from(!compacts), "it may come back");
        if !compacts {
            assert_eq!(soon(watch.next()).await, Change::Left(name("gone@lab")));
        }
    }
}

/// Small generator of numbers, so that a history that fails can be made again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_etcd_tells_what_is_there_after_any_history() {
    // Each history has a prefix of its own. Those of one etcd are neither cut nor compacted: everything comes by one watch.
    let (even, rough) = (Member::alone().await, Member::alone().await);
    let mut histories = tokio::task::JoinSet::new();
    for seed in 0_u64..12 {
        let etcd = if seed.is_multiple_of(3) { &even } else { &rough };
        let door = Door::to(etcd.address()).await;
        let (own, client) = (etcd.address(), etcd.client().await);
        histories.spawn(history(seed, own, door, client));
    }
    while let Some(done) = histories.join_next().await {
        done.unwrap();
    }
}

/// Changes keys at random, cuts the connection and compacts, and compares what a watch tells with what is there.
async fn history(seed: u64, etcd: std::net::SocketAddr, door: Door, mut client: etcd_client::Client) {
    let prefix = format!("/history-{seed}");
    let registrar = |address: std::net::SocketAddr| {
        let mut settings = EtcdSettings::at(vec![endpoint(address).address]);
        settings.prefix = prefix.clone();
        Etcd::new(settings).resolver()
    };
    let mut dice = Dice(seed);
    let resolver = registrar(door.address);
    let mut watch = resolver.watch().unwrap();
    while soon(watch.next()).await != Change::Current {}
    let is_rough = !seed.is_multiple_of(3);
    for _ in 0..60 {
        let key = format!("{prefix}/nodes/n{}@lab", dice.below(5));
        match dice.below(12) {
            0..=5 => {
                let value = format!(r#"{{"endpoints": [{{"host": "h", "port": {}}}]}}"#, 1 + dice.below(4));
                soon(client.put(key, value, None)).await.unwrap();
            }
            6..=8 => drop(soon(client.delete(key, None)).await.unwrap()),
            9 => drop(soon(client.put(key, "nonsense", None)).await.unwrap()),
            10 if is_rough => door.cut(),
            _ if !is_rough => {}
            _ => {
                let now = soon(client.get("any", None)).await.unwrap().header().unwrap().revision();
                // Another history may have compacted more.
                let _ = soon(client.compact(now, None)).await;
            }
        }
    }
    // The end of a history is known by a name of its own. A client that has just begun reads what is there.
    let end = r#"{"endpoints": [{"host": "h", "port": 9}]}"#;
    soon(client.put(format!("{prefix}/nodes/end@lab"), end, None)).await.unwrap();
    let expected = soon(registrar(etcd).nodes()).await.unwrap();
    let mut told = BTreeMap::<NodeName, Registration>::new();
    soon(async {
        while told.values().cloned().collect::<Vec<_>>() != expected {
            match watch.next().await {
                Change::Joined(node) | Change::Changed(node) => {
                    drop(told.insert(node.name.clone(), Registration::clone(&node)));
                }
                Change::Left(name) => drop(told.remove(&name)),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(soon(resolver.nodes()).await, Ok(expected), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_in_etcd_that_is_nonsense_is_an_error_that_names_the_key_and_keeps_no_other_name_away() {
    let etcd = Member::alone().await;
    let registrar = etcd.registrar();
    let resolver = registrar.resolver();
    let lease = soon(registrar.register(at_port("db@lab", 1))).await.unwrap();
    is_found(&*resolver, "db@lab", &["127.0.0.1:1"]).await;
    for (key, value) in [("web@lab", "nonsense"), ("a@lab", r#"{"endpoints": [{"host": "h", "port": 0}]}"#)] {
        etcd.put(&format!("/trunkline/nodes/{key}"), value).await;
    }
    etcd.put("/trunkline/nodes/no name", "x").await;
    let error = soon(async {
        loop {
            if let Err(error) = found(&*resolver, "web@lab").await {
                break Chain(&error).to_string();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let error = error.await;
    assert!(error.contains("/trunkline/nodes/web@lab") && error.contains("at line 1 column"), "{error}");
    let cold = found(&*etcd.registrar().resolver(), "web@lab").await.unwrap_err();
    assert_eq!(Chain(&cold).to_string(), error, "with a mirror and without");
    assert_eq!(found(&*resolver, "db@lab").await, Ok(vec!["127.0.0.1:1".into()]));
    let names = soon(resolver.nodes()).await.unwrap().len();
    assert_eq!(names, 1);
    // A live node puts its own value back, whatever was written over it.
    etcd.put("/trunkline/nodes/db@lab", "nonsense").await;
    is_found(&*resolver, "db@lab", &["127.0.0.1:1"]).await;
    etcd.delete("/trunkline/nodes/").await;
    is_found(&*resolver, "db@lab", &["127.0.0.1:1"]).await;
    until(|| lease.is_held()).await;
    // A valid value without a lease is the decision of an operator.
    etcd.put("/trunkline/nodes/db@lab", r#"{"endpoints": [{"host": "127.0.0.1", "port": 9}]}"#).await;
    is_found(&*resolver, "db@lab", &["127.0.0.1:9"]).await;
    until(|| !lease.is_held()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_that_is_not_there_or_refuses_is_an_error_that_names_the_endpoint() {
    let silent = etcd_at(&[nobody()]);
    let error = found(&*silent.resolver(), "db@lab").await.unwrap_err();
    assert!(matches!(error, ResolveError::Unreachable(_)), "{error}");
    let error = Chain(&error).to_string();
    assert!(error.contains(&nobody_like(&silent)) && error.contains("refused"), "{error}");
    let error = soon(in_etcd("db@lab", &silent).start()).await.map(drop).unwrap_err();
    assert!(matches!(&error, StartError::Registrar(error) if error.is_unreachable()), "{error}");

    let etcd = Member::alone().await;
    let mut root = etcd.client().await;
    soon(root.user_add("root", "the root's", None)).await.unwrap();
    soon(root.user_grant_role("root", "root")).await.unwrap();
    soon(root.user_add("app", "an app's", None)).await.unwrap();
    soon(root.role_add("reads")).await.unwrap();
    let reads = etcd_client::Permission::read("/trunkline/").with_prefix();
    soon(root.role_grant_permission("reads", reads)).await.unwrap();
    soon(root.user_grant_role("app", "reads")).await.unwrap();
    soon(root.auth_enable()).await.unwrap();
    let with = |user: Option<(&str, &str)>| {
        let mut settings = EtcdSettings::at(vec![endpoint(etcd.address()).address]);
        let user = user.map(|(name, password)| (name.to_owned(), password.to_owned().into()));
        settings.user = user.map(|(name, password)| EtcdUser { name, password });
        Etcd::new(settings)
    };
    for (user, telling) in [(None, "a client without a user"), (Some(("app", "wrong")), "the user app")] {
        let error = found(&*with(user).resolver(), "db@lab").await.unwrap_err();
        let error = Chain(&error).to_string();
        assert!(error.contains(telling) && error.contains(&etcd.address().to_string()), "{error}");
    }
    // A user who may only read finds nodes, and cannot be registered.
    let root = with(Some(("root", "the root's")));
    let _lease = soon(root.register(at_port("db@lab", 1))).await.unwrap();
    let app = with(Some(("app", "an app's")));
    assert_eq!(found(&*app.resolver(), "db@lab").await, Ok(vec!["127.0.0.1:1".into()]));
    let error = soon(app.register(at_port("app@lab", 1))).await.map(drop).unwrap_err();
    assert!(matches!(&error, RegisterError::Refused(text) if text.contains("the user app")), "{error}");
    assert!(
        !format!("{app:?} {:?}", EtcdUser { name: "n".into(), password: "secret".to_owned().into() })
            .contains("secret")
    );
}

/// Returns the address of the only member of a registrar.
fn nobody_like(registrar: &Etcd) -> String {
    let shown = format!("{registrar:?}");
    shown.split('"').nth(1).expect("it shows its endpoints").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_with_tls_is_asked_by_clients_that_trust_it_and_that_it_trusts() {
    let (ours, directory) = (authority(), tempfile::tempdir().unwrap());
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let server = ours.issue(&name("etcd@lab"), &["localhost".parse().unwrap()], today(), 30).unwrap();
    let roots = file("ca.pem", ours.certificate());
    let certificate = file("server.pem", &server.certificate);
    let key = file("server.key", &server.key);
    let argument = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    let arguments = [
        argument("cert-file", &certificate),
        argument("key-file", &key),
        argument("trusted-ca-file", &roots),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Member::alone_with(&arguments).await;
    let with = |tls: Option<EtcdTls>| {
        let mut settings = EtcdSettings::at(vec![endpoint(etcd.address()).address]);
        settings.tls = tls;
        Etcd::new(settings)
    };
    let tls = EtcdTls {
        roots: Some(roots.clone()),
        identity: Some((certificate, key)),
        server_name: "localhost".parse().ok(),
    };
    let right = with(Some(tls.clone()));
    let _lease = soon(right.register(at_port("db@lab", 1))).await.unwrap();
    is_found(&*right.resolver(), "db@lab", &["127.0.0.1:1"]).await;
    let other = file("other.pem", authority().certificate());
    for (tls, telling) in [
        (Some(EtcdTls { roots: Some(other), ..tls.clone() }), "UnknownIssuer"),
        (Some(EtcdTls { roots: Some(directory.path().join("none.pem")), ..tls.clone() }), "none.pem cannot be read"),
        (Some(EtcdTls { identity: None, ..tls }), "etcd at"),
        (None, "etcd at"),
    ] {
        let error = found(&*with(tls).resolver(), "db@lab").await.unwrap_err();
        let error = Chain(&error).to_string();
        assert!(error.contains(telling) && error.contains(&etcd.address().to_string()), "{error}");
    }
}
