//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use std::collections::BTreeMap;

use trunkline_route::{CloseCode, PeerFlags, Role};

use crate::frame::{self, Decoder, Flow, HEADER_LEN, Header, MAX_FRAME, ProtocolError};
use crate::handshake;
use crate::important::{Arrival, Incoming, MAX_IN_FLIGHT, Outcome, Outgoing};
use crate::mux::{Class, How, Inbound, Outbox, Sink, Status, StreamEvent, Window, cost};

pub use crate::handshake::fuzzing::{handshake, proof};

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    ("frames", frames, frames_seeds),
    ("handshake", handshake, handshake::fuzzing::handshake_seeds),
    ("important", important, important_seeds),
    ("inbound", inbound, inbound_seeds),
    ("proof", proof, handshake::fuzzing::proof_seeds),
];

/// Small enough that a short input reaches every bound.
pub const WINDOW: Window = Window { link: 4096, mailbox: 2048, max_message: 1024 };

/// Frames, and texts in them. The first byte is the length of the chunks in which the rest arrives: the frames are the
/// same whatever the chunks and pauses, and no more is kept than a frame.
pub fn frames(bytes: &[u8]) {
    let Some((&chunk, wire)) = bytes.split_first() else { return };
    let (whole, error) = cut(wire, wire.len().max(1), false);
    assert_eq!(cut(wire, usize::from(chunk).max(1), true), (whole.clone(), error));
    let mut again = Vec::new();
    for (kind, id, payload) in &whole {
        frame::put(&mut again, *kind, *id, payload);
    }
    assert!(wire.starts_with(&again));
    if let Ok(text) = frame::get_text(wire) {
        assert!(!text.contains(char::is_control));
        let mut again = Vec::new();
        frame::put_text(&mut again, &text);
        // What was replaced takes more room; so it may be cut.
        assert!(frame::get_text(&again).is_ok_and(|cut| text.starts_with(&cut)));
    }
}

type Frames = Vec<(u8, u32, Vec<u8>)>;

fn cut(wire: &[u8], chunk: usize, pauses: bool) -> (Frames, Option<ProtocolError>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for chunk in wire.chunks(chunk) {
        let mut chunk = chunk;
        loop {
            let fed = decoder.feed(chunk, |header, payload| {
                frames.push((header.kind, header.id, payload.to_vec()));
                Ok(if pauses && header.id % 2 == 1 { Flow::Break(()) } else { Flow::Continue(()) })
            });
            match fed {
                Ok(Flow::Continue(())) => break,
                Ok(Flow::Break(())) => chunk = &[],
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(!decoder.has_frame(), "a whole frame is kept back");
    }
    (frames, None)
}

/// Some frames, in chunks.
pub fn frames_seeds() -> Vec<Vec<u8>> {
    let mut wire = Vec::new();
    frame::put(&mut wire, frame::PING, 0, &[7; 16]);
    frame::put(&mut wire, frame::NAME, 1, b"echo");
    frame::put(&mut wire, frame::SEND, 1, &[0, 0, 0, b'h', b'i']);
    let mut large = Vec::new();
    Header { len: MAX_FRAME + 1, kind: frame::DATA, id: 1 }.put(&mut large);
    let mut text = Vec::new();
    frame::put_text(&mut text, "a text\n");
    [(3, &wire), (255, &wire), (HEADER_LEN as u8, &large), (1, &text)]
        .map(|(chunk, bytes)| [&[chunk][..], bytes].concat())
        .to_vec()
}

/// Effects of frames on a link without a socket: any bytes are legal frames or refused, and what is handed on keeps to the
/// bounds that were announced. The first byte says at which end and whether credit is given back, the second which flags
/// were agreed on.
pub fn inbound(bytes: &[u8]) {
    let Some((&[how, flags], wire)) = bytes.split_first_chunk() else { return };
    let role = if how & 1 == 0 { Role::Initiator } else { Role::Responder };
    let grants = how & 2 != 0;
    let flags = PeerFlags::from_bits(u32::from(flags));
    let mut inbound = Inbound::new(WINDOW, flags, role);
    let mut seen = Seen { role: Some(role), ..Seen::default() };
    let _ = Decoder::default().feed(wire, |header, payload| {
        assert!(payload.len() <= MAX_FRAME);
        let flow = inbound.frame(header, payload, &mut seen)?;
        assert_eq!(flow.is_break(), inbound.is_closed());
        if grants {
            for (class, used) in [(Class::Messages, &mut seen.messages), (Class::Replies, &mut seen.replies)] {
                inbound.granted(class, u32::try_from(std::mem::take(used)).unwrap_or(u32::MAX));
            }
            for (id, used) in std::mem::take(&mut seen.mailboxes) {
                inbound.granted_mailbox(id, u32::try_from(used).unwrap_or(u32::MAX));
            }
        }
        Ok(flow)
    });
}

/// Looks at everything that is handed on.
#[derive(Default)]
struct Seen {
    role: Option<Role>,
    names: usize,
    reported: bool,
    closed: bool,
    gone: bool,
    last_stream: u32,
    /// Credit that was spent and not given back.
    messages: u64,
    replies: u64,
    mailboxes: BTreeMap<u16, u64>,
}

impl Seen {
    fn charged(&mut self, to: u16, from: u16, body: &[u8]) {
        assert!(!self.closed);
        assert!((1..=self.names).contains(&to.into()) && usize::from(from) <= self.names);
        self.messages += within(body);
        assert!(self.messages <= WINDOW.link + cost(WINDOW.max_message));
        let mailbox = self.mailboxes.entry(to).or_default();
        *mailbox += cost(body.len());
        assert!(*mailbox <= WINDOW.mailbox + cost(WINDOW.max_message));
    }
}

fn within(body: &[u8]) -> u64 {
    assert!(body.len() <= WINDOW.max_message);
    cost(body.len())
}

fn is_short(text: &str) -> bool {
    !text.contains(char::is_control) && text.chars().count() <= 255
}

impl Sink for Seen {
    fn bind(&mut self, id: u16, name: &str) {
        self.names += 1;
        assert_eq!(usize::from(id), self.names);
        assert!((1..=255).contains(&name.len()));
    }
    fn message(&mut self, to: u16, from: u16, seq: Option<u64>, body: &[u8], how: How) {
        assert_eq!(seq.is_some(), how.important);
        self.charged(to, from, body);
    }
    fn outcomes(&mut self, is_report: bool, outcomes: &[(u64, Outcome)]) {
        assert!(!is_report || !std::mem::replace(&mut self.reported, true));
        assert!(outcomes.len() <= MAX_FRAME / 9);
    }
    fn release(&mut self, _: u64) {}
    fn call(&mut self, _: u32, to: u16, from: u16, _: u32, body: &[u8], how: How) {
        assert!(!how.important);
        self.charged(to, from, body);
    }
    fn reply(&mut self, _: u32, _: Status, body: &[u8], _: How) {
        self.replies += within(body);
        assert!(self.replies <= WINDOW.link + cost(WINDOW.max_message));
    }
    fn credit(&mut self, _: Class, _: u32) {}
    fn credit_mailbox(&mut self, _: u32, _: u32) {}
    fn stream(&mut self, id: u32, event: StreamEvent<'_>) -> Result<(), ProtocolError> {
        let role = self.role.expect("it is set");
        let is_peers = id % 2 == crate::mux::first_stream(role.other()) % 2;
        assert_ne!(id, 0);
        match event {
            StreamEvent::Open { .. } => {
                assert!(is_peers && id > self.last_stream);
                self.last_stream = id;
            }
            StreamEvent::Opened { .. } => assert!(!is_peers),
            StreamEvent::Refused { hop, text, .. } => assert!(!is_peers && is_short(&hop) && is_short(&text)),
            StreamEvent::Data(bytes) => assert!(!bytes.is_empty()),
            _ => {}
        }
        assert!(!is_peers || id <= self.last_stream);
        Ok(())
    }
    fn ping(&mut self, _: [u8; 16]) {}
    fn pong(&mut self, _: [u8; 16]) {}
    fn go_away(&mut self, _: CloseCode, text: String) {
        assert!(!std::mem::replace(&mut self.gone, true) && is_short(&text));
    }
    fn close(&mut self, _: CloseCode, text: String) {
        assert!(!std::mem::replace(&mut self.closed, true) && is_short(&text));
    }
}

/// Bytes of an end of a link that does one of each thing.
pub fn conversation(flags: PeerFlags) -> Vec<u8> {
    let mut out = Outbox::new(Window { link: 1 << 20, mailbox: 1 << 20, max_message: 1 << 20 }, flags, None);
    out.outcomes(true, &[(1, Outcome::Taken), (2, Outcome::NoMailbox)]);
    out.release(3);
    let _ = out.send("in", "from", b"hello", How::default());
    let _ = out.send("in", "from", b"ahead", How::HIGH);
    let _ = out.send("in", "from", &[131, 106], How::TERM);
    let _ = out.send_important(3, "in", "from", b"once");
    let _ = out.call(1, "in", "", 1000, b"question", How::default());
    out.reply(1, Status::Ok, b"answer".to_vec().into(), How::default());
    out.grant(Class::Messages, 64);
    out.grant_mailbox(1, 64);
    out.ping(frame::PING, &[1; 16]);
    out.ping(frame::PONG, &[1; 16]);
    let _ = out.open_stream(1, 3, 1000, 4096, b"sql");
    out.write_stream(1, b"bytes", std::task::Waker::noop());
    out.finish_stream(1);
    let _ = out.open_stream(3, 1, 1000, 4096, b"sql");
    out.reset_stream(3, 0);
    out.accept_stream(2, 4096, 4096);
    out.refuse_stream(4, 3, "gate@dmz", "not for you");
    out.grant_stream(2, 64);
    out.outcomes(false, &[(9, Outcome::Taken)]);
    let mut wire = Vec::new();
    while let Some(chunk) = out.take() {
        wire.extend(chunk);
    }
    out.go_away(CloseCode::GoingAway.to_byte(), "leaving");
    out.close(CloseCode::Normal.to_byte(), "");
    while let Some(chunk) = out.take() {
        wire.extend(chunk);
    }
    wire
}

/// Conversations with one of each frame, with all flags and with none, and a message in pieces.
pub fn inbound_seeds() -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    frame::put(&mut pieces, frame::NAME, 1, b"in");
    let begun = [&[frame::FLAG_FRAGMENT, 0, 0, 0, 0, 0, 5][..], b"ab"].concat();
    frame::put(&mut pieces, frame::SEND, 1, &begun);
    frame::put(&mut pieces, frame::FRAG, 0, b"cde");
    let all = u8::try_from(PeerFlags::ALL.to_bits() & 0xff).unwrap_or(u8::MAX);
    vec![
        [&[3, all][..], &conversation(PeerFlags::ALL)].concat(),
        [&[0, 0][..], &conversation(PeerFlags::from_bits(0))].concat(),
        [&[1, all][..], &pieces].concat(),
    ]
}

/// Important delivery at both ends, driven by what a peer may say in any order: each byte is a step. Bounds hold, and no
/// message is settled twice.
pub fn important(bytes: &[u8]) {
    let mut outgoing = Outgoing::starting_at(0);
    let (mut incoming, mut epoch, mut sent, mut settled) = (Incoming::default(), 0, 0_u64, 0);
    for pair in bytes.chunks_exact(2) {
        let (step, number) = (pair[0], u64::from(pair[1]));
        let outcome = if step & 0x80 == 0 { Outcome::Taken } else { Outcome::NoMailbox };
        match step % 8 {
            0 => {
                epoch += number % 3;
                let reported: Vec<_> = (0..number).step_by(2).map(|seq| (seq, outcome)).collect();
                settled += outgoing.reported(epoch, &reported).len() as u64;
            }
            1 => {
                for _ in 0..number {
                    if let Some(seq) = outgoing.may_send(epoch) {
                        assert_eq!(seq, sent);
                        assert!(seq - outgoing.floor() < MAX_IN_FLIGHT);
                        outgoing.sent(());
                        sent += 1;
                    }
                }
            }
            2 => settled += u64::from(outgoing.settled(number).is_some()),
            3 => outgoing.abandoned(number),
            4 => {
                while let Some((seq, ())) = outgoing.next_unsent(epoch) {
                    assert!(seq < sent);
                    outgoing.resent(seq);
                }
            }
            5 => {
                let floor = outgoing.floor();
                assert!(floor <= sent && outgoing.to_release().is_none_or(|told| told == floor));
                assert_eq!(outgoing.to_release(), None);
            }
            6 => {
                if incoming.arrived(number) == Ok(Arrival::New) {
                    incoming.record(number, outcome);
                    assert_eq!(incoming.arrived(number), Ok(Arrival::Known(outcome)));
                }
            }
            _ => incoming.released(number),
        }
        assert!(settled <= sent);
    }
    assert!(incoming.outcomes().len() as u64 <= MAX_IN_FLIGHT);
}

/// Messages that are sent, reported, settled, sent again and released.
pub fn important_seeds() -> Vec<Vec<u8>> {
    vec![vec![0, 1, 1, 9, 2, 0, 2, 1, 5, 0, 3, 4, 0, 5, 4, 0, 1, 2], vec![6, 0, 6, 1, 0x86, 2, 7, 2, 6, 1, 6, 255]]
}
