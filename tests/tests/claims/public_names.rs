//! Types in the public signatures of `trunkline`: a program that depends on that crate alone can name each of them.

#![allow(unused_imports, reason = "naming them is the test")]

use trunkline::matcher::{
    Entry, Explanation, LimitKind, Limits, Lint, LintKind, Matches, NameTooLong, Needed, PatternClass, Scratch, Stats,
};
use trunkline::registrar::{
    BoxFuture, Lease, NamesFile, RegisterError as AnnounceError, Registrar, Registration, ResolveError, Resolver,
};
use trunkline::term::{Atom, Term, TermError};
use trunkline::{
    AccessPattern, Attempt, AttemptError, BadPid, ByteStream, CloseCode, Cookie, CookieError, Defaults, Direct,
    Disagreement, Down, EndpointError, FlagTerms, Host, IdError, Incarnation, LinkId, LinkInfo, NativeLimits,
    NetworkRoute, NetworkRouteBuilder, Next, Node, NodeName, PatternErrorKind, PatternIndex, Pid, Resolved, ResolverId,
    SpawnLimits, StreamOptions, UnknownFlag, Version, VersionError, Window,
};

/// Helpers of a program around the parameters and results of the crate.
struct Helpers {
    direct: fn(&str, u16) -> Result<NetworkRouteBuilder<Direct>, EndpointError>,
    resolved: fn(ResolverId) -> NetworkRouteBuilder<Resolved>,
    routes: fn(&Node) -> std::sync::Arc<PatternIndex<NetworkRoute>>,
    why: fn(&Down) -> Option<CloseCode>,
    life: fn(&LinkInfo) -> (Incarnation, LinkId),
    next: fn(&AttemptError) -> Next,
    window: fn(&NativeLimits) -> Window,
}

#[test]
fn every_type_of_a_public_signature_can_be_named() {
    let helpers = Helpers {
        direct: |host, port| NetworkRoute::direct(host, port),
        resolved: NetworkRoute::resolved_by,
        routes: Node::routes,
        why: |down| match down {
            Down::ClosedHere(code) | Down::ClosedByPeer { code, .. } => Some(*code),
            _ => None,
        },
        life: |info| (info.incarnation, info.id),
        next: AttemptError::next,
        window: |limits| limits.window,
    };
    let route = (helpers.direct)("localhost", 1).unwrap().build();
    let name: NodeName = "a@h".parse().unwrap();
    let defaults = Defaults::new(Cookie::new("a cookie of some length").unwrap());
    let attempt: Option<Attempt> = route.attempt(&name, None, &defaults);
    assert_eq!(attempt.unwrap().address.port.get(), 1);
    assert!(matches!((helpers.next)(&AttemptError::ResolveEmpty), Next::Candidate));
    assert_eq!((helpers.why)(&Down::ClosedHere(CloseCode::Normal)), Some(CloseCode::Normal));
    assert!((helpers.window)(&NativeLimits::default()).max_message > 0);
    let cookie: CookieError = Cookie::new("short").unwrap_err();
    let host: EndpointError = Host::new("").unwrap_err();
    let id: IdError = ResolverId::new("").unwrap_err();
    let version: VersionError = "".parse::<Version>().unwrap_err();
    let pid: BadPid = "".parse::<Pid>().unwrap_err();
    for error in [cookie.to_string(), host.to_string(), id.to_string(), version.to_string(), pid.to_string()] {
        assert!(!error.is_empty());
    }
    let _ = (helpers.resolved, helpers.routes, helpers.life);
}
