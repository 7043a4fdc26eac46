//! Streams of bytes on a link, as their users hold them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use trunkline_route::{AtomMapping, NodeName, Role};
use trunkline_wire::frame::ProtocolError;
use trunkline_wire::mux::{StreamEvent, first_stream};

use crate::link::{Down, LinkInfo, Shared, clock_us, now};
use crate::log_limit::LogLimit;
use crate::mailbox::lock;
use crate::rate::Rate;

mod codes;
mod resets;

pub(crate) use resets::RESETS;
use resets::Resets;

pub use codes::{OpenError, StreamCode, StreamKind};
pub use trunkline_wire::mux::{EARLY_DATA, MAX_STREAMS};

/// What a peer may send of a stream before the program read it, at first.
pub const FIRST_WINDOW: u32 = 256 * 1024;
/// Bytes that say what a stream is for, at most.
pub const MAX_OPEN_DATA: usize = 1024;
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

/// Called for each stream a peer wants; it is refused when the given [`Incoming`] is dropped. It runs in the link's task
/// and must not wait.
pub type Acceptor = dyn Fn(Incoming) + Send + Sync;

/// What a node does with streams its peers want.
pub(crate) struct Reception {
    acceptor: RwLock<Option<Arc<Acceptor>>>,
    resets: Mutex<Resets>,
    refusals: LogLimit<NodeName>,
}

impl Default for Reception {
    fn default() -> Self {
        let refusals = LogLimit::new(1, Duration::from_secs(10));
        Self { acceptor: RwLock::default(), resets: Mutex::default(), refusals }
    }
}

impl Reception {
    pub(crate) fn set(&self, acceptor: Option<Arc<Acceptor>>) {
        *self.acceptor.write().unwrap_or_else(std::sync::PoisonError::into_inner) = acceptor;
    }

    fn get(&self) -> Option<Arc<Acceptor>> {
        self.acceptor.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Sets how many streams each peer may reset before they are of use.
    pub(crate) fn limit_resets(&self, rate: Rate) {
        lock(&self.resets).rate = rate;
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

/// Whose an id is, among the two ends.
fn half(id: u32) -> usize {
    (id % 2) as usize
}

/// The streams of a link.
pub(crate) struct Streams {
    /// Those with even ids and those with odd ones: each end's own.
    open: Mutex<[HashMap<u32, Arc<State>>; 2]>,
    next: AtomicU32,
    /// What peers may send before it is read, in all.
    windows: AtomicU64,
}

impl Streams {
    pub(crate) fn new(role: Role) -> Self {
        Self { open: Mutex::default(), next: AtomicU32::new(first_stream(role)), windows: AtomicU64::new(0) }
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
            state.fail(End::Down(down.clone()));
        }
    }

    /// Something came for a stream. Says whether a link that goes away waits on for more of it: not for a link inside,
    /// which lasts.
    pub(crate) fn handle(
        &self,
        link: &Arc<Shared>,
        reception: &Reception,
        id: u32,
        event: StreamEvent<'_>,
    ) -> Result<bool, ProtocolError> {
        if let StreamEvent::Open { kind, deadline_ms, credit, data } = event {
            return self.wanted(link, reception, id, (kind, deadline_ms, credit), data).map(|()| false);
        }
        let Some(state) = self.get(id) else {
            let is_own = id % 2 == first_stream(link.info.role) % 2;
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
                if id % 2 != first_stream(link.info.role) % 2 && !state.was_of_use() {
                    reception.was_reset(&link.info.peer);
                }
                state.fail(End::Reset(StreamCode::from_byte(code)));
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
                let hop = if hop.is_empty() { link.info.peer.to_string() } else { hop };
                state.fail(End::Reset(code));
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
        reception: &Reception,
        id: u32,
        (kind, deadline_ms, credit): (u8, u32, u32),
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
        } else if !reception.may_open(&link.info.peer) {
            refuse(StreamCode::Overloaded, "too many streams were reset before they were of use; wait");
        } else {
            let state = State::new(id, StreamKind::from_byte(kind), EARLY_DATA, None);
            self.windows.fetch_add(EARLY_DATA.into(), Ordering::Relaxed);
            self.insert(state.clone());
            let incoming = Incoming {
                link: Some(link.clone()),
                state,
                data: Bytes::copy_from_slice(data),
                deadline: Duration::from_millis(deadline_ms.into()),
                credit,
            };
            if let Some(acceptor) = reception.get() {
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

/// How a stream ended before its time.
#[derive(Debug, Clone)]
enum End {
    Reset(StreamCode),
    Down(Down),
}

impl From<End> for io::Error {
    fn from(end: End) -> Self {
        match end {
            End::Reset(code) => Self::new(io::ErrorKind::ConnectionReset, code),
            End::Down(down) => Self::new(io::ErrorKind::ConnectionAborted, down),
        }
    }
}

/// What the link and the holder of a stream share.
struct State {
    id: u32,
    kind: StreamKind,
    read: Mutex<Reading>,
}

struct Reading {
    pieces: VecDeque<BytesMut>,
    /// What the peer may still send.
    allowed: u64,
    window: u32,
    /// What was read since credit went back last, and when that was.
    taken: u32,
    granted_us: u64,
    /// The peer finished.
    finished: bool,
    /// This end did.
    written: bool,
    end: Option<End>,
    reader: Option<Waker>,
    /// Who waits for its end before its time.
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

    fn fail(&self, end: End) {
        let mut read = lock(&self.read);
        if let (End::Down(down), Some(opening)) = (&end, read.opening.take()) {
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
    fn poll_broken(&self, cx: &Context<'_>) -> Poll<End> {
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

/// A stream that a peer wants. Dropped, it is refused as cancelled.
pub struct Incoming {
    link: Option<Arc<Shared>>,
    state: Arc<State>,
    data: Bytes,
    deadline: Duration,
    credit: u32,
}

impl Incoming {
    /// Who wants it.
    pub fn peer(&self) -> &NodeName {
        &self.link().info.peer
    }

    /// What names are called on its link.
    pub fn mapping(&self) -> Option<&Arc<AtomMapping>> {
        self.link().info.mapping.as_ref()
    }

    /// What kind it is.
    pub fn kind(&self) -> StreamKind {
        self.state.kind
    }

    /// What it is for; at most a frame of bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// For how long the peer waits for the answer.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// What was established with who wants it.
    pub fn link_info(&self) -> &LinkInfo {
        &self.link().info
    }

    fn link(&self) -> &Arc<Shared> {
        self.link.as_ref().expect("it is taken only by what consumes it")
    }

    /// Waits until whoever wants it wants it no more, or its link is down.
    pub async fn cancelled(&self) {
        // Also one that has sent all it would may want no answer any more.
        std::future::poll_fn(|cx| {
            let mut read = lock(&self.state.read);
            read.watcher = Some(cx.waker().clone());
            if read.end.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether nobody wants it any more.
    pub fn is_cancelled(&self) -> bool {
        lock(&self.state.read).end.is_some()
    }

    /// Opens it. If nobody wants it any more, it is broken from the beginning.
    pub fn accept(mut self) -> ByteStream {
        let link = self.link.take().expect("nothing took it before");
        let mut read = lock(&self.state.read);
        read.accepted = true;
        if read.end.is_none() {
            let window = link.streams.window();
            let more = window - std::mem::replace(&mut read.window, window);
            link.streams.windows.fetch_sub((window - more).into(), Ordering::Relaxed);
            read.allowed += u64::from(more);
            // Before the lock is given back: the peer's change of mind closes what is opened here.
            link.with_out(|out| {
                if out.closing.is_none() {
                    out.outbox.accept_stream(self.state.id, window, self.credit);
                }
            });
        }
        drop(read);
        ByteStream::new(link, self.state.clone())
    }

    /// Says why not.
    pub fn refuse(self, code: StreamCode, text: &str) {
        self.refuse_for("", code, text);
    }

    /// Says who refused it further on, and why.
    pub fn refuse_for(mut self, hop: &str, code: StreamCode, text: &str) {
        self.answer(hop, code, text);
    }

    fn answer(&mut self, hop: &str, code: StreamCode, text: &str) {
        let Some(link) = self.link.take() else { return };
        let wanted = lock(&self.state.read).end.is_none();
        if link.streams.remove(&self.state) && wanted {
            link.with_out(|out| {
                if out.closing.is_none() {
                    out.outbox.refuse_stream(self.state.id, code.to_byte(), hop, text);
                }
            });
        }
        link.stream_ended();
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.answer("", StreamCode::Cancelled, "");
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("kind", &self.kind()).field("data", &self.data).finish_non_exhaustive()
    }
}

/// What goes out with the request for a stream, before the peer has accepted it. When the request is refused, nobody has read
/// it; when the link goes down or the time is over before there is an answer, nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct First<'a> {
    /// At most [`EARLY_DATA`] bytes.
    pub bytes: &'a [u8],
    /// Whether that is all that will be written.
    pub is_all: bool,
}

/// Asks the peer of a link for a stream.
pub(crate) async fn open(
    link: &Arc<Shared>,
    kind: StreamKind,
    data: &[u8],
    first: First<'_>,
    deadline: Duration,
) -> Result<ByteStream, OpenError> {
    if data.len() > MAX_OPEN_DATA {
        return Err(OpenError::TooLong { len: data.len() });
    }
    if first.bytes.len() > EARLY_DATA as usize {
        return Err(OpenError::TooMuchAtFirst { len: first.bytes.len() });
    }
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
        let deadline_ms = deadline.as_millis().min(u32::MAX.into()) as u32;
        let state = State::new(next, kind, window, Some(opening));
        lock(&state.read).written = first.is_all;
        let opened = link.with_out(|out| {
            if out.closing.is_some() {
                return Err(());
            }
            out.outbox.open_stream(next, kind.to_byte(), deadline_ms, window, data).map_err(drop)?;
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
        ByteStream::new(link.clone(), state)
    };
    // The link may have gone down between the first look and the insertion.
    if let Some(down) = link.down() {
        link.streams.end(&down);
    }
    match tokio::time::timeout(deadline, answer).await {
        Ok(Ok(Ok(()))) => Ok(stream),
        Ok(Ok(Err(refused))) => Err(refused),
        Ok(Err(_)) => {
            let gone = || Down::ConnectionLost("the request for a stream was dropped".into());
            Err(OpenError::Down(link.down().unwrap_or_else(gone)))
        }
        Err(_) => Err(OpenError::TimedOut(deadline)),
    }
}

/// A stream of bytes to a peer and back, on a link that carries other things too.
///
/// What is written is flushed by itself. [`AsyncWrite::poll_shutdown`] ends this direction and leaves the other one
/// open. Dropped before both ends are done with it, it is reset as [`StreamCode::Cancelled`] behind what was written, as
/// [`ByteStream::reset_behind`] does.
pub struct ByteStream {
    link: Arc<Shared>,
    state: Arc<State>,
}

impl ByteStream {
    fn new(link: Arc<Shared>, state: Arc<State>) -> Self {
        // Windows grow by what a round trip takes.
        if link.counters.round_trip_us.load(Ordering::Relaxed) == 0 {
            link.ping();
        }
        Self { link, state }
    }

    /// The node at the other end of the link.
    pub fn peer(&self) -> &NodeName {
        &self.link.info.peer
    }

    /// What was established with the node at the other end of the link.
    pub fn link_info(&self) -> &LinkInfo {
        &self.link.info
    }

    /// The next bytes as they arrived, without copying them: at most `most`, which is at least 1; `None` at the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`] when the other end reset the stream, [`io::ErrorKind::ConnectionAborted`] when the
    /// link went down, both after what had arrived before.
    pub async fn read_chunk(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx, most)).await
    }

    /// Ready when the stream breaks off: the other end reset it, or the link went down, before the other end had written
    /// all it would. What had arrived can still be read. One task at a time can wait for that.
    pub fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.state.poll_broken(cx).map(Into::into)
    }

    /// As [`ByteStream::read_chunk`].
    ///
    /// # Errors
    /// As [`ByteStream::read_chunk`].
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>> {
        self.poll_with(cx, |piece| {
            let len = piece.len().min(most.max(1));
            (len, if len == piece.len() { std::mem::take(piece) } else { piece.split_to(len) }.freeze())
        })
    }

    /// Waits until [`ByteStream::try_read`] is worth a try.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let mut read = lock(&self.state.read);
            if !read.pieces.is_empty() || read.finished || read.end.is_some() {
                return Poll::Ready(());
            }
            read.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        Ok(())
    }

    /// Reads what is there; [`io::ErrorKind::WouldBlock`] when nothing is.
    pub(crate) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut all = 0;
        while all < bytes.len() {
            let taken = self.poll_with(&mut Context::from_waker(Waker::noop()), |piece| {
                let len = piece.len().min(bytes.len() - all);
                piece.copy_to_slice(&mut bytes[all..all + len]);
                (len, len)
            });
            match taken {
                Poll::Ready(Ok(Some(len))) => all += len,
                // What was copied already comes first.
                _ if all > 0 => break,
                Poll::Ready(Ok(None)) => return Ok(0),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
        Ok(all)
    }

    /// Waits until [`ByteStream::try_write`] is worth a try.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        let id = self.state.id;
        std::future::poll_fn(|cx| {
            let ended = lock(&self.state.read).end.is_some();
            let room = lock(&self.link.out).outbox.poll_stream(id, cx.waker());
            if ended || room.is_none_or(|room| room > 0) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(())
    }

    /// Writes what goes at once; [`io::ErrorKind::WouldBlock`] when nothing does.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.poll_write_from(Waker::noop(), bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll_write_from(&self, writer: &Waker, bytes: &[u8]) -> Poll<io::Result<usize>> {
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
        match self.link.with_out(|out| out.outbox.write_stream(id, bytes, writer)) {
            Some(0) if !bytes.is_empty() => Poll::Pending,
            Some(taken) => Poll::Ready(Ok(taken)),
            // It ended a moment ago.
            None => Poll::Ready(Err(lock(&self.state.read).end.clone().map_or_else(gone, Into::into))),
        }
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

    /// Ends the stream at once in both directions and tells the peer why. What was written and not sent yet is discarded.
    pub fn reset(self, code: StreamCode) {
        self.end(code, false);
    }

    /// Ends the stream in both directions and tells the peer why, behind everything that was written: the peer reads all
    /// of it before it sees the error.
    pub fn reset_behind(self, code: StreamCode) {
        self.end(code, true);
    }

    fn end(&self, code: StreamCode, behind: bool) {
        let id = self.state.id;
        let mut read = lock(&self.state.read);
        let (over, written) = (read.end.is_some() || (read.finished && read.written), read.written);
        read.end.get_or_insert(End::Reset(code));
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

impl Drop for ByteStream {
    fn drop(&mut self) {
        self.end(StreamCode::Cancelled, true);
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").field("peer", self.peer()).field("id", &self.state.id).finish()
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut first = true;
        loop {
            let room = buf.remaining();
            let taken = self.poll_with(cx, |piece| {
                let len = piece.len().min(room);
                buf.put_slice(&piece[..len]);
                piece.advance(len);
                (len, ())
            });
            match taken {
                Poll::Ready(Ok(Some(_))) if buf.remaining() > 0 => first = false,
                // What was copied already comes first.
                Poll::Pending | Poll::Ready(Err(_)) if !first => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_from(cx.waker(), buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut read = lock(&self.state.read);
        if let Some(end) = &read.end {
            return Poll::Ready(Err(end.clone().into()));
        }
        read.written = true;
        drop(read);
        let id = self.state.id;
        self.link.with_out(|out| out.outbox.finish_stream(id));
        self.link.streams.tidy(&self.state);
        self.link.stream_ended();
        Poll::Ready(Ok(()))
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
