//! Flags: offered, required, and negotiated for each connection.

use trunkline::{AttemptError, Flag, PeerFlags, SendError};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn c10_flags_are_per_route_and_both_ends_agree_on_what_both_offer() {
    let (db, web) =
        (start(listener(DB)).await, start(listener("web@127.0.0.1").flag(Flag::Fragmentation, false)).await);
    let app = dialer("app@127.0.0.1").route("^db@", route_to(&db).flag(Flag::Priorities, false), 1).route(
        "^web@",
        route_to(&web),
        1,
    );
    let app = start(app).await;
    let (to_db, to_web) = (soon(app.connect(DB)).await.unwrap(), soon(app.connect("web@127.0.0.1")).await.unwrap());
    for (flag, connection, peer) in [(Flag::Priorities, &to_db, &db), (Flag::Fragmentation, &to_web, &web)] {
        let expected = PeerFlags::ALL.with(flag, false);
        assert_eq!(connection.info().flags, expected);
        until(|| peer.connection(app.name()).is_some()).await;
        assert_eq!(peer.connection(app.name()).unwrap().info().flags, expected, "the other end sees the same");
    }

    // One connection refuses what another one of the same node still allows.
    let (mut at_db, mut at_web) = (db.register("in").unwrap(), web.register("in").unwrap());
    let refused = soon(to_db.send_high_priority("in", "", b"x")).await;
    assert_eq!(refused, Err(SendError::Unsupported(Flag::Priorities)));
    soon(to_web.send_high_priority("in", "", b"high")).await.unwrap();
    assert_eq!(text(&mut at_web).await, "high");
    let long = vec![b'x'; 100_000];
    soon(to_db.send("in", "", &long)).await.unwrap();
    assert_eq!(text(&mut at_db).await.len(), long.len());
    let refused = soon(to_web.send("in", "", &long)).await;
    assert!(matches!(refused, Err(SendError::Unsupported(trunkline::Flag::Fragmentation))), "{refused:?}");
    assert!(to_db.is_up() && to_web.is_up(), "what is refused costs no connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_a_required_flag_that_the_peer_does_not_offer_leads_to_the_next_route() {
    let lacking = start(listener(DB).flag(Flag::Priorities, false)).await;
    let db = start(listener(DB)).await;
    let app = dialer("app@127.0.0.1").route("^db@", route_to(&lacking).require(Flag::Priorities), 2).route(
        "db",
        route_to(&db),
        1,
    );
    let app = start(app).await;
    let mut events = app.events();
    assert_eq!(soon(app.connect(DB)).await.unwrap().info().address, address(&db));
    let failed = up(&mut events, DB).await;
    assert_eq!((failed.len(), failed[0].error.stage()), (1, "flags"));
    assert!(failed[0].error.to_string().contains("priorities"), "{}", failed[0]);
    assert!(lacking.nodes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_policy_belongs_to_the_name_also_when_the_peer_dials() {
    // The route leads to an address without a listener. It only sets the policy for callers of that name.
    let db = listener(DB).route("^app@", route_at(nobody()).flag(Flag::Priorities, false), 1).route(
        "^strict@",
        route_at(nobody()).require(Flag::Fragmentation),
        1,
    );
    let db = start(db).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    let flags = soon(app.connect(DB)).await.unwrap().info().flags;
    assert_eq!(flags, PeerFlags::ALL.with(Flag::Priorities, false));
    let other = start(dialer("other@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    assert_eq!(soon(other.connect(DB)).await.unwrap().info().flags, PeerFlags::ALL);

    let strict = dialer("strict@127.0.0.1").flag(Flag::Fragmentation, false).route("^db@", route_to(&db), 1);
    let error = no_route(soon(start(strict).await.connect(DB)).await);
    assert_eq!(error.attempts[0].error, AttemptError::Flags("the peer refused: it requires fragmentation".into()));
    assert!(db.connection("strict@127.0.0.1").is_none());
}
