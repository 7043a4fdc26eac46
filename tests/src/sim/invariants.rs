//! Invariants. Each function returns the violation that it found.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use trunkline_dial::keep::Better;
use trunkline_dial::pair::{FlightId, LinkRef, OnAccept, OnOffer};
use trunkline_route::{Attempt, Incarnation, NodeName, Reconnect};

use super::answering::agree;
use super::ledger::{Kept, Ledger};
use super::model::{Move, Ruling, Situation};
use super::net::{ConnId, Micros, SEC};
use super::node::{Life, Node, Try};
use super::world::{BUDGET, MIN_FAULTS, Purpose, TICK, World};

/// Longest time, beyond the hold time, for a round of probes and the dial after it.
const PROBE_ROUND: Micros = 30 * SEC;

/// Violation of an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the invariant.
    pub invariant: &'static str,
    /// Place and circumstances.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

fn otherwise(holds: bool, invariant: &'static str, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, detail: detail() }) }
}

/// (a) Checks that at rest every link is up at both ends under one id, and that nothing else is left anywhere.
///
/// # Errors
/// The violation.
pub fn invariant_a_both_ends_or_neither(world: &World) -> Result<(), Violation> {
    const NAME: &str = "(a) at rest both ends are up with one link, or neither";
    let live = || world.hosts.iter().enumerate().filter_map(|(at, host)| Some((at, host, host.node.as_ref()?)));
    for (at, host, node) in live() {
        for (peer, entry) in &node.entries {
            let up = entry.peer.pair().up();
            let held = entry.link().and_then(|conn| node.links.get(&conn)).map(|end| end.id);
            otherwise(held == up.map(|up| up.id), NAME, || format!("host {at}: holds {held:?}, rules {up:?}"))?;
            let provisional = entry.peer.provisional().is_some() || entry.peer.pair().provisional().is_some();
            otherwise(!provisional && entry.peer.elders().is_empty(), NAME, || {
                format!("host {at}: a provisional link to {peer}, or one that drains")
            })?;
            let dials = entry.peer.flight().is_some() || entry.peer.pair().dialling().is_some();
            otherwise(!dials && entry.tasks.is_empty(), NAME, || format!("host {at}: a dial to {peer} goes on"))?;
            let Some(up) = up else { continue };
            let facing = |other: &Node| other.entries.get(&host.name).and_then(|entry| entry.peer.pair().up());
            let ends = live()
                .filter(|(_, other, node)| other.name == *peer && facing(node).is_some_and(|end| end.id == up.id));
            let ends = ends.count();
            otherwise(ends == 1, NAME, || format!("host {at}: up to {peer} by {up:?}, {ends} other ends"))?;
        }
        let links = node.entries.values().filter(|entry| entry.link().is_some()).count();
        let left = (node.links.len() - links, node.tries.len(), node.answers.len());
        otherwise(left == (0, 0, 0), NAME, || format!("host {at}: links, attempts, callers left over {left:?}"))?;
    }
    Ok(())
}

/// (b) Checks that a node has at most one FINISH outstanding to a peer.
///
/// # Errors
/// The violation.
pub fn invariant_b_one_finish_outstanding(tries: &BTreeMap<ConnId, Try>, peer: &NodeName) -> Result<(), Violation> {
    let out: Vec<_> = tries.iter().filter(|(_, t)| t.peer == *peer && t.finish.is_some()).map(|(c, _)| *c).collect();
    otherwise(out.len() <= 1, "(b) one FINISH is outstanding per peer", || format!("to {peer}: {out:?}"))
}

/// (c) Checks that an offer, whatever its verdict, leaves the live link in its place.
///
/// # Errors
/// The violation.
pub fn invariant_c_provisional_displaces_nothing(
    before: Option<LinkRef>,
    after: Option<LinkRef>,
) -> Result<(), Violation> {
    otherwise(before == after, "(c) nothing is displaced before the first frame", || format!("{before:?} {after:?}"))
}

/// (d) Checks that a message arrives once, and after those sent before it.
///
/// # Errors
/// The violation.
pub fn invariant_d_once_and_in_order(
    from: Life,
    to: Life,
    number: u64,
    before: u64,
    times: u32,
) -> Result<(), Violation> {
    otherwise(number > before && times == 1, "(d) messages arrive once and in order", || {
        format!("{from:?} to {to:?}: {number} after {before}, {times} times")
    })
}

/// (d) Checks that a message that did not arrive caused an error at its sender, unless one of the two incarnations has
/// ended or the network broke under a link that both ends had finished with. A link that was replaced while it worked
/// loses nothing at all, unless its successor broke before it was drained.
///
/// # Errors
/// The violation.
pub fn invariant_d_nothing_lost_in_silence(world: &World) -> Result<(), Violation> {
    for sent in world.ledger.messages.values().filter(|sent| sent.arrived == 0) {
        let is_cut = |conn| world.net.conn(conn).cut.is_some();
        let replaced = world.ledger.replaced.get(&sent.conn).is_some_and(|new| !is_cut(*new));
        let excused = !world.lives(sent.from)
            || !world.lives(sent.to)
            || (!replaced && world.ledger.errors.contains(&(sent.from, sent.conn)))
            || is_cut(sent.conn);
        otherwise(excused, "(d) no message is lost without an error", || format!("{sent:?}"))?;
    }
    Ok(())
}

/// (j) Checks that an important message is delivered at most once, and is confirmed to its sender only if it was.
///
/// # Errors
/// The violation.
pub fn invariant_j_once(from: Life, to: Life, number: u64, kept: Kept) -> Result<(), Violation> {
    let holds = kept.arrived == 1 || (kept.arrived == 0 && !kept.told);
    otherwise(holds, "(j) important messages arrive once", || format!("{from:?} to {to:?}: {number}, {kept:?}"))
}

/// (j) Reports a sender that exceeded the limit of messages in flight.
///
/// # Errors
/// Always: the violation.
pub fn invariant_j_never(number: u64) -> Result<(), Violation> {
    otherwise(false, "(j) no more important messages are in flight than may be", || format!("{number}"))
}

/// (j) Checks that at rest every important message between two incarnations with a link is settled.
///
/// # Errors
/// The violation.
pub fn invariant_j_all_settled(world: &World) -> Result<(), Violation> {
    for (host, node) in world.hosts.iter().enumerate().filter_map(|(at, host)| Some((at, host.node.as_ref()?))) {
        for conn in node.entries.values().filter_map(|entry| entry.link()) {
            let peer = world.peer_life(host, conn);
            let idle = node.accounts.get(&peer).is_none_or(|account| account.outgoing.is_idle());
            otherwise(idle || !world.is_healthy(conn), "(j) important messages are settled", || {
                format!("host {host} to {peer:?} over {conn}")
            })?;
        }
    }
    Ok(())
}

/// (k) Checks that every kept connection, one that was up and was not ended on purpose, is up again.
///
/// # Errors
/// The violation.
pub fn invariant_k_kept_connections_are_up(world: &World) -> Result<(), Violation> {
    for (who, peer) in world.ledger.kept.iter().filter(|(who, _)| world.lives(*who)) {
        let host = &world.hosts[who.host];
        let link = host.node.as_ref().and_then(|node| node.entries.get(peer)?.link());
        let is_kept = host.routes.get(peer).is_some_and(|specs| specs.reconnect == Reconnect::Keep);
        otherwise(!is_kept || link.is_some(), "(k) kept connections come up again", || format!("{who:?} to {peer}"))?;
    }
    Ok(())
}

/// (l) Checks that a connection over a standby has gone back to the best route that works, or is still in its hold
/// time.
///
/// # Errors
/// The violation.
pub fn invariant_l_nobody_stays_on_a_standby(world: &World) -> Result<(), Violation> {
    for (at, host) in world.hosts.iter().enumerate() {
        let Some(node) = &host.node else { continue };
        for end in node.links.values() {
            let Some((route, resolver)) = &end.came_by else { continue };
            let better = world.better_routes(at, &end.peer, route.as_deref(), resolver.as_ref());
            for candidate in better.iter().filter(|candidate| world.works(&end.peer, candidate)) {
                let hold =
                    node.keeper.failback(&end.peer, &Better::of(candidate)).map(|f| f.hold().as_micros() as Micros);
                let key = (world.life(at), end.peer.clone(), candidate.pattern.clone());
                // Long absences and partitions end within a minute of the last fault.
                let unseen = || end.since.max(world.calmed + 60 * SEC);
                let since = world.ledger.healthy.get(&key).copied().unwrap_or_else(unseen);
                let holds = hold.is_some_and(|hold| since + hold + PROBE_ROUND > world.froze);
                otherwise(holds, "(l) nobody stays on a standby", || {
                    format!("{key:?} since {since}, hold {hold:?}, frozen at {}", world.froze)
                })?;
            }
        }
    }
    Ok(())
}

/// (m) Checks that a connection goes back only to a route of which every probe during the hold time was answered.
///
/// # Errors
/// The violation.
pub fn invariant_m_only_to_what_held(
    since: Option<Micros>,
    now: Micros,
    hold: Micros,
    key: &(Life, NodeName, Arc<str>),
) -> Result<(), Violation> {
    let holds = since.is_some_and(|since| now >= since + hold);
    otherwise(holds, "(m) a connection goes back only after the hold time", || {
        format!("{key:?}: healthy since {since:?}, now {now}, hold {hold}")
    })
}

/// (n) Checks that a connection that was ended on purpose, or that expired, is dialled only for a program.
///
/// # Errors
/// The violation.
pub fn invariant_n_what_ended_stays_down(
    ledger: &Ledger,
    who: Life,
    peer: &NodeName,
    purpose: &Purpose,
) -> Result<(), Violation> {
    let holds = matches!(purpose, Purpose::Program(_)) || !ledger.ended.contains(&(who, peer.clone()));
    otherwise(holds, "(n) what was ended stays down", || format!("{who:?} dials {peer} for {purpose:?}"))
}

/// Checks that the node's memory of failures of an attempt agrees with the model.
///
/// # Errors
/// The violation.
pub fn invariant_memory_matches_the_model(held: bool, expected: bool, attempt: &Attempt) -> Result<(), Violation> {
    otherwise(held == expected, "what is remembered equals the model's", || {
        format!("{} at {}: {held}, expected {expected}", attempt.target, attempt.address)
    })
}

/// Checks that enough faults occurred in the history.
///
/// # Errors
/// The violation.
pub fn invariant_enough_befell(world: &World) -> Result<(), Violation> {
    let befell = world.counts.befell();
    otherwise(befell >= MIN_FAULTS, "every history suffers enough", || format!("{befell} faults"))
}

/// (e) Checks that every caller has its answer within its budget and one tick.
///
/// # Errors
/// The violation.
pub fn invariant_e_every_caller_is_answered(world: &World) -> Result<(), Violation> {
    for (id, caller) in world.callers.iter().enumerate() {
        let by = caller.began + BUDGET + TICK;
        let answered = caller.answer.as_ref().is_some_and(|(when, _)| *when <= by);
        otherwise(answered, "(e) every caller is answered in time", || format!("{id}: {caller:?}"))?;
    }
    Ok(())
}

/// (f) Checks that another incarnation is not accepted while the link to the first one answers.
///
/// # Errors
/// The violation.
pub fn invariant_f_a_live_name_is_not_taken(world: &World, old: Option<ConnId>) -> Result<(), Violation> {
    let healthy = old.filter(|conn| world.is_healthy(*conn));
    otherwise(healthy.is_none(), "(f) a name whose link answers is not taken", || format!("over {healthy:?}"))
}

/// (g) Checks that the epochs of a pair of incarnations increase, and that no two of its links share one.
///
/// # Errors
/// The violation.
pub fn invariant_g_epochs_increase(ledger: &mut Ledger, own: Incarnation, up: &LinkRef) -> Result<(), Violation> {
    const NAME: &str = "(g) the epochs of a pair of lives increase";
    let (own, peer) = (own.to_bytes(), up.incarnation.to_bytes());
    let before = ledger.epochs.insert((own, peer), up.epoch).unwrap_or(0);
    otherwise(up.epoch > before, NAME, || format!("{} after {before}", up.epoch))?;
    let pair = (own.min(peer), own.max(peer), up.epoch);
    let first = *ledger.links.entry(pair).or_insert(up.id);
    otherwise(first == up.id, NAME, || format!("two links of epoch {}", up.epoch))
}

/// (h) Checks that every dial succeeds once no more faults occur.
///
/// # Errors
/// The violation.
pub fn invariant_calm_dials_succeed(world: &World) -> Result<(), Violation> {
    let probes = world.callers.iter().enumerate().filter(|(_, caller)| caller.began >= world.calm_since());
    for (id, caller) in probes {
        let ok = matches!(caller.answer, Some((_, Ok(_))));
        otherwise(ok, "(h) in a calm world every dial succeeds", || format!("{id}: {caller:?}"))?;
    }
    Ok(())
}

/// Invariant (i): checks that a node goes up on an ACCEPT only while its entry still dials under the attempt's own flight.
///
/// # Errors
/// The violation.
pub fn invariant_i_up_only_under_its_own_flight(
    dialling: Option<FlightId>,
    flight: FlightId,
    on: OnAccept,
) -> Result<(), Violation> {
    let own = dialling == Some(flight);
    otherwise(own || on == OnAccept::Discard, "(i) up only under the attempt's own flight", || {
        format!("flight {flight} while {dialling:?}")
    })
}

/// (o) Checks that a flight begins only when no other flight to the peer is in progress.
///
/// # Errors
/// The violation.
pub fn invariant_o_dials_do_not_overlap(
    flight: FlightId,
    mut tasks: impl Iterator<Item = FlightId>,
) -> Result<(), Violation> {
    let other = tasks.find(|other| *other != flight);
    otherwise(other.is_none(), "(o) dials of one peer do not overlap", || format!("{flight} begins beside {other:?}"))
}

/// Checks that every verdict agrees with the table.
///
/// # Errors
/// The violation.
pub fn invariant_rules_match_the_table(
    row: &'static str,
    ruling: Ruling,
    verdict: OnOffer,
    situation: &Situation,
) -> Result<(), Violation> {
    otherwise(agree(ruling, verdict), "verdicts equal the table's", || {
        format!("row {row:?}: {ruling:?}, rules: {verdict:?}, in {situation:?}")
    })
}

/// Checks that every move of a lookup is the one that the model expects next.
///
/// # Errors
/// The violation.
pub fn invariant_order_matches_the_model(seen: &Move, result: Result<(), Option<Move>>) -> Result<(), Violation> {
    otherwise(result.is_ok(), "the order of attempts equals the model's", || format!("{seen:?} but {result:?}"))
}
