//! Trust between peers, and its limits.

use trunkline::{AccessPattern, AttemptError, Endpoint, Listen, Role};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn a8_an_answer_cannot_turn_off_the_certificate_checks_a_node_demands() {
    let db = start(listener(DB)).await;
    let discovery = Discovery::new();
    discovery.set_endpoints(DB, vec![Endpoint { tls: Some(false), ..endpoint(address(&db)) }]);
    let app = start(asking("app@127.0.0.1", &discovery).tls(true)).await;
    let failed = no_route(soon(app.connect(DB)).await);
    assert!(matches!(failed.attempts[0].error, AttemptError::Tls(_)), "{failed}");
    assert!(db.nodes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inbound_connection_is_used_for_its_name() {
    let strict = dialer(DB).tls(true).listen(Listen::at(loopback()));
    let of_its_own = dialer(DB).listen(Listen::at(loopback()).cookie(cookie("listener")));
    for (server, secret) in [(strict, cookie("node")), (of_its_own, cookie("listener"))] {
        let db = start(server.cookie(cookie("node"))).await;
        let app = start(dialer("app@127.0.0.1").cookie(secret).route("^db@", route_to(&db), 1)).await;
        let (mut events, mut mailbox) = (db.events(), app.register("inbox").unwrap());
        let out = soon(app.connect(DB)).await.unwrap();
        up(&mut events, "app@127.0.0.1").await;
        soon(db.send("app@127.0.0.1", "inbox", b"back")).await.unwrap();
        assert_eq!(text(&mut mailbox).await, "back");
        let back = soon(db.connect("app@127.0.0.1")).await.unwrap();
        assert_eq!((back.info().id, back.info().role), (out.info().id, Role::Responder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ends_that_both_verify_agree_on_one_link() {
    let authority = authority();
    let (id, roots) = (profile_id("ours"), trusting(&authority));
    let a = start(certified(&authority, "a@127.0.0.1").tls_profile(id.clone(), roots.clone())).await;
    let b = start(certified(&authority, "b@127.0.0.1").tls_profile(id.clone(), roots)).await;
    a.add_route("^b@", route_to(&b).tls(true).tls_profile(id.clone()), 1).unwrap();
    b.add_route("^a@", route_to(&a).tls(true).tls_profile(id), 1).unwrap();
    soon(a.connect("b@127.0.0.1")).await.unwrap();
    let second = soon(b.connect("a@127.0.0.1")).await.unwrap().info().id;
    until(|| a.connection("b@127.0.0.1").is_some_and(|c| c.info().id == second)).await;
    for _ in 0..3 {
        assert_eq!(soon(a.connect("b@127.0.0.1")).await.unwrap().info().id, second);
        assert_eq!(soon(b.connect("a@127.0.0.1")).await.unwrap().info().id, second);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_a_peers_entry_claims_is_dialled_under_that_cookie_only() {
    let partner = || AccessPattern::new("partner@.*").unwrap();
    let impostor = start(listener("partner@127.0.0.1").cookie(cookie("node"))).await;
    let real = start(listener("partner@127.0.0.1").cookie(cookie("partner"))).await;
    let app = dialer("app@127.0.0.1").cookie(cookie("node")).peer(partner(), cookie("partner"));
    let app = start(app.route("^partner@", route_to(&impostor), 2)).await;
    let failed = no_route(soon(app.connect("partner@127.0.0.1")).await);
    assert_eq!(failed.attempts[0].error, AttemptError::WrongCookie);
    app.add_route("partner@", route_to(&real), 1).unwrap();
    let connection = soon(app.connect("partner@127.0.0.1")).await.unwrap();
    assert_eq!(connection.info().address, address(&real));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_this_nodes_own_name_is_refused() {
    let db = start(listener(DB)).await;
    let twin = start(dialer(DB).route(".", route_to(&db), 1)).await;
    // The dial is for another name at the same place; the caller's name alone decides.
    let failed = no_route(soon(twin.connect("other@127.0.0.1")).await);
    assert_eq!(failed.attempts.len(), 1, "{failed}");
    let caller = start(dialer("other@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    soon(caller.connect(DB)).await.unwrap();
    let own = db.connection(DB).unwrap();
    assert_eq!(own.info().version.protocol(), "LOCAL", "under its own name the node reaches itself alone");
    assert!(db.nodes().iter().all(|(info, _)| info.peer != name(DB)));
}
