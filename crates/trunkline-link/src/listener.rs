//! Answering over TCP: places, proofs, and callers that wait for a verdict.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use trunkline_route::{
    CloseCode, Disagreement, FlagTerms, LinkPolicy, NodeName, PeerFlags, RejectCode, Role, TlsMode, Version,
};
use trunkline_stack::{AcceptFailures, LinkInfo, PeerAddress, Transport, listen_tcp};
use trunkline_tls::{ClientAuth, ServerTls};
use trunkline_wire::gate::Caller;
use trunkline_wire::handshake::{
    Credential, HandshakeError, Hello, Mode, Offer, Params, Responder, ResponderConfig, claim,
};

use crate::admission::{Fault, Place};
use crate::carrier::Carrier;
use crate::handshake_io::{Pipe, PipeError, prepare};
use crate::native::{DialError, Native, NativeLimits, Peers, Standing, dead_after_ms, random_16};
use crate::shell::{later, now};

/// The most bytes a stranger may send before it is authenticated, TLS included.
///
/// An honest initiator without a client certificate sends under 2 KiB.
const MAX_UNAUTHENTICATED: usize = 8 * 1024;
/// Additional bytes where the listener asks for a certificate: a chain of three with large keys takes half of them.
const MAX_CERTIFICATES: usize = 16 * 1024;

/// Reason why a caller was not authenticated. For logs; nothing of it is proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The caller lost a race at its own end, or only probed this node, and said so.
    #[error("the caller wants no link")]
    Abandoned,
    /// The caller has no certificate that this listener accepts.
    #[error("no acceptable certificate: {0}")]
    Certificate(String),
    /// The caller disconnected.
    #[error("the caller went away")]
    Ended,
    /// Another connection took its place: too many wait for authentication.
    #[error("evicted: too many connections wait for authentication")]
    Evicted,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// This end rejected the caller.
    #[error("rejected: {0}")]
    Rejected(RejectCode),
    /// The handshake took too long.
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

/// Settings for answering callers. The socket is not among them: its address is free as soon as nobody accepts, however
/// long an answer that is under way takes to end.
struct Answers {
    mode: Mode,
    tls: ServerTls,
    credentials: Box<CredentialsFn>,
}

impl Listener {
    /// Binds. Port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, for an address in use among others.
    pub fn bind(address: SocketAddr, mode: Mode, tls: ServerTls, credentials: Box<CredentialsFn>) -> io::Result<Self> {
        Ok(Self { socket: listen_tcp(address)?, answers: Answers { mode, tls, credentials } })
    }

    /// Returns the address that it listens at.
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
        let mut failures = AcceptFailures::default();
        loop {
            tokio::select! {
                biased;
                Some(_) = tasks.join_next() => {}
                accepted = socket.accept() => {
                    let (tcp, address) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            failures.failed(&"a listener", &error).await;
                            continue;
                        }
                    };
                    failures.accepted();
                    let place = native.admission.admit(address.ip());
                    let deadline = later(now(), native.limits.answer);
                    tasks.spawn(handshake(native.clone(), answers.clone(), tcp, address, place, deadline, decide.clone()));
                }
            }
        }
    }
}

/// Answering side for callers that arrive on a transport of the program's own: on streams through other nodes, on Unix
/// sockets.
pub struct Inside {
    answers: Answers,
}

impl Inside {
    /// Creates the answering side. Places before authentication are counted by the address of the transport, which is that of
    /// the last node in between.
    pub fn new(tls: ServerTls, credentials: Box<CredentialsFn>) -> Self {
        Self { answers: Answers { mode: Mode::Node, tls, credentials } }
    }

    /// Goes as far as the caller's proof; it then waits for a verdict.
    ///
    /// # Errors
    /// [`AnswerError`]; the transport is closed.
    pub async fn answer(&self, native: &Native, over: Transport) -> Result<Offered, AnswerError> {
        let deadline = later(now(), native.limits.answer);
        let place = native.admission.admit(over.address().counted_ip());
        self.answers.answer_in(native, over, place, deadline).await
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
    place: Place,
    deadline: Instant,
    decide: Arc<F>,
) where
    F: Fn(Offered) -> D + Send + Sync + 'static,
    D: Future<Output = ()> + Send + 'static,
{
    prepare(&tcp, native.limits.keep_alive.dead);
    match answers.answer_in(&native, Transport::tcp(tcp, address), place, deadline).await {
        Ok(offered) => decide(offered).await,
        Err(AnswerError::Certificate(error)) => {
            if let Some(suppressed) = native.admission.may_log(address.ip(), Fault::Certificate) {
                tracing::warn!(from = %address.ip(), %error, suppressed, "a caller has no acceptable certificate");
            }
        }
        Err(error) => tracing::debug!(from = %address.ip(), %error, "no link"),
    }
}

fn is_about_a_certificate(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
}

impl Answers {
    /// Answers until the deadline, or until another connection takes the place; either way the carrier is closed at once.
    async fn answer_in(
        &self,
        native: &Native,
        over: Transport,
        place: Place,
        deadline: Instant,
    ) -> Result<Offered, AnswerError> {
        let answer = Box::pin(self.answer(native, over, &place, deadline));
        let answered = tokio::select! {
            biased;
            () = place.evicted() => Err(AnswerError::Evicted),
            answered = tokio::time::timeout_at(deadline, answer) => answered.unwrap_or(Err(AnswerError::Timeout)),
        };
        // The gate decides between a proof and an eviction that meet: who gave the place back keeps the connection.
        if place.give_back() { answered } else { Err(AnswerError::Evicted) }
    }

    async fn answer(
        &self,
        native: &Native,
        over: Transport,
        place: &Place,
        deadline: Instant,
    ) -> Result<Offered, AnswerError> {
        let (address, via) = (over.address().clone(), over.via().cloned());
        let ip = address.counted_ip();
        let connection = self.tls.connection().map_err(|_| AnswerError::Tls)?;
        let limit = MAX_UNAUTHENTICATED + if self.tls.client_auth() > ClientAuth::None { MAX_CERTIFICATES } else { 0 };
        let mut pipe = Pipe::new(Carrier::from(over.into_kind()), connection.into(), limit);
        if let Err(error) = pipe.handshake(Some(&native.permits)).await {
            return Err(match error {
                PipeError::Tls(error) if is_about_a_certificate(&error) => {
                    // It has sent its first message already; closing over that would cut the alert off.
                    pipe.end().await;
                    AnswerError::Certificate(trunkline_tls::told(&error))
                }
                _ => AnswerError::Tls,
            });
        }
        place.progressed();
        if !pipe.speaks_tlk() {
            return Err(AnswerError::Tls);
        }
        let exporter = pipe.exporter().map_err(|_| AnswerError::Tls)?;
        let mut config = ResponderConfig::new(native.name.clone(), native.incarnation, random_16());
        let mode = if via.is_some() { Mode::Inner } else { self.mode };
        config.mode = mode;
        let mut machine = <Responder>::new(config, exporter);
        let hello1 = pipe.message().await.map_err(|_| AnswerError::Ended)?;
        let (from, label) = claim(&hello1).map_err(AnswerError::Handshake)?;
        let mut credential = (self.credentials)(&from, &label);
        let is_named = self.tls.client_auth() < ClientAuth::Named || pipe.peer_is_named(&from);
        if !is_named && matches!(credential, Credential::Cookie(_)) {
            if let Some(suppressed) = native.admission.may_log(ip, Fault::CertificateName) {
                tracing::warn!(
                    from = %address, claimed = %from, suppressed,
                    "a caller's certificate does not carry its name; issue it with the URI trunkline:<name>"
                );
            }
            credential = Credential::NotNamed;
        }
        let mut proof = None;
        if let Credential::Cookie(cookie) = &credential {
            let caller = Caller { ip, via: via.clone(), name: from };
            match native.admission.turn(caller, cookie.is_weak()).await {
                Ok(open) => proof = Some(open),
                Err(wait) => credential = Credential::Throttled(wait.as_millis().min(u16::MAX.into()) as u16),
            }
        }
        let hello = {
            let _permit = native.permits.acquire().await;
            machine.hello1(&hello1, &move |_: &NodeName, _: &str| credential.clone())
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(error) => {
                // No HELLO2 went out, so nothing was guessed.
                if let Some(proof) = proof {
                    proof.void();
                }
                return Err(AnswerError::Handshake(error));
            }
        };
        match hello {
            Hello::Answer(hello2) => pipe.send(&hello2).await.map_err(|_| AnswerError::Ended)?,
            Hello::Reject(reject, code) => {
                if let Some(proof) = proof {
                    proof.void();
                }
                let _ = pipe.send(&reject).await;
                pipe.end().await;
                return Err(AnswerError::Rejected(code));
            }
        }
        let finish = pipe.message().await.map_err(|_| AnswerError::Ended)?;
        let offer = machine.finish(&finish).map_err(AnswerError::Handshake)?;
        if let Some(proof) = proof {
            proof.proved();
        }
        if offer.params.abandon || offer.is_probe {
            return Err(AnswerError::Abandoned);
        }
        let (limits, peers) = (native.limits.for_mode(mode), native.peers.clone());
        let params = limits.params(&native.software);
        Ok(Offered { pipe, peers, machine, offer, address, via, params, limits, deadline })
    }
}

/// A caller that proved itself and waits for a verdict.
pub struct Offered {
    pipe: Pipe,
    peers: Arc<Peers>,
    machine: Responder,
    offer: Offer,
    address: PeerAddress,
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
    /// Returns the identity and the parameters of the caller.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Checks the caller's flags against these terms.
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
        self.limits.keep_alive = self.limits.keep_alive.under(&policy);
        let dead_after_ms = dead_after_ms(self.limits.keep_alive);
        let body = self.machine.accept(&Params { epoch, flags, dead_after_ms, ..self.params.clone() })?;
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
            version: Version::native(self.offer.version),
            address: self.address,
            via: self.via,
            tls: TlsMode::CookieOnly,
            // TLS itself has verified one that was shown.
            caller_certified: self.pipe.peer_has_certificate(),
            cookie: self.offer.cookie,
            flags: agreed,
            log_level: policy.log_level,
            route: policy.route,
            resolver: policy.resolver,
            mapping: policy.mapping,
            software: self.offer.params.software.clone(),
        };
        Ok(Standing { pipe: self.pipe, peers: self.peers, info, peer: self.offer.params, limits: self.limits })
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
