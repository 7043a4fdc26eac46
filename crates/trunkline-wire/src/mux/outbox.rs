use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::{BufMut, Bytes};
use trunkline_route::{AtomMapping, Flag, PeerFlags};

use super::stream_lanes::Lanes;
use super::{Class, Credit, How, MAX_NAMES, Status, Window, cost};
use crate::frame::{self, Header, MAX_PIECE};
use crate::important::Outcome;

/// The most bytes of a chunk: two full TLS records, so that none goes out nearly empty. The writer takes chunk by
/// chunk, so this is what a control frame waits for.
const CHUNK: usize = 32 * 1024;
/// Control bytes that may wait before pings are left out. Grants and names are bounded by what they are for.
const MAX_CONTROL: usize = 64 * 1024;
/// Answers about streams that may wait. A peer that reads has at most half as many streams without an answer.
const MAX_ANSWERS: usize = 2 * super::MAX_STREAMS;
/// The most bytes that precede the body of a message.
const MAX_HEAD: usize = 32;
/// Chunks kept for use again: what one write takes, so that a busy link need not allocate.
const MAX_SPARE: usize = 4;

/// Reason why a message was not queued. No part of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Credit is missing; try again when some arrived.
    Full,
    /// The link opens nothing new any more.
    Draining,
    /// The body is over the peer's limit.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// More than 16,384 different names were used over this link.
    TooManyNames,
    /// The name is empty or longer than 255 bytes.
    BadName,
    /// The two ends did not agree on this.
    Unsupported(Flag),
}

/// Bytes that one end has yet to write, in lanes, and the credit it may still use.
///
/// ```
/// use trunkline_route::PeerFlags;
/// use trunkline_wire::frame::{self, Decoder, Flow};
/// use trunkline_wire::mux::{How, Outbox, Window};
///
/// let window = Window { link: 65_536, mailbox: 65_536, max_message: 65_536 };
/// let mut outbox = Outbox::new(window, PeerFlags::ALL, None);
/// outbox.send("queries", "main", b"select 1", How::default()).expect("there is credit");
///
/// // The driver writes the chunks to its socket. Names are bound to ids before their first use.
/// let (mut decoder, mut kinds) = (Decoder::default(), Vec::new());
/// while let Some(chunk) = outbox.take() {
///     decoder.feed(&chunk, |header, _payload| {
///         kinds.push(header.kind);
///         Ok(Flow::Continue(()))
///     })?;
///     outbox.recycle(chunk);
/// }
/// assert_eq!(kinds, [frame::NAME, frame::NAME, frame::SEND]);
/// # Ok::<(), frame::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Outbox {
    control: Vec<u8>,
    /// Answers about streams in it.
    answers: usize,
    high: Lane,
    normal: Lane,
    streams: Lanes,
    /// Turns of streams until messages have theirs.
    turns: usize,
    /// Written chunks, to be filled again; an idle link has none.
    spare: Vec<Vec<u8>>,
    names: HashMap<Arc<str>, u16>,
    /// The last receiver and the last sender: most messages repeat them.
    last_names: [Option<(Arc<str>, u16)>; 2],
    mailbox_credit: Vec<Credit>,
    link_credit: [Credit; 2],
    window: Window,
    flags: PeerFlags,
    waiting_replies: VecDeque<(u32, Status, Bytes, How)>,
    mapping: Option<Arc<AtomMapping>>,
    /// Cost of the waiting answers.
    waiting_cost: u64,
    draining: bool,
    /// Bytes the program took out of each of our mailboxes, by the peer's id, not yet granted back.
    taken: Vec<u64>,
    due: Vec<(u16, u32)>,
}

#[derive(Debug, Default)]
struct Lane {
    chunks: VecDeque<Vec<u8>>,
}

impl Lane {
    /// Returns the chunk that the next `len` bytes go to.
    fn tail(&mut self, len: usize, spare: &mut Vec<Vec<u8>>) -> &mut Vec<u8> {
        if self.chunks.back().is_none_or(|chunk| chunk.len() + len > CHUNK) {
            self.chunks.push_back(spare.pop().unwrap_or_default());
        }
        self.chunks.back_mut().expect("a chunk was just made sure of")
    }
}

impl Outbox {
    /// An outbox towards a peer that announced this window, on a link with these flags, that calls names what the mapping says.
    pub fn new(mut window: Window, flags: PeerFlags, mapping: Option<Arc<AtomMapping>>) -> Self {
        if !flags.has(Flag::Fragmentation) {
            window.max_message = window.max_message.min(MAX_PIECE);
        }
        Self {
            flags,
            control: Vec::new(),
            answers: 0,
            high: Lane::default(),
            normal: Lane::default(),
            streams: Lanes::default(),
            turns: 0,
            spare: Vec::new(),
            names: HashMap::new(),
            last_names: [None, None],
            mailbox_credit: vec![Credit::new(0)],
            link_credit: [Credit::new(window.link); 2],
            window,
            waiting_replies: VecDeque::new(),
            mapping,
            waiting_cost: 0,
            draining: false,
            taken: Vec::new(),
            due: Vec::new(),
        }
    }

    /// The program took `bytes` out of the mailbox the peer knows by `id`; at a quarter of the `window` they are
    /// due to be granted back. Says whether some became due.
    pub fn took(&mut self, id: u16, bytes: u64, window: u64) -> bool {
        let index = usize::from(id);
        if self.taken.len() <= index {
            self.taken.resize(index + 1, 0);
        }
        self.taken[index] += bytes;
        if self.taken[index] < window / 4 {
            return false;
        }
        let bytes = self.taken[index].min(u32::MAX.into()) as u32;
        self.taken[index] -= u64::from(bytes);
        self.due.push((id, bytes));
        true
    }

    /// A grant that is due. Whoever writes notes it with [`super::Inbound::granted_mailbox`] before it leaves by
    /// [`Outbox::grant_mailbox`].
    pub fn next_due(&mut self) -> Option<(u16, u32)> {
        self.due.pop()
    }

    /// The largest body the peer takes, in bytes.
    pub fn max_message(&self) -> usize {
        self.window.max_message
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`Refused`] says why; nothing was queued and no credit taken.
    pub fn send(&mut self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), Refused> {
        if how.high && !self.flags.has(Flag::Priorities) {
            return Err(Refused::Unsupported(Flag::Priorities));
        }
        let (to, from) = self.admit(to, from, body.len())?;
        self.message(frame::SEND, to.into(), how, body, |out| out.put_u16(from));
        Ok(())
    }

    /// Queues an important message by its number.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn send_important(&mut self, seq: u64, to: &str, from: &str, body: &[u8]) -> Result<(), Refused> {
        if !self.flags.has(Flag::ImportantDelivery) {
            return Err(Refused::Unsupported(Flag::ImportantDelivery));
        }
        let (to, from) = self.admit(to, from, body.len())?;
        self.message(frame::SEND, to.into(), How::IMPORTANT, body, |out| {
            out.put_u16(from);
            out.put_u64(seq);
        });
        Ok(())
    }

    /// Tells the outcomes of important messages that arrived; as a report, all that are kept.
    pub fn outcomes(&mut self, is_report: bool, outcomes: &[(u64, Outcome)]) {
        let kind = if is_report { frame::REPORT } else { frame::OUTCOMES };
        let mut payload = Vec::with_capacity(outcomes.len() * 9);
        for (seq, outcome) in outcomes {
            payload.put_u64(*seq);
            payload.put_u8(crate::important::outcome_to_byte(*outcome));
        }
        frame::put(&mut self.control, kind, 0, &payload);
    }

    /// Tells that every important message below this number is settled.
    pub fn release(&mut self, floor: u64) {
        frame::put(&mut self.control, frame::RELEASE, 0, &floor.to_be_bytes());
    }

    /// Queues a call. The caller chooses an id that no call of this link has.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn call(
        &mut self,
        id: u32,
        to: &str,
        from: &str,
        timeout_ms: u32,
        body: &[u8],
        how: How,
    ) -> Result<(), Refused> {
        let (to, from) = self.admit(to, from, body.len())?;
        self.message(frame::CALL, id, how, body, |out| {
            out.put_u16(to);
            out.put_u16(from);
            out.put_u32(timeout_ms);
        });
        Ok(())
    }

    /// Queues an answer; without credit it is kept and queued when credit arrives. Each answers one call that took
    /// credit of its own, and whoever grants that credit stops while [`Outbox::is_backlogged`].
    pub fn reply(&mut self, id: u32, status: Status, body: Bytes, how: How) {
        self.waiting_cost += cost(body.len());
        self.waiting_replies.push_back((id, status, body, how));
        self.flush_replies();
    }

    fn flush_replies(&mut self) {
        while let Some((_, _, body, _)) = self.waiting_replies.front() {
            let credit = &mut self.link_credit[Class::Replies as usize];
            if !credit.covers(cost(body.len())) {
                return;
            }
            credit.spend(cost(body.len()));
            let Some((id, status, body, how)) = self.waiting_replies.pop_front() else { return };
            self.waiting_cost -= cost(body.len());
            self.message(frame::REPLY, id, how, &body, |out| out.put_u8(status.to_byte()));
        }
    }

    /// Checks and takes everything a message needs, or nothing.
    fn admit(&mut self, to: &str, from: &str, len: usize) -> Result<(u16, u16), Refused> {
        if self.draining {
            return Err(Refused::Draining);
        }
        if len > self.window.max_message {
            // The peer might take it, in pieces.
            return Err(match self.flags.has(Flag::Fragmentation) {
                true => Refused::TooLarge { limit: self.window.max_message },
                false => Refused::Unsupported(Flag::Fragmentation),
            });
        }
        let cost = cost(len);
        let link = self.link_credit[Class::Messages as usize];
        if !link.covers(cost) {
            return Err(Refused::Full);
        }
        let to = self.bind(to, 0)?;
        let from = if from.is_empty() { 0 } else { self.bind(from, 1)? };
        let mailbox = &mut self.mailbox_credit[usize::from(to)];
        if !mailbox.covers(cost) {
            return Err(Refused::Full);
        }
        mailbox.spend(cost);
        self.link_credit[Class::Messages as usize].spend(cost);
        Ok((to, from))
    }

    fn bind(&mut self, name: &str, part: usize) -> Result<u16, Refused> {
        if let Some((last, id)) = &self.last_names[part]
            && **last == *name
        {
            return Ok(*id);
        }
        if let Some((known, &id)) = self.names.get_key_value(name) {
            self.last_names[part] = Some((known.clone(), id));
            return Ok(id);
        }
        if name.is_empty() || name.len() > 255 {
            return Err(Refused::BadName);
        }
        if self.names.len() >= MAX_NAMES {
            return Err(Refused::TooManyNames);
        }
        let mapping = self.mapping.as_deref();
        if let Some(&id) = mapping.and_then(|mapping| mapping.same_to_peer(name)).and_then(|same| self.names.get(same))
        {
            // No name is bound twice.
            self.names.insert(name.into(), id);
            return Ok(id);
        }
        let id = self.mailbox_credit.len() as u16;
        self.mailbox_credit.push(Credit::new(self.window.mailbox));
        self.names.insert(name.into(), id);
        // Control goes ahead of every message, so the binding is known before it is used.
        let wire = mapping.and_then(|mapping| mapping.to_peer(name));
        frame::put(&mut self.control, frame::NAME, id.into(), wire.map_or(name, |wire| wire).as_bytes());
        Ok(id)
    }

    fn message(&mut self, kind: u8, id: u32, how: How, body: &[u8], head: impl FnOnce(&mut Vec<u8>)) {
        let (high, flags) = (how.high, super::inbound::frame_flags(how));
        let lane = if high { &mut self.high } else { &mut self.normal };
        let (first, rest) = body.split_at(body.len().min(MAX_PIECE));
        let out = lane.tail(MAX_HEAD + first.len(), &mut self.spare);
        let start = out.len();
        Header { len: 0, kind, id }.put(out);
        out.push(if rest.is_empty() { flags } else { flags | frame::FLAG_FRAGMENT });
        head(out);
        if !rest.is_empty() {
            out.put_u32(body.len() as u32);
        }
        out.extend_from_slice(first);
        let len = out.len() - start - frame::HEADER_LEN;
        out[start..start + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        for piece in rest.chunks(MAX_PIECE) {
            let out = lane.tail(frame::HEADER_LEN + piece.len(), &mut self.spare);
            frame::put(out, frame::FRAG, high.into(), piece);
        }
    }

    /// Queues a PING or PONG, unless too much waits already: a peer that asks and does not read gets no answer.
    pub fn ping(&mut self, kind: u8, payload: &[u8; 16]) {
        if self.control.len() < MAX_CONTROL {
            frame::put(&mut self.control, kind, 0, payload);
        }
    }

    /// Grants the peer credit of a class of the link.
    pub fn grant(&mut self, class: Class, bytes: u32) {
        self.put_credit(class.to_byte(), 0, bytes);
    }

    /// Grants the peer credit of one mailbox, by the id the peer bound.
    pub fn grant_mailbox(&mut self, id: u16, bytes: u32) {
        self.put_credit(Class::MAILBOX_BYTE, id.into(), bytes);
    }

    fn put_credit(&mut self, class: u8, id: u32, bytes: u32) {
        let mut payload = [class, 0, 0, 0, 0];
        payload[1..].copy_from_slice(&bytes.to_be_bytes());
        frame::put(&mut self.control, frame::CREDIT, id, &payload);
    }

    /// Takes credit of a class that the peer granted.
    pub fn credit(&mut self, class: Class, bytes: u32) {
        self.link_credit[class as usize].grant(bytes);
        if class == Class::Replies {
            self.flush_replies();
        }
    }

    /// Takes credit of one mailbox that the peer granted; an id never bound is ignored.
    pub fn credit_mailbox(&mut self, id: u32, bytes: u32) {
        if let Some(credit) = self.mailbox_credit.get_mut(id as usize).filter(|_| id != 0) {
            credit.grant(bytes);
        }
    }

    /// Asks for a stream. As many of its bytes as may go early do, the others once it is open.
    ///
    /// # Errors
    /// [`Refused::Draining`].
    pub fn open_stream(&mut self, id: u32, kind: u8, timeout_ms: u32, credit: u32, data: &[u8]) -> Result<(), Refused> {
        if self.draining {
            return Err(Refused::Draining);
        }
        Header { len: 9 + data.len(), kind: frame::OPEN, id }.put(&mut self.control);
        self.control.put_u8(kind);
        self.control.put_u32(timeout_ms);
        self.control.put_u32(credit);
        self.control.extend_from_slice(data);
        self.streams.open(id, super::EARLY_DATA);
        Ok(())
    }

    /// The peer's stream is open: `theirs` is what it may send, `ours` what this end may.
    pub fn accept_stream(&mut self, id: u32, theirs: u32, ours: u32) {
        frame::put(&mut self.control, frame::OPEN_OK, id, &theirs.to_be_bytes());
        self.answers += 1;
        self.streams.open(id, ours);
    }

    /// The peer's stream is refused, by this node or by one further on.
    pub fn refuse_stream(&mut self, id: u32, code: u8, hop: &str, text: &str) {
        let mut payload = vec![code];
        frame::put_text(&mut payload, hop);
        frame::put_text(&mut payload, text);
        frame::put(&mut self.control, frame::OPEN_ERR, id, &payload);
        self.answers += 1;
    }

    /// Queues as much of a stream's bytes as there is credit and room for; `None` when it is not open for writing. Who
    /// gets 0 is woken when it is worth another try.
    pub fn write_stream(&mut self, id: u32, bytes: &[u8], writer: &Waker) -> Option<usize> {
        self.streams.write(id, bytes, writer)
    }

    /// Returns the number of bytes that [`Outbox::write_stream`] would take; a writer that is told 0 is woken when it is more.
    pub fn poll_stream(&mut self, id: u32, writer: &Waker) -> Option<usize> {
        self.streams.poll(id, writer)
    }

    /// Ends a stream behind what was queued of it.
    pub fn finish_stream(&mut self, id: u32) {
        self.streams.finish(id);
    }

    /// A stream is over: what is queued of it is dropped.
    pub fn reset_stream(&mut self, id: u32, code: u8) {
        self.streams.close(id);
        frame::put(&mut self.control, frame::RESET, id, &[code]);
    }

    /// Ends a stream in both directions, which the peer learns behind what is queued of it.
    pub fn abandon_stream(&mut self, id: u32, code: u8) {
        self.streams.abandon(id, code);
    }

    /// The peer said that a stream is over.
    pub fn drop_stream(&mut self, id: u32) {
        self.streams.close(id);
    }

    /// All of them are: nothing more is written.
    pub fn end_streams(&mut self) {
        self.streams.clear();
    }

    /// The peer granted credit for a stream.
    pub fn credit_stream(&mut self, id: u32, bytes: u32) {
        self.streams.credit(id, bytes);
    }

    /// Grants the peer credit of one stream.
    pub fn grant_stream(&mut self, id: u32, bytes: u32) {
        self.put_credit(Class::STREAM_BYTE, id, bytes);
    }

    /// Returns true if more answers about streams wait than a peer that reads leaves waiting.
    pub fn is_flooded(&self) -> bool {
        self.answers > MAX_ANSWERS
    }

    /// Opens nothing new from here on, and says so behind everything queued. Answers still go. Idempotent.
    pub fn go_away(&mut self, code: u8, text: &str) {
        if self.draining {
            return;
        }
        self.draining = true;
        let mut payload = vec![code, 0, 0, 0, 0];
        frame::put_text(&mut payload, text);
        // Behind both lanes: the normal one is taken last.
        frame::put(self.normal.tail(MAX_HEAD + payload.len(), &mut self.spare), frame::GOAWAY, 0, &payload);
    }

    /// Says the last word, at once: what is queued is dropped.
    pub fn close(&mut self, code: u8, text: &str) {
        self.draining = true;
        self.high = Lane::default();
        self.normal = Lane::default();
        self.streams.clear();
        self.waiting_replies.clear();
        self.waiting_cost = 0;
        let mut payload = vec![code];
        frame::put_text(&mut payload, text);
        frame::put(&mut self.control, frame::CLOSE, 0, &payload);
    }

    /// Returns true if more than `bound` bytes wait to be read by the peer: answers without credit, and what is not written.
    pub fn is_backlogged(&self, bound: u64) -> bool {
        let chunks = (self.high.chunks.len() + self.normal.chunks.len()) as u64;
        let waiting = self.waiting_cost.saturating_add(self.control.len() as u64);
        waiting.saturating_add(chunks * CHUNK as u64) > bound
    }

    /// Returns true if new messages are refused.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Returns true if there is nothing to write, answers that wait for credit included.
    pub fn is_empty(&self) -> bool {
        !self.has_ready() && self.waiting_replies.is_empty()
    }

    /// Returns true if messages, calls or answers are ready to be written.
    pub fn has_messages(&self) -> bool {
        !self.high.chunks.is_empty() || !self.normal.chunks.is_empty()
    }

    /// Returns true if [`Outbox::take`] would give a chunk.
    pub fn has_ready(&self) -> bool {
        !self.control.is_empty() || !self.due.is_empty() || self.has_messages() || self.streams.has_ready()
    }

    /// The next bytes to write, whole frames: control, then high, then normal messages and every stream in turn. Give the buffer back by
    /// [`Outbox::recycle`] while more is to come.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if !self.control.is_empty() {
            self.answers = 0;
            return Some(std::mem::take(&mut self.control));
        }
        let chunk = self.high.chunks.pop_front().or_else(|| self.take_turn());
        if chunk.is_none() {
            self.spare = Vec::new();
        }
        chunk
    }

    /// Each stream that has something has one turn between two of the messages.
    fn take_turn(&mut self) -> Option<Vec<u8>> {
        if self.turns > 0 || self.normal.chunks.is_empty() {
            self.turns = self.turns.saturating_sub(1);
            if let Some(chunk) = self.streams.take() {
                return Some(chunk);
            }
        }
        self.turns = self.streams.turns();
        self.normal.chunks.pop_front()
    }

    /// Takes a written buffer back for the next chunk, while more is to come.
    pub fn recycle(&mut self, mut chunk: Vec<u8>) {
        if self.has_ready()
            && self.spare.len() < MAX_SPARE
            && chunk.capacity() >= CHUNK
            && chunk.capacity() <= 4 * CHUNK
        {
            chunk.clear();
            self.spare.push(chunk);
        }
    }

    /// Returns true if so much waits that a sender which can wait should let the writer go first.
    pub fn is_behind(&self) -> bool {
        self.normal.chunks.len() > MAX_SPARE
    }

    /// Frees what an idle link need not hold.
    pub fn shrink(&mut self) {
        self.control.shrink_to_fit();
        self.due.shrink_to_fit();
        self.streams.shrink();
        if self.normal.chunks.is_empty() {
            self.normal.chunks = VecDeque::new();
        }
        if self.high.chunks.is_empty() {
            self.high.chunks = VecDeque::new();
        }
    }
}
