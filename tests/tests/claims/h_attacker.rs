//! Attackers that hold another cookie, or that are members and exceed the rights of members.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use trunkline::{
    AccessPattern, AttemptError, ClientAuth, Cookie, DialTimes, Listen, NativeLimits, Node, Proxied, ServerProfile,
    StreamKind, TlsProfile, random_16,
};
use trunkline_link::{DialError, Hooks, Native};
use trunkline_proxy::ProxyOpen;
use trunkline_route::{Address, Attempt, Claims, CloseCode, LinkPolicy, TlsMode, Version};
use trunkline_stack::{Link, Mailboxes, Transport};
use trunkline_tests::attacker::{Claim, Guesser, Raw, incarnation_of};
use trunkline_tests::support::*;
use trunkline_tls::ClientTls;
use trunkline_wire::handshake::{HandshakeError, Mode, Params};

use super::c_log::lines;
use super::e_proxy::{GATE, all, via};

const DB: &str = "db@127.0.0.1";
/// Longest time until a holder of the right cookie is accepted, whatever its neighbours do.
const PROMPT: Duration = Duration::from_secs(2);

/// Returns a cookie of the recommended strength.
fn strong() -> Cookie {
    Cookie::new("f3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934c").unwrap()
}

fn old() -> Cookie {
    Cookie::new("0a1b44298fc1c149afbf4c8996fb92427ae41e4649b9aaaa").unwrap()
}

fn claim(from: &str, to: &str, cookie: Cookie) -> Claim {
    Claim { from: name(from), to: Some(name(to)), cookie, incarnation: random_16().into(), mode: Mode::Node }
}

/// Makes one guess by the protocol: HELLO2 shows that the cookies differ, and the caller hangs up.
async fn guess(to: SocketAddr, claim: Claim) {
    let mut raw = soon(Raw::connect(None, to)).await.unwrap();
    match soon(raw.hello(claim)).await {
        Err(Some(HandshakeError::WrongCookie)) => {}
        other => panic!("the guess was not answered: {:?}", other.map(drop)),
    }
}

async fn promptly<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PROMPT, what).await.expect("a holder of the right cookie gets in within two seconds")
}

#[tokio::test(flavor = "multi_thread")]
async fn h13_a_neighbour_with_an_old_cookie_blocks_no_fresh_node() {
    let db = start(listener(DB).cookie(strong())).await;
    // The guesses are under a name of its own, and under the names of the later callers.
    for n in 0..30 {
        guess(address(&db), claim("neighbour@127.0.0.1", DB, old())).await;
        guess(address(&db), claim(&format!("fresh{n}@127.0.0.1"), DB, old())).await;
    }
    for n in 0..30 {
        let fresh = dialer(&format!("fresh{n}@127.0.0.1")).cookie(strong());
        let fresh = start(fresh.route("^db@", route_to(&db), 1)).await;
        promptly(fresh.connect(DB)).await.unwrap();
    }
    assert_eq!(db.status().strangers.failed_proofs, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn h13_a_neighbour_with_an_old_cookie_blocks_no_node_at_the_registrar() {
    let registrar = own_address();
    let builder = |node: &str| {
        let node = dialer(&format!("{node}@{}", registrar.ip())).cookie(strong());
        node.listen(SocketAddr::new(registrar.ip(), 0)).embedded_registrar(registrar)
    };
    let _serving = start(builder("first")).await;
    for _ in 0..30 {
        let victim = claim(&format!("second@{}", registrar.ip()), DB, old());
        guess(registrar, Claim { to: None, mode: Mode::Registrar, ..victim }).await;
    }
    let second = promptly(builder("second").start()).await.unwrap();
    assert_eq!(second.status().registered, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn h13_a_neighbour_behind_the_same_gateway_blocks_no_other_node() {
    let db = start(listener(DB).cookie(strong())).await;
    let gate = start(listener(GATE).cookie(strong()).transit(all()).route("^db@", route_to(&db), 1)).await;
    let behind = |node: &str, inside: Cookie| {
        let node = dialer(node).cookie(strong()).route("^gate@", route_to(&gate), 1);
        let target = trunkline::NetworkRoute::direct("127.0.0.1", 1).unwrap().cookie(inside).build();
        start(node.proxy_route("^db@", via(GATE).target(target), 1))
    };
    for n in 0..12 {
        let outdated = behind(&format!("old{n}@127.0.0.1"), old()).await;
        let failed = no_route(soon(outdated.connect(DB)).await);
        assert!(failed.attempts.iter().any(|a| a.error == AttemptError::WrongCookie), "{failed}");
    }
    let fresh = behind("fresh@127.0.0.1", strong()).await;
    promptly(fresh.connect(DB)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_cookie_is_logged_with_address_and_claimed_name_and_a_flood_of_them_in_few_lines() {
    let lines = lines();
    let db = start(listener(DB).cookie(strong())).await;
    // The caller hangs up after HELLO2.
    guess(address(&db), claim("hangs-up@127.0.0.1", DB, old())).await;
    let said = || [lines.warnings("hangs-up@127.0.0.1"), lines.warnings("goes-on@127.0.0.1")].concat();
    // The proof is counted before the line is written.
    until(|| db.status().strangers.failed_proofs == 1 && !said().is_empty()).await;
    let first = said();
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(first[0]["fields"]["from"], "127.0.0.1");
    // One line for each address is logged in ten seconds, whatever follows.
    for _ in 0..100 {
        guess(address(&db), claim("goes-on@127.0.0.1", DB, old())).await;
    }
    until(|| db.status().strangers.failed_proofs == 101).await;
    assert!(said().len() <= 2, "{:?}", said());

    // A wrong cookie also shows in another way: a FINISH with a wrong proof.
    let other = start(listener(DB).cookie(strong())).await;
    let mut raw = soon(Raw::connect(None, address(&other))).await.unwrap();
    let (mut machine, _) = soon(raw.hello(claim("forger@127.0.0.1", DB, strong()))).await.unwrap();
    let mut finish = machine.finish(&Params::default()).unwrap();
    *finish.last_mut().unwrap() ^= 1;
    soon(raw.say(&finish)).await.unwrap();
    until(|| other.status().strangers.failed_proofs == 1).await;
    assert_eq!(lines.warnings("forger@127.0.0.1").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialled_listener_gets_one_guess_however_many_calls_are_made() {
    let guesser = Guesser::listen(name(DB), Mode::Node, old()).await;
    let app = dialer("app@127.0.0.1").cookie(strong()).route("^db@", route_at(guesser.address), 1);
    let app = start(app).await;
    for n in 0..50 {
        let failed = no_route(soon(app.connect(DB)).await);
        let error = &failed.attempts.last().unwrap().error;
        match n {
            0 => assert_eq!(*error, AttemptError::WrongCookie),
            _ => assert!(matches!(error, AttemptError::CookieRefused(_)), "{failed}"),
        }
    }
    let _ = soon(app.call(DB, "service", b"", PROMPT)).await;
    let _ = soon(app.trace(DB, PROMPT)).await;
    assert_eq!(guesser.guesses(), 1);
    let steps = app.explain(DB).unwrap().steps;
    assert!(matches!(steps[0].remembered, Some((_, AttemptError::CookieRefused(_)))), "{steps:?}");
    // `dial_now`, for use after a cookie was fixed, ignores the remembered failure.
    no_route(soon(app.dial_now(DB)).await);
    assert_eq!(guesser.guesses(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registrar_that_is_asked_gets_one_guess_however_many_names_are_looked_up() {
    let guesser = Guesser::listen(name("registrar@127.0.0.1"), Mode::Registrar, old()).await;
    let at = Address::new("127.0.0.1", guesser.address.port()).unwrap();
    let id = resolver_id("elsewhere");
    let app = dialer("app@127.0.0.1").cookie(strong()).registrar_at(id.clone(), at, None).discovery(id);
    let app = start(app).await;
    for n in 0..20 {
        let failed = no_route(soon(app.connect(format!("db{n}@127.0.0.1").as_str())).await);
        assert!(failed.to_string().contains("another cookie"), "{failed}");
    }
    assert_eq!(guesser.guesses(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registrar_of_another_host_gets_one_guess_however_many_names_are_looked_up_at_once() {
    let guesser = Guesser::listen(name("registrar@127.0.0.1"), Mode::Registrar, old()).await;
    // The registrar of the host in the name is at the port of this node's own.
    let own = SocketAddr::new(own_host().into(), guesser.address.port());
    let app =
        start(dialer(&format!("app@{}", own.ip())).cookie(strong()).hidden(true).embedded_registrar_client(own)).await;
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..20 {
        let app = app.clone();
        asked.spawn(async move { no_route(app.connect(format!("db{n}@127.0.0.1").as_str()).await) });
    }
    for failed in soon(asked.join_all()).await {
        assert!(failed.to_string().contains("another cookie"), "{failed}");
    }
    assert_eq!(guesser.guesses(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_cannot_take_the_name_of_a_live_node_by_showing_its_incarnation() {
    let hub = start(listener("hub@127.0.0.1")).await;
    let victim = start(listener(DB).route("^hub@", route_to(&hub), 1)).await;
    let mut mailbox = victim.register("in").unwrap();
    soon(victim.connect("hub@127.0.0.1")).await.unwrap();
    until(|| hub.connection(DB).is_some()).await;
    let before = hub.connection(DB).unwrap().info().id;

    let incarnation = incarnation_of(address(&victim), claim("mallory@127.0.0.1", DB, cookie("all"))).await;
    let as_victim = Claim { incarnation, ..claim(DB, "hub@127.0.0.1", cookie("all")) };
    for params in [
        Params { known_epoch: u64::MAX, ..Params::default() },
        Params { known_epoch: 0, ..Params::default() },
        Params { known_epoch: 1, last_link: Some([1; 16].into()), ..Params::default() },
        Params { known_epoch: 1, have_link: Some([1; 16].into()), replaces: Some([2; 16].into()), ..Params::default() },
    ] {
        let params = Params { flags: trunkline_route::FlagTerms::default(), ..params };
        let refused = soon(Raw::link(address(&hub), as_victim.clone(), &params)).await.err().flatten();
        let Some(HandshakeError::Closed { code, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(code, CloseCode::NameInUse);
    }
    assert_eq!(hub.connection(DB).unwrap().info().id, before);
    soon(hub.send(DB, "in", b"still for the victim")).await.unwrap();
    assert_eq!(text(&mut mailbox).await, "still for the victim");
}

/// Opens a link of a guest to a node, with the stack of another node that would connect through it.
async fn guest(node: &Node, listen: usize) -> (Link, tokio::task::JoinHandle<()>) {
    let native = Native::new(name("guest@127.0.0.1"), NativeLimits::default());
    let dialed = dial(&native, node.listening()[listen], node, &no_tls()).await.unwrap();
    let standing = soon(dialed.finish(Claims::default())).await.unwrap();
    let (link, driver) = standing.start(Arc::new(Mailboxes::default()), Hooks::default());
    link.ping();
    (link, tokio::spawn(driver))
}

fn no_tls() -> ClientTls {
    ClientTls::new(&TlsProfile::default().no_roots()).unwrap()
}

fn attempt(at: SocketAddr, node: &Node) -> Attempt {
    Attempt {
        target: node.name().clone(),
        via: None,
        address: Address::new(at.ip().to_string(), at.port()).unwrap(),
        tls: TlsMode::CookieOnly,
        version: Version::native(1),
        cookie: cookie("all"),
        policy: LinkPolicy::default(),
    }
}

async fn dial(
    native: &Native,
    at: SocketAddr,
    node: &Node,
    tls: &ClientTls,
) -> Result<trunkline_link::Dialed, DialError> {
    soon(native.dial(at, &attempt(at, node), Mode::Node, tls, DialTimes::default())).await
}

/// Opens a link to the node itself inside the guest's link, under another name.
async fn inside(link: &Link, node: &Node, called: &str, tls: &ClientTls) -> Result<(), DialError> {
    let open = ProxyOpen::new(node.name().clone(), 1).encode();
    let stream = soon(link.open(StreamKind::Proxied, &open, PROMPT)).await.unwrap();
    let native = Native::new(name(called), NativeLimits::default());
    let dialed = soon(native.dial_over(
        Transport::relayed(stream),
        &attempt(address(node), node),
        Mode::Node,
        tls,
        DialTimes::default(),
    ))
    .await?;
    soon(dialed.finish(Claims::default())).await.map(drop)
}

fn guests() -> Vec<AccessPattern> {
    vec![AccessPattern::new("guest@.*").unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_a_listener_cannot_come_in_under_another_name_inside_its_own_link() {
    let strict = || dialer(DB).listen(Listen::at(loopback()).allow(guests())).listen(loopback());
    let db = start(strict()).await;
    let (link, driver) = guest(&db, 0).await;
    let error = inside(&link, &db, "admin@127.0.0.1", &no_tls()).await.unwrap_err();
    assert!(error.to_string().contains("not allowed"), "{error}");
    assert!(db.connection("admin@127.0.0.1").is_none());
    driver.abort();
    // A `proxied:` rule can allow it.
    let everybody = Proxied { allow: Some(vec![AccessPattern::new(".*").unwrap()]), ..Proxied::default() };
    let db = start(strict().proxied(everybody)).await;
    let (link, driver) = guest(&db, 0).await;
    inside(&link, &db, "admin@127.0.0.1", &no_tls()).await.unwrap();
    driver.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_inside_another_meets_the_strictest_listener_whatever_the_order_of_listeners() {
    let authority = authority();
    let demanding = || {
        let profile = ServerProfile::new(identity(&authority, DB));
        Listen::at(loopback()).tls(profile.client_roots_pem(authority.certificate().as_bytes()).unwrap())
    };
    for demanding_is_first in [true, false] {
        let (one, other) = (demanding(), Listen::at(loopback()));
        let listeners = if demanding_is_first { [one, other] } else { [other, one] };
        let db = start(listeners.into_iter().fold(dialer(DB), |db, listen| db.listen(listen))).await;
        let (link, driver) = guest(&db, usize::from(demanding_is_first)).await;
        let refused = inside(&link, &db, "admin@127.0.0.1", &no_tls()).await;
        assert!(matches!(refused, Err(DialError::Tls(_))), "first: {demanding_is_first}: {refused:?}");
        let shown = identity(&authority, "admin@127.0.0.1");
        let shown = ClientTls::new(&TlsProfile::default().no_roots().identity(shown)).unwrap();
        inside(&link, &db, "admin@127.0.0.1", &shown).await.unwrap();
        driver.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_refused_if_its_certificate_must_carry_its_name_and_carries_another() {
    let authority = authority();
    let profile = ServerProfile::new(identity(&authority, DB));
    let profile = profile.client_roots_pem(authority.certificate().as_bytes()).unwrap().cert_name_required(true);
    let db = start(dialer(DB).listen(Listen::at(loopback()).tls(profile))).await;
    let calls = |called: &'static str, certified: &'static str| {
        let shown = trusting(&authority).identity(identity(&authority, certified));
        let route = route_to(&db).tls(true).tls_profile(profile_id("p"));
        start(dialer(called).tls_profile(profile_id("p"), shown).route("^db@", route, 1))
    };
    let own = calls("app@127.0.0.1", "app@127.0.0.1").await;
    soon(own.connect(DB)).await.unwrap();
    let impostor = calls("app2@127.0.0.1", "app@127.0.0.1").await;
    let failed = no_route(soon(impostor.connect(DB)).await);
    assert!(failed.to_string().contains("must carry its name"), "{failed}");
    assert!(ClientAuth::Named > ClientAuth::Required);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_that_demands_the_name_in_the_certificate_refuses_another_node_of_the_same_host() {
    let authority = authority();
    let db = start(certified(&authority, DB)).await;
    let as_db = identity(&authority, "other@127.0.0.1");
    let impostor = start(dialer("db2@127.0.0.1").listen(Listen::at(loopback()).tls(as_db))).await;
    let demanding = trusting(&authority).cert_name_required(true);
    let app = dialer("app@127.0.0.1").tls_profile(profile_id("p"), demanding);
    let verified = |node: &Node| route_to(node).tls(true).tls_profile(profile_id("p"));
    let app = start(app.route("^db@", verified(&db), 1).route("^db2@", verified(&impostor), 1)).await;
    soon(app.connect(DB)).await.unwrap();
    let failed = no_route(soon(app.connect("db2@127.0.0.1")).await);
    assert!(failed.to_string().contains("does not carry its name"), "{failed}");
}
