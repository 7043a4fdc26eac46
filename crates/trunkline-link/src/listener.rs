//! Answering over TCP: places, proofs, and callers that wait for a verdict.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use trunkline_route::{Disagreement, FlagTerms, LinkPolicy, NodeName, PeerFlags, TlsMode};

use crate::gate::{Gate, GateLimits, SlotId};
use crate::handshake::{
    CloseCode, Credential, HandshakeError, Hello, Mode, Offer, Params, RejectCode, Responder, ResponderConfig,
};
use crate::link::{LinkInfo, now};
use crate::mailbox::lock;
use crate::native::{DialError, Native, NativeLimits, Standing, random_16};
use crate::pake::Role;
use crate::pipe::{Pipe, PipeError, prepare};
use crate::stream::Carrier;
use crate::streams::ByteStream;
use crate::tls::ServerTls;

/// The most bytes a stranger may send before it is authenticated, TLS included.
///
/// An honest initiator without a client certificate sends under 2 KiB.
const MAX_UNAUTHENTICATED: usize = 8 * 1024;
/// What comes on top where the listener asks for a certificate: a chain of three with large keys takes half of it.
const MAX_CERTIFICATES: usize = 16 * 1024;
/// Connections the kernel may hold for the listener; 128 loses connects in a burst.
const BACKLOG: u32 = 1024;

/// Why a caller got no further. For logs; nothing of it is proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It lost a race at its own end, or only looked whether this node answers, and said so.
    #[error("the caller wants no link")]
    Abandoned,
    /// It has no certificate that this listener takes.
    #[error("no acceptable certificate: {0}")]
    Certificate(String),
    /// It went away.
    #[error("the caller went away")]
    Ended,
    /// What it sent.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// We sent it away.
    #[error("rejected: {0}")]
    Rejected(RejectCode),
    /// It took too long.
    #[error("not up within the deadline")]
    Timeout,
    /// No TLS, or too much of it.
    #[error("no TLS connection")]
    Tls,
}

/// Chooses what a caller must prove.
pub type CredentialsFn = dyn Fn(&NodeName, &str) -> Credential + Send + Sync;

/// One listening socket.
pub struct Listener {
    socket: TcpListener,
    answers: Answers,
}

/// How callers are answered. The socket is not here: its address is free as soon as nobody accepts any more, however
/// long an answer that is under way takes to end.
struct Answers {
    mode: Mode,
    tls: ServerTls,
    credentials: Box<CredentialsFn>,
    gate: Arc<Mutex<Gate>>,
}

impl Listener {
    /// Binds. Port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, for an address in use among others.
    pub fn bind(
        address: SocketAddr,
        mode: Mode,
        tls: ServerTls,
        gate: GateLimits,
        credentials: Box<CredentialsFn>,
    ) -> io::Result<Self> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let gate = Arc::new(Mutex::new(Gate::new(gate)));
        Ok(Self { socket: socket.listen(BACKLOG)?, answers: Answers { mode, tls, credentials, gate } })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts for ever and hands every proven caller to `decide`. Never awaits a peer itself; every handshake is
    /// a task of its own, and all of them end when this future is dropped.
    pub async fn serve<F, D>(self, native: Arc<Native>, decide: F)
    where
        F: Fn(Offered) -> D + Send + Sync + 'static,
        D: Future<Output = ()> + Send + 'static,
    {
        let (socket, answers, decide) = (self.socket, Arc::new(self.answers), Arc::new(decide));
        let mut tasks = JoinSet::new();
        let mut handles = HashMap::<SlotId, AbortHandle>::new();
        loop {
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next() => match ended {
                    Ok(slot) => drop(handles.remove(&slot)),
                    // It was evicted or it panicked, and cannot say which it was.
                    Err(_) => handles.retain(|_, handle| !handle.is_finished()),
                },
                accepted = socket.accept() => {
                    let (tcp, address) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            // Out of descriptors or the like: what is under way may free some.
                            tracing::warn!(%error, "accept failed");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    let now = now();
                    let (slot, evicted) = lock(&answers.gate).admit(now.into_std(), address.ip());
                    if let Some(handle) = evicted.and_then(|slot| handles.remove(&slot)) {
                        handle.abort();
                    }
                    let deadline = now + native.limits.answer;
                    let task = handshake(native.clone(), answers.clone(), tcp, address, slot, deadline, decide.clone());
                    handles.insert(slot, tasks.spawn(task));
                }
            }
        }
    }
}

/// How a node answers those who come to it through others, on streams.
pub struct Inside {
    answers: Answers,
}

impl Inside {
    /// Its places and failures before authentication are counted by the address of the last node in between.
    pub fn new(tls: ServerTls, gate: GateLimits, credentials: Box<CredentialsFn>) -> Self {
        let gate = Arc::new(Mutex::new(Gate::new(gate)));
        Self { answers: Answers { mode: Mode::Inner, tls, credentials, gate } }
    }

    /// Goes as far as the caller's proof; it then waits for a verdict.
    ///
    /// # Errors
    /// [`AnswerError`]; the stream is reset.
    pub async fn answer(&self, native: &Native, stream: ByteStream) -> Result<Offered, AnswerError> {
        let deadline = now() + native.limits.answer;
        let way = (stream.link_info().address, Some(stream.peer().clone()));
        // Whoever is pushed out ends by its own deadline.
        let (slot, _) = lock(&self.answers.gate).admit(now().into_std(), way.0.ip());
        let place = Place { gate: self.answers.gate.clone(), slot };
        let answer = Box::pin(self.answers.answer(native, Carrier::Stream(stream), way, slot, deadline));
        let answered = tokio::time::timeout_at(deadline, answer).await.unwrap_or(Err(AnswerError::Timeout));
        if place.give_back() { answered } else { Err(AnswerError::Timeout) }
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

async fn handshake<F, D>(
    native: Arc<Native>,
    answers: Arc<Answers>,
    tcp: TcpStream,
    address: SocketAddr,
    slot: SlotId,
    deadline: Instant,
    decide: Arc<F>,
) -> SlotId
where
    F: Fn(Offered) -> D + Send + Sync + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    let place = Place { gate: answers.gate.clone(), slot };
    prepare(&tcp, native.limits.keep_alive.dead);
    let answer = Box::pin(answers.answer(&native, Carrier::Tcp(tcp), (address, None), slot, deadline));
    let answered = tokio::time::timeout_at(deadline, answer).await.unwrap_or(Err(AnswerError::Timeout));
    // The gate decides between a proof and an eviction that meet: who gave its place back is never aborted.
    if !place.give_back() {
        return slot;
    }
    match answered {
        Ok(offered) => decide(offered).await,
        Err(error) => log_refused(address.ip(), &error),
    }
    slot
}

fn log_refused(ip: IpAddr, error: &AnswerError) {
    match error {
        AnswerError::Handshake(HandshakeError::WrongCookie) => {
            tracing::warn!(from = %ip, "a caller does not hold the cookie");
        }
        AnswerError::Certificate(error) => tracing::warn!(from = %ip, %error, "a caller has no acceptable certificate"),
        error => tracing::debug!(from = %ip, %error, "no link"),
    }
}

fn is_about_a_certificate(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
}

/// A place before authentication, given back however the task ends.
struct Place {
    gate: Arc<Mutex<Gate>>,
    slot: SlotId,
}

impl Place {
    /// Says whether it was still ours.
    fn give_back(self) -> bool {
        lock(&self.gate).release(self.slot)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.gate).release(self.slot);
    }
}

impl Answers {
    async fn answer(
        &self,
        native: &Native,
        carrier: Carrier,
        (address, via): (SocketAddr, Option<NodeName>),
        slot: SlotId,
        deadline: Instant,
    ) -> Result<Offered, AnswerError> {
        let connection = self.tls.connection().map_err(|_| AnswerError::Tls)?;
        let limit = MAX_UNAUTHENTICATED + if self.tls.asks_for_certificates() { MAX_CERTIFICATES } else { 0 };
        let mut pipe = Pipe::new(carrier, connection.into(), limit);
        if let Err(error) = pipe.handshake(Some(&native.permits)).await {
            return Err(match error {
                PipeError::Tls(error) if is_about_a_certificate(&error) => {
                    // It has sent its first message already; closing over that would cut the alert off.
                    pipe.end().await;
                    AnswerError::Certificate(error.to_string())
                }
                _ => AnswerError::Tls,
            });
        }
        lock(&self.gate).progressed(now().into_std(), slot);
        if !pipe.speaks_tlk() {
            return Err(AnswerError::Tls);
        }
        let exporter = pipe.exporter().map_err(|_| AnswerError::Tls)?;
        let mut config = ResponderConfig::new(native.name.clone(), native.incarnation, random_16());
        config.mode = self.mode;
        let mut machine = <Responder>::new(config, exporter);
        let hello1 = pipe.message().await.map_err(|_| AnswerError::Ended)?;
        let proof = OnceLock::new();
        let hello = {
            let _permit = native.permits.acquire().await;
            machine.hello1(&hello1, &|from: &NodeName, label: &str| {
                let mut gate = lock(&self.gate);
                let now = now().into_std();
                if let Some(wait) = gate.must_wait(now, address.ip(), from) {
                    return Credential::Throttled(wait.as_millis().min(u16::MAX.into()) as u16);
                }
                let credential = (self.credentials)(from, label);
                if matches!(credential, Credential::Cookie(_)) {
                    proof.get_or_init(|| gate.proof_begins(now, address.ip(), from));
                }
                credential
            })
        };
        match hello.map_err(AnswerError::Handshake)? {
            Hello::Answer(hello2) => pipe.send(&hello2).await.map_err(|_| AnswerError::Ended)?,
            Hello::Reject(reject, code) => {
                let _ = pipe.send(&reject).await;
                pipe.end().await;
                return Err(AnswerError::Rejected(code));
            }
        }
        let finish = pipe.message().await.map_err(|_| AnswerError::Ended)?;
        let offer = machine.finish(&finish).map_err(AnswerError::Handshake)?;
        if let Some(proof) = proof.into_inner() {
            lock(&self.gate).proved(now().into_std(), proof);
        }
        if offer.params.abandon || offer.is_probe {
            return Err(AnswerError::Abandoned);
        }
        let limits = native.limits.for_mode(self.mode);
        Ok(Offered { pipe, machine, offer, address, via, params: limits.params(&native.software), limits, deadline })
    }
}

/// A caller that proved itself and waits for a verdict.
pub struct Offered {
    pipe: Pipe,
    machine: Responder,
    offer: Offer,
    address: SocketAddr,
    via: Option<NodeName>,
    params: Params,
    limits: NativeLimits,
    deadline: Instant,
}

impl fmt::Debug for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offered").field("from", &self.offer.from).finish_non_exhaustive()
    }
}

impl Offered {
    /// Who wants what.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Whether the caller's flags meet these terms.
    ///
    /// # Errors
    /// [`Disagreement`]; send the caller away with it.
    pub fn agree(&self, flags: FlagTerms) -> Result<PeerFlags, Disagreement> {
        flags.agree(self.offer.params.flags)
    }

    /// Lets the link stand, under this policy; ask [`Offered::agree`] first.
    ///
    /// # Errors
    /// [`DialError::HandshakeEnded`] when the caller is gone, [`DialError::Flags`] when the terms do not meet.
    pub async fn accept(mut self, epoch: u64, policy: LinkPolicy) -> Result<Standing, DialError> {
        let flags = policy.flags;
        let agreed = flags.agree(self.offer.params.flags)?;
        let body = self.machine.accept(&Params { epoch, flags, ..self.params.clone() })?;
        tokio::time::timeout_at(self.deadline, self.pipe.send(&body))
            .await
            .map_err(|_| DialError::HandshakeTimeout(self.limits.answer))?
            .map_err(|_| DialError::HandshakeEnded)?;
        let info = LinkInfo {
            peer: self.offer.from,
            incarnation: self.offer.incarnation,
            id: self.offer.link_id,
            epoch,
            role: Role::Responder,
            version: self.offer.version,
            address: self.address,
            via: self.via,
            tls: TlsMode::CookieOnly,
            cookie: self.offer.cookie,
            flags: agreed,
            log_level: policy.log_level,
            route: policy.route,
            resolver: policy.resolver,
            mapping: policy.mapping,
            software: self.offer.params.software.clone(),
        };
        Ok(Standing { pipe: self.pipe, info, peer: self.offer.params, limits: self.limits })
    }

    /// Sends the caller away with a reason.
    pub async fn close(self, code: CloseCode) {
        self.close_with(code, "").await;
    }

    /// Sends the caller away with a reason and words, at most 255 bytes of them.
    pub async fn close_with(mut self, code: CloseCode, text: &str) {
        let body = self.machine.close(code, text);
        let last = async {
            let _ = self.pipe.send(&body).await;
            self.pipe.end().await;
        };
        let _ = tokio::time::timeout_at(self.deadline, last).await;
    }
}
