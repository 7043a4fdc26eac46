//! Bodies of this crate's fuzz targets. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use std::path::Path;

use crate::edit::{add_proxy_route, add_route, remove_proxy_route, remove_route};
use crate::{Config, EditError, Layers, ProxyEntry, RouteEntry};

/// Fuzz target: its name, its body, which panics when a property is violated, and its seed inputs.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All fuzz targets of this crate.
pub const TARGETS: &[Target] = &[("config", config, config_seeds), ("edits", edits, edits_seeds)];

/// Directory that does not exist, so that no file is found in it.
const NOWHERE: &str = "/nonexistent/trunkline";
/// Secret in the environment, with a recognisable beginning.
const SECRET: &str = "canary0f3b0c44298fc1c149afbf4c8996fb92427ae41e46";

/// Parses any text as a configuration; an error must not show the secret. Texts with a slash are skipped, since they
/// could name a file of this machine.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.contains(['/', '\\']) {
        return;
    }
    let layers = Layers { environment: vec![("COOKIE".into(), SECRET.into())], set: Vec::new() };
    let outcome = Config::parse(text, Path::new(NOWHERE), "app.yaml", &layers);
    if !text.contains("canary") {
        let shown = match &outcome {
            Ok(config) => format!("{config:?} {}", config.warnings().join(" ")),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains("canary"), "{shown}");
    }
}

/// Returns a configuration with an entry in each section.
pub fn config_seeds() -> Vec<Vec<u8>> {
    let node = "node:\n  name: app@127.0.0.1\n  cookie_env: COOKIE\n  listen: [{ port: 0, allow: ['.*@h'] }]\n";
    let rest = "registrars:\n  other: { type: embedded, host: 127.0.0.1, port: 4499 }\n\
                tls_profiles: { lab: { server_name: db } }\n\
                peers:\n  - { match: 'p@.*', cookie_env: COOKIE }\n\
                routes:\n  - { match: '^db@', host: 10.0.1.50, port: 4370, tls: true, tls_profile: lab, weight: 7 }\n  \
                - match: ^x@ # a comment\n    resolver: other\n    override: { port: 1 }\n    flags: { link: false }\n\
                proxy_routes: [{ match: y, proxy: gate@dmz, max_hop: 2 }]\n\
                transit: { rules: [{ from: '.*', to: 'db@.*' }] }\nproxied: { allow: ['a@b'] }\n\
                services: { db: { to: '127.0.0.1:5432' } }\nforwards: [{ listen: '127.0.0.1:0', name: db@h, service: db }]\n";
    vec![node.into(), format!("{node}{rest}").into(), b"node: { nmae: app@h }".to_vec()]
}

/// Edits a text whose first line is a pattern and whose rest is a configuration. An added route can be removed again,
/// and adding it twice is refused.
pub fn edits(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, text) = text.split_once('\n').unwrap_or(("^db@", text));
    let entry = RouteEntry { port: Some(4370), ..RouteEntry::new(pattern) };
    edit(text, pattern, |text| add_route(text, &entry), |text| remove_route(text, pattern));
    let entry = ProxyEntry { pattern: pattern.into(), proxy: "gate@dmz".into(), ..ProxyEntry::default() };
    edit(text, pattern, |text| add_proxy_route(text, &entry), |text| remove_proxy_route(text, pattern));
}

fn edit(
    text: &str,
    pattern: &str,
    add: impl Fn(&str) -> Result<String, EditError>,
    remove: impl Fn(&str) -> Result<String, EditError>,
) {
    let _ = remove(text);
    let Ok(added) = add(text) else { return };
    assert!(matches!(add(&added), Err(EditError::Taken { .. })), "{pattern:?} is added twice to {added:?}");
    assert!(!matches!(remove(&added), Err(EditError::Unknown { .. })), "{pattern:?} is not found in {added:?}");
}

/// Returns lists in each style.
pub fn edits_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "^db@\n# ours\nroutes:\n  - match: ^db@   # the old one\n    port: 1\n",
        "^new@\nroutes: [{ match: a, port: 1 }, # first\n  { match: 'b' },\n]\n",
        "x\nproxy_routes: []\nroutes:\n- {match: a}\n-\n  match: >-\n    b\n",
        "x\nnode: { name: a@h }\n",
        "a\n\u{feff}routes: &r [{match: a}]\nproxy_routes: *r\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
