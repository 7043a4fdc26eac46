use proptest::prelude::*;
use trunkline_config::ClusterServer;
use trunkline_config::edit::{add_proxy_route, add_route, remove_proxy_route, remove_route, set_cluster_routes};
use trunkline_config::{EditError, FlagsEntry, OverrideEntry, ProxyEntry, RouteContext, RouteEntry};
use trunkline_route::{Address, DirectUse, Flag, NetworkRoute};

use super::Dir;

fn entry(pattern: &str) -> RouteEntry {
    RouteEntry { port: Some(7), ..RouteEntry::new(pattern) }
}

const NEW: &str = "{ match: \"new\", port: 7 }";

#[track_caller]
fn adds(before: &str, after: &str) {
    let after = after.replace("NEW", NEW);
    let added = add_route(before, &entry("new")).unwrap();
    assert_eq!(added, after);
}

#[test]
fn a_route_is_added_in_the_style_of_the_list() {
    adds("", "routes:\n  - NEW\n");
    adds("# only a comment", "# only a comment\nroutes:\n  - NEW\n");
    adds("node:\n  a: 1 # c\n# end\n", "node:\n  a: 1 # c\n# end\nroutes:\n  - NEW\n");
    adds("routes:\nnode: 1\n", "routes:\n  - NEW\nnode: 1\n");
    adds("routes: ~ # none\nnode: 1\n", "routes:  # none\n  - NEW\nnode: 1\n");
    adds("routes: []\n", "routes: [NEW]\n");
    adds("routes: [] # c\nx: 1\n", "routes: [NEW] # c\nx: 1\n");
    adds("routes: [{match: a}]\n", "routes: [{match: a}, NEW]\n");
    adds("routes: [{match: a},]\n", "routes: [{match: a}, NEW]\n");
    adds("routes: [\n  {match: a} # a\n  # end\n]\n", "routes: [\n  {match: a}, # a\n  # end\n  NEW\n]\n");
    adds("routes: [\n  {match: a}, # a\n]\n", "routes: [\n  {match: a}, # a\n  NEW,\n]\n");
    adds("routes:\n- match: a # a\n  # b\n\n# c\nx: 1\n", "routes:\n- match: a # a\n- NEW\n  # b\n\n# c\nx: 1\n");
    adds(
        "routes:\n  - {match: a,\n  port: 1 # x\n  } # y\nx: 1\n",
        "routes:\n  - {match: a,\n  port: 1 # x\n  } # y\n  - NEW\nx: 1\n",
    );
    adds(
        "routes:\n  - match: |\n      a#b\n      c\n\nx: 1\n",
        "routes:\n  - match: |\n      a#b\n      c\n  - NEW\n\nx: 1\n",
    );
    adds("routes:\r\n  - match: a\r\nx: 1\r\n", "routes:\r\n  - match: a\r\n  - NEW\r\nx: 1\r\n");
    adds("routes:\n  - match: 'ä # b'", "routes:\n  - match: 'ä # b'\n  - NEW\n");
}

#[track_caller]
fn removes(before: &str, after: &str) {
    assert_eq!(remove_route(before, "x").as_deref(), Ok(after), "{before}");
}

#[test]
fn a_route_is_removed_with_its_lines_and_nothing_else() {
    removes("routes: [{match: x}]\n", "routes: []\n");
    removes("routes: [{match: x}, {match: b}]\n", "routes: [{match: b}]\n");
    removes("routes: [{match: a}, {match: x}]\n", "routes: [{match: a}]\n");
    removes("routes: [{match: a}, {match: x},]\n", "routes: [{match: a}, ]\n");
    removes(
        "routes: [\n  {match: a}, # a\n  {match: x}, # x\n  {match: b}  # b\n]\n",
        "routes: [\n  {match: a}, # a\n   # x\n  {match: b}  # b\n]\n",
    );
    removes("routes: [\n  {match: a}, # a\n  {match: x}\n]\n", "routes: [\n  {match: a} # a\n]\n");
    removes(
        "routes: # all\n  # above\n  - match: x # x\n    port: 1\n  # below\n",
        "routes: [] # all\n  # above\n  # below\n",
    );
    removes(
        "routes:\n  - match: a\n  # above\n  -\n    match: x\n    # in\n    port: 1\n  - match: b\n",
        "routes:\n  - match: a\n  # above\n  - match: b\n",
    );
    removes(
        "routes:\n- {match: a}\n\n- {match: x, override: {tls: true}} # x\n\nz: [1]\n",
        "routes:\n- {match: a}\n\n\nz: [1]\n",
    );
}

#[test]
fn an_existing_pattern_is_not_added_again() {
    let error = add_route("routes:\n  - match: new\n", &entry("new")).unwrap_err();
    assert_eq!(error, EditError::Taken { pattern: "new".into(), line: 2 });
}

#[test]
fn the_error_about_an_unknown_pattern_names_the_most_similar_one() {
    let error = remove_route("routes: [{match: ^prod-db@}, {match: z}]\n", "prod-db").unwrap_err();
    assert!(matches!(error, EditError::Unknown { .. }));
    assert!(error.to_string().contains("`prod-db`; the most similar one is `^prod-db@`"), "{error}");
    assert!(matches!(remove_route("node: 1\n", "a"), Err(EditError::Unknown { .. })));
}

#[test]
fn an_unsupported_layout_is_refused_with_a_remedy() {
    for text in ["{node: 1}\n", "a: &r [{match: x}]\nroutes: *r\n", "routes: {}\n", "- a\n", "node: 1\n...\n"] {
        let error = add_route(text, &entry("new")).unwrap_err();
        assert!(matches!(error, EditError::Unsupported { .. }), "{text:?}: {error}");
        assert!(error.to_string().contains("edit the file by hand"), "{error}");
    }
    let text = "a: &r {match: x}\nroutes: [*r]\n";
    assert!(matches!(remove_route(text, "x"), Err(EditError::Unsupported { .. })));
    assert!(matches!(add_route("a: [\n", &entry("new")), Err(EditError::Malformed { .. })));
}

#[test]
fn an_entry_survives_a_round_trip_through_json_and_becomes_a_route() {
    let dir = Dir::new();
    let json = r#"{"match":"^a@","weight":5,"host":"h","port":1,"tls":true,"fallback":"never"}"#;
    let read: RouteEntry = serde_json::from_str(json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert!(serde_json::from_str::<RouteEntry>(r#"{"match":"a","prot":1}"#).is_err());
    let context = RouteContext { base_dir: dir.path(), environment: &[], resolvers: &[], profiles: &[], tls: false };
    let (pattern, weight, route) = read.to_route(&context).unwrap();
    assert_eq!((pattern.as_str(), weight), ("^a@", 5));
    assert_eq!(route, NetworkRoute::direct("h", 1).unwrap().tls(true).fallback_never().build());
    let error = RouteEntry { port: Some(0), host: Some("a b".into()), ..RouteEntry::new("(") }.to_route(&context);
    let fields: Vec<String> = error.unwrap_err().problems().iter().map(|p| p.field.clone()).collect();
    assert_eq!(fields, ["match", "host", "port"]);
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z^$.*\\\\'\"#: ,\\[\\]{}-]{1,12}", any::<String>().prop_filter("not empty", |s| !s.is_empty())]
}

fn entries() -> impl Strategy<Value = RouteEntry> {
    let over = (proptest::option::of(text()), any::<Option<u16>>(), any::<Option<bool>>())
        .prop_map(|(host, port, tls)| OverrideEntry { host, port, tls, handshake: None });
    let flag = || prop::sample::select(Flag::ALL).prop_map(|flag| flag.to_string());
    let flags = (prop::collection::vec(text(), 0..3), prop::collection::btree_map(flag(), any::<bool>(), 0..3))
        .prop_map(|(require, set)| FlagsEntry { require, set });
    let names = prop::collection::btree_map(text(), text(), 1..3);
    (
        text(),
        any::<Option<i64>>(),
        proptest::option::of(text()),
        any::<Option<u16>>(),
        any::<Option<bool>>(),
        proptest::option::of(text()),
        proptest::option::of(over),
        proptest::option::of(flags),
        proptest::option::of(text()),
        proptest::option::of(names),
    )
        .prop_map(|(pattern, weight, host, port, tls, cookie_file, overrides, flags, log_level, atom_mapping)| {
            RouteEntry {
                weight,
                host,
                port,
                tls,
                cookie_file,
                overrides,
                flags,
                log_level,
                atom_mapping,
                ..RouteEntry::new(format!("new {pattern}"))
            }
        })
}

/// Returns documents with a list in each common style, with comments at each item and gap.
fn documents() -> impl Strategy<Value = (String, Vec<String>)> {
    let item = (0..6usize, any::<bool>());
    (0..4usize, proptest::collection::vec(item, 1..6), any::<bool>(), any::<bool>()).prop_map(
        |(style, items, sections, trailing)| {
            let mut text = String::from("# c-top\n");
            if sections {
                text.push_str("node: # c-node\n  name: a@h\n\n");
            }
            let mut names = Vec::new();
            let flow = style >= 2;
            text.push_str(if flow { "routes: [ # c-list\n" } else { "routes: # c-list\n" });
            let pad = if style == 0 { "" } else { "  " };
            let last = items.len() - 1;
            for (i, (kind, comment)) in items.into_iter().enumerate() {
                let name = format!("old{i}");
                if comment {
                    text.push_str(&format!("{pad}# c-above{i}\n"));
                }
                let comma = if flow && (i < last || style == 3) { "," } else { "" };
                let dash = if flow { "" } else { "- " };
                text.push_str(&match kind {
                    0 | 1 if !flow => format!("{pad}- match: {name}\n{pad}  port: {i}\n"),
                    2 if !flow => format!("{pad}-\n{pad}  port: {i}\n{pad}  match: \"{name}\"\n{pad}  weight:\n"),
                    3 if !flow => format!("{pad}- match: >-\n{pad}    {name}\n\n"),
                    4 => format!("{pad}{dash}{{ match: '{name}', override:\n{pad}    {{ tls: true }} }}{comma}\n"),
                    _ => format!("{pad}{dash}{{match: {name}, tags: ['}}', \"]\"]}}{comma}\n"),
                });
                names.push(name);
            }
            text.push_str(if flow { "  # c-end\n] # c-close\n" } else { "# c-end\n" });
            if trailing {
                text.push_str("peers: [] # c-peers\n# c-bottom\n");
            }
            (text, names)
        },
    )
}

#[test]
fn a_proxy_route_is_added_to_and_removed_from_its_own_list() {
    let entry = ProxyEntry {
        pattern: "^db@".into(),
        weight: Some(7),
        proxy: "gate@dmz".into(),
        to: Some("db@in".into()),
        max_hop: Some(3),
        direct: Some("never".into()),
        cookie_file: Some("secrets/gate".into()),
        target_cookie_file: Some("secrets/inner".into()),
        target_tls: Some(true),
        target_tls_profile: Some("lab".into()),
        target_flags: Some(FlagsEntry { require: vec!["monitor".into()], set: [("link".into(), false)].into() }),
    };
    let before =
        "routes:\n  - match: ^db@   # ours\n    port: 1\nproxy_routes:   # theirs\n  - { match: x, proxy: g@h }\n";
    let line = "  - { match: \"^db@\", weight: 7, proxy: \"gate@dmz\", to: \"db@in\", max_hop: 3, direct: never, cookie_file: \
                secrets/gate, target: { cookie_file: secrets/inner, tls: true, tls_profile: lab, flags: { link: false, require: [monitor] } } }\n";
    let added = add_proxy_route(before, &entry).unwrap();
    assert_eq!(added, format!("{before}{line}"));
    assert!(matches!(add_proxy_route(&added, &entry), Err(EditError::Taken { line: 6, .. })));
    assert_eq!(remove_proxy_route(&added, "^db@").unwrap(), before);
    assert!(matches!(remove_proxy_route(before, "^db@"), Err(EditError::Unknown { .. })), "that one is a route");
    // The written text is read back with the same meaning.
    let dir = Dir::new();
    dir.secret("gate", "the cookie of the gateway\n");
    dir.secret("inner", "the cookie of the backend\n");
    let in_lab = ProxyEntry { cookie_file: Some("gate".into()), target_cookie_file: Some("inner".into()), ..entry };
    let text = add_proxy_route("tls_profiles: { lab: {} }\n", &in_lab).unwrap();
    let read = &dir.with(&text).unwrap().proxy_routes[0];
    assert_eq!((read.pattern.as_str(), read.weight), ("^db@", 7));
    let (gateway, target) = (&read.route, read.route.target_route());
    assert_eq!((gateway.gateway().as_str(), gateway.only_to().unwrap().as_str()), ("gate@dmz", "db@in"));
    assert_eq!((gateway.most_hops().get(), gateway.direct_use()), (3, DirectUse::Never));
    assert_eq!((target.tls(), target.tls_profile().map(ToString::to_string)), (Some(true), Some("lab".into())));
    assert_eq!(FlagsEntry::of(target.flags()), in_lab.target_flags);
    assert_eq!(read.route.gateway_cookie().unwrap().expose(), b"the cookie of the gateway");
    assert_eq!(read.route.target_route().cookie().unwrap().expose(), b"the cookie of the backend");
}

fn addresses(hosts: &[&str]) -> Vec<Address> {
    hosts.iter().map(|host| Address::new(*host, 7).unwrap()).collect()
}

#[test]
fn routes_of_the_cluster_are_set_in_the_layout_of_the_section() {
    let a = "{ host: a, port: 7 }";
    let line = |pad: usize, text: &str| format!("{}{text}\n", " ".repeat(pad));
    let below = |depth: usize, from: usize| {
        let keys = ["clustering:", "hubServer:", "cluster:", "network:", "routes:"];
        let lines = keys.iter().enumerate().skip(from).map(|(n, key)| line(depth * n, key));
        lines.chain([line(depth * 5, &format!("- {a}"))]).collect::<String>()
    };
    for (before, after) in [
        (String::new(), below(2, 0)),
        ("node: 1\n# end\n".into(), format!("node: 1\n# end\n{}", below(2, 0))),
        ("clustering: # ours\nnode: 1\n".into(), format!("clustering: # ours\n{}node: 1\n", below(2, 1))),
        (
            "clustering: {}\n".into(),
            format!("clustering: {{ hubServer: {{ cluster: {{ network: {{ routes: [{a}] }} }} }} }}\n"),
        ),
        (
            "clustering: { hubServer: { cluster: { name: lab } } } # c\n".into(),
            format!("clustering: {{ hubServer: {{ cluster: {{ name: lab, network: {{ routes: [{a}] }} }} }} }} # c\n"),
        ),
        (
            "clustering:\n  hubServer:\n    cluster:\n      name: lab # c\n\n# d\nnode: 1\n".into(),
            format!("clustering:\n  hubServer:\n    cluster:\n      name: lab # c\n{}\n# d\nnode: 1\n", below(2, 3)),
        ),
        (
            "clustering:\n  hubServer:\n    cluster:\n      network: { port: 9, } # c\n".into(),
            format!("clustering:\n  hubServer:\n    cluster:\n      network: {{ port: 9, routes: [{a}] }} # c\n"),
        ),
        // The two that stay keep their lines, also one that is written in another form.
        (
            below(2, 0)
                .replace(&format!("- {a}"), "# all\n          - host: x # x\n            port: 7\n          - a:7 # a"),
            below(2, 0).replace(&format!("- {a}"), "# all\n          - a:7 # a"),
        ),
    ] {
        assert_eq!(set_cluster_routes(&before, ClusterServer::Hub, &addresses(&["a"])).unwrap(), after, "{before}");
    }
    let leaf = "clustering:\n  leafServer:\n    network:\n      routes: [] # ours\n";
    let set = set_cluster_routes(leaf, ClusterServer::Leaf, &addresses(&["a"])).unwrap();
    assert_eq!(set, leaf.replace("[]", &format!("[{a}]")));
    for text in ["clustering: [1]\n", "a: &c { hubServer: {} }\nclustering: *c\n", "clustering: { hubServer: 7 }\n"] {
        let error = set_cluster_routes(text, ClusterServer::Hub, &addresses(&["a"])).unwrap_err();
        assert!(error.to_string().contains("edit the file by hand"), "{text}: {error}");
    }
}

fn comments(text: &str) -> Vec<&str> {
    text.split_whitespace().filter(|word| word.starts_with("c-")).collect()
}

/// Returns the routes of a cluster in each common style, below a section in block style or in braces.
fn clusters() -> impl Strategy<Value = String> {
    let item = (0..6usize, 0..4usize);
    (0..4usize, prop::collection::vec(item, 0..5), any::<bool>()).prop_map(|(style, items, name)| {
        let flow = style >= 2 || items.is_empty();
        let mut list = String::from(if flow { "[ # c-list\n" } else { "# c-list\n" });
        for (i, (host, form)) in items.into_iter().enumerate() {
            let (pad, dash, comma) = if flow { (" ".repeat(10), "", ",") } else { (" ".repeat(10), "- ", "") };
            let item = match form {
                0 if !flow => format!("host: h{host}\n{pad}  port: 7 # c-port{i}"),
                1 => format!("h{host}:7"),
                2 => format!("'wss://h{host}:7/x'"),
                _ => format!("{{ hostname: h{host}, port: '7' }}"),
            };
            list.push_str(&format!("{pad}# c-above{i}\n{pad}{dash}{item}{comma} # c{i}\n"));
        }
        list.push_str(if flow { "          ] # c-end\n" } else { "" });
        let name = if name { "      name: lab\n" } else { "" };
        let port = if style == 1 { "        port: 9 # c-own\n" } else { "" };
        format!("# c-top\nclustering:\n  hubServer:\n    cluster:\n{name}      network:\n{port}        routes: {list}# c-bottom\n")
    })
}

fn routes_of(text: &str) -> Vec<Address> {
    Dir::new().with(text).unwrap().clustering.map(|cluster| cluster.routes).unwrap_or_default()
}

proptest! {
    #[test]
    fn routes_of_the_cluster_are_those_that_were_set(text in clusters(), hosts in prop::collection::btree_set(0..6usize, 0..6)) {
        let wanted: Vec<_> = hosts.iter().map(|host| Address::new(format!("h{host}"), 7).unwrap()).collect();
        let before = routes_of(&text);
        let set = set_cluster_routes(&text, ClusterServer::Hub, &wanted).unwrap();
        let kept = before.iter().filter(|route| wanted.contains(route));
        let new = wanted.iter().filter(|route| !before.contains(route));
        let expected: Vec<_> = kept.chain(new).cloned().collect();
        prop_assert_eq!(routes_of(&set), expected, "{}", set);
        for comment in comments(&text).iter().filter(|comment| !comment[1..].starts_with(|c: char| c.is_ascii_digit()) && !comment.starts_with("c-port")) {
            prop_assert!(set.contains(comment), "{} of\n{}\nin\n{}", comment, text, set);
        }
        prop_assert_eq!(&set_cluster_routes(&set, ClusterServer::Hub, &wanted).unwrap(), &set);
    }

    #[test]
    fn adding_and_then_removing_a_route_restores_the_text((text, names) in documents(), entry in entries()) {
        let added = add_route(&text, &entry).unwrap();
        for comment in comments(&text) {
            prop_assert!(added.contains(comment));
        }
        prop_assert_eq!(added.matches("old").count(), names.len());
        let back = remove_route(&added, &entry.pattern).unwrap();
        let parse = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).unwrap();
        prop_assert_eq!(parse(&back), parse(&text));
        prop_assert_eq!(comments(&back), comments(&text));
    }

    #[test]
    fn any_route_can_be_removed_and_every_comment_outside_it_stays((text, names) in documents(), i in 0..6usize) {
        let name = &names[i % names.len()];
        let removed = remove_route(&text, name).unwrap();
        prop_assert!(!removed.contains(name.as_str()));
        prop_assert_eq!(comments(&removed), comments(&text));
    }

    #[test]
    fn edits_never_panic(text in "(routes|a|: |- |\\[|\\]|\\{|\\}|,|match: a|#|\n|  |'|\"|&x |\\*x|ä|\\||~){0,24}") {
        let _ = add_route(&text, &entry("new"));
        let _ = remove_route(&text, "a");
    }

    #[test]
    fn no_error_shows_a_secret_whatever_the_text(junk in any::<String>()) {
        let dir = Dir::new();
        let outcome = dir.node(&format!("  {junk}\n"));
        let shown = format!("{outcome:?}");
        prop_assert!(!shown.contains("canary"));
    }
}

#[test]
fn a_byte_order_mark_does_not_shift_the_places() {
    adds("\u{feff}routes: [{match: a}]\n", "\u{feff}routes: [{match: a}, NEW]\n");
}
