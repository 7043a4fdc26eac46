//! A link of `TOY`. Frames are a line and, for those that name a length last, as many bytes:
//! `MSG to from kind length`, `CALL id to from milliseconds kind length`, `ANSWER id kind length`, `TAKEN to messages`,
//! `PING`, `PONG`, `BYE`. The kind is `bytes` or `term`, and of an answer also `none` (no mailbox), `dropped` or `failed`.
//! An empty name is written as `-`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use trunkline::stack::{
    Batch, BoxFuture, CreditSink, Hold, Hooks, Link, LinkState, Mailboxes, Reply, ReplyTo, Sender, StackLink, Transport,
};
use trunkline::{
    ByteStream, CallError, CloseCode, Down, First, Flag, How, LinkInfo, LinkStats, Message, NodeName, OpenError,
    Replier, SendError, Sent, StreamCode, StreamKind,
};

use crate::toy::words;

/// Messages that may wait unread at the peer, of each mailbox.
const WINDOW: u64 = 1_000;
const MAX_MESSAGE: usize = 1 << 20;
/// Longest time that reading is held back.
const HOLD: Duration = Duration::from_secs(5);
/// Time between two pings of an end that reads nothing. Its peer allows 1 second to a probe.
const HELD_PING: Duration = Duration::from_millis(400);
/// Longest time in which a link that is closed writes what is queued.
const LAST_WORD: Duration = Duration::from_secs(1);

fn lost() -> Down {
    Down::ConnectionLost("the transport ended".into())
}

/// One end of a link.
pub struct ToyLink {
    state: LinkState,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    /// Messages that wait at the peer, by mailbox.
    waiting: Mutex<HashMap<String, u64>>,
    /// Time at which the last frame came.
    heard: Mutex<Instant>,
    /// Reading waits for a hold, so nothing can be known of the peer.
    held: AtomicBool,
}

/// Credit of one mailbox of this end, which the peer is told of.
struct Account {
    link: Arc<ToyLink>,
    mailbox: String,
}

impl CreditSink for Account {
    fn peer(&self) -> &NodeName {
        &self.link.state.info().peer
    }

    fn taken(&self, _: u16, messages: u64, _: u64) {
        self.link.say(format!("TAKEN {} {messages}\n", self.mailbox), &[]);
    }
}

fn word(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

fn name(word: &str) -> &str {
    if word == "-" { "" } else { word }
}

fn kind(is_term: bool) -> &'static str {
    if is_term { "term" } else { "bytes" }
}

impl ToyLink {
    /// Returns the link over a transport on which the handshake is done, and the future that moves its frames.
    pub fn start(
        over: Transport,
        info: LinkInfo,
        mailboxes: Arc<Mailboxes>,
        hooks: Hooks,
    ) -> (Link, BoxFuture<'static, ()>) {
        let (frames, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
        let link = Arc::new(Self {
            state: LinkState::new(info),
            frames,
            waiting: Mutex::default(),
            heard: Mutex::new(Instant::now()),
            held: AtomicBool::new(false),
        });
        let (mut read, mut write) = tokio::io::split(over);
        let end = End { link: link.clone(), hooks, down: Down::ClosedHere(CloseCode::GoingAway) };
        let driver = Box::pin(async move {
            let mut end = end;
            let state = &end.link.state;
            let writing = async {
                while let Some(frame) = outgoing.recv().await {
                    if write.write_all(&frame).await.is_err() {
                        break;
                    }
                    if let Some(code) = state.going().filter(|_| frame == b"BYE\n") {
                        return Down::ClosedHere(code);
                    }
                }
                lost()
            };
            let too_late = async {
                let code = state.until(|| state.going()).await;
                tokio::time::sleep(LAST_WORD).await;
                Down::ClosedHere(code)
            };
            end.down = tokio::select! {
                down = read_frames(&mut end.hooks, &end.link, &mut read, &mailboxes) => down,
                down = writing => down,
                down = too_late => down,
            };
        });
        (Link::new(link), driver)
    }

    /// Returns the name by which the peer is told of a local one.
    fn there<'n>(&'n self, name: &'n str) -> &'n str {
        self.state.info().mapping.as_ref().and_then(|mapping| mapping.to_peer(name)).map_or(name, |there| there)
    }

    /// Returns the local name for one of the peer.
    fn here<'n>(&'n self, name: &'n str) -> &'n str {
        self.state.info().mapping.as_ref().and_then(|mapping| mapping.from_peer(name)).map_or(name, |here| here)
    }

    /// Waits for a hold. Meanwhile this end reads nothing, and tells the peer that it lives.
    async fn wait_for(&self, hold: Hold) {
        self.held.store(true, Ordering::SeqCst);
        self.state.notify_changed();
        let pinging = async {
            loop {
                tokio::time::sleep(HELD_PING).await;
                self.ping();
            }
        };
        tokio::select! {
            () = hold => {}
            () = tokio::time::sleep(HOLD) => {}
            () = pinging => {}
        }
        self.held.store(false, Ordering::SeqCst);
    }

    fn say(&self, line: String, body: &[u8]) {
        let _ = self.frames.send([line.as_bytes(), body].concat());
    }

    fn reserve(&self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), SendError> {
        if let Some(down) = self.state.down() {
            return Err(SendError::Down(down.clone()));
        }
        if !self.state.is_open() {
            return Err(SendError::Draining);
        }
        let is_bad = |name: &str| name.len() > 255 || name == "-" || name.contains(char::is_whitespace);
        if to.is_empty() || is_bad(to) || is_bad(from) {
            return Err(SendError::BadName);
        }
        if body.len() > MAX_MESSAGE {
            return Err(SendError::TooLarge { len: body.len(), limit: MAX_MESSAGE });
        }
        if how.high || how.important {
            let flag = if how.high { Flag::Priorities } else { Flag::ImportantDelivery };
            return Err(SendError::Unsupported(flag));
        }
        let mut waiting = self.waiting.lock().unwrap();
        let waits = waiting.entry(to.to_owned()).or_default();
        if *waits >= WINDOW {
            return Err(SendError::Full);
        }
        *waits += 1;
        Ok(())
    }

    fn deliver(self: &Arc<Self>, mailboxes: &Mailboxes, to: &str, from: &str, content: Reply, call: Option<Replier>) {
        let (info, name) = (self.state.info(), self.here(name(from)).into());
        let sender = Sender { node: info.peer.clone(), name, mapping: info.mapping.clone(), flags: info.flags };
        let account = Account { link: self.clone(), mailbox: to.to_owned() };
        let mut batch = Batch::new(Arc::new(account), 0, 1);
        let how = How { term: content.is_term, ..How::default() };
        batch.push(Message::new(Arc::new(sender), content.body, how, call));
        match mailboxes.find(self.here(to)) {
            Some(queue) => drop(queue.push(batch).map_err(Batch::refuse)),
            None => drop(batch.refuse()),
        }
    }
}

/// The end of a link, told to its owner when the driver is done or dropped.
struct End {
    link: Arc<ToyLink>,
    hooks: Hooks,
    down: Down,
}

impl Drop for End {
    fn drop(&mut self) {
        let state = &self.link.state;
        state.set_down(&self.down);
        if let Some(on_down) = self.hooks.on_down.take() {
            on_down(&self.down, state.going());
        }
    }
}

async fn read_frames(
    hooks: &mut Hooks,
    link: &Arc<ToyLink>,
    read: &mut ReadHalf<Transport>,
    mailboxes: &Mailboxes,
) -> Down {
    if let Some(hold) = hooks.hold.take() {
        link.wait_for(hold).await;
    }
    loop {
        let Ok(line) = words(read).await else { return lost() };
        *link.heard.lock().unwrap() = Instant::now();
        link.state.notify_changed();
        if let Some(hold) = hooks.on_first_frame.take().and_then(|first| first()) {
            link.wait_for(hold).await;
        }
        let mut body = Vec::new();
        if let Some("MSG" | "CALL" | "ANSWER") = line.first().map(String::as_str) {
            let len = line.last().and_then(|len| len.parse().ok()).filter(|len| *len <= MAX_MESSAGE);
            let Some(len) = len else { return Down::ProtocolError("a length is wrong") };
            body.resize(len, 0);
            if read.read_exact(&mut body).await.is_err() {
                return lost();
            }
        }
        let content = |kind, body: Vec<u8>| Reply { body: body.into(), is_term: kind == "term" };
        match line.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["MSG", to, from, kind, _] => link.deliver(mailboxes, to, from, content(kind, body), None),
            ["CALL", id, to, from, timeout, kind, _] => {
                let (Ok(id), Ok(timeout)) = (id.parse(), timeout.parse()) else {
                    return Down::ProtocolError("a number is wrong");
                };
                let replier = Replier::new(link.clone(), id, timeout);
                link.deliver(mailboxes, to, from, content(kind, body), Some(replier));
            }
            ["ANSWER", id, kind, _] => {
                let Ok(id) = id.parse() else { return Down::ProtocolError("a number is wrong") };
                let answer = match kind {
                    "bytes" | "term" => Ok(content(kind, body)),
                    "none" => Err(CallError::NoMailbox),
                    "dropped" => Err(CallError::Dropped),
                    _ => Err(CallError::Failed(String::from_utf8_lossy(&body).into_owned())),
                };
                link.state.answered(id, answer);
            }
            ["TAKEN", to, messages] => {
                if let (Some(waits), Ok(read)) = (link.waiting.lock().unwrap().get_mut(to), messages.parse()) {
                    *waits = waits.saturating_sub(read);
                }
                link.state.notify_credit();
            }
            ["PING"] => link.say("PONG\n".into(), &[]),
            ["PONG"] => {}
            ["BYE"] => return Down::ClosedByPeer { code: CloseCode::Normal, text: String::new() },
            _ => return Down::ProtocolError("a frame is not known"),
        }
    }
}

impl ReplyTo for ToyLink {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn reply(&self, id: u32, answer: Result<Reply, Option<String>>) {
        let (kind, body) = match answer {
            Ok(Reply { body, .. }) if body.len() > MAX_MESSAGE => ("failed", "the answer is too large".into()),
            Ok(Reply { body, is_term }) => (kind(is_term), body),
            Err(Some(text)) => ("failed", text.into()),
            Err(None) => ("dropped", trunkline::Bytes::new()),
        };
        self.say(format!("ANSWER {id} {kind} {}\n", body.len()), &body);
    }

    fn no_mailbox(&self, id: u32) {
        self.say(format!("ANSWER {id} none 0\n"), &[]);
    }
}

impl StackLink for ToyLink {
    fn state(&self) -> &LinkState {
        &self.state
    }

    fn try_send(&self, to: &str, from: &str, body: &[u8], how: How) -> Result<(), SendError> {
        self.state.check_names(to, from);
        let (to, from) = (self.there(to), self.there(from));
        self.reserve(to, from, body, how)?;
        self.say(format!("MSG {to} {} {} {}\n", word(from), kind(how.term), body.len()), body);
        Ok(())
    }

    fn try_call(
        self: Arc<Self>,
        id: u32,
        to: &str,
        from: &str,
        body: &[u8],
        timeout: Duration,
        how: How,
    ) -> Result<(), SendError> {
        self.state.check_names(to, from);
        let (to, from) = (self.there(to), self.there(from));
        self.reserve(to, from, body, how)?;
        let timeout = timeout.as_millis().min(u32::MAX.into());
        self.say(format!("CALL {id} {to} {} {timeout} {} {}\n", word(from), kind(how.term), body.len()), body);
        Ok(())
    }

    fn send_important<'a>(
        self: Arc<Self>,
        _: &'a str,
        _: &'a str,
        _: trunkline::Bytes,
    ) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(async { Err(SendError::Unsupported(Flag::ImportantDelivery)) })
    }

    fn open<'a>(
        self: Arc<Self>,
        _: StreamKind,
        _: &'a [u8],
        _: First<'a>,
        _: Duration,
    ) -> BoxFuture<'a, Result<ByteStream, OpenError>> {
        let hop = self.state.info().peer.to_string();
        let refused = OpenError::Refused { hop, code: StreamCode::NoService, text: "TOY has no streams".into() };
        Box::pin(async { Err(refused) })
    }

    fn go_away(&self, code: CloseCode) {
        // A link that loses nothing waits here for the calls under way.
        self.close(code);
    }

    fn close(&self, code: CloseCode) {
        self.state.set_going(code);
        self.state.notify_changed();
        self.say("BYE\n".into(), &[]);
    }

    fn ping(&self) {
        self.say("PING\n".into(), &[]);
    }

    fn heard_within(&self, time: Duration) -> bool {
        self.heard.lock().unwrap().elapsed() <= time
    }

    fn probe(&self, timeout: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let asked = Instant::now();
            self.ping();
            let answer = self.state.until(|| {
                let is_up = self.state.down().is_none();
                let is_held = self.held.load(Ordering::SeqCst);
                let is_alive = is_up && (is_held || *self.heard.lock().unwrap() > asked);
                (is_alive || !is_up).then_some(is_alive)
            });
            tokio::time::timeout(timeout, answer).await.unwrap_or(false)
        })
    }

    fn stats(&self) -> LinkStats {
        LinkStats::default()
    }
}
