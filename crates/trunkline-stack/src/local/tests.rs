use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline_route::Cookie;
use trunkline_term::Term;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn node(limits: LocalLimits) -> (Arc<Mailboxes>, Arc<LocalLink>) {
    let mailboxes = Arc::new(Mailboxes::default());
    let cookie = Cookie::new("a cookie of some length").unwrap();
    let info = LinkInfo::local("a@h".parse().unwrap(), [7; 16], cookie);
    (mailboxes.clone(), LocalLink::start(info, mailboxes, limits))
}

#[tokio::test]
async fn messages_arrive_in_order_with_their_sender_and_a_missing_mailbox_is_counted() {
    let (mailboxes, own) = node(LocalLimits::default());
    let link = own.link();
    let mut mailbox = mailboxes.register("in").unwrap();
    for n in 0..1000u32 {
        link.send("in", "me", &n.to_be_bytes()).await.unwrap();
    }
    link.send("none", "", b"lost").await.unwrap();
    for n in 0..1000u32 {
        let message = mailbox.recv().await.unwrap();
        assert_eq!((&message.body()[..], message.sender()), (&n.to_be_bytes()[..], "me"));
        assert_eq!(message.node(), &link.info().peer);
    }
    assert_eq!((link.stats().messages_in, link.stats().undeliverable), (1001, 1));
}

#[tokio::test]
async fn a_mailbox_that_nobody_reads_stops_its_senders_and_no_others() {
    let (mailboxes, own) = node(LocalLimits { mailbox: 1_000, max_message: 2_000 });
    let link = own.link();
    let (mut read, mut unread) = (mailboxes.register("read").unwrap(), mailboxes.register("unread").unwrap());
    let taken = (0..100).take_while(|_| link.try_send("unread", "", &[0; 36]).is_ok()).count();
    assert_eq!(taken, 10, "100 bytes of credit each");
    assert_eq!(link.try_send("unread", "", b""), Err(SendError::Full));
    link.try_send("read", "", b"x").unwrap();
    assert!(read.recv().await.is_some());
    let waiting = tokio::spawn({
        let link = link.clone();
        async move { link.send("unread", "", b"the last").await }
    });
    let mut last = None;
    for _ in 0..=taken {
        last = unread.recv().await;
    }
    waiting.await.unwrap().unwrap();
    assert_eq!(last.unwrap().body(), "the last");
    // A message above the window goes alone; one above the limit does not.
    link.try_send("unread", "", &[0; 2_000]).unwrap();
    assert_eq!(link.try_send("read", "", &[0; 2_001]), Err(SendError::TooLarge { len: 2_001, limit: 2_000 }));
    assert_eq!(link.try_send("", "", b""), Err(SendError::BadName));
}

#[tokio::test]
async fn a_call_is_answered_refused_dropped_or_told_that_there_is_no_mailbox() {
    let (mailboxes, own) = node(LocalLimits { max_message: 100, ..LocalLimits::default() });
    let link = own.link();
    let mut mailbox = mailboxes.register("in").unwrap();
    let served = tokio::spawn(async move {
        mailbox.recv().await.unwrap().reply("42");
        mailbox.recv().await.unwrap().refuse("no");
        drop(mailbox.recv().await.unwrap());
        mailbox.recv().await.unwrap().reply(vec![0; 101]);
        let message = mailbox.recv().await.unwrap();
        let term = message.term().unwrap().unwrap();
        message.reply_term(&Term::tuple([term])).unwrap();
        let unread = mailbox.recv().await.unwrap();
        drop(mailbox);
        unread
    });
    assert_eq!(link.call("in", "", b"", SOON).await.unwrap(), "42");
    assert_eq!(link.call("in", "", b"", SOON).await, Err(CallError::Failed("no".into())));
    assert_eq!(link.call("in", "", b"", SOON).await, Err(CallError::Dropped));
    assert!(matches!(link.call("in", "", b"", SOON).await, Err(CallError::Failed(text)) if text.contains("101 bytes")));
    let one = Term::from(1);
    assert_eq!(link.call_term("in", "", &one, SOON).await.unwrap(), Term::tuple([one]));
    let call = link.call("in", "", b"", Duration::from_millis(1));
    assert!(matches!(call.await, Err(CallError::TimedOut(_))));
    drop(served.await.unwrap());
    assert_eq!(link.call("in", "", b"", SOON).await, Err(CallError::NoMailbox));
}

#[tokio::test]
async fn an_important_message_has_its_outcome_at_once() {
    let (mailboxes, own) = node(LocalLimits::default());
    let mut mailbox = mailboxes.register("in").unwrap();
    let mut sent = own.link().send_important("in", "", "x").await.unwrap();
    assert_eq!(sent.outcome().await, Some(Outcome::Taken));
    assert!(mailbox.try_recv().is_some());
    drop(mailbox);
    let mut sent = own.link().send_important("in", "", "x").await.unwrap();
    assert_eq!(sent.outcome().await, Some(Outcome::NoMailbox));
}

fn accept_into(mailboxes: &Mailboxes) -> tokio::sync::mpsc::UnboundedReceiver<Incoming> {
    let (sender, incoming) = tokio::sync::mpsc::unbounded_channel();
    mailboxes.accept_streams(Some(Arc::new(move |incoming| drop(sender.send(incoming)))));
    incoming
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_with_half_closes() {
    let (mailboxes, own) = node(LocalLimits::default());
    let mut incoming = accept_into(&mailboxes);
    let link = own.link();
    let echo = tokio::spawn(async move {
        let incoming = incoming.recv().await.unwrap();
        assert_eq!((incoming.kind(), &incoming.data()[..]), (StreamKind::Service, &b"echo"[..]));
        let (mut reader, mut writer) = tokio::io::split(incoming.accept());
        let copied = tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
        copied
    });
    let first = First { bytes: b"first ", is_all: false };
    let stream = link.open_with(StreamKind::Service, b"echo", first, SOON).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        writer.write_all(&vec![7; 1_000_000]).await.unwrap();
        writer.shutdown().await.unwrap();
        writer
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    assert_eq!((&back[..6], back.len()), (&b"first "[..], 1_000_006));
    assert_eq!(echo.await.unwrap(), 1_000_006);
    drop((reader, writing.await.unwrap()));
    assert_eq!(link.stats().streams, 0);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_takes_no_more_than_its_window() {
    let (mailboxes, own) = node(LocalLimits::default());
    let mut incoming = accept_into(&mailboxes);
    let link = own.link();
    let opened = tokio::spawn(async move { link.open(StreamKind::User, b"", SOON).await });
    let mut unread = incoming.recv().await.unwrap().accept();
    let stream = opened.await.unwrap().unwrap();
    let mut written = 0;
    while let Ok(len) = stream.try_write(&[1; 10_000]) {
        written += len;
    }
    assert_eq!(written, 256 * 1024);
    unread.read_exact(&mut [0; 1000]).await.unwrap();
    stream.writable().await;
    assert_eq!(stream.try_write(&[1; 10_000]).unwrap(), 1_000);
}

#[tokio::test]
async fn a_stream_is_refused_reset_and_ended_with_the_link_with_its_reason() {
    let (mailboxes, own) = node(LocalLimits::default());
    let link = own.link();
    let refused = link.open(StreamKind::User, b"", SOON).await.unwrap_err();
    assert!(matches!(refused, OpenError::Refused { code: StreamCode::Cancelled, .. }), "nobody accepts: {refused}");
    let mut incoming = accept_into(&mailboxes);
    let open = || {
        let link = link.clone();
        tokio::spawn(async move { link.open(StreamKind::User, b"", SOON).await })
    };
    let opening = open();
    incoming.recv().await.unwrap().refuse(StreamCode::NotAllowed, "not you");
    let refused = opening.await.unwrap().unwrap_err();
    let expected = OpenError::Refused { hop: "a@h".into(), code: StreamCode::NotAllowed, text: "not you".into() };
    assert_eq!(refused, expected);
    let opening = open();
    let mut there = incoming.recv().await.unwrap().accept();
    let mut here = opening.await.unwrap().unwrap();
    here.write_all(b"before").await.unwrap();
    here.reset_behind(StreamCode::Broken);
    there.read_exact(&mut [0; 6]).await.unwrap();
    assert_eq!(there.read(&mut [0; 6]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(there.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // An end that asks and leaves is seen before the stream is accepted.
    let opening = open();
    let unwanted = incoming.recv().await.unwrap();
    assert!(!unwanted.is_cancelled());
    opening.abort();
    tokio::time::timeout(SOON, unwanted.cancelled()).await.unwrap();
    drop(unwanted);
    let opening = open();
    let mut there = incoming.recv().await.unwrap().accept();
    let _here = opening.await.unwrap().unwrap();
    let opening = open();
    let unanswered = incoming.recv().await.unwrap();
    own.shut_down();
    assert!(matches!(opening.await.unwrap(), Err(OpenError::Down(_))));
    drop(unanswered);
    let mut buf = [0; 6];
    let read = tokio::time::timeout(SOON, there.read(&mut buf)).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert!(matches!(link.open(StreamKind::User, b"", SOON).await, Err(OpenError::Down(_))));
    assert!(matches!(link.send("in", "", b"").await, Err(SendError::Down(_))));
    assert!(!link.is_open() && link.down().is_some());
}

#[tokio::test]
async fn senders_give_way_to_the_reader_once_for_each_piece_that_is_not_read() {
    let (mailboxes, own) = node(LocalLimits::default());
    let (link, mut mailbox) = (own.link(), mailboxes.register("in").unwrap());
    let body = [0; 1024 - 64];
    for _ in 0..63 {
        link.try_send("in", "", &body).unwrap();
    }
    assert!(!link.gives_way());
    link.try_send("in", "", &body).unwrap();
    assert!(link.gives_way(), "64 KiB wait");
    assert!(!link.gives_way(), "one sender gave way");
    while mailbox.try_recv().is_some() {}
    link.try_send("in", "", &body).unwrap();
    assert!(!link.gives_way(), "nothing waits any more");
}
