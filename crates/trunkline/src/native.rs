//! The native stack of a node: the only part of this crate that names a stack.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use trunkline_dial::sessions::Keys;
use trunkline_link::{CredentialsFn, Native, NativeStack};
use trunkline_matcher::AccessPattern;
use trunkline_proxy::Proxied;
use trunkline_route::{Cookies, NodeName};
use trunkline_stack::{Answering, Listening};
use trunkline_tls::{CertificateError, Certificates, ClientProfiles, ServerTls};
use trunkline_wire::handshake::Credential;

use crate::builder::{Listen, NodeBuilder};
use crate::{StartError, TlsError};

/// The native stack of a node that starts, with what belongs to it alone.
pub(crate) struct NativeParts {
    pub(crate) native: Arc<Native>,
    pub(crate) stack: Arc<NativeStack>,
    pub(crate) listeners: Vec<Box<dyn Listening>>,
    pub(crate) answering: Arc<dyn Answering>,
    pub(crate) certificates: Certificates,
    /// The names of the TLS profiles that routes may use.
    pub(crate) profiles: Arc<ClientProfiles>,
}

impl NativeParts {
    /// Reads certificates and binds listeners, as the builder says. Callers that come through others are judged by `proxied`.
    pub(crate) fn new(
        builder: &NodeBuilder,
        keys: &Arc<Keys>,
        proxied: &Arc<RwLock<Proxied>>,
    ) -> Result<Self, StartError> {
        let native = Native::of_instance(builder.name.clone(), builder.incarnation, builder.limits);
        let certificates = Certificates::default();
        let mut named = BTreeMap::new();
        for (id, profile) in &builder.profiles {
            let what = format!("profile {id}");
            named.insert(id.clone(), certificates.client(what.clone(), profile).map_err(unusable(&what))?);
        }
        let profiles = Arc::new(ClientProfiles::new(named).map_err(no_default)?);
        let stack = Arc::new(NativeStack::new(native.clone(), profiles.clone(), builder.times));
        let (mut listeners, mut strictest) = (Vec::new(), None::<ServerTls>);
        for listen in &builder.listen {
            let address = listen.address;
            let what = format!("listener {address}");
            let tls = certificates.server(what.clone(), &listen.tls).map_err(unusable(&what))?;
            // Who comes through others meets the listener that demands most; of equals, the first.
            if strictest.as_ref().is_none_or(|strictest| strictest.client_auth() < tls.client_auth()) {
                strictest = Some(tls.clone());
            }
            let credentials = listener_credentials(&builder.name, listen, keys.clone());
            let listener = stack.listen(address, tls, credentials);
            listeners.push(listener.map_err(|cause| StartError::Listen { address, cause })?);
        }
        let inside = match strictest {
            Some(tls) => tls,
            None => ServerTls::ephemeral().map_err(no_default)?,
        };
        // The names that each listener with a list allows.
        let allowed: Vec<_> = builder.listen.iter().filter_map(|listen| listen.allow.clone()).collect();
        let may_come = proxied.clone();
        let allows =
            move |from: &NodeName| may_come.read().unwrap_or_else(PoisonError::into_inner).allows(from, &allowed);
        let answering = stack.answering(inside, credentials(&builder.name, allows, None, keys.clone()));
        Ok(Self { native, stack, listeners, answering, certificates, profiles })
    }
}

fn unusable(what: &str) -> impl Fn(CertificateError) -> StartError {
    let what = what.to_owned();
    move |cause| StartError::Tls { what: what.clone(), cause }
}

fn no_default(cause: TlsError) -> StartError {
    StartError::Tls { what: "default".into(), cause: cause.into() }
}

/// Returns what callers must prove: a guest its own cookie; a name claimed by a `peers` entry proves a cookie of that entry and no other, other names
/// one of the listener's own if it has one, else one of the node's. No caller may have the name of this node.
fn credentials(
    name: &NodeName,
    allows: impl Fn(&NodeName) -> bool + Send + Sync + 'static,
    own: Option<Cookies>,
    keys: Arc<Keys>,
) -> Box<CredentialsFn> {
    let name = name.clone();
    Box::new(move |from: &NodeName, label: &str| {
        if let Some(cookie) = keys.of_guest(from) {
            return Credential::Cookie(cookie);
        }
        if *from == name || !allows(from) {
            return Credential::NotAllowed;
        }
        let cookies = keys.of_peer(from).or(own.as_ref()).unwrap_or(keys.node());
        Credential::Cookie(cookies.labelled(label).clone())
    })
}

fn listener_credentials(name: &NodeName, listen: &Listen, keys: Arc<Keys>) -> Box<CredentialsFn> {
    let allow: Option<Vec<AccessPattern>> = listen.allow.clone();
    let allows = move |from: &NodeName| {
        allow.as_ref().is_none_or(|allow| allow.iter().any(|names| names.is_match(from.as_str())))
    };
    credentials(name, allows, listen.cookie.clone(), keys)
}

/// Returns what callers of the registrar must prove: a name that an entry claims announces itself by that cookie.
pub(crate) fn registrar_credentials(keys: Arc<Keys>) -> Box<CredentialsFn> {
    Box::new(move |from: &NodeName, label: &str| Credential::Cookie(keys.of(from).labelled(label).clone()))
}
