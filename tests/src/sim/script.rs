//! Histories: the actions of programs and the faults, drawn from the seed.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use trunkline_dial::Candidate;
use trunkline_route::{Attempt, Cookie, Defaults, Endpoint, NetworkRoute, NodeName, Reconnect, ResolverId};
use trunkline_wire::handshake::Exporter;

use super::faults::Fault;
use super::net::{ConnId, MS, Outage, Path, SEC};
use super::node::Want;
use super::world::{Caller, Event, Host, MIN_FAULTS, Purpose, World};

/// Port of every listener.
pub const PORT: u16 = 4370;
/// Shortest duration of the script; it goes on until enough faults have happened.
const SCRIPT: u64 = 14 * SEC;
/// Time for everything that recovers by itself.
const SETTLE: u64 = 200 * SEC;

/// Action of the script.
#[derive(Debug, Clone)]
pub enum Action {
    /// A program on this host requests a connection to that node.
    Connect {
        /// Host of the program.
        host: usize,
        /// The host whose name is dialled.
        peer: usize,
        /// Requirements for the link.
        want: Box<Want>,
    },
    /// Two nodes dial each other.
    Cross(usize, usize),
    /// A program sends some messages.
    Send {
        /// Host of the program.
        host: usize,
        /// Host whose name is the receiver.
        peer: usize,
        /// Number of messages.
        count: u64,
    },
    /// One of the callers goes away.
    DropCaller,
    /// A node dies.
    Restart {
        /// Host of the node.
        host: usize,
        /// True if its peers learn of it at once.
        known: bool,
        /// Time until it starts again.
        back: u64,
    },
    /// A program ends its connection.
    Disconnect {
        /// Host of the program.
        host: usize,
        /// Host whose name the connection is to.
        peer: usize,
    },
    /// One path to a host goes down.
    TakeDown {
        /// The path.
        path: Path,
        /// Kind of the outage.
        fault: Fault,
        /// Duration, in microseconds.
        lasts: u64,
    },
    /// One path to a host goes down and comes back the given number of times.
    Flap(Path, u32),
    /// A connection breaks.
    Cut(Fault),
    /// No packets pass between two hosts for a while.
    Part {
        /// First host.
        a: usize,
        /// Second host.
        b: usize,
        /// Duration, in microseconds.
        lasts: u64,
    },
    /// The next action is drawn, or the faults end.
    Draw,
    /// The faults end.
    Calm,
    /// Nodes stop all activity of their own.
    Freeze,
}

/// A static route of a table.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    /// Weight.
    pub weight: i64,
    /// Address of the target.
    pub address: String,
    /// True if it has the cookie that the listeners hold.
    pub right_cookie: bool,
    /// Hold time after which connections over worse routes go back to it.
    pub failback: Option<u64>,
}

/// The static routes for a name.
#[derive(Debug, Clone, Default)]
pub struct RouteSpecs {
    /// Routes in the order they were added.
    pub routes: Vec<RouteSpec>,
    /// Policy for the connection when it goes down.
    pub reconnect: Reconnect,
}

impl RouteSpecs {
    /// Returns the candidates in the order they were added. A dial of a higher grade demands TLS.
    pub fn candidates(&self, grade: u8) -> Vec<Candidate> {
        let candidate = |(at, spec): (usize, &RouteSpec)| {
            let route = NetworkRoute::direct(&spec.address, PORT).expect("a legal address");
            let route = route.cookie(cookie(spec.right_cookie)).tls(grade > 0).insecure_skip_verify(grade > 0);
            let route = match spec.failback {
                Some(hold) => route.failback(Duration::from_micros(hold)),
                None => route,
            };
            Candidate { pattern: format!("^sim{at}").into(), weight: spec.weight, route: route.build() }
        };
        self.routes.iter().enumerate().map(candidate).collect()
    }

    /// Returns the candidates, best first.
    pub fn ranked(&self, grade: u8) -> Vec<Candidate> {
        ranked(self.candidates(grade))
    }
}

/// Sorts candidates as the route table does.
pub fn ranked(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.weight));
    candidates
}

/// Target of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A host.
    Host(Path),
    /// A closed port.
    Closed,
    /// An address from which nothing comes back.
    Silent,
}

/// Returns the target of an address.
pub fn place(ip: IpAddr) -> Place {
    let IpAddr::V4(ip) = ip else { return Place::Silent };
    match ip.octets() {
        [127, 0, 0, 200] => Place::Closed,
        [127, 0, 0, host @ 10..100] => Place::Host(Path { host: usize::from(host - 10), slow: false }),
        [127, 0, 1, host @ 10..100] => Place::Host(Path { host: usize::from(host - 10), slow: true }),
        _ => Place::Silent,
    }
}

fn ip(net: u8, host: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, net, 10 + host as u8)
}

/// Returns the addresses of a host with two paths, the slow one first.
pub fn dns(name: &str) -> Vec<IpAddr> {
    let host = name.trim_start_matches("two-").trim_end_matches(".sim").parse().unwrap_or(0);
    vec![ip(1, host).into(), ip(0, host).into()]
}

/// Returns the cookie that the listeners hold, or a different one.
pub fn cookie(right: bool) -> Cookie {
    Cookie::new(if right { "the shared secret" } else { "a former secret" }).expect("long enough")
}

/// Returns the defaults for routes that leave fields unset.
pub fn defaults(grade: u8) -> Defaults {
    let mut defaults = Defaults::new(cookie(true));
    defaults.tls = grade > 0;
    defaults
}

/// Returns the attempt for an answer of discovery when no static route matches.
pub fn bare_attempt(peer: &NodeName, endpoint: &Endpoint, grade: u8) -> Attempt {
    let route = NetworkRoute::resolved_by(ResolverId::new("sim").expect("a legal id")).build();
    route.attempt(peer, Some(endpoint), &defaults(grade)).expect("there is an answer")
}

/// Returns the secret that only the two ends of a connection know.
pub fn exporter(conn: ConnId) -> Exporter {
    let mut exporter = [7; 32];
    exporter[..8].copy_from_slice(&(conn as u64).to_be_bytes());
    exporter
}

/// Returns the answer of discovery.
pub fn resolve(world: &mut World, peer: &NodeName) -> Vec<Endpoint> {
    if !world.calm && world.rng.percent(10) {
        world.counts.fault(Fault::ResolverFails);
        return Vec::new();
    }
    let hosts = world.hosts.iter().enumerate().filter(|(_, host)| host.name == *peer);
    let at = |(host, _)| Endpoint::at(format!("{}:{PORT}", ip(0, host)).parse().expect("a legal address"));
    hosts.map(at).collect()
}

/// Lays out the world of a seed and draws its history.
pub fn prepare(world: &mut World) {
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
            let reconnect = [Reconnect::OnDemand, Reconnect::Keep, Reconnect::Never][world.rng.index(3)];
            let name = world.hosts[peer].name.clone();
            world.hosts[host].routes.entry(name).or_insert(RouteSpecs { routes, reconnect });
        }
    }
    world.at_time(MS, Event::Act(Action::Draw));
}

fn draw_routes(world: &mut World, host: usize, peer: usize) -> Vec<RouteSpec> {
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
            6 | 7 => ip(1, peer).to_string(),
            _ => ip(0, peer).to_string(),
        };
        let silent = address == "127.0.0.201";
        if !(silent && routes.iter().any(|r: &RouteSpec| r.address == address)) {
            let failback = world.rng.percent(30).then(|| world.rng.between(3 * SEC, 6 * SEC));
            routes.push(RouteSpec { weight, address, right_cookie, failback });
        }
    }
    // Discovery dials with the demands of the best route. If that route can never work, the result is meaningless.
    if let Some(best) = (0..routes.len()).min_by_key(|at| (std::cmp::Reverse(routes[*at].weight), *at)) {
        if !routes[best].right_cookie {
            routes[best].weight = -1;
        }
        if !routes.iter().any(|route| route.right_cookie) {
            let address = ip(0, peer).to_string();
            routes.push(RouteSpec { weight: 5, address, right_cookie: true, failback: None });
        }
        let best = (0..routes.len()).min_by_key(|at| (std::cmp::Reverse(routes[*at].weight), *at));
        if let Some(best) = best.filter(|best| !routes[*best].right_cookie) {
            routes[best].right_cookie = true;
        }
    }
    routes
}

fn draw(world: &mut World, count: usize) -> Action {
    let rng = &mut world.rng;
    let host = rng.index(count);
    let peer = (host + 1 + rng.index(count - 1)) % count;
    let want = |grade, afresh| Want { grade, only: None, afresh };
    let path = Path { host: peer, slow: rng.percent(50) };
    match rng.below(100) {
        0..15 => Action::Connect { host, peer, want: Box::new(want(0, rng.percent(10))) },
        15..25 => Action::Connect { host, peer, want: Box::new(want(1, rng.percent(10))) },
        25..38 => Action::Cross(host, peer),
        38..58 => Action::Send { host, peer, count: rng.between(1, 5) },
        58..61 => Action::DropCaller,
        61..66 => Action::Restart { host, known: rng.percent(50), back: rng.between(MS, 400 * MS) },
        66..68 => Action::Restart { host, known: rng.percent(50), back: rng.between(5 * SEC, 25 * SEC) },
        68..71 => Action::Disconnect { host, peer },
        71..83 => Action::Cut([Fault::CutKnown, Fault::HalfDeadDialler, Fault::HalfDeadListener][rng.index(3)]),
        83..87 => Action::TakeDown { path, fault: Fault::PathCloses, lasts: rng.between(SEC, 8 * SEC) },
        87..90 => Action::TakeDown { path, fault: Fault::PathSilent, lasts: rng.between(SEC, 8 * SEC) },
        90..92 => Action::Flap(path, rng.between(2, 5) as u32),
        92..97 => Action::Part { a: host, b: peer, lasts: rng.between(200 * MS, 3 * SEC) },
        _ => Action::Part { a: host, b: peer, lasts: rng.between(16 * SEC, 18 * SEC) },
    }
}

/// Draws the next action, and further ones that coincide with it, since faults often come together.
fn draw_on(world: &mut World) {
    let count = world.hosts.len();
    let action = draw(world, count);
    act(world, action);
    if world.rng.percent(30) {
        let (more, soon) = (draw(world, count), world.rng.below(300 * MS));
        world.after(soon, Event::Act(more));
    }
    if world.now < SCRIPT || world.counts.befell() < MIN_FAULTS {
        let pause = world.rng.between(MS, 1_500 * MS);
        world.after(pause, Event::Act(Action::Draw));
    } else {
        world.after(SEC, Event::Act(Action::Calm));
    }
}

/// Carries out an action.
pub fn act(world: &mut World, action: Action) {
    match action {
        Action::Connect { host, peer, want } => connect(world, host, peer, *want),
        Action::Cross(a, b) => {
            if world.hosts[a].name != world.hosts[b].name {
                if !world.calm {
                    world.counts.fault(Fault::DialsCross);
                }
                connect(world, a, b, Want::default());
                connect(world, b, a, Want::default());
            }
        }
        Action::Send { host, peer, count } => {
            let name = world.hosts[peer].name.clone();
            world.send_messages(host, &name, count);
        }
        Action::DropCaller => {
            let waits = |caller: &Caller| caller.answer.is_none() && matches!(caller.purpose, Purpose::Program(_));
            let waiting: Vec<_> = (0..world.callers.len()).filter(|id| waits(&world.callers[*id])).collect();
            if let Some(id) = (!waiting.is_empty()).then(|| waiting[world.rng.index(waiting.len())]) {
                world.counts.fault(Fault::CallerDropped);
                world.say(|| format!("caller {id} goes away"));
                world.caller_gone(id);
                let now = world.now;
                world.callers[id].answer = Some((now, Err("went away".into())));
            }
        }
        Action::Restart { host, known, back } => {
            if world.hosts[host].node.is_some() {
                world.counts.fault(match known {
                    _ if back > SEC => Fault::LongAbsence,
                    true => Fault::RestartKnown,
                    false => Fault::RestartSilent,
                });
                world.restart(host, known, back);
            }
        }
        Action::Disconnect { host, peer } => {
            let name = world.hosts[peer].name.clone();
            let link = world.hosts[host].node.as_ref().and_then(|node| node.entries.get(&name)?.link());
            if let Some(link) = link {
                world.counts.fault(Fault::Disconnected);
                world.disconnect(host, link);
            }
        }
        Action::TakeDown { path, fault, lasts } => {
            world.counts.fault(fault);
            take_down(world, path, fault == Fault::PathSilent, lasts);
        }
        Action::Flap(path, times) => {
            for time in 0..u64::from(times) {
                let lasts = world.rng.between(500 * MS, SEC);
                let action = Action::TakeDown { path, fault: Fault::PathFlaps, lasts };
                world.after(time * 2 * SEC, Event::Act(action));
            }
        }
        Action::Cut(fault) => cut(world, fault),
        Action::Part { a, b, lasts } => part(world, a, b, lasts),
        Action::Draw => draw_on(world),
        Action::Calm => {
            world.calm = true;
            world.calmed = world.now;
            world.say(|| "calm".into());
            world.after(SETTLE, Event::Act(Action::Freeze));
        }
        Action::Freeze => {
            world.frozen = true;
            world.froze = world.now;
            world.say(|| "nothing unasked any more".into());
        }
    }
}

fn take_down(world: &mut World, path: Path, is_silent: bool, lasts: u64) {
    let until = world.now + lasts;
    world.say(|| format!("{path:?} is down, silent {is_silent}"));
    world.net.take_down(path, until, if is_silent { Outage::Silent } else { Outage::Refuses });
    for conn in world.net.by_path(path) {
        world.cut(conn, [is_silent; 2]);
    }
}

fn connect(world: &mut World, host: usize, peer: usize, want: Want) {
    let name = world.hosts[peer].name.clone();
    if name == world.hosts[host].name {
        return;
    }
    if world.twins && !world.calm && peer != 1 {
        world.counts.fault(Fault::TwinName);
    }
    world.connect(host, &name, want, Purpose::Program(0));
}

fn cut(world: &mut World, fault: Fault) {
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

fn part(world: &mut World, a: usize, b: usize, lasts: u64) {
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

/// Makes every node dial every other, also at the same time. Called once everything is at rest.
pub fn probe(world: &mut World) {
    world.begin_calm();
    for host in 0..world.hosts.len() {
        for peer in 0..world.hosts.len() {
            if host != peer {
                let soon = world.rng.below(40 * MS);
                world.after(soon, Event::Act(Action::Connect { host, peer, want: Box::default() }));
            }
        }
    }
}

/// Makes every node write to every other, at the very end.
pub fn last_words(world: &mut World) {
    for host in 0..world.hosts.len() {
        for peer in 0..world.hosts.len() {
            world.after(MS, Event::Act(Action::Send { host, peer, count: 2 }));
        }
    }
}
