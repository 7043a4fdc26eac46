use std::convert::Infallible;
use std::net::{AddrParseError, SocketAddr};

use trunkline_dial::AddError;
use trunkline_mesh::ClusterNameError;
use trunkline_registrar::{OfferError, RegisterError};
use trunkline_route::{CookieError, ResolverId};

use crate::CertificateError;

/// Reason why a node did not start. Nothing of it runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name given to [`NodeBuilder::cluster`](crate::NodeBuilder::cluster) cannot be used.
    #[error(transparent)]
    Cluster(#[from] ClusterNameError),
    /// The text given to [`NodeBuilder::cookie`](crate::NodeBuilder::cookie) is not a cookie.
    #[error("the cookie cannot be used")]
    Cookie(#[source] CookieError),
    /// A listener cannot be had.
    #[error("cannot listen at {address}; choose another port, or 0 for any free one")]
    Listen {
        /// Address.
        address: SocketAddr,
        /// Cause.
        #[source]
        cause: std::io::Error,
    },
    /// A text given to [`NodeBuilder::listen`](crate::NodeBuilder::listen) is not a socket address.
    #[error(transparent)]
    ListenAddress(ListenError),
    /// The builder was given no cookie.
    #[error("a node needs a cookie; give it one with .cookie(…)")]
    NoCookie,
    /// The registrar's port cannot be had and is not in use by another registrar either.
    #[error("the registrar cannot listen at {address}")]
    RegistrarListen {
        /// Address.
        address: SocketAddr,
        /// Cause.
        #[source]
        cause: std::io::Error,
    },
    /// The builder was given a second registrar after a first one.
    #[error(
        "a node has one registrar, and two were named; keep one, and add the other as a resolver with .discovery(…)"
    )]
    RegistrarConflict,
    /// The node may not announce these services.
    #[error("the services of the node cannot be announced")]
    Offer(#[from] OfferError),
    /// The registrar did not take the registration.
    #[error(transparent)]
    Registrar(#[from] RegisterError),
    /// A route of the builder is wrong.
    #[error("route {pattern:?}")]
    Route {
        /// Pattern of the route.
        pattern: String,
        /// Cause.
        #[source]
        cause: AddError,
    },
    /// Discovery is to ask a resolver that the builder was not given.
    #[error("discovery asks the resolver {0}, which the node does not have; give it one with .resolver({0}, …)")]
    UnknownResolver(ResolverId),
    /// A TLS profile or a listener's certificate is wrong.
    #[error("TLS ({what})")]
    Tls {
        /// Owner of the certificate: `profile ID`, `listener ADDRESS` or `default`.
        what: String,
        /// Cause.
        #[source]
        cause: CertificateError,
    },
}

/// Error returned when a text is not a socket address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen at {address:?}; write an IP address and a port, such as 0.0.0.0:4370")]
pub struct ListenError {
    /// The text, at most 64 characters of it.
    pub(crate) address: String,
    #[source]
    pub(crate) cause: AddrParseError,
}

impl From<Infallible> for ListenError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Error returned when a node may not announce what it serves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// No registrar takes such services.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The registrar refused.
    #[error(transparent)]
    Refused(#[from] RegisterError),
}
