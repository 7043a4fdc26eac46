//! Multiplexing without I/O: what leaves ([`Outbox`]) and what arrives ([`Inbound`]), with credit on both sides.
//!
//! Two classes of the link have credit of their own, messages (with calls) and replies, and so has every
//! mailbox. A message takes the whole of its credit, of the link and of its mailbox, before its first byte is
//! queued. Link credit comes back when the message entered the mailbox, mailbox credit when the program took it
//! out: a mailbox nobody reads stops its own senders and nobody else.
//!
//! Streams of bytes have credit each, and take turns with messages, a chunk of 32 KiB at a time.

mod inbound;
mod outbox;
mod stream_lanes;
#[cfg(test)]
mod tests;

pub use inbound::BodyArena;
pub use inbound::{Inbound, Sink, StreamEvent};
pub use outbox::{Outbox, Refused};
pub use trunkline_route::How;

use trunkline_route::Role;

/// Names one direction of a link may bind: what bounds the mailboxes, each with a window, that a peer can fill.
const MAX_NAMES: usize = 16_384;

/// Streams of a link that one end may have open at a time.
pub const MAX_STREAMS: usize = 4_096;

/// Bytes that may be sent on a stream before the peer has accepted it.
pub const EARLY_DATA: u32 = 16 * 1024;

/// Class of credit of the link that a frame takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// SEND and CALL.
    Messages,
    /// REPLY.
    Replies,
}

impl Class {
    pub(crate) const MAILBOX_BYTE: u8 = 2;
    pub(crate) const STREAM_BYTE: u8 = 3;

    pub(crate) fn to_byte(self) -> u8 {
        self as u8
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Messages),
            1 => Some(Self::Replies),
            _ => None,
        }
    }
}

/// The id of the first stream that an end opens; each later one is 2 more.
pub fn first_stream(role: Role) -> u32 {
    match role {
        Role::Initiator => 1,
        Role::Responder => 2,
    }
}

/// Returns the cost of a body of `len` bytes in credit: itself, and 64 bytes for what it takes to hold any message.
///
/// The flat part keeps a flood of empty messages within the same bound of memory.
pub fn cost(len: usize) -> u64 {
    len as u64 + 64
}

/// Credit of one kind, counted the same way at both ends.
///
/// A message may go when there is credit for it; one that costs more than three quarters of the window, when
/// there is that much, and what it costs beyond is a debt. Up to a quarter of the window can be spent and not
/// yet granted back, so asking for more could wait for ever.
#[derive(Debug, Clone, Copy)]
struct Credit {
    now: i64,
    window: i64,
}

impl Credit {
    fn new(window: u64) -> Self {
        let window = i64::try_from(window).unwrap_or(i64::MAX);
        Self { now: window, window }
    }

    fn covers(self, cost: u64) -> bool {
        self.now >= i64::try_from(cost).unwrap_or(i64::MAX).min(self.window - self.window / 4)
    }

    fn spend(&mut self, cost: u64) {
        self.now = self.now.saturating_sub_unsigned(cost);
    }

    fn grant(&mut self, bytes: u32) {
        self.now = self.now.saturating_add(bytes.into()).min(self.window);
    }
}

/// The outcome a REPLY carries. Complete: an unknown byte reads as [`Status::Failed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The body is the answer.
    Ok,
    /// No mailbox of that name is registered.
    NoMailbox,
    /// The owner of the mailbox dropped the call.
    Dropped,
    /// The owner of the mailbox refused; the body is its text.
    Failed,
}

impl Status {
    pub(crate) fn to_byte(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Ok,
            1 => Self::NoMailbox,
            2 => Self::Dropped,
            _ => Self::Failed,
        }
    }
}

/// The bounds one direction of a link starts with, as its receiver announced them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Bytes of credit of each class.
    pub link: u64,
    /// Bytes of credit of each mailbox.
    pub mailbox: u64,
    /// The largest body, in bytes.
    pub max_message: usize,
}
