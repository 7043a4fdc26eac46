use std::marker::PhantomData;

use trunkline_route::{CloseCode, Cookie, Incarnation, LinkId, NodeName, RejectCode, Role};

use super::keys::{Keys, equal, identities};
use super::wire::{self, Hello1, Hello2};
use super::{Exporter, HandshakeError, Mode, Params, VERSIONS};
use crate::pake::{Pake, Spake2};

/// Configuration of the listening end of a handshake.
#[derive(Debug, Clone)]
pub struct ResponderConfig {
    /// The mode served; any other is rejected, but for probes of what serves links.
    pub mode: Mode,
    /// Versions spoken, in descending order.
    pub versions: Vec<u16>,
    /// This node's life.
    pub incarnation: Incarnation,
    /// 16 fresh random bytes.
    pub nonce: [u8; 16],
    /// This node.
    pub name: NodeName,
}

impl ResponderConfig {
    /// The configuration of a node's listener with this crate's versions.
    pub fn new(name: NodeName, incarnation: impl Into<Incarnation>, nonce: [u8; 16]) -> Self {
        Self { mode: Mode::Node, versions: VERSIONS.to_vec(), incarnation: incarnation.into(), nonce, name }
    }
}

/// Decision of a listener about a caller's claimed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The caller must prove this cookie.
    Cookie(Cookie),
    /// The caller may not come in here.
    NotAllowed,
    /// The caller's certificate does not carry its name.
    NotNamed,
    /// Too many failures from there; come back after so many milliseconds.
    Throttled(u16),
}

/// Chooses what a caller must prove. It sees unproven claims: it must neither change state nor tell names apart
/// by more than its answer.
pub trait Credentials {
    /// The credential for a caller that claims this name and label.
    fn credential(&self, from: &NodeName, label: &str) -> Credential;
}

impl<F: Fn(&NodeName, &str) -> Credential> Credentials for F {
    fn credential(&self, from: &NodeName, label: &str) -> Credential {
        self(from, label)
    }
}

/// The answer to a HELLO1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// Send this HELLO2 and await FINISH.
    Answer(Vec<u8>),
    /// Send this REJECT and close.
    Reject(Vec<u8>, RejectCode),
}

/// A caller that has proven itself and waits for a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Name of the caller.
    pub from: NodeName,
    /// Instance of the caller.
    pub incarnation: Incarnation,
    /// The version chosen.
    pub version: u16,
    /// The id of the link that would stand.
    pub link_id: LinkId,
    /// Parameters of the caller.
    pub params: Params,
    /// True if the caller only wanted to know that this node answers: it gets no link.
    pub is_probe: bool,
    /// The cookie it proved.
    pub cookie: Cookie,
}

/// The listening end of the handshake.
///
/// Order of calls: [`Responder::hello1`] and send what it gives; [`Responder::finish`]; then
/// [`Responder::accept`] or [`Responder::close`] and send what it gives.
///
/// ```
/// use trunkline_route::{Cookie, NodeName, RejectCode};
/// use trunkline_wire::handshake::{Credential, Hello, Initiator, InitiatorConfig, Responder, ResponderConfig};
/// use trunkline_wire::pake::Spake2;
///
/// let (guest, db): (NodeName, NodeName) = ("guest@lab".parse()?, "db@lab".parse()?);
/// let config = InitiatorConfig::new(guest, Some(db.clone()), Cookie::new("a secret")?, [1; 16], [11; 16]);
/// let (_, hello1) = Initiator::<Spake2>::new(config, [7; 32]);
///
/// // A listener that lets nobody in.
/// let mut responder = Responder::<Spake2>::new(ResponderConfig::new(db, [2; 16], [12; 16]), [7; 32]);
/// let hello = responder.hello1(&hello1, &|_: &NodeName, _: &str| Credential::NotAllowed)?;
/// assert!(matches!(hello, Hello::Reject(_, RejectCode::NotAllowed)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Responder<P = Spake2> {
    config: ResponderConfig,
    exporter: Exporter,
    pake: PhantomData<P>,
    stage: Stage,
    is_probe: bool,
}

enum Stage {
    AwaitHello1,
    AwaitFinish { keys: Keys, from: NodeName, incarnation: Incarnation, version: u16, cookie: Cookie },
    Decide { keys: Keys, params: Vec<u8> },
    Over,
}

impl<P: Pake> Responder<P> {
    /// Begins.
    pub fn new(config: ResponderConfig, exporter: Exporter) -> Self {
        Self { config, exporter, pake: PhantomData, stage: Stage::AwaitHello1, is_probe: false }
    }

    /// Takes HELLO1 and gives HELLO2, which carries our proof, or a REJECT.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`]; send nothing and close.
    pub fn hello1(&mut self, body: &[u8], credentials: &dyn Credentials) -> Result<Hello, HandshakeError> {
        if !matches!(std::mem::replace(&mut self.stage, Stage::Over), Stage::AwaitHello1) {
            return Err(HandshakeError::Malformed("HELLO1 out of order"));
        }
        let hello1 = Hello1::decode(body)?;
        let reject = |code, retry, text: &str| Ok(Hello::Reject(wire::encode_reject(code, retry, text), code));
        if hello1.incarnation == self.config.incarnation {
            return reject(RejectCode::Myself, 0, "");
        }
        // Who serves links answers probes of them too.
        self.is_probe = hello1.mode == Some(Mode::Probe) && self.config.mode == Mode::Node;
        if hello1.mode != Some(self.config.mode) && !self.is_probe {
            return reject(RejectCode::Mode, 0, "this port serves something else");
        }
        let learning = hello1.to.is_empty() && (self.is_probe || self.config.mode == Mode::Registrar);
        if !learning && hello1.to != self.config.name.as_str() {
            return reject(RejectCode::WrongName, 0, self.config.name.as_str());
        }
        // A registrar serves the node of its name too, and says by itself that a name is taken.
        if hello1.from == self.config.name && self.config.mode != Mode::Registrar {
            return reject(RejectCode::NotAllowed, 0, "the node here has the same name as the caller");
        }
        let Some(&version) = self.config.versions.iter().find(|v| hello1.versions.contains(v)) else {
            return reject(RejectCode::Version, 0, "");
        };
        let cookie = match credentials.credential(&hello1.from, &hello1.label) {
            Credential::Cookie(cookie) => cookie,
            Credential::NotAllowed => return reject(RejectCode::NotAllowed, 0, ""),
            Credential::NotNamed => {
                let text = "the caller's certificate must carry its name as the URI trunkline:<name>";
                return reject(RejectCode::NotAllowed, 0, text);
            }
            Credential::Throttled(ms) => return reject(RejectCode::Throttled, ms, ""),
        };
        let (a, b) = identities(Role::Responder, &hello1.to, hello1.from.as_str());
        let (pake, share) = P::start(Role::Responder, cookie.expose(), a, b);
        let key = pake.finish(&hello1.share).ok_or(HandshakeError::Malformed("a degenerate key share"))?;
        let mut answer = Hello2 {
            version,
            incarnation: self.config.incarnation,
            nonce: self.config.nonce,
            name: self.config.name.clone(),
            share,
        }
        .encode();
        let keys = Keys::new(&key, &self.exporter, body, &answer);
        answer.extend_from_slice(&keys.hello2_mac());
        self.stage = Stage::AwaitFinish { keys, from: hello1.from, incarnation: hello1.incarnation, version, cookie };
        Ok(Hello::Answer(answer))
    }

    /// Takes FINISH and checks the caller's proof.
    ///
    /// # Errors
    /// `WrongCookie` or `Malformed`; close without a word.
    pub fn finish(&mut self, body: &[u8]) -> Result<Offer, HandshakeError> {
        let Stage::AwaitFinish { keys, from, incarnation, version, cookie } =
            std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return Err(HandshakeError::Malformed("FINISH out of order"));
        };
        let (bytes, mac) = wire::decode_sealed(wire::FINISH, body)?;
        if !equal(&keys.finish_mac(bytes), &mac) {
            return Err(HandshakeError::WrongCookie);
        }
        let params = Params::decode(bytes)?;
        let offer =
            Offer { from, incarnation, version, link_id: keys.link_id(), params, is_probe: self.is_probe, cookie };
        self.stage = Stage::Decide { keys, params: bytes.to_vec() };
        Ok(offer)
    }

    /// The link stands: gives ACCEPT.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`] when called before [`Responder::finish`] succeeded or twice.
    pub fn accept(&mut self, params: &Params) -> Result<Vec<u8>, HandshakeError> {
        let Stage::Decide { keys, params: offered } = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(HandshakeError::Malformed("ACCEPT out of order"));
        };
        let params = params.encode();
        Ok(wire::encode_sealed(wire::ACCEPT, &params, &keys.accept_mac(&offered, &params)))
    }

    /// No link: gives CLOSE.
    pub fn close(&mut self, code: CloseCode, text: &str) -> Vec<u8> {
        self.stage = Stage::Over;
        wire::encode_close(code, text)
    }
}
