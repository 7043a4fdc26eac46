//! Certificates in files: read when the node starts, and again whenever they change.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use trunkline_route::Cause;
use zeroize::Zeroizing;

use crate::{ClientTls, Identity, ServerProfile, ServerTls, TlsError, TlsProfile};

/// Default period between two looks at the files: soon enough for a certificate that is renewed a day before it expires, and
/// no load.
pub const CHECK: Duration = Duration::from_secs(5);

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The certificate, the node's own first.
    pub certificate: PathBuf,
    /// Key of the certificate.
    pub key: PathBuf,
}

/// A [`TlsProfile`] in PEM files. What is `None` is as in [`TlsProfile::default`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileFiles {
    /// Trusted instead of the platform's roots. During a rotation it holds both, the old one and the new one.
    pub roots: Option<PathBuf>,
    /// Shown to listeners that ask for a certificate.
    pub identity: Option<IdentityFiles>,
    /// Expected in the peer's certificate instead of the host dialled.
    pub server_name: Option<String>,
    /// Demands the name of the node dialled in its certificate; see [`TlsProfile::cert_name_required`].
    pub cert_name_required: bool,
}

/// A [`ServerProfile`] in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Shown to callers.
    pub identity: IdentityFiles,
    /// Demanded of callers: a certificate that one of these signed. `None`: none is asked for.
    pub client_roots: Option<PathBuf>,
    /// Lets callers in that show no certificate.
    pub client_certificate_optional: bool,
    /// Demands the caller's name in its certificate; see [`ServerProfile::cert_name_required`].
    pub cert_name_required: bool,
}

/// Source of a TLS profile.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ProfileSource {
    /// A profile that stays as given.
    Fixed(TlsProfile),
    /// Files that are followed.
    Files(ProfileFiles),
}

impl From<TlsProfile> for ProfileSource {
    fn from(profile: TlsProfile) -> Self {
        Self::Fixed(profile)
    }
}

impl From<ProfileFiles> for ProfileSource {
    fn from(files: ProfileFiles) -> Self {
        Self::Files(files)
    }
}

/// Source of the certificate of a listener.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServerSource {
    /// A self-signed one that nobody is meant to check, fresh at every start.
    Ephemeral,
    /// A profile that stays as given.
    Fixed(ServerProfile),
    /// Files that are followed.
    Files(ServerFiles),
}

impl From<Identity> for ServerSource {
    fn from(identity: Identity) -> Self {
        Self::Fixed(identity.into())
    }
}

impl From<ServerProfile> for ServerSource {
    fn from(profile: ServerProfile) -> Self {
        Self::Fixed(profile)
    }
}

impl From<ServerFiles> for ServerSource {
    fn from(files: ServerFiles) -> Self {
        Self::Files(files)
    }
}

/// Error returned when certificates cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Error of the operating system; see [`Cause::io_kind`].
        source: Cause,
    },
    /// The content of a file cannot be used.
    #[error("{}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Reason.
        source: TlsError,
    },
    /// A profile that the program gave cannot be used.
    #[error(transparent)]
    Given(#[from] TlsError),
}

impl CertificateError {
    /// Returns true if only the time of validity is wrong, and is still to come.
    fn is_early(&self) -> bool {
        matches!(self, Self::Unusable { source: TlsError::NotYetValid { .. }, .. })
    }
}

/// So long before a certificate in use expires, its node says so.
pub const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Soon,
    Over,
}

/// A certificate in use that expires soon, or has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiring {
    /// Owner of the certificate: `profile ID` or `listener ADDRESS`.
    pub what: String,
    /// End of its validity.
    pub expires: SystemTime,
    /// True if that end has passed.
    pub is_over: bool,
}

/// Result of taking up files that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Owner of the files: `profile ID` or `listener ADDRESS`.
    pub what: String,
    /// Reason why they are not in use; the former content still is.
    pub error: Option<CertificateError>,
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let unreadable =
        |error: std::io::Error| CertificateError::Unreadable { path: path.to_owned(), source: error.into() };
    Ok(Zeroizing::new(std::fs::read(path).map_err(unreadable)?))
}

fn unusable(path: &Path) -> impl FnOnce(TlsError) -> CertificateError {
    |source| CertificateError::Unusable { path: path.to_owned(), source }
}

impl IdentityFiles {
    fn read(&self) -> Result<Identity, CertificateError> {
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        Identity::from_pem(&certificate, &key).map_err(|cause| self.blame(cause))
    }

    fn blame(&self, cause: TlsError) -> CertificateError {
        let about_key = matches!(cause, TlsError::KeyMismatch | TlsError::Pem { what: "private key", .. });
        unusable(if about_key { &self.key } else { &self.certificate })(cause)
    }
}

fn paths<'a>(roots: Option<&'a PathBuf>, identity: Option<&'a IdentityFiles>) -> Vec<&'a Path> {
    let identity = identity.into_iter().flat_map(|files| [files.certificate.as_path(), &files.key]);
    roots.into_iter().map(PathBuf::as_path).chain(identity).collect()
}

/// Tells contents apart; what cannot be read has one too.
fn fingerprint(files: &[&Path]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        read(file).ok().as_deref().hash(&mut hasher);
    }
    hasher.finish()
}

/// The file a fault of the whole is about.
fn blame(roots: Option<&PathBuf>, identity: Option<&IdentityFiles>, cause: TlsError) -> CertificateError {
    match (roots, identity, &cause) {
        (Some(roots), _, TlsError::Roots(_)) => unusable(roots)(cause),
        (_, Some(identity), _) => identity.blame(cause),
        (Some(roots), None, _) => unusable(roots)(cause),
        (None, None, _) => cause.into(),
    }
}

impl ProfileFiles {
    fn read(&self) -> Result<TlsProfile, CertificateError> {
        let mut profile = TlsProfile::default();
        if let Some(roots) = &self.roots {
            profile = profile.roots_pem(&read(roots)?).map_err(unusable(roots))?;
        }
        if let Some(identity) = &self.identity {
            profile = profile.identity(identity.read()?);
        }
        if let Some(name) = &self.server_name {
            profile = profile.server_name(name);
        }
        Ok(profile.cert_name_required(self.cert_name_required))
    }

    fn paths(&self) -> Vec<&Path> {
        paths(self.roots.as_ref(), self.identity.as_ref())
    }

    fn blame(&self, cause: TlsError) -> CertificateError {
        blame(self.roots.as_ref(), self.identity.as_ref(), cause)
    }
}

impl ServerFiles {
    fn read(&self) -> Result<ServerProfile, CertificateError> {
        let mut profile = ServerProfile::new(self.identity.read()?);
        if let Some(roots) = &self.client_roots {
            profile = profile.client_roots_pem(&read(roots)?).map_err(unusable(roots))?;
        }
        let profile = profile.client_certificate_optional(self.client_certificate_optional);
        Ok(profile.cert_name_required(self.cert_name_required))
    }

    fn paths(&self) -> Vec<&Path> {
        paths(self.client_roots.as_ref(), Some(&self.identity))
    }

    fn blame(&self, cause: TlsError) -> CertificateError {
        blame(self.client_roots.as_ref(), Some(&self.identity), cause)
    }
}

/// Returns what is in a chain and of no use, with the file.
fn left_out(identity: Option<&IdentityFiles>) -> Vec<String> {
    let read = |files: &IdentityFiles| Some((files.certificate.display().to_string(), files.read().ok()?.left_out()));
    let (path, left_out) = identity.and_then(read).unwrap_or_default();
    left_out
        .into_iter()
        .map(|reason| format!("{path}: {reason}; meanwhile it is left out, since nothing needs it"))
        .collect()
}

impl ProfileSource {
    /// Checks that it can be used now, and returns what deserves attention: certificates of the chain that are not needed and not in
    /// their time, which peers are not shown.
    ///
    /// # Errors
    /// [`CertificateError`] names the file.
    pub fn check(&self) -> Result<Vec<String>, CertificateError> {
        self.ready()?;
        Ok(match self {
            Self::Files(files) => left_out(files.identity.as_ref()),
            Self::Fixed(_) => Vec::new(),
        })
    }

    fn ready(&self) -> Result<ClientTls, CertificateError> {
        match self {
            Self::Fixed(profile) => Ok(ClientTls::new(profile)?),
            Self::Files(files) => ClientTls::new(&files.read()?).map_err(|cause| files.blame(cause)),
        }
    }
}

impl ServerSource {
    /// Checks that it can be used now; see [`ProfileSource::check`].
    ///
    /// # Errors
    /// [`CertificateError`] names the file.
    pub fn check(&self) -> Result<Vec<String>, CertificateError> {
        self.ready()?;
        Ok(match self {
            Self::Files(files) => left_out(Some(&files.identity)),
            Self::Fixed(_) | Self::Ephemeral => Vec::new(),
        })
    }

    fn ready(&self) -> Result<ServerTls, CertificateError> {
        match self {
            Self::Ephemeral => Ok(ServerTls::ephemeral()?),
            Self::Fixed(profile) => Ok(ServerTls::new(profile)?),
            Self::Files(files) => ServerTls::new(&files.read()?).map_err(|cause| files.blame(cause)),
        }
    }
}

/// Files and what follows them.
#[derive(Debug)]
enum Follower {
    Profile(ProfileFiles, ClientTls),
    Server(ServerFiles, ServerTls),
}

impl Follower {
    fn fingerprint(&self) -> u64 {
        fingerprint(&match self {
            Self::Profile(files, _) => files.paths(),
            Self::Server(files, _) => files.paths(),
        })
    }

    fn identity(&self) -> Option<&IdentityFiles> {
        match self {
            Self::Profile(files, _) => files.identity.as_ref(),
            Self::Server(files, _) => Some(&files.identity),
        }
    }

    /// Returns the time at which the certificate that this end shows expires.
    fn expires(&self) -> Option<SystemTime> {
        self.identity()?.read().ok()?.expires()
    }

    /// Logs what is in the chain and of no use.
    fn log_left_out(&self, what: &str) {
        for warning in left_out(self.identity()) {
            tracing::warn!(what, "{warning}");
        }
    }

    fn reload(&self) -> Result<(), CertificateError> {
        match self {
            Self::Profile(files, tls) => tls.replace(&files.read()?).map_err(|cause| files.blame(cause)),
            Self::Server(files, tls) => tls.replace(&files.read()?).map_err(|cause| files.blame(cause)),
        }
    }
}

#[derive(Debug)]
struct Watched {
    what: String,
    follower: Follower,
    /// The contents last taken up, or refused.
    judged: u64,
    refused: bool,
    /// True if the files were refused because their time of validity has not begun.
    early: bool,
    /// The contents seen at the last look.
    seen: u64,
    /// Expiry of the certificate in use, and how much of it was reported.
    expires: Option<SystemTime>,
    told: Option<Expiry>,
}

/// Every certificate of a node that follows its files.
///
/// ```
/// use std::time::SystemTime;
/// use trunkline_tls::{Certificates, LabAuthority, ProfileFiles};
///
/// let directory = std::env::temp_dir().join(format!("certificates-{}", std::process::id()));
/// std::fs::create_dir_all(&directory)?;
/// let roots = directory.join("ca.pem");
/// std::fs::write(&roots, LabAuthority::new(SystemTime::now(), 365)?.certificate())?;
///
/// let certificates = Certificates::default();
/// let files = ProfileFiles { roots: Some(roots.clone()), ..ProfileFiles::default() };
/// let _tls = certificates.client("profile office".into(), &files.into())?;
/// assert!(certificates.look(true).is_empty());
///
/// // The next look takes up the new roots.
/// std::fs::write(&roots, LabAuthority::new(SystemTime::now(), 365)?.certificate())?;
/// assert_eq!(certificates.look(true)[0].error, None);
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Certificates(Mutex<Vec<Watched>>);

impl Certificates {
    fn watch(&self, what: String, follower: Follower, judged: u64) {
        let expires = follower.expires();
        follower.log_left_out(&what);
        let watched =
            Watched { what, follower, judged, refused: false, early: false, seen: judged, expires, told: None };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
    }

    /// Makes a profile for dialling ready, and follows its files if it has some. `what` names it in events and log lines.
    ///
    /// # Errors
    /// [`CertificateError`] names the file that cannot be used; nothing is followed.
    pub fn client(&self, what: String, source: &ProfileSource) -> Result<ClientTls, CertificateError> {
        let ProfileSource::Files(files) = source else { return source.ready() };
        // What is written from now on is taken up later.
        let judged = fingerprint(&files.paths());
        let tls = source.ready()?;
        self.watch(what, Follower::Profile(files.clone(), tls.clone()), judged);
        Ok(tls)
    }

    /// Makes the profile of a listener ready; see [`Certificates::client`].
    ///
    /// # Errors
    /// As [`Certificates::client`].
    pub fn server(&self, what: String, source: &ServerSource) -> Result<ServerTls, CertificateError> {
        let ServerSource::Files(files) = source else { return source.ready() };
        let judged = fingerprint(&files.paths());
        let tls = source.ready()?;
        self.watch(what, Follower::Server(files.clone(), tls.clone()), judged);
        Ok(tls)
    }

    /// Returns true if no files are followed.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Takes up what changed. Unless told to do so `at_once`, it waits until two looks in a row see the same: a
    /// certificate and its key are not written in one moment. One whose time has not come is tried again at every look.
    pub fn look(&self, at_once: bool) -> Vec<Reloaded> {
        let mut done = Vec::new();
        for watched in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let now = watched.follower.fingerprint();
            let settled = std::mem::replace(&mut watched.seen, now) == now;
            let changed = now != watched.judged && (settled || at_once);
            let asked = changed || (at_once && watched.refused);
            if asked || watched.early {
                watched.judged = now;
                let error = watched.follower.reload().err();
                watched.refused = error.is_some();
                watched.early = error.as_ref().is_some_and(CertificateError::is_early);
                if error.is_none() {
                    (watched.expires, watched.told) = (watched.follower.expires(), None);
                    watched.follower.log_left_out(&watched.what);
                }
                if asked || !watched.early {
                    done.push(Reloaded { what: watched.what.clone(), error });
                }
            }
        }
        done
    }

    /// Returns the certificates in use that expire soon or have expired, each state once.
    pub fn expiring(&self, now: SystemTime) -> Vec<Expiring> {
        let mut found = Vec::new();
        for watched in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let Some(expires) = watched.expires else { continue };
            let expiry = match expires.duration_since(now) {
                Ok(left) if left > EXPIRES_SOON => continue,
                Ok(left) if left > Duration::ZERO => Expiry::Soon,
                _ => Expiry::Over,
            };
            if watched.told.replace(expiry) != Some(expiry) {
                found.push(Expiring { what: watched.what.clone(), expires, is_over: expiry == Expiry::Over });
            }
        }
        found
    }
}
