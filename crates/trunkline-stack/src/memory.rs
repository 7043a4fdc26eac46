//! Streams in the memory of one process.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tokio::io::ReadBuf;

use crate::{ByteStream, LinkInfo, StreamCode, StreamEnd, StreamIo, lock, poll_fill};

/// Most bytes that wait in one direction.
const WINDOW: usize = 256 * 1024;

/// One direction.
#[derive(Default)]
struct Lane {
    pieces: VecDeque<Bytes>,
    len: usize,
    finished: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Task that waits for the end before its time, at the reading end.
    watcher: Option<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        [&mut self.reader, &mut self.writer, &mut self.watcher]
            .into_iter()
            .filter_map(Option::take)
            .for_each(Waker::wake);
    }
}

/// Both directions; the lane of a number is written by the end of that number.
#[derive(Default)]
struct Lanes {
    lanes: [Lane; 2],
    end: Option<StreamEnd>,
}

/// A stream in the memory of this process, behind its two ends: for links that have no network to cross, and for tests of
/// whatever takes a [`ByteStream`]. At most 256 KiB wait in each direction.
///
/// ```
/// use std::sync::Arc;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use trunkline_route::Cookie;
/// use trunkline_stack::{LinkInfo, MemoryPipe};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let cookie = Cookie::new("a cookie of some length")?;
/// let info = |of: &str| Ok::<_, trunkline_route::NameError>(Arc::new(LinkInfo::local(of.parse()?, [7; 16], cookie.clone())));
/// let pipe = MemoryPipe::new();
/// let (mut a, mut b) = (pipe.opening_end(info("b@h")?), pipe.accepting_end(info("a@h")?));
/// a.write_all(b"hello").await?;
/// a.shutdown().await?;
/// let mut hello = String::new();
/// b.read_to_string(&mut hello).await?;
/// assert_eq!((hello.as_str(), a.peer().as_str()), ("hello", "b@h"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Default)]
pub struct MemoryPipe(Mutex<Lanes>);

impl std::fmt::Debug for MemoryPipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryPipe").field("is_over", &self.is_over()).finish_non_exhaustive()
    }
}

impl MemoryPipe {
    /// Returns an open stream.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the end of the node that opens the stream, with the facts about the link as that node sees it. Call it once.
    pub fn opening_end(self: &Arc<Self>, info: Arc<LinkInfo>) -> ByteStream {
        ByteStream::new(self.stream(0, info, ()))
    }

    /// Returns the end of the other node, with the facts about the link as that node sees it. Call it once.
    pub fn accepting_end(self: &Arc<Self>, info: Arc<LinkInfo>) -> ByteStream {
        ByteStream::new(self.stream(1, info, ()))
    }

    /// Ends the stream in both directions; what was written can still be read.
    pub fn break_off(&self, end: StreamEnd) {
        let mut pair = lock(&self.0);
        pair.end.get_or_insert(end);
        pair.lanes.iter_mut().for_each(Lane::wake);
    }

    /// Returns true if the stream broke off, or was reset by one of its ends.
    pub fn is_over(&self) -> bool {
        lock(&self.0).end.is_some()
    }

    /// Returns `Ready` when the stream broke off, for the end that did not open it and has not accepted it.
    pub fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        let mut pair = lock(&self.0);
        pair.lanes[0].watcher = Some(cx.waker().clone());
        if pair.end.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Returns one end; `kept` is dropped with it.
    fn stream<K>(self: &Arc<Self>, at: usize, info: Arc<LinkInfo>, kept: K) -> MemoryStream<K> {
        MemoryStream { pair: self.clone(), at, info, _kept: kept }
    }

    /// Returns both ends of a stream within one node.
    pub(crate) fn local<K: Clone>(self: &Arc<Self>, info: &Arc<LinkInfo>, kept: &K) -> [MemoryStream<K>; 2] {
        [0, 1].map(|at| self.stream(at, info.clone(), kept.clone()))
    }
}

/// One end of a stream in memory.
pub(crate) struct MemoryStream<K> {
    pair: Arc<MemoryPipe>,
    at: usize,
    info: Arc<LinkInfo>,
    _kept: K,
}

impl<K> MemoryStream<K> {
    /// Gives `take` the next piece; `Ready(Ok(None))` at the end.
    fn poll_with<T>(&self, cx: &Context<'_>, take: impl FnOnce(&mut Bytes) -> T) -> Poll<io::Result<Option<T>>> {
        let mut pair = lock(&self.pair.0);
        let Lanes { lanes, end } = &mut *pair;
        let lane = &mut lanes[1 - self.at];
        let Some(piece) = lane.pieces.front_mut() else {
            return match end {
                _ if lane.finished => Poll::Ready(Ok(None)),
                Some(end) => Poll::Ready(Err(end.clone().into())),
                None => {
                    lane.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        let before = piece.len();
        let taken = take(piece);
        lane.len -= before - piece.len();
        if piece.is_empty() {
            lane.pieces.pop_front();
        }
        let writer = lane.writer.take();
        drop(pair);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(Some(taken)))
    }
}

impl<K: Send + Sync + 'static> StreamIo for MemoryStream<K> {
    fn link_info(&self) -> &LinkInfo {
        &self.info
    }

    fn poll_chunk(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_with(cx, |piece| piece.split_to(piece.len().min(most.max(1))))
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_fill(buf, |buf| {
            self.poll_with(cx, |piece| {
                let len = piece.len().min(buf.remaining());
                buf.put_slice(&piece[..len]);
                piece.advance(len);
            })
        })
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pair = lock(&self.pair.0);
        let is_over = pair.end.is_some();
        let lane = &mut pair.lanes[1 - self.at];
        if is_over || lane.finished || !lane.pieces.is_empty() {
            return Poll::Ready(());
        }
        lane.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut pair = lock(&self.pair.0);
        let Lanes { lanes, end } = &mut *pair;
        let lane = &mut lanes[1 - self.at];
        match end {
            Some(end) if !lane.finished => Poll::Ready(end.clone().into()),
            _ => {
                lane.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pair = lock(&self.pair.0);
        let is_over = pair.end.is_some();
        let lane = &mut pair.lanes[self.at];
        if is_over || lane.finished || lane.len < WINDOW {
            return Poll::Ready(());
        }
        lane.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pair = lock(&self.pair.0);
        if let Some(end) = &pair.end {
            return Poll::Ready(Err(end.clone().into()));
        }
        let lane = &mut pair.lanes[self.at];
        if lane.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = bytes.len().min(WINDOW - lane.len);
        if taken == 0 && !bytes.is_empty() {
            lane.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if taken > 0 {
            lane.pieces.push_back(Bytes::copy_from_slice(&bytes[..taken]));
            lane.len += taken;
        }
        let reader = lane.reader.take();
        drop(pair);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(taken))
    }

    fn finish(&self) -> io::Result<()> {
        let mut pair = lock(&self.pair.0);
        if let Some(end) = &pair.end {
            return Err(end.clone().into());
        }
        let lane = &mut pair.lanes[self.at];
        lane.finished = true;
        let reader = lane.reader.take();
        drop(pair);
        reader.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn end(&self, code: StreamCode, behind: bool) {
        let mut pair = lock(&self.pair.0);
        let Lanes { lanes, end } = &mut *pair;
        if end.is_some() || lanes.iter().all(|lane| lane.finished) {
            return;
        }
        *end = Some(StreamEnd::Reset(code));
        let own = &mut lanes[self.at];
        if !behind && !own.finished {
            (own.pieces, own.len) = (VecDeque::new(), 0);
        }
        // Nobody reads what the other end wrote.
        let theirs = &mut lanes[1 - self.at];
        (theirs.pieces, theirs.len) = (VecDeque::new(), 0);
        lanes.iter_mut().for_each(Lane::wake);
    }
}
