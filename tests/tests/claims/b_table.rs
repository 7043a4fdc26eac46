use trunkline::{
    AccessPattern, AddError, Candidate, Chain, NoRoute, Node, Origin, ProxyRoute, Reason, RemoveError, Transit,
    TransitRule,
};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

fn patterns(found: Result<Vec<Candidate>, NoRoute>) -> Vec<String> {
    found.map(|found| found.iter().map(|c| c.pattern.to_string()).collect()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_a_pattern_is_searched_anywhere_in_the_name() {
    let db = start(listener("eu-prod-db@example.com.au")).await;
    let app = start(dialer("app@127.0.0.1").route("prod-db@example.com", route_to(&db), 1)).await;
    soon(app.connect("eu-prod-db@example.com.au")).await.unwrap();
    assert_eq!(patterns(app.route(&name("prod-db@exampleXcom"))), ["prod-db@example.com"], "a dot is any character");
    assert!(app.route(&name("Prod-db@example.com")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_anchors_match_the_whole_name_only() {
    let db = start(listener("prod-db@example.com")).await;
    let app = start(dialer("app@127.0.0.1").route("^prod-db@example.com$", route_to(&db), 1)).await;
    soon(app.connect("prod-db@example.com")).await.unwrap();
    for other in ["eu-prod-db@example.com", "prod-db@example.com.au"] {
        assert_eq!(no_route(soon(app.connect(other)).await).reason, Reason::NoCandidate);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_the_worked_example_holds() {
    let app = start(dialer("app@127.0.0.1")).await;
    let all = ["database@prod", "prod-.*", ".*@example.com", "^prod-db[0-9]+@example.com$"];
    for pattern in all {
        app.add_route(pattern, route_at(nobody()), 100).unwrap();
    }
    assert_eq!(patterns(app.route(&name("prod-db2@example.com"))), all[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_matches_come_by_descending_weight_and_equal_ones_in_the_order_added() {
    let app = start(dialer("app@127.0.0.1")).await;
    let hosts: Vec<_> = (0..6).map(|_| nobody()).collect();
    for (n, (pattern, weight)) in [("z", 5), ("d", 5), ("b", 9), ("@", 5), ("^db", -1), ("db", 9)].iter().enumerate() {
        app.add_route(pattern, route_at(hosts[n]), *weight).unwrap();
    }
    assert_eq!(patterns(app.route(&name(DB))), ["b", "db", "d", "@", "^db"]);
    let tried = no_route(soon(app.connect(DB)).await).attempts;
    assert_eq!(addresses(&tried), [2, 5, 1, 3, 4].map(|n: usize| hosts[n].to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_an_existing_pattern_is_refused_and_its_route_unchanged() {
    let (first, second) = (start(listener(DB)).await, Door::silent().await);
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&first), 10)).await;
    let before = app.route(&name(DB)).unwrap();
    for weight in [1, 10, 1000] {
        let taken = app.add_route("^db@", route_at(second.address), weight);
        assert_eq!(taken, Err(AddError::Taken("^db@".into())));
    }
    assert_eq!(app.route(&name(DB)).unwrap(), before);
    soon(app.connect(DB)).await.unwrap();
    assert_eq!(second.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b6_a_pattern_that_does_not_compile_is_refused_and_shows_where() {
    let app = start(dialer("app@127.0.0.1")).await;
    let error = app.add_route("^db@(one|two", route_at(nobody()), 10).unwrap_err();
    assert!(matches!(error, AddError::BadPattern(_)));
    let shown = Chain(&error).to_string();
    assert!(shown.contains("^db@(one|two") && shown.contains("at byte 4"), "{shown}");
    assert_eq!(app.routes().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b7_two_patterns_that_match_the_same_name_are_both_kept() {
    let db = start(listener("prod-db@example.com")).await;
    let app = dialer("app@127.0.0.1").route("^prod-db@example.com$", route_at(nobody()), 2);
    let app = start(app.route("prod-db@example.com", route_to(&db), 1)).await;
    assert_eq!(patterns(app.route(db.name())), ["^prod-db@example.com$", "prod-db@example.com"]);
    soon(app.connect(db.name().clone())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_a_query_opens_no_connection_and_no_match_is_no_route() {
    let db = start(listener(DB)).await;
    let door = Door::to(address(&db)).await;
    let discovery = Discovery::of(DB, &[door.address]);
    let app = start(asking("app@127.0.0.1", &discovery).route("^db@", route_at(door.address), 1)).await;
    assert_eq!(patterns(app.route(&name(DB))), ["^db@"]);
    let foreseen: Vec<_> = app.explain(DB).unwrap().steps.iter().map(|step| step.origin.to_string()).collect();
    assert_eq!(foreseen, ["route ^db@", "discovery by counted", "gateways known to counted"]);
    let none = app.route(&name("web@127.0.0.1")).unwrap_err();
    assert_eq!((none.reason, none.attempts.len()), (Reason::NoCandidate, 0));
    // The first connection that the door sees is the one requested now.
    soon(app.connect(DB)).await.unwrap();
    assert_eq!((door.accepted(), discovery.asked().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn b9_removal_takes_the_exact_text_and_an_absent_one_is_unknown() {
    let app = start(dialer("app@127.0.0.1").route("^db@127.0.0.1$", route_at(nobody()), 1)).await;
    for near in [DB, "^db@", "^db@127.0.0.1", "^DB@127.0.0.1$", ".*", ""] {
        assert_eq!(app.remove_route(near), Err(RemoveError::Unknown(near.into())));
    }
    assert_eq!(app.routes().len(), 1);
    app.remove_route("^db@127.0.0.1$").unwrap();
    assert_eq!(app.remove_route("^db@127.0.0.1$"), Err(RemoveError::Unknown("^db@127.0.0.1$".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_removing_a_route_leaves_the_connection_and_the_next_attempt_goes_to_discovery() {
    let db = start(listener(DB)).await;
    answers(&db, "who");
    let discovery = Discovery::of(DB, &[address(&db)]);
    let door = Door::to(address(&db)).await;
    let app = start(asking("app@127.0.0.1", &discovery).route("^db@", route_at(door.address), 10)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    app.remove_route("^db@").unwrap();
    assert!(connection.is_up());
    assert_eq!(connection.call("who", "", b"", PATIENCE).await.unwrap(), DB);
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().id, connection.info().id);
    connection.disconnect();
    soon(connection.closed()).await;
    let again = soon(app.connect(DB)).await.unwrap();
    assert_eq!((discovery.asked(), door.accepted()), (vec![name(DB)], 1));
    assert_eq!(again.info().address, address(&db));
}

/// Returns the patterns of the proxy routes that a connect to the name would try, in order.
fn foreseen(node: &Node, text: &str) -> Vec<String> {
    let steps = node.explain(text).unwrap().steps.into_iter();
    let pattern = |origin| match origin {
        Origin::Proxied { pattern, .. } => Some(pattern.to_string()),
        _ => None,
    };
    steps.filter_map(|step| pattern(step.origin)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_the_same_rules_hold_for_proxy_routes_in_a_table_of_their_own() {
    let gate = start(listener("gate@127.0.0.1")).await;
    let via = || ProxyRoute::via(gate.name().clone());
    let app = start(dialer("app@127.0.0.1").route("^gate@", route_to(&gate), 1)).await;
    // B1 to B4: searched, anchored, by weight, then in the order added; the worked example.
    let worked = ["database@prod", "prod-.*", ".*@example.com", "^prod-db[0-9]+@example.com$"];
    for pattern in worked {
        app.add_proxy_route(pattern, via(), 1).unwrap();
    }
    assert_eq!(foreseen(&app, "prod-db2@example.com"), worked[1..]);
    assert_eq!(foreseen(&app, "eu-prod-db@example.com.au"), worked[1..3]);
    app.add_proxy_route("^prod-db2@", via(), 7).unwrap();
    assert_eq!(foreseen(&app, "prod-db2@example.com")[0], "^prod-db2@");
    // B5: the existing route stays as it is.
    let taken = app.add_proxy_route("prod-.*", via().to(name("else@where")), 99);
    assert_eq!(taken, Err(AddError::Taken("prod-.*".into())));
    assert_eq!(foreseen(&app, "prod-db2@example.com"), ["^prod-db2@", worked[1], worked[2], worked[3]]);
    // B6: nothing is added, and the error shows the place.
    let broken = app.add_proxy_route("prod-(db", via(), 1).unwrap_err();
    assert!(matches!(&broken, AddError::BadPattern(error) if error.to_string().contains("prod-(db")), "{broken}");
    // B7, and B9: a removal takes the exact text and never a match.
    app.add_proxy_route("^prod-db2@example.com$", via(), 1).unwrap();
    app.add_proxy_route("prod-db2@example.com", via(), 1).unwrap();
    assert_eq!(app.remove_proxy_route("prod-db2@"), Err(RemoveError::Unknown("prod-db2@".into())));
    app.remove_proxy_route("^prod-db2@example.com$").unwrap();
    assert_eq!(foreseen(&app, "prod-db2@example.com").last().unwrap(), "prod-db2@example.com");
    // Proxy routes have a table of their own: the same pattern is in both tables, and is removed from one alone.
    app.add_route("prod-.*", route_at(nobody()), 1).unwrap();
    app.remove_proxy_route("prod-.*").unwrap();
    assert_eq!(patterns(app.route(&name("prod-db2@example.com"))), ["prod-.*"]);
    // B8: no node was asked.
    assert!(gate.nodes().is_empty() && app.nodes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_removing_a_proxy_route_leaves_the_connection_up_and_the_next_attempt_goes_on_without_it() {
    let db = start(listener(DB)).await;
    let rule = TransitRule::new(AccessPattern::new(".*").unwrap(), AccessPattern::new(".*").unwrap());
    let gate = listener("gate@127.0.0.1").transit(Transit { rules: vec![rule], gateways: vec![] });
    let gate = start(gate.route("^db@", route_to(&db), 1)).await;
    let app = dialer("app@127.0.0.1").route("^gate@", route_to(&gate), 1);
    let app = start(app.proxy_route("^db@", ProxyRoute::via(gate.name().clone()), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    app.remove_proxy_route("^db@").unwrap();
    let mut inbox = db.register("in").unwrap();
    soon(connection.send("in", "", b"still up")).await.unwrap();
    assert_eq!(text(&mut inbox).await, "still up");
    connection.disconnect();
    soon(connection.closed()).await;
    assert_eq!(no_route(soon(app.connect(DB)).await).reason, Reason::NoCandidate);
}
