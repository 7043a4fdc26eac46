use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{Class, Status, Window, cost};
use crate::frame::{self, Header, MAX_PIECE};

/// Bytes after which a lane begins a new chunk. The writer takes chunk by chunk, so this and one piece is the
/// most a control frame waits for.
const CHUNK: usize = 32 * 1024;
/// Names one direction of a link may bind.
const MAX_NAMES: usize = 16_384;

/// Why a message was not queued. Nothing was.
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
}

/// Everything one end has yet to write, in lanes, and the credit it may still use.
#[derive(Debug)]
pub struct Outbox {
    control: Vec<u8>,
    high: Lane,
    normal: Lane,
    names: HashMap<Arc<str>, u16>,
    last_name: Option<(Arc<str>, u16)>,
    mailbox_credit: Vec<u64>,
    link_credit: [u64; 2],
    window: Window,
    waiting_replies: VecDeque<(u32, Status, Bytes)>,
    draining: bool,
    /// Bytes the program took out of each of our mailboxes, by the peer's id, not yet granted back.
    taken: Vec<u64>,
    due: Vec<(u16, u32)>,
}

#[derive(Debug, Default)]
struct Lane {
    chunks: VecDeque<Vec<u8>>,
    spare: Option<Vec<u8>>,
}

impl Lane {
    fn tail(&mut self) -> &mut Vec<u8> {
        if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK) {
            let chunk = self.spare.take().unwrap_or_default();
            self.chunks.push_back(chunk);
        }
        self.chunks.back_mut().expect("a chunk was just made sure of")
    }
}

impl Outbox {
    /// An outbox towards a peer that announced this window.
    pub fn new(window: Window) -> Self {
        Self {
            control: Vec::new(),
            high: Lane::default(),
            normal: Lane::default(),
            names: HashMap::new(),
            last_name: None,
            mailbox_credit: vec![0],
            link_credit: [window.link; 2],
            window,
            waiting_replies: VecDeque::new(),
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
        let bytes = std::mem::take(&mut self.taken[index]).min(u32::MAX.into());
        self.due.push((id, bytes as u32));
        true
    }

    /// The grants that are due. Whoever writes notes them with [`super::Inbound::granted_mailbox`] before they
    /// leave by [`Outbox::grant_mailbox`].
    pub fn take_due(&mut self) -> Vec<(u16, u32)> {
        std::mem::take(&mut self.due)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`Refused`] says why; nothing was queued and no credit taken.
    pub fn send(&mut self, to: &str, from: &str, body: &[u8], high: bool) -> Result<(), Refused> {
        let (to, from) = self.admit(to, from, body.len())?;
        let flags = if high { frame::FLAG_HIGH } else { 0 };
        self.message(frame::SEND, to.into(), flags, high, body, |out| out.put_u16(from));
        Ok(())
    }

    /// Queues a call. The caller chooses an id that no call of this link has.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn call(&mut self, id: u32, to: &str, from: &str, deadline_ms: u32, body: &[u8]) -> Result<(), Refused> {
        let (to, from) = self.admit(to, from, body.len())?;
        self.message(frame::CALL, id, 0, false, body, |out| {
            out.put_u16(to);
            out.put_u16(from);
            out.put_u32(deadline_ms);
        });
        Ok(())
    }

    /// Queues an answer; without credit it is kept and queued when credit arrives. Callers bound how many there
    /// can be: each answers one call that took credit of its own.
    pub fn reply(&mut self, id: u32, status: Status, body: Bytes) {
        self.waiting_replies.push_back((id, status, body));
        self.flush_replies();
    }

    fn flush_replies(&mut self) {
        while let Some((_, _, body)) = self.waiting_replies.front() {
            let cost = cost(body.len());
            // An answer larger than the whole window still goes, when the window is whole.
            let credit = &mut self.link_credit[Class::Replies as usize];
            if *credit < cost.min(self.window.link) {
                return;
            }
            *credit = credit.saturating_sub(cost);
            let Some((id, status, body)) = self.waiting_replies.pop_front() else { return };
            self.message(frame::REPLY, id, 0, false, &body, |out| out.put_u8(status.to_byte()));
        }
    }

    /// Checks and takes everything a message needs, or nothing.
    fn admit(&mut self, to: &str, from: &str, len: usize) -> Result<(u16, u16), Refused> {
        if self.draining {
            return Err(Refused::Draining);
        }
        if len > self.window.max_message {
            return Err(Refused::TooLarge { limit: self.window.max_message });
        }
        let cost = cost(len);
        if self.link_credit[Class::Messages as usize] < cost.min(self.window.link) {
            return Err(Refused::Full);
        }
        let to = self.bind(to)?;
        let from = if from.is_empty() { 0 } else { self.bind(from)? };
        let mailbox = &mut self.mailbox_credit[usize::from(to)];
        if *mailbox < cost.min(self.window.mailbox) {
            return Err(Refused::Full);
        }
        *mailbox = mailbox.saturating_sub(cost);
        let link = &mut self.link_credit[Class::Messages as usize];
        *link = link.saturating_sub(cost);
        Ok((to, from))
    }

    fn bind(&mut self, name: &str) -> Result<u16, Refused> {
        if let Some((last, id)) = &self.last_name
            && **last == *name
        {
            return Ok(*id);
        }
        if let Some((known, &id)) = self.names.get_key_value(name) {
            self.last_name = Some((known.clone(), id));
            return Ok(id);
        }
        if name.is_empty() || name.len() > 255 {
            return Err(Refused::BadName);
        }
        if self.names.len() >= MAX_NAMES {
            return Err(Refused::TooManyNames);
        }
        let id = self.mailbox_credit.len() as u16;
        self.mailbox_credit.push(self.window.mailbox);
        self.names.insert(name.into(), id);
        // Control goes ahead of every message, so the binding is known before it is used.
        frame::put(&mut self.control, frame::NAME, id.into(), name.as_bytes());
        Ok(id)
    }

    fn message(&mut self, kind: u8, id: u32, flags: u8, high: bool, body: &[u8], head: impl FnOnce(&mut Vec<u8>)) {
        let lane = if high { &mut self.high } else { &mut self.normal };
        let out = lane.tail();
        let start = out.len();
        Header { len: 0, kind, id }.put(out);
        let (first, rest) = body.split_at(body.len().min(MAX_PIECE));
        out.push(if rest.is_empty() { flags } else { flags | frame::FLAG_FRAGMENT });
        head(out);
        if !rest.is_empty() {
            out.put_u32(body.len() as u32);
        }
        out.extend_from_slice(first);
        let len = out.len() - start - frame::HEADER_LEN;
        out[start..start + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
        for piece in rest.chunks(MAX_PIECE) {
            frame::put(lane.tail(), frame::FRAG, high.into(), piece);
        }
    }

    /// Queues a PING or PONG.
    pub fn ping(&mut self, kind: u8, payload: &[u8; 16]) {
        frame::put(&mut self.control, kind, 0, payload);
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
        let credit = &mut self.link_credit[class as usize];
        *credit = (*credit + u64::from(bytes)).min(self.window.link);
        if class == Class::Replies {
            self.flush_replies();
        }
    }

    /// Takes credit of one mailbox that the peer granted; an id never bound is ignored.
    pub fn credit_mailbox(&mut self, id: u32, bytes: u32) {
        if let Some(credit) = self.mailbox_credit.get_mut(id as usize).filter(|_| id != 0) {
            *credit = (*credit + u64::from(bytes)).min(self.window.mailbox);
        }
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
        frame::put(self.normal.tail(), frame::GOAWAY, 0, &payload);
    }

    /// Says the last word, at once: what is queued is dropped.
    pub fn close(&mut self, code: u8, text: &str) {
        self.draining = true;
        self.high = Lane::default();
        self.normal = Lane::default();
        self.waiting_replies.clear();
        let mut payload = vec![code];
        frame::put_text(&mut payload, text);
        frame::put(&mut self.control, frame::CLOSE, 0, &payload);
    }

    /// Whether new messages are refused.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether there is nothing to write, answers that wait for credit included.
    pub fn is_empty(&self) -> bool {
        !self.has_ready() && self.waiting_replies.is_empty()
    }

    /// Whether [`Outbox::take`] would give something.
    pub fn has_ready(&self) -> bool {
        !self.control.is_empty()
            || !self.due.is_empty()
            || !self.high.chunks.is_empty()
            || !self.normal.chunks.is_empty()
    }

    /// The next bytes to write, whole frames: control, then high, then normal. Give the buffer back by
    /// [`Outbox::recycle`] while more is to come.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if !self.control.is_empty() {
            return Some(std::mem::take(&mut self.control));
        }
        self.high.chunks.pop_front().or_else(|| self.normal.chunks.pop_front())
    }

    /// Takes a written buffer back for the next chunk.
    pub fn recycle(&mut self, mut chunk: Vec<u8>) {
        if self.normal.spare.is_none() && chunk.capacity() >= CHUNK && chunk.capacity() <= 4 * CHUNK {
            chunk.clear();
            self.normal.spare = Some(chunk);
        }
    }

    /// Frees what an idle link need not hold.
    pub fn shrink(&mut self) {
        self.normal.spare = None;
        self.high.spare = None;
        self.control = Vec::new();
        if self.normal.chunks.is_empty() {
            self.normal.chunks = VecDeque::new();
        }
        if self.high.chunks.is_empty() {
            self.high.chunks = VecDeque::new();
        }
    }
}
