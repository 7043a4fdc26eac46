use trunkline_route::Cause;

use crate::pem::PemError;

/// Error returned when a TLS configuration cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate or key cannot be used.
    #[error("the certificate or key cannot be used")]
    Certificate(#[source] Cause),
    /// The certificate has expired.
    #[error("{which} expired on {on}; give a newer one")]
    Expired {
        /// The certificate's place in the text, and its subject.
        which: String,
        /// The day, as `YYYY-MM-DD` in UTC.
        on: String,
    },
    /// The key is not that of the certificate.
    #[error("the key does not belong to the certificate; name the two files that were made together")]
    KeyMismatch,
    /// Neither `tls-ring` nor `tls-aws-lc` is compiled in.
    #[error("no TLS provider is compiled in; enable the feature tls-ring or tls-aws-lc")]
    NoProvider,
    /// The validity of the certificate has not begun.
    #[error("{which} is not valid before {from}, and this machine's clock says {today}; set the clock, or wait")]
    NotYetValid {
        /// The certificate's place in the text, and its subject.
        which: String,
        /// The day, as `YYYY-MM-DD` in UTC.
        from: String,
        /// The day by this machine's clock, as above.
        today: String,
    },
    /// The PEM text holds nothing of the kind, or what cannot be read.
    #[error("no usable {what} found")]
    Pem {
        /// The kind of block that was looked for: `certificate` or `private key`.
        what: &'static str,
        /// Fault of the text.
        source: PemError,
    },
    /// The roots are empty or unusable.
    #[error("the roots cannot be used")]
    Roots(#[source] Cause),
    /// The server name is no DNS name or address.
    #[error("{0:?} is no server name")]
    ServerName(String),
}
