use std::fmt::Debug;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use trunkline::Cookie;
use trunkline_config::{Config, Layers};
use trunkline_tests::support::*;

const CANARY: &str = "canary-4f1c9be07d52a863";

/// All output that a user or an operator could see.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<u8>>>);

impl Write for Seen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Seen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Seen {
    fn debug(&self, value: &impl Debug) {
        writeln!(&mut self.clone(), "{value:?}\n{value:#?}").unwrap();
    }

    fn both(&self, value: &(impl Debug + std::fmt::Display)) {
        self.debug(value);
        writeln!(&mut self.clone(), "{value}").unwrap();
    }

    /// Returns true if the output contains the secret, as text or in the other usual forms of printing bytes.
    fn holds(&self, secret: &str) -> bool {
        let seen = String::from_utf8_lossy(&self.0.lock().unwrap()).to_lowercase();
        let part = &secret.as_bytes()[..12];
        let hex: String = part.iter().map(|b| format!("{b:02x}")).collect();
        let list = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        [&secret[..12], &hex, &list].iter().any(|form| seen.contains(*form))
    }
}

fn configurations(seen: &Seen) {
    let dir = tempfile::tempdir().unwrap();
    for (file, mode) in [("secret", 0o600), ("open", 0o644)] {
        std::fs::write(dir.path().join(file), CANARY).unwrap();
        std::fs::set_permissions(dir.path().join(file), Permissions::from_mode(mode)).unwrap();
    }
    let good = "node: { name: 'app@127.0.0.1', cookie_file: secret }\nroutes: [{ match: '^db@', host: h, port: 1, cookie_file: secret }]\n";
    let layers = |set: &str| Layers {
        environment: vec![("APP_COOKIE".into(), CANARY.into())],
        set: if set.is_empty() { vec![] } else { vec![set.into()] },
    };
    let parse = |text: &str, set: &str| Config::parse(text, dir.path(), "app.yaml", &layers(set));
    let config = parse(good, "").unwrap();
    assert_eq!(config.node.cookie.current(), &Cookie::new(CANARY).unwrap());
    seen.debug(&config);
    seen.debug(&config.warnings());
    seen.debug(&layers(&format!("node.cookie={CANARY}")));
    let bad = [
        format!("node: {{ name: 'app@127.0.0.1', cookie: {CANARY} }}"),
        format!("node: {{ name: 'app@127.0.0.1', cookie_env: {CANARY} }}"),
        "node: { nmae: 'app@127.0.0.1', cookie_file: secret, tls: 3 }".into(),
        "node: { name: 'app@127.0.0.1', cookie_file: open }".into(),
        "node: { name: nobody, cookie_env: APP_COOKIE }\nroutes: [{ match: '(', cookie_file: secret }]".into(),
    ];
    // The file is not a configuration at all, for example the cookie file itself.
    let other =
        ["CANARY", "*CANARY", "!CANARY x", "'CANARY", "[CANARY", "&CANARY [*CANARY]", "%CANARY", "- CANARY\n---\n- x"];
    let other = other.map(|text| text.replace("CANARY", CANARY));
    for text in bad.iter().chain(&other) {
        seen.both(&parse(text, "").unwrap_err());
    }
    // The registrar's file of names is the cookie file.
    seen.both(&trunkline::registrar::NamesFile::new(dir.path().join("secret")).check().unwrap_err());
    seen.both(&parse(good, &format!("node.cookie={CANARY}")).unwrap_err());
}

async fn scenarios(seen: &Seen) {
    let canary = || Cookie::new(CANARY).unwrap();
    seen.debug(&canary());
    let registrar = own_address();
    let at_home = |node: &str| format!("{node}@{}", registrar.ip());
    let db = dialer(&at_home("db")).cookie(canary()).listen(loopback()).embedded_registrar(registrar);
    let db = start(db.listen(trunkline::Listen::at(loopback()).cookie(canary()))).await;
    let other = start(listener(&at_home("db"))).await;
    let mut inbox = db.register("in").unwrap();
    let app = dialer(&at_home("app"))
        .cookie(canary())
        .embedded_registrar(registrar)
        .route("^db@", route_to(&other).cookie(canary()), 2)
        .route("db", route_at(nobody()), 1);
    let app = start(app).await;
    let mut events = app.events();
    seen.debug(&app.explain(db.name()).unwrap());
    seen.debug(&app.route(db.name()).unwrap());
    let connection = soon(app.connect(db.name().clone())).await.unwrap();
    let failed = up(&mut events, db.name().as_str()).await;
    assert_eq!(failed.len(), 2);
    failed.iter().for_each(|record| seen.both(record));
    soon(connection.send("in", "me", b"hello")).await.unwrap();
    seen.debug(&soon(inbox.recv()).await.unwrap());
    seen.debug(&connection);
    seen.debug(&(connection.info(), connection.stats(), app.nodes(), app.status(), &app, &db));
    seen.debug(&app.explain(db.name()).unwrap());

    // A wrong cookie occurs in both directions: ours that the listener lacks, and a caller's that our listener refuses.
    let lone = start(dialer("lone@127.0.0.1").cookie(canary()).route("^db@", route_to(&other), 1)).await;
    seen.both(&soon(lone.connect(db.name().clone())).await.map(drop).unwrap_err());
    let stranger = start(dialer(&at_home("stranger")).route("^db@", route_to(&db), 1)).await;
    seen.both(&soon(stranger.connect(db.name().clone())).await.map(drop).unwrap_err());
    let refused = soon(listener(&at_home("late")).embedded_registrar(registrar).start()).await.map(drop);
    seen.both(&refused.unwrap_err());
    let error = dialer(&at_home("bad")).cookie(canary()).route("(", route_to(&db).cookie(canary()), 1).start().await;
    seen.both(&error.map(drop).unwrap_err());
    app.add_route("^web@", route_to(&db).cookie(canary()), 1).unwrap();
    seen.both(&app.add_route("^web@", route_to(&db).cookie(canary()), 1).unwrap_err());
    connection.disconnect();
    seen.both(&soon(connection.closed()).await);
    seen.debug(&app.shut_down(Duration::from_secs(5)).await);
    drop(db);
}

#[test]
fn no_cookie_is_ever_printed_or_logged() {
    // Call sites that other threads reach first need a subscriber.
    crate::c_log::lines();
    let seen = Seen::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::level_filters::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(seen.clone())
        .finish();
    // The runtime has one thread, so that everything runs under this subscriber.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        configurations(&seen);
        runtime.block_on(scenarios(&seen));
        drop(runtime);
    });
    let text = String::from_utf8_lossy(&seen.0.lock().unwrap()).into_owned();
    for expected in ["trunkline", "attempt failed", "redacted", " up", "unknown key"] {
        assert!(text.contains(expected), "{expected:?} was to be seen");
    }
    assert!(!seen.holds(CANARY), "{}", text.lines().filter(|l| l.contains("canary-")).collect::<String>());
    seen.debug(&CANARY);
    assert!(seen.holds(CANARY), "it would have been found");
}
