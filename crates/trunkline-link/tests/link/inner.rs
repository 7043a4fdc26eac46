//! Links inside streams, through a node in between.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use trunkline_link::{AnswerError, DialError, DialTimes, Hooks, Inside, Native, NativeLimits, Offered};
use trunkline_route::{Claims, CloseCode, LinkPolicy, NodeName};
use trunkline_stack::{ByteStream, Incoming, StreamKind, Transport};
use trunkline_tls::ServerTls;
use trunkline_wire::handshake::{Credential, HandshakeError, Mode};

use crate::world::*;

const WHILE: Duration = Duration::from_secs(20);

/// Change to the bytes under way, by the number of bytes that passed in this direction.
type Tamper = fn(usize, &mut [u8]);

/// A node between two others, which passes on what comes.
struct Middle {
    to: End,
    from: End,
    to_target: End,
    target: End,
    relay: JoinHandle<()>,
    offered: mpsc::UnboundedReceiver<Result<Offered, AnswerError>>,
    native: Arc<Native>,
}

async fn pass(mut from: tokio::io::ReadHalf<ByteStream>, mut to: tokio::io::WriteHalf<ByteStream>, tamper: Tamper) {
    let (mut buffer, mut passed) = (vec![0; 10_000], 0);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        tamper(passed, &mut buffer[..n]);
        passed += n;
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

impl Middle {
    async fn new(tamper: Tamper, cookie_there: &'static str) -> Self {
        let limits = NativeLimits::default();
        let link = async |from: &str, to: &str| {
            let mut port = Port::with(to, limits, ServerTls::ephemeral().unwrap());
            let (ours, theirs) = port.link_from(&Native::new(name(from), limits)).await;
            (End::start(ours, Hooks::default()), End::start(theirs, Hooks::default()))
        };
        let ((to, from), (to_target, target)) = (link("a@host", "g@host").await, link("g@host", "b@host").await);
        let (sender, mut wanted) = mpsc::unbounded_channel::<Incoming>();
        from.directory.accept_streams(Some(Arc::new(move |incoming| drop(sender.send(incoming)))));
        let onwards = to_target.link.clone();
        let relay = tokio::spawn(async move {
            while let Some(incoming) = wanted.recv().await {
                let there = onwards.open(StreamKind::User, b"", WHILE).await.unwrap();
                let (here_in, here_out) = tokio::io::split(incoming.accept());
                let (there_in, there_out) = tokio::io::split(there);
                tokio::spawn(async move {
                    tokio::join!(pass(here_in, there_out, tamper), pass(there_in, here_out, |_, _| {}))
                });
            }
        });
        let native = Native::new(name("b@host"), limits);
        let credentials = Box::new(move |_: &NodeName, _: &str| Credential::Cookie(cookie(cookie_there)));
        let inside = Arc::new(Inside::new(ServerTls::ephemeral().unwrap(), credentials));
        let (sender, offered) = mpsc::unbounded_channel();
        let of_target = native.clone();
        target.directory.accept_streams(Some(Arc::new(move |incoming| {
            let (inside, native, sender) = (inside.clone(), of_target.clone(), sender.clone());
            tokio::spawn(async move {
                let _ = sender.send(inside.answer(&native, Transport::relayed(incoming.accept())).await);
            });
        })));
        Self { to, from, to_target, target, relay, offered, native }
    }

    async fn dial(&self) -> Result<trunkline_link::Dialed, DialError> {
        let stream = soon(self.to.link.open(StreamKind::User, b"", WHILE)).await.unwrap();
        let from = Native::new(name("a@host"), NativeLimits::default());
        let attempt = attempt(self.native.name(), "127.0.0.1:1".parse().unwrap());
        soon(from.dial_over(Transport::relayed(stream), &attempt, Mode::Node, &client_tls(), DialTimes::default()))
            .await
    }

    async fn link(&mut self) -> (End, End) {
        let dialed = self.dial().await.unwrap();
        assert_eq!(dialed.verified().name, *self.native.name());
        let (finished, accepted) = tokio::join!(soon(dialed.finish(Claims::default())), async {
            soon(soon(self.offered.recv()).await.unwrap().unwrap().accept(1, LinkPolicy::default())).await
        });
        (End::start(finished.unwrap(), Hooks::default()), End::start(accepted.unwrap(), Hooks::default()))
    }
}

#[tokio::test]
async fn a_link_through_another_node_is_a_link_like_any_other() {
    let mut middle = Middle::new(|_, _| {}, COOKIE).await;
    let (a, b) = middle.link().await;
    assert_eq!((a.link.info().peer.as_str(), b.link.info().peer.as_str()), ("b@host", "a@host"));
    assert_eq!(a.link.info().id, b.link.info().id);
    assert_eq!((&a.link.info().via, &b.link.info().via), (&Some(name("g@host")), &Some(name("g@host"))));
    let mut mailbox = b.mailbox("echo");
    let service = tokio::spawn(async move {
        while let Some(message) = mailbox.recv().await {
            let body = message.body().clone();
            message.reply(body);
        }
    });
    for len in [0, 1, 20_000, 3_000_000] {
        let body: Vec<u8> = (0..len).map(|n| (n * 7 + n / 251) as u8).collect();
        assert!(soon(a.link.call("echo", "", &body, WHILE)).await.unwrap() == body);
    }
    // Streams too, inside the stream.
    b.directory.accept_streams(Some(Arc::new(|incoming: Incoming| {
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(incoming.accept());
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    })));
    let stream = soon(a.link.open(StreamKind::User, b"", WHILE)).await.unwrap();
    let (mut back, mut there) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..5_000_000).map(|n: usize| (n * 3 + n / 7) as u8).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        there.write_all(&copy).await.unwrap();
        there.shutdown().await.unwrap();
    });
    let mut received = Vec::new();
    soon(back.read_to_end(&mut received)).await.unwrap();
    writing.await.unwrap();
    assert!(received == sent);
    assert!(soon(a.link.probe(WHILE)).await && soon(b.link.probe(WHILE)).await);

    a.link.go_away(CloseCode::Normal);
    assert!(soon(a.link.closed()).await.is_normal() && soon(b.link.closed()).await.is_normal());
    soon(async {
        while middle.to.link.stats().streams + middle.target.link.stats().streams > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(middle.from.link.is_open() && middle.to_target.link.is_open());
    service.abort();
}

#[tokio::test]
async fn p19_a_byte_changed_on_the_way_ends_the_link_or_keeps_it_from_coming_up() {
    let middle = Middle::new(
        |passed, bytes| {
            if passed == 0 {
                bytes[bytes.len() / 2] ^= 1
            }
        },
        COOKIE,
    )
    .await;
    assert!(middle.dial().await.is_err());
    let tamper: Tamper = |passed, bytes| {
        if (100_000..200_000).contains(&passed) {
            bytes[0] ^= 1;
        }
    };
    let mut middle = Middle::new(tamper, COOKIE).await;
    let (a, b) = middle.link().await;
    let _mailbox = b.mailbox("m");
    while a.link.send("m", "", &[7; 10_000]).await.is_ok() {}
    assert!(!soon(b.link.closed()).await.is_normal() && !soon(a.link.closed()).await.is_normal());
    assert!(middle.to.link.is_open() && middle.target.link.is_open(), "what carried it stays");
}

#[tokio::test]
async fn who_is_in_between_cannot_answer_for_who_is_behind() {
    let mut middle = Middle::new(|_, _| {}, "another cookie than ours").await;
    assert!(matches!(middle.dial().await, Err(DialError::Handshake(HandshakeError::WrongCookie))));
    assert!(soon(middle.offered.recv()).await.unwrap().is_err());
}

/// Bytes that were forwarded from one end to the other in the test that inspects them.
static SEEN: std::sync::Mutex<Vec<u8>> = std::sync::Mutex::new(Vec::new());

#[tokio::test]
async fn e8_who_is_in_between_sees_nothing_of_what_is_said() {
    let mut middle = Middle::new(|_, bytes| SEEN.lock().unwrap().extend_from_slice(bytes), COOKIE).await;
    let (a, b) = middle.link().await;
    let mut mailbox = b.mailbox("confidential-service");
    let secret = b"what only the two ends know ".repeat(1_000);
    soon(a.link.send("confidential-service", "", &secret)).await.unwrap();
    assert!(soon(mailbox.recv()).await.unwrap().body() == &secret[..]);
    let seen = SEEN.lock().unwrap();
    assert!(seen.len() > secret.len());
    for word in [&secret[..28], b"confidential-service", COOKIE.as_bytes()] {
        assert!(!seen.windows(word.len()).any(|part| part == word), "{:?}", String::from_utf8_lossy(word));
    }
}

#[tokio::test]
async fn p21_both_ends_learn_of_a_node_in_between_that_dies() {
    let mut middle = Middle::new(|_, _| {}, COOKIE).await;
    let (a, b) = middle.link().await;
    let call = {
        let link = a.link.clone();
        tokio::spawn(async move { link.call("nobody reads", "", b"", WHILE).await })
    };
    let _mailbox = b.mailbox("nobody reads");
    middle.from.task.abort();
    middle.to_target.task.abort();
    middle.relay.abort();
    assert!(!soon(a.link.closed()).await.is_normal() && !soon(b.link.closed()).await.is_normal());
    assert!(soon(call).await.unwrap().is_err());
}
