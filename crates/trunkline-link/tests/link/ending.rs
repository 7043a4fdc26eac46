//! Tests of the end of a link, its keep-alive and its holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use trunkline_link::{Hooks, KeepAlive, Native, NativeLimits};
use trunkline_route::{Claims, CloseCode, LinkPolicy};
use trunkline_stack::{Down, Mailboxes, SendError};

use crate::world::*;

const WHILE: Duration = Duration::from_secs(20);

fn counting(count: &Arc<AtomicUsize>) -> Hooks {
    let count = count.clone();
    Hooks { on_down: Some(Box::new(move |_, _| _ = count.fetch_add(1, Ordering::SeqCst))), ..Hooks::default() }
}

#[tokio::test]
async fn going_away_finishes_what_is_queued_and_the_calls_under_way() {
    let (a, b) = pair().await;
    let mut mailbox = b.mailbox("m");
    let link = a.link.clone();
    let call = tokio::spawn(async move { link.call("m", "", b"call", WHILE).await });
    let question = soon(mailbox.recv()).await.unwrap();
    for n in 0..500u32 {
        a.link.try_send("m", "", &[&n.to_be_bytes()[..], &[0; 9000]].concat()).unwrap();
    }
    a.link.go_away(CloseCode::Disconnected);
    assert!(!a.link.is_open());
    assert_eq!(a.link.try_send("m", "", b"late"), Err(SendError::Draining));
    for n in 0..500u32 {
        assert_eq!(soon(mailbox.recv()).await.unwrap().body()[..4], n.to_be_bytes());
    }
    soon(b.link.inbound_done()).await;
    assert!(b.link.down().is_none() && a.link.down().is_none(), "the call is under way");
    assert!(matches!(soon(b.link.send("m", "", b"late")).await, Err(SendError::Draining)));
    question.reply(&b"answer"[..]);
    assert_eq!(soon(call).await.unwrap().unwrap(), b"answer"[..]);
    for end in [a, b] {
        assert!(soon(end.link.closed()).await.is_normal());
        soon(end.task).await.unwrap();
    }
}

#[tokio::test]
async fn both_ends_may_go_away_at_once() {
    for _ in 0..20 {
        let (a, b) = pair().await;
        let (mut at_a, mut at_b) = (a.mailbox("m"), b.mailbox("m"));
        let (to_a, to_b) = (b.link.clone(), a.link.clone());
        let calls = [to_a, to_b].map(|link| tokio::spawn(async move { link.call("m", "", b"?", WHILE).await }));
        let questions = [soon(at_a.recv()).await.unwrap(), soon(at_b.recv()).await.unwrap()];
        a.link.go_away(CloseCode::GoingAway);
        b.link.go_away(CloseCode::GoingAway);
        soon(a.link.inbound_done()).await;
        soon(b.link.inbound_done()).await;
        for question in questions {
            question.reply(&b"!"[..]);
        }
        for call in calls {
            assert_eq!(soon(call).await.unwrap().unwrap(), b"!"[..]);
        }
        assert!(soon(a.link.closed()).await.is_normal() && soon(b.link.closed()).await.is_normal());
    }
}

#[tokio::test]
async fn a_call_given_up_does_not_keep_a_link_that_goes_away() {
    let (a, b) = pair().await;
    let mut mailbox = b.mailbox("m");
    let link = a.link.clone();
    let call = tokio::spawn(async move { link.call("m", "", b"?", WHILE).await });
    let _question = soon(mailbox.recv()).await.unwrap();
    a.link.go_away(CloseCode::GoingAway);
    soon(a.link.inbound_done()).await;
    call.abort();
    assert!(soon(a.link.closed()).await.is_normal());
    assert!(soon(b.link.closed()).await.is_normal());
}

#[tokio::test]
async fn a_link_that_goes_away_ends_at_the_drain_time() {
    let limits =
        NativeLimits { keep_alive: KeepAlive { drain: ms(100), ..KeepAlive::default() }, ..NativeLimits::default() };
    let (a, b) = pair_of(limits).await;
    let mut mailbox = b.mailbox("m");
    let link = a.link.clone();
    let call = tokio::spawn(async move { link.call("m", "", b"?", WHILE).await });
    let _never_answered = soon(mailbox.recv()).await.unwrap();
    a.link.go_away(CloseCode::GoingAway);
    soon(a.link.closed()).await;
    soon(b.link.closed()).await;
    assert!(soon(call).await.unwrap().is_err());
}

#[tokio::test]
async fn a_link_that_ends_with_messages_unwritten_says_that_it_failed() {
    let mut limits = limits(16 << 20, 60_000);
    limits.keep_alive.drain = ms(200);
    let mut port = Port::with("b@host", limits, trunkline_tls::ServerTls::ephemeral().unwrap());
    // The peer never reads, and its kernel takes less than this.
    let (ours, _theirs) = port.link_from(&Native::new(name("a@host"), limits)).await;
    let a = End::start(ours, Hooks::default());
    while a.link.try_send("m", "", &[0; 60_000]).is_ok() {}
    a.link.go_away(CloseCode::GoingAway);
    let down = soon(a.link.closed()).await;
    assert_eq!(down, Down::ClosedHere(CloseCode::Timeout));
    assert!(!down.is_normal());
}

/// Passes `from` on to `to`, 64 KiB at most every few milliseconds.
async fn slowly(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        if to.write_all(&bytes[..n]).await.is_err() {
            break;
        }
        tokio::time::sleep(ms(3)).await;
    }
}

#[tokio::test]
async fn a_link_that_goes_away_slowly_is_not_cut_off_while_bytes_move() {
    let mut limits = limits(16 << 20, 60_000);
    limits.keep_alive.drain = ms(1000);
    let mut port = Port::with("b@host", limits, trunkline_tls::ServerTls::ephemeral().unwrap());
    let slow = tokio::net::TcpSocket::new_v4().unwrap();
    slow.set_recv_buffer_size(64 * 1024).unwrap();
    slow.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let slow = slow.listen(1).unwrap();
    let mut attempt = port.attempt();
    attempt.address.port = slow.local_addr().unwrap().port().try_into().unwrap();
    let address = port.address;
    tokio::spawn(async move {
        let (near_in, near_out) = slow.accept().await.unwrap().0.into_split();
        let (far_in, far_out) = tokio::net::TcpStream::connect(address).await.unwrap().into_split();
        tokio::join!(slowly(near_in, far_out), slowly(far_in, near_out));
    });
    let dialed = dial(&Native::new(name("a@host"), limits), &attempt).await.unwrap();
    let (ours, theirs) = tokio::join!(soon(dialed.finish(Claims::default())), async {
        soon(port.offer().await.accept(1, LinkPolicy::default())).await
    });
    let (a, b) = (End::start(ours.unwrap(), Hooks::default()), End::start(theirs.unwrap(), Hooks::default()));
    let mailboxes = ["1", "2", "3"].map(|name| b.mailbox(name));
    let mut sent = 0;
    for name in ["1", "2", "3"] {
        while a.link.try_send(name, "", &[0; 60_000]).is_ok() {
            sent += 1;
        }
    }
    a.link.go_away(CloseCode::GoingAway);
    let down = soon(a.link.closed()).await;
    assert!(down.is_normal(), "{down}");
    soon(b.link.closed()).await;
    assert_eq!(b.link.stats().messages_in, sent);
    drop(mailboxes);
}

#[tokio::test]
async fn a_probe_hears_a_peer_that_lives_also_while_the_link_goes_away() {
    let (a, b) = pair().await;
    assert!(soon(a.link.probe(WHILE)).await);
    let mut mailbox = b.mailbox("m");
    let link = a.link.clone();
    let call = tokio::spawn(async move { link.call("m", "", b"?", WHILE).await });
    let question = soon(mailbox.recv()).await.unwrap();
    a.link.go_away(CloseCode::GoingAway);
    soon(a.link.inbound_done()).await;
    assert!(soon(a.link.probe(WHILE)).await && soon(b.link.probe(WHILE)).await);
    question.reply(&b"!"[..]);
    soon(call).await.unwrap().unwrap();
    soon(a.link.closed()).await;
    assert!(!soon(a.link.probe(WHILE)).await, "it is down");
}

#[tokio::test]
async fn a_probe_of_a_silent_peer_fails_and_one_of_a_held_link_does_not() {
    let mut port = Port::open("b@host");
    let (ours, theirs) = port.link_from(&Native::new(name("a@host"), NativeLimits::default())).await;
    let a = End::start(ours, Hooks::default());
    assert!(!soon(a.link.probe(ms(100))).await);
    // The end of the link ends a probe.
    let link = a.link.clone();
    let probe = tokio::spawn(async move { link.probe(Duration::from_secs(3600)).await });
    tokio::task::yield_now().await;
    drop(theirs);
    assert!(!soon(probe).await.unwrap());

    let of_b = Hooks { hold: Some(Box::pin(std::future::pending())), ..Hooks::default() };
    let (a, b) = pair_with(NativeLimits::default(), NativeLimits::default(), Hooks::default(), of_b).await;
    assert!(soon(b.link.probe(ms(100))).await);
    // It reads no ping, but says of itself that it lives, well before a keep-alive is due.
    assert!(soon(a.link.probe(ms(3000))).await);
    b.link.close(CloseCode::Normal);
    soon(b.link.closed()).await;
    assert!(!soon(b.link.probe(ms(100))).await);
    soon(a.link.closed()).await;
}

#[tokio::test]
async fn closing_tells_the_other_end_the_reason() {
    let (a, b) = pair().await;
    a.link.close(CloseCode::Superseded);
    assert!(!a.link.is_open());
    assert!(matches!(a.link.try_send("m", "", b""), Err(SendError::Draining)));
    assert_eq!(soon(a.link.closed()).await, Down::ClosedHere(CloseCode::Superseded));
    let told = soon(b.link.closed()).await;
    assert_eq!(told, Down::ClosedByPeer { code: CloseCode::Superseded, text: String::new() });
    assert!(told.is_normal());
    assert!(matches!(a.link.try_send("m", "", b""), Err(SendError::Down(_))));
    assert!(matches!(soon(b.link.send("m", "", b"")).await, Err(SendError::Down(_))));
}

#[tokio::test]
async fn an_orderly_end_was_wanted_here_at_the_end_that_went_first_whichever_says_the_last_word() {
    for _ in 0..50 {
        let (a, b) = pair().await;
        a.link.go_away(CloseCode::Disconnected);
        assert_eq!(soon(a.link.closed()).await, Down::ClosedHere(CloseCode::Disconnected));
        let told = Down::ClosedByPeer { code: CloseCode::Disconnected, text: String::new() };
        assert_eq!(soon(b.link.closed()).await, told);
    }
}

#[tokio::test]
async fn closing_a_link_whose_peer_reads_nothing_does_not_wait_for_it() {
    let (release, hold) = oneshot::channel::<()>();
    let of_b = Hooks { hold: Some(Box::pin(async { drop(hold.await) })), ..Hooks::default() };
    let (a, _b) = pair_with(NativeLimits::default(), NativeLimits::default(), Hooks::default(), of_b).await;
    while a.link.try_send("m", "", &[0; 60_000]).is_ok() {
        tokio::task::yield_now().await;
    }
    a.link.close(CloseCode::Normal);
    assert_eq!(soon(a.link.closed()).await, Down::ClosedHere(CloseCode::Normal));
    soon(a.task).await.unwrap();
    drop(release);
}

#[tokio::test]
async fn waiting_senders_learn_that_the_link_goes_or_went() {
    let (a, b) = pair_of(limits(1000, 1000)).await;
    let _mailbox = b.mailbox("m");
    a.link.try_send("m", "", &[0; 900]).unwrap();
    let sender = |link: trunkline_stack::Link| tokio::spawn(async move { link.send("m", "", &[0; 900]).await });
    let waiting = sender(a.link.clone());
    tokio::task::yield_now().await;
    a.link.go_away(CloseCode::GoingAway);
    assert_eq!(soon(waiting).await.unwrap(), Err(SendError::Draining));

    let (a, b) = pair_of(limits(1000, 1000)).await;
    let _mailbox = b.mailbox("m");
    a.link.try_send("m", "", &[0; 900]).unwrap();
    let waiting = sender(a.link.clone());
    tokio::task::yield_now().await;
    b.link.close(CloseCode::Normal);
    assert!(matches!(soon(waiting).await.unwrap(), Err(SendError::Down(_))));
}

#[tokio::test]
async fn p8_a_stream_that_ends_without_a_close_is_a_lost_connection() {
    let downs = Arc::new(AtomicUsize::new(0));
    let (of_a, of_b) = (counting(&downs), counting(&downs));
    let (a, b) = pair_with(NativeLimits::default(), NativeLimits::default(), of_a, of_b).await;
    b.task.abort();
    let down = soon(a.link.closed()).await;
    assert!(matches!(down, Down::ConnectionLost(_)) && !down.is_normal(), "{down}");
    soon(b.link.closed()).await;
    let _ = soon(a.task).await;
    assert_eq!(downs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_end_is_told_exactly_once_however_it_comes() {
    for way in 0..4 {
        let downs = Arc::new(AtomicUsize::new(0));
        let mut port = Port::open("b@host");
        let (ours, theirs) = port.link_from(&Native::new(name("a@host"), NativeLimits::default())).await;
        let (link, task) = ours.start(Arc::new(Mailboxes::default()), counting(&downs));
        if way == 0 {
            drop(task);
        } else {
            let task = tokio::spawn(task);
            let b = End::start(theirs, Hooks::default());
            tokio::task::yield_now().await;
            match way {
                1 => task.abort(),
                2 => link.close(CloseCode::Normal),
                _ => b.link.go_away(CloseCode::GoingAway),
            }
            let _ = soon(task).await;
        }
        soon(link.closed()).await;
        soon(link.inbound_done()).await;
        assert_eq!(downs.load(Ordering::SeqCst), 1, "way {way}");
    }
}

#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let mut port = Port::open("b@host");
    let (ours, theirs) = port.link_from(&Native::new(name("a@host"), keep_alive(50, 150))).await;
    let a = End::start(ours, Hooks::default());
    // The peer's thread stops at the first frame: its kernel still takes bytes, its link says nothing.
    let (wake, stuck) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stop = move || {
            let _ = stuck.recv();
            None
        };
        let hooks = Hooks { on_first_frame: Some(Box::new(stop)), ..Hooks::default() };
        let (_link, task) = theirs.start(Arc::new(Mailboxes::default()), hooks);
        runtime.block_on(task);
    });
    let down = soon(a.link.closed()).await;
    assert_eq!(down, Down::Silent(ms(150)));
    assert!(!down.is_normal());
    drop(wake);
    soon(a.task).await.unwrap();
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn keep_alive_keeps_an_idle_link_up() {
    let (a, b) = pair_of(keep_alive(100, 500)).await;
    assert!(tokio::time::timeout(ms(1500), a.link.closed()).await.is_err());
    assert!(a.link.is_open() && b.link.is_open());
    assert!(a.link.stats().round_trip_us > 0);
}

#[tokio::test]
async fn the_keep_alive_of_the_impatient_end_is_met_by_the_other() {
    let (a, b) =
        pair_with(keep_alive(10_000, 600), keep_alive(10_000, 60_000), Hooks::default(), Hooks::default()).await;
    assert!(tokio::time::timeout(ms(1500), a.link.closed()).await.is_err());
    assert!(b.link.is_open());
}

#[tokio::test]
async fn p13_a_held_link_delivers_nothing_until_the_hold_is_done_and_then_in_order() {
    let (release, hold) = oneshot::channel::<()>();
    let of_b = Hooks { hold: Some(Box::pin(async { drop(hold.await) })), ..Hooks::default() };
    // The hold is longer than the peer's patience: the held end still says that it lives.
    let (a, b) = pair_with(keep_alive(50, 400), keep_alive(50, 400), Hooks::default(), of_b).await;
    let mut mailbox = b.mailbox("m");
    for n in 0..200u8 {
        a.link.try_send("m", "", &[n; 100]).unwrap();
    }
    assert!(tokio::time::timeout(ms(1000), mailbox.recv()).await.is_err());
    release.send(()).unwrap();
    for n in 0..200u8 {
        assert_eq!(soon(mailbox.recv()).await.unwrap().body()[0], n);
    }
    assert!(a.link.is_open() && b.link.is_open());
}

#[tokio::test]
async fn p13_the_first_frame_is_told_and_held_back_with_all_that_follows() {
    let (called, told) = oneshot::channel();
    let (release, hold) = oneshot::channel::<()>();
    let hook = move || -> Option<trunkline_link::Hold> {
        called.send(()).unwrap();
        Some(Box::pin(async { drop(hold.await) }))
    };
    let of_b = Hooks { on_first_frame: Some(Box::new(hook)), ..Hooks::default() };
    let (a, b) = pair_with(NativeLimits::default(), NativeLimits::default(), Hooks::default(), of_b).await;
    let mut mailbox = b.mailbox("m");
    a.link.try_send("m", "", b"0").unwrap();
    soon(told).await.unwrap();
    for n in 1..100u8 {
        a.link.try_send("m", "", &[n + b'0'; 3000]).unwrap();
    }
    assert!(tokio::time::timeout(ms(100), mailbox.recv()).await.is_err());
    release.send(()).unwrap();
    for n in 0..100u8 {
        assert_eq!(soon(mailbox.recv()).await.unwrap().body()[0], n + b'0');
    }
}

#[tokio::test]
async fn a_hold_that_never_ends_is_ended_by_the_drain_time_also_while_going_away() {
    let limits =
        NativeLimits { keep_alive: KeepAlive { drain: ms(200), ..KeepAlive::default() }, ..NativeLimits::default() };
    let of_b = Hooks { hold: Some(Box::pin(std::future::pending())), ..Hooks::default() };
    let (a, b) = pair_with(NativeLimits::default(), limits, Hooks::default(), of_b).await;
    let mut mailbox = b.mailbox("m");
    a.link.try_send("m", "", b"1").unwrap();
    assert_eq!(soon(mailbox.recv()).await.unwrap().body().as_ref(), b"1");

    let of_b = Hooks { hold: Some(Box::pin(std::future::pending())), ..Hooks::default() };
    let (a, b) = pair_with(NativeLimits::default(), limits, Hooks::default(), of_b).await;
    a.link.go_away(CloseCode::GoingAway);
    b.link.go_away(CloseCode::GoingAway);
    soon(a.link.closed()).await;
    soon(b.link.closed()).await;
}

#[cfg(target_os = "linux")]
fn own_sockets(port: u16) -> usize {
    let mine: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let with_port = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let ours = mine.contains(&format!("socket:[{}]", fields[9]));
            ours && (fields[1].ends_with(&with_port) || fields[2].ends_with(&with_port))
        })
        .count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn p16_after_the_end_every_task_and_socket_is_gone() {
    let mut port = Port::open("b@host");
    let node = Native::new(name("a@host"), NativeLimits::default());
    for way in 0..3 {
        let (ours, theirs) = port.link_from(&node).await;
        assert_eq!(own_sockets(port.address.port()), 3);
        let (a, b) = (End::start(ours, Hooks::default()), End::start(theirs, Hooks::default()));
        let mut mailbox = b.mailbox("m");
        a.link.send("m", "", b"x").await.unwrap();
        let unread = soon(mailbox.recv()).await.unwrap();
        match way {
            0 => a.link.close(CloseCode::Normal),
            1 => b.link.go_away(CloseCode::GoingAway),
            _ => a.task.abort(),
        }
        let _ = soon(a.task).await;
        soon(b.task).await.unwrap();
        assert_eq!(own_sockets(port.address.port()), 1, "way {way}: the listener only");
        drop((mailbox, unread));
        assert_eq!((Arc::strong_count(&a.directory), Arc::strong_count(&b.directory)), (1, 1));
    }
    let dialed = dial(&node, &port.attempt()).await.unwrap();
    let standing = {
        let (finished, offer) = tokio::join!(soon(dialed.finish(Claims::default())), async {
            soon(port.offer().await.accept(1, LinkPolicy::default())).await
        });
        (finished.unwrap(), offer.unwrap())
    };
    drop(standing);
    assert_eq!(own_sockets(port.address.port()), 1, "a link that was never started");
}

#[tokio::test]
async fn p12_what_waits_in_the_socket_before_a_control_frame_is_bounded() {
    let of_b = Hooks { hold: Some(Box::pin(std::future::pending())), ..Hooks::default() };
    let (a, b) = pair_with(NativeLimits::default(), NativeLimits::default(), Hooks::default(), of_b).await;
    let _mailbox = b.mailbox("m");
    while a.link.try_send("m", "", &[0; 60_000]).is_ok() {
        tokio::task::yield_now().await;
    }
    // Until the socket takes no more for a while.
    let mut out = 0;
    while out == 0 || a.link.stats().bytes_out != out {
        out = a.link.stats().bytes_out;
        tokio::time::sleep(ms(100)).await;
    }
    // What waits unsent in the kernel and in TLS, and what the peer's end took before it was read.
    assert!(out < 1024 * 1024, "{out} bytes");
}
