//! Histories: what programs do and what befalls the world, drawn from the seed.

use std::net::{IpAddr, Ipv4Addr};

use trunkline_dial::Candidate;
use trunkline_link::handshake::Exporter;
use trunkline_route::{Attempt, Cookie, Defaults, Endpoint, NetworkRoute, NodeName, ResolverId};

use super::faults::Fault;
use super::net::{ConnId, MS, SEC};
use super::rules::Rules;
use super::world::{Event, Host, World};

/// Every listener's port.
pub const PORT: u16 = 4370;
/// The script ends here.
const SCRIPT: u64 = 14 * SEC;

/// What happens next.
#[derive(Debug, Clone)]
pub enum Action {
    /// A program on this host wants that node.
    Connect {
        /// Where.
        host: usize,
        /// The host whose name is dialled.
        peer: usize,
        /// With which demands.
        grade: u8,
    },
    /// Both dial each other.
    Cross(usize, usize),
    /// A program sends some messages.
    Send {
        /// Where.
        host: usize,
        /// To the name of this host.
        peer: usize,
        /// How many.
        count: u64,
    },
    /// Some caller goes away.
    DropCaller,
    /// The node dies.
    Restart {
        /// Whose.
        host: usize,
        /// Its peers learn at once.
        known: bool,
    },
    /// A connection breaks.
    Cut(Fault),
    /// Nothing passes between two hosts for so long.
    Part {
        /// One.
        a: usize,
        /// The other.
        b: usize,
        /// In microseconds.
        lasts: u64,
    },
    /// The faults end.
    Calm,
}

/// A static route of a table.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// Its weight.
    pub weight: i64,
    /// Where it leads.
    pub address: String,
    /// With the cookie the listeners hold.
    pub right_cookie: bool,
}

impl RouteSpec {
    /// As the table gives it; a dial of a higher grade demands TLS.
    pub fn candidate(&self, grade: u8) -> Candidate {
        let route = NetworkRoute::direct(&self.address, PORT).expect("a legal address");
        let route = route.cookie(cookie(self.right_cookie)).tls(grade > 0).insecure_skip_verify(grade > 0);
        Candidate { pattern: "^sim".into(), weight: self.weight, route: route.build() }
    }
}

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A host.
    Host {
        /// Which.
        host: usize,
        /// By its second address.
        slow: bool,
    },
    /// A closed port.
    Closed,
    /// Nothing comes back.
    Silent,
}

/// What is at an address.
pub fn place(ip: IpAddr) -> Place {
    let IpAddr::V4(ip) = ip else { return Place::Silent };
    match ip.octets() {
        [127, 0, 0, 200] => Place::Closed,
        [127, 0, 0, host @ 10..100] => Place::Host { host: usize::from(host - 10), slow: false },
        [127, 0, 1, host @ 10..100] => Place::Host { host: usize::from(host - 10), slow: true },
        _ => Place::Silent,
    }
}

fn ip(net: u8, host: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, net, 10 + host as u8)
}

/// The addresses of a host with two paths, the slow one first.
pub fn dns(name: &str) -> Vec<IpAddr> {
    let host = name.trim_start_matches("two-").trim_end_matches(".sim").parse().unwrap_or(0);
    vec![ip(1, host).into(), ip(0, host).into()]
}

/// The cookie the listeners hold, or another.
pub fn cookie(right: bool) -> Cookie {
    Cookie::new(if right { "the shared secret" } else { "a former secret" }).expect("long enough")
}

/// What holds where a route says nothing.
pub fn defaults(grade: u8) -> Defaults {
    let mut defaults = Defaults::new(cookie(true));
    defaults.tls = grade > 0;
    defaults
}

/// The attempt at an answer of discovery when no static route matches.
pub fn bare_attempt(peer: &NodeName, endpoint: &Endpoint, grade: u8) -> Attempt {
    let route = NetworkRoute::resolved_by(ResolverId::new("sim").expect("a legal id")).build();
    route.attempt(peer, Some(endpoint), &defaults(grade)).expect("there is an answer")
}

/// What only the two ends of a connection know.
pub fn exporter(conn: ConnId) -> Exporter {
    let mut exporter = [7; 32];
    exporter[..8].copy_from_slice(&(conn as u64).to_be_bytes());
    exporter
}

/// What discovery answers.
pub fn resolve<R: Rules>(world: &mut World<R>, peer: &NodeName) -> Vec<Endpoint> {
    if !world.calm && world.rng.percent(10) {
        world.counts.fault(Fault::ResolverFails);
        return Vec::new();
    }
    let hosts = world.hosts.iter().enumerate().filter(|(_, host)| host.name == *peer);
    let at = |(host, _)| Endpoint::at(format!("{}:{PORT}", ip(0, host)).parse().expect("a legal address"));
    hosts.map(at).collect()
}

/// Lays out the world of a seed and draws its history.
pub fn prepare<R: Rules>(world: &mut World<R>) {
    let count = world.rng.between(2, 4) as usize;
    world.slow = world.rng.between(30 * MS, 180 * MS);
    world.twins = count == 3 && world.rng.percent(40);
    let names = if world.twins { ["a@sim", "b@sim", "a@sim"] } else { ["a@sim", "b@sim", "c@sim"] };
    for name in names.iter().take(count) {
        let name = name.parse().expect("a legal name");
        world.hosts.push(Host { name, life: 0, node: None, routes: Default::default() });
    }
    for host in 0..count {
        world.at_time(0, Event::Start(host));
        for peer in 0..count {
            let routes = draw_routes(world, host, peer);
            let name = world.hosts[peer].name.clone();
            world.hosts[host].routes.entry(name).or_insert(routes);
        }
    }
    for _ in 0..world.rng.between(8, 15) {
        let action = draw(world, count);
        let time = world.rng.between(MS, SCRIPT);
        world.at_time(time, Event::Act(action.clone()));
        if world.rng.percent(30) {
            // Trouble comes in company.
            let (more, soon) = (draw(world, count), world.rng.below(300 * MS));
            world.at_time(time + soon, Event::Act(more));
        }
    }
    world.at_time(SCRIPT + SEC, Event::Act(Action::Calm));
}

fn draw_routes<R: Rules>(world: &mut World<R>, host: usize, peer: usize) -> Vec<RouteSpec> {
    let mut routes = Vec::new();
    if host == peer {
        return routes;
    }
    let other = (0..world.hosts.len()).find(|other| *other != host && *other != peer);
    for _ in 0..world.rng.below(4) {
        let weight = world.rng.below(3) as i64;
        let mut right_cookie = true;
        let address = match world.rng.below(12) {
            0 => "127.0.0.200".to_owned(),
            1 => "127.0.0.201".to_owned(),
            2 => ip(0, other.unwrap_or(peer)).to_string(),
            3 => {
                right_cookie = false;
                ip(0, peer).to_string()
            }
            4 | 5 => format!("two-{peer}.sim"),
            _ => ip(0, peer).to_string(),
        };
        let silent = address == "127.0.0.201";
        if !(silent && routes.iter().any(|r: &RouteSpec| r.address == address)) {
            routes.push(RouteSpec { weight, address, right_cookie });
        }
    }
    // Discovery dials with the demands of the best route; a table that can never work tells nothing.
    if let Some(best) = (0..routes.len()).min_by_key(|at| (std::cmp::Reverse(routes[*at].weight), *at)) {
        if !routes[best].right_cookie {
            routes[best].weight = -1;
        }
        if !routes.iter().any(|route| route.right_cookie) {
            routes.push(RouteSpec { weight: 5, address: ip(0, peer).to_string(), right_cookie: true });
        }
        let best = (0..routes.len()).min_by_key(|at| (std::cmp::Reverse(routes[*at].weight), *at));
        if let Some(best) = best.filter(|best| !routes[*best].right_cookie) {
            routes[best].right_cookie = true;
        }
    }
    routes
}

fn draw<R: Rules>(world: &mut World<R>, count: usize) -> Action {
    let rng = &mut world.rng;
    let host = rng.index(count);
    let peer = (host + 1 + rng.index(count - 1)) % count;
    match rng.below(100) {
        0..22 => Action::Connect { host, peer, grade: 0 },
        22..36 => Action::Connect { host, peer, grade: 1 },
        36..52 => Action::Cross(host, peer),
        52..74 => Action::Send { host, peer, count: rng.between(1, 5) },
        74..78 => Action::DropCaller,
        78..84 => Action::Restart { host, known: rng.percent(50) },
        84..94 => Action::Cut([Fault::CutKnown, Fault::HalfDeadDialler, Fault::HalfDeadListener][rng.index(3)]),
        94..97 => Action::Part { a: host, b: peer, lasts: rng.between(200 * MS, 3 * SEC) },
        _ => Action::Part { a: host, b: peer, lasts: rng.between(16 * SEC, 18 * SEC) },
    }
}

/// Carries an action out.
pub fn act<R: Rules>(world: &mut World<R>, action: Action) {
    match action {
        Action::Connect { host, peer, grade } => connect(world, host, peer, grade),
        Action::Cross(a, b) => {
            if world.hosts[a].name != world.hosts[b].name {
                if !world.calm {
                    world.counts.fault(Fault::DialsCross);
                }
                connect(world, a, b, 0);
                connect(world, b, a, 0);
            }
        }
        Action::Send { host, peer, count } => {
            let name = world.hosts[peer].name.clone();
            for _ in 0..count {
                world.send_message(host, &name);
            }
        }
        Action::DropCaller => {
            let waiting: Vec<_> = (0..world.callers.len()).filter(|id| world.callers[*id].answer.is_none()).collect();
            if let Some(id) = (!waiting.is_empty()).then(|| waiting[world.rng.index(waiting.len())]) {
                world.counts.fault(Fault::CallerDropped);
                world.say(|| format!("caller {id} goes away"));
                world.caller_gone(id);
                let now = world.now;
                world.callers[id].answer = Some((now, Err("went away".into())));
            }
        }
        Action::Restart { host, known } => {
            if world.hosts[host].node.is_some() {
                world.counts.fault(if known { Fault::RestartKnown } else { Fault::RestartSilent });
                world.restart(host, known);
            }
        }
        Action::Cut(fault) => cut(world, fault),
        Action::Part { a, b, lasts } => part(world, a, b, lasts),
        Action::Calm => {
            world.calm = true;
            world.say(|| "calm".into());
        }
    }
}

fn connect<R: Rules>(world: &mut World<R>, host: usize, peer: usize, grade: u8) {
    let name = world.hosts[peer].name.clone();
    if name == world.hosts[host].name {
        return;
    }
    if world.twins && !world.calm && peer != 1 {
        world.counts.fault(Fault::TwinName);
    }
    world.connect(host, &name, grade);
}

fn cut<R: Rules>(world: &mut World<R>, fault: Fault) {
    let nodes = world.hosts.iter().filter_map(|host| host.node.as_ref());
    let mut standing: Vec<_> = nodes.flat_map(|node| node.links.keys().chain(node.tries.keys())).copied().collect();
    standing.retain(|conn| world.net.conn(*conn).cut.is_none());
    if standing.is_empty() {
        return;
    }
    let conn = standing[world.rng.index(standing.len())];
    world.counts.fault(fault);
    world.cut(conn, [fault == Fault::HalfDeadDialler, fault == Fault::HalfDeadListener]);
}

fn part<R: Rules>(world: &mut World<R>, a: usize, b: usize, lasts: u64) {
    let until = world.now + lasts;
    let long = lasts > 15 * SEC;
    world.say(|| format!("hosts {a} and {b} are apart, long {long}"));
    world.counts.fault(if long { Fault::PartitionLong } else { Fault::PartitionShort });
    world.net.part(a, b, until);
    if !long {
        return;
    }
    let (one, other) = (world.life(a), world.life(b));
    let between: Vec<_> = (0..world.net.len())
        .filter(|conn| {
            let conn = world.net.conn(*conn);
            let ends = [super::net::Side::Dialler, super::net::Side::Listener].map(|side| conn.end(side).who);
            ends == [one, other] || ends == [other, one]
        })
        .collect();
    for conn in between {
        world.cut(conn, [true, true]);
    }
}

/// After everything has come to rest: everyone dials everyone, also at the same time.
pub fn probe<R: Rules>(world: &mut World<R>) {
    world.begin_calm();
    for host in 0..world.hosts.len() {
        for peer in 0..world.hosts.len() {
            if host != peer {
                let soon = world.rng.below(40 * MS);
                world.after(soon, Event::Act(Action::Connect { host, peer, grade: 0 }));
            }
        }
    }
}

/// At the very end: everyone writes to everyone.
pub fn last_words<R: Rules>(world: &mut World<R>) {
    for host in 0..world.hosts.len() {
        for peer in 0..world.hosts.len() {
            world.after(MS, Event::Act(Action::Send { host, peer, count: 2 }));
        }
    }
}
