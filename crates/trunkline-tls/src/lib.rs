//! TLS 1.3 for links between nodes, on rustls: which certificate an end shows, and what it demands of the other end's.
//!
//! - [`TlsProfile`] and [`ClientTls`] are the dialling side, [`ServerProfile`] and [`ServerTls`] the listening side. A profile
//!   in use can be replaced; connections that are up stay up.
//! - [`Certificates`] follows PEM files ([`ProfileFiles`], [`ServerFiles`]) and takes up what changes, all of it or nothing.
//! - [`ClientProfiles`] are the profiles of a node by name, with the choice of the one that a dial uses.
//! - [`LabAuthority`] issues node certificates for a lab.
//!
//! No certificate is needed for encryption: without a profile the cookie proves the other end, by a key exchange that is bound
//! to the TLS connection (`trunkline-wire`).
//!
//! # Features
//! `tls-ring` (default) or `tls-aws-lc` chooses the cryptography. Without either everything compiles, and every configuration
//! is refused by [`TlsError::NoProvider`].

mod certificate;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
mod lab;
mod pem;
mod profile;
mod profiles;
mod provider;
mod subject;

pub use certificate::{Identity, told};
pub use error::TlsError;
pub use files::{
    CHECK, CertificateError, Certificates, EXPIRES_SOON, Expiring, IdentityFiles, ProfileFiles, ProfileSource,
    Reloaded, ServerFiles, ServerSource,
};
#[cfg(any(feature = "tls-ring", feature = "tls-aws-lc"))]
pub use lab::{Issued, LabAuthority};
pub use pem::PemError;
pub use profile::{ALPN, ClientAuth, ClientTls, ServerProfile, ServerTls, TlsProfile, names_node};
pub use profiles::ClientProfiles;
