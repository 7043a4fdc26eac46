//! Messages and calls over a link that stands.

use std::sync::Arc;
use std::time::Duration;

use trunkline_link::{Hooks, Native, NativeLimits};
use trunkline_route::CloseCode;
use trunkline_stack::{CallError, Down, Mailboxes, SendError};

use crate::world::*;

const MIB: usize = 1024 * 1024;
const WHILE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn messages_calls_and_answers_go_both_ways() {
    let (a, b) = pair().await;
    for (one, other) in [(&a, &b), (&b, &a)] {
        let mut mailbox = other.mailbox("echo");
        one.link.send("echo", "me", b"hello").await.unwrap();
        let message = soon(mailbox.recv()).await.unwrap();
        assert_eq!((message.body().as_ref(), message.sender()), (&b"hello"[..], "me"));
        assert_eq!(*message.node(), other.link.info().peer);
        assert!(!message.is_call() && !message.is_high_priority() && message.timeout().is_none());
        let service = async {
            let message = mailbox.recv().await.unwrap();
            assert!(message.is_call() && message.sender().is_empty());
            assert_eq!(message.timeout(), Some(WHILE));
            let body = [message.body().as_ref(), b"!"].concat();
            message.reply(body);
        };
        let (answer, ()) = soon(async { tokio::join!(one.link.call("echo", "", b"ping", WHILE), service) }).await;
        assert_eq!(answer.unwrap(), b"ping!"[..]);
    }
    let (out, into) = (a.link.stats(), b.link.stats());
    assert_eq!((out.messages_out, out.messages_in), (3, 3));
    assert_eq!((into.messages_out, into.messages_in), (3, 3));
}

#[tokio::test]
async fn a_call_without_an_answer_says_why() {
    let (a, b) = pair().await;
    let mut mailbox = b.mailbox("service");
    assert_eq!(soon(a.link.call("nobody", "", b"", WHILE)).await, Err(CallError::NoMailbox));
    let dropped = async { drop(mailbox.recv().await) };
    let (answer, ()) = soon(async { tokio::join!(a.link.call("service", "", b"", WHILE), dropped) }).await;
    assert_eq!(answer, Err(CallError::Dropped));
    let refused = async { mailbox.recv().await.unwrap().refuse("not today") };
    let (answer, ()) = soon(async { tokio::join!(a.link.call("service", "", b"", WHILE), refused) }).await;
    assert_eq!(answer, Err(CallError::Failed("not today".into())));
    assert_eq!(soon(a.link.call("service", "", b"", ms(50))).await, Err(CallError::TimedOut(ms(50))));
    let closing = async {
        mailbox.recv().await.unwrap();
        let _unanswered = soon(mailbox.recv()).await.unwrap();
        b.link.close(CloseCode::GoingAway);
        soon(b.link.closed()).await;
    };
    let (answer, ()) = soon(async { tokio::join!(a.link.call("service", "", b"", WHILE), closing) }).await;
    let down = Down::ClosedByPeer { code: CloseCode::GoingAway, text: String::new() };
    assert_eq!(answer, Err(CallError::LinkDown(down.clone())));
    let not_sent = Err(CallError::NotSent(SendError::Down(down)));
    assert_eq!(soon(a.link.call("service", "", b"", WHILE)).await, not_sent);
}

#[tokio::test]
async fn calls_in_a_mailbox_that_is_dropped_are_answered() {
    let (a, b) = pair().await;
    let mailbox = b.mailbox("service");
    let behind = async {
        assert_eq!(a.link.call("nobody", "", b"", WHILE).await, Err(CallError::NoMailbox));
        drop(mailbox);
    };
    let (answer, ()) = soon(async { tokio::join!(a.link.call("service", "", b"", WHILE), behind) }).await;
    assert_eq!(answer, Err(CallError::Dropped));
}

#[tokio::test]
async fn a_message_as_large_as_the_limit_goes_both_ways_also_behind_a_small_one() {
    let (a, b) = pair().await;
    let body: Vec<u8> = (0..8 * MIB).map(|n| (n / 7) as u8).collect();
    for (one, other) in [(&a, &b), (&b, &a)] {
        let mut mailbox = other.mailbox("big");
        for _ in 0..3 {
            soon(one.link.send("big", "", b"small")).await.unwrap();
            assert_eq!(soon(mailbox.recv()).await.unwrap().body().as_ref(), b"small");
            soon(one.link.send("big", "", &body)).await.unwrap();
            assert!(soon(mailbox.recv()).await.unwrap().body() == &body);
            let service = async {
                let call = mailbox.recv().await.unwrap();
                let body = call.body().clone();
                call.reply(body);
            };
            let (answer, ()) = soon(async { tokio::join!(one.link.call("big", "", &body, WHILE), service) }).await;
            assert!(answer.unwrap() == body);
        }
    }
}

#[tokio::test]
async fn what_is_over_the_limit_of_the_other_end_is_refused_and_the_link_stays() {
    let (a, b) = pair_with(limits(1 << 20, 1000), limits(1 << 20, 2000), Hooks::default(), Hooks::default()).await;
    let mut mailbox = b.mailbox("service");
    let too_large = SendError::TooLarge { len: 2001, limit: 2000 };
    assert_eq!(a.link.try_send("service", "", &[0; 2001]), Err(too_large.clone()));
    assert_eq!(soon(a.link.send("service", "", &[0; 2001])).await, Err(too_large));
    let service = async { mailbox.recv().await.unwrap().reply(vec![0; 1001]) };
    let (answer, ()) = soon(async { tokio::join!(a.link.call("service", "", &[0; 2000], WHILE), service) }).await;
    assert!(matches!(answer, Err(CallError::Failed(text)) if text.contains("1001")));
    let service = async { mailbox.recv().await.unwrap().reply(vec![0; 1000]) };
    let (answer, ()) = soon(async { tokio::join!(a.link.call("service", "", b"", WHILE), service) }).await;
    assert_eq!(answer.unwrap().len(), 1000);
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    let (a, _b) = pair().await;
    assert_eq!(a.link.try_send("", "", b""), Err(SendError::BadName));
    assert_eq!(a.link.try_send(&"x".repeat(256), "", b""), Err(SendError::BadName));
    assert_eq!(a.link.try_send("x", &"x".repeat(256), b""), Err(SendError::BadName));
}

#[tokio::test]
async fn p11_an_unread_mailbox_stops_its_sender_and_nobody_else() {
    let (a, b) = pair_of(limits(100_000, 50_000)).await;
    let (mut stuck, mut other) = (b.mailbox("stuck"), b.mailbox("other"));
    let mut sent = 0;
    while soon(async {
        // The link's credit comes back on its own, the mailbox's does not.
        soon(a.link.call("nobody", "", b"", WHILE)).await.unwrap_err();
        a.link.try_send("stuck", "", &[0; 10_000])
    })
    .await
    .is_ok()
    {
        sent += 1;
    }
    assert_eq!(sent, 9);
    assert_eq!(a.link.try_send("stuck", "", &[0; 10_000]), Err(SendError::Full));
    let link = a.link.clone();
    let waiting = tokio::spawn(async move { link.send("stuck", "", b"waited".repeat(2000).as_slice()).await });
    for n in 0..100u8 {
        soon(a.link.send("other", "", &[n; 20_000])).await.unwrap();
        assert_eq!(soon(other.recv()).await.unwrap().body()[0], n);
    }
    assert!(!waiting.is_finished());
    for _ in 0..9 {
        assert_eq!(soon(stuck.recv()).await.unwrap().body().len(), 10_000);
    }
    soon(waiting).await.unwrap().unwrap();
    assert_eq!(soon(stuck.recv()).await.unwrap().body().as_ref(), b"waited".repeat(2000));
}

#[tokio::test]
async fn a_send_dropped_while_it_waits_sends_nothing() {
    let (a, b) = pair_of(limits(10_000, 10_000)).await;
    let mut mailbox = b.mailbox("m");
    a.link.try_send("m", "", &[1; 9000]).unwrap();
    assert!(tokio::time::timeout(ms(20), a.link.send("m", "", &[2; 5000])).await.is_err());
    assert_eq!(soon(mailbox.recv()).await.unwrap().body()[0], 1);
    soon(a.link.send("m", "", &[3; 5000])).await.unwrap();
    assert_eq!(soon(mailbox.recv()).await.unwrap().body()[0], 3);
    assert!(mailbox.try_recv().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn p13_order_is_kept_for_every_pair_of_names_under_concurrency() {
    const EACH: u32 = 3000;
    let (a, b) = pair_of(limits(100_000, 50_000)).await;
    let mut readers = vec![];
    for to in 0..3 {
        let mut mailbox = b.mailbox(&format!("to{to}"));
        readers.push(tokio::spawn(async move {
            let mut next = [0u32; 4];
            for _ in 0..4 * EACH {
                let message = soon(mailbox.recv()).await.unwrap();
                let from: usize = message.sender()[4..].parse().unwrap();
                assert_eq!(u32::from_be_bytes(message.body()[..4].try_into().unwrap()), next[from]);
                next[from] += 1;
            }
        }));
    }
    for from in 0..4 {
        let link = a.link.clone();
        readers.push(tokio::spawn(async move {
            for n in 0..EACH {
                for to in 0..3 {
                    let body = [&n.to_be_bytes()[..], &vec![0; (n as usize * 37) % 900]].concat();
                    soon(link.send(&format!("to{to}"), &format!("from{from}"), &body)).await.unwrap();
                }
            }
        }));
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn high_priority_overtakes_what_is_queued() {
    let (a, b) = pair().await;
    let mut mailbox = b.mailbox("m");
    for n in 0..100u8 {
        a.link.try_send("m", "", &[n; 30_000]).unwrap();
    }
    a.link.send_high_priority("m", "", b"first!").await.unwrap();
    a.link.send_high_priority("m", "", b"second").await.unwrap();
    let first = soon(mailbox.recv()).await.unwrap();
    assert!(first.is_high_priority() && first.body().as_ref() == b"first!");
    assert_eq!(soon(mailbox.recv()).await.unwrap().body().as_ref(), b"second");
    for n in 0..100 {
        assert_eq!(soon(mailbox.recv()).await.unwrap().body()[0], n);
    }
}

#[tokio::test]
async fn no_peer_makes_this_end_send_more_than_the_hard_limit() {
    let (a, _b) = pair_of(limits(1 << 28, 1 << 28)).await;
    let limit = 64 << 20;
    let refused = a.link.try_send("m", "", &vec![0; limit + 1]);
    assert_eq!(refused, Err(SendError::TooLarge { len: limit + 1, limit }));
}

#[tokio::test]
async fn messages_to_nobody_are_counted_and_give_their_credit_back() {
    let (a, b) = pair().await;
    for _ in 0..400 {
        soon(a.link.send("nobody", "", &[0; 64 * 1024])).await.unwrap();
    }
    assert_eq!(soon(a.link.call("nobody", "", b"", WHILE)).await, Err(CallError::NoMailbox));
    assert_eq!(b.link.stats().undeliverable, 401);
}

#[tokio::test]
async fn a_dropped_mailbox_gives_its_credit_back_and_its_name() {
    let (a, b) = pair_of(limits(100_000, 50_000)).await;
    let mailbox = b.mailbox("m");
    while a.link.try_send("m", "", &[0; 10_000]).is_ok() {
        soon(a.link.call("nobody", "", b"", WHILE)).await.unwrap_err();
    }
    drop(mailbox);
    for _ in 0..100 {
        soon(a.link.send("m", "", &[0; 10_000])).await.unwrap();
    }
    soon(a.link.call("m", "", b"", WHILE)).await.unwrap_err();
    let mut again = b.mailbox("m");
    soon(a.link.send("m", "", b"anew")).await.unwrap();
    assert_eq!(soon(again.recv()).await.unwrap().body().as_ref(), b"anew");
}

#[tokio::test]
async fn a_closed_directory_gives_what_it_holds_and_then_nothing() {
    let (a, b) = pair().await;
    let mut mailbox = b.mailbox("m");
    a.link.try_send("m", "", b"1").unwrap();
    a.link.try_send("m", "", b"2").unwrap();
    soon(a.link.call("nobody", "", b"", WHILE)).await.unwrap_err();
    b.directory.close();
    assert_eq!(soon(mailbox.recv()).await.unwrap().body().as_ref(), b"1");
    assert_eq!(soon(mailbox.recv()).await.unwrap().body().as_ref(), b"2");
    assert!(soon(mailbox.recv()).await.is_none());
    assert_eq!(soon(a.link.call("m", "", b"", WHILE)).await, Err(CallError::NoMailbox));
}

#[tokio::test]
async fn answers_beyond_the_credit_of_the_caller_arrive_when_it_reads() {
    let (a, b) = pair_of(limits(40_000, 40_000)).await;
    let mut mailbox = b.mailbox("m");
    let mut calls = vec![];
    for n in 0..30u8 {
        let link = a.link.clone();
        calls.push(tokio::spawn(async move { link.call("m", "", &[n], WHILE).await }));
    }
    for _ in 0..30 {
        let message = soon(mailbox.recv()).await.unwrap();
        let body = vec![message.body()[0]; 39_000];
        message.reply(body);
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(soon(call).await.unwrap().unwrap()[38_999], n as u8);
    }
}

#[tokio::test]
async fn a_round_trip_is_measured() {
    let (a, b) = pair_of(NativeLimits::default()).await;
    a.link.ping();
    soon(a.link.call("nobody", "", b"", WHILE)).await.unwrap_err();
    assert!(a.link.stats().round_trip_us > 0 && a.link.stats().bytes_in > 0 && b.link.stats().bytes_out > 0);
    assert!(a.link.same(&a.link.clone()) && !a.link.same(&b.link));
    assert!(Arc::ptr_eq(&a.directory, &a.directory));
}

#[tokio::test]
async fn a_peer_that_floods_a_mailbox_delays_the_others_by_a_turn_and_keeps_its_order() {
    let mut port = Port::open("b@host");
    let directory = Arc::new(Mailboxes::default());
    let mut mailbox = directory.register("in").unwrap();
    let mut ends = Vec::new();
    for (from, messages) in [("flood@host", 5_000u32), ("calm@host", 2)] {
        let (ours, theirs) = port.link_from(&Native::new(name(from), NativeLimits::default())).await;
        let (link, task) = theirs.start(directory.clone(), Hooks::default());
        let end = End::start(ours, Hooks::default());
        for n in 0..messages {
            soon(end.link.send("in", "", &n.to_be_bytes())).await.unwrap();
        }
        ends.push((link, tokio::spawn(task)));
        // What was sent before it is in the mailbox when this is answered.
        assert_eq!(soon(end.link.call("nobody", "", b"", WHILE)).await, Err(CallError::NoMailbox));
        ends.push((end.link, end.task));
    }
    let (mut next, mut calm_at) = ([0; 2], Vec::new());
    for at in 0..5_002 {
        let message = soon(mailbox.recv()).await.unwrap();
        let is_calm = message.node().as_str() == "calm@host";
        let expected = &mut next[usize::from(is_calm)];
        assert_eq!(message.body().as_ref(), u32::to_be_bytes(*expected), "each keeps its order");
        *expected += 1;
        calm_at.extend(is_calm.then_some(at));
    }
    assert!(calm_at.iter().all(|at| *at < 200), "behind a turn of the other, not behind all it sent: {calm_at:?}");
}
