//! Delivery within a node: its own name and its own processes are reached by the same calls as others, without a
//! socket.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use trunkline::{
    AccessPattern, CallError, Exit, NativeLimits, Node, NodeBuilder, OpenError, Process, SendError, Signal, SpawnError,
    StreamCode, StreamError, Term, Version, Window,
};
use trunkline_tests::support::*;

const ME: &str = "me@127.0.0.1";
const SOON: Duration = Duration::from_secs(10);

fn all() -> Vec<AccessPattern> {
    vec![AccessPattern::new(".*").unwrap()]
}

/// Starts a node without listeners, routes and registrar, so that nothing can go over a socket.
async fn alone(change: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Node {
    start(change(dialer(ME))).await
}

/// Process that ends as a message tells it, and answers calls with its pid.
async fn obedient(mut process: Process) -> Result<(), String> {
    while let Some(Signal::Message(message)) = process.recv().await {
        match &message.body()[..] {
            b"end" => return Ok(()),
            b"fail" => return Err("as told".into()),
            _ => message.reply(process.pid().to_string()),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_node_sends_to_and_calls_its_own_name_without_a_socket() {
    let me = alone(|builder| builder).await;
    let mut mailbox = me.register("in").unwrap();
    for n in 0..100u8 {
        soon(me.send(ME, "in", &[n])).await.unwrap();
    }
    for n in 0..100u8 {
        let message = soon(mailbox.recv()).await.unwrap();
        assert_eq!((message.node().as_str(), &message.body()[..]), (ME, &[n][..]));
    }
    answers(&me, "echo");
    let connection = soon(me.connect(ME)).await.unwrap();
    assert!(!soon(me.call(ME, "echo", b"x", SOON)).await.unwrap().is_empty());
    let missing = soon(me.call(ME, "none", b"", SOON)).await;
    assert!(matches!(missing, Err(CallError::NoMailbox)), "{missing:?}");
    soon(me.send_important(ME, "in", "kept", SOON)).await.unwrap();
    assert_eq!(text(&mut mailbox).await, "kept");
    assert!(soon(me.send_important(ME, "none", "lost", SOON)).await.is_err());
    let info = connection.info();
    assert_eq!((info.version, info.peer.as_str()), (Version::new("LOCAL", 1).unwrap(), ME));
    assert!(me.connection(me.name()).is_some() && me.explain(me.name()).unwrap().live_satisfies);
    assert!(soon(me.ping(ME, SOON)).await.is_ok());
    assert!(me.listening().is_empty() && me.nodes().is_empty(), "no link of the registry is involved");
    // Closing the connection to oneself has no effect.
    connection.disconnect();
    soon(me.send(ME, "in", b"after")).await.unwrap();
    assert_eq!(text(&mut mailbox).await, "after");
}

#[tokio::test]
async fn messages_of_a_node_to_itself_have_the_limits_of_a_link() {
    let window = Window { link: 64_000, mailbox: 10_000, max_message: 5_000 };
    let me = alone(|builder| builder.limits(NativeLimits { window, ..NativeLimits::default() })).await;
    let mut unread = me.register("unread").unwrap();
    let connection = soon(me.connect(ME)).await.unwrap();
    let sent = (0..100).take_while(|_| connection.try_send("unread", "", &[0; 936]).is_ok()).count();
    assert_eq!(sent, 10);
    let too_large = connection.try_send("unread", "", &[0; 5_001]);
    assert_eq!(too_large, Err(SendError::TooLarge { len: 5_001, limit: 5_000 }));
    // The next sender waits for the reader, and for no other sender.
    let waits = tokio::spawn(async move { connection.send("unread", "", &[0; 936]).await });
    answers(&me, "echo");
    soon(me.call(ME, "echo", b"x", SOON)).await.unwrap();
    assert!(!waits.is_finished());
    for _ in 0..=sent {
        soon(unread.recv()).await.unwrap();
    }
    soon(waits).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_opens_streams_to_its_own_services_under_their_rules() {
    let me = alone(|builder| builder).await;
    let mut streams = me.accept("echo", all()).unwrap();
    let _closed = me.accept("closed", vec![AccessPattern::new("other@.*").unwrap()]).unwrap();
    let echo = tokio::spawn(async move {
        let mut stream = streams.next().await.unwrap().accept();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut stream = soon(me.open(ME, "echo", SOON)).await.unwrap();
    stream.write_all(b"there and back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = String::new();
    soon(stream.read_to_string(&mut back)).await.unwrap();
    assert_eq!(back, "there and back");
    soon(echo).await.unwrap();
    for (service, expected) in [("closed", StreamCode::NotAllowed), ("none", StreamCode::NoService)] {
        match soon(me.open(ME, service, SOON)).await {
            Err(StreamError::Open(OpenError::Refused { hop, code, .. })) => {
                assert_eq!((hop.as_str(), code), (ME, expected));
            }
            other => panic!("{service}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn processes_of_a_node_are_reached_spawned_linked_and_monitored_by_its_own_name() {
    let me = alone(|builder| builder).await;
    me.enable_spawn("worker", all(), |process, _| obedient(process)).unwrap();
    me.enable_spawn("other", vec![AccessPattern::new("other@.*").unwrap()], |process, _| obedient(process)).unwrap();
    let pid = soon(me.spawn_on(ME, "worker", &Term::from(1), SOON)).await.unwrap();
    assert_eq!(me.processes(), std::slice::from_ref(&pid));
    assert_eq!(soon(me.call_to(&pid, b"who", SOON)).await.unwrap(), pid.to_string());
    let refused = soon(me.spawn_on(ME, "other", &Term::from(1), SOON)).await;
    assert!(matches!(refused, Err(SpawnError::NotAllowed(_))), "the rules of the offer hold: {refused:?}");

    let monitor = soon(me.monitor(&pid)).await;
    let (heard, hears) = oneshot::channel();
    let (linked, is_linked) = oneshot::channel();
    let other = pid.clone();
    me.spawn(move |mut process| async move {
        linked.send(process.link(&other).await).unwrap();
        if let Some(Signal::Exit { from, exit }) = process.recv().await {
            heard.send((from, exit)).unwrap();
        }
    })
    .unwrap();
    soon(is_linked).await.unwrap().unwrap();
    soon(me.send_to(&pid, b"fail")).await.unwrap();
    assert_eq!(soon(monitor.down()).await, Exit::Failed("as told".into()));
    assert_eq!(soon(hears).await.unwrap(), (pid, Exit::Failed("as told".into())));

    // A process that is monitored from its start reports how it ended, even if it ends at once.
    me.enable_spawn("brief", all(), |_, _| async { Err::<(), _>("at once") }).unwrap();
    let monitor = soon(me.spawn_monitor(ME, "brief", &Term::from(1), SOON)).await.unwrap();
    assert_eq!(soon(monitor.down()).await, Exit::Failed("at once".into()));
    let monitor = soon(me.spawn_monitor(ME, "worker", &Term::from(1), SOON)).await.unwrap();
    let pid = monitor.pid().clone();
    assert_eq!(me.ties(&pid).unwrap(), 1);
    drop(monitor);
    assert_eq!(me.ties(&pid).unwrap(), 0);
}

#[tokio::test]
async fn a_call_to_oneself_ends_with_the_node_and_later_ones_fail() {
    let me = alone(|builder| builder).await;
    let _unread = me.register("in").unwrap();
    let connection = soon(me.connect(ME)).await.unwrap();
    let calling = tokio::spawn({
        let connection = connection.clone();
        async move { connection.call("in", "", b"", SOON).await }
    });
    until(|| connection.stats().messages_out == 1).await;
    soon(me.shut_down(Duration::from_millis(10))).await;
    let ended = soon(calling).await.unwrap();
    assert!(matches!(ended, Err(CallError::LinkDown(_) | CallError::Dropped)), "{ended:?}");
    assert!(matches!(connection.send("in", "", b"").await, Err(SendError::Down(_))));
    assert!(!connection.is_up());
}
