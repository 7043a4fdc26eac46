//! Keys that both ends derive from the key exchange, the transcript and the TLS exporter.

use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use trunkline_route::{LinkId, Role};
use zeroize::Zeroizing;

use super::Exporter;
use super::wire::MAC_LEN;

/// The label of the TLS exporter (RFC 8446 §7.5) that binds the handshake to its connection.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-trunkline-tlk1";

pub(super) struct Keys {
    expander: Hkdf<Sha256>,
    transcript: [u8; 32],
}

impl Keys {
    /// `TH = SHA-256(lv("tlk1"), lv(HELLO1), lv(HELLO2 without MAC), lv(exporter))`,
    /// `PRK = HKDF-Extract(salt = exporter, PAKE key)`; lengths as `u32`.
    pub(super) fn new(pake: &Zeroizing<Vec<u8>>, exporter: &Exporter, hello1: &[u8], hello2: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [b"tlk1".as_slice(), hello1, hello2, exporter] {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part);
        }
        Self { expander: Hkdf::new(Some(exporter), pake), transcript: hash.finalize().into() }
    }

    fn expand<const N: usize>(&self, label: &str) -> Zeroizing<[u8; N]> {
        let mut out = Zeroizing::new([0; N]);
        self.expander.expand(label.as_bytes(), &mut *out).expect("both lengths are far below 255 hashes");
        out
    }

    fn mac(&self, label: &str, params: &[&[u8]]) -> [u8; MAC_LEN] {
        let key = self.expand::<32>(label);
        let mut mac = Hmac::<Sha256>::new_from_slice(&*key).expect("HMAC takes any key length");
        mac.update(&self.transcript);
        for part in params {
            mac.update(&(part.len() as u32).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The responder's proof in HELLO2.
    pub(super) fn hello2_mac(&self) -> [u8; MAC_LEN] {
        self.mac("responder", &[])
    }

    /// The initiator's proof in FINISH.
    pub(super) fn finish_mac(&self, params: &[u8]) -> [u8; MAC_LEN] {
        self.mac("initiator", &[params])
    }

    /// The responder's seal in ACCEPT, over both sets of parameters.
    pub(super) fn accept_mac(&self, initiator: &[u8], responder: &[u8]) -> [u8; MAC_LEN] {
        self.mac("accept", &[initiator, responder])
    }

    pub(super) fn link_id(&self) -> LinkId {
        LinkId::new(*self.expand::<16>("link"))
    }
}

pub(super) fn equal(a: &[u8; MAC_LEN], b: &[u8; MAC_LEN]) -> bool {
    a.ct_eq(b).into()
}

/// The names the key exchange is bound to, by role.
pub(super) fn identities<'a>(role: Role, own: &'a str, peer: &'a str) -> (&'a [u8], &'a [u8]) {
    match role {
        Role::Initiator => (own.as_bytes(), peer.as_bytes()),
        Role::Responder => (peer.as_bytes(), own.as_bytes()),
    }
}
