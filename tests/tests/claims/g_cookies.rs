//! Rotation of cookies, node by node.

use trunkline::{AccessPattern, AttemptError, Cookie, Cookies, Node};
use trunkline_tests::support::*;

fn old() -> Cookie {
    cookie("last year")
}

fn new() -> Cookie {
    cookie("this year").labelled("new").unwrap()
}

const NAMES: [&str; 3] = ["a@h", "b@h", "c@h"];

/// Starts a node at a fixed address, with routes to the others.
async fn node(of: usize, addresses: &[std::net::SocketAddr; 3], cookies: impl Into<Cookies>) -> Node {
    let mut builder = dialer(NAMES[of]).cookie(cookies).listen(addresses[of]);
    for (name, address) in NAMES.iter().zip(addresses) {
        builder = builder.route(format!("^{name}$"), route_at(*address), 1);
    }
    start(builder).await
}

/// Checks that every node reaches every other by a dial of its own.
async fn all_reach_all(nodes: &[Node]) {
    for from in nodes {
        for to in nodes.iter().filter(|to| to.name() != from.name()) {
            soon(from.connect(to.name())).await.unwrap_or_else(|e| panic!("{} to {}: {e}", from.name(), to.name()));
            let connection = from.connection(to.name()).unwrap();
            connection.disconnect();
            soon(connection.closed()).await;
            until(|| to.connection(from.name()).is_none()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_a_cookie_is_rotated_node_by_node_without_an_outage() {
    let addresses = [own_address(), own_address(), own_address()];
    let mut nodes = Vec::new();
    for of in 0..3 {
        nodes.push(node(of, &addresses, old()).await);
    }
    // First every node learns the new cookie, then every node shows it, then the old one is removed. In each step, one
    // node changes at a time.
    let steps = [Cookies::new(old()).also(new()), Cookies::new(new()).also(old()), Cookies::new(new())];
    for cookies in steps {
        for of in 0..3 {
            let left = nodes.remove(of);
            soon(left.shut_down(PATIENCE)).await;
            nodes.insert(of, node(of, &addresses, cookies.clone()).await);
            all_reach_all(&nodes).await;
        }
    }
    let behind = start(dialer("behind@h").cookie(old()).route("^a@", route_at(addresses[0]), 1)).await;
    assert_eq!(no_route(soon(behind.connect("a@h")).await).attempts[0].error, AttemptError::WrongCookie);
}

#[tokio::test(flavor = "multi_thread")]
async fn g12_cookies_of_peers_and_routes_are_rotated_too_and_a_link_by_either_is_accepted() {
    let partners = Cookies::new(new()).also(old());
    let app = |text: &str| AccessPattern::new(text).unwrap();
    let db = start(listener("db@h").peer(app("app@.*"), partners.clone())).await;
    for by in [old(), new()] {
        let node =
            dialer("app@h").peer(app("db@.*"), Cookies::new(by.clone()).also(if by == old() { new() } else { old() }));
        let node = start(node.listen(loopback()).route("^db@", route_to(&db).cookie(by.clone()), 1)).await;
        let connection = soon(node.connect("db@h")).await.unwrap();
        assert_eq!(connection.info().cookie, by);
        // The peer's own route requires the other of the two cookies, and the peer accepts the existing link.
        let other = if by == old() { new() } else { old() };
        db.add_route("^app@", route_to(&node).cookie(other), 1).unwrap();
        until(|| db.connection("app@h").is_some()).await;
        let link = soon(db.connect("app@h")).await.unwrap().info().id;
        assert_eq!(link, connection.info().id);
        db.remove_route("^app@").unwrap();
        soon(node.shut_down(PATIENCE)).await;
    }
    let stranger = start(dialer("app@h").route("^db@", route_to(&db), 1)).await;
    assert_eq!(no_route(soon(stranger.connect("db@h")).await).attempts[0].error, AttemptError::WrongCookie);
}
