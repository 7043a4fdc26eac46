//! Bytes of streams that are yet to be written, and the credit of the streams.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use crate::frame::{self, HEADER_LEN, Header, MAX_PIECE};

/// Bytes of one stream that wait to be written at most. With them a writer is one turn ahead.
pub(super) const MAX_QUEUED: usize = 128 * 1024;
/// The most bytes of a chunk of stream data: two frames, as much as a chunk of messages.
const FRAMES: usize = 2 * (HEADER_LEN + MAX_PIECE);

/// The sending half of one stream.
#[derive(Debug, Default)]
struct Lane {
    /// Whole frames, two to a chunk.
    chunks: VecDeque<Vec<u8>>,
    /// Place in the last chunk where a frame begins that is not full yet.
    open: Option<usize>,
    /// Bytes in the chunks.
    queued: usize,
    credit: u64,
    finished: bool,
    /// Task that waits for credit or for room.
    writer: Option<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// The last chunk, or a new one if it cannot take so many bytes more.
    fn tail(&mut self, len: usize) -> &mut Vec<u8> {
        if self.chunks.back().is_none_or(|chunk| chunk.len() + len > FRAMES) {
            self.chunks.push_back(Vec::new());
            self.open = None;
        }
        self.chunks.back_mut().expect("a chunk was just made sure of")
    }

    fn write(&mut self, id: u32, mut bytes: &[u8]) {
        self.credit -= bytes.len() as u64;
        while !bytes.is_empty() {
            let Some((start, chunk)) = self.open.zip(self.chunks.back_mut()) else {
                let chunk = self.tail(HEADER_LEN + bytes.len().min(MAX_PIECE));
                let start = chunk.len();
                Header { len: 0, kind: frame::DATA, id }.put(chunk);
                self.open = Some(start);
                self.queued += HEADER_LEN;
                continue;
            };
            let len = chunk.len() - start - HEADER_LEN;
            let (now, rest) = bytes.split_at(bytes.len().min(MAX_PIECE - len));
            chunk.extend_from_slice(now);
            self.queued += now.len();
            let len = len + now.len();
            chunk[start..start + 3].copy_from_slice(&(len as u32).to_be_bytes()[1..]);
            if len == MAX_PIECE {
                self.open = None;
            }
            bytes = rest;
        }
    }

    fn finish(&mut self, id: u32) {
        if !std::mem::replace(&mut self.finished, true) {
            frame::put(self.tail(HEADER_LEN), frame::FIN, id, &[]);
            self.queued += HEADER_LEN;
            self.open = None;
        }
    }
}

/// The sending halves of the streams of a link.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<u32, Lane>,
    /// Streams with something to write, in the order in which it is their turn.
    turns: VecDeque<u32>,
}

impl Lanes {
    pub(super) fn open(&mut self, id: u32, credit: u32) {
        self.lanes.insert(id, Lane { credit: credit.into(), ..Lane::default() });
    }

    /// For how much there is credit and room; `None` when the stream is not open for writing. Who gets 0 is woken when it
    /// is worth another try.
    pub(super) fn poll(&mut self, id: u32, writer: &Waker) -> Option<usize> {
        let lane = self.lanes.get_mut(&id).filter(|lane| !lane.finished)?;
        let room = MAX_QUEUED.saturating_sub(lane.queued).min(usize::try_from(lane.credit).unwrap_or(usize::MAX));
        if room == 0 {
            lane.writer = Some(writer.clone());
        }
        Some(room)
    }

    /// Takes as much as there is credit and room for; `None` when the stream is not open for writing. Who gets 0 is
    /// woken when it is worth another try.
    pub(super) fn write(&mut self, id: u32, bytes: &[u8], writer: &Waker) -> Option<usize> {
        if bytes.is_empty() {
            return self.lanes.get(&id).filter(|lane| !lane.finished).map(|_| 0);
        }
        let taken = bytes.len().min(self.poll(id, writer)?);
        let lane = self.lanes.get_mut(&id).filter(|_| taken > 0);
        let Some(lane) = lane else { return Some(0) };
        let was_idle = lane.chunks.is_empty();
        lane.write(id, &bytes[..taken]);
        if was_idle {
            self.turns.push_back(id);
        }
        Some(taken)
    }

    /// Ends a stream behind what was written.
    pub(super) fn finish(&mut self, id: u32) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let was_idle = lane.chunks.is_empty();
        lane.finish(id);
        if was_idle && !lane.chunks.is_empty() {
            self.turns.push_back(id);
        }
    }

    /// Drops what the stream has yet to write.
    pub(super) fn close(&mut self, id: u32) {
        if let Some(mut lane) = self.lanes.remove(&id) {
            lane.wake();
        }
    }

    pub(super) fn credit(&mut self, id: u32, bytes: u32) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.credit = lane.credit.saturating_add(bytes.into());
            lane.wake();
        }
    }

    /// Ends a stream in both directions: its RESET goes behind what was written, which has its credit already.
    pub(super) fn abandon(&mut self, id: u32, code: u8) {
        let lane = self.lanes.entry(id).or_default();
        let was_idle = lane.chunks.is_empty();
        frame::put(lane.tail(HEADER_LEN + 1), frame::RESET, id, &[code]);
        lane.queued += HEADER_LEN + 1;
        (lane.finished, lane.open) = (true, None);
        lane.wake();
        if was_idle {
            self.turns.push_back(id);
        }
    }

    /// Returns the number of streams that have something to write.
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.turns.is_empty()
    }

    /// The next chunk, of the stream whose turn it is.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        loop {
            let id = self.turns.pop_front()?;
            // One that was closed left its turn behind.
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let Some(chunk) = lane.chunks.pop_front() else { continue };
            lane.queued -= chunk.len();
            if lane.chunks.is_empty() {
                lane.open = None;
                lane.chunks = VecDeque::new();
                if lane.finished {
                    self.lanes.remove(&id);
                    return Some(chunk);
                }
            } else {
                self.turns.push_back(id);
            }
            if lane.queued <= MAX_QUEUED / 2 {
                lane.wake();
            }
            return Some(chunk);
        }
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        for mut lane in std::mem::take(&mut self.lanes).into_values() {
            lane.wake();
        }
        self.turns.clear();
    }

    pub(super) fn shrink(&mut self) {
        self.turns.shrink_to_fit();
        self.lanes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests;
