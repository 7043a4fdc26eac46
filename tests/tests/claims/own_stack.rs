//! Claims that hold for every network stack, shown over one that is not the native one: links in the memory of the process.
//! The node, its routes and its services are those of every program; only `NodeBuilder::stack` and `NodeBuilder::listener`
//! differ.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::Notify;
use trunkline::{
    AccessPattern, AttemptError, CloseCode, Down, Event, Flag, NetworkRoute, Node, NodeBuilder, Origin, Process,
    Reconnect, SendError, Signal, StreamCode, StreamError,
};
use trunkline_route::Direct;
use trunkline_route::NetworkRouteBuilder;
use trunkline_stack::{Pairing, PeerAddress, Transport};
use trunkline_tests::memory_stack::{MemoryStack, Network, version};
use trunkline_tests::support::*;

use super::e_proxy;

const A: &str = "a@memory";
const B: &str = "b@memory";
const SOON: Duration = Duration::from_secs(10);

fn all() -> Vec<AccessPattern> {
    vec![AccessPattern::new(".*").unwrap()]
}

/// A node that speaks `MEM` by default and listens in memory.
fn node_with(network: &Arc<Network>, of: &str, pairing: Pairing, secret: &str) -> NodeBuilder {
    let builder = dialer(of).cookie(cookie(secret)).handshake(version());
    let stack = MemoryStack::new(network, (name(of), builder.incarnation()), cookie(secret), pairing);
    let (listener, answering) = (stack.listen(), stack.answering());
    builder.stack(stack).listener(listener).answering(answering)
}

fn node(network: &Arc<Network>, of: &str) -> NodeBuilder {
    node_with(network, of, Pairing::Claims, "all")
}

fn to(address: SocketAddr) -> NetworkRouteBuilder<Direct> {
    NetworkRoute::direct(address.ip().to_string(), address.port()).unwrap()
}

async fn two(network: &Arc<Network>, pairing: Pairing) -> (Node, Node) {
    let a = start(node_with(network, A, pairing, "all")).await;
    let b = start(node_with(network, B, pairing, "all")).await;
    a.add_route("^b@", to(address(&b)), 1).unwrap();
    b.add_route("^a@", to(address(&a)), 1).unwrap();
    (a, b)
}

#[tokio::test]
async fn messages_calls_and_streams_go_by_the_stack_that_the_version_names() {
    let network = Network::new();
    let (a, b) = two(&network, Pairing::Claims).await;
    answers(&b, "echo");
    let mut inbox = b.register("in").unwrap();
    for n in 0..1_000u32 {
        soon(a.send(B, "in", n.to_be_bytes())).await.unwrap();
    }
    for n in 0..1_000u32 {
        assert_eq!(soon(inbox.recv()).await.unwrap().body()[..], n.to_be_bytes());
    }
    assert!(!soon(a.call(B, "echo", b"x", SOON)).await.unwrap().is_empty());
    // Back over the same connection.
    answers(&a, "echo");
    assert!(!soon(b.call(A, "echo", b"x", SOON)).await.unwrap().is_empty());
    let info = a.connection(B).unwrap().info();
    assert_eq!((info.version, info.route.as_deref()), (version(), Some("^b@")));
    assert_eq!((a.nodes().len(), b.nodes().len()), (1, 1));

    let mut streams = b.accept("bytes", all()).unwrap();
    let serving = tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(soon(streams.next()).await.unwrap().accept());
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let (mut back, mut there) = tokio::io::split(soon(a.open(B, "bytes", SOON)).await.unwrap());
    let sent: Vec<u8> = (0..2_000_000).map(|n: usize| (n * 7 + n / 251) as u8).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        there.write_all(&copy).await.unwrap();
        there.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    soon(back.read_to_end(&mut received)).await.unwrap();
    assert!(received == sent);
    soon(writing).await.unwrap();
    soon(serving).await.unwrap();
    let refused = soon(a.open(B, "none", SOON)).await.unwrap_err();
    let StreamError::Open(refused) = refused else { panic!("{refused}") };
    assert!(matches!(&refused, trunkline::OpenError::Refused { hop, code: StreamCode::NoService, .. } if hop == B));
}

#[tokio::test]
async fn nodes_connect_over_any_transport_that_a_program_brings() {
    let (a, b) = (start(dialer("a@here")).await, start(dialer("b@here")).await);
    answers(&b, "echo");
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let answering = {
        let b = b.clone();
        tokio::spawn(async move { b.answer(Transport::unix(theirs)).await })
    };
    let connection = soon(a.connect_over("b@here", Transport::unix(ours), SOON)).await.unwrap();
    assert!(!soon(a.call("b@here", "echo", "x", SOON)).await.unwrap().is_empty());
    assert_eq!(soon(answering).await.unwrap().unwrap().peer().as_str(), "a@here");
    assert_eq!(connection.info().address, PeerAddress::Unix);

    // Another one takes its place; what was sent keeps its order.
    let mut inbox = b.register("in").unwrap();
    let (ours, theirs) = tokio::io::duplex(64);
    let in_memory = |end| Transport::new(end, PeerAddress::Memory);
    soon(connection.send("in", "", b"1")).await.unwrap();
    let answering = {
        let b = b.clone();
        tokio::spawn(async move { b.answer(in_memory(theirs)).await })
    };
    soon(a.connect_over("b@here", in_memory(ours), SOON)).await.unwrap();
    soon(connection.send("in", "", b"2")).await.unwrap();
    assert_eq!((text(&mut inbox).await.as_str(), text(&mut inbox).await.as_str()), ("1", "2"));
    soon(answering).await.unwrap().unwrap();
    assert_eq!(connection.info().address, PeerAddress::Memory);
    assert_eq!((a.nodes().len(), b.nodes().len()), (1, 1));

    let stranger = start(dialer("c@here").cookie(cookie("other"))).await;
    let (ours, theirs) = tokio::io::duplex(4_096);
    let (called, answered) =
        tokio::join!(soon(stranger.connect_over("b@here", in_memory(ours), SOON)), soon(b.answer(in_memory(theirs))));
    assert_eq!(no_route(called).attempts[0].error, AttemptError::WrongCookie);
    assert!(answered.is_err());
}

#[tokio::test]
async fn two_nodes_that_bring_a_transport_each_end_up_with_one_connection() {
    for _ in 0..10 {
        let (a, b) = (start(dialer("a@here")).await, start(dialer("b@here")).await);
        let in_memory = |end| Transport::new(end, PeerAddress::Memory);
        let [(a1, b1), (a2, b2)] = [(); 2].map(|()| tokio::io::duplex(4_096));
        let [answer_a, answer_b] = [(a.clone(), a2), (b.clone(), b1)]
            .map(|(node, end)| tokio::spawn(async move { node.answer(in_memory(end)).await.map(drop) }));
        let (there, back) = tokio::join!(
            soon(a.connect_over("b@here", in_memory(a1), SOON)),
            soon(b.connect_over("a@here", in_memory(b2), SOON))
        );
        let (there, back) = (there.unwrap(), back.unwrap());
        until(|| there.info().id == back.info().id).await;
        assert_eq!((a.nodes().len(), b.nodes().len()), (1, 1));
        let _ = (soon(answer_a).await, soon(answer_b).await);
    }
}

#[tokio::test]
async fn a_transport_that_leads_nowhere_fails_its_own_caller_only_and_in_time() {
    let (a, b) = (start(dialer("a@here")).await, start(dialer("b@here")).await);
    let in_memory = |end| Transport::new(end, PeerAddress::Memory);
    let ((dead, _silent), (ours, theirs)) = (tokio::io::duplex(64), tokio::io::duplex(64));
    let short = Duration::from_millis(200);
    let answering = tokio::spawn(async move { b.answer(in_memory(theirs)).await.map(drop) });
    let (first, second) = tokio::join!(
        soon(a.connect_over("b@here", in_memory(dead), short)),
        soon(a.connect_over("b@here", in_memory(ours), SOON))
    );
    assert_eq!(no_route(first).attempts[0].error, AttemptError::CandidateTimeout(short));
    assert_eq!(second.unwrap().peer().as_str(), "b@here");
    soon(answering).await.unwrap().unwrap();
}

/// A pipe that takes no more than a number of bytes, and tells when it is offered more.
struct Stalling {
    pipe: DuplexStream,
    takes: usize,
    stalled: Arc<Notify>,
}

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, into)
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.takes < bytes.len() {
            self.stalled.notify_one();
            return Poll::Pending;
        }
        let written = ready!(Pin::new(&mut self.pipe).poll_write(cx, bytes))?;
        self.takes -= written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn an_answer_that_is_given_up_leaves_the_name_free() {
    let network = Network::new();
    let (a, b) = (start(node(&network, A)).await, start(node(&network, B)).await);
    let (ours, theirs) = tokio::io::duplex(64);
    let stalled = Arc::new(Notify::new());
    // WELCOME is eight bytes; the answer that follows, after the name was given to this caller, gets no further.
    let theirs = Stalling { pipe: theirs, takes: 8, stalled: stalled.clone() };
    let calling = a.connect_over(B, Transport::new(ours, PeerAddress::Memory), SOON);
    let given_up = async {
        tokio::select! {
            answered = b.answer(Transport::new(theirs, PeerAddress::Memory)) => panic!("{answered:?}"),
            () = stalled.notified() => {}
        }
    };
    let (failed, ()) = soon(async { tokio::join!(calling, given_up) }).await;
    assert!(matches!(no_route(failed).attempts[0].error, AttemptError::Handshake(_)));
    b.add_route("^a@", to(address(&a)), 1).unwrap();
    assert_eq!(soon(b.connect(A)).await.unwrap().peer().as_str(), A);
}

#[tokio::test]
async fn two_transports_at_once_are_both_used_and_one_connection_stays() {
    let network = Network::new();
    let (a, b) = (start(node(&network, A)).await, start(node(&network, B)).await);
    let in_memory = |end| Transport::new(end, PeerAddress::Memory);
    let (one, other) = (tokio::io::duplex(64), tokio::io::duplex(64));
    let (first, second, one_answer, other_answer) = soon(async {
        tokio::join!(
            a.connect_over(B, in_memory(one.0), SOON),
            a.connect_over(B, in_memory(other.0), SOON),
            b.answer(in_memory(one.1)),
            b.answer(in_memory(other.1))
        )
    })
    .await;
    let (first, second) = (first.unwrap().info().id, second.unwrap().info().id);
    assert_eq!([one_answer.unwrap().info().id, other_answer.unwrap().info().id], [first, second]);
    assert_eq!(a.nodes().len(), 1);
}

#[tokio::test]
async fn a_node_behind_a_gateway_is_reached_over_the_stack() {
    const GATE: &str = "gate@memory";
    let network = Network::new();
    let b = start(node(&network, B)).await;
    answers(&b, "echo");
    let gate = start(node(&network, GATE).transit(e_proxy::all()).route("^b@", to(address(&b)), 1)).await;
    let a = node(&network, A).route("^gate@", to(address(&gate)), 1);
    let a = start(a.proxy_route("^b@", e_proxy::via(GATE), 1)).await;
    let connection = soon(a.connect(B)).await.unwrap();
    assert_eq!(connection.info().version, version());
    assert!(!soon(connection.call("echo", "", b"x", SOON)).await.unwrap().is_empty());
    assert_eq!(gate.status().circuits, 1);
}

#[tokio::test]
async fn a_link_of_another_protocol_gives_way_to_the_route_that_names_one() {
    let network = Network::new();
    let a = start(node(&network, A)).await;
    let b = start(node(&network, B).listen(loopback())).await;
    let (by_tcp, by_memory) = (b.listening()[0], b.listening()[1]);
    a.add_route("^b@memory", to(by_memory), 2).unwrap();
    assert_eq!(soon(a.connect(B)).await.unwrap().info().version, version());
    a.add_route("^b@", to(by_tcp).version(trunkline::Version::native(1)), 1).unwrap();
    // Both stacks are of one instance of the node: the link is replaced, in order.
    let drained = soon(a.drain_route("^b@memory")).await.unwrap();
    assert_eq!((drained.moved, drained.kept.len()), (vec![name(B)], 0));
    assert_eq!(a.connection(B).unwrap().info().version, trunkline::Version::native(1));
}

#[tokio::test]
async fn a_host_that_the_stack_takes_by_name_is_not_looked_up() {
    let network = Network::new();
    let a = start(node(&network, A)).await;
    let b = start(node(&network, B)).await;
    network.add_host("db.memory:7".parse().unwrap(), address(&b));
    a.add_route("^b", NetworkRoute::direct("none.memory", 7).unwrap(), 2).unwrap();
    a.add_route("^b@", NetworkRoute::direct("db.memory", 7).unwrap(), 1).unwrap();
    let mut events = a.events();
    soon(a.connect(B)).await.unwrap();
    let record = loop {
        if let Event::AttemptFailed { record, .. } = soon(events.next()).await.unwrap() {
            break record;
        }
    };
    assert_eq!((record.address.as_str(), record.socket), ("none.memory:7", None));
    assert_eq!(record.error.stage(), "tcp");
}

#[tokio::test]
async fn an_address_of_this_node_is_recognised() {
    let network = Network::new();
    let a = start(node(&network, A).listen(loopback())).await;
    for own in a.listening().to_vec() {
        let version =
            if own.ip().is_loopback() && own.port() > 1_024 { trunkline::Version::native(1) } else { version() };
        let failed = no_route(soon(a.connect_with(B, to(own).version(version))).await);
        assert_eq!(failed.attempts[0].error, AttemptError::Myself, "{own}");
    }
}

#[tokio::test]
async fn a_mailbox_that_is_not_read_stops_its_sender_and_no_other() {
    let network = Network::new();
    let (a, b) = two(&network, Pairing::Claims).await;
    let mut unread = b.register("unread").unwrap();
    answers(&b, "echo");
    let connection = soon(a.connect(B)).await.unwrap();
    let megabyte = vec![7; 1 << 20];
    let mut taken = 0;
    while connection.try_send("unread", "", &megabyte).is_ok() {
        taken += 1;
    }
    assert!((4..=8).contains(&taken), "{taken} of 1 MiB were taken");
    assert!(matches!(connection.try_send("unread", "", &megabyte), Err(SendError::Full)));
    assert!(soon(connection.call("echo", "", b"x", SOON)).await.is_ok());
    let waits = connection.send("unread", "", &megabyte);
    tokio::pin!(waits);
    assert!(futures_are_pending(waits.as_mut()));
    soon(unread.recv()).await.unwrap();
    soon(waits).await.unwrap();
}

fn futures_are_pending<T>(future: Pin<&mut impl Future<Output = T>>) -> bool {
    future.poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending()
}

#[tokio::test]
async fn weights_decide_the_order_and_every_attempt_is_on_record() {
    let network = Network::new();
    let b = start(node(&network, B)).await;
    let other = start(node(&network, "c@memory")).await;
    let a = start(node(&network, A)).await;
    let nobody: SocketAddr = "127.200.0.9:9".parse().unwrap();
    a.add_route("^b@memory$", to(nobody), 300).unwrap();
    a.add_route("^b@", to(address(&other)), 200).unwrap();
    a.add_route("b@", to(address(&b)), 100).unwrap();
    let mut events = a.events();
    soon(a.connect(B)).await.unwrap();
    let mut failed = Vec::new();
    loop {
        match soon(events.next()).await.unwrap() {
            Event::AttemptFailed { record, .. } => failed.push(record),
            Event::Up(info) => {
                assert_eq!(info.route.as_deref(), Some("b@"));
                break;
            }
            _ => {}
        }
    }
    assert_eq!(failed[0].error.io_kind(), Some(std::io::ErrorKind::ConnectionRefused), "{}", failed[0]);
    assert_eq!(failed[0].origin, Origin::Static { pattern: "^b@memory$".into() });
    assert_eq!(failed[1].error, AttemptError::WrongName { actual: "c@memory".into() });
    assert_eq!(failed.len(), 2);
}

#[tokio::test]
async fn a_wrong_cookie_and_a_version_without_a_stack_are_refused_by_name() {
    let network = Network::new();
    let b = start(node(&network, B)).await;
    let a = start(node_with(&network, A, Pairing::Claims, "other")).await;
    a.add_route("^b@", to(address(&b)), 1).unwrap();
    let unknown = to(address(&b)).version(trunkline::Version::new("NONE", 1).unwrap());
    let unknown = no_route(soon(a.connect_with(B, unknown)).await);
    assert_eq!(
        unknown.attempts[0].error.to_string(),
        "this node has no implementation of NONE/1; remove the version from the route or give one of MEM, TLK"
    );
    let wrong = no_route(soon(a.connect(B)).await);
    assert_eq!(wrong.attempts[0].error, AttemptError::WrongCookie);
}

#[tokio::test]
async fn two_nodes_that_dial_at_once_end_up_with_one_connection() {
    for pairing in [Pairing::Claims, Pairing::Names] {
        for _ in 0..50 {
            let network = Network::new();
            let (a, b) = two(&network, pairing).await;
            answers(&a, "echo");
            answers(&b, "echo");
            let (there, back) = tokio::join!(soon(a.call(B, "echo", b"x", SOON)), soon(b.call(A, "echo", b"x", SOON)));
            assert!(there.is_ok() && back.is_ok(), "{there:?} {back:?}");
            let (one, other) = (a.connection(B).unwrap().info(), b.connection(A).unwrap().info());
            assert_eq!((one.id, one.epoch), (other.id, other.epoch));
            assert_eq!((a.nodes().len(), b.nodes().len()), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_better_route_takes_over_and_keeps_the_order_of_what_was_sent() {
    let network = Network::new();
    for pairing in [Pairing::Claims, Pairing::Names] {
        let (a, b) = two(&network, pairing).await;
        let mut inbox = b.register("in").unwrap();
        soon(a.send(B, "in", 0u32.to_be_bytes())).await.unwrap();
        let before = a.connection(B).unwrap().info();
        a.add_route("^b@memory$", to(address(&b)).cookie(cookie("all").labelled("new").unwrap()), 9).unwrap();
        for n in 1..500u32 {
            if n == 200 {
                soon(a.drain_route("^b@")).await.unwrap();
            }
            soon(a.send(B, "in", n.to_be_bytes())).await.unwrap();
        }
        for n in 0..500u32 {
            assert_eq!(soon(inbox.recv()).await.unwrap().body()[..], n.to_be_bytes());
        }
        let after = a.connection(B).unwrap().info();
        assert_eq!(after.route.as_deref(), Some("^b@memory$"), "{pairing:?}");
        assert_ne!(before.id, after.id);
        a.shut_down(SOON).await;
        b.shut_down(SOON).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_to_be_kept_is_dialled_again_when_the_peer_comes_back() {
    let network = Network::new();
    let b = start(node(&network, B)).await;
    let a = start(node(&network, A)).await;
    a.add_route("^b@", to(address(&b)).reconnect(Reconnect::Keep), 1).unwrap();
    let connection = soon(a.connect(B)).await.unwrap();
    let mut events = a.events();
    b.connection(A).unwrap().disconnect();
    assert_eq!(
        soon(connection.closed()).await,
        Down::ClosedByPeer { code: CloseCode::Disconnected, text: String::new() }
    );
    // Somebody wanted it gone, so it stays down; a peer that vanished is dialled again.
    soon(a.connect(B)).await.unwrap();
    drop(b);
    let next = start(node(&network, B)).await;
    a.add_route("^b@memory$", to(address(&next)).reconnect(Reconnect::Keep), 2).unwrap();
    loop {
        if let Event::Up(info) = soon(events.next()).await.unwrap()
            && info.route.as_deref() == Some("^b@memory$")
        {
            break;
        }
    }
}

#[tokio::test]
async fn processes_are_reached_and_monitored_across_the_stack() {
    let network = Network::new();
    let (a, b) = two(&network, Pairing::Claims).await;
    let target = b
        .spawn(|mut process: Process| async move {
            while let Some(Signal::Message(message)) = process.recv().await {
                if &message.body()[..] == b"fail" {
                    return Err("as told".to_owned());
                }
            }
            Ok(())
        })
        .unwrap();
    soon(a.send_to(&target, b"hello")).await.unwrap();
    let monitor = soon(a.monitor(&target)).await;
    soon(a.send_to(&target, b"fail")).await.unwrap();
    let exit = soon(monitor.down()).await;
    assert_eq!(exit, trunkline::Exit::Failed("as told".into()));
    let important = soon(a.send_important(B, "in", "x", SOON)).await.unwrap_err();
    assert!(
        matches!(important, trunkline::ImportantError::NotSent(SendError::Unsupported(Flag::ImportantDelivery))),
        "{important}"
    );
}

#[tokio::test]
async fn a_node_that_shuts_down_finishes_what_is_under_way() {
    let network = Network::new();
    let (a, b) = two(&network, Pairing::Claims).await;
    let mut inbox = b.register("slow").unwrap();
    let connection = soon(a.connect(B)).await.unwrap();
    let call = tokio::spawn(async move { connection.call("slow", "", b"x", SOON).await });
    let message = soon(inbox.recv()).await.unwrap();
    let leaving = tokio::spawn(b.shut_down(SOON));
    message.reply("done");
    assert_eq!(soon(call).await.unwrap().unwrap(), "done");
    let report = soon(leaving).await.unwrap();
    assert_eq!((report.drained, report.cut), (1, 0));
}
