//! Certificates that callers show, and reloading of certificate files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trunkline::{
    CertificateError, Chain, Event, Events, IdentityFiles, Issued, LabAuthority, Listen, Node, ProfileFiles,
    ServerFiles, ServerProfile, StartError, TlsError,
};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";
/// Interval between checks of the files, far shorter than any timeout.
const OFTEN: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn c8_a_listener_demands_certificates_of_its_own_authority() {
    let (servers, clients) = (authority(), authority());
    let profile = |optional| {
        let profile = ServerProfile::new(identity(&servers, DB));
        profile.client_roots_pem(clients.certificate().as_bytes()).unwrap().client_certificate_optional(optional)
    };
    for (optional, shows, lets_in) in [
        (false, None, false),
        (false, Some(&servers), false),
        (false, Some(&clients), true),
        (true, None, true),
        (true, Some(&servers), false),
        (true, Some(&clients), true),
    ] {
        let db = start(dialer(DB).listen(Listen::at(loopback()).tls(profile(optional)))).await;
        let mut shown = trusting(&servers);
        if let Some(authority) = shows {
            shown = shown.identity(identity(authority, "app@127.0.0.1"));
        }
        let route = route_to(&db).tls(true).tls_profile(profile_id("p"));
        let app = start(dialer("app@127.0.0.1").tls_profile(profile_id("p"), shown).route("^db@", route, 1)).await;
        let connected = soon(app.connect(DB)).await;
        assert_eq!(connected.is_ok(), lets_in, "optional: {optional}, shows: {:?}: {connected:?}", shows.is_some());
    }
}

/// A directory with a listener's certificate and a caller's roots.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn show(&self, issued: &Issued) {
        self.write("db.pem", &issued.certificate);
        self.write("db.key", &issued.key);
    }

    fn trust(&self, authorities: &[&LabAuthority]) {
        self.write("roots.pem", &authorities.iter().map(|a| a.certificate()).collect::<String>());
    }

    fn server(&self) -> ServerFiles {
        let identity = IdentityFiles { certificate: self.at("db.pem"), key: self.at("db.key") };
        ServerFiles { identity, client_roots: None, client_certificate_optional: false, cert_name_required: false }
    }

    async fn db(&self) -> Node {
        start(dialer(DB).listen(Listen::at(loopback()).tls(self.server())).certificate_check(OFTEN)).await
    }

    async fn app(&self, db: &Node) -> Node {
        let files = ProfileFiles { roots: Some(self.at("roots.pem")), ..ProfileFiles::default() };
        let route = route_to(db).tls(true).tls_profile(profile_id("lab"));
        let app = dialer("app@127.0.0.1").tls_profile(profile_id("lab"), files).certificate_check(OFTEN);
        start(app.route("^db@", route, 1)).await
    }
}

async fn reloaded(events: &mut Events) -> String {
    soon(async {
        loop {
            if let Event::CertificatesReloaded { what } = events.next().await.expect("the node lives") {
                return what;
            }
        }
    })
    .await
}

/// Waits until this file was refused for this cause. A check between two writes may have found another cause.
async fn kept(events: &mut Events, file: PathBuf, because: fn(&CertificateError) -> bool) {
    soon(async {
        loop {
            if let Event::CertificatesKept { error, .. } = events.next().await.expect("the node lives")
                && because(&error)
            {
                return assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
            }
        }
    })
    .await
}

/// Returns true if a fresh connection can be made; the current one is ended first.
async fn connects(app: &Node) -> bool {
    if let Some(connection) = app.connection(DB) {
        connection.disconnect();
        soon(connection.closed()).await;
    }
    soon(app.connect(DB)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_certificates_and_roots_are_rotated_without_a_restart_or_an_outage() {
    let (old, new, files) = (authority(), authority(), Files::new());
    files.show(&issued(&old, DB, 0));
    files.trust(&[&old]);
    let db = files.db().await;
    let app = files.app(&db).await;
    let (mut of_db, mut of_app) = (db.events(), app.events());
    assert!(connects(&app).await);

    // Both authorities overlap, then the certificate changes, then the old authority is removed.
    files.trust(&[&old, &new]);
    assert_eq!(reloaded(&mut of_app).await, "profile lab");
    assert!(connects(&app).await, "the old certificate is still good");
    files.show(&issued(&new, DB, 0));
    assert_eq!(reloaded(&mut of_db).await, "listener 127.0.0.1:0");
    assert!(app.connection(DB).is_some(), "what is up stays up");
    assert!(connects(&app).await, "the new certificate is trusted too");
    files.trust(&[&new]);
    reloaded(&mut of_app).await;
    assert!(connects(&app).await);

    // The files decided it.
    files.show(&issued(&old, DB, 0));
    reloaded(&mut of_db).await;
    assert!(!connects(&app).await, "the old authority is no longer trusted");
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_an_unusable_file_does_not_replace_a_usable_certificate() {
    let (authority, files) = (authority(), Files::new());
    files.show(&issued(&authority, DB, 0));
    files.trust(&[&authority]);
    let db = files.db().await;
    let app = files.app(&db).await;
    let (mut of_db, mut of_app) = (db.events(), app.events());

    files.write("db.pem", "no certificate at all");
    let is_pem =
        |error: &CertificateError| matches!(error, CertificateError::Unusable { source: TlsError::Pem { .. }, .. });
    kept(&mut of_db, files.at("db.pem"), is_pem).await;
    std::fs::remove_file(files.at("roots.pem")).unwrap();
    let absent = |error: &CertificateError| matches!(error, CertificateError::Unreadable { source, .. } if source.io_kind() == Some(ErrorKind::NotFound));
    kept(&mut of_app, files.at("roots.pem"), absent).await;
    assert!(connects(&app).await, "the last good ones are in use");

    files.show(&issued(&authority, DB, 31));
    let expired =
        |error: &CertificateError| matches!(error, CertificateError::Unusable { source: TlsError::Expired { .. }, .. });
    kept(&mut of_db, files.at("db.pem"), expired).await;
    assert!(connects(&app).await);

    // The key belongs to another certificate. It is refused at once when a reload is requested.
    files.write("db.key", &issued(&authority, DB, 0).key);
    files.write("db.pem", &issued(&authority, DB, 0).certificate);
    let mismatch =
        |error: &CertificateError| matches!(error, CertificateError::Unusable { source: TlsError::KeyMismatch, .. });
    kept(&mut of_db, files.at("db.key"), mismatch).await;
    let error = CertificateError::Unusable { path: files.at("db.key"), source: TlsError::KeyMismatch };
    assert_eq!(db.reload_certificates()[0].error, Some(error), "asked, it says so again");
    files.show(&issued(&authority, DB, 0));
    until(|| db.reload_certificates().is_empty()).await;
    assert!(connects(&app).await);
}

#[tokio::test]
async fn c8_a_node_with_a_certificate_that_cannot_be_used_does_not_start_and_names_the_file() {
    let (authority, files) = (authority(), Files::new());
    let refused = async |path: &Path, says: &str| {
        let profile = ProfileFiles { identity: Some(files.server().identity), ..ProfileFiles::default() };
        for node in [
            dialer(DB).listen(Listen::at(loopback()).tls(files.server())),
            dialer(DB).tls_profile(profile_id("own"), profile),
        ] {
            let Err(StartError::Tls { cause, .. }) = node.start().await else { panic!("it started") };
            let cause = Chain(&cause).to_string();
            assert!(cause.starts_with(&path.display().to_string()), "{cause}");
            assert!(cause.contains(says), "{cause}");
        }
    };
    refused(&files.at("db.pem"), "cannot be read").await;
    files.show(&issued(&authority, DB, 40));
    refused(&files.at("db.pem"), "expired on 20").await;
    files.show(&issued(&authority, DB, 0));
    files.write("db.key", &issued(&authority, DB, 0).key);
    refused(&files.at("db.key"), "does not belong to the certificate").await;
    files.write("db.key", "no key");
    refused(&files.at("db.key"), "no usable private key found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_a_certificate_that_is_not_yet_valid_is_used_once_it_is() {
    let (authority, files) = (authority(), Files::new());
    files.show(&issued(&authority, DB, 0));
    let db = files.db().await;
    let mut events = db.events();
    // A certificate is good from an hour before it is issued.
    files.show(&issued_in(&authority, DB, Duration::from_secs(3602)));
    let early = |error: &CertificateError| {
        matches!(error, CertificateError::Unusable { source: TlsError::NotYetValid { .. }, .. })
    };
    kept(&mut events, files.at("db.pem"), early).await;
    assert_eq!(reloaded(&mut events).await, format!("listener {}", loopback()));
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_a_certificate_that_expires_soon_is_reported_once() {
    let (authority, files) = (authority(), Files::new());
    files.show(&issued(&authority, DB, 29));
    let db = files.db().await;
    let mut events = db.events();
    let told = soon(async {
        loop {
            if let Event::CertificateExpires { what, expires } = events.next().await.expect("the node lives") {
                return (what, expires);
            }
        }
    })
    .await;
    assert_eq!(told.0, format!("listener {}", loopback()));
    let left = told.1.duration_since(today()).unwrap();
    assert!(left < Duration::from_secs(2 * 24 * 3600), "{left:?}");
    // After many checks, a better certificate is installed, which causes no event.
    let mut looks = 0;
    until(|| {
        looks += 1;
        looks > 10
    })
    .await;
    files.show(&issued(&authority, DB, 0));
    soon(async {
        loop {
            match events.next().await.expect("the node lives") {
                Event::CertificatesReloaded { .. } => return,
                Event::CertificateExpires { .. } => panic!("it is told again"),
                _ => {}
            }
        }
    })
    .await;
}
