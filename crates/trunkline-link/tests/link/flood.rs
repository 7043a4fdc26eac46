//! Strangers at the listener.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline_link::{CredentialsFn, Listener, Native, NativeLimits};
use trunkline_route::{Attempt, Claims, LinkPolicy, NodeName};
use trunkline_tls::ServerTls;
use trunkline_wire::handshake::{Credential, Mode};

use crate::world::*;

fn node() -> Arc<Native> {
    Native::new(name("a@host"), NativeLimits::default())
}

fn port(slots: usize, answer: u64) -> Port {
    let mut limits = NativeLimits { answer: ms(answer), ..NativeLimits::default() };
    limits.gate.slots = slots;
    Port::with("b@host", limits, ServerTls::ephemeral().unwrap())
}

/// Until the listener lets go, by an end or a reset.
async fn let_go(tcp: &mut TcpStream) {
    let mut sink = [0; 4096];
    while tcp.read(&mut sink).await.is_ok_and(|n| n > 0) {}
}

#[tokio::test]
async fn p6_more_silent_connections_than_places_never_block_an_honest_one() {
    let mut port = port(128, 60_000);
    let mut silent = vec![];
    for n in 0..300 {
        silent.push(soon(TcpStream::connect(port.address)).await.unwrap());
        if n % 60 == 59 {
            port.link_from(&node()).await;
        }
    }
    port.link_from(&node()).await;
    // The oldest had to go.
    soon(let_go(&mut silent[0])).await;
}

#[tokio::test]
async fn p7_silent_and_trickling_connections_end_by_the_deadline() {
    let mut port = port(512, 400);
    let mut held = tokio::task::JoinSet::new();
    for n in 0..200 {
        let address: SocketAddr = port.address;
        held.spawn(async move {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                let_go(&mut tcp).await;
                return;
            }
            let (mut from, mut to) = tcp.split();
            let trickle = async {
                // A record that claims 16 KiB and comes byte by byte.
                for byte in [22, 3, 1, 0x3f, 0xff, 1].into_iter().chain(std::iter::repeat(0)) {
                    if to.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(ms(10)).await;
                }
            };
            let gone = async {
                let mut sink = [0; 64];
                while from.read(&mut sink).await.is_ok_and(|n| n > 0) {}
            };
            tokio::select! { () = trickle => {}, () = gone => {} }
        });
    }
    port.link_from(&node()).await;
    soon(async { while held.join_next().await.transpose().unwrap().is_some() {} }).await;
    port.link_from(&node()).await;
}

#[tokio::test]
async fn p6_bytes_before_the_proof_are_capped() {
    let port = port(512, 60_000);
    let mut tcp = soon(TcpStream::connect(port.address)).await.unwrap();
    // The beginning of a ClientHello of 60 KiB in records of 4 KiB: legal so far, and never complete.
    let mut sent = 0;
    let mut hello = vec![1u8, 0, 0xf0, 0];
    hello.resize(4096, 0);
    while sent < 64 * 1024 {
        let record = [&[22u8, 3, 1, 0x10, 0][..], &hello].concat();
        if soon(tcp.write_all(&record)).await.is_err() {
            break;
        }
        sent += record.len();
        hello = vec![0; 4096];
    }
    soon(let_go(&mut tcp)).await;
    let mut port = port;
    port.link_from(&node()).await;
}

#[tokio::test]
async fn guesses_at_a_weak_cookie_are_slowed_down_and_refused_as_throttled() {
    let mut port = Port::open("b@host");
    port.cookie.set(cookie("weak cookie"));
    let mut attempt = port.attempt();
    attempt.cookie = cookie("another one");
    let mut errors = vec![];
    // The pause after the seventh failure is as long as a caller may queue, so that the eighth attempt is proven or refused;
    // the pause after the eighth failure is longer.
    for _ in 0..9 {
        errors.push(dial(&node(), &attempt).await.unwrap_err().to_string());
    }
    assert!(errors[0].contains("cookies differ"), "{}", errors[0]);
    assert!(errors[7..].iter().any(|error| error.contains("too many failed attempts")), "{errors:?}");
    assert!(port.offered.try_recv().is_err() && port.is_serving());
    let stats = port.native.gate_stats();
    assert!(stats.failed_proofs >= 6 && stats.throttled >= 1, "{stats:?}");
}

#[tokio::test]
async fn a_caller_with_a_strong_cookie_gets_in_at_once_whatever_its_neighbours_fail() {
    let mut port = Port::open("b@host");
    let mut attempt = port.attempt();
    attempt.cookie = cookie("another one");
    for _ in 0..20 {
        let error = dial(&node(), &attempt).await.unwrap_err().to_string();
        assert!(error.contains("cookies differ"), "{error}");
    }
    // Under the same name as the one that failed, from the same address.
    for _ in 0..3 {
        port.link_from(&node()).await;
    }
    assert_eq!(port.native.gate_stats().failed_proofs, 20);
    assert_eq!(port.native.gate_stats().throttled, 0);
}

#[tokio::test]
async fn a_fresh_caller_with_a_weak_cookie_gets_in_beside_a_neighbour_that_guesses() {
    let mut port = Port::open("b@host");
    port.cookie.set(cookie("weak cookie"));
    let mut attempt = port.attempt();
    attempt.cookie = cookie("another one");
    for _ in 0..8 {
        dial(&node(), &attempt).await.unwrap_err();
    }
    let attempt = Attempt { cookie: cookie("weak cookie"), ..attempt };
    for n in 0..10 {
        let fresh = Native::new(name(&format!("fresh-{n}@host")), NativeLimits::default());
        let dialed = dial(&fresh, &attempt).await.unwrap();
        let (finished, _) = tokio::join!(soon(dialed.finish(Claims::default())), async {
            soon(port.offer().await.accept(1, LinkPolicy::default())).await.unwrap()
        });
        finished.unwrap();
    }
}

#[tokio::test]
async fn the_listeners_of_a_node_share_one_account_of_places_and_an_evicted_socket_is_closed_at_once() {
    // Nobody ends by a deadline here.
    let mut limits = NativeLimits { answer: ms(600_000), ..NativeLimits::default() };
    limits.gate.slots = 4;
    let native = Native::new(name("b@host"), limits);
    let [one, mut other] = [0; 2].map(|_| Port::of(native.clone(), ServerTls::ephemeral().unwrap()));
    let mut silent = vec![];
    for _ in 0..4 {
        silent.push(soon(TcpStream::connect(one.address)).await.unwrap());
    }
    soon(async {
        while native.gate_stats().taken < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    other.link_from(&node()).await;
    soon(let_go(&mut silent[0])).await;
    assert_eq!(native.gate_stats().evicted, 1);
}

#[test]
fn any_bytes_are_survived_by_the_listener() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut port = runtime.block_on(async { port(64, 500) });
    let starts = prop_oneof![
        Just(vec![]),
        Just(vec![22, 3, 1]),
        Just(vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]),
        Just(vec![21, 3, 3, 0, 2]),
    ];
    let strategy = (starts, proptest::collection::vec(any::<u8>(), 0..10_000));
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&strategy, |(start, bytes)| {
            runtime.block_on(async {
                let mut tcp = soon(TcpStream::connect(port.address)).await.unwrap();
                let _ = tcp.write_all(&[start, bytes].concat()).await;
                let _ = tcp.shutdown().await;
                soon(let_go(&mut tcp)).await;
            });
            prop_assert!(port.is_serving());
            Ok(())
        })
        .unwrap();
    runtime.block_on(async { port.link_from(&node()).await });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_free_when_nobody_listens_any_more_whatever_answer_is_under_way() {
    let (asked, mut is_asked) = tokio::sync::mpsc::unbounded_channel();
    let (let_answer, answer) = std::sync::mpsc::channel::<()>();
    let answer = std::sync::Mutex::new(answer);
    let credentials = move |_: &NodeName, _: &str| {
        asked.send(()).unwrap();
        // As long as the test wants: an answer is at work and cannot be cut off.
        let _ = answer.lock().unwrap().recv();
        Credential::Cookie(cookie(COOKIE))
    };
    let bind = |address: SocketAddr, credentials: Box<CredentialsFn>| {
        let tls = ServerTls::ephemeral().unwrap();
        Listener::bind(address, Mode::Node, tls, credentials)
    };
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), Box::new(credentials)).unwrap();
    let address = listener.local_addr().unwrap();
    let native = Native::new(name("b@host"), NativeLimits::default());
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(listener.serve(native.clone(), |_| async {}));
    let dialling = tokio::spawn(async move { dial(&node(), &attempt(native.name(), address)).await.map(drop) });
    soon(is_asked.recv()).await.unwrap();

    serving.shutdown().await;
    let next = bind(address, Box::new(|_, _| Credential::NotAllowed));
    drop(let_answer);
    assert!(next.is_ok(), "{:?}", next.err());
    dialling.abort();
}
