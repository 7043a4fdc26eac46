//! The native stack as a node uses it, by the traits that all stacks share.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use trunkline_route::{
    Attempt, Claims, CloseCode, Destination, Disagreement, FlagTerms, LinkPolicy, NodeName, PeerFlags, Version,
};
use trunkline_stack::{
    AnswerFailure, Answering, AttemptError, BoxFuture, Caller, Cause, Established, Hooks, Link, LinkInfo, Listening,
    Mailboxes, OnCaller, PeerIdentity, Proven, Stack, Transport, connect_tcp,
};
use trunkline_tls::{ClientProfiles, ClientTls, ServerTls};
use trunkline_wire::handshake::Mode;

use crate::listener::{CredentialsFn, Inside, Listener, Offered};
use crate::native::{DialTimes, Dialed, Native, Standing, versions};

/// The native stack of one node: TLK/1 over TCP, over streams through other nodes, and over any other transport, with the
/// TLS profiles that routes name.
#[derive(Debug, Clone)]
pub struct NativeStack {
    native: Arc<Native>,
    tls: Arc<ClientProfiles>,
    times: DialTimes,
}

impl NativeStack {
    /// Returns the stack that dials with these profiles and times.
    pub fn new(native: Arc<Native>, tls: Arc<ClientProfiles>, times: DialTimes) -> Self {
        Self { native, tls, times }
    }

    /// Returns the listener at this address. Port 0 takes a free one.
    ///
    /// # Errors
    /// The operating system's, for an address in use among others.
    pub fn listen(
        &self,
        address: SocketAddr,
        tls: ServerTls,
        credentials: Box<CredentialsFn>,
    ) -> io::Result<Box<dyn Listening>> {
        let listener = Listener::bind(address, Mode::Node, tls, credentials)?;
        let address = listener.local_addr()?;
        Ok(Box::new(NativeListener { listener, address, native: self.native.clone() }))
    }

    fn client_tls(&self, attempt: &Attempt) -> Result<ClientTls, AttemptError> {
        self.tls.of(&attempt.tls).map_err(|error| AttemptError::Local(Cause::new(error)))
    }

    async fn dial_as(&self, mode: Mode, over: Transport, attempt: &Attempt) -> Result<Dialed, AttemptError> {
        let tls = self.client_tls(attempt)?;
        Ok(self.native.dial_over(over, attempt, mode, &tls, self.times).await?)
    }

    /// Returns the answering side for callers that arrive through other nodes, or on a transport of the program's own.
    pub fn answering(&self, tls: ServerTls, credentials: Box<CredentialsFn>) -> Arc<dyn Answering> {
        Arc::new(NativeAnswers { inside: Inside::new(tls, credentials), native: self.native.clone() })
    }
}

impl Stack for NativeStack {
    fn protocol(&self) -> &str {
        "TLK"
    }

    fn check(&self, attempt: &Attempt) -> Result<(), AttemptError> {
        versions(attempt)?;
        self.client_tls(attempt).map(drop)
    }

    fn connect(&self, to: Destination) -> BoxFuture<'_, Result<Transport, AttemptError>> {
        Box::pin(connect_tcp(to, self.times.tcp))
    }

    fn dial<'a>(
        &'a self,
        over: Transport,
        attempt: &'a Attempt,
    ) -> BoxFuture<'a, Result<Box<dyn Proven>, AttemptError>> {
        Box::pin(async move {
            let dialed = self.dial_as(Mode::Node, over, attempt).await?;
            let verified = dialed.verified();
            let peer =
                PeerIdentity { name: verified.name.clone(), incarnation: verified.incarnation, link: verified.link_id };
            Ok(Box::new(NativeProven { dialed, peer }) as Box<dyn Proven>)
        })
    }

    fn learn<'a>(&'a self, over: Transport, attempt: &'a Attempt) -> BoxFuture<'a, Result<NodeName, AttemptError>> {
        Box::pin(async move {
            let tls = self.client_tls(attempt)?;
            Ok(self.native.learn_over(over, attempt, &tls, self.times).await?)
        })
    }

    fn probe<'a>(&'a self, over: Transport, attempt: &'a Attempt) -> BoxFuture<'a, Result<NodeName, AttemptError>> {
        Box::pin(async move { Ok(self.dial_as(Mode::Probe, over, attempt).await?.verified().name.clone()) })
    }
}

struct NativeProven {
    dialed: Dialed,
    peer: PeerIdentity,
}

impl Proven for NativeProven {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn finish(self: Box<Self>, claims: Claims) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>> {
        Box::pin(async move { Ok(Box::new(self.dialed.finish(claims).await?) as Box<dyn Established>) })
    }
}

impl Established for Standing {
    fn info(&self) -> &LinkInfo {
        Self::info(self)
    }

    fn start(self: Box<Self>, mailboxes: Arc<Mailboxes>, hooks: Hooks) -> (Link, BoxFuture<'static, ()>) {
        let (link, driver) = Self::start(*self, mailboxes, hooks);
        (link, Box::pin(driver))
    }
}

struct NativeCaller {
    offered: Offered,
    peer: PeerIdentity,
}

impl NativeCaller {
    fn boxed(offered: Offered) -> Box<dyn Caller> {
        let offer = offered.offer();
        let peer = PeerIdentity { name: offer.from.clone(), incarnation: offer.incarnation, link: offer.link_id };
        Box::new(Self { offered, peer })
    }
}

impl Caller for NativeCaller {
    fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    fn claims(&self) -> Option<Claims> {
        let params = &self.offered.offer().params;
        Some(Claims {
            known_epoch: params.known_epoch,
            last_link: params.last_link,
            have_link: params.have_link,
            replaces: params.replaces,
        })
    }

    fn agree(&self, terms: FlagTerms) -> Result<PeerFlags, Disagreement> {
        self.offered.agree(terms)
    }

    fn accept(
        self: Box<Self>,
        epoch: u64,
        policy: LinkPolicy,
    ) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>> {
        Box::pin(async move { Ok(Box::new(self.offered.accept(epoch, policy).await?) as Box<dyn Established>) })
    }

    fn refuse(self: Box<Self>, code: CloseCode, text: String) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.offered.close_with(code, &text).await })
    }
}

struct NativeListener {
    listener: Listener,
    address: SocketAddr,
    native: Arc<Native>,
}

impl Listening for NativeListener {
    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn version(&self) -> Version {
        Version::native(1)
    }

    fn serve(self: Box<Self>, on_caller: OnCaller) -> BoxFuture<'static, ()> {
        Box::pin(self.listener.serve(self.native, move |offered| on_caller(NativeCaller::boxed(offered))))
    }
}

struct NativeAnswers {
    inside: Inside,
    native: Arc<Native>,
}

impl Answering for NativeAnswers {
    fn answer(&self, over: Transport) -> BoxFuture<'_, Result<Box<dyn Caller>, AnswerFailure>> {
        Box::pin(async move { Ok(NativeCaller::boxed(self.inside.answer(&self.native, over).await?)) })
    }
}
