//! Refusals of a gateway, as they appear to its neighbours, in its log and in its own traces.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use trunkline::registrar::NamesFile;
use trunkline::{Cookie, LocalPlace, Node, NodeName, OpenError, StreamCode, TraceEnd};
use trunkline_link::{DialTimes, Hooks, Native, NativeLimits};
use trunkline_proxy::ProxyOpen;
use trunkline_route::{Address, Attempt, Claims, LinkPolicy, TlsMode, Version};
use trunkline_stack::{Link, Mailboxes, StreamKind};
use trunkline_tests::support::*;
use trunkline_tls::{ClientTls, TlsProfile};
use trunkline_wire::handshake::Mode;

use super::c_log::lines;
use super::e_proxy::{APP, DB, GATE, all, relayed, transit, via};

const REFUSED: &str = "a connection was not passed on";

/// Opens a link to a node without a node at this end, so that the received bytes are seen as they were sent.
pub(super) async fn neighbour(own: &str, of: &Node, cookie: Cookie) -> Link {
    dials(own, of.name(), address(of), Mode::Node, cookie).await
}

/// Opens a link of a mode to a node at this address, without a node at this end.
pub(super) async fn dials(own: &str, target: &NodeName, at: SocketAddr, mode: Mode, cookie: Cookie) -> Link {
    let native = Native::new(name(own), NativeLimits::default());
    let tls = ClientTls::new(&TlsProfile::default().no_roots()).unwrap();
    let attempt = Attempt {
        target: target.clone(),
        via: None,
        address: Address::new(at.ip().to_string(), at.port()).unwrap(),
        tls: TlsMode::CookieOnly,
        version: Version::native(1),
        cookie,
        policy: LinkPolicy::default(),
    };
    let dialed = soon(native.dial(at, &attempt, mode, &tls, DialTimes::default())).await.unwrap();
    let standing = soon(dialed.finish(Claims::default())).await.unwrap();
    let (link, driver) = standing.start(std::sync::Arc::new(Mailboxes::default()), Hooks::default());
    tokio::spawn(driver);
    link.ping();
    link
}

/// Requests a connection from a neighbour, and returns its refusal and the bytes of the trace for the same request.
async fn asks(link: &Link, to: &NodeName) -> ((String, StreamCode, String), Vec<u8>) {
    let open = ProxyOpen::new(to.clone(), 8).encode();
    let refused = match soon(link.open(StreamKind::Proxied, &open, PATIENCE)).await {
        Err(OpenError::Refused { hop, code, text }) => (hop, code, text),
        other => panic!("{other:?}"),
    };
    let mut trace = soon(link.open(StreamKind::Trace, &open, PATIENCE)).await.unwrap();
    let mut said = Vec::new();
    soon(trace.read_to_end(&mut said)).await.unwrap();
    (refused, said)
}

/// Returns the bytes of a report that a path ends at a hop.
fn stopped(hop: &str, code: StreamCode, next: &str) -> Vec<u8> {
    let report = [&[3, hop.len() as u8][..], hop.as_bytes(), &[code.to_byte()], next.as_bytes()].concat();
    [&(report.len() as u16).to_be_bytes()[..], &report].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_of_a_gateway_receives_codes_and_names_and_the_log_has_the_full_texts() {
    let lines = lines();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("cookie");
    std::fs::write(&secret, "5ecret5ecret5ecret5ecret5ecret: [{ hots: x }]\n").unwrap();
    let nowhere = nobody();
    let gate = listener("scan@127.0.0.1")
        .transit(transit(&[("probe@.*", "(db|web|lost)@.*")], &[]))
        .route("^db@", route_at(nowhere), 1)
        .resolver(resolver_id("names"), std::sync::Arc::new(NamesFile::new(&secret)))
        .route("^web@", trunkline::NetworkRoute::resolved_by(resolver_id("names")), 1);
    let gate = start(gate).await;
    let link = neighbour("probe@127.0.0.1", &gate, cookie("all")).await;
    let address = nowhere.to_string();
    for (to, code, next, logged) in [
        ("db@in", StreamCode::Unreachable, "db@in", vec![address.as_str(), "refused"]),
        ("web@in", StreamCode::Unreachable, "web@in", vec!["cookie", "line 1"]),
        ("lost@in", StreamCode::Unreachable, "", vec!["no static route matches"]),
        ("denied@in", StreamCode::RelayDenied, "", vec!["no rule under `transit:`"]),
    ] {
        let (refused, said) = asks(&link, &name(to)).await;
        assert_eq!(refused, (gate.name().to_string(), code, next.to_owned()));
        assert_eq!(said, stopped(gate.name().as_str(), code, next), "{}", String::from_utf8_lossy(&said));
        until(|| lines.with(REFUSED, "to", to).len() == 2).await;
        for line in lines.with(REFUSED, "to", to) {
            let cause = line["cause"].as_str().unwrap();
            assert!(logged.iter().all(|part| cause.contains(part)), "{cause}");
            assert!(!cause.contains("5ecret") && !cause.contains("hots"), "what is in a file is not logged: {cause}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_next_gateway_is_down_reports_it_to_every_node_that_asks_through_it() {
    let lines = lines();
    let (core, nowhere) = ("core@dmz", nobody());
    // The gateway has no direct route to the database, and tries this one first.
    let edge = listener("edge@dmz").transit(all()).proxy_route("^db@", via(core), 1);
    let edge = start(edge.route("^core@", route_at(nowhere), 1)).await;
    let app = dialer("far@127.0.0.1").route("^edge@", route_to(&edge), 1).proxy_route("^db@", via("edge@dmz"), 1);
    let app = start(app).await;
    let says = "edge@dmz cannot reach core@dmz; the log of edge@dmz has the cause";
    assert_eq!(relayed(&no_route(soon(app.connect(DB)).await)), [says]);
    until(|| !lines.with(REFUSED, "from", "far@127.0.0.1").is_empty()).await;
    let cause = lines.with(REFUSED, "from", "far@127.0.0.1")[0]["cause"].as_str().unwrap().to_owned();
    let (first, rest) = cause.split_once("; ").unwrap();
    assert!(first.starts_with("edge@dmz cannot reach core@dmz: ") && first.contains(&nowhere.to_string()), "{cause}");
    assert!(first.contains("Connection refused") && rest.contains("no static route matches"), "{cause}");

    let trace = soon(app.trace(DB, PATIENCE)).await.unwrap();
    let stopped =
        |hop: &str, text: &str| TraceEnd::Stopped { hop: hop.into(), code: StreamCode::Unreachable, text: text.into() };
    assert_eq!(trace.ways[0].end, stopped("edge@dmz", "it cannot reach core@dmz; its log has the cause"));
    assert_eq!((trace.ways.len(), trace.ways[0].hops.len(), trace.failed.len()), (1, 1, 0));
    // The gateway's own trace has the full texts and the address.
    let trace = soon(edge.trace(DB, PATIENCE)).await.unwrap();
    let TraceEnd::Stopped { hop, text, .. } = &trace.ways[0].end else { panic!("{trace:?}") };
    assert!(hop == "edge@dmz" && text.contains(&nowhere.to_string()) && text.contains("Connection refused"), "{text}");

    // The same holds one gateway further on: the name comes from the hop at which the path ends.
    let outer = listener("outer@dmz").transit(all()).route("^edge@", route_to(&edge), 1);
    let outer = start(outer.proxy_route("^db@", via("edge@dmz"), 1)).await;
    let app =
        dialer("farther@127.0.0.1").route("^outer@", route_to(&outer), 1).proxy_route("^db@", via("outer@dmz"), 1);
    let app = start(app).await;
    assert_eq!(relayed(&no_route(soon(app.connect(DB)).await)), [says]);
    let trace = soon(app.trace(DB, PATIENCE)).await.unwrap();
    assert_eq!(trace.ways[0].end, stopped("edge@dmz", "it cannot reach core@dmz; its log has the cause"));
    assert_eq!(trace.ways[0].hops.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "what is written depends on how long the machine takes")]
async fn lines_that_a_peer_can_cause_are_limited_for_each_peer_and_kind() {
    let lines = lines();
    let gate = start(listener(GATE)).await;
    gate.serve("closed", nobody().to_string().parse().unwrap(), Vec::new()).unwrap();
    let not_allowed = "a stream was refused: the service does not allow this node";
    for own in ["loud@127.0.0.1", "louder@127.0.0.1"] {
        let link = neighbour(own, &gate, cookie("all")).await;
        let open = ProxyOpen::new(name(APP), 8).encode();
        let begun = tokio::time::Instant::now();
        for _ in 0..300 {
            for (kind, data) in [(StreamKind::Service, b"closed".as_slice()), (StreamKind::Proxied, &open)] {
                let refused = soon(link.open(kind, data, PATIENCE)).await;
                assert!(matches!(refused, Err(OpenError::Refused { .. })), "{refused:?}");
            }
        }
        // On a slow machine there may be more than one period of ten seconds.
        let most = 20 * (2 + begun.elapsed().as_secs() as usize / 10);
        for (message, field) in [(not_allowed, "peer"), (REFUSED, "from")] {
            let written = lines.with(message, field, own).len();
            assert!((20..=most).contains(&written), "{written} lines of {own} in {:?}: {message}", begun.elapsed());
        }
    }
    // The lines that clients of a forward cause are limited too.
    let refuses = start(listener("refuses@127.0.0.1")).await;
    let app = start(dialer(APP).route("^refuses@", route_to(&refuses), 1)).await;
    let forward = app.forward(LocalPlace::Tcp(loopback()), "refuses@127.0.0.1", "none").await.unwrap();
    let LocalPlace::Tcp(at) = *forward.place() else { panic!("it is an address") };
    let begun = tokio::time::Instant::now();
    for _ in 0..100 {
        let read = async { tokio::net::TcpStream::connect(at).await?.read(&mut [0]).await };
        assert!(!soon(read).await.is_ok_and(|read| read > 0));
    }
    until(|| forward.traffic().refused == 100).await;
    let most = 20 * (2 + begun.elapsed().as_secs() as usize / 10);
    let written = lines.with("a connection could not be forwarded", "peer", "refuses@127.0.0.1").len();
    assert!((20..=most).contains(&written), "{written} lines in {:?}", begun.elapsed());
}
