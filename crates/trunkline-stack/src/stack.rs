//! Network stacks: how a node dials, answers, and takes a link up, whatever the protocol.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use trunkline_route::{
    Attempt, Claims, CloseCode, Destination, Disagreement, FlagTerms, Incarnation, LinkId, LinkPolicy, NodeName,
    PeerFlags, Version,
};

use crate::{AttemptError, BoxFuture, Down, Link, LinkInfo, Mailboxes, Transport};

/// A network stack: one protocol between nodes. A node has one for each protocol that its routes name, and picks it by the
/// version of an attempt ([`Version::protocol`](trunkline_route::Version::protocol)).
///
/// A dial has three steps, so that the node can decide in between whether the link may come up: [`Stack::connect`] opens a
/// transport, [`Stack::dial`] has the peer prove who it is, and [`Proven::finish`] asks it for the link. The
/// [page of the crate](crate#implementing-a-stack) lists the other traits and the order of the calls.
pub trait Stack: Send + Sync + 'static {
    /// Returns the protocol as versions name it: `TLK` for the native stack.
    fn protocol(&self) -> &str;

    /// Returns the rules by which two nodes end up with one link. Default: [`Pairing::Claims`].
    fn pairing(&self) -> Pairing {
        Pairing::Claims
    }

    /// Checks an attempt before anything is opened for it: whether the version is spoken, whether TLS can be configured.
    /// Default: every attempt may be tried.
    ///
    /// # Errors
    /// [`AttemptError::Version`], [`AttemptError::Local`].
    fn check(&self, _: &Attempt) -> Result<(), AttemptError> {
        Ok(())
    }

    /// Returns true if [`Stack::connect`] takes the host of the attempt by its name. The node then looks up no addresses for
    /// it. Default: false.
    fn takes_hosts(&self, _: &Attempt) -> bool {
        false
    }

    /// Opens a transport to an address, or to a host if [`Stack::takes_hosts`] says so; [`connect_tcp`] does for stacks over
    /// TCP. A host that is an IP address comes as an address.
    ///
    /// # Errors
    /// [`AttemptError`]; nothing is left open.
    fn connect(&self, to: Destination) -> BoxFuture<'_, Result<Transport, AttemptError>>;

    /// Has the peer at the other end of the transport prove that it is the target of the attempt, and goes no further. The
    /// future and its result may be dropped at any time; the transport is then closed. The node bounds the time of a
    /// candidate by dropping the future.
    ///
    /// The stack meets what the attempt demands or refuses it: `attempt.version` ([`AttemptError::Version`]), `attempt.tls`
    /// ([`AttemptError::Tls`]), `attempt.cookie` ([`AttemptError::WrongCookie`]) and, at the latest in [`Proven::finish`],
    /// `attempt.policy.flags` ([`AttemptError::Flags`], by [`FlagTerms::agree`]). The node does not check these again; it
    /// only compares the name of the peer with `attempt.target`.
    ///
    /// # Errors
    /// [`AttemptError`], by the stage that was reached.
    fn dial<'a>(
        &'a self,
        over: Transport,
        attempt: &'a Attempt,
    ) -> BoxFuture<'a, Result<Box<dyn Proven>, AttemptError>>;

    /// Returns the name of the node at the other end of the transport, which has to prove the cookie of the attempt. The target
    /// of the attempt is not used, and no link is made. Default: the protocol cannot do this.
    ///
    /// # Errors
    /// As [`Stack::dial`], and [`AttemptError::Version`] from a protocol that cannot do this.
    fn learn<'a>(&'a self, _: Transport, attempt: &'a Attempt) -> BoxFuture<'a, Result<NodeName, AttemptError>> {
        let text = format!("{} has no means to ask a node for its name; write a route with the name", attempt.version);
        Box::pin(async move { Err(AttemptError::Version(text)) })
    }

    /// Sees whether a dial would lead to the target of the attempt, without a link. Default: a dial that is given up.
    ///
    /// # Errors
    /// As [`Stack::dial`].
    fn probe<'a>(&'a self, over: Transport, attempt: &'a Attempt) -> BoxFuture<'a, Result<NodeName, AttemptError>> {
        Box::pin(async move { Ok(self.dial(over, attempt).await?.peer().name.clone()) })
    }
}

/// The rules by which two nodes that dial each other end up with one link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// The handshake carries [`Claims`]: each end says which links of the pair it knows, so that a link can replace another
    /// one in order, and a link that is dead at one end only is recognised at once.
    Claims,
    /// The handshake tells who dials and nothing of earlier links. When both dial at once, the dial of the greater name
    /// stands. While a link is up, a new one of the same name comes up only after the live link was found dead. A better
    /// route is taken by closing the live link first, if no stream is open on it; its connection ends with it.
    Names,
}

/// The identity that a peer proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Name of the peer.
    pub name: NodeName,
    /// Instance of the peer: another one after each start, and the same one by whatever stack.
    pub incarnation: Incarnation,
    /// Identifier of the link that would come up, the same at both ends.
    pub link: LinkId,
}

/// A peer that was dialled and has proven who it is.
///
/// Dropped, the attempt is given up without a link; the peer does not count it as a wrong proof.
pub trait Proven: Send {
    /// Returns the identity of the peer.
    fn peer(&self) -> &PeerIdentity;

    /// Asks the peer for the link. A stack with [`Pairing::Names`] sends nothing of the claims, and uses their
    /// `known_epoch` only for [`LinkInfo::epoch`].
    ///
    /// # Errors
    /// [`AttemptError`] by the code with which the peer refused ([`Caller::refuse`]): [`AttemptError::Adopted`] for
    /// [`CloseCode::Duplicate`] and [`CloseCode::LostTie`], when the peer has another link to this node or is about to;
    /// [`AttemptError::NameInUse`] for [`CloseCode::NameInUse`], [`AttemptError::Flags`] for [`CloseCode::Flags`], and
    /// [`AttemptError::Rejected`] for every other code.
    fn finish(self: Box<Self>, claims: Claims) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>>;
}

/// A peer that dialled this node, has proven who it is, and waits for a verdict. Dropped, its transport is closed.
///
/// The node calls [`Caller::claims`], then [`Caller::agree`] unless it refuses the caller anyway, and then
/// [`Caller::accept`] or [`Caller::refuse`], once. It sets no time for these two: the stack bounds how long the caller may
/// take to read the verdict.
pub trait Caller: Send {
    /// Returns the identity of the caller.
    fn peer(&self) -> &PeerIdentity;

    /// Returns what the caller says of the links that it knows; `None` from a stack with [`Pairing::Names`].
    fn claims(&self) -> Option<Claims>;

    /// Returns the flags that hold if this end has these terms.
    ///
    /// # Errors
    /// [`Disagreement`]; send the caller away with it.
    fn agree(&self, terms: FlagTerms) -> Result<PeerFlags, Disagreement>;

    /// Lets the link come up under this policy; ask [`Caller::agree`] first.
    ///
    /// The stack tells the caller the epoch. [`LinkInfo::epoch`] is this number here, and at the caller the greater of this
    /// number and its own `known_epoch + 1`.
    ///
    /// # Errors
    /// [`AttemptError`] when the caller is gone, or the terms do not meet.
    fn accept(
        self: Box<Self>,
        epoch: u64,
        policy: LinkPolicy,
    ) -> BoxFuture<'static, Result<Box<dyn Established>, AttemptError>>;

    /// Sends the caller away with a reason and at most 255 bytes of text.
    fn refuse(self: Box<Self>, code: CloseCode, text: String) -> BoxFuture<'static, ()>;
}

/// A link that both ends agreed on, and whose task does not run yet. Dropped, its transport is closed.
pub trait Established: Send {
    /// Returns the facts that the handshake established.
    fn info(&self) -> &LinkInfo;

    /// Returns the link, and the future that moves its bytes; spawn it. The link lives as long as that future.
    fn start(self: Box<Self>, mailboxes: Arc<Mailboxes>, hooks: Hooks) -> (Link, BoxFuture<'static, ()>);
}

/// Called for each proven caller; the future it returns ends when the caller was judged.
pub type OnCaller = Arc<dyn Fn(Box<dyn Caller>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A socket of one stack at which callers arrive.
pub trait Listening: Send + Sync + 'static {
    /// Returns the address that others dial; `None` when there is none to announce.
    fn address(&self) -> Option<SocketAddr>;

    /// Returns the version that others dial it by.
    fn version(&self) -> Version;

    /// Accepts for ever and hands every proven caller over. Never waits for one caller while others arrive; everything ends
    /// when the future is dropped. The stack polls what `on_caller` returns to its end.
    ///
    /// The stack bounds the time and the number of callers that have not proven themselves, and goes on after a failure to
    /// accept ([`AcceptFailures`](crate::AcceptFailures)).
    fn serve(self: Box<Self>, on_caller: OnCaller) -> BoxFuture<'static, ()>;
}

/// The answering side of a stack for callers that arrive on a transport of the program's own: inside a stream through other
/// nodes, on a Unix socket, in memory.
pub trait Answering: Send + Sync + 'static {
    /// Goes as far as the caller's proof.
    ///
    /// # Errors
    /// The stack's, for logs: nothing of it is proven. The transport is closed.
    fn answer(&self, over: Transport) -> BoxFuture<'_, Result<Box<dyn Caller>, AnswerFailure>>;
}

/// The cause why a caller was not let in.
pub type AnswerFailure = Box<dyn std::error::Error + Send + Sync>;

/// A future that holds reading back until it is done, so that order is kept across a replaced link. Writing goes on
/// meanwhile. It may take as long as the old link lasts: the stack limits its time.
pub type Hold = BoxFuture<'static, ()>;

/// Called in the link's task when the first frame is there, before anything of it is done; must not wait. The future that
/// it returns comes first.
pub type FirstFrameHook = Box<dyn FnOnce() -> Option<Hold> + Send>;

/// Called when the link is down: how that came, and why the link was going away before, if it was. The two may differ, when
/// it broke or the time ran out before it was drained.
pub type DownHook = Box<dyn FnOnce(&Down, Option<CloseCode>) + Send>;

/// Callbacks for the owner of a link, each called at most once.
#[derive(Default)]
pub struct Hooks {
    /// The first frame came: the peer uses the link. It is delivered, and reading goes on, when the returned
    /// future is done, or after a time of the stack's choice.
    pub on_first_frame: Option<FirstFrameHook>,
    /// Reading begins when this is done, or after a time of the stack's choice.
    pub hold: Option<Hold>,
    /// The link is down; called exactly once, after [`LinkState::set_down`](crate::LinkState::set_down), also when the future
    /// of the link is dropped.
    pub on_down: Option<DownHook>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Opens a TCP connection. A host is looked up by the operating system, and its addresses are tried one after the other.
///
/// # Errors
/// [`AttemptError::TcpTimeout`], [`AttemptError::Local`] when this process or machine has no descriptors left, and
/// [`AttemptError::Tcp`].
pub async fn connect_tcp(to: Destination, timeout: Duration) -> Result<Transport, AttemptError> {
    let connecting = async {
        let tcp = match &to {
            Destination::Socket(address) => TcpStream::connect(address).await?,
            Destination::Host(at) => TcpStream::connect((at.host.as_str(), at.port.get())).await?,
        };
        let address = to.socket().map_or_else(|| tcp.peer_addr(), Ok)?;
        Ok(Transport::tcp(tcp, address))
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(Ok(transport)) => Ok(transport),
        Ok(Err(error)) if is_local(&error) => Err(AttemptError::Local(error.into())),
        Ok(Err(error)) => Err(AttemptError::Tcp(error.into())),
        Err(_) => Err(AttemptError::TcpTimeout(timeout)),
    }
}

/// Out of file descriptors, of this process (24) or the machine (23): no other candidate would fare better.
fn is_local(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}
