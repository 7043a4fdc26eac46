//! The task that moves the bytes of one link. The only place of the crate, with `native`, that reads the clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::frame::{self, Decoder, Flow, ProtocolError};
use crate::handshake::CloseCode;
use crate::link::{CallError, Down, Shared};
use crate::mailbox::{Batch, Directory, Message, Origin, Queue, Replier, lock};
use crate::mux::{Class, Inbound, Sink, Status, keep};

/// Bytes read from the socket at once, into a buffer of the thread: an idle link owns none.
const READ: usize = 64 * 1024;
/// Bytes handed to TLS before the socket is tried.
const WRITE_AHEAD: usize = 128 * 1024;
/// How long the end of a closed link is awaited, so that the last word is not cut off by a reset.
const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

#[expect(clippy::disallowed_methods, reason = "this task is the shell that brings the time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How a link keeps watch over its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// A ping goes out when nothing came for so long. Default 5 s.
    pub idle: Duration,
    /// The link is given up when nothing came for so long. Default 15 s.
    pub dead: Duration,
    /// How long a link that is going away may take to finish. Default 10 s.
    pub drain: Duration,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(5), dead: Duration::from_secs(15), drain: Duration::from_secs(10) }
    }
}

/// A future that holds reading back until it is done, so that order is kept across a replaced link.
pub type Hold = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Called with the first frame; reading goes on when the future it gives is done.
pub type FirstFrameHook = Box<dyn FnOnce() -> Option<Hold> + Send>;
/// Called when the link is down.
pub type DownHook = Box<dyn FnOnce(&Down) + Send>;

/// What the owner of a link wants to be told, each at most once.
#[derive(Default)]
pub struct Hooks {
    /// The first frame came: the peer uses the link. Reading goes on when the returned future is done.
    pub on_first_frame: Option<FirstFrameHook>,
    /// Reading begins when this is done (or after the drain time).
    pub hold: Option<Hold>,
    /// The link is down; called exactly once.
    pub on_down: Option<DownHook>,
}

/// A socket and its TLS, without buffers of our own.
pub(crate) struct Stream {
    pub(crate) tcp: TcpStream,
    pub(crate) tls: rustls::Connection,
}

struct Writer<'a>(&'a TcpStream);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    /// Writes what TLS has ready. `Ok(true)`: all of it; `Ok(false)`: the socket is full.
    pub(crate) fn write_ready(&mut self) -> io::Result<(bool, usize)> {
        let mut written = 0;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Writer(&self.tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok((false, written)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok((true, written))
    }

    /// Reads once and hands the plain text to `take` chunk by chunk. `Ok(None)`: nothing to read now;
    /// `Ok(Some(0))`: the stream ended.
    pub(crate) fn read_ready<E: From<io::Error> + From<rustls::Error>>(
        &mut self,
        limit: usize,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Option<usize>, E> {
        SCRATCH.with_borrow_mut(|scratch| {
            let n = match self.tcp.try_read(&mut scratch[..limit.min(READ)]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e.into()),
            };
            let mut rest = &scratch[..n];
            while !rest.is_empty() {
                let used = self.tls.read_tls(&mut rest as &mut dyn Read)?;
                self.tls.process_new_packets()?;
                self.drain(&mut take)?;
                if used == 0 {
                    return Ok(Some(0));
                }
            }
            Ok(Some(n))
        })
    }

    /// Hands over the plain text TLS holds.
    pub(crate) fn drain<E: From<io::Error>>(&mut self, take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut reader = self.tls.reader();
        loop {
            let len = match reader.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(chunk) => {
                    take(chunk)?;
                    chunk.len()
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            reader.consume(len);
        }
    }
}

/// Why reading stopped.
enum Broken {
    Io(io::Error),
    Tls(rustls::Error),
    Protocol(ProtocolError),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustls::Error> for Broken {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<ProtocolError> for Broken {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<Broken> for Down {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Io(e) => Self::ConnectionLost(e.to_string()),
            Broken::Tls(e) => Self::ConnectionLost(format!("TLS: {e}")),
            Broken::Protocol(e) => Self::ProtocolError(e.0),
        }
    }
}

/// A name the peer bound.
struct Target {
    name: Arc<str>,
    queue: Option<Arc<Queue>>,
    origin: Option<Arc<Origin>>,
}

/// The receiving side: everything frames act upon.
struct Receiver {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    targets: Vec<Target>,
    nobody: Arc<Origin>,
    batch: Option<Batch>,
    /// Link credit used since it was last given back.
    used: [u64; 2],
    goodbye: Option<(CloseCode, String)>,
    peer_gone: Option<CloseCode>,
    messages: u64,
}

impl Receiver {
    fn origin(&mut self, id: u16) -> Arc<Origin> {
        if id == 0 {
            return self.nobody.clone();
        }
        let node = &self.shared.info.peer;
        let target = &mut self.targets[usize::from(id)];
        let make = || Arc::new(Origin { node: node.clone(), name: target.name.clone() });
        target.origin.get_or_insert_with(make).clone()
    }

    fn push(&mut self, to: u16, message: Message) {
        match &mut self.batch {
            Some(batch) if batch.mailbox_id == to => batch.messages.push_back(message),
            _ => {
                self.flush();
                self.batch = Some(Batch {
                    messages: VecDeque::from([message]),
                    source: self.shared.clone(),
                    mailbox_id: to,
                    taken: 0,
                });
            }
        }
    }

    /// Hands the batch to its mailbox; what nobody takes is counted, and calls in it are answered.
    fn flush(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        let target = &mut self.targets[usize::from(batch.mailbox_id)];
        if target.queue.as_ref().is_none_or(|queue| queue.is_closed()) {
            target.queue = self.directory.find(&target.name);
        }
        let refused = match &target.queue {
            Some(queue) => queue.push(batch).err(),
            None => Some(batch),
        };
        let Some(mut batch) = refused else { return };
        for message in batch.messages.drain(..) {
            self.shared.counters.undeliverable.fetch_add(1, Ordering::Relaxed);
            let (body, call) = message.into_parts();
            batch.taken += crate::mux::cost(body.len());
            if let Some(mut call) = call {
                call.answer(Status::NoService, bytes::Bytes::new());
            }
        }
    }

    fn count(&mut self, class: Class, len: usize) {
        self.messages += 1;
        self.used[class as usize] += crate::mux::cost(len);
    }
}

impl Sink for Receiver {
    fn bind(&mut self, id: u16, name: &str) {
        debug_assert_eq!(usize::from(id), self.targets.len());
        self.targets.push(Target { name: name.into(), queue: None, origin: None });
    }

    fn message(&mut self, to: u16, from: u16, body: &[u8], high: bool) {
        self.count(Class::Messages, body.len());
        let origin = self.origin(from);
        self.push(to, Message::new(origin, keep(body), high));
    }

    fn call(&mut self, id: u32, to: u16, from: u16, deadline_ms: u32, body: &[u8]) {
        self.count(Class::Messages, body.len());
        self.shared.unanswered.fetch_add(1, Ordering::AcqRel);
        let origin = self.origin(from);
        let replier = Replier::new(self.shared.clone(), id, deadline_ms);
        self.push(to, Message::call(origin, keep(body), replier));
    }

    fn reply(&mut self, id: u32, status: Status, body: &[u8]) {
        self.count(Class::Replies, body.len());
        self.shared.answered(
            id,
            match status {
                Status::Ok => Ok(keep(body)),
                Status::NoService => Err(CallError::NoService),
                Status::Dropped => Err(CallError::Dropped),
                Status::Failed => Err(CallError::Failed(String::from_utf8_lossy(body).into_owned())),
            },
        );
    }

    fn credit(&mut self, class: Class, bytes: u32) {
        self.shared.credit(class, bytes);
    }

    fn credit_mailbox(&mut self, id: u32, bytes: u32) {
        self.shared.credit_mailbox(id, bytes);
    }

    fn ping(&mut self, payload: [u8; 16]) {
        self.shared.with_out(|out| out.outbox.ping(frame::PONG, &payload));
    }

    fn pong(&mut self, payload: [u8; 16]) {
        let (_, sent) = payload.split_at(8);
        let sent = u64::from_be_bytes(sent.try_into().unwrap_or_default());
        if sent != 0 {
            let us = clock_us().saturating_sub(sent).max(1);
            self.shared.counters.round_trip_us.store(us, Ordering::Relaxed);
        }
    }

    fn go_away(&mut self, code: CloseCode, _: String) {
        self.flush();
        self.peer_gone = Some(code);
        // The other direction finishes too; this is the answer.
        self.shared.with_out(|out| out.outbox.go_away(code.to_byte(), ""));
        self.shared.set_inbound_done();
    }

    fn close(&mut self, code: CloseCode, text: String) {
        self.goodbye = Some((code, text));
    }
}

/// Microseconds of a clock that only this process reads, never 0.
fn clock_us() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(now).elapsed().as_micros() as u64 + 1
}

/// The task of one link.
pub(crate) struct Task {
    stream: Stream,
    receiver: Receiver,
    inbound: Inbound,
    decoder: Decoder,
    keep_alive: KeepAlive,
    on_first_frame: Option<FirstFrameHook>,
    on_down: Option<DownHook>,
    hold: Option<Hold>,
    heard: Instant,
    pinged: bool,
    /// When the end must have come: a drain, or the wait for the hold.
    deadline: Option<Instant>,
    blocked: bool,
}

impl Task {
    pub(crate) fn new(
        stream: Stream,
        plain: Vec<u8>,
        shared: Arc<Shared>,
        directory: Arc<Directory>,
        keep_alive: KeepAlive,
        hooks: Hooks,
    ) -> Self {
        let mut decoder = Decoder::default();
        decoder.keep(&plain);
        let nobody = Arc::new(Origin { node: shared.info.peer.clone(), name: "".into() });
        let inbound = Inbound::new(shared.own_window);
        let receiver = Receiver {
            shared,
            directory,
            targets: vec![Target { name: "".into(), queue: None, origin: None }],
            nobody,
            batch: None,
            used: [0; 2],
            goodbye: None,
            peer_gone: None,
            messages: 0,
        };
        Self {
            stream,
            receiver,
            inbound,
            decoder,
            keep_alive,
            on_first_frame: hooks.on_first_frame,
            on_down: hooks.on_down,
            hold: hooks.hold,
            heard: now(),
            pinged: false,
            deadline: None,
            blocked: false,
        }
    }

    /// Runs until the link is down and says so, whatever happens to this task.
    pub(crate) async fn run(mut self) {
        let mut guard = DownGuard { shared: self.receiver.shared.clone(), on_down: self.on_down.take(), down: None };
        let down = self.drive().await;
        guard.down = Some(down.clone());
        drop(guard);
        self.say_goodbye(&down).await;
    }

    async fn drive(&mut self) -> Down {
        if self.hold.is_some() {
            self.deadline = Some(now() + self.keep_alive.drain);
        }
        // What came together with the last handshake message.
        if let Err(broken) = self.first() {
            return broken.into();
        }
        loop {
            if let Some(down) = self.step() {
                return down;
            }
            let holding = self.hold.is_some();
            let timer = tokio::time::sleep_until(self.next_timer());
            tokio::pin!(timer);
            let shared = self.receiver.shared.clone();
            tokio::select! {
                biased;
                ready = self.stream.tcp.readable(), if !holding => {
                    if let Err(e) = ready {
                        return Down::ConnectionLost(e.to_string());
                    }
                    match self.read() {
                        Ok(()) => {}
                        Err(down) => return down,
                    }
                }
                ready = self.stream.tcp.writable(), if self.blocked => {
                    if let Err(e) = ready {
                        return Down::ConnectionLost(e.to_string());
                    }
                    self.blocked = false;
                }
                () = shared.wake.notified(), if !self.blocked => {}
                () = async { if let Some(hold) = &mut self.hold { hold.await } }, if holding => {
                    if let Err(down) = self.resume() {
                        return down;
                    }
                }
                () = &mut timer => {
                    if let Err(down) = self.on_timer() {
                        return down;
                    }
                }
            }
        }
    }

    /// Writes what there is and decides whether the link has come to its end.
    fn step(&mut self) -> Option<Down> {
        if !self.blocked
            && let Err(e) = self.write()
        {
            return Some(Down::ConnectionLost(e.to_string()));
        }
        let shared = &self.receiver.shared;
        let out = lock(&shared.out);
        if let Some(code) = out.closing {
            return Some(Down::ClosedHere(code));
        }
        if out.outbox.is_draining() {
            let drained = out.outbox.is_empty();
            drop(out);
            let deadline = *self.deadline.get_or_insert_with(|| now() + self.keep_alive.drain);
            let idle = drained && !shared.calls_pending() && shared.unanswered.load(Ordering::Acquire) == 0;
            if let Some(code) = self.receiver.peer_gone.filter(|_| idle) {
                return Some(Down::ClosedHere(code));
            }
            if now() >= deadline {
                return Some(Down::ClosedHere(CloseCode::GoingAway));
            }
        }
        None
    }

    fn write(&mut self) -> io::Result<()> {
        let shared = self.receiver.shared.clone();
        loop {
            let mut ahead = 0;
            while ahead < WRITE_AHEAD {
                let chunk = {
                    let mut out = lock(&shared.out);
                    for (id, bytes) in out.outbox.take_due() {
                        self.inbound.granted_mailbox(id, bytes);
                        out.outbox.grant_mailbox(id, bytes);
                    }
                    let chunk = out.outbox.take();
                    if chunk.is_none() {
                        out.scheduled = false;
                    }
                    chunk
                };
                let Some(chunk) = chunk else { break };
                ahead += chunk.len();
                self.stream.tls.writer().write_all(&chunk)?;
                lock(&shared.out).outbox.recycle(chunk);
            }
            let (done, written) = self.stream.write_ready()?;
            shared.counters.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
            if !done {
                self.blocked = true;
                return Ok(());
            }
            if ahead == 0 {
                return Ok(());
            }
        }
    }

    /// Takes plain text that TLS already holds.
    fn first(&mut self) -> Result<(), Broken> {
        let (decoder, inbound, receiver) = (&mut self.decoder, &mut self.inbound, &mut self.receiver);
        let (first_frame, hold) = (&mut self.on_first_frame, &mut self.hold);
        if decoder.is_mid_frame() {
            decode(decoder, inbound, receiver, first_frame, hold, &[])?;
        }
        self.stream.drain(&mut |chunk| decode(decoder, inbound, receiver, first_frame, hold, chunk))?;
        self.receiver.flush();
        Ok(())
    }

    fn read(&mut self) -> Result<(), Down> {
        let (decoder, inbound, receiver) = (&mut self.decoder, &mut self.inbound, &mut self.receiver);
        let (first_frame, hold) = (&mut self.on_first_frame, &mut self.hold);
        let result = self
            .stream
            .read_ready::<Broken>(READ, |chunk| decode(decoder, inbound, receiver, first_frame, hold, chunk));
        self.after_frames();
        if let Some((code, text)) = self.receiver.goodbye.take() {
            return Err(Down::ClosedByPeer { code, text });
        }
        match result {
            Ok(None) => Ok(()),
            Ok(Some(0)) => Err(Down::ConnectionLost("the stream ended without a close".into())),
            Ok(Some(n)) => {
                self.heard = now();
                self.pinged = false;
                self.receiver.shared.counters.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
                if self.hold.is_some() && self.deadline.is_none() {
                    self.deadline = Some(self.heard + self.keep_alive.drain);
                }
                Ok(())
            }
            Err(broken) => Err(broken.into()),
        }
    }

    /// Delivers what the read brought and gives link credit back.
    fn after_frames(&mut self) {
        self.receiver.flush();
        let shared = &self.receiver.shared;
        shared.counters.messages_in.fetch_add(std::mem::take(&mut self.receiver.messages), Ordering::Relaxed);
        for class in [Class::Messages, Class::Replies] {
            let used = &mut self.receiver.used[class as usize];
            if *used >= shared.own_window.link / 4 {
                let bytes = std::mem::take(used).min(u32::MAX.into()) as u32;
                self.inbound.granted(class, bytes);
                shared.with_out(|out| out.outbox.grant(class, bytes));
            }
        }
    }

    /// The hold is over: takes what was read and kept.
    fn resume(&mut self) -> Result<(), Down> {
        self.hold = None;
        self.deadline = None;
        let (decoder, inbound, receiver) = (&mut self.decoder, &mut self.inbound, &mut self.receiver);
        let (first_frame, hold) = (&mut self.on_first_frame, &mut self.hold);
        let result = decode(decoder, inbound, receiver, first_frame, hold, &[]);
        self.after_frames();
        if let Some((code, text)) = self.receiver.goodbye.take() {
            return Err(Down::ClosedByPeer { code, text });
        }
        self.heard = now();
        result.map_err(Down::from)
    }

    fn next_timer(&self) -> Instant {
        let watch = self.heard + if self.pinged { self.keep_alive.dead } else { self.keep_alive.idle };
        self.deadline.map_or(watch, |deadline| deadline.min(watch))
    }

    fn on_timer(&mut self) -> Result<(), Down> {
        let now = now();
        if self.hold.is_some() && self.deadline.is_some_and(|deadline| now >= deadline) {
            return self.resume();
        }
        if self.hold.is_some() {
            self.heard = now;
            return Ok(());
        }
        if now >= self.heard + self.keep_alive.dead {
            return Err(Down::Silent(self.keep_alive.dead));
        }
        if now >= self.heard + self.keep_alive.idle && !self.pinged {
            self.pinged = true;
            let mut payload = [0; 16];
            payload[8..].copy_from_slice(&clock_us().to_be_bytes());
            self.receiver.shared.with_out(|out| {
                out.outbox.shrink();
                out.outbox.ping(frame::PING, &payload);
            });
        }
        Ok(())
    }

    /// Says why, and waits a moment for the peer's end so that nothing is cut off.
    async fn say_goodbye(mut self, down: &Down) {
        let code = match down {
            Down::ClosedHere(code) => *code,
            Down::ProtocolError(_) => CloseCode::ProtocolError,
            Down::Silent(_) => CloseCode::Timeout,
            Down::ClosedByPeer { .. } | Down::ConnectionLost(_) => CloseCode::Unspecified,
        };
        if code != CloseCode::Unspecified {
            let text = match down {
                Down::ProtocolError(text) => text,
                _ => "",
            };
            lock(&self.receiver.shared.out).outbox.close(code.to_byte(), text);
        }
        let last_word = async {
            if code != CloseCode::Unspecified {
                loop {
                    self.blocked = false;
                    self.write()?;
                    if !self.blocked {
                        break;
                    }
                    self.stream.tcp.writable().await?;
                }
            }
            self.stream.tls.send_close_notify();
            while !self.stream.write_ready()?.0 {
                self.stream.tcp.writable().await?;
            }
            tokio::io::AsyncWriteExt::shutdown(&mut self.stream.tcp).await?;
            if !matches!(down, Down::ClosedByPeer { .. }) {
                loop {
                    self.stream.tcp.readable().await?;
                    let end = SCRATCH.with_borrow_mut(|scratch| self.stream.tcp.try_read(scratch));
                    match end {
                        Ok(0) => break,
                        Err(e) if e.kind() != io::ErrorKind::WouldBlock => break,
                        _ => {}
                    }
                }
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(LINGER, last_word).await;
    }
}

fn decode(
    decoder: &mut Decoder,
    inbound: &mut Inbound,
    receiver: &mut Receiver,
    first_frame: &mut Option<FirstFrameHook>,
    hold: &mut Option<Hold>,
    chunk: &[u8],
) -> Result<(), Broken> {
    if receiver.goodbye.is_some() {
        return Ok(());
    }
    if hold.is_some() {
        decoder.keep(chunk);
        return Ok(());
    }
    let _paused: Flow = decoder.feed(chunk, |header, payload| {
        if let Some(hook) = first_frame.take() {
            *hold = hook();
        }
        let flow = inbound.frame(header, payload, receiver)?;
        Ok(if hold.is_some() { Flow::Break(()) } else { flow })
    })?;
    Ok(())
}

/// Reports the end even when the task is dropped or panics.
struct DownGuard {
    shared: Arc<Shared>,
    on_down: Option<DownHook>,
    down: Option<Down>,
}

impl Drop for DownGuard {
    fn drop(&mut self) {
        let down = self.down.take().unwrap_or(Down::ClosedHere(CloseCode::GoingAway));
        self.shared.set_down(down.clone());
        if let Some(on_down) = self.on_down.take() {
            on_down(&down);
        }
    }
}
