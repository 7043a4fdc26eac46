use std::collections::HashSet;

use bytes::{Buf, Bytes, BytesMut};
use trunkline_route::{CloseCode, Flag, How, Outcome, PeerFlags, Role};

use super::{Class, Credit, MAX_NAMES, Status, Window, cost, first_stream};
use crate::frame::{self, Flow, Header, ProtocolError};

/// Returns the flags of a frame that carries a message.
pub(super) fn frame_flags(how: How) -> u8 {
    let bit = |on, bit| if on { bit } else { 0 };
    bit(how.high, frame::FLAG_HIGH) | bit(how.term, frame::FLAG_TERM) | bit(how.important, frame::FLAG_IMPORTANT)
}

fn how_of(flags: u8) -> How {
    let has = |bit| flags & bit != 0;
    How { high: has(frame::FLAG_HIGH), term: has(frame::FLAG_TERM), important: has(frame::FLAG_IMPORTANT) }
}

/// Event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent<'a> {
    /// The peer wants one.
    Open {
        /// Kind of the stream.
        kind: u8,
        /// For how long the peer waits.
        timeout_ms: u32,
        /// Bytes that this end may send.
        credit: u32,
        /// Purpose of the stream.
        data: &'a [u8],
    },
    /// The one that this end wanted is open.
    Opened {
        /// Bytes that this end may send.
        credit: u32,
    },
    /// The one that this end wanted is refused.
    Refused {
        /// Reason.
        code: u8,
        /// By whom.
        hop: String,
        /// In words.
        text: String,
    },
    /// Bytes arrived.
    Data(&'a [u8]),
    /// No more will.
    Fin,
    /// The stream is over in both directions.
    Reset {
        /// Reason.
        code: u8,
    },
    /// This end may send so much more.
    Credit(u32),
}

/// Receiver of decoded frames. Names are ids that [`Sink::bind`] introduced; 0 stands for no name.
pub trait Sink {
    /// The peer bound an id to a name.
    fn bind(&mut self, id: u16, name: &str);
    /// A message; an important one has a number.
    fn message(&mut self, to: u16, from: u16, seq: Option<u64>, body: &[u8], how: How);
    /// Outcomes of our important messages; as a report, all that the peer keeps.
    fn outcomes(&mut self, is_report: bool, outcomes: &[(u64, Outcome)]);
    /// The peer's important messages below this number are settled for it.
    fn release(&mut self, floor: u64);
    /// A call, to be answered by its id.
    fn call(&mut self, id: u32, to: u16, from: u16, timeout_ms: u32, body: &[u8], how: How);
    /// The answer to one of our calls.
    fn reply(&mut self, id: u32, status: Status, body: &[u8], how: How);
    /// Credit for a class of the link.
    fn credit(&mut self, class: Class, bytes: u32);
    /// Credit for a mailbox, by the id we bound.
    fn credit_mailbox(&mut self, id: u32, bytes: u32);
    /// Takes an event of a stream. An own one may be over, or never have been; one of the peer may be over.
    ///
    /// # Errors
    /// [`ProtocolError`] when that breaks a rule.
    fn stream(&mut self, id: u32, event: StreamEvent<'_>) -> Result<(), ProtocolError>;
    /// To be echoed.
    fn ping(&mut self, payload: [u8; 16]);
    /// An echo.
    fn pong(&mut self, payload: [u8; 16]);
    /// The peer opens nothing new.
    fn go_away(&mut self, code: CloseCode, text: String);
    /// The peer's last word.
    fn close(&mut self, code: CloseCode, text: String);
}

/// Reads frames, joins fragments, and holds the peer to the credit it was granted.
#[derive(Debug)]
pub struct Inbound {
    window: Window,
    /// Flag bits that SEND may have, and whether a message may be in pieces.
    allowed: u8,
    fragments: u8,
    important: bool,
    reported: bool,
    /// Bound ids, and the credit the peer still has with each.
    mailboxes: Vec<Credit>,
    /// Bound names: each once, for a second id would come with a second window.
    names: HashSet<Box<str>>,
    link: [Credit; 2],
    partial: [Option<Partial>; 2],
    /// Ids of the peer's streams modulo 2, and the last one it used.
    parity: u32,
    last_stream: u32,
    gone_away: bool,
    closed: bool,
}

#[derive(Debug)]
struct Partial {
    total: usize,
    kind: Kind,
    how: How,
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Send { to: u16, from: u16, seq: Option<u64> },
    Call { id: u32, to: u16, from: u16, timeout_ms: u32 },
    Reply { id: u32, status: Status },
}

const CUT: ProtocolError = ProtocolError("a frame is cut short");

impl Inbound {
    /// A reader that announced this window, on a link with these flags, at this end.
    pub fn new(window: Window, flags: PeerFlags, role: Role) -> Self {
        Self {
            window,
            allowed: (if flags.has(Flag::Priorities) { frame::FLAG_HIGH } else { 0 })
                | (if flags.has(Flag::ImportantDelivery) { frame::FLAG_IMPORTANT } else { 0 }),
            important: flags.has(Flag::ImportantDelivery),
            reported: false,
            fragments: if flags.has(Flag::Fragmentation) { frame::FLAG_FRAGMENT } else { 0 },
            mailboxes: vec![Credit::new(0)],
            names: HashSet::new(),
            link: [Credit::new(window.link); 2],
            partial: [None, None],
            parity: first_stream(role.other()) % 2,
            last_stream: 0,
            gone_away: false,
            closed: false,
        }
    }

    /// Link credit went back to the peer.
    pub fn granted(&mut self, class: Class, bytes: u32) {
        self.link[class as usize].grant(bytes);
    }

    /// Mailbox credit went back to the peer.
    pub fn granted_mailbox(&mut self, id: u16, bytes: u32) {
        if let Some(credit) = self.mailboxes.get_mut(usize::from(id)) {
            credit.grant(bytes);
        }
    }

    /// Returns true if CLOSE arrived.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes one frame.
    ///
    /// # Errors
    /// [`ProtocolError`] names the broken rule; the link must close.
    pub fn frame(&mut self, header: Header, payload: &[u8], sink: &mut impl Sink) -> Result<Flow, ProtocolError> {
        let mut p = payload;
        if header.id != 0
            && matches!(
                header.kind,
                frame::PING
                    | frame::PONG
                    | frame::GOAWAY
                    | frame::CLOSE
                    | frame::OUTCOMES
                    | frame::REPORT
                    | frame::RELEASE
            )
        {
            return Err(ProtocolError("a frame of the link carries an id"));
        }
        match header.kind {
            frame::SEND => {
                let flags = self.flags(&mut p, self.allowed)?;
                let from = p.try_get_u16().map_err(|_| CUT)?;
                let to = u16::try_from(header.id).map_err(|_| ProtocolError("a name id is out of range"))?;
                let seq =
                    if flags & frame::FLAG_IMPORTANT == 0 { None } else { Some(p.try_get_u64().map_err(|_| CUT)?) };
                self.begin(Kind::Send { to, from, seq }, flags, p, sink)?;
            }
            frame::CALL => {
                let flags = self.flags(&mut p, 0)?;
                let (to, from) = (p.try_get_u16().map_err(|_| CUT)?, p.try_get_u16().map_err(|_| CUT)?);
                let timeout_ms = p.try_get_u32().map_err(|_| CUT)?;
                self.begin(Kind::Call { id: header.id, to, from, timeout_ms }, flags, p, sink)?;
            }
            frame::REPLY => {
                let flags = self.flags(&mut p, 0)?;
                let status = Status::from_byte(p.try_get_u8().map_err(|_| CUT)?);
                self.begin(Kind::Reply { id: header.id, status }, flags, p, sink)?;
            }
            kind @ (frame::OUTCOMES | frame::REPORT) if self.important => {
                let is_report = kind == frame::REPORT;
                if is_report && std::mem::replace(&mut self.reported, true) {
                    return Err(ProtocolError("a link has two reports"));
                }
                if !p.len().is_multiple_of(9) {
                    return Err(CUT);
                }
                let outcomes: Result<Vec<_>, _> = p
                    .chunks_exact(9)
                    .map(|mut entry| Ok((entry.get_u64(), crate::important::outcome_from_byte(entry.get_u8())?)))
                    .collect();
                sink.outcomes(is_report, &outcomes?);
            }
            frame::RELEASE if self.important => {
                sink.release(u64::from_be_bytes(p.try_into().map_err(|_| CUT)?));
            }
            frame::FRAG => self.fragment(header.id, p, sink)?,
            frame::NAME => {
                let id = u16::try_from(header.id).ok().filter(|&id| usize::from(id) == self.mailboxes.len());
                let id = id.ok_or(ProtocolError("names are not bound in order"))?;
                let name = std::str::from_utf8(p).map_err(|_| ProtocolError("a name is not UTF-8"))?;
                if name.is_empty() || name.len() > 255 {
                    return Err(ProtocolError("a name is empty or too long"));
                }
                if self.names.len() >= MAX_NAMES {
                    return Err(ProtocolError("too many names are bound"));
                }
                if !self.names.insert(name.into()) {
                    return Err(ProtocolError("a name is bound twice"));
                }
                self.mailboxes.push(Credit::new(self.window.mailbox));
                sink.bind(id, name);
            }
            frame::CREDIT => {
                let class = p.try_get_u8().map_err(|_| CUT)?;
                let bytes = p.try_get_u32().map_err(|_| CUT)?;
                if !p.is_empty() {
                    return Err(ProtocolError("credit is followed by more"));
                }
                match Class::from_byte(class) {
                    Some(class) => sink.credit(class, bytes),
                    None if class == Class::MAILBOX_BYTE => sink.credit_mailbox(header.id, bytes),
                    None if class == Class::STREAM_BYTE => {
                        self.stream(header.id, false, StreamEvent::Credit(bytes), sink)?;
                    }
                    None => return Err(ProtocolError("credit of an unknown class")),
                }
            }
            frame::OPEN => {
                let kind = p.try_get_u8().map_err(|_| CUT)?;
                let (timeout_ms, credit) = (p.try_get_u32().map_err(|_| CUT)?, p.try_get_u32().map_err(|_| CUT)?);
                if header.id % 2 != self.parity || header.id <= self.last_stream {
                    return Err(ProtocolError("a stream is opened out of order"));
                }
                self.last_stream = header.id;
                sink.stream(header.id, StreamEvent::Open { kind, timeout_ms, credit, data: p })?;
            }
            frame::OPEN_OK => {
                let credit = u32::from_be_bytes(p.try_into().map_err(|_| CUT)?);
                self.stream(header.id, true, StreamEvent::Opened { credit }, sink)?;
            }
            frame::OPEN_ERR => {
                let code = p.try_get_u8().map_err(|_| CUT)?;
                let (hop, text) = (frame::take_text(&mut p)?, frame::get_text(p)?);
                self.stream(header.id, true, StreamEvent::Refused { code, hop, text }, sink)?;
            }
            frame::DATA if !p.is_empty() => self.stream(header.id, false, StreamEvent::Data(p), sink)?,
            frame::DATA => return Err(ProtocolError("a stream carries an empty frame")),
            frame::FIN if p.is_empty() => self.stream(header.id, false, StreamEvent::Fin, sink)?,
            frame::RESET => {
                let [code] = p.try_into().map_err(|_| CUT)?;
                self.stream(header.id, false, StreamEvent::Reset { code }, sink)?;
            }
            frame::FIN => return Err(ProtocolError("the end of a stream is followed by more")),
            frame::PING => sink.ping(p.try_into().map_err(|_| CUT)?),
            frame::PONG => sink.pong(p.try_into().map_err(|_| CUT)?),
            frame::GOAWAY => {
                let code = CloseCode::from_byte(p.try_get_u8().map_err(|_| CUT)?);
                p.try_get_u32().map_err(|_| CUT)?;
                let text = frame::get_text(p)?;
                if !std::mem::replace(&mut self.gone_away, true) {
                    sink.go_away(code, text);
                }
            }
            frame::CLOSE => {
                let code = CloseCode::from_byte(p.try_get_u8().map_err(|_| CUT)?);
                self.closed = true;
                sink.close(code, frame::get_text(p)?);
                return Ok(Flow::Break(()));
            }
            kind if kind >= frame::OPTIONAL => {}
            _ => return Err(ProtocolError("an unknown frame type")),
        }
        Ok(Flow::Continue(()))
    }

    /// Takes a frame about a stream that was opened; an answer can only be about one that this end wanted.
    fn stream(
        &mut self,
        id: u32,
        is_answer: bool,
        event: StreamEvent<'_>,
        sink: &mut impl Sink,
    ) -> Result<(), ProtocolError> {
        let is_peers = id % 2 == self.parity;
        if is_peers && (is_answer || id > self.last_stream) || id == 0 {
            return Err(ProtocolError("a stream was never opened"));
        }
        sink.stream(id, event)
    }

    fn flags(&self, p: &mut &[u8], allowed: u8) -> Result<u8, ProtocolError> {
        let flags = p.try_get_u8().map_err(|_| CUT)?;
        if flags & !(allowed | self.fragments | frame::FLAG_TERM) != 0 {
            return Err(ProtocolError("a flag is set that is reserved or was not agreed on"));
        }
        Ok(flags)
    }

    #[inline]
    fn begin(&mut self, kind: Kind, flags: u8, mut p: &[u8], sink: &mut impl Sink) -> Result<(), ProtocolError> {
        if flags & frame::FLAG_FRAGMENT == 0 {
            self.charge(kind, p.len())?;
            deliver(kind, how_of(flags), p, sink);
            return Ok(());
        }
        let total = p.try_get_u32().map_err(|_| CUT)? as usize;
        if p.len() >= total {
            return Err(ProtocolError("a fragmented message is not longer than its first piece"));
        }
        self.charge(kind, total)?;
        let how = how_of(flags);
        let partial = &mut self.partial[usize::from(how.high)];
        if partial.is_some() {
            return Err(ProtocolError("a message begins inside another one"));
        }
        // Not `with_capacity(total)`: memory follows the bytes that arrived, not a claim.
        *partial = Some(Partial { total, kind, how, body: p.to_vec() });
        Ok(())
    }

    fn fragment(&mut self, lane: u32, p: &[u8], sink: &mut impl Sink) -> Result<(), ProtocolError> {
        let slot = self.partial.get_mut(lane as usize).ok_or(ProtocolError("a fragment of an unknown lane"))?;
        let mut partial = slot.take().ok_or(ProtocolError("a fragment without a beginning"))?;
        partial.body.extend_from_slice(p);
        if p.is_empty() || partial.body.len() > partial.total {
            return Err(ProtocolError("fragments do not add up"));
        }
        if partial.body.len() == partial.total {
            deliver(partial.kind, partial.how, &partial.body, sink);
        } else {
            *slot = Some(partial);
        }
        Ok(())
    }

    #[inline]
    fn charge(&mut self, kind: Kind, len: usize) -> Result<(), ProtocolError> {
        if len > self.window.max_message {
            return Err(ProtocolError("a message is over the limit"));
        }
        let take = |credit: &mut Credit| {
            if !credit.covers(cost(len)) {
                return Err(ProtocolError("credit is overdrawn"));
            }
            credit.spend(cost(len));
            Ok(())
        };
        match kind {
            Kind::Send { to, from, .. } | Kind::Call { to, from, .. } => {
                if usize::from(from) >= self.mailboxes.len() || to == 0 {
                    return Err(ProtocolError("a name id is not bound"));
                }
                let mailbox = self.mailboxes.get_mut(usize::from(to)).ok_or(ProtocolError("a name id is not bound"))?;
                take(mailbox)?;
                take(&mut self.link[Class::Messages as usize])
            }
            Kind::Reply { .. } => take(&mut self.link[Class::Replies as usize]),
        }
    }
}

#[inline]
fn deliver(kind: Kind, how: How, body: &[u8], sink: &mut impl Sink) {
    match kind {
        Kind::Send { to, from, seq } => sink.message(to, from, seq, body, how),
        Kind::Call { id, to, from, timeout_ms } => sink.call(id, to, from, timeout_ms, body, how),
        Kind::Reply { id, status } => sink.reply(id, status, body, how),
    }
}

/// Copies bodies out of the reading buffer, small ones several to an allocation.
#[derive(Debug, Default)]
pub struct BodyArena {
    slab: BytesMut,
    crowd: bool,
}

impl BodyArena {
    /// Bytes of a shared allocation: what one retained small body can keep from being freed.
    const SLAB: usize = 2048;
    /// Bodies up to here share one.
    const SMALL: usize = 256;

    #[inline]
    /// Copies a body into the arena and returns it.
    pub fn keep(&mut self, body: &[u8]) -> Bytes {
        if body.is_empty() {
            return Bytes::new();
        }
        // One alone gets its own.
        let crowd = std::mem::replace(&mut self.crowd, true);
        if body.len() > Self::SMALL || !crowd {
            return Bytes::copy_from_slice(body);
        }
        if self.slab.capacity() < body.len() {
            self.slab = BytesMut::with_capacity(Self::SLAB);
        }
        self.slab.extend_from_slice(body);
        self.slab.split().freeze()
    }

    /// Lets go of the allocation under way, so that an idle link holds none and bodies of long ago share none.
    pub fn rest(&mut self) {
        *self = Self::default();
    }
}
