//! The password-authenticated key exchange that proves the cookie, behind a small trait.

use curve25519_dalek::edwards::CompressedEdwardsY;
use spake2::{Ed25519Group, Identity, Password, Spake2 as Exchange};
use trunkline_route::Role;
use zeroize::Zeroizing;

/// A key exchange in which both ends get the same key exactly when they hold the same secret and agree on both
/// names, and in which nobody can test guesses off-line.
///
/// ```
/// use trunkline_route::Role;
/// use trunkline_wire::pake::{Pake, Spake2};
///
/// let start = |role, secret: &str| Spake2::start(role, secret.as_bytes(), b"app@lab", b"db@lab");
/// let (app, to_db) = start(Role::Initiator, "a shared secret");
/// let (db, to_app) = start(Role::Responder, "a shared secret");
/// assert_eq!(app.finish(&to_app), db.finish(&to_db));
/// ```
pub trait Pake: Send + Sized + 'static {
    /// Begins, and gives the share to send. `initiator` and `responder` are the names both ends claim.
    fn start(role: Role, secret: &[u8], initiator: &[u8], responder: &[u8]) -> (Self, Vec<u8>);

    /// Takes the other end's share and gives the key, or `None` for a share that is malformed or degenerate
    /// (the identity and the points of small order included).
    fn finish(self, share: &[u8]) -> Option<Zeroizing<Vec<u8>>>;
}

/// SPAKE2 over edwards25519 in its two-sided form, by the `spake2` crate (unaudited).
pub struct Spake2 {
    exchange: Exchange<Ed25519Group>,
}

impl Pake for Spake2 {
    fn start(role: Role, secret: &[u8], initiator: &[u8], responder: &[u8]) -> (Self, Vec<u8>) {
        let (password, a, b) = (Password::new(secret), Identity::new(initiator), Identity::new(responder));
        let (exchange, share) = match role {
            Role::Initiator => Exchange::start_a(&password, &a, &b),
            Role::Responder => Exchange::start_b(&password, &a, &b),
        };
        (Self { exchange }, share)
    }

    fn finish(self, share: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        // The crate takes any point; a point of small order would confine the key to eight values.
        let point = CompressedEdwardsY::from_slice(share.get(1..)?).ok()?.decompress()?;
        if point.is_small_order() {
            return None;
        }
        self.exchange.finish(share).ok().map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(secret_a: &str, secret_b: &str, name_b: &str) -> (Vec<u8>, Vec<u8>) {
        let (a, share_a) = Spake2::start(Role::Initiator, secret_a.as_bytes(), b"a@h", b"b@h");
        let (b, share_b) = Spake2::start(Role::Responder, secret_b.as_bytes(), b"a@h", name_b.as_bytes());
        (a.finish(&share_b).unwrap().to_vec(), b.finish(&share_a).unwrap().to_vec())
    }

    #[test]
    fn keys_agree_exactly_when_secret_and_names_do() {
        let (a, b) = run("secret-1", "secret-1", "b@h");
        assert_eq!(a, b);
        let (a, b) = run("secret-1", "secret-2", "b@h");
        assert_ne!(a, b);
        let (a, b) = run("secret-1", "secret-1", "c@h");
        assert_ne!(a, b);
    }

    #[test]
    fn degenerate_and_malformed_shares_are_refused() {
        let mut identity = vec![b'B'; 33];
        identity[1..].fill(0);
        identity[1] = 1;
        let order_four = [vec![b'B'], vec![0; 32]].concat();
        for share in [identity, order_four, vec![], vec![b'B'], vec![b'B'; 32], vec![b'B'; 34]] {
            let (a, _) = Spake2::start(Role::Initiator, b"secret-1", b"a@h", b"b@h");
            assert!(a.finish(&share).is_none(), "{share:?}");
        }
    }

    #[test]
    fn a_reflected_share_is_refused() {
        let (a, share) = Spake2::start(Role::Initiator, b"secret-1", b"a@h", b"b@h");
        assert!(a.finish(&share).is_none());
    }
}
