//! Byte streams on a native link.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::sync::oneshot;
use trunkline_route::{NodeName, Role};
use trunkline_stack::{
    Acceptor, ByteStream, Down, EARLY_DATA, First, Incoming, LinkInfo, LogLimit, MAX_OPEN_DATA, MAX_STREAMS, OpenError,
    Rate, StreamCode, StreamEnd, StreamIo, StreamKind, StreamOffer, poll_fill,
};
use trunkline_wire::frame::ProtocolError;
use trunkline_wire::mux::{self, StreamEvent, first_stream};

use crate::link::Shared;
use crate::shell::{clock_us, lock, now};

mod resets;

pub(crate) use resets::RESETS;
use resets::Resets;

// The seam states the limits for every stack; those of the protocol must be the same.
const _: () = assert!(EARLY_DATA == mux::EARLY_DATA && MAX_STREAMS == mux::MAX_STREAMS && MAX_OPEN_DATA == 1024);

/// Bytes that a peer may send on a stream before the program has read any, at first.
pub const FIRST_WINDOW: u32 = 256 * 1024;
/// The most that window grows to, while the program reads as fast as the peer sends.
pub const MAX_WINDOW: u32 = 4 * 1024 * 1024;
/// The window of a stream that is opened while the streams of the link may hold more than half of [`ALL_WINDOWS`].
pub const SMALL_WINDOW: u32 = EARLY_DATA;
/// Windows do not grow beyond this in all.
pub const ALL_WINDOWS: u64 = 64 * 1024 * 1024;
/// Pieces up to here share an allocation with the one before, so that small ones do not cost more than they hold.
const SMALL_PIECE: usize = 4 * 1024;
/// The most bytes of such an allocation.
const SHARED_PIECE: usize = 32 * 1024;
/// The round trip of a link that has not measured one yet, in microseconds.
const UNMEASURED: u64 = 1_000;

/// Streams that the peers of a node reset before they were of use.
pub(crate) struct ResetGuard {
    resets: Mutex<Resets>,
    refusals: LogLimit<NodeName>,
}

impl ResetGuard {
    /// Returns a guard that holds each peer to this rate.
    pub(crate) fn new(rate: Rate) -> Self {
        let refusals = LogLimit::new(1, Duration::from_secs(10));
        Self { resets: Mutex::new(Resets::new(rate)), refusals }
    }

    /// Returns true if a peer may open a stream: it has not reset too many before they were of use.
    fn may_open(&self, peer: &NodeName) -> bool {
        let mut resets = lock(&self.resets);
        if resets.is_empty() {
            return true;
        }
        let now = now().into_std();
        let may = resets.may_open(now, peer);
        drop(resets);
        if !may && let Some(suppressed) = self.refusals.allow(now, peer) {
            tracing::warn!(%peer, suppressed, "streams are refused: this peer reset too many before they were of use");
        }
        may
    }

    fn was_reset(&self, peer: &NodeName) {
        lock(&self.resets).reset(now().into_std(), peer);
    }
}

/// Returns which end opened the stream: 0 for even ids, 1 for odd ids.
fn half(id: u32) -> usize {
    (id % 2) as usize
}

/// The streams of a link.
pub(crate) struct Streams {
    /// Streams with even ids and those with odd ones: each end opens one kind.
    open: Mutex<[HashMap<u32, Arc<State>>; 2]>,
    next: AtomicU32,
    /// Bytes that the peer may send before they are read, in all.
    windows: AtomicU64,
    guard: Arc<ResetGuard>,
}

impl Streams {
    pub(crate) fn new(role: Role, guard: Arc<ResetGuard>) -> Self {
        Self { open: Mutex::default(), next: AtomicU32::new(first_stream(role)), windows: AtomicU64::new(0), guard }
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.open).iter().all(HashMap::is_empty)
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.open).iter().map(HashMap::len).sum()
    }

    fn get(&self, id: u32) -> Option<Arc<State>> {
        lock(&self.open)[half(id)].get(&id).cloned()
    }

    /// A window for a new stream.
    fn window(&self) -> u32 {
        let all = self.windows.load(Ordering::Relaxed);
        let window = if all > ALL_WINDOWS / 2 { SMALL_WINDOW } else { FIRST_WINDOW };
        self.windows.fetch_add(window.into(), Ordering::Relaxed);
        window
    }

    /// The link is down.
    pub(crate) fn end(&self, down: &Down) {
        let open = std::mem::take(&mut *lock(&self.open));
        for state in open.into_iter().flat_map(HashMap::into_values) {
            state.fail(StreamEnd::Down(down.clone()));
        }
    }

    /// Handles an event of a stream. Returns true if a link that goes away waits for more events of it: not for a link inside,
    /// which lasts.
    pub(crate) fn handle(
        &self,
        link: &Arc<Shared>,
        acceptor: impl FnOnce() -> Option<Arc<Acceptor>>,
        id: u32,
        event: StreamEvent<'_>,
    ) -> Result<bool, ProtocolError> {
        if let StreamEvent::Open { kind, timeout_ms, credit, data } = event {
            return self.wanted(link, acceptor, id, (kind, timeout_ms, credit), data).map(|()| false);
        }
        let Some(state) = self.get(id) else {
            let is_own = id % 2 == first_stream(link.info().role) % 2;
            if is_own && id >= self.next.load(Ordering::Relaxed) {
                return Err(ProtocolError("a stream was never opened"));
            }
            return Ok(false);
        };
        match event {
            StreamEvent::Data(bytes) => state.arrived(bytes)?,
            StreamEvent::Fin => {
                state.finished()?;
                self.tidy(&state);
            }
            StreamEvent::Credit(bytes) => {
                link.with_out(|out| out.outbox.credit_stream(id, bytes));
            }
            // It counts until whoever holds it lets go of it.
            StreamEvent::Reset { code } => {
                if id % 2 != first_stream(link.info().role) % 2 && !state.was_of_use() {
                    self.guard.was_reset(&link.info().peer);
                }
                state.fail(StreamEnd::Reset(StreamCode::from_byte(code)));
                link.with_out(|out| out.outbox.drop_stream(id));
            }
            StreamEvent::Opened { credit } => {
                let Some(opening) = lock(&state.read).opening.take() else {
                    return Err(ProtocolError("a stream is opened twice"));
                };
                // What was sent early counts.
                link.with_out(|out| out.outbox.credit_stream(id, credit.saturating_sub(EARLY_DATA)));
                let _ = opening.send(Ok(()));
            }
            StreamEvent::Refused { code, hop, text } => {
                let Some(opening) = lock(&state.read).opening.take() else {
                    return Err(ProtocolError("a stream is refused that is open"));
                };
                let code = StreamCode::from_byte(code);
                let hop = if hop.is_empty() { link.info().peer.to_string() } else { hop };
                state.fail(StreamEnd::Reset(code));
                self.remove(&state);
                link.with_out(|out| out.outbox.drop_stream(id));
                let _ = opening.send(Err(OpenError::Refused { hop, code, text }));
            }
            StreamEvent::Open { .. } => {}
        }
        Ok(state.kind != StreamKind::Proxied)
    }

    fn wanted(
        &self,
        link: &Arc<Shared>,
        acceptor: impl FnOnce() -> Option<Arc<Acceptor>>,
        id: u32,
        (kind, timeout_ms, credit): (u8, u32, u32),
        data: &[u8],
    ) -> Result<(), ProtocolError> {
        let (flooded, draining) = link.with_out(|out| (out.outbox.is_flooded(), out.outbox.is_draining()));
        if flooded {
            return Err(ProtocolError("streams are opened and their answers not read"));
        }
        let refuse = |code: StreamCode, text| {
            link.with_out(|out| out.outbox.refuse_stream(id, code.to_byte(), "", text));
        };
        if draining {
            refuse(StreamCode::GoingAway, "");
        } else if lock(&self.open)[half(id)].len() >= MAX_STREAMS {
            refuse(StreamCode::Overloaded, "4096 streams are open on this link");
        } else if !self.guard.may_open(&link.info().peer) {
            refuse(StreamCode::Overloaded, "too many streams were reset before they were of use; wait");
        } else {
            let state = State::new(id, StreamKind::from_byte(kind), EARLY_DATA, None);
            self.windows.fetch_add(EARLY_DATA.into(), Ordering::Relaxed);
            self.insert(state.clone());
            let (kind, timeout) = (state.kind, Duration::from_millis(timeout_ms.into()));
            let offer = Offer { link: link.clone(), state, credit };
            let incoming = Incoming::new(offer, kind, Bytes::copy_from_slice(data), timeout);
            if let Some(acceptor) = acceptor() {
                acceptor(incoming);
            }
        }
        Ok(())
    }

    fn insert(&self, state: Arc<State>) {
        lock(&self.open)[half(state.id)].insert(state.id, state);
    }

    /// Says whether it was there. One that is not over may still get a larger window, so let it end first.
    fn remove(&self, state: &State) -> bool {
        let removed = lock(&self.open)[half(state.id)].remove(&state.id).is_some();
        if removed {
            self.windows.fetch_sub(lock(&state.read).window.into(), Ordering::Relaxed);
        }
        removed
    }

    /// Forgets a stream that both ends are done with.
    fn tidy(&self, state: &State) {
        let read = lock(&state.read);
        let done = read.finished && read.written;
        drop(read);
        if done {
            self.remove(state);
        }
    }
}

/// State that the link and the holder of a stream share.
struct State {
    id: u32,
    kind: StreamKind,
    read: Mutex<Reading>,
}

struct Reading {
    pieces: VecDeque<BytesMut>,
    /// Bytes that the peer may still send.
    allowed: u64,
    window: u32,
    /// Bytes read since credit went back last, and the time of that.
    taken: u32,
    granted_us: u64,
    /// The peer finished.
    finished: bool,
    /// This end did.
    written: bool,
    end: Option<StreamEnd>,
    reader: Option<Waker>,
    /// Task that waits for an early end.
    watcher: Option<Waker>,
    /// A stream that the peer wanted was accepted, and the peer has sent something on it.
    accepted: bool,
    received: bool,
    opening: Option<oneshot::Sender<Result<(), OpenError>>>,
}

impl State {
    fn new(
        id: u32,
        kind: StreamKind,
        window: u32,
        opening: Option<oneshot::Sender<Result<(), OpenError>>>,
    ) -> Arc<Self> {
        let read = Reading {
            pieces: VecDeque::new(),
            allowed: window.into(),
            window,
            taken: 0,
            granted_us: clock_us(),
            finished: false,
            written: false,
            end: None,
            reader: None,
            watcher: None,
            accepted: false,
            received: false,
            opening,
        };
        Arc::new(Self { id, kind, read: Mutex::new(read) })
    }

    fn arrived(&self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let mut read = lock(&self.read);
        if read.end.is_some() {
            return Ok(());
        }
        if read.finished || read.opening.is_some() {
            return Err(ProtocolError("bytes come on a stream that is not open"));
        }
        read.received = true;
        let len = bytes.len() as u64;
        read.allowed = read.allowed.checked_sub(len).ok_or(ProtocolError("a stream's credit is overdrawn"))?;
        match read.pieces.back_mut() {
            Some(last) if bytes.len() <= SMALL_PIECE && last.len() + bytes.len() <= SHARED_PIECE => {
                last.extend_from_slice(bytes);
            }
            _ => read.pieces.push_back(bytes.into()),
        }
        wake(read.reader.take());
        Ok(())
    }

    fn finished(&self) -> Result<(), ProtocolError> {
        let mut read = lock(&self.read);
        if read.end.is_some() {
            return Ok(());
        }
        read.received = true;
        if std::mem::replace(&mut read.finished, true) || read.opening.is_some() {
            return Err(ProtocolError("a stream ends twice, or before it is open"));
        }
        wake(read.reader.take());
        Ok(())
    }

    fn fail(&self, end: StreamEnd) {
        let mut read = lock(&self.read);
        if let (StreamEnd::Down(down), Some(opening)) = (&end, read.opening.take()) {
            let _ = opening.send(Err(OpenError::Down(down.clone())));
        }
        read.end.get_or_insert(end);
        wake(read.reader.take());
        wake(read.watcher.take());
    }

    /// Returns true if the peer, which wanted this stream, had it accepted and sent something on it.
    fn was_of_use(&self) -> bool {
        let read = lock(&self.read);
        read.accepted && read.received
    }

    /// Waits for its end before its time: one that comes when the peer has written all it would does not count.
    fn poll_broken(&self, cx: &Context<'_>) -> Poll<StreamEnd> {
        let mut read = lock(&self.read);
        match &read.end {
            Some(end) if !read.finished => Poll::Ready(end.clone()),
            _ => {
                read.watcher = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A stream that a peer wants.
struct Offer {
    link: Arc<Shared>,
    state: Arc<State>,
    credit: u32,
}

impl StreamOffer for Offer {
    fn link_info(&self) -> &LinkInfo {
        self.link.info()
    }

    fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Also a peer that has sent all it would may want no answer any more.
        let mut read = lock(&self.state.read);
        read.watcher = Some(cx.waker().clone());
        if read.end.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn accept(self: Box<Self>) -> ByteStream {
        let Self { link, state, credit } = *self;
        let mut read = lock(&state.read);
        read.accepted = true;
        if read.end.is_none() {
            let window = link.streams.window();
            let more = window - std::mem::replace(&mut read.window, window);
            link.streams.windows.fetch_sub((window - more).into(), Ordering::Relaxed);
            read.allowed += u64::from(more);
            // Before the lock is given back: the peer's change of mind closes what is opened here.
            link.with_out(|out| {
                if out.closing.is_none() {
                    out.outbox.accept_stream(state.id, window, credit);
                }
            });
        }
        drop(read);
        ByteStream::new(NativeStream::new(link, state))
    }

    fn refuse(self: Box<Self>, hop: &str, code: StreamCode, text: &str) {
        let Self { link, state, .. } = *self;
        let wanted = lock(&state.read).end.is_none();
        if link.streams.remove(&state) && wanted {
            link.with_out(|out| {
                if out.closing.is_none() {
                    out.outbox.refuse_stream(state.id, code.to_byte(), hop, text);
                }
            });
        }
        link.stream_ended();
    }
}

/// Asks the peer of a link for a stream.
pub(crate) async fn open(
    link: &Arc<Shared>,
    kind: StreamKind,
    data: &[u8],
    first: First<'_>,
    timeout: Duration,
) -> Result<ByteStream, OpenError> {
    let (opening, answer) = oneshot::channel();
    let stream = {
        // One at a time, so that ids leave in order.
        let mut open = lock(&link.streams.open);
        if let Some(down) = link.down() {
            return Err(OpenError::Down(down));
        }
        let next = link.streams.next.load(Ordering::Relaxed);
        if open[half(next)].len() >= MAX_STREAMS || next >= u32::MAX - 2 {
            return Err(OpenError::TooMany);
        }
        let window = link.streams.window();
        let timeout_ms = timeout.as_millis().min(u32::MAX.into()) as u32;
        let state = State::new(next, kind, window, Some(opening));
        lock(&state.read).written = first.is_all;
        let opened = link.with_out(|out| {
            if out.closing.is_some() {
                return Err(());
            }
            out.outbox.open_stream(next, kind.to_byte(), timeout_ms, window, data).map_err(drop)?;
            out.outbox.write_stream(next, first.bytes, Waker::noop());
            if first.is_all {
                out.outbox.finish_stream(next);
            }
            Ok(())
        });
        if opened.is_err() {
            link.streams.windows.fetch_sub(window.into(), Ordering::Relaxed);
            return Err(OpenError::Draining);
        }
        link.streams.next.store(next + 2, Ordering::Relaxed);
        open[half(next)].insert(next, state.clone());
        ByteStream::new(NativeStream::new(link.clone(), state))
    };
    // The link may have gone down between the first look and the insertion.
    if let Some(down) = link.down() {
        link.streams.end(&down);
    }
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(Ok(()))) => Ok(stream),
        Ok(Ok(Err(refused))) => Err(refused),
        Ok(Err(_)) => {
            let gone = || Down::ConnectionLost("the request for a stream was dropped".into());
            Err(OpenError::Down(link.down().unwrap_or_else(gone)))
        }
        Err(_) => Err(OpenError::TimedOut(timeout)),
    }
}

/// One end of a stream of a native link.
struct NativeStream {
    link: Arc<Shared>,
    state: Arc<State>,
}

impl NativeStream {
    fn new(link: Arc<Shared>, state: Arc<State>) -> Self {
        // Windows grow by what a round trip takes.
        if link.counters.round_trip_us.load(Ordering::Relaxed) == 0 {
            link.ping();
        }
        Self { link, state }
    }

    /// Takes something, and says how much it was, from what arrived; `None` at the end.
    fn poll_with<T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut BytesMut) -> (usize, T),
    ) -> Poll<io::Result<Option<T>>> {
        let mut read = lock(&self.state.read);
        let Some(piece) = read.pieces.front_mut() else {
            return match &read.end {
                _ if read.finished => Poll::Ready(Ok(None)),
                Some(end) => Poll::Ready(Err(end.clone().into())),
                None => {
                    read.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        let (len, taken) = take(piece);
        if piece.is_empty() {
            read.pieces.pop_front();
        }
        self.credit(&mut read, len);
        Poll::Ready(Ok(Some(taken)))
    }

    /// Gives credit back at half a window, and a larger window to a peer that used the half within a round trip.
    fn credit(&self, read: &mut Reading, len: usize) {
        read.taken += len as u32;
        if read.taken < read.window / 2 || read.finished || read.end.is_some() {
            return;
        }
        let (now, rtt) = (clock_us(), self.link.counters.round_trip_us.load(Ordering::Relaxed));
        let elapsed = now.saturating_sub(std::mem::replace(&mut read.granted_us, now));
        let mut grant = std::mem::take(&mut read.taken);
        if elapsed <= if rtt == 0 { UNMEASURED } else { rtt } && read.window < MAX_WINDOW {
            let more = (MAX_WINDOW - read.window).min(read.window);
            let all = self.link.streams.windows.fetch_add(more.into(), Ordering::Relaxed);
            if all + u64::from(more) <= ALL_WINDOWS {
                read.window += more;
                grant += more;
            } else {
                self.link.streams.windows.fetch_sub(more.into(), Ordering::Relaxed);
            }
        }
        read.allowed += u64::from(grant);
        let id = self.state.id;
        self.link.with_out(|out| out.outbox.grant_stream(id, grant));
    }
}

impl StreamIo for NativeStream {
    fn link_info(&self) -> &LinkInfo {
        self.link.info()
    }

    fn poll_chunk(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_with(cx, |piece| {
            let len = piece.len().min(most.max(1));
            (len, if len == piece.len() { std::mem::take(piece) } else { piece.split_to(len) }.freeze())
        })
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        poll_fill(buf, |buf| {
            self.poll_with(cx, |piece| {
                let len = piece.len().min(buf.remaining());
                buf.put_slice(&piece[..len]);
                piece.advance(len);
                (len, ())
            })
        })
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut read = lock(&self.state.read);
        if !read.pieces.is_empty() || read.finished || read.end.is_some() {
            return Poll::Ready(());
        }
        read.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.state.poll_broken(cx).map(Into::into)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ended = lock(&self.state.read).end.is_some();
        let room = lock(&self.link.out).outbox.poll_stream(self.state.id, cx.waker());
        if ended || room.is_none_or(|room| room > 0) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let read = lock(&self.state.read);
        if let Some(end) = &read.end {
            return Poll::Ready(Err(end.clone().into()));
        }
        let written = read.written;
        drop(read);
        if written {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let id = self.state.id;
        match self.link.with_out(|out| out.outbox.write_stream(id, bytes, cx.waker())) {
            Some(0) if !bytes.is_empty() => Poll::Pending,
            Some(taken) => Poll::Ready(Ok(taken)),
            // It ended a moment ago.
            None => Poll::Ready(Err(lock(&self.state.read).end.clone().map_or_else(gone, Into::into))),
        }
    }

    fn finish(&self) -> io::Result<()> {
        let mut read = lock(&self.state.read);
        if let Some(end) = &read.end {
            return Err(end.clone().into());
        }
        read.written = true;
        drop(read);
        let id = self.state.id;
        self.link.with_out(|out| out.outbox.finish_stream(id));
        self.link.streams.tidy(&self.state);
        self.link.stream_ended();
        Ok(())
    }

    fn end(&self, code: StreamCode, behind: bool) {
        let id = self.state.id;
        let mut read = lock(&self.state.read);
        let (over, written) = (read.end.is_some() || (read.finished && read.written), read.written);
        read.end.get_or_insert(StreamEnd::Reset(code));
        read.opening = None;
        drop(read);
        self.link.streams.remove(&self.state);
        if !over {
            self.link.with_out(|out| {
                if out.closing.is_some() {
                } else if written || behind {
                    out.outbox.abandon_stream(id, code.to_byte());
                } else {
                    out.outbox.reset_stream(id, code.to_byte());
                }
            });
        }
        self.link.stream_ended();
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
