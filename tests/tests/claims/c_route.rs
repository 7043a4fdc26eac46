use trunkline::{AttemptError, Role, TlsMode, TlsProfileId, Version};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn c1_host_and_port_are_used_as_given() {
    let host = own_host();
    let db = start(dialer("db@example.com").listen(std::net::SocketAddr::from((host, 0)))).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    let connection = soon(app.connect("db@example.com")).await.unwrap();
    assert_eq!(connection.info().address, address(&db));
    assert_eq!(connection.info().address.ip(), Some(host.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_tls_true_checks_the_certificate_and_tls_false_does_not() {
    let (ours, theirs) = (authority(), authority());
    let certified = start(certified(&ours, DB)).await;
    let self_signed = start(listener(DB)).await;
    let (our_id, their_id) = (profile_id("ours"), profile_id("theirs"));
    let app = |caller: &str| {
        dialer(caller).tls_profile(our_id.clone(), trusting(&ours)).tls_profile(their_id.clone(), trusting(&theirs))
    };
    let checked = |db, id: &TlsProfileId| route_to(db).tls(true).tls_profile(id.clone());

    let node = start(app("checks@127.0.0.1").route("^db@", checked(&certified, &our_id), 1)).await;
    assert_eq!(soon(node.connect(DB)).await.unwrap().info().tls, TlsMode::Verify(Some(our_id.clone())));
    for route in [checked(&certified, &their_id), checked(&self_signed, &our_id)] {
        let node = start(app("refuses@127.0.0.1").route("^db@", route, 1)).await;
        let error = no_route(soon(node.connect(DB)).await);
        assert!(matches!(error.attempts[0].error, AttemptError::Tls(_)), "{error}");
    }
    for db in [&certified, &self_signed] {
        let node = start(app("trusts@127.0.0.1").tls(true).route("^db@", route_to(db).tls(false), 1)).await;
        assert_eq!(soon(node.connect(DB)).await.unwrap().info().tls, TlsMode::CookieOnly);
        node.shut_down(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_without_a_version_the_nodes_own_default_is_used() {
    let db = start(listener(DB)).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().version, Version::native(1));
    let default = Version::new("OTHER", 3).unwrap();
    let app = start(dialer("other@127.0.0.1").handshake(default).route("^db@", route_to(&db), 1)).await;
    let error = no_route(soon(app.connect(DB)).await);
    assert!(error.attempts[0].error.to_string().contains("OTHER/3"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_an_unknown_version_is_named_and_the_next_route_is_tried() {
    let db = start(listener(DB)).await;
    let strange = route_to(&db).version(Version::native(9));
    let app = start(dialer("app@127.0.0.1").route("^db@", strange, 2).route("db", route_to(&db), 1)).await;
    let mut events = app.events();
    soon(app.connect(DB)).await.unwrap();
    let failed = up(&mut events, DB).await;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].error.stage(), "version");
    assert!(failed[0].error.to_string().contains("TLK/9"), "{}", failed[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_the_cookie_of_a_route_replaces_the_nodes_in_both_directions() {
    let secret = || cookie("this route");
    let (same, other) = (start(listener(DB).cookie(secret())).await, start(listener("web@127.0.0.1")).await);
    let app = dialer("app@127.0.0.1")
        .route("^db@", route_to(&same).cookie(secret()), 1)
        .route("^web@", route_to(&other), 1)
        .route("^stranger@", route_to(&other).cookie(secret()), 1);
    let app = start(app).await;
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().cookie, secret());
    assert_eq!(soon(app.connect("web@127.0.0.1")).await.unwrap().info().cookie, cookie("all"), "that one alone");

    // The dialling end refuses a listener that lacks the route's cookie, and the listener refuses a caller that lacks
    // its own.
    let node_cookie = start(listener("stranger@127.0.0.1")).await;
    let by_route = route_to(&node_cookie).cookie(secret());
    let error = no_route(soon(app.connect_with("stranger@127.0.0.1", by_route)).await);
    assert_eq!(error.attempts[0].error, AttemptError::WrongCookie);
    let by_node = route_to(&same);
    let caller = start(dialer("caller@127.0.0.1")).await;
    assert_eq!(no_route(soon(caller.connect_with(DB, by_node)).await).attempts[0].error, AttemptError::WrongCookie);
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_two_routes_with_two_authorities_work_side_by_side_and_refuse_the_others_server() {
    let (one, two) = (authority(), authority());
    let (first, second) = (start(certified(&one, DB)).await, start(certified(&two, "web@127.0.0.1")).await);
    let (id1, id2) = (profile_id("one"), profile_id("two"));
    let app = dialer("app@127.0.0.1")
        .tls_profile(id1.clone(), trusting(&one))
        .tls_profile(id2.clone(), trusting(&two))
        .route("^db@", route_to(&first).tls(true).tls_profile(id1.clone()), 1)
        .route("^web@", route_to(&second).tls(true).tls_profile(id2.clone()), 1);
    let app = start(app).await;
    let crossed = [
        (DB, route_to(&first).tls(true).tls_profile(id2)),
        ("web@127.0.0.1", route_to(&second).tls(true).tls_profile(id1)),
    ];
    for (name, route) in crossed {
        let error = no_route(soon(app.connect_with(name, route)).await);
        assert_eq!(error.attempts[0].error.stage(), "tls", "{error}");
    }
    soon(app.connect(DB)).await.unwrap();
    soon(app.connect("web@127.0.0.1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_skipping_the_check_is_per_route() {
    let (lax, strict) = (start(listener(DB)).await, start(listener("web@127.0.0.1")).await);
    let id = profile_id("ours");
    let demanding = |node| route_to(node).tls(true).tls_profile(id.clone());
    let app = dialer("app@127.0.0.1")
        .tls_profile(id.clone(), trusting(&authority()))
        .route("^db@", demanding(&lax).insecure_skip_verify(true), 1)
        .route("^web@", demanding(&strict), 1);
    let app = start(app).await;
    soon(app.connect(DB)).await.unwrap();
    assert_eq!(no_route(soon(app.connect("web@127.0.0.1")).await).attempts[0].error.stage(), "tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn c14_a_peer_of_another_name_is_refused_and_the_next_route_tried() {
    let (other, db) = (start(listener("other@127.0.0.1")).await, start(listener(DB)).await);
    let app = dialer("app@127.0.0.1").route("^db@", route_to(&other), 2).route("db", route_to(&db), 1);
    let app = start(app).await;
    let mut events = app.events();
    let connection = soon(app.connect(DB)).await.unwrap();
    assert_eq!((connection.peer(), connection.info().role), (name(DB), Role::Initiator));
    let failed = up(&mut events, DB).await;
    assert_eq!(addresses(&failed), [address(&other).to_string()]);
    assert_eq!(failed[0].error, AttemptError::WrongName { actual: "other@127.0.0.1".into() });
    assert!(other.nodes().is_empty());
}
