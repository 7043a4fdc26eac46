use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trunkline_route::{NodeName, Reconnect, ResolverId};

use super::{Backoff, Failback};
use crate::Candidate;

/// Names remembered; a node has no more links. Where there are more, what is known of those that nothing is done for is
/// forgotten, and no more of them lapse.
const MOST: usize = 65_536;

fn make_room<T>(map: &mut HashMap<NodeName, T>, name: &NodeName, in_use: impl Fn(&NodeName) -> bool) {
    if map.len() >= MOST && !map.contains_key(name) {
        map.retain(|known, _| in_use(known));
    }
}

/// A route that connections over a worse one go back to: its pattern and its hold time. One whose hold time was changed
/// is another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Better {
    pattern: Arc<str>,
    hold: Duration,
}

impl Better {
    /// Relation of a candidate to a connection over a worse one. A candidate without a hold time is not in [`better_routes`].
    pub fn of(candidate: &Candidate) -> Self {
        Self { pattern: candidate.pattern.clone(), hold: candidate.route.failback().unwrap_or_default() }
    }
}

/// The routes that a connection over this one is to go back to, best first: those before it that have a hold time, and a
/// higher weight where equal ones race.
///
/// `candidates` are the name's, best first; `route` and `resolver` tell how the connection came, as
/// [`Candidate::carries`] takes them. One over no route of the table goes back to any.
pub fn better_routes(
    mut candidates: Vec<Candidate>,
    route: Option<&str>,
    resolver: Option<&ResolverId>,
    equals_race: bool,
) -> Vec<Candidate> {
    if let Some(own) = candidates.iter().position(|candidate| candidate.carries(route, resolver)) {
        let weight = candidates[own].weight;
        candidates.truncate(own);
        candidates.retain(|candidate| !equals_race || candidate.weight > weight);
    }
    candidates.retain(|candidate| candidate.route.failback().is_some());
    candidates
}

/// State of the work that a node does for its connections unasked: redials and moves to a better route.
///
/// It decides; whoever holds it keeps one task per name that dials and one per name that probes, and begins one when
/// [`Keeper::down`] or [`Keeper::up`] say so.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Names whose connections went down and stay down until a program connects.
    lapsed: HashSet<NodeName>,
    backoffs: HashMap<NodeName, Backoff>,
    failbacks: HashMap<NodeName, HashMap<Better, Failback>>,
    /// Names with a task that dials them, and whether they are still down against everybody's will.
    dialling: HashMap<NodeName, bool>,
    /// Names with a task that probes.
    probing: HashSet<NodeName>,
}

impl Keeper {
    /// Of a node without connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns true if the connection to this name went down and stays down until a program connects.
    pub fn has_lapsed(&self, name: &NodeName) -> bool {
        self.lapsed.contains(name)
    }

    /// Returns true if any name has lapsed.
    pub fn some_lapsed(&self) -> bool {
        !self.lapsed.is_empty()
    }

    /// Notes that a program connects: earlier decisions about the name no longer apply.
    pub fn forgive(&mut self, name: &NodeName) {
        self.lapsed.remove(name);
    }

    /// Tells the task that dials this name, if there is one.
    fn is_down(&mut self, peer: &NodeName, down: bool) -> bool {
        self.dialling.get_mut(peer).map(|known| *known = down).is_some()
    }

    /// A connection is up, over a route worse than these. True: begin a task that probes them.
    pub fn up(&mut self, now: Instant, peer: &NodeName, better: &[Better]) -> bool {
        self.lapsed.remove(peer);
        self.is_down(peer, false);
        if let Some(backoff) = self.backoffs.get_mut(peer) {
            backoff.up(now);
        }
        if better.is_empty() {
            // A probe that is under way still must not take it back to where it is.
            self.settle(peer);
            return false;
        }
        for failback in self.know(peer, better).values_mut() {
            failback.fell_back(now);
        }
        self.begin_probing(peer)
    }

    /// A connection that is up runs over a route worse than these by now: the table was edited, or is to be looked at
    /// again. True: begin a task that probes them.
    pub fn watch(&mut self, peer: &NodeName, better: &[Better]) -> bool {
        if better.is_empty() {
            return false;
        }
        self.know(peer, better);
        self.begin_probing(peer)
    }

    /// Returns the state of these routes of a name; others, which were changed or removed, are forgotten.
    fn know(&mut self, peer: &NodeName, better: &[Better]) -> &mut HashMap<Better, Failback> {
        make_room(&mut self.failbacks, peer, |name| self.probing.contains(name));
        let known = self.failbacks.entry(peer.clone()).or_default();
        known.retain(|known, _| better.contains(known));
        for route in better {
            known.entry(route.clone()).or_insert_with(|| Failback::new(route.hold));
        }
        known
    }

    /// A connection went down; `meant` when one of its ends wanted that. True: begin a task that dials it.
    pub fn down(&mut self, peer: &NodeName, reconnect: Reconnect, meant: bool) -> bool {
        // A probe that is under way still must not bring it back.
        self.settle(peer);
        if meant {
            self.backoffs.remove(peer);
            self.is_down(peer, false);
            return false;
        }
        match reconnect {
            Reconnect::OnDemand => false,
            Reconnect::Never => {
                if self.lapsed.len() < MOST {
                    self.lapsed.insert(peer.clone());
                }
                false
            }
            Reconnect::Keep => {
                make_room(&mut self.backoffs, peer, |name| self.dialling.contains_key(name));
                self.backoffs.entry(peer.clone()).or_default();
                !self.is_down(peer, true) && self.dialling.insert(peer.clone(), true).is_none()
            }
        }
    }

    /// Returns the pause of the task that dials a name. `random` is drawn evenly from 0 to 1.
    pub fn pause(&mut self, now: Instant, name: &NodeName, random: f64) -> Duration {
        self.backoffs.entry(name.clone()).or_default().next(now, random)
    }

    /// Returns true if the task that dials this name goes on: it is wanted, the name is still down against everybody's
    /// will, and `is_down`. One that does not is forgotten in the same step, so that whoever finds the name down
    /// afterwards begins another.
    pub fn goes_on(&mut self, name: &NodeName, wanted: bool, is_down: impl FnOnce() -> bool) -> bool {
        let goes_on = wanted && self.dialling.get(name) == Some(&true) && is_down();
        if !goes_on {
            self.dialling.remove(name);
        }
        goes_on
    }

    /// Returns the pause of the task that probes: the shortest pause of the routes to go back to, with a
    /// quarter of jitter. Nodes that fell back together shall not come back together.
    pub fn probe_pause(&self, name: &NodeName, random: f64) -> Duration {
        let shortest = self.failbacks.get(name).and_then(|known| known.values().map(Failback::pause).min());
        shortest.unwrap_or_default().mul_f64(0.875 + random.clamp(0.0, 1.0) / 4.0)
    }

    /// Returns the state of a better route of this name.
    pub fn failback(&self, name: &NodeName, better: &Better) -> Option<&Failback> {
        self.failbacks.get(name)?.get(better)
    }

    fn failback_mut(&mut self, name: &NodeName, better: &Better) -> Option<&mut Failback> {
        self.failbacks.get_mut(name)?.get_mut(better)
    }

    /// A better route was probed. True: the connection is to go back to it now.
    pub fn probed(&mut self, now: Instant, name: &NodeName, better: &Better, healthy: bool) -> bool {
        self.failback_mut(name, better).is_some_and(|failback| failback.probed(now, healthy))
    }

    /// Notes why a probe of a better route failed.
    pub fn probe_failed(&mut self, name: &NodeName, better: &Better, cause: String) {
        if let Some(failback) = self.failback_mut(name, better) {
            failback.failed(cause);
        }
    }

    /// The connection went back to this route.
    pub fn moved(&mut self, now: Instant, name: &NodeName, better: &Better) {
        if let Some(failback) = self.failback_mut(name, better) {
            failback.moved(now);
        }
    }

    fn settle(&mut self, name: &NodeName) {
        self.failbacks.get_mut(name).into_iter().flat_map(HashMap::values_mut).for_each(Failback::settled);
    }

    /// Reserves the probing of this name's better routes; returns false if another task probes them already.
    fn begin_probing(&mut self, name: &NodeName) -> bool {
        self.probing.insert(name.clone())
    }

    /// The task that probes found nothing to go back to and ends, unless `has_better` by now: what fell back meanwhile
    /// found this task and began none. True: it goes on.
    pub fn goes_on_probing(&mut self, name: &NodeName, has_better: impl FnOnce() -> bool) -> bool {
        self.probing.remove(name);
        has_better() && self.begin_probing(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "some moment to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn peer() -> NodeName {
        "b@keep".parse().expect("a legal name")
    }

    fn better(pattern: &str) -> Better {
        Better { pattern: pattern.into(), hold: Duration::from_secs(8) }
    }

    #[test]
    fn a_kept_name_has_one_task_that_dials_until_it_is_up_or_was_ended_on_purpose() {
        let mut keeper = Keeper::new();
        assert!(keeper.down(&peer(), Reconnect::Keep, false));
        assert!(!keeper.down(&peer(), Reconnect::Keep, false), "its task is there");
        assert!(keeper.goes_on(&peer(), true, || true));
        assert!(!keeper.up(start(), &peer(), &[]), "there is nothing to probe");
        assert!(!keeper.goes_on(&peer(), true, || true), "it is up");
        assert!(keeper.down(&peer(), Reconnect::Keep, false), "a task that ended is begun again");
        assert!(!keeper.down(&peer(), Reconnect::Keep, true));
        assert!(!keeper.goes_on(&peer(), true, || true), "it was ended on purpose meanwhile");
        assert!(!keeper.down(&peer(), Reconnect::OnDemand, false));
    }

    #[test]
    fn a_name_not_to_be_dialled_again_lapses_until_somebody_connects() {
        let mut keeper = Keeper::new();
        assert!(!keeper.down(&peer(), Reconnect::Never, true));
        assert!(!keeper.has_lapsed(&peer()), "it was ended on purpose");
        assert!(!keeper.down(&peer(), Reconnect::Never, false));
        assert!(keeper.has_lapsed(&peer()));
        keeper.forgive(&peer());
        assert!(!keeper.has_lapsed(&peer()));
    }

    #[test]
    fn a_name_on_a_standby_has_one_task_that_probes_what_its_table_still_holds() {
        let (mut keeper, mut now) = (Keeper::new(), start());
        assert!(keeper.up(now, &peer(), &[better("one"), better("two")]));
        assert!(!keeper.probed(now, &peer(), &better("one"), true), "not before the hold time");
        assert!(!keeper.up(now, &peer(), &[better("two")]), "its task is there");
        now += Duration::from_secs(8);
        assert!(!keeper.probed(now, &peer(), &better("one"), true), "the route was removed");
        assert!(!keeper.probed(now, &peer(), &better("two"), true), "the time counts from the first probe");
        now += Duration::from_secs(8);
        assert!(keeper.probed(now, &peer(), &better("two"), true));
        keeper.moved(now, &peer(), &better("two"));
        assert!(keeper.goes_on_probing(&peer(), || true), "it fell back again");
        assert!(!keeper.goes_on_probing(&peer(), || false));
        assert!(keeper.up(now, &peer(), &[better("two")]), "the task had ended");
        let hold = keeper.failback(&peer(), &better("two")).map(Failback::hold);
        assert_eq!(hold, Some(Duration::from_secs(16)), "it did not last");
    }

    #[test]
    fn a_probe_that_ends_after_the_connection_left_the_standby_moves_nothing() {
        let (mut keeper, now) = (Keeper::new(), start());
        keeper.up(now, &peer(), &[better("one")]);
        keeper.probed(now, &peer(), &better("one"), true);
        keeper.up(now, &peer(), &[]);
        assert!(!keeper.probed(now + Duration::from_secs(8), &peer(), &better("one"), true));
    }

    #[test]
    fn a_probe_that_ends_after_the_connection_was_ended_brings_it_not_back() {
        let (mut keeper, now) = (Keeper::new(), start());
        keeper.up(now, &peer(), &[better("one")]);
        keeper.probed(now, &peer(), &better("one"), true);
        keeper.down(&peer(), Reconnect::Never, false);
        assert!(!keeper.probed(now + Duration::from_secs(8), &peer(), &better("one"), true));
    }

    #[test]
    fn a_better_route_may_come_or_change_while_the_connection_is_up() {
        let (mut keeper, mut now) = (Keeper::new(), start());
        assert!(!keeper.up(now, &peer(), &[]));
        assert!(keeper.watch(&peer(), &[better("one")]));
        keeper.probed(now, &peer(), &better("one"), true);
        let shorter = Better { hold: Duration::from_secs(2), ..better("one") };
        assert!(!keeper.watch(&peer(), std::slice::from_ref(&shorter)), "its task is there");
        assert!(!keeper.probed(now, &peer(), &shorter, true));
        now += Duration::from_secs(2);
        assert!(keeper.probed(now, &peer(), &shorter, true));
        assert_eq!(keeper.failback(&peer(), &better("one")), None);
    }

    #[test]
    fn names_that_nothing_is_done_for_are_forgotten_when_there_are_too_many() {
        let mut keeper = Keeper::new();
        let name = |n: usize| -> NodeName { format!("n{n}@keep").parse().expect("a legal name") };
        for n in 0..MOST {
            keeper.watch(&name(n), &[better("one")]);
            keeper.down(&name(n), Reconnect::Keep, false);
        }
        keeper.goes_on_probing(&name(1), || false);
        keeper.goes_on(&name(1), false, || true);
        keeper.down(&peer(), Reconnect::Keep, false);
        keeper.watch(&peer(), &[better("one")]);
        assert_eq!((keeper.failbacks.len(), keeper.backoffs.len()), (MOST, MOST));
        assert!(keeper.failback(&name(0), &better("one")).is_some());
        assert!(keeper.failback(&name(1), &better("one")).is_none() && !keeper.backoffs.contains_key(&name(1)));
    }

    #[test]
    fn an_equal_that_raced_is_not_better() {
        let candidate = |pattern: &str, weight| Candidate {
            pattern: pattern.into(),
            weight,
            route: trunkline_route::NetworkRoute::direct("127.0.0.1", 1)
                .expect("legal")
                .failback(Duration::from_secs(8))
                .build(),
        };
        let all = || vec![candidate("best", 2), candidate("first", 1), candidate("second", 1)];
        let patterns = |better: Vec<Candidate>| better.into_iter().map(|c| c.pattern.to_string()).collect::<Vec<_>>();
        assert_eq!(patterns(better_routes(all(), Some("second"), None, false)), ["best", "first"]);
        assert_eq!(patterns(better_routes(all(), Some("second"), None, true)), ["best"]);
        assert_eq!(patterns(better_routes(all(), Some("gone"), None, true)), ["best", "first", "second"]);
    }

    #[test]
    fn probes_come_at_a_quarter_of_the_shortest_hold_time_give_or_take() {
        let mut keeper = Keeper::new();
        assert_eq!(keeper.probe_pause(&peer(), 0.5), Duration::ZERO, "nothing is known of it");
        let longer = Better { hold: Duration::from_secs(80), ..better("one") };
        keeper.up(start(), &peer(), &[longer, better("two")]);
        for (random, pause) in [(0.0, 1750), (0.5, 2000), (1.0, 2250)] {
            assert_eq!(keeper.probe_pause(&peer(), random), Duration::from_millis(pause));
        }
    }
}
