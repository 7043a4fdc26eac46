//! The task that moves the bytes of one link.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_route::{CloseCode, LinkPolicy};
use trunkline_stack::{Down, DownHook, Hooks, Mailboxes};

use crate::carrier::{READ, Stream};
use crate::link::Shared;
use crate::receiver::{Broken, Receiver};
use crate::shell::{later, lock, now};

/// Bytes handed to TLS before the socket is tried.
const WRITE_AHEAD: usize = 64 * 1024;
/// Longest wait for the end of a closed link, so that the last word is not cut off by a reset.
const LINGER: Duration = Duration::from_secs(1);

/// An end that reads nothing, as a [`Hold`] makes it, says so often that it lives: its peer may be asked by a caller of
/// its name whether it does, and has a second to find out.
const HELD_PING: Duration = Duration::from_millis(400);

/// Times by which a link watches its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// A ping goes out when nothing came for so long. Default 5 s.
    pub idle: Duration,
    /// The link is given up when nothing came for so long. Default 15 s.
    pub dead: Duration,
    /// Longest time that a link that is going away waits without progress: no message is written or
    /// read, and no credit comes. Default 10 s. What could not be written by then is lost, and the end is [`CloseCode::Timeout`]; when
    /// only calls or the peer's own GOAWAY are missing, it is [`CloseCode::GoingAway`].
    pub drain: Duration,
}

/// The shortest silence before a ping: below it the pings of two ends would be a load of their own.
pub(crate) const MIN_IDLE: Duration = Duration::from_millis(100);
/// The shortest silence after which a link is given up: no peer can be asked and answer reliably in less.
pub(crate) const MIN_DEAD_AFTER: Duration = Duration::from_secs(1);

impl KeepAlive {
    /// Returns these times with those that a policy sets.
    pub(crate) fn under(self, policy: &LinkPolicy) -> Self {
        let dead = policy.dead_after.map_or(self.dead, |dead| dead.max(MIN_DEAD_AFTER));
        Self { idle: policy.keep_alive.unwrap_or(self.idle), dead, ..self }
    }

    /// Returns these times for a link to a peer that gives it up after `peer_dead`: each end pings so often that neither
    /// gives up an end that lives.
    pub(crate) fn towards(self, peer_dead: Duration) -> Self {
        let dead = self.dead.min(peer_dead.max(MIN_DEAD_AFTER));
        Self { idle: self.idle.min(dead / 3).max(MIN_IDLE), ..self }
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(5), dead: Duration::from_secs(15), drain: Duration::from_secs(10) }
    }
}

/// The task of one link.
pub(crate) struct Task {
    stream: Stream,
    shared: Arc<Shared>,
    receiver: Receiver,
    keep_alive: KeepAlive,
    down: DownGuard,
    heard: Instant,
    pinged: bool,
    /// Time at which a hold ends, done or not.
    hold_until: Option<Instant>,
    /// Time at which a link that goes away ends, finished or not, unless there is progress.
    drain_until: Option<Instant>,
    /// Messages sent by the last look of the timer: none since means that buffers can go.
    sent: u64,
    /// The socket takes no more for now.
    blocked: bool,
    /// The last read was as large as a read can be: more is there, and the mailboxes go first.
    full_read: bool,
}

impl Task {
    pub(crate) fn new(
        mut stream: Stream,
        plain: &[u8],
        shared: Arc<Shared>,
        mailboxes: Arc<Mailboxes>,
        keep_alive: KeepAlive,
        hooks: Hooks,
    ) -> Self {
        // What is handed to TLS is bounded here, by WRITE_AHEAD.
        stream.tls.set_buffer_limit(None);
        Self {
            stream,
            receiver: Receiver::new(plain, shared.clone(), mailboxes, hooks.on_first_frame, hooks.hold),
            keep_alive,
            down: DownGuard { shared: shared.clone(), on_down: hooks.on_down, told: false },
            shared,
            heard: now(),
            pinged: false,
            hold_until: None,
            drain_until: None,
            sent: 0,
            blocked: false,
            full_read: false,
        }
    }

    /// Runs until the link is down and says so, whatever happens to this task. Boxed: a future keeps room for an
    /// argument twice.
    pub(crate) async fn run(mut self: Box<Self>) {
        let down = self.drive().await;
        // Whichever end says the last word of an orderly end, the one that wanted it is the one that closed.
        let told = match &down {
            Down::ClosedHere(code) if *code != CloseCode::Timeout && self.receiver.peer_went_first() => {
                Down::ClosedByPeer { code: *code, text: String::new() }
            }
            Down::ClosedByPeer { code, .. } if self.receiver.peer_agreed(*code) => Down::ClosedHere(*code),
            down => down.clone(),
        };
        self.down.tell(&told);
        let _ = tokio::time::timeout(LINGER, self.say_goodbye(&down)).await;
    }

    async fn drive(&mut self) -> Down {
        if let Err(down) = self.read(true) {
            return down;
        }
        let shared = self.shared.clone();
        let timer = tokio::time::sleep_until(self.next_timer());
        tokio::pin!(timer);
        loop {
            let more = match self.step() {
                Ok(more) => more,
                Err(down) => return down,
            };
            // Rearmed only when it must come earlier: while bytes flow it fires once per period and looks again.
            let due = self.next_timer();
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            let held = self.receiver.is_held();
            if std::mem::take(&mut self.full_read) {
                tokio::task::yield_now().await;
            }
            tokio::select! {
                biased;
                ready = self.stream.carrier.readable(), if !held => {
                    if let Err(down) = ready.map_err(lost).and_then(|()| self.read(false)) {
                        return down;
                    }
                }
                () = tokio::task::yield_now(), if more => {}
                ready = self.stream.carrier.writable(), if self.blocked => {
                    if let Err(e) = ready {
                        return lost(e);
                    }
                }
                () = shared.wake.notified() => {}
                () = async { if let Some(hold) = self.receiver.hold() { hold.await } }, if held => {
                    if let Err(down) = self.resume() {
                        return down;
                    }
                }
                () = &mut timer => {
                    if let Err(down) = self.on_timer() {
                        return down;
                    }
                    timer.as_mut().reset(self.next_timer());
                }
            }
        }
    }

    /// Writes what there is and decides whether the link has come to its end. Says whether there is more to write.
    fn step(&mut self) -> Result<bool, Down> {
        let more = self.write().map_err(lost)?;
        if self.receiver.withholds() {
            self.receiver.settle()?;
        }
        if self.receiver.is_held() && self.hold_until.is_none() {
            self.hold_until = Some(later(now(), self.keep_alive.drain));
            self.shared.held.store(true, Ordering::Relaxed);
        }
        let shared = &self.shared;
        let out = lock(&shared.out);
        if let Some(code) = out.closing {
            return Err(Down::ClosedHere(code));
        }
        if out.outbox.is_draining() {
            // An answer is queued and counted under this lock, so none can slip through in between.
            let written = out.outbox.is_empty() && !self.blocked;
            let answered = shared.unanswered.load(Ordering::Acquire) == 0;
            drop(out);
            let idle = written && answered && shared.streams.is_empty() && !shared.state.has_calls();
            if let Some(code) = self.receiver.peer_gone().filter(|_| idle) {
                return Err(Down::ClosedHere(code));
            }
            let until = *self.drain_until.get_or_insert_with(|| later(now(), self.keep_alive.drain));
            if now() >= until && !self.stays() {
                return Err(Down::ClosedHere(if written { CloseCode::GoingAway } else { CloseCode::Timeout }));
            }
        }
        Ok(more)
    }

    /// Writes as much as goes at once. Says whether there is more and the socket would take it.
    fn write(&mut self) -> io::Result<bool> {
        if self.flush()? {
            let (mut ahead, mut done, mut lane) = (0, None, false);
            while ahead < WRITE_AHEAD {
                let chunk = {
                    let mut out = lock(&self.shared.out);
                    while let Some((id, bytes)) = out.outbox.next_due() {
                        // Noted before it is written: the peer may use it at once.
                        self.receiver.granted_mailbox(id, bytes);
                        out.outbox.grant_mailbox(id, bytes);
                    }
                    if let Some(done) = done.take() {
                        out.outbox.recycle(done);
                    }
                    lane |= out.outbox.has_messages();
                    let chunk = out.outbox.take();
                    out.scheduled = chunk.is_some();
                    self.shared.note_behind(&out);
                    chunk
                };
                let Some(chunk) = chunk else { break };
                ahead += chunk.len();
                self.stream.tls.writer().write_all(&chunk)?;
                done = Some(chunk);
            }
            if let Some(done) = done {
                lock(&self.shared.out).outbox.recycle(done);
            }
            if lane {
                self.moved();
            }
            if ahead > 0 {
                return Ok(self.flush()? && ahead >= WRITE_AHEAD);
            }
        }
        Ok(false)
    }

    /// Notes progress of something that a link that goes away waits for. Pings do not count: they come as long as the peer
    /// lives.
    fn moved(&mut self) {
        if let Some(until) = &mut self.drain_until {
            *until = later(now(), self.keep_alive.drain);
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        let (all, written) = self.stream.write_ready()?;
        if written > 0 && self.blocked {
            self.moved();
        }
        self.shared.counters.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
        self.blocked = !all;
        Ok(all)
    }

    /// Reads once; at `first`, only what came with the handshake.
    fn read(&mut self, first: bool) -> Result<(), Down> {
        let receiver = &mut self.receiver;
        let result = if first {
            receiver.take(&[]).map_err(Broken::from).and_then(|()| {
                self.stream.drain::<Broken>(&mut |chunk| Ok(receiver.take(chunk)?))?;
                Ok(None)
            })
        } else {
            self.stream.read_ready::<Broken>(READ, |chunk| Ok(receiver.take(chunk)?))
        };
        if receiver.settle()? {
            self.moved();
        }
        match result {
            Ok(None) => Ok(()),
            Ok(Some(0)) => Err(Down::ConnectionLost("the stream ended without a close".into())),
            Ok(Some(n)) => {
                self.heard = now();
                self.pinged = false;
                self.full_read = n == READ;
                self.shared.heard(n, self.heard);
                Ok(())
            }
            Err(broken) => Err(broken.into()),
        }
    }

    /// The hold is over: takes what was read and kept.
    fn resume(&mut self) -> Result<(), Down> {
        self.hold_until = None;
        self.shared.held.store(false, Ordering::Relaxed);
        let result = self.receiver.resume();
        self.receiver.settle()?;
        self.heard = now();
        result.map_err(|broken| Broken::from(broken).into())
    }

    /// Returns true if a link that goes away has no end set: a link that gave way to another one stays for its streams,
    /// which cannot move.
    fn stays(&self) -> bool {
        self.shared.state.going() == Some(CloseCode::Superseded) && !self.shared.streams.is_empty()
    }

    fn held_pace(&self) -> Duration {
        self.keep_alive.idle.min(HELD_PING)
    }

    fn next_timer(&self) -> Instant {
        let silence = match self.pinged {
            _ if self.receiver.is_held() => self.held_pace(),
            true => self.keep_alive.dead,
            false => self.keep_alive.idle,
        };
        let watch = later(self.heard, silence);
        let drain_until = self.drain_until.filter(|_| !self.stays());
        [self.hold_until, drain_until].into_iter().flatten().fold(watch, Instant::min)
    }

    fn on_timer(&mut self) -> Result<(), Down> {
        let now = now();
        {
            // The peer's pings keep us from pinging, so an idle link is not known by that.
            let mut out = lock(&self.shared.out);
            if std::mem::replace(&mut self.sent, out.messages) == out.messages {
                out.outbox.shrink();
            }
        }
        if self.hold_until.is_some_and(|until| now >= until) {
            return self.resume();
        }
        if self.receiver.is_held() {
            // Nothing is read, so nothing is known of the peer; it shall still hear from us.
            if now >= later(self.heard, self.held_pace()) {
                self.heard = now;
                self.shared.ping();
            }
            return Ok(());
        }
        if now >= later(self.heard, self.keep_alive.dead) {
            return Err(Down::Silent(self.keep_alive.dead));
        }
        if now >= later(self.heard, self.keep_alive.idle) && !self.pinged {
            self.pinged = true;
            self.shared.ping();
        }
        Ok(())
    }

    /// Says why, and waits a moment for the peer's end so that nothing is cut off.
    async fn say_goodbye(&mut self, down: &Down) -> io::Result<()> {
        let word = match down {
            Down::ClosedHere(code) => Some((*code, "")),
            Down::ProtocolError(text) => Some((CloseCode::ProtocolError, *text)),
            Down::Silent(_) => Some((CloseCode::Timeout, "")),
            _ => None,
        };
        if let Some((code, text)) = word {
            lock(&self.shared.out).outbox.close(code.to_byte(), text);
            while self.write()? || self.blocked {
                self.stream.carrier.writable().await?;
            }
        }
        self.stream.tls.send_close_notify();
        while !self.flush()? {
            self.stream.carrier.writable().await?;
        }
        self.stream.carrier.shutdown().await?;
        if word.is_some() {
            self.stream.discard().await?;
        }
        Ok(())
    }
}

fn lost(error: io::Error) -> Down {
    Down::ConnectionLost(error.to_string())
}

/// Reports the end even when the task is dropped, before its first step or later, or panics.
struct DownGuard {
    shared: Arc<Shared>,
    on_down: Option<DownHook>,
    told: bool,
}

impl DownGuard {
    fn tell(&mut self, down: &Down) {
        if !std::mem::replace(&mut self.told, true) {
            self.shared.set_down(down);
            if let Some(on_down) = self.on_down.take() {
                on_down(down, self.shared.state.going());
            }
        }
    }
}

impl Drop for DownGuard {
    fn drop(&mut self) {
        self.tell(&Down::ClosedHere(CloseCode::GoingAway));
    }
}
