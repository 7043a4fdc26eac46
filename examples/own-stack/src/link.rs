//! A link of `TOY`. Frames are a line and, for those that name a length last, as many bytes:
//! `MSG to from length`, `CALL id to from milliseconds length`, `ANSWER id ok length`, `ANSWER id failed length`, `BYE`.
//! An empty name is written as `-`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use trunkline::stack::{
    Batch, BoxFuture, CreditSink, Hooks, Link, LinkState, Mailboxes, Reply, ReplyTo, Sender, StackLink, Transport,
};
use trunkline::{
    ByteStream, CallError, CloseCode, Down, First, Flag, How, LinkInfo, LinkStats, Message, NodeName, OpenError,
    Replier, SendError, Sent, StreamCode, StreamKind,
};

use crate::toy::words;

/// Messages that may wait unread at the peer, of each mailbox.
const WINDOW: u64 = 1_000;
const MAX_MESSAGE: usize = 1 << 20;

/// One end of a link.
pub struct ToyLink {
    state: LinkState,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    /// Messages that wait at the peer, by mailbox.
    waiting: Mutex<HashMap<String, u64>>,
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

impl ToyLink {
    /// Returns the link over a transport on which the handshake is done, and the future that moves its frames.
    pub fn start(
        over: Transport,
        info: LinkInfo,
        mailboxes: Arc<Mailboxes>,
        hooks: Hooks,
    ) -> (Link, BoxFuture<'static, ()>) {
        let (frames, mut outgoing) = mpsc::unbounded_channel::<Vec<u8>>();
        let link = Arc::new(Self { state: LinkState::new(info), frames, waiting: Mutex::default() });
        let (mut read, mut write) = tokio::io::split(over);
        let end = End { link: link.clone(), hooks, down: Down::ConnectionLost("the transport ended".into()) };
        let driver = Box::pin(async move {
            let mut end = end;
            let writing = async {
                while let Some(frame) = outgoing.recv().await {
                    write.write_all(&frame).await?;
                    if frame == b"BYE\n" {
                        return Ok(());
                    }
                }
                Ok::<(), std::io::Error>(())
            };
            let down = tokio::select! {
                down = read_frames(&mut end.hooks, &end.link, &mut read, &mailboxes) => Some(down),
                _ = writing => end.link.state.going().map(Down::ClosedHere),
            };
            if let Some(down) = down {
                end.down = down;
            }
        });
        (Link::new(link), driver)
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
        if how != How::default() {
            return Err(SendError::Unsupported(Flag::Priorities));
        }
        let mut waiting = self.waiting.lock().unwrap();
        let waits = waiting.entry(to.to_owned()).or_default();
        if *waits >= WINDOW {
            return Err(SendError::Full);
        }
        *waits += 1;
        Ok(())
    }

    fn deliver(self: &Arc<Self>, mailboxes: &Mailboxes, to: &str, from: &str, body: Vec<u8>, call: Option<Replier>) {
        let info = self.state.info();
        let sender = Sender { node: info.peer.clone(), name: name(from).into(), mapping: None, flags: info.flags };
        let account = Account { link: self.clone(), mailbox: to.to_owned() };
        let mut batch = Batch::new(Arc::new(account), 0, 1);
        batch.push(Message::new(Arc::new(sender), body.into(), How::default(), call));
        match mailboxes.find(to) {
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
        state.notify_changed();
    }
}

async fn read_frames(
    hooks: &mut Hooks,
    link: &Arc<ToyLink>,
    read: &mut ReadHalf<Transport>,
    mailboxes: &Mailboxes,
) -> Down {
    if let Some(hold) = hooks.hold.take() {
        hold.await;
    }
    loop {
        let Ok(line) = words(read).await else { return Down::ConnectionLost("the transport ended".into()) };
        if let Some(hold) = hooks.on_first_frame.take().and_then(|first| first()) {
            hold.await;
        }
        let mut body = Vec::new();
        if matches!(line[0].as_str(), "MSG" | "CALL" | "ANSWER") {
            let len = line.last().and_then(|len| len.parse().ok()).filter(|len| *len <= MAX_MESSAGE);
            let Some(len) = len else { return Down::ProtocolError("a length is wrong") };
            body.resize(len, 0);
            if read.read_exact(&mut body).await.is_err() {
                return Down::ConnectionLost("the transport ended".into());
            }
        }
        match line.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["MSG", to, from, _] => link.deliver(mailboxes, to, from, body, None),
            ["CALL", id, to, from, timeout, _] => {
                let (Ok(id), Ok(timeout)) = (id.parse(), timeout.parse()) else {
                    return Down::ProtocolError("a number is wrong");
                };
                link.deliver(mailboxes, to, from, body, Some(Replier::new(link.clone(), id, timeout)));
            }
            ["ANSWER", id, how, _] => {
                let Ok(id) = id.parse() else { return Down::ProtocolError("a number is wrong") };
                let answer = match how {
                    "ok" => Ok(Reply { body: body.into(), is_term: false }),
                    "none" => Err(CallError::NoMailbox),
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
            ["PING"] => {}
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
        match answer {
            Ok(reply) => self.say(format!("ANSWER {id} ok {}\n", reply.body.len()), &reply.body),
            Err(text) => {
                let text = text.unwrap_or_else(|| "the call was dropped".into());
                self.say(format!("ANSWER {id} failed {}\n", text.len()), text.as_bytes());
            }
        }
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
        self.reserve(to, from, body, how)?;
        self.say(format!("MSG {to} {} {}\n", word(from), body.len()), body);
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
        self.reserve(to, from, body, how)?;
        let timeout = timeout.as_millis().min(u32::MAX.into());
        self.say(format!("CALL {id} {to} {} {timeout} {}\n", word(from), body.len()), body);
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
        // Nothing is waited for: a toy.
        self.close(code);
    }

    fn close(&self, code: CloseCode) {
        self.state.set_going(code);
        self.say("BYE\n".into(), &[]);
    }

    fn ping(&self) {
        self.say("PING\n".into(), &[]);
    }

    fn heard_within(&self, _: Duration) -> bool {
        self.state.down().is_none()
    }

    fn probe(&self, _: Duration) -> BoxFuture<'_, bool> {
        Box::pin(async { self.state.down().is_none() })
    }

    fn stats(&self) -> LinkStats {
        LinkStats::default()
    }
}
