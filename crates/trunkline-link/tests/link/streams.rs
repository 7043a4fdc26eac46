//! Streams of bytes over a link that stands.

use std::future::Future;
use std::io::ErrorKind;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use trunkline_link::{FIRST_WINDOW, Hooks, MAX_WINDOW, Native, NativeLimits};
use trunkline_route::CloseCode;
use trunkline_stack::{
    ByteStream, EARLY_DATA, First, Incoming, MAX_STREAMS, Mailboxes, OpenError, Rate, StreamCode, StreamKind,
};
use trunkline_tls::ServerTls;

use crate::world::*;

const WHILE: Duration = Duration::from_secs(20);
const USER: StreamKind = StreamKind::User;

/// Streams that peers request of this end.
fn wanted(end: &End) -> mpsc::UnboundedReceiver<Incoming> {
    let (sender, incoming) = mpsc::unbounded_channel();
    end.directory.accept_streams(Some(std::sync::Arc::new(move |stream| drop(sender.send(stream)))));
    incoming
}

/// A stream's two ends.
async fn stream(from: &End, incoming: &mut mpsc::UnboundedReceiver<Incoming>) -> (ByteStream, ByteStream) {
    let (ours, theirs) = soon(async {
        tokio::join!(from.link.open(USER, b"", WHILE), async { incoming.recv().await.unwrap().accept() })
    })
    .await;
    (ours.unwrap(), theirs)
}

async fn read_all(mut stream: ByteStream) -> (Vec<u8>, ByteStream) {
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    (bytes, stream)
}

/// Bytes that show where they were lost or changed.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[tokio::test]
async fn either_end_opens_and_each_direction_ends_by_itself() {
    let (a, b) = pair().await;
    let (mut of_a, mut of_b) = (wanted(&a), wanted(&b));
    for (one, incoming) in [(&a, &mut of_b), (&b, &mut of_a)] {
        let (ours, incoming) = soon(async {
            tokio::join!(one.link.open(StreamKind::Service, b"echo", WHILE), async {
                let incoming = incoming.recv().await.unwrap();
                assert_eq!((incoming.kind(), incoming.data().as_ref()), (StreamKind::Service, &b"echo"[..]));
                assert_eq!(
                    (incoming.peer(), incoming.timeout()),
                    (&name(if one.link.same(&a.link) { "a@host" } else { "b@host" }), WHILE)
                );
                incoming.accept()
            })
        })
        .await;
        let (mut ours, theirs) = (ours.unwrap(), incoming);
        ours.write_all(b"a question").await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(ours.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let (question, mut theirs) = read_all(theirs).await;
        assert_eq!(question, b"a question");
        theirs.write_all(b"an answer").await.unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(read_all(ours).await.0, b"an answer");
    }
    assert_eq!((a.link.stats().streams, b.link.stats().streams), (0, 0));
    assert!(a.link.is_open() && b.link.is_open());
}

#[tokio::test]
async fn much_goes_through_unchanged_while_the_window_grows_within_its_bounds() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut ours, mut theirs) = stream(&a, &mut of_b).await;
    const ALL: usize = 64 * 1024 * 1024;
    let writer = tokio::spawn(async move {
        let mut at = 0;
        while at < ALL {
            let len = (1 + at % 100_000).min(ALL - at);
            ours.write_all(&pattern(at, len)).await.unwrap();
            at += len;
        }
        ours.shutdown().await.unwrap();
        ours
    });
    let mut at = 0;
    while let Some(chunk) = soon(theirs.read_chunk(50_000)).await.unwrap() {
        assert!(chunk.len() <= 50_000 && chunk == pattern(at, chunk.len()), "at {at}");
        at += chunk.len();
    }
    assert_eq!(at, ALL);
    drop(writer.await.unwrap());
}

/// Writes until it has to wait.
async fn fill(stream: &mut ByteStream) -> usize {
    let mut written = 0;
    while let Ok(n) = tokio::time::timeout(ms(300), stream.write(&[7; 10_000])).await {
        written += n.unwrap();
    }
    written
}

#[tokio::test]
async fn p10_p11_a_stream_nobody_reads_stops_its_writer_and_nothing_else() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut stopped, _unread) = stream(&a, &mut of_b).await;
    let written = fill(&mut stopped).await;
    assert_eq!(written, FIRST_WINDOW as usize, "a peer that reads nothing gets one window");
    let (mut ours, mut theirs) = stream(&a, &mut of_b).await;
    let mut mailbox = b.mailbox("m");
    for n in 0..100 {
        let bytes = pattern(n, 20_000);
        ours.write_all(&bytes).await.unwrap();
        let mut read = vec![0; bytes.len()];
        soon(theirs.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, bytes);
        a.link.send("m", "", b"still here").await.unwrap();
        assert_eq!(soon(mailbox.recv()).await.unwrap().body().as_ref(), b"still here");
    }
}

#[tokio::test]
async fn a_window_that_grew_stays_within_its_bound() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut ours, mut theirs) = stream(&a, &mut of_b).await;
    let reader = tokio::spawn(async move {
        let mut all = 0;
        while all < 100 * 1024 * 1024 {
            all += theirs.read_chunk(usize::MAX).await.unwrap().unwrap().len();
        }
        (theirs, all)
    });
    let mut written = 0;
    while !reader.is_finished() {
        // More than the reader wants would wait for ever.
        let write = tokio::time::timeout(ms(200), ours.write(&[7; 60_000])).await;
        written += write.map_or(0, Result::unwrap);
    }
    let (_unread, all) = soon(reader).await.unwrap();
    written += fill(&mut ours).await;
    assert!(written - all <= MAX_WINDOW as usize, "{written} of {all}");
    assert!(written - all >= FIRST_WINDOW as usize / 2);
}

#[tokio::test]
async fn a_stream_is_refused_in_words_or_not_answered_in_time() {
    let (a, b) = pair().await;
    let refused = |code, text: &str| OpenError::Refused { hop: "b@host".into(), code, text: text.into() };
    let nobody = soon(a.link.open(USER, b"", WHILE)).await.unwrap_err();
    assert_eq!(nobody, refused(StreamCode::Cancelled, ""));
    let mut of_b = wanted(&b);
    let open = a.link.open(StreamKind::Service, b"secret", WHILE);
    let refuse = async { of_b.recv().await.unwrap().refuse(StreamCode::NotAllowed, "ask the owner") };
    let (answer, ()) = soon(async { tokio::join!(open, refuse) }).await;
    assert_eq!(answer.unwrap_err(), refused(StreamCode::NotAllowed, "ask the owner"));
    let open = a.link.open(USER, b"", WHILE);
    let refuse = async { of_b.recv().await.unwrap().refuse_for("c@host", StreamCode::Unreachable, "") };
    let (answer, ()) = soon(async { tokio::join!(open, refuse) }).await;
    assert_eq!(answer.unwrap_err().to_string(), "c@host refused: unreachable");
    assert_eq!(soon(a.link.open(USER, b"", ms(50))).await.unwrap_err(), OpenError::TimedOut(ms(50)));
    assert_eq!(soon(a.link.open(USER, &[0; 1025], WHILE)).await.unwrap_err(), OpenError::TooLong { len: 1025 });
    // Who gave up is not there when the answer comes.
    let mut late = soon(of_b.recv()).await.unwrap().accept();
    assert_eq!(soon(late.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(late);
    assert_eq!((a.link.stats().streams, b.link.stats().streams), (0, 0));
    assert!(a.link.is_open() && b.link.is_open());
}

#[tokio::test]
async fn a_reset_comes_after_what_arrived_and_says_why() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut ours, mut theirs) = stream(&a, &mut of_b).await;
    ours.write_all(b"so far").await.unwrap();
    let mut read = [0; 2];
    soon(theirs.read_exact(&mut read)).await.unwrap();
    ours.reset(StreamCode::Broken);
    let mut rest = Vec::new();
    let error = soon(theirs.read_to_end(&mut rest)).await.unwrap_err();
    assert_eq!(
        (rest.as_slice(), error.kind(), error.to_string()),
        (&b" far"[..], ErrorKind::ConnectionReset, "broken off".into())
    );
    assert_eq!(theirs.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_drops_a_stream_it_has_written_to_the_end_loses_nothing_of_that() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut ours, theirs) = stream(&a, &mut of_b).await;
    let bytes = pattern(0, 100_000);
    ours.write_all(&bytes).await.unwrap();
    ours.shutdown().await.unwrap();
    drop(ours);
    let (read, mut theirs) = read_all(theirs).await;
    assert_eq!(read, bytes);
    // Nobody reads the other direction any more.
    let error = loop {
        match soon(theirs.write(&[0; 1000])).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop(theirs);
    assert_eq!((a.link.stats().streams, b.link.stats().streams), (0, 0));
}

#[tokio::test]
async fn the_end_of_the_link_ends_its_streams_also_for_who_waits() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut ours, mut theirs) = stream(&a, &mut of_b).await;
    let (mut full, _unread) = stream(&a, &mut of_b).await;
    fill(&mut full).await;
    let opening = {
        let link = a.link.clone();
        tokio::spawn(async move { link.open(USER, b"", WHILE).await })
    };
    let reading = tokio::spawn(async move { theirs.read(&mut [0; 8]).await });
    let writing = tokio::spawn(async move { full.write_all(&[0; 1000]).await });
    let _never_answered = soon(of_b.recv()).await.unwrap();
    b.link.close(CloseCode::Normal);
    for error in [soon(reading).await.unwrap().map(drop), soon(writing).await.unwrap()] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    }
    assert!(matches!(soon(opening).await.unwrap(), Err(OpenError::Down(_))));
    let error = soon(ours.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.to_string(), "closed by the peer: normal");
    assert!(matches!(soon(a.link.open(USER, b"", WHILE)).await, Err(OpenError::Down(_))));
}

#[tokio::test]
async fn a_link_that_goes_away_ends_when_its_streams_have_and_opens_none() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut ours, mut theirs) = stream(&a, &mut of_b).await;
    a.link.go_away(CloseCode::GoingAway);
    assert_eq!(soon(a.link.open(USER, b"", WHILE)).await.unwrap_err(), OpenError::Draining);
    for n in 0..50 {
        let bytes = pattern(n, 30_000);
        ours.write_all(&bytes).await.unwrap();
        let mut read = vec![0; bytes.len()];
        soon(theirs.read_exact(&mut read)).await.unwrap();
        assert_eq!(read, bytes);
    }
    assert!(a.link.down().is_none() && b.link.down().is_none());
    ours.shutdown().await.unwrap();
    theirs.shutdown().await.unwrap();
    assert!(soon(a.link.closed()).await.is_normal());
    assert!(soon(b.link.closed()).await.is_normal());
}

#[tokio::test]
async fn a_link_that_gave_way_stays_for_its_streams_however_long_they_rest() {
    let mut limits = NativeLimits::default();
    limits.keep_alive.drain = ms(100);
    for (code, stays) in [(CloseCode::Superseded, true), (CloseCode::GoingAway, false)] {
        let (a, b) = pair_with(limits, limits, Hooks::default(), Hooks::default()).await;
        let mut of_b = wanted(&b);
        let (mut ours, mut theirs) = stream(&a, &mut of_b).await;
        a.link.go_away(code);
        let ended = tokio::time::timeout(ms(600), a.link.closed()).await.is_ok();
        assert_eq!(ended, !stays, "{code}");
        if stays {
            ours.write_all(b"still here").await.unwrap();
            let mut read = [0; 10];
            soon(theirs.read_exact(&mut read)).await.unwrap();
            drop((ours, theirs));
            assert!(soon(a.link.closed()).await.is_normal());
        }
    }
}

#[tokio::test]
async fn streams_are_opened_up_to_the_limit_of_either_end() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..MAX_STREAMS {
        let (one, other) = stream(&a, &mut of_b).await;
        ours.push(one);
        theirs.push(other);
    }
    assert_eq!(soon(a.link.open(USER, b"", WHILE)).await.unwrap_err(), OpenError::TooMany);
    assert_eq!((a.link.stats().streams, b.link.stats().streams), (4096, 4096));
    ours.pop();
    drop(theirs.pop());
    stream(&a, &mut of_b).await;
    // The other direction has a number of its own.
    let mut of_a = wanted(&a);
    stream(&b, &mut of_a).await;
}

#[tokio::test]
async fn many_streams_share_the_link_fairly() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..64 {
        let (mut ours, theirs) = stream(&a, &mut of_b).await;
        readers.push(theirs);
        writers.push(tokio::spawn(async move { while ours.write_all(&[1; 20_000]).await.is_ok() {} }));
    }
    // Everything that arrives is read at once, by one reader, until there is enough; who got how much?
    let mut shares = vec![0usize; readers.len()];
    while shares.iter().sum::<usize>() < 64 * 1024 * 1024 {
        soon(std::future::poll_fn(|cx| {
            let mut any = false;
            for (reader, share) in readers.iter_mut().zip(&mut shares) {
                if let std::task::Poll::Ready(chunk) = reader.poll_chunk(cx, usize::MAX) {
                    *share += chunk.unwrap().unwrap().len();
                    any = true;
                }
            }
            if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        }))
        .await;
    }
    let (least, most) = (*shares.iter().min().unwrap() as f64, *shares.iter().max().unwrap() as f64);
    // A turn is 32 KiB, and what is read last may be a turn or two ahead.
    assert!(least > 0.8 * most, "{shares:?}");
    drop(readers);
    for writer in writers {
        soon(writer).await.unwrap();
    }
}

#[tokio::test]
async fn who_opens_a_stream_and_gives_up_ends_it_also_before_it_is_accepted() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    for _ in 0..3 {
        let give_up = a.link.open(USER, b"", ms(100));
        let wait = async {
            let waiting = of_b.recv().await.unwrap();
            let (begun, has_begun) = tokio::sync::oneshot::channel();
            let wait = tokio::spawn(async move {
                let _ = begun.send(());
                waiting.cancelled().await;
                waiting
            });
            has_begun.await.unwrap();
            wait.await.unwrap()
        };
        let (gave_up, waiting) = soon(async { tokio::join!(give_up, wait) }).await;
        assert_eq!(gave_up.unwrap_err(), OpenError::TimedOut(ms(100)));
        assert!(waiting.is_cancelled());
        let mut late = waiting.accept();
        assert_eq!(soon(late.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(late.write(b"anybody?").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let link = a.link.clone();
    let opening = tokio::spawn(async move { link.open(USER, b"", WHILE).await });
    let waiting = soon(of_b.recv()).await.unwrap();
    assert_eq!(b.link.stats().streams, 1, "what waits counts");
    a.link.close(CloseCode::Normal);
    soon(waiting.cancelled()).await;
    let mut late = waiting.accept();
    assert_eq!(soon(late.read(&mut [0; 8])).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert!(soon(opening).await.unwrap().is_err());
    drop(late);
    assert_eq!((a.link.stats().streams, b.link.stats().streams), (0, 0));
}

#[tokio::test]
async fn a_peer_may_be_refused_as_many_streams_as_it_may_open() {
    let (a, b) = pair().await;
    b.directory.accept_streams(Some(std::sync::Arc::new(|stream: Incoming| {
        stream.refuse(StreamCode::NoService, "there is nothing of this name here, and saying so takes a few words");
    })));
    let mut refused = tokio::task::JoinSet::new();
    for _ in 0..MAX_STREAMS {
        let link = a.link.clone();
        refused.spawn(async move { link.open(USER, b"", WHILE).await });
    }
    while let Some(answer) = soon(refused.join_next()).await {
        let answer = answer.unwrap().unwrap_err();
        assert!(matches!(answer, OpenError::Refused { code: StreamCode::NoService, .. }), "{answer}");
    }
    assert!(a.link.is_open() && b.link.is_open());
}

#[tokio::test]
async fn a_link_that_goes_away_waits_for_a_transfer_and_not_for_a_link_inside() {
    let mut limits = NativeLimits::default();
    limits.keep_alive.drain = ms(200);
    for (kind, lasts) in [(StreamKind::Service, true), (StreamKind::Proxied, false)] {
        let (a, b) = pair_of(limits).await;
        let mut of_b = wanted(&b);
        let (ours, theirs) =
            soon(async { tokio::join!(a.link.open(kind, b"", WHILE), async { of_b.recv().await.unwrap().accept() }) })
                .await;
        let (mut ours, mut theirs) = (ours.unwrap(), theirs);
        a.link.go_away(CloseCode::Disconnected);
        // Something moves as long as the drain time takes, five times over.
        let mut moved = 0;
        let mut tick = tokio::time::interval(ms(20));
        while moved < 50 {
            tick.tick().await;
            if ours.write_all(b"on").await.is_err() || soon(theirs.read_exact(&mut [0; 2])).await.is_err() {
                break;
            }
            if theirs.write_all(b"on").await.is_err() || soon(ours.read_exact(&mut [0; 2])).await.is_err() {
                break;
            }
            moved += 1;
        }
        assert_eq!(moved == 50, lasts, "{kind:?}: {moved}");
    }
}

#[tokio::test]
async fn what_is_sent_with_the_request_is_there_when_the_stream_is_accepted_and_counts() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let all = pattern(0, 3 * FIRST_WINDOW as usize);
    for (early, is_all) in [(0, false), (1, false), (EARLY_DATA as usize, false), (0, true), (700, true)] {
        let first = First { bytes: &all[..early], is_all };
        let (ours, theirs) = soon(async {
            tokio::join!(a.link.open_with(USER, b"", first, WHILE), async { of_b.recv().await.unwrap().accept() })
        })
        .await;
        let (mut ours, rest) = (ours.unwrap(), all[early..].to_vec());
        if is_all {
            assert_eq!(ours.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
        let writing = tokio::spawn(async move {
            if !is_all {
                ours.write_all(&rest).await.unwrap();
                ours.shutdown().await.unwrap();
            }
            ours
        });
        let (read, mut theirs) = read_all(theirs).await;
        assert!(read == all[..if is_all { early } else { all.len() }], "{early} bytes early");
        theirs.write_all(b"answer").await.unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(read_all(soon(writing).await.unwrap()).await.0, b"answer");
    }
    assert_eq!((a.link.stats().streams, b.link.stats().streams), (0, 0));
    let first = First { bytes: &all[..EARLY_DATA as usize + 1], is_all: false };
    let error = a.link.open_with(USER, b"", first, WHILE).await.unwrap_err();
    assert_eq!(error, OpenError::TooMuchAtFirst { len: EARLY_DATA as usize + 1 });
}

#[tokio::test]
async fn a_stream_that_is_refused_or_given_up_takes_what_was_sent_with_it_along() {
    let (a, b) = pair().await;
    let mut of_b = wanted(&b);
    let bytes = pattern(0, EARLY_DATA as usize);
    for is_all in [false, true] {
        let first = First { bytes: &bytes, is_all };
        let (opened, ()) = soon(async {
            tokio::join!(a.link.open_with(USER, b"", first, WHILE), async {
                of_b.recv().await.unwrap().refuse(StreamCode::NotAllowed, "no");
            })
        })
        .await;
        assert!(matches!(opened, Err(OpenError::Refused { code: StreamCode::NotAllowed, .. })), "{opened:?}");
        // Who gives up is not waited for, also when it had sent all it would.
        let (opened, incoming) = soon(async {
            tokio::join!(a.link.open_with(USER, b"", first, Duration::ZERO), async { of_b.recv().await.unwrap() })
        })
        .await;
        assert!(matches!(opened, Err(OpenError::TimedOut(_))), "{opened:?}");
        soon(incoming.cancelled()).await;
        assert!(incoming.is_cancelled());
    }
    // The link is as good as ever.
    let (mut ours, theirs) = stream(&a, &mut of_b).await;
    ours.write_all(b"fine").await.unwrap();
    ours.shutdown().await.unwrap();
    assert_eq!(read_all(theirs).await.0, b"fine");
}

#[tokio::test]
async fn a_peer_that_resets_what_it_asks_for_is_refused_for_a_while_and_one_that_uses_its_streams_is_not() {
    let limits = NativeLimits { resets: Rate { burst: 20, per_second: 1 }, ..NativeLimits::default() };
    let mut port = Port::with("b@host", limits, ServerTls::ephemeral().unwrap());
    let directory = Arc::new(Mailboxes::default());
    let (sender, mut incoming) = mpsc::unbounded_channel::<Incoming>();
    directory.accept_streams(Some(Arc::new(move |stream| drop(sender.send(stream)))));
    let mut ends = Vec::new();
    for from in ["rapid@host", "busy@host"] {
        let (ours, theirs) = port.link_from(&Native::new(name(from), NativeLimits::default())).await;
        let (link, task) = theirs.start(directory.clone(), Hooks::default());
        ends.push((End::start(ours, Hooks::default()), link, tokio::spawn(task)));
    }
    let [(rapid, ..), (busy, ..)] = &ends[..] else { unreachable!() };
    let first = First { bytes: b"said at once", is_all: false };
    for (n, first) in [First::default(), first].into_iter().cycle().take(50).enumerate() {
        let mut opening = Box::pin(rapid.link.open_with(USER, b"", first, WHILE));
        assert!(opening.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "{n}");
    }
    // A reset may come behind later requests: all were heard of before the next request is made.
    for _ in 0..50 {
        let stream = soon(incoming.recv()).await.unwrap();
        soon(stream.cancelled()).await;
        assert_eq!(stream.peer().as_str(), "rapid@host");
    }
    match soon(rapid.link.open(USER, b"", WHILE)).await {
        Err(OpenError::Refused { code: StreamCode::Overloaded, text, .. }) => assert!(text.contains("reset"), "{text}"),
        other => panic!("{other:?}"),
    }
    // However many streams of another peer are accepted, used, and reset in the end, none is refused.
    for n in 0..100 {
        let accepted = async { incoming.recv().await.unwrap().accept() };
        let (ours, theirs) = soon(async { tokio::join!(busy.link.open(USER, b"", WHILE), accepted) }).await;
        let (mut ours, mut theirs) = (ours.unwrap_or_else(|error| panic!("{n}: {error}")), theirs);
        ours.write_all(b"x").await.unwrap();
        soon(theirs.read_exact(&mut [0])).await.unwrap();
        ours.reset(StreamCode::Cancelled);
        let reset = soon(theirs.read_exact(&mut [0])).await.unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    }
}
