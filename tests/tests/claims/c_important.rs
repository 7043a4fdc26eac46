//! Important delivery: the sender learns the outcome of its message, even if the connection breaks.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::JoinSet;
use trunkline::{Flag, ImportantError, Node, SendError, WhyUnknown};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";

fn unsupported() -> ImportantError {
    SendError::Unsupported(Flag::ImportantDelivery).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn c11_important_delivery_is_confirmed_where_the_route_allows_it_and_refused_where_not() {
    let db = start(listener(DB)).await;
    let web = start(listener("web@127.0.0.1")).await;
    let plain = start(listener("plain@127.0.0.1").flag(Flag::ImportantDelivery, false)).await;
    let app = dialer("app@127.0.0.1")
        .route("^db@", route_to(&db), 1)
        .route("^web@", route_to(&web).flag(Flag::ImportantDelivery, false), 1)
        .route("^plain@", route_to(&plain), 1);
    let app = start(app).await;
    let mut mailbox = db.register("in").unwrap();
    let _web = web.register("in").unwrap();

    soon(app.send_important(DB, "in", "kept", PATIENCE)).await.unwrap();
    let message = mailbox.try_recv().expect("it is there when the sender is told");
    assert_eq!((&message.body()[..], message.node().as_str()), (&b"kept"[..], "app@127.0.0.1"));
    assert!(!message.is_call());

    let nobody = soon(app.send_important(DB, "none", "x", PATIENCE)).await;
    assert_eq!(nobody, Err(ImportantError::NoMailbox));
    for peer in ["web@127.0.0.1", "plain@127.0.0.1"] {
        assert_eq!(soon(app.send_important(peer, "in", "x", PATIENCE)).await, Err(unsupported()), "{peer}");
        assert!(app.connection(peer).unwrap().is_up(), "what is refused costs no connection");
    }
    let large = soon(app.send_important(DB, "in", vec![0; 9 << 20], PATIENCE)).await;
    assert!(matches!(large, Err(ImportantError::NotSent(SendError::TooLarge { .. }))), "{large:?}");
    assert!(matches!(
        soon(app.send_important("nobody@127.0.0.1", "in", "x", PATIENCE)).await,
        Err(ImportantError::NotSent(SendError::Connect(_)))
    ));

    // A mailbox that was dropped is no longer a service.
    drop(mailbox);
    assert_eq!(soon(app.send_important(DB, "in", "x", PATIENCE)).await, Err(ImportantError::NoMailbox));
}

/// Counts how often each body is in the mailbox now.
fn counted(mailbox: &mut trunkline::Mailbox) -> (HashMap<Vec<u8>, usize>, Vec<u64>) {
    let (mut times, mut order) = (HashMap::new(), Vec::new());
    while let Some(message) = mailbox.try_recv() {
        *times.entry(message.body().to_vec()).or_default() += 1;
        order.push(u64::from_be_bytes(message.body()[..8].try_into().unwrap()));
    }
    (times, order)
}

#[tokio::test(flavor = "multi_thread")]
async fn p14_a_confirmed_message_is_delivered_once_although_connections_break_all_the_time() {
    const SENDERS: u64 = 8;
    const EACH: u64 = 150;
    let db = start(listener(DB)).await;
    let mut mailboxes: Vec<_> = (0..SENDERS).map(|n| db.register(&format!("in{n}")).unwrap()).collect();
    let door = Door::to(address(&db)).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_at(door.address), 1)).await;
    soon(app.connect(DB)).await.unwrap();

    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let app: Node = app.clone();
        senders.spawn(async move {
            for n in 0..EACH {
                let mut body = n.to_be_bytes().to_vec();
                // Some messages are in several pieces, so that links break inside a message.
                body.resize(if n % 10 == 0 { 40_000 } else { 40 }, sender as u8);
                let service = format!("in{sender}");
                // A message that failed is sent again, and must not have been delivered before.
                while let Err(error) = app.send_important(DB, &service, body.clone(), PATIENCE * 3).await {
                    assert!(matches!(error, ImportantError::NotSent(SendError::Connect(_))), "{error}");
                }
            }
        });
    }
    let mut cuts = 0;
    while !senders.is_empty() {
        // A link breaks each time it has carried something.
        let before = door.carried();
        tokio::select! {
            ended = senders.join_next() => { if let Some(ended) = ended { ended.unwrap() } }
            () = until(|| door.carried() > before + 60_000) => { door.cut(); cuts += 1; }
        }
    }
    assert!(cuts > 5, "{cuts} cuts are no test");
    for mailbox in &mut mailboxes {
        let (times, order) = counted(mailbox);
        assert_eq!(order, (0..EACH).collect::<Vec<_>>(), "each once, in order");
        assert!(times.values().all(|times| *times == 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p14_an_outcome_that_cannot_be_known_is_reported_as_unknown() {
    let at = own_address();
    let db = start(dialer(DB).listen(at)).await;
    let mut mailbox = db.register("in").unwrap();
    let door = Door::to(at).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_at(door.address), 1)).await;
    soon(app.send_important(DB, "in", "before", PATIENCE)).await.unwrap();
    assert_eq!(text(&mut mailbox).await, "before");

    // The timeout expires without an outcome. When the outcome comes, nobody waits for it; the message is delivered
    // once or not at all.
    door.freeze();
    let short = Duration::from_millis(500);
    let late = soon(app.send_important(DB, "in", "late", short)).await;
    assert_eq!(late, Err(ImportantError::Unknown(WhyUnknown::Late(short))));
    door.thaw();
    assert_eq!(text(&mut mailbox).await, "late");
    soon(app.send_important(DB, "in", "after", PATIENCE)).await.unwrap();
    assert_eq!(text(&mut mailbox).await, "after");

    // The next connection cannot report the outcome.
    door.freeze();
    let sending = tokio::spawn({
        let app = app.clone();
        async move { app.send_important(DB, "in", "then the route was changed", PATIENCE).await }
    });
    let sent = |n| app.connection(DB).is_some_and(|link| link.stats().messages_out == n);
    until(|| sent(4)).await;
    app.remove_route("^db@").unwrap();
    app.add_route("^db@", route_at(door.address).flag(Flag::ImportantDelivery, false), 1).unwrap();
    door.cut();
    door.thaw();
    assert_eq!(soon(sending).await.unwrap(), Err(ImportantError::Unknown(WhyUnknown::NotAgreed)));
    app.remove_route("^db@").unwrap();
    app.add_route("^db@", route_at(door.address), 1).unwrap();
    door.cut();
    until(|| app.connection(DB).is_none()).await;

    // The peer restarts before it has reported the outcome. A program still holds the former connection.
    let _former = soon(app.connect(DB)).await.unwrap();
    soon(app.send_important(DB, "in", "read", PATIENCE)).await.unwrap();
    door.freeze();
    let sending = tokio::spawn({
        let app = app.clone();
        async move { app.send_important(DB, "in", "to the former life", PATIENCE).await }
    });
    until(|| sent(2)).await;
    drop(mailbox);
    crash(db).await;
    let db = start(dialer(DB).listen(at)).await;
    let mut mailbox = db.register("in").unwrap();
    door.cut();
    door.thaw();
    assert_eq!(soon(sending).await.unwrap(), Err(ImportantError::Unknown(WhyUnknown::NewLife)));
    soon(app.send_important(DB, "in", "new life", PATIENCE)).await.unwrap();
    assert_eq!(text(&mut mailbox).await, "new life");

    // The send fails because the peer cannot be reached.
    door.freeze();
    door.cut();
    until(|| app.connection(DB).is_none()).await;
    let never = soon(app.send_important(DB, "in", "never", short)).await;
    assert_eq!(never, Err(ImportantError::Late(short)));
}
