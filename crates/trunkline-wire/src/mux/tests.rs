use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::prelude::*;
use trunkline_route::{CloseCode, Flag, PeerFlags, Role};

use super::*;
use crate::frame::{Decoder, FRAG, Header, MAX_PIECE, PING, PONG};
use crate::important::Outcome;

const WINDOW: Window = Window { link: 200_000, mailbox: 100_000, max_message: 60_000 };

#[derive(Default)]
pub(super) struct Seen {
    names: HashMap<u16, String>,
    messages: Vec<(String, String, Vec<u8>, bool)>,
    calls: Vec<(u32, String, Vec<u8>)>,
    replies: Vec<(u32, Status, Vec<u8>)>,
    grants: Vec<(Option<Class>, u32, u32)>,
    terms: Vec<bool>,
    seqs: Vec<u64>,
    outcomes: Vec<(bool, Vec<(u64, Outcome)>)>,
    released: u64,
    pongs: usize,
    pub(super) streams: Vec<(u32, String)>,
    pub(super) bytes: HashMap<u32, Vec<u8>>,
    /// Streams whose bytes came, frame by frame; 0 is a message.
    pub(super) order: Vec<u32>,
    closed: Option<(CloseCode, String)>,
    gone: bool,
}

impl Sink for Seen {
    fn bind(&mut self, id: u16, name: &str) {
        self.names.insert(id, name.into());
    }
    fn message(&mut self, to: u16, from: u16, seq: Option<u64>, body: &[u8], How { high, term, .. }: How) {
        self.seqs.extend(seq);
        self.order.push(0);
        self.terms.push(term);
        let from = self.names.get(&from).cloned().unwrap_or_default();
        self.messages.push((self.names[&to].clone(), from, body.to_vec(), high));
    }
    fn call(&mut self, id: u32, to: u16, _: u16, _: u32, body: &[u8], how: How) {
        self.terms.push(how.term);
        self.calls.push((id, self.names[&to].clone(), body.to_vec()));
    }
    fn reply(&mut self, id: u32, status: Status, body: &[u8], how: How) {
        self.terms.push(how.term);
        self.replies.push((id, status, body.to_vec()));
    }
    fn outcomes(&mut self, is_report: bool, outcomes: &[(u64, Outcome)]) {
        self.outcomes.push((is_report, outcomes.to_vec()));
    }
    fn release(&mut self, floor: u64) {
        self.released = floor;
    }
    fn credit(&mut self, class: Class, bytes: u32) {
        self.grants.push((Some(class), 0, bytes));
    }
    fn credit_mailbox(&mut self, id: u32, bytes: u32) {
        self.grants.push((None, id, bytes));
    }
    fn stream(&mut self, id: u32, event: StreamEvent<'_>) -> Result<(), crate::frame::ProtocolError> {
        self.streams.push((id, format!("{event:?}")));
        if let StreamEvent::Data(bytes) = event {
            self.order.push(id);
            self.bytes.entry(id).or_default().extend_from_slice(bytes);
        }
        Ok(())
    }
    fn ping(&mut self, _: [u8; 16]) {}
    fn pong(&mut self, _: [u8; 16]) {
        self.pongs += 1;
    }
    fn go_away(&mut self, _: CloseCode, _: String) {
        self.gone = true;
    }
    fn close(&mut self, code: CloseCode, text: String) {
        self.closed = Some((code, text));
    }
}

pub(super) struct Wire {
    pub(super) out: Outbox,
    pub(super) inbound: Inbound,
    pub(super) decoder: Decoder,
    pub(super) seen: Seen,
}

impl Wire {
    pub(super) fn new() -> Self {
        Self {
            out: Outbox::new(WINDOW, PeerFlags::ALL, None),
            inbound: Inbound::new(WINDOW, PeerFlags::ALL, Role::Responder),
            decoder: Decoder::default(),
            seen: Seen::default(),
        }
    }

    pub(super) fn pass(&mut self) -> Result<(), crate::frame::ProtocolError> {
        while let Some(chunk) = self.out.take() {
            let flow = self.decoder.feed(&chunk, |h, p| self.inbound.frame(h, p, &mut self.seen))?;
            self.out.recycle(chunk);
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn messages_arrive_with_their_names_and_in_order() {
    let mut wire = Wire::new();
    for n in 0..50u8 {
        wire.out.send("sink", "source", &[n; 40], How::default()).unwrap();
    }
    wire.out.send("other", "", b"", How::default()).unwrap();
    wire.pass().unwrap();
    assert_eq!(wire.seen.messages.len(), 51);
    for (n, (to, from, body, _)) in wire.seen.messages.iter().take(50).enumerate() {
        assert_eq!((to.as_str(), from.as_str(), body.as_slice()), ("sink", "source", [n as u8; 40].as_slice()));
    }
    assert_eq!(wire.seen.messages[50], ("other".into(), String::new(), vec![], false));
}

#[test]
fn important_messages_have_numbers_and_outcomes_if_that_was_agreed_on() {
    let mut wire = Wire::new();
    let outcomes = [(7, Outcome::Taken), (u64::MAX, Outcome::NoMailbox)];
    wire.out.outcomes(true, &outcomes[..1]);
    wire.out.outcomes(false, &outcomes);
    wire.out.release(9);
    wire.out.send_important(8, "a", "me", b"short").unwrap();
    wire.out.send_important(9, "a", "", &vec![1; 50_000]).unwrap();
    wire.pass().unwrap();
    assert_eq!(wire.seen.outcomes, [(true, outcomes[..1].to_vec()), (false, outcomes.to_vec())]);
    assert_eq!((&wire.seen.seqs[..], wire.seen.released), (&[8, 9][..], 9));
    assert_eq!(wire.seen.messages[1].2.len(), 50_000);
    wire.out.outcomes(true, &[]);
    assert_eq!(wire.pass().unwrap_err().0, "a link has two reports");

    let flags = PeerFlags::ALL.with(Flag::ImportantDelivery, false);
    let mut out = Outbox::new(WINDOW, flags, None);
    let refused = out.send_important(0, "a", "", b"").unwrap_err();
    assert_eq!(refused, Refused::Unsupported(Flag::ImportantDelivery));
    for kind in [crate::frame::OUTCOMES, crate::frame::REPORT, crate::frame::RELEASE] {
        let header = |len| Header { len, kind, id: 0 };
        let refused = |flags, payload: &[u8]| {
            Inbound::new(WINDOW, flags, Role::Responder)
                .frame(header(payload.len()), payload, &mut Seen::default())
                .unwrap_err()
                .0
        };
        assert_eq!(refused(flags, &[0; 9]), "an unknown frame type");
        assert_eq!(refused(PeerFlags::ALL, &[0; 7]), "a frame is cut short");
        if kind != crate::frame::RELEASE {
            assert_eq!(refused(PeerFlags::ALL, &[9; 9]), "an unknown outcome");
        }
    }
}

#[test]
fn high_priority_and_control_overtake_what_is_queued() {
    let mut wire = Wire::new();
    wire.out.send("a", "", b"normal", How::default()).unwrap();
    wire.out.send("a", "", b"high", How::HIGH).unwrap();
    wire.out.ping(PONG, &[0; 16]);
    wire.pass().unwrap();
    let bodies: Vec<_> = wire.seen.messages.iter().map(|m| m.2.as_slice()).collect();
    assert_eq!(bodies, [b"high".as_slice(), b"normal"]);
    assert_eq!(wire.seen.pongs, 1);
}

#[test]
fn a_control_frame_waits_for_at_most_one_chunk() {
    let mut wire = Wire::new();
    wire.out.send("a", "", &[7; 60_000], How::default()).unwrap();
    let names = wire.out.take().unwrap();
    let first = wire.out.take().unwrap();
    assert!(names.len() < 64 && first.len() <= 3 * MAX_PIECE);
    wire.out.ping(PING, &[0; 16]);
    assert_eq!(wire.out.take().unwrap().len(), 24, "the ping comes before the rest of the message");
    assert!(wire.out.has_ready());
}

#[test]
fn large_messages_are_cut_and_joined() {
    let mut wire = Wire::new();
    let body: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    wire.out.send("a", "", &body, How::default()).unwrap();
    wire.out.call(9, "a", "", 1000, &body[..MAX_PIECE + 1], How::default()).unwrap();
    wire.out.reply(3, Status::Ok, Bytes::from(body[..MAX_PIECE].to_vec()), How::default());
    wire.pass().unwrap();
    assert_eq!(wire.seen.messages[0].2, body);
    assert_eq!(wire.seen.calls[0], (9, "a".into(), body[..MAX_PIECE + 1].to_vec()));
    assert_eq!(wire.seen.replies[0], (3, Status::Ok, body[..MAX_PIECE].to_vec()));
}

#[test]
fn a_message_over_the_limit_is_refused_before_anything_is_sent() {
    let mut wire = Wire::new();
    assert_eq!(wire.out.send("a", "", &[0; 60_001], How::default()), Err(Refused::TooLarge { limit: 60_000 }));
    assert!(wire.out.is_empty());
}

#[test]
fn one_unread_mailbox_stops_its_senders_and_nobody_else() {
    let mut wire = Wire::new();
    let mut sent = 0;
    while wire.out.send("stuck", "", &[0; 10_000], How::default()).is_ok() {
        sent += 1;
        wire.pass().unwrap();
        // The link's credit comes back on entry to the mailbox, the mailbox's does not.
        wire.inbound.granted(Class::Messages, 10_064);
        wire.out.credit(Class::Messages, 10_064);
    }
    assert_eq!(sent, 9);
    wire.out.send("free", "", &[0; 10_000], How::default()).unwrap();
    wire.out.credit_mailbox(1, 20_000);
    wire.inbound.granted_mailbox(1, 20_000);
    wire.out.send("stuck", "", &[0; 10_000], How::default()).unwrap();
    wire.pass().unwrap();
}

#[test]
fn a_quarter_of_the_window_not_granted_back_does_not_stop_the_largest_message() {
    let window = Window { link: 80_000, mailbox: 60_000, max_message: 60_000 };
    let mut wire = Wire {
        out: Outbox::new(window, PeerFlags::ALL, None),
        inbound: Inbound::new(window, PeerFlags::ALL, Role::Responder),
        ..Wire::new()
    };
    // Both ends stay below the quarter at which credit goes back.
    wire.out.send("a", "", &[0; 14_000], How::default()).unwrap();
    wire.out.send("a", "", &[0; 60_000], How::default()).unwrap();
    assert_eq!(wire.out.send("a", "", b"", How::default()), Err(Refused::Full));
    wire.pass().unwrap();
    wire.inbound.granted(Class::Messages, 74_128);
    wire.out.credit(Class::Messages, 74_128);
    wire.inbound.granted_mailbox(1, 74_128);
    wire.out.credit_mailbox(1, 74_128);
    wire.out.send("a", "", &[0; 50_000], How::default()).unwrap();
    assert_eq!(wire.out.send("a", "", &[0; 10_000], How::default()), Err(Refused::Full));
    wire.pass().unwrap();
    assert_eq!(wire.seen.messages.len(), 3);
}

#[test]
fn answers_without_credit_wait_for_it() {
    let mut wire = Wire::new();
    for id in 0..5 {
        wire.out.reply(id, Status::Ok, Bytes::from(vec![0; 50_000]), How::default());
    }
    wire.pass().unwrap();
    assert_eq!(wire.seen.replies.len(), 3);
    assert!(!wire.out.is_empty());
    wire.inbound.granted(Class::Replies, 150_000);
    wire.out.credit(Class::Replies, 150_000);
    wire.pass().unwrap();
    assert_eq!(wire.seen.replies.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn answers_that_wait_and_bytes_not_written_are_a_backlog() {
    let mut wire = Wire::new();
    for id in 0..5 {
        wire.out.reply(id, Status::Ok, Bytes::from(vec![0; 50_000]), How::default());
    }
    assert!(wire.out.is_backlogged(2 * 50_064 + 150_000) && !wire.out.is_backlogged(400_000));
    wire.pass().unwrap();
    assert!(wire.out.is_backlogged(2 * 50_064 - 1) && !wire.out.is_backlogged(2 * 50_064));
    wire.out.credit(Class::Replies, 150_000);
    while wire.out.take().is_some() {}
    assert!(!wire.out.is_backlogged(0));
}

#[test]
fn a_name_is_bound_once_and_names_are_bounded() {
    let bind = |inbound: &mut Inbound, id: usize, name: &str| {
        let header = Header { len: name.len(), kind: crate::frame::NAME, id: id as u32 };
        inbound.frame(header, name.as_bytes(), &mut Seen::default()).map(|_| ())
    };
    let mut inbound = Inbound::new(WINDOW, PeerFlags::ALL, Role::Responder);
    for id in 1..=MAX_NAMES {
        bind(&mut inbound, id, &format!("n{id}")).unwrap();
    }
    assert_eq!(bind(&mut inbound, MAX_NAMES + 1, "more").unwrap_err().0, "too many names are bound");
    let mut inbound = Inbound::new(WINDOW, PeerFlags::ALL, Role::Responder);
    bind(&mut inbound, 1, "x").unwrap();
    assert_eq!(bind(&mut inbound, 2, "x").unwrap_err().0, "a name is bound twice");
}

#[test]
fn going_away_comes_behind_everything_and_lets_answers_through() {
    let mut wire = Wire::new();
    wire.out.send("a", "", b"first", How::default()).unwrap();
    wire.out.go_away(7, "bye");
    assert_eq!(wire.out.send("a", "", b"second", How::default()), Err(Refused::Draining));
    wire.out.reply(1, Status::Ok, Bytes::new(), How::default());
    wire.pass().unwrap();
    assert_eq!(wire.seen.messages.len(), 1);
    assert!(wire.seen.gone && wire.seen.replies.len() == 1);
}

#[test]
fn closing_says_the_last_word() {
    let mut wire = Wire::new();
    wire.out.send("a", "", b"dropped", How::default()).unwrap();
    wire.out.close(CloseCode::Normal.to_byte(), "done");
    wire.pass().unwrap();
    assert_eq!(wire.seen.closed, Some((CloseCode::Normal, "done".into())));
    assert!(wire.inbound.is_closed() && wire.seen.messages.is_empty());
}

#[test]
fn broken_rules_are_named() {
    let check = |frames: &[(u8, u32, &[u8])], expected: &str| {
        let mut inbound = Inbound::new(WINDOW, PeerFlags::ALL, Role::Responder);
        let (mut result, mut seen) = (Ok(()), Seen::default());
        for (kind, id, payload) in frames {
            let header = Header { len: payload.len(), kind: *kind, id: *id };
            result = inbound.frame(header, payload, &mut seen).map(|_| ());
        }
        assert_eq!(result.unwrap_err().0, expected);
    };
    use crate::frame::{CREDIT, NAME, SEND};
    check(&[(0x30, 0, b"")], "an unknown frame type");
    check(&[(SEND, 1, &[0, 0, 0, 7])], "a name id is not bound");
    check(&[(NAME, 2, b"x")], "names are not bound in order");
    check(&[(NAME, 1, b"x"), (SEND, 1, &[0x40, 0, 0, 7])], "a flag is set that is reserved or was not agreed on");
    check(&[(NAME, 1, b"x"), (SEND, 1, &[0, 0, 9, 7])], "a name id is not bound");
    check(&[(FRAG, 0, b"x")], "a fragment without a beginning");
    check(&[(FRAG, 7, b"x")], "a fragment of an unknown lane");
    check(&[(PING, 0, b"short")], "a frame is cut short");
    check(&[(CREDIT, 0, &[9, 0, 0, 0, 0])], "credit of an unknown class");
    check(&[(CREDIT, 0, &[0, 0, 0, 0, 1, 0])], "credit is followed by more");
    for (kind, payload) in [
        (PING, &[0; 16][..]),
        (PONG, &[0; 16]),
        (crate::frame::GOAWAY, &[0, 0, 0, 0, 0, 0]),
        (crate::frame::CLOSE, &[0, 0]),
    ] {
        check(&[(kind, 1, payload)], "a frame of the link carries an id");
    }
    check(
        &[(NAME, 1, b"x"), (SEND, 1, &[8, 0, 0, 0, 0, 0, 1, 7])],
        "a fragmented message is not longer than its first piece",
    );
    check(&[(NAME, 1, b"x"), (SEND, 1, &[8, 0, 0, 0, 0, 0, 3, 7]), (FRAG, 0, b"12345")], "fragments do not add up");
    let big = [vec![0, 0, 0], vec![7; 40_000]].concat();
    check(&[(NAME, 1, b"x"), (SEND, 1, &big), (SEND, 1, &big), (SEND, 1, &big)], "credit is overdrawn");
    let mut inbound = Inbound::new(WINDOW, PeerFlags::ALL, Role::Responder);
    assert!(inbound.frame(Header { len: 0, kind: 0x99, id: 5 }, b"", &mut Seen::default()).is_ok());
}

proptest! {
    #[test]
    fn p10_never_more_bytes_of_a_class_than_credit(
        steps in proptest::collection::vec((0u8..4, 0usize..3, 0usize..30_000), 1..200),
    ) {
        let mut wire = Wire::new();
        let (mut accepted, mut unread) = (0usize, BTreeMap::<usize, u64>::new());
        for (action, mailbox, size) in steps {
            match action {
                0 | 1 => {
                    if wire.out.send(&format!("m{mailbox}"), "", &vec![0; size], How::default()).is_ok() {
                        accepted += 1;
                        *unread.entry(mailbox).or_default() += cost(size);
                    }
                }
                // The receiver is strict: an overdraw would end the test here.
                2 => wire.pass().unwrap(),
                _ => {
                    wire.pass().unwrap();
                    wire.inbound.granted(Class::Messages, u32::MAX);
                    wire.out.credit(Class::Messages, u32::MAX);
                    let back = unread.insert(mailbox, 0).unwrap_or(0) as u32;
                    let id = wire.seen.names.iter().find(|(_, n)| **n == format!("m{mailbox}")).map(|(id, _)| *id);
                    if let Some(id) = id {
                        wire.inbound.granted_mailbox(id, back);
                        wire.out.credit_mailbox(id.into(), back);
                    }
                }
            }
            prop_assert!(unread.values().all(|&bytes| bytes <= WINDOW.mailbox));
        }
        wire.pass().unwrap();
        prop_assert_eq!(wire.seen.messages.len(), accepted);
    }

    #[test]
    fn p13_order_is_kept_for_every_pair_of_names(
        sends in proptest::collection::vec((0u8..3, 0u8..3, 0usize..40_000), 1..60),
    ) {
        let mut wire = Wire::new();
        let mut next = HashMap::<(String, String), u32>::new();
        for (to, from, size) in sends {
            let (to, from) = (format!("t{to}"), format!("f{from}"));
            let n = next.entry((to.clone(), from.clone())).or_default();
            let body = [n.to_be_bytes().as_slice(), &vec![0; size]].concat();
            if wire.out.send(&to, &from, &body, How::default()).is_ok() {
                *n += 1;
            }
        }
        wire.pass().unwrap();
        let mut expected = HashMap::<(String, String), u32>::new();
        for (to, from, body, _) in wire.seen.messages {
            let n = expected.entry((to, from)).or_default();
            prop_assert_eq!(u32::from_be_bytes(body[..4].try_into().unwrap()), *n);
            *n += 1;
        }
        next.retain(|_, n| *n > 0);
        prop_assert_eq!(expected, next);
    }

    #[test]
    fn frames_of_any_content_are_survived(
        frames in proptest::collection::vec((any::<u8>(), 0u32..4, proptest::collection::vec(any::<u8>(), 0..60)), 0..40),
    ) {
        let mut inbound = Inbound::new(WINDOW, PeerFlags::ALL, Role::Responder);
        let mut seen = Seen::default();
        for (kind, id, payload) in frames {
            let kind = if kind < 128 { kind % (FRAG + 1) } else { kind };
            if inbound.frame(Header { len: payload.len(), kind, id }, &payload, &mut seen).is_err() {
                break;
            }
        }
    }
}

/// A wire whose ends agreed on less than they could.
fn without(flag: Flag) -> Wire {
    let flags = PeerFlags::ALL.with(flag, false);
    Wire { out: Outbox::new(WINDOW, flags, None), inbound: Inbound::new(WINDOW, flags, Role::Responder), ..Wire::new() }
}

#[test]
fn what_was_not_agreed_on_is_refused_where_it_begins_and_the_rest_goes() {
    let mut wire = without(Flag::Priorities);
    assert_eq!(wire.out.send("a", "", b"x", How::HIGH), Err(Refused::Unsupported(Flag::Priorities)));
    wire.out.send("a", "", &[0; MAX_PIECE + 1], How::default()).unwrap();
    wire.pass().unwrap();
    let mut wire = without(Flag::Fragmentation);
    assert_eq!(
        wire.out.send("a", "", &[0; MAX_PIECE + 1], How::default()),
        Err(Refused::Unsupported(Flag::Fragmentation))
    );
    wire.out.send("a", "", &[0; MAX_PIECE], How::HIGH).unwrap();
    wire.pass().unwrap();
}

#[test]
fn a_peer_that_uses_what_was_not_agreed_on_breaks_the_protocol() {
    for (flag, len, high) in [(Flag::Priorities, 1, true), (Flag::Fragmentation, MAX_PIECE + 1, false)] {
        let mut wire = Wire { out: Outbox::new(WINDOW, PeerFlags::ALL, None), ..without(flag) };
        wire.out.send("a", "", &vec![0; len], How { high, ..How::default() }).unwrap();
        let error = wire.pass().unwrap_err();
        assert!(error.0.contains("not agreed on"), "{error}");
    }
}

#[test]
fn a_body_is_a_term_or_not_whatever_it_is_part_of_and_however_long() {
    for len in [3, MAX_PIECE + 1] {
        let mut wire = Wire::new();
        let body = vec![7; len];
        wire.out.send("a", "", &body, How { high: true, ..How::TERM }).unwrap();
        wire.out.send("a", "", &body, How::TERM).unwrap();
        wire.out.call(1, "a", "", 10, &body, How::TERM).unwrap();
        wire.out.reply(1, Status::Ok, Bytes::from(body.clone()), How::TERM);
        wire.out.send("a", "", &body, How::default()).unwrap();
        wire.pass().unwrap();
        assert_eq!(wire.seen.terms, [true, true, true, true, false], "{len} bytes");
    }
}

#[test]
fn two_names_that_become_one_are_bound_once_in_either_order() {
    let mapping = trunkline_route::AtomMapping::new([("a", "x"), ("s", "t"), ("t", "s")]).unwrap();
    for order in [["a", "x"], ["x", "a"]] {
        let out = Outbox::new(WINDOW, PeerFlags::ALL, Some(mapping.clone().into()));
        let mut wire = Wire { out, ..Wire::new() };
        for to in order.into_iter().chain(["s", "t"]) {
            wire.out.send(to, "", b"", How::default()).unwrap();
        }
        wire.pass().unwrap();
        let to: Vec<_> = wire.seen.messages.iter().map(|(to, ..)| to.as_str()).collect();
        assert_eq!((to, wire.seen.names.len()), (vec!["x", "x", "t", "s"], 3));
    }
}
