//! G: routes that form a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use trunkline::{
    Address, CallError, ClusterRole, ClusterWelcome, ConnectError, Cookies, MESH_MAILBOX, Node, NodeBuilder,
    ProxyRoute, StartError, TokenError,
};
use trunkline_tests::support::*;

const SOON: Duration = Duration::from_secs(10);

fn route(to: SocketAddr) -> Address {
    Address::new(to.ip().to_string(), to.port()).unwrap()
}

fn route_of(node: &Node) -> Address {
    route(address(node))
}

/// A member that listens there and has these routes.
fn member(text: &str, at: SocketAddr, routes: &[SocketAddr]) -> NodeBuilder {
    dialer(text).listen(at).cluster("lab", routes.iter().map(|to| route(*to)))
}

fn is_connected(node: &Node, others: &[&str]) -> bool {
    let up = node.cluster().unwrap().status().peers;
    others.iter().all(|other| up.iter().any(|peer| peer.is_up && peer.name == name(other)))
}

/// Waits until each of the nodes is connected to each other one, and checks that every pair talks.
async fn full(nodes: &[&Node]) {
    let names: Vec<String> = nodes.iter().map(|node| node.name().to_string()).collect();
    for (at, node) in nodes.iter().enumerate() {
        let others: Vec<&str> = names.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, n)| n.as_str()).collect();
        until(|| is_connected(node, &others)).await;
        for other in others {
            soon(node.ping(other, SOON)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn g2_the_route_of_one_side_carries_traffic_both_ways() {
    let b = start(member("b@lab", loopback(), &[])).await;
    let a = start(member("a@lab", loopback(), &[address(&b)])).await;
    full(&[&a, &b]).await;
    answers(&a, "echo");
    assert!(!soon(b.call("a@lab", "echo", "x", SOON)).await.unwrap().is_empty());
    let status = a.cluster().unwrap().status();
    assert_eq!((status.cluster.as_str(), &status.routes[0].names[..]), ("lab", &[name("b@lab")][..]));
}

#[tokio::test]
async fn g3_two_nodes_without_routes_are_connected_by_a_third_that_has_both() {
    let (two, three) = (start(member("2@lab", loopback(), &[])).await, start(member("3@lab", loopback(), &[])).await);
    let one = start(member("1@lab", loopback(), &[address(&two), address(&three)])).await;
    full(&[&one, &two, &three]).await;
}

#[tokio::test]
async fn g4_a_chain_that_starts_at_once_is_a_mesh() {
    let at: Vec<SocketAddr> = (0..5).map(|_| own_address()).collect();
    let mut nodes = Vec::new();
    for n in 0..5 {
        // The next one does not listen yet.
        let routes: Vec<SocketAddr> = at.get(n + 1).copied().into_iter().collect();
        nodes.push(start(member(&format!("n{n}@lab"), at[n], &routes)).await);
    }
    full(&nodes.iter().collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn g4_members_that_cannot_dial_each_other_are_connected_through_one_that_both_can() {
    let b = start(member("b@lab", loopback(), &[])).await;
    let alone = |text: &str| dialer(text).cluster("lab", [route(address(&b))]);
    let (a, c) = (start(alone("a@lab")).await, start(alone("c@lab")).await);
    full(&[&a, &b, &c]).await;
    assert_eq!(a.connection("c@lab").unwrap().info().via, Some(name("b@lab")));
    // A node outside the cluster is not passed on.
    let outside = start(dialer("x@lab").route("^b@", route_to(&b), 1)).await;
    let way = trunkline::ProxyRoute::via(name("b@lab"));
    outside.add_proxy_route("^c@", way, 1).unwrap();
    soon(outside.connect("c@lab")).await.unwrap_err();
}

#[tokio::test]
async fn a_connection_through_another_member_becomes_a_direct_one_when_that_is_possible() {
    let b = start(member("b@lab", loopback(), &[])).await;
    // It is told to others at an address where nobody answers yet.
    let told = own_address();
    let listen = trunkline::Listen::at(loopback()).advertise(route(told));
    let c = start(dialer("c@lab").listen(listen).cluster("lab", [route(address(&b))])).await;
    let a = start(dialer("a@lab").cluster("lab", [route(address(&b))])).await;
    full(&[&a, &b, &c]).await;
    let via = |node: &Node, other: &str| node.connection(other).and_then(|connection| connection.info().via);
    assert_eq!(via(&a, "c@lab"), Some(name("b@lab")));
    let _door = Door::at(told, address(&c)).await;
    until(|| via(&a, "c@lab").is_none() && via(&c, "a@lab").is_none()).await;
    full(&[&a, &b, &c]).await;
}

#[tokio::test]
async fn g4_only_neighbours_can_dial_each_other_and_every_node_reaches_every_other_one() {
    let names: Vec<String> = (0..5).map(|n| format!("n{n}@lab")).collect();
    let at: Vec<SocketAddr> = (0..5).map(|_| own_address()).collect();
    let mut nodes = Vec::new();
    for n in 0..5usize {
        let next: Vec<Address> = at.get(n + 1).copied().map(route).into_iter().collect();
        let near = (n.saturating_sub(1)..=n + 1).filter_map(|n| names.get(n));
        let near = near.map(|name| trunkline::AccessPattern::new(name).unwrap()).collect();
        let everybody = vec![trunkline::AccessPattern::new(".*").unwrap()];
        let proxied = trunkline::Proxied { allow: Some(everybody), ..trunkline::Proxied::default() };
        let node = dialer(&names[n]).listen(trunkline::Listen::at(at[n]).allow(near)).proxied(proxied);
        nodes.push(start(node.cluster("lab", next)).await);
    }
    full(&nodes.iter().collect::<Vec<_>>()).await;
    let vias = nodes[0].nodes().into_iter().filter(|(info, _)| info.via.is_some()).count();
    assert_eq!(vias, 3);
}

#[tokio::test]
async fn g5_the_others_still_talk_when_the_node_with_all_the_routes_drops_out_and_one_of_them_comes_back() {
    let at = own_address();
    let (two, three) = (start(member("2@lab", at, &[])).await, start(member("3@lab", loopback(), &[])).await);
    let one = start(member("1@lab", loopback(), &[address(&two), address(&three)])).await;
    full(&[&one, &two, &three]).await;
    crash(one).await;
    full(&[&two, &three]).await;
    // It has no route, and the only node that had one is gone: the other one dials it again.
    crash(two).await;
    until(|| !is_connected(&three, &["2@lab"])).await;
    let two = start(member("2@lab", at, &[])).await;
    full(&[&two, &three]).await;
}

#[tokio::test]
async fn g12_a_member_stays_one_while_the_cookie_of_the_cluster_changes_node_by_node() {
    let (old, new) = (cookie("last year"), cookie("this year").labelled("new").unwrap());
    let (only_old, both) = (Cookies::new(old.clone()), Cookies::new(old.clone()).also(new.clone()));
    let steps = [both, Cookies::new(new.clone()).also(old), Cookies::new(new)];
    let at = [own_address(), own_address(), own_address()];
    // One node has the routes, and they stay as they are.
    let node = |n: usize, cookies: &Cookies| {
        let routes = if n == 0 { &at[1..] } else { &[] };
        start(member(&format!("n{n}@lab"), at[n], routes).cookie(cookies.clone()))
    };
    let mut nodes = Vec::new();
    for n in 0..3 {
        nodes.push(node(n, &only_old).await);
    }
    full(&nodes.iter().collect::<Vec<_>>()).await;
    for cookies in steps {
        for n in 0..3 {
            crash(nodes.remove(n)).await;
            // The others talk meanwhile.
            full(&nodes.iter().collect::<Vec<_>>()).await;
            nodes.insert(n, node(n, &cookies).await);
            full(&nodes.iter().collect::<Vec<_>>()).await;
        }
    }
}

#[tokio::test]
async fn a_new_node_that_knows_one_ordinary_member_is_connected_to_all() {
    let seed = start(member("seed@lab", loopback(), &[])).await;
    let a = start(member("a@lab", loopback(), &[address(&seed)])).await;
    let b = start(member("b@lab", loopback(), &[address(&seed)])).await;
    full(&[&seed, &a, &b]).await;
    let late = start(member("late@lab", loopback(), &[address(&b)])).await;
    full(&[&seed, &a, &b, &late]).await;
    // Whoever dialled, nobody had a route to this pair: the address came from another member.
    let dialled = [&late, &a]
        .map(|node| node.connection(if node.name() == a.name() { "late@lab" } else { "a@lab" }).unwrap().info());
    let resolver = dialled.iter().find_map(|info| info.resolver.clone()).unwrap();
    assert_eq!(resolver.to_string(), "cluster");
}

#[tokio::test]
async fn a_node_that_comes_back_finds_the_others_by_its_book_when_the_seed_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let book = directory.path().join("cluster.json");
    let (at, b_at, seed_at) = (own_address(), own_address(), own_address());
    let seed = start(member("seed@lab", seed_at, &[])).await;
    let a = start(member("a@lab", at, &[seed_at])).await;
    let b = || member("b@lab", b_at, &[seed_at]).cluster_book(&book);
    let first = start(b()).await;
    full(&[&seed, &a, &first]).await;
    until(|| std::fs::read_to_string(&book).is_ok_and(|text| text.contains("a@lab"))).await;
    for node in [first, seed, a] {
        crash(node).await;
    }
    // It knows nobody, and its old address is in the book alone.
    let a = start(member("a@lab", at, &[])).await;
    let second = start(b()).await;
    full(&[&a, &second]).await;
    crash(second).await;

    // A broken book costs the memory of members, and nothing else: here the other one dials.
    std::fs::write(&book, "{ broken").unwrap();
    let third = start(b()).await;
    full(&[&a, &third]).await;
    until(|| std::fs::read_to_string(&book).is_ok_and(|text| text.contains("a@lab"))).await;
}

#[tokio::test]
async fn routes_change_at_once_and_a_route_that_goes_disconnects_nobody() {
    let b = start(member("b@lab", loopback(), &[])).await;
    let a = start(member("a@lab", loopback(), &[])).await;
    let cluster = a.cluster().unwrap();
    cluster.set_routes(vec![route(address(&b))]);
    full(&[&a, &b]).await;
    let id = a.connection("b@lab").unwrap().info().id;
    cluster.set_routes(Vec::new());
    // A third one joins by that member, which takes several round trips.
    let c = start(member("c@lab", loopback(), &[address(&a)])).await;
    full(&[&a, &b, &c]).await;
    assert_eq!(a.connection("b@lab").unwrap().info().id, id);
    assert!(is_connected(&a, &["b@lab"]) && cluster.status().routes.is_empty());
}

#[tokio::test]
async fn a_route_says_why_nobody_is_found_there() {
    let stranger = start(member("x@lab", loopback(), &[]).cookie(cookie("another cluster"))).await;
    let other = start(listener("o@lab").cluster("other", [])).await;
    let node = start(member("a@lab", loopback(), &[])).await;
    let (nobody_at, own) = (nobody(), route(address(&node)));
    let cluster = node.cluster().unwrap();
    let routes = [nobody_at, address(&stranger), address(&other)].map(route).into_iter();
    cluster.set_routes(routes.chain([own.clone()]).collect());
    let status = || cluster.status();
    let error = |at: SocketAddr| {
        let routes = status().routes;
        routes.into_iter().find(|known| known.address == route(at)).and_then(|known| known.last_error)
    };
    until(|| error(address(&stranger)).is_some_and(|error| error.contains("cookie"))).await;
    until(|| status().peers.iter().any(|peer| peer.other_cluster.as_deref() == Some("other") && !peer.is_up)).await;
    until(|| status().routes.iter().any(|known| known.address == own && known.names == [name("a@lab")])).await;
    until(|| error(nobody_at).is_some_and(|error| error.contains("TCP"))).await;
}

#[tokio::test]
async fn a_cluster_has_a_name() {
    let refused = dialer("a@lab").cluster("", []).start().await.unwrap_err();
    assert!(matches!(refused, StartError::Cluster(_)));
    assert_eq!(refused.to_string(), "the name of a cluster has 1 to 64 bytes, this one has 0");
}

#[tokio::test]
async fn a_node_with_a_cookie_of_its_own_is_no_member_whatever_it_says() {
    let partner_cookie = cookie("the partner");
    let peers = trunkline::AccessPattern::new("partner@.*").unwrap();
    let member = start(member("m@lab", loopback(), &[]).peer(peers, partner_cookie.clone())).await;
    let partner =
        dialer("partner@lab").cookie(partner_cookie).listen(loopback()).cluster("lab", [route(address(&member))]);
    let partner = start(partner).await;
    soon(partner.connect("m@lab")).await.unwrap_err();
    partner.add_route("^m@", route_to(&member), 1).unwrap();
    soon(partner.connect("m@lab")).await.unwrap();
    soon(partner.ping("m@lab", SOON)).await.unwrap();
    assert!(member.cluster().unwrap().status().peers.is_empty());
}

#[tokio::test]
async fn a_member_that_was_disconnected_stays_so_until_somebody_connects() {
    let b = start(member("b@lab", loopback(), &[])).await;
    let a = start(member("a@lab", loopback(), &[address(&b)])).await;
    full(&[&a, &b]).await;
    a.cluster().unwrap().set_routes(Vec::new());
    a.connection("b@lab").unwrap().disconnect();
    until(|| !is_connected(&a, &["b@lab"]) && !is_connected(&b, &["a@lab"])).await;
    let next = |node: &Node| node.cluster().unwrap().status().peers[0].next_dial;
    assert_eq!((next(&a), next(&b)), (None, None));
    soon(b.connect("a@lab")).await.unwrap();
    full(&[&a, &b]).await;
}

#[tokio::test]
async fn a_guest_with_a_token_reaches_nothing_but_the_way_in() {
    let patterns = vec![trunkline::AccessPattern::new("m.*").unwrap()];
    let issuer =
        start(dialer("m@lab").listen(trunkline::Listen::at(loopback()).allow(patterns)).cluster("lab", [])).await;
    answers(&issuer, "echo");
    let cluster = issuer.cluster().unwrap();
    let token = cluster.issue_token(Duration::from_secs(60)).unwrap();
    let guest = || dialer(token.guest().as_str()).cookie(token.cookie());
    let route = || route_at(address(&issuer));
    // A stranger cannot come in under the name of the guest.
    let stranger = start(dialer(token.guest().as_str()).cookie(cookie("wrong"))).await;
    soon(stranger.connect_with("m@lab", route())).await.unwrap_err();
    let node = start(guest()).await;
    let connection = soon(node.connect_with("m@lab", route())).await.unwrap();
    assert!(matches!(soon(connection.call("echo", "", b"x", SOON)).await, Err(CallError::NoMailbox)));
    let join = async |name: &str| {
        let request = ClusterWelcome::request(&trunkline_tests::support::name(name));
        ClusterWelcome::read(&soon(connection.call(MESH_MAILBOX, "", &request, SOON)).await.unwrap())
    };
    let taken = join("m@lab").await.unwrap_err();
    assert!(taken.to_string().contains("a member of the cluster has the name m@lab"), "{taken}");
    let welcome = join("n@lab").await.unwrap();
    assert_eq!((welcome.cluster.as_str(), &welcome.routes), ("lab", &vec![route_of(&issuer)]));
    let used = join("o@lab").await.unwrap_err();
    assert!(used.to_string().contains("used by n@lab"), "{used}");
    assert!(matches!(cluster.revoke_token(&token.id()), Err(TokenError::Used(name)) if name == "n@lab"));
    // Nobody else has a way in there, and the guest is no member.
    assert!(matches!(soon(connection.call("echo", "", b"x", SOON)).await, Err(CallError::NoMailbox)));
    assert!(cluster.status().peers.is_empty());
}

#[tokio::test]
async fn a_node_outside_the_cluster_is_connected_and_no_member() {
    let member = start(member("m@lab", loopback(), &[])).await;
    let client = start(dialer("c@lab").route("^m@", route_to(&member), 1)).await;
    soon(client.connect("m@lab")).await.unwrap();
    answers(&member, "echo");
    assert!(!soon(client.call("m@lab", "echo", "x", SOON)).await.unwrap().is_empty());
    assert!(member.cluster().unwrap().status().peers.iter().all(|peer| !peer.is_up));
    assert!(client.cluster().is_none());
    let unknown = soon(member.connect("nobody@lab")).await.unwrap_err();
    assert!(matches!(unknown, ConnectError::NoRoute(_)), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_reaches_every_member_and_is_reached_through_the_one_it_is_connected_to() {
    let one = start(member("1@lab", loopback(), &[])).await;
    let two = start(member("2@lab", loopback(), &[address(&one)])).await;
    full(&[&one, &two]).await;
    let leaf = |text: &str, to: &[&Node]| dialer(text).cluster_leaf("lab", to.iter().map(|node| route_of(node)));
    let a = start(leaf("a@lab", &[&one])).await;
    let b = start(leaf("b@lab", &[&two])).await;
    until(|| is_connected(&a, &["1@lab"]) && is_connected(&b, &["2@lab"])).await;
    let knows = |node: &Node, other: &str| node.cluster().unwrap().is_led_to(&name(other));
    until(|| knows(&one, "b@lab") && knows(&two, "a@lab")).await;
    // A leaf and a member, both ways, and two leaves of different members.
    for (from, to) in [(&a, "2@lab"), (&two, "a@lab"), (&a, "b@lab"), (&b, "a@lab")] {
        soon(from.ping(to, SOON)).await.unwrap();
    }
    // What a leaf reached through others it does not count among its connections, and does not dial by itself.
    let direct = |node: &Node| node.nodes().into_iter().filter(|(info, _)| info.via.is_none()).count();
    assert_eq!((direct(&a), direct(&b)), (1, 1));
    assert_eq!(a.cluster().unwrap().status().role, ClusterRole::Leaf);
    let seen = two.cluster().unwrap().member(&name("a@lab")).unwrap();
    assert_eq!((seen.role, seen.endpoints), (ClusterRole::Leaf, vec![]));

    // It has another hub when its own is gone and another route is set.
    drop(one);
    until(|| a.nodes().is_empty()).await;
    a.cluster().unwrap().set_routes(vec![route_of(&two)]);
    until(|| is_connected(&a, &["2@lab"])).await;
    soon(a.ping("b@lab", SOON)).await.unwrap();
}

#[expect(clippy::disallowed_methods, reason = "the least time until the answer is what the bound is about")]
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_floods_waits_for_its_turn_and_holds_up_nobody_else() {
    let a = start(member("a@lab", loopback(), &[])).await;
    let b = start(member("b@lab", loopback(), &[address(&a)])).await;
    let bad = start(member("bad@lab", loopback(), &[address(&a)])).await;
    full(&[&a, &b, &bad]).await;
    let (honest, flood) = (b.connection("a@lab").unwrap(), bad.connection("a@lab").unwrap());
    let began = tokio::time::Instant::now();
    // 200 are read at once, and 20 in a second: the question behind them waits for 3 s.
    for _ in 0..260 {
        soon(flood.send(MESH_MAILBOX, "", b"nonsense")).await.unwrap();
    }
    // Version 1, variant 4: the question what the other one sees.
    let question = [1, 4];
    let mut last = std::pin::pin!(flood.call(MESH_MAILBOX, "", &question, 2 * SOON));
    tokio::select! {
        biased;
        answer = &mut last => panic!("it came before its turn: {answer:?}"),
        answer = honest.call(MESH_MAILBOX, "", &question, SOON) => drop(answer.unwrap()),
    }
    last.await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2_500), "{took:?}");
    // Nothing is left of it.
    soon(bad.ping("a@lab", SOON)).await.unwrap();
    assert!(!a.cluster().unwrap().network(SOON).await.nodes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_calls_a_node_a_leaf_does_not_come_to_it_through_another_member() {
    let victim = start(listener("victim@elsewhere")).await;
    let gate = start(member("gate@lab", loopback(), &[]).route("^victim@", route_to(&victim), 1)).await;
    let bad = start(member("bad@lab", loopback(), &[address(&gate)])).await;
    full(&[&gate, &bad]).await;
    bad.add_proxy_route("^victim@", ProxyRoute::via(name("gate@lab")), 1).unwrap();
    let refused = no_route(soon(bad.connect("victim@elsewhere")).await);
    assert!(refused.to_string().contains("gate@lab"), "{refused}");
    // Version 1, variant 1, one record: the name, an incarnation, no endpoints, a leaf.
    let text = "victim@elsewhere";
    let record = [&[1, 1, 1, text.len() as u8], text.as_bytes(), &[9; 16], &[0, 1]].concat();
    soon(bad.connection("gate@lab").unwrap().send(MESH_MAILBOX, "", &record)).await.unwrap();
    until(|| gate.cluster().unwrap().is_led_to(&name(text))).await;
    let refused = no_route(soon(bad.connect(text)).await);
    assert!(refused.to_string().contains("gate@lab"), "{refused}");
    assert!(victim.nodes().is_empty());
    // The gate itself has its route.
    soon(gate.ping(text, SOON)).await.unwrap();
}
