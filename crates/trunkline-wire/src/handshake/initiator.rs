use std::marker::PhantomData;

use trunkline_route::{Cookie, Incarnation, LinkId, NodeName, Role};

use super::keys::{Keys, equal, identities};
use super::wire::{self, Hello1, Hello2};
use super::{Exporter, HandshakeError, Mode, Params, VERSIONS};
use crate::pake::{Pake, Spake2};

/// Configuration of the dialling end of a handshake.
#[derive(Debug, Clone)]
pub struct InitiatorConfig {
    /// Purpose of the link.
    pub mode: Mode,
    /// Versions offered, in descending order.
    pub versions: Vec<u16>,
    /// This node's life.
    pub incarnation: Incarnation,
    /// 16 fresh random bytes.
    pub nonce: [u8; 16],
    /// This node.
    pub from: NodeName,
    /// The node dialled; `None` to learn its name (registrar sessions and probes only).
    pub to: Option<NodeName>,
    /// Cookie that both ends must hold.
    pub cookie: Cookie,
    /// Picks between two cookies valid at the listener during a rotation; may be empty.
    pub label: String,
}

impl InitiatorConfig {
    /// The configuration of an ordinary dial with this crate's versions.
    pub fn new(
        from: NodeName,
        to: Option<NodeName>,
        cookie: Cookie,
        incarnation: impl Into<Incarnation>,
        nonce: [u8; 16],
    ) -> Self {
        Self {
            mode: Mode::Node,
            versions: VERSIONS.to_vec(),
            incarnation: incarnation.into(),
            nonce,
            from,
            to,
            cookie,
            label: String::new(),
        }
    }
}

/// The other end, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Name of the responder.
    pub name: NodeName,
    /// Instance of the responder.
    pub incarnation: Incarnation,
    /// The version chosen.
    pub version: u16,
    /// The id of the link that would stand.
    pub link_id: LinkId,
}

/// The link stands at the responder; the initiator may use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Parameters of the responder; its `epoch` is that of the link.
    pub params: Params,
}

/// The dialling end of the handshake.
///
/// Order of calls: [`Initiator::new`] and send what it gives; [`Initiator::hello2`]; then [`Initiator::finish`]
/// or [`Initiator::abandon`] and send what it gives; after `finish`, [`Initiator::accept`].
///
/// ```
/// use trunkline_route::{Cookie, NodeName};
/// use trunkline_wire::handshake::{
///     Credential, Hello, Initiator, InitiatorConfig, Params, Responder, ResponderConfig,
/// };
/// use trunkline_wire::pake::Spake2;
///
/// let (app, db): (NodeName, NodeName) = ("app@lab".parse()?, "db@lab".parse()?);
/// let cookie = Cookie::new("a shared secret")?;
/// // Both ends derive the same exporter from their TLS connection; nonces are random.
/// let exporter = [7; 32];
/// let config = InitiatorConfig::new(app, Some(db.clone()), cookie.clone(), [1; 16], [11; 16]);
/// let (mut initiator, hello1) = Initiator::<Spake2>::new(config, exporter);
/// let config = ResponderConfig::new(db.clone(), [2; 16], [12; 16]);
/// let mut responder = Responder::<Spake2>::new(config, exporter);
///
/// let credentials = |_from: &NodeName, _label: &str| Credential::Cookie(cookie.clone());
/// let Hello::Answer(hello2) = responder.hello1(&hello1, &credentials)? else { panic!("rejected") };
/// let verified = initiator.hello2(&hello2)?;
/// assert_eq!(verified.name, db);
/// let offer = responder.finish(&initiator.finish(&Params::default())?)?;
/// assert_eq!(offer.link_id, verified.link_id);
/// initiator.accept(&responder.accept(&Params { epoch: 1, ..Params::default() })?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Initiator<P = Spake2> {
    config: InitiatorConfig,
    exporter: Exporter,
    hello1: Vec<u8>,
    pake: PhantomData<P>,
    stage: Stage<P>,
}

enum Stage<P> {
    AwaitHello2(P),
    Decide(Keys),
    AwaitAccept(Keys, Vec<u8>),
    Over,
}

impl<P: Pake> Initiator<P> {
    /// Begins; gives the machine and HELLO1.
    ///
    /// When the name is to be learnt the key exchange is bound to the empty name.
    pub fn new(config: InitiatorConfig, exporter: Exporter) -> (Self, Vec<u8>) {
        let to = config.to.as_ref().map_or("", NodeName::as_str).to_owned();
        let (a, b) = identities(Role::Initiator, config.from.as_str(), &to);
        let (pake, share) = P::start(Role::Initiator, config.cookie.expose(), a, b);
        let hello1 = Hello1 {
            versions: config.versions.clone(),
            mode: Some(config.mode),
            incarnation: config.incarnation,
            nonce: config.nonce,
            from: config.from.clone(),
            to,
            label: config.label.clone(),
            share,
        }
        .encode();
        let out = hello1.clone();
        (Self { config, exporter, hello1, pake: PhantomData, stage: Stage::AwaitHello2(pake) }, out)
    }

    /// Takes the listener's first answer and checks its proof, its name and its choice of version.
    ///
    /// # Errors
    /// Any [`HandshakeError`] but `Closed`; the machine is over then.
    pub fn hello2(&mut self, body: &[u8]) -> Result<Verified, HandshakeError> {
        let Stage::AwaitHello2(pake) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(HandshakeError::Malformed("HELLO2 out of order"));
        };
        if body.first() == Some(&wire::REJECT) {
            return Err(match wire::decode_reject(body)? {
                HandshakeError::Rejected { code: super::RejectCode::Version, .. } => self.no_version(),
                HandshakeError::Rejected { code: super::RejectCode::WrongName, text, .. } => match &self.config.to {
                    Some(expected) => HandshakeError::WrongName { expected: expected.clone(), actual: text },
                    None => HandshakeError::Malformed("a name was refused that was not given"),
                },
                other => other,
            });
        }
        let (hello2, bare, mac) = Hello2::decode(body)?;
        if let Some(expected) = self.config.to.as_ref().filter(|to| **to != hello2.name) {
            return Err(HandshakeError::WrongName { expected: expected.clone(), actual: hello2.name.to_string() });
        }
        if !self.config.versions.contains(&hello2.version) {
            return Err(self.no_version());
        }
        let key = pake.finish(&hello2.share).ok_or(HandshakeError::Malformed("a degenerate key share"))?;
        let keys = Keys::new(&key, &self.exporter, &self.hello1, bare);
        if !equal(&keys.hello2_mac(), &mac) {
            return Err(HandshakeError::WrongCookie);
        }
        let link_id = keys.link_id();
        self.stage = Stage::Decide(keys);
        Ok(Verified { name: hello2.name, incarnation: hello2.incarnation, version: hello2.version, link_id })
    }

    /// Returns true if the handshake can still come to a proof: HELLO2 is awaited, or [`Initiator::finish`] is next.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::AwaitHello2(_) | Stage::Decide(_))
    }

    /// Goes for the link: gives FINISH.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`] when called before [`Initiator::hello2`] succeeded or twice.
    pub fn finish(&mut self, params: &Params) -> Result<Vec<u8>, HandshakeError> {
        let Stage::Decide(keys) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(HandshakeError::Malformed("FINISH out of order"));
        };
        let params = params.encode();
        let body = wire::encode_sealed(wire::FINISH, &params, &keys.finish_mac(&params));
        self.stage = Stage::AwaitAccept(keys, params);
        Ok(body)
    }

    /// Proves itself but wants no link, so that the attempt does not count as a guess at the listener.
    ///
    /// # Errors
    /// As [`Initiator::finish`].
    pub fn abandon(&mut self) -> Result<Vec<u8>, HandshakeError> {
        let body = self.finish(&Params { abandon: true, ..Params::default() })?;
        self.stage = Stage::Over;
        Ok(body)
    }

    /// Takes the listener's last word.
    ///
    /// # Errors
    /// `Closed` with the listener's reason, `WrongCookie` for a bad seal, or `Malformed`.
    pub fn accept(&mut self, body: &[u8]) -> Result<Accepted, HandshakeError> {
        let Stage::AwaitAccept(keys, sent) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(HandshakeError::Malformed("ACCEPT out of order"));
        };
        if body.first() == Some(&wire::CLOSE) {
            return Err(wire::decode_close(body)?);
        }
        let (params, mac) = wire::decode_sealed(wire::ACCEPT, body)?;
        if !equal(&keys.accept_mac(&sent, params), &mac) {
            return Err(HandshakeError::WrongCookie);
        }
        Ok(Accepted { params: Params::decode(params)? })
    }

    fn no_version(&self) -> HandshakeError {
        let offered = self.config.versions.iter().map(|v| format!("TLK/{v}")).collect::<Vec<_>>().join(", ");
        HandshakeError::Version { offered }
    }
}
