use std::os::unix::fs::PermissionsExt;

use crate::world::Dir;

const SERVER: &str = "  listen:\n    - port: 0\n      tls:\n        certificate: certs/db@127.0.0.1.pem\n        key: \
                      certs/db@127.0.0.1.key\n        client_ca: certs/ca.pem\n";

/// Writes `app.yaml` with a route to the port; its TLS profile has these settings.
fn app(dir: &Dir, port: u16, profile: &str) -> String {
    let rest = format!(
        "tls_profiles:\n  lab: {{ {profile} }}\nroutes:\n  - {{ match: '^db@', host: 127.0.0.1, port: {port}, tls: \
         true, tls_profile: lab }}\n"
    );
    dir.config("app", &rest)
}

#[test]
fn created_certificates_let_both_ends_verify_each_other() {
    let dir = Dir::new();
    let made = dir.json(&["certs", "db@127.0.0.1", "app@127.0.0.1", "--host", "db.example.com"]);
    assert_eq!(made["authority"]["new"], true);
    assert_eq!(made["nodes"][0]["hosts"], serde_json::json!(["127.0.0.1", "db.example.com"]));
    for (file, mode) in
        [("ca.key", 0o600), ("db@127.0.0.1.key", 0o600), ("ca.pem", 0o644), ("app@127.0.0.1.pem", 0o644)]
    {
        let meta = std::fs::metadata(dir.at("certs").join(file)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{file}");
    }
    let db = dir.node(&dir.config("db", SERVER), &[]);
    let file =
        app(&dir, db.port(), "roots: certs/ca.pem, certificate: certs/app@127.0.0.1.pem, key: certs/app@127.0.0.1.key");
    dir.ok(&["check", &file]);
    let pong = dir.json(&["ping", "--config", &file, "db@127.0.0.1"]);
    assert_eq!(pong["peer"]["tls"], "verify(lab)");
    db.logs("tls=\"certificate\"");
    let file = app(&dir, db.port(), "roots: certs/ca.pem");
    let refused = dir.run(&["ping", "--config", &file, "db@127.0.0.1"]).exits(1);
    assert!(refused.stderr.contains("the listener demands a certificate"), "{}", refused.stderr);
    db.logs("no acceptable certificate");
}

#[test]
fn a_listener_with_cert_name_required_admits_only_the_node_named_in_the_certificate() {
    let dir = Dir::new();
    dir.ok(&["certs", "db@127.0.0.1", "app@127.0.0.1", "other@127.0.0.1"]);
    let db = dir.node(&dir.config("db", &format!("{SERVER}        cert_name: required\n")), &[]);
    for (certificate, code) in [("app", 0), ("other", 1)] {
        let files = format!("certificate: certs/{certificate}@127.0.0.1.pem, key: certs/{certificate}@127.0.0.1.key");
        let file = app(&dir, db.port(), &format!("roots: certs/ca.pem, cert_name: required, {files}"));
        let node = dir.node(&file, &[]);
        let ran = dir.run(&["ping", "--admin", node.admin(), "db@127.0.0.1"]).exits(code);
        assert_eq!(ran.stderr.contains("the caller's certificate must carry its name"), code == 1, "{}", ran.stderr);
        node.stop();
    }
    db.logs("a caller's certificate does not carry its name");
}

#[test]
fn an_existing_authority_is_used_and_no_file_is_replaced_unless_requested() {
    let dir = Dir::new();
    dir.ok(&["certs", "db@127.0.0.1"]);
    let (ca, db) = (dir.read("certs/ca.pem"), dir.read("certs/db@127.0.0.1.pem"));
    dir.run(&["certs", "web@127.0.0.1", "db@127.0.0.1"]).refused(&["certs/db@127.0.0.1.pem", "--replace"]);
    assert!(!dir.at("certs/web@127.0.0.1.pem").exists(), "some files were written");
    assert_eq!(dir.json(&["certs", "web@127.0.0.1", "db@127.0.0.1", "--replace"])["authority"]["new"], false);
    assert_eq!(dir.read("certs/ca.pem"), ca);
    assert_ne!(dir.read("certs/db@127.0.0.1.pem"), db);
    std::fs::remove_file(dir.at("certs/ca.key")).unwrap();
    dir.run(&["certs", "x@h"]).refused(&["certs/ca.key", "does not; restore it"]);
    dir.run(&["certs", "x"]).refused(&["name@host"]);
    dir.run(&["certs", "--dir", "other", "a/b@h", "a_b@h"]).refused(&["the same file"]);
    assert!(!dir.at("other").exists(), "a refused command creates no file");
}

#[test]
fn the_certificate_of_another_authority_is_refused_with_the_reason() {
    let dir = Dir::new();
    dir.ok(&["certs", "db@127.0.0.1"]);
    dir.ok(&["certs", "--dir", "foreign", "app@127.0.0.1"]);
    for kind in ["pem", "key"] {
        let issued = dir.at("foreign").join(format!("app@127.0.0.1.{kind}"));
        std::fs::copy(issued, dir.at("certs").join(format!("ca.{kind}"))).unwrap();
    }
    dir.run(&["certs", "web@127.0.0.1"]).refused(&["certs/ca.pem", "would not be trusted"]);
    assert!(!dir.at("certs/web@127.0.0.1.pem").exists());
}

#[test]
fn a_reload_loads_new_certificates_and_keeps_the_old_ones_if_a_file_is_broken() {
    let dir = Dir::new();
    dir.ok(&["certs", "db@127.0.0.1", "app@127.0.0.1"]);
    let db = dir.node(&dir.config("db", SERVER), &[]);
    let profile = "roots: certs/ca.pem, certificate: certs/app@127.0.0.1.pem, key: certs/app@127.0.0.1.key";
    let file = app(&dir, db.port(), profile);
    let reload = || dir.ok(&["reload", "--admin", db.admin()]).stdout;
    assert!(!reload().contains("certificates"), "nothing changed");
    dir.ok(&["certs", "db@127.0.0.1", "--replace"]);
    assert!(reload().contains("new certificates of listener 127.0.0.1:0"));
    let foreign = dir.read("certs/app@127.0.0.1.key");
    dir.file("certs/db@127.0.0.1.key", &foreign, 0o600);
    let said = dir.run(&["reload", "--admin", db.admin()]).exits(1).stderr;
    assert!(said.contains("keeps its certificates") && said.contains("does not belong"), "{said}");
    dir.ok(&["ping", "--config", &file, "db@127.0.0.1"]);
}

#[test]
fn check_and_node_refuse_unusable_certificates() {
    let dir = Dir::new();
    dir.ok(&["certs", "db@127.0.0.1", "app@127.0.0.1"]);
    let file = dir.config("db", SERVER);
    let both = |says: &[&str]| {
        for args in [&["check", &file][..], &["node", "--config", &file]] {
            dir.run(args).refused(says);
        }
    };
    dir.file("certs/db@127.0.0.1.key", &dir.read("certs/app@127.0.0.1.key"), 0o600);
    both(&["certs/db@127.0.0.1.key", "the key does not belong to the certificate"]);
    let lone = "  listen:\n    - { port: 0, tls: { certificate: certs/app@127.0.0.1.pem, key: certs/app@127.0.0.1.key, \
                client_certificate: required } }\n";
    dir.run(&["check", &dir.config("db", lone)]).refused(&["node.listen[0].tls.client_certificate", "client_ca"]);
    let odd = lone.replace("required", "perhaps, client_ca: certs/ca.pem");
    dir.run(&["check", &dir.config("db", &odd)]).refused(&["client_certificate", "write required or optional"]);
    assert!(!dir.at("db.data").exists(), "something was started");
}

#[test]
fn two_authorities_in_one_file_of_roots_are_both_trusted() {
    let dir = Dir::new();
    dir.ok(&["certs", "--dir", "one", "db@127.0.0.1"]);
    dir.ok(&["certs", "--dir", "two", "web@127.0.0.1"]);
    // Joined as `printf %s "$(cat …)"` does it: two blocks share a line.
    let both = format!("{}{}", dir.read("one/ca.pem").trim_end(), dir.read("two/ca.pem"));
    assert!(both.contains("-----END CERTIFICATE----------BEGIN CERTIFICATE-----"));
    dir.file("roots.pem", &both, 0o644);
    let node = |name: &str, of: &str| {
        let tls = format!("{{ certificate: {of}/{name}@127.0.0.1.pem, key: {of}/{name}@127.0.0.1.key }}");
        dir.node(&dir.config(name, &format!("  listen: [{{ port: 0, tls: {tls} }}]\n")), &[])
    };
    let (db, web) = (node("db", "one"), node("web", "two"));
    let app = |roots: &str| {
        let route = |name: &str, port: u16| {
            format!("  - {{ match: '^{name}@', host: 127.0.0.1, port: {port}, tls: true, tls_profile: lab }}\n")
        };
        let rest = format!("tls_profiles:\n  lab: {{ roots: {roots} }}\nroutes:\n");
        dir.config("app", &[rest, route("db", db.port()), route("web", web.port())].concat())
    };
    let file = app("roots.pem");
    for name in ["db@127.0.0.1", "web@127.0.0.1"] {
        assert_eq!(dir.json(&["ping", "--config", &file, name])["peer"]["tls"], "verify(lab)");
    }
    // With only one of the authorities, the other's node is refused as unknown.
    let file = app("two/ca.pem");
    dir.ok(&["ping", "--config", &file, "web@127.0.0.1"]);
    let refused = dir.run(&["ping", "--config", &file, "db@127.0.0.1"]).exits(1).stderr;
    assert!(refused.contains("UnknownIssuer") && !refused.contains("BadSignature"), "{refused}");
}

#[test]
fn an_expired_certificate_that_the_chain_does_not_need_is_skipped_and_check_warns() {
    let dir = Dir::new();
    dir.ok(&["certs", "db@127.0.0.1"]);
    // Valid for one day of the year 2020.
    let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_577_880_000);
    let old = trunkline::LabAuthority::new(then, 1).unwrap();
    let chain = format!("{}{}", dir.read("certs/db@127.0.0.1.pem"), old.certificate());
    let line = dir.read("certs/db@127.0.0.1.pem").lines().count() + 1;
    dir.file("certs/db@127.0.0.1.pem", &chain, 0o644);
    let lone = SERVER.replace("        client_ca: certs/ca.pem\n", "");
    let file = dir.config("db", &lone);
    let warning = |text: &str| {
        text.contains(&format!("certificate 2 (line {line}, CN=trunkline lab authority "))
            && text.contains(") expired on 2020-01-02")
    };
    let checked = dir.json(&["check", &file]);
    let warnings = checked["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|text| warning(text.as_str().unwrap())), "{checked}");
    let db = dir.node(&file, &[]);
    db.logs("meanwhile it is left out");
    dir.ok(&["ping", "--config", &app(&dir, db.port(), "roots: certs/ca.pem"), "db@127.0.0.1"]);
}

#[test]
fn errors_about_broken_pem_files_name_the_line_but_show_no_content() {
    let dir = Dir::new();
    dir.ok(&["certs", "db@127.0.0.1"]);
    let (certificate, key) = (dir.read("certs/db@127.0.0.1.pem"), dir.read("certs/db@127.0.0.1.key"));
    let secret = key.lines().nth(1).unwrap().to_owned();
    let file = dir.config("db", &SERVER.replace("        client_ca: certs/ca.pem\n", ""));
    let told = |name: &str, text: &str, says: &[&str]| {
        dir.file("certs/db@127.0.0.1.pem", &certificate, 0o644);
        dir.file("certs/db@127.0.0.1.key", &key, 0o600);
        dir.file(name, text, 0o600);
        let refused = dir.run(&["check", &file]);
        assert!(!refused.stderr.contains(&secret), "{}", refused.stderr);
        refused.refused(&[&[name], says].concat());
    };
    let encrypted = key.replace(" PRIVATE KEY", " ENCRYPTED PRIVATE KEY");
    told("certs/db@127.0.0.1.key", &encrypted, &["line 1", "encrypted", "openssl pkey"]);
    told("certs/db@127.0.0.1.key", key.trim_end().trim_end_matches('-'), &["a private key", "line 1", "does not end"]);
    told("certs/db@127.0.0.1.key", &key.replace(&secret, &format!("{secret}!")), &["line 1", "no base64"]);
    told("certs/db@127.0.0.1.key", &certificate, &["no `-----BEGIN … PRIVATE KEY-----` section"]);
    told("certs/db@127.0.0.1.pem", &key, &["CERTIFICATE-----` section"]);
    told("certs/db@127.0.0.1.pem", &format!("\n{}", &certificate[..40]), &["a certificate", "line 2", "does not end"]);
    // A byte order mark or text before the block is allowed.
    for before in ["\u{feff}", "\u{feff}subject=db\r\n"] {
        dir.file("certs/db@127.0.0.1.key", &format!("{before}{key}"), 0o600);
        dir.file("certs/db@127.0.0.1.pem", &format!("{before}{certificate}"), 0o644);
        dir.ok(&["check", &file]);
    }
}
