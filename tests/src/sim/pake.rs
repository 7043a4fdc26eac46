//! Key exchange without cryptography, fast enough for a hundred thousand handshakes in a debug build.

use trunkline_route::Role;
use trunkline_wire::pake::Pake;
use zeroize::Zeroizing;

/// Key exchange in which both ends get the same key exactly when secret and names are the same. The simulator needs
/// nothing else.
#[derive(Debug)]
pub struct FakePake(Vec<u8>);

const SHARE: usize = 33;

impl Pake for FakePake {
    fn start(role: Role, secret: &[u8], initiator: &[u8], responder: &[u8]) -> (Self, Vec<u8>) {
        (Self([secret, b"/", initiator, b"/", responder].concat()), vec![role as u8; SHARE])
    }

    fn finish(self, share: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (share.len() == SHARE).then(|| Zeroizing::new(self.0))
    }
}
