//! Incoming half of a link: frames into mailboxes, answers to their callers, credit to the senders.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use trunkline_route::{CloseCode, How};
use trunkline_stack::{
    Batch, CallError, Down, FirstFrameHook, Hold, Mailboxes, Message, Queue, Replier, Reply, Sender, log_connection,
};
use trunkline_wire::frame::{self, Decoder, Flow, Header, ProtocolError};
use trunkline_wire::important::{Arrival, Outcome};
use trunkline_wire::mux::{BodyArena, Class, Inbound, Sink, Status, StreamEvent, cost};

use crate::account::ImportantLink;
use crate::link::Shared;
use crate::shell::{clock_us, lock};

/// Reason why reading stopped.
pub(crate) enum Broken {
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

/// The reading half of a link: bytes in, effects out. Holds back what comes while it is held.
pub(crate) struct Receiver {
    decoder: Decoder,
    inbound: Inbound,
    effects: Effects,
    on_first_frame: Option<FirstFrameHook>,
    hold: Option<Hold>,
    /// Bytes of answers that may wait for the peer while it is still granted credit for calls: one window of
    /// answers and one message, which an honest peer lets out as it reads. What waits in all stays below this and
    /// the answers to calls already granted.
    backlog: u64,
    withheld: bool,
}

impl Receiver {
    /// `plain` is what came together with the last handshake message.
    pub(crate) fn new(
        plain: &[u8],
        shared: Arc<Shared>,
        mailboxes: Arc<Mailboxes>,
        on_first_frame: Option<FirstFrameHook>,
        hold: Option<Hold>,
    ) -> Self {
        let mut decoder = Decoder::default();
        decoder.keep(plain);
        let nobody = Arc::new(Sender {
            node: shared.info().peer.clone(),
            name: "".into(),
            mapping: shared.info().mapping.clone(),
            flags: shared.info().flags,
        });
        let window = shared.own_window;
        Self {
            decoder,
            backlog: window.link.saturating_add(window.max_message as u64),
            withheld: false,
            inbound: Inbound::new(shared.own_window, shared.info().flags, shared.info().role),
            effects: Effects {
                shared,
                mailboxes,
                targets: vec![Target { name: "".into(), queue: None, origin: None }],
                nobody,
                batch: None,
                seqs: Vec::new(),
                outcomes: Vec::new(),
                broken: None,
                keeper: BodyArena::default(),
                batch_len: 1,
                used: [0; 2],
                goodbye: None,
                peer_gone: None,
                peer_went_first: false,
                messages: 0,
                credited: false,
            },
            on_first_frame,
            hold,
        }
    }

    /// Takes plain text. Call [`Receiver::settle`] after the last chunk of a read.
    pub(crate) fn take(&mut self, mut chunk: &[u8]) -> Result<(), ProtocolError> {
        if self.effects.goodbye.is_some() {
            return Ok(());
        }
        if self.hold.is_none() && self.on_first_frame.is_some() {
            self.decoder.keep(chunk);
            chunk = &[];
            if !self.decoder.has_frame() {
                return Ok(());
            }
            self.hold = self.on_first_frame.take().and_then(|hook| hook());
        }
        if self.hold.is_some() {
            self.decoder.keep(chunk);
            return Ok(());
        }
        let (inbound, effects) = (&mut self.inbound, &mut self.effects);
        let _over: Flow =
            self.decoder.feed(chunk, |header: Header, payload| inbound.frame(header, payload, effects))?;
        Ok(())
    }

    /// Link credit is due to the peer and not given while too much waits for it: settle again when bytes left.
    pub(crate) fn withholds(&self) -> bool {
        self.withheld
    }

    /// Delivers what the last read brought and gives link credit back. Says whether there was more than pings; an
    /// error is the peer's last word.
    pub(crate) fn settle(&mut self) -> Result<bool, Down> {
        let effects = &mut self.effects;
        effects.flush();
        effects.keeper.rest();
        if !effects.outcomes.is_empty() {
            let outcomes = std::mem::take(&mut effects.outcomes);
            effects.shared.with_out(|out| out.outbox.outcomes(false, &outcomes));
        }
        if let Some(broken) = effects.broken.take() {
            return Err(Broken::from(broken).into());
        }
        let shared = &effects.shared;
        let messages = std::mem::take(&mut effects.messages);
        shared.counters.messages_in.fetch_add(messages, Ordering::Relaxed);
        for class in [Class::Messages, Class::Replies] {
            let used = &mut effects.used[class as usize];
            if *used > 0 && *used >= shared.own_window.link / 4 {
                // A peer that calls and lets no answer out gets no credit for further calls; never so for answers,
                // or two such ends would wait for each other.
                if class == Class::Messages {
                    self.withheld = lock(&shared.out).outbox.is_backlogged(self.backlog);
                    if self.withheld {
                        continue;
                    }
                }
                let bytes = (*used).min(u32::MAX.into()) as u32;
                *used -= u64::from(bytes);
                // Noted before it is written: the peer may use it at once.
                self.inbound.granted(class, bytes);
                shared.with_out(|out| out.outbox.grant(class, bytes));
            }
        }
        match effects.goodbye.take() {
            Some((code, text)) => Err(Down::ClosedByPeer { code, text }),
            None => Ok(std::mem::take(&mut effects.credited) || messages > 0),
        }
    }

    /// Mailbox credit is about to go back.
    pub(crate) fn granted_mailbox(&mut self, id: u16, bytes: u32) {
        self.inbound.granted_mailbox(id, bytes);
    }

    /// Returns why the peer goes away, if it does.
    pub(crate) fn peer_gone(&self) -> Option<CloseCode> {
        self.effects.peer_gone
    }

    /// Returns true if the peer wanted to leave before this end did.
    pub(crate) fn peer_went_first(&self) -> bool {
        self.effects.peer_went_first
    }

    /// Returns true if this end wanted to leave before the peer did, and the peer answered so with this code.
    pub(crate) fn peer_agreed(&self, code: CloseCode) -> bool {
        !self.effects.peer_went_first && self.effects.peer_gone == Some(code)
    }

    /// Returns the hold that reading waits for.
    pub(crate) fn hold(&mut self) -> Option<&mut Hold> {
        self.hold.as_mut()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Ends the hold and takes what was kept.
    pub(crate) fn resume(&mut self) -> Result<(), ProtocolError> {
        self.hold = None;
        self.take(&[])
    }
}

/// A name the peer bound.
struct Target {
    name: Arc<str>,
    queue: Option<Arc<Queue>>,
    origin: Option<Arc<Sender>>,
}

/// State that frames act upon.
struct Effects {
    shared: Arc<Shared>,
    mailboxes: Arc<Mailboxes>,
    targets: Vec<Target>,
    nobody: Arc<Sender>,
    batch: Option<Batch>,
    /// The numbers of the messages in an important batch; a batch is important as a whole or not at all.
    seqs: Vec<u64>,
    /// Outcomes to be told after this read.
    outcomes: Vec<(u64, Outcome)>,
    broken: Option<ProtocolError>,
    keeper: BodyArena,
    /// Length of the last batch: the next one will be about as long.
    batch_len: usize,
    /// Link credit used since it was last given back.
    used: [u64; 2],
    goodbye: Option<(CloseCode, String)>,
    peer_gone: Option<CloseCode>,
    peer_went_first: bool,
    messages: u64,
    /// Credit came: the peer read on.
    credited: bool,
}

impl Effects {
    #[inline]
    fn origin(&mut self, id: u16) -> Arc<Sender> {
        if id == 0 {
            return self.nobody.clone();
        }
        let node = &self.shared.info().peer;
        let target = &mut self.targets[usize::from(id)];
        let mapping = &self.shared.info().mapping;
        let flags = self.shared.info().flags;
        let make =
            || Arc::new(Sender { node: node.clone(), name: target.name.clone(), mapping: mapping.clone(), flags });
        target.origin.get_or_insert_with(make).clone()
    }

    #[inline]
    fn push(&mut self, to: u16, message: Message, seq: Option<u64>) {
        let is_important = !self.seqs.is_empty();
        match &mut self.batch {
            Some(batch) if batch.mailbox() == to && is_important == seq.is_some() => batch.push(message),
            _ => {
                self.flush();
                let mut batch = Batch::new(self.shared.clone(), to, self.batch_len);
                batch.push(message);
                self.batch = Some(batch);
            }
        }
        self.seqs.extend(seq);
    }

    /// Hands the batch to its mailbox; what nobody takes is counted, and calls in it are answered.
    fn flush(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        self.batch_len = batch.len();
        if self.seqs.is_empty() {
            self.deliver(batch);
        } else {
            self.deliver_once(batch);
        }
    }

    /// Hands over what was not handed over before, and notes the outcomes.
    fn deliver_once(&mut self, mut batch: Batch) {
        let seqs = std::mem::take(&mut self.seqs);
        let Some(account) = self.shared.account.clone() else { return };
        // Held until the outcomes are noted: another link may bring the same message.
        let mut incoming = lock(&account.incoming);
        let mut fresh = Vec::new();
        batch.retain(|at| {
            let seq = seqs[at];
            match incoming.arrived(seq) {
                Ok(Arrival::New) => {
                    incoming.record(seq, Outcome::Taken);
                    fresh.push(seq);
                    return true;
                }
                Ok(Arrival::Known(outcome)) => self.outcomes.push((seq, outcome)),
                Ok(Arrival::Settled) => {}
                Err(broken) => self.broken = Some(broken),
            }
            false
        });
        if fresh.is_empty() {
            return;
        }
        let outcome = if self.deliver(batch) { Outcome::Taken } else { Outcome::NoMailbox };
        for seq in fresh {
            incoming.record(seq, outcome);
            self.outcomes.push((seq, outcome));
        }
    }

    /// Says whether somebody took it.
    fn deliver(&mut self, batch: Batch) -> bool {
        let target = &mut self.targets[usize::from(batch.mailbox())];
        let give = |queue: &Option<Arc<Queue>>, batch| match queue {
            Some(queue) => queue.push(batch).err(),
            None => Some(batch),
        };
        let Some(batch) = give(&target.queue, batch) else { return true };
        // Unknown, or known to be gone: another mailbox may have taken the name.
        target.queue = self.mailboxes.find(&target.name);
        let refused = give(&target.queue, batch);
        let Some(batch) = refused else { return true };
        let undeliverable = batch.refuse() as u64;
        self.shared.counters.undeliverable.fetch_add(undeliverable, Ordering::Relaxed);
        false
    }

    #[inline]
    fn count(&mut self, class: Class, len: usize) {
        self.messages += 1;
        self.used[class as usize] += cost(len);
    }
}

impl Sink for Effects {
    fn bind(&mut self, id: u16, name: &str) {
        debug_assert_eq!(usize::from(id), self.targets.len());
        let here = self.shared.info().mapping.as_ref().and_then(|mapping| mapping.from_peer(name)).cloned();
        self.targets.push(Target { name: here.unwrap_or_else(|| name.into()), queue: None, origin: None });
    }

    fn message(&mut self, to: u16, from: u16, seq: Option<u64>, body: &[u8], how: How) {
        self.count(Class::Messages, body.len());
        let origin = self.origin(from);
        log_connection!(
            self.shared.info(),
            Trace,
            "received",
            to = &*self.targets[usize::from(to)].name,
            from = &*origin.name,
            bytes = body.len(),
            high = how.high
        );
        let body = self.keeper.keep(body);
        self.push(to, Message::new(origin, body, how, None), seq);
    }

    fn outcomes(&mut self, is_report: bool, outcomes: &[(u64, Outcome)]) {
        let Some(account) = &self.shared.account else { return };
        if is_report {
            let link: Arc<dyn ImportantLink> = self.shared.clone();
            account.reported(&link, outcomes);
        } else {
            account.settled(&*self.shared, outcomes);
        }
    }

    fn release(&mut self, floor: u64) {
        if let Some(account) = &self.shared.account {
            lock(&account.incoming).released(floor);
        }
    }

    fn call(&mut self, id: u32, to: u16, from: u16, timeout_ms: u32, body: &[u8], how: How) {
        self.count(Class::Messages, body.len());
        self.shared.unanswered.fetch_add(1, Ordering::AcqRel);
        let origin = self.origin(from);
        log_connection!(
            self.shared.info(),
            Trace,
            "was called",
            to = &*self.targets[usize::from(to)].name,
            from = &*origin.name,
            bytes = body.len(),
            call = id
        );
        let replier = Replier::new(self.shared.clone(), id, timeout_ms);
        let body = self.keeper.keep(body);
        self.push(to, Message::new(origin, body, how, Some(replier)), None);
    }

    fn reply(&mut self, id: u32, status: Status, body: &[u8], how: How) {
        self.count(Class::Replies, body.len());
        log_connection!(self.shared.info(), Trace, "got an answer", call = id, ?status, bytes = body.len());
        self.shared.state.answered(
            id,
            match status {
                Status::Ok => Ok(Reply { body: Bytes::copy_from_slice(body), is_term: how.term }),
                Status::NoMailbox => Err(CallError::NoMailbox),
                Status::Dropped => Err(CallError::Dropped),
                Status::Failed => Err(CallError::Failed(String::from_utf8_lossy(body).into_owned())),
            },
        );
    }

    fn credit(&mut self, class: Class, bytes: u32) {
        self.credited = true;
        self.shared.credit(class, bytes);
    }

    fn credit_mailbox(&mut self, id: u32, bytes: u32) {
        self.credited = true;
        self.shared.credit_mailbox(id, bytes);
    }

    fn stream(&mut self, id: u32, event: StreamEvent<'_>) -> Result<(), ProtocolError> {
        let shared = self.shared.clone();
        self.credited |= shared.streams.handle(&shared, || self.mailboxes.acceptor(), id, event)?;
        Ok(())
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
            log_connection!(self.shared.info(), Trace, "round trip", us);
        }
    }

    fn go_away(&mut self, code: CloseCode, _: String) {
        self.flush();
        log_connection!(self.shared.info(), Debug, "the peer goes away", %code);
        self.peer_gone = Some(code);
        self.peer_went_first = !lock(&self.shared.out).outbox.is_draining();
        // The other direction finishes too; this is the answer.
        self.shared.go_away(code);
        self.shared.state.set_inbound_done();
    }

    fn close(&mut self, code: CloseCode, text: String) {
        self.goodbye = Some((code, text));
    }
}

#[cfg(test)]
mod tests {
    use trunkline_wire::mux::Window;

    use super::*;
    use trunkline_stack::LinkInfo;

    use crate::byte_stream::RESETS;
    use crate::native::Peers;

    const WINDOW: Window = Window { link: 64_000, mailbox: 32_000, max_message: 10_000 };

    /// One end without a socket.
    struct End(Arc<Shared>, Receiver);

    impl End {
        fn new(own: Window, peer: Window) -> Self {
            let cookie = trunkline_route::Cookie::new("a cookie both ends hold").unwrap();
            let info = LinkInfo::local("a@h".parse().unwrap(), [0; 16], cookie);
            let mailboxes = Arc::new(Mailboxes::default());
            let peers = Peers::new(RESETS);
            let shared = Arc::new(peers.link(info, peer, own));
            Self(shared.clone(), Receiver::new(&[], shared, mailboxes, None, None))
        }

        /// Writes everything to the other end, as the task does.
        fn write(&mut self, to: &mut Self) {
            loop {
                let mut out = lock(&self.0.out);
                while let Some((id, bytes)) = out.outbox.next_due() {
                    self.1.granted_mailbox(id, bytes);
                    out.outbox.grant_mailbox(id, bytes);
                }
                let Some(chunk) = out.outbox.take() else { break };
                drop(out);
                to.1.take(&chunk).unwrap();
                to.1.settle().unwrap();
                if self.1.withholds() {
                    self.1.settle().unwrap();
                }
            }
        }
    }

    /// Returns the number of 20,000 calls to nobody that go out.
    fn flood(caller: Window) -> usize {
        let mut caller = End::new(caller, WINDOW);
        let mut called = End::new(WINDOW, Window { link: 64_000, ..WINDOW });
        let mut calls = 0;
        for _ in 0..1000 {
            while calls < 20_000
                && caller.0.with_out(|out| out.outbox.call(calls as u32, "nobody", "", 0, b"", How::default()).is_ok())
            {
                calls += 1;
            }
            caller.write(&mut called);
            called.write(&mut caller);
        }
        calls
    }

    #[test]
    fn a_peer_that_lets_no_answer_out_gets_no_credit_for_more_calls() {
        // A quarter of such a window never fills, so it never grants.
        let calls = flood(Window { link: 1 << 40, ..WINDOW });
        // One window of answers goes out; one and a message may wait, and what was granted before that showed.
        let bound = (2 * WINDOW.link + WINDOW.max_message as u64 + WINDOW.link) / cost(0);
        assert!(calls as u64 <= bound, "{calls} calls, {bound} allowed");
    }

    #[test]
    fn p14_outcomes_are_kept_as_they_were_told_until_they_are_released() {
        let (mut sender, mut receiver) = (End::new(WINDOW, WINDOW), End::new(WINDOW, WINDOW));
        let mailbox = receiver.1.effects.mailboxes.register("in").unwrap();
        for (seq, to) in [(0, "in"), (1, "none"), (2, "in")] {
            sender.0.with_out(|out| out.outbox.send_important(seq, to, "", b"x")).unwrap();
        }
        sender.0.with_out(|out| out.outbox.send_important(0, "in", "", b"again")).unwrap();
        sender.write(&mut receiver);
        let kept = || lock(&receiver.0.account.as_ref().unwrap().incoming).outcomes();
        assert_eq!(kept(), [(0, Outcome::Taken), (1, Outcome::NoMailbox), (2, Outcome::Taken)]);
        let mut mailbox = mailbox;
        assert!(mailbox.try_recv().is_some() && mailbox.try_recv().is_some() && mailbox.try_recv().is_none());
        sender.0.with_out(|out| out.outbox.release(2));
        sender.write(&mut receiver);
        assert_eq!(lock(&receiver.0.account.as_ref().unwrap().incoming).outcomes(), [(2, Outcome::Taken)]);
        // One that is further ahead than may be.
        sender.0.with_out(|out| out.outbox.send_important(2000, "in", "", b"x")).unwrap();
        let chunk = lock(&sender.0.out).outbox.take().unwrap();
        receiver.1.take(&chunk).unwrap();
        assert!(matches!(receiver.1.settle(), Err(Down::ProtocolError(_))));
    }

    #[test]
    fn a_peer_that_reads_no_outcomes_gets_no_credit_for_more_important_messages() {
        // It goes by what it was granted, and need not read that.
        let boundless = Window { link: 1 << 40, mailbox: 1 << 40, ..WINDOW };
        let (sender, mut receiver) = (End::new(WINDOW, boundless), End::new(WINDOW, WINDOW));
        let mut sent = 0;
        // To ever more names, each with a window of its own, and all with the same number.
        'all: for name in 0..400 {
            for _ in 0..WINDOW.mailbox / cost(0) / 2 {
                let name = format!("none{name}");
                sender.0.with_out(|out| out.outbox.send_important(0, &name, "", b"")).unwrap();
                while let Some(chunk) = { lock(&sender.0.out).outbox.take() } {
                    if receiver.1.take(&chunk).is_err() {
                        break 'all;
                    }
                    receiver.1.settle().unwrap();
                }
                sent += 1;
            }
        }
        // 9 bytes and a header for each, in one window of answers and a message, and what was granted before that showed.
        let bound = (WINDOW.link + WINDOW.max_message as u64) / 9 + WINDOW.link / cost(0);
        assert!(sent <= bound, "{sent} were taken, {bound} allowed");
    }

    #[test]
    fn a_peer_that_reads_answers_calls_on() {
        assert_eq!(flood(WINDOW), 20_000);
    }
}
