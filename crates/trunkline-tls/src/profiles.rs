//! The profiles of a node, and the one that a dial uses.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use trunkline_route::{TlsMode, TlsProfileId};

use crate::{ClientTls, TlsError, TlsProfile};

/// The TLS profiles that the routes of a node may name, ready to dial with.
#[derive(Debug)]
pub struct ClientProfiles {
    named: BTreeMap<TlsProfileId, ClientTls>,
    /// For dials that verify nothing.
    plain: ClientTls,
    /// For dials that verify against the roots of the platform, which are read for the first of them.
    platform: OnceLock<ClientTls>,
}

impl ClientProfiles {
    /// Returns the profiles with these names, beside those that need none.
    ///
    /// # Errors
    /// [`TlsError::NoProvider`] when the crate was built without cryptography.
    pub fn new(named: BTreeMap<TlsProfileId, ClientTls>) -> Result<Self, TlsError> {
        Ok(Self { named, plain: ClientTls::new(&TlsProfile::default().no_roots())?, platform: OnceLock::new() })
    }

    /// Returns the names of the profiles, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &TlsProfileId> {
        self.named.keys()
    }

    /// Returns the configuration of a dial of this mode. A mode without a profile, or with one that is not there, verifies
    /// against the roots of the platform if it verifies at all.
    ///
    /// # Errors
    /// [`TlsError`] when the platform's roots cannot be read.
    pub fn of(&self, mode: &TlsMode) -> Result<ClientTls, TlsError> {
        match (mode.profile().and_then(|id| self.named.get(id)), mode) {
            (Some(tls), _) => Ok(tls.clone()),
            (None, TlsMode::Verify(_)) => {
                if let Some(tls) = self.platform.get() {
                    return Ok(tls.clone());
                }
                let tls = ClientTls::new(&TlsProfile::default())?;
                Ok(self.platform.get_or_init(|| tls).clone())
            }
            (None, _) => Ok(self.plain.clone()),
        }
    }
}
