//! Reference models, written independently of the code that they check: the table of decisions of the responder, and
//! the order of a lookup.

use std::collections::{BTreeMap, VecDeque};

use trunkline_dial::AttemptError;
use trunkline_dial::pair::LinkRef;
use trunkline_route::{Attempt, Claims, Incarnation, LinkId};

use super::net::{MS, Micros, SEC};

/// The model's memory of a peer: its newest incarnation and the newest epoch seen with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shadow(Option<(Incarnation, u64)>);

impl Shadow {
    /// Returns the newest epoch with this incarnation.
    pub fn known(&self, life: Incarnation) -> u64 {
        match self.0 {
            Some((seen, epoch)) if seen == life => epoch,
            _ => 0,
        }
    }

    /// Records an epoch that was given or taken.
    pub fn saw(&mut self, life: Incarnation, epoch: u64) {
        self.0 = Some((life, epoch.max(self.known(life))));
    }
}

/// State of the responder and the offer, in the terms of the table of rules.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// The live link of the responder.
    pub up: Option<LinkRef>,
    /// True if the responder has sent a FINISH of its own.
    pub finish_sent: bool,
    /// True if the responder is dialling.
    pub dialling: bool,
    /// Incarnation of the caller.
    pub caller: Incarnation,
    /// Claims of the caller.
    pub claims: Claims,
    /// True if the caller's name is the greater one.
    pub caller_is_greater: bool,
    /// The link that was probed, and whether it answered.
    pub challenged: Option<(LinkId, bool)>,
    /// Newest epoch with this incarnation.
    pub known: u64,
}

/// Ruling of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// The caller is accepted, with this epoch.
    Accept(u64),
    /// The live link is probed first.
    Challenge,
    /// The two already share a link.
    Duplicate,
    /// The other attempt wins.
    LostTie,
    /// Two live nodes have the same name.
    NameInUse,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    In,
    Probe,
    Duplicate,
    Tie,
    Taken,
}

type Row = (&'static str, fn(&Situation) -> bool, Then);

fn same(s: &Situation) -> Option<LinkRef> {
    s.up.filter(|up| up.incarnation == s.caller)
}

fn other(s: &Situation) -> Option<LinkRef> {
    s.up.filter(|up| up.incarnation != s.caller)
}

/// Returns the live link to the incarnation that the caller claims without proving that it is the same one.
fn unproven(s: &Situation) -> Option<LinkRef> {
    let up = same(s)?;
    let Claims { known_epoch, last_link, have_link, replaces } = s.claims;
    let proven = [last_link, have_link, replaces].contains(&Some(up.id));
    let crossed = up.dialled && known_epoch < up.epoch;
    (!proven && !crossed).then_some(up)
}

fn answered(s: &Situation) -> Option<bool> {
    let up = other(s).or(unproven(s))?;
    s.challenged.filter(|(probed, _)| *probed == up.id).map(|(_, answered)| answered)
}

fn crossing(s: &Situation) -> bool {
    s.finish_sent && !s.caller_is_greater
}

/// The rules. The first row that applies decides.
const TABLE: &[Row] = &[
    ("up, another life, not asked", |s| other(s).is_some() && answered(s).is_none(), Then::Probe),
    ("up, another life, answers", |s| other(s).is_some() && answered(s) == Some(true), Then::Taken),
    ("up, same life unproven, not asked", |s| unproven(s).is_some() && answered(s).is_none(), Then::Probe),
    ("up, same life unproven, answers", |s| unproven(s).is_some() && answered(s) == Some(true), Then::Taken),
    (
        "up, same life, held by the caller",
        |s| same(s).is_some_and(|up| s.claims.have_link == Some(up.id) && s.claims.replaces != Some(up.id)),
        Then::Duplicate,
    ),
    (
        "up, same life, dials crossed",
        |s| same(s).is_some_and(|up| s.claims.replaces != Some(up.id) && s.claims.known_epoch < up.epoch && up.dialled),
        Then::Tie,
    ),
    ("own FINISH sent, caller is lesser", crossing, Then::Tie),
    ("up, another life, silent", |s| other(s).is_some() && answered(s) == Some(false), Then::In),
    ("up, same life unproven, silent", |s| unproven(s).is_some(), Then::In),
    ("up, same life, replaces", |s| same(s).is_some_and(|up| s.claims.replaces == Some(up.id)), Then::In),
    ("up, same life, dead at the peer", |s| same(s).is_some_and(|up| s.claims.last_link == Some(up.id)), Then::In),
    ("own FINISH sent, caller is greater", |s| s.finish_sent, Then::In),
    ("dialling, own FINISH not sent", |s| s.dialling, Then::In),
    ("idle", |_| true, Then::In),
];

/// Returns the names of all rows.
pub fn rows() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(row, _, _)| *row)
}

/// Returns the row that applies, and its ruling.
pub fn rule(s: &Situation) -> (&'static str, Ruling) {
    let (row, _, then) = TABLE.iter().find(|(_, holds, _)| holds(s)).expect("the last row always holds");
    let ruling = match then {
        Then::In => Ruling::Accept(s.known.max(s.claims.known_epoch) + 1),
        Then::Probe => Ruling::Challenge,
        Then::Duplicate => Ruling::Duplicate,
        Then::Tie => Ruling::LostTie,
        Then::Taken => Ruling::NameInUse,
    };
    (*row, ruling)
}

/// One step of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// A question to the resolver.
    Resolve,
    /// A question to DNS for this host.
    Lookup(String),
    /// A dial of this `ip:port`.
    Connect(String),
}

/// One candidate of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Weight.
    pub weight: i64,
    /// Address, `host:port`.
    pub address: String,
    /// Cookie, to distinguish attempts.
    pub cookie: Vec<u8>,
    /// True if a recent failure of it is remembered.
    pub remembered: bool,
}

/// Order in which a lookup must try the candidates: static ones by weight and then in the order added, with recently
/// failed ones last; then the answers of discovery, ordered likewise.
#[derive(Debug, Clone, Default)]
pub struct OrderModel {
    todo: VecDeque<Planned>,
    ips: VecDeque<String>,
    asked: bool,
    awaiting: bool,
    refused: BTreeMap<(String, Vec<u8>), ()>,
    memory: MemoryModel,
}

fn demoted(items: Vec<Planned>) -> VecDeque<Planned> {
    let mut keyed: Vec<_> = items.into_iter().enumerate().collect();
    keyed.sort_by_key(|(at, item)| (item.remembered, std::cmp::Reverse(item.weight), *at));
    keyed.into_iter().map(|(_, item)| item).collect()
}

impl OrderModel {
    /// Creates the model for these static candidates in the order they were added, and the failures remembered.
    pub fn new(candidates: Vec<Planned>, memory: MemoryModel) -> Self {
        Self { todo: demoted(candidates), memory, ..Self::default() }
    }

    /// Creates the model for one candidate and no discovery.
    pub fn only(candidates: Vec<Planned>, memory: MemoryModel) -> Self {
        Self { asked: true, ..Self::new(candidates, memory) }
    }

    /// Adds the resolver's answers, with equal weights.
    pub fn resolved(&mut self, answers: Vec<Planned>) {
        self.awaiting = false;
        self.todo = demoted(answers);
    }

    /// Adds DNS's answers, as `ip:port`.
    pub fn looked_up(&mut self, ips: Vec<String>) {
        self.awaiting = false;
        self.ips = ips.into();
    }

    /// Excludes a pair of address and cookie that was refused.
    pub fn refused(&mut self, address: &str, cookie: &[u8]) {
        self.refused.insert((address.into(), cookie.into()), ());
    }

    /// Records the next step of the lookup. `Err` holds the step that was expected.
    ///
    /// # Errors
    /// The expected step.
    pub fn saw(&mut self, now: Micros, seen: &Move) -> Result<(), Option<Move>> {
        let expected = self.next(now);
        if expected.as_ref() == Some(seen) { Ok(()) } else { Err(expected) }
    }

    /// Returns true if nothing is left to try.
    pub fn exhausted(&mut self, now: Micros) -> bool {
        self.next(now).is_none()
    }

    fn next(&mut self, now: Micros) -> Option<Move> {
        if self.awaiting {
            return None;
        }
        if let Some(ip) = self.ips.pop_front() {
            return Some(Move::Connect(ip));
        }
        while let Some(item) = self.todo.pop_front() {
            if self.refused.contains_key(&(item.address.clone(), item.cookie.clone())) {
                continue;
            }
            if self.memory.refuses_cookie(now, &item.address, &item.cookie) {
                continue;
            }
            if item.address.starts_with(|c: char| c.is_ascii_digit()) {
                return Some(Move::Connect(item.address));
            }
            self.awaiting = true;
            return Some(Move::Lookup(item.address));
        }
        if std::mem::replace(&mut self.asked, true) {
            return None;
        }
        self.awaiting = true;
        Some(Move::Resolve)
    }
}

/// Memory of recent failures, by the table of failures in `docs/ROUTING.md`: an address, a cookie at an address, or a
/// name at an address, each for a time that doubles up to a limit.
#[derive(Debug, Clone, Default)]
pub struct MemoryModel(BTreeMap<(String, Against), (u32, Micros)>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Against {
    Everything,
    Cookie(Vec<u8>),
    Name(String),
}

impl Against {
    fn all(attempt: &Attempt) -> [Self; 3] {
        let (cookie, name) = (attempt.cookie.expose().to_vec(), attempt.target.to_string());
        [Self::Everything, Self::Cookie(cookie), Self::Name(name)]
    }
}

impl MemoryModel {
    /// Records a failed attempt.
    pub fn failed(&mut self, now: Micros, attempt: &Attempt, error: &AttemptError) {
        let [everything, cookie, name] = Against::all(attempt);
        let (against, first, most) = match error {
            AttemptError::Tcp(_) => (everything, 100 * MS, 30 * SEC),
            AttemptError::TcpTimeout(_) => (everything, 3 * SEC, 30 * SEC),
            AttemptError::Handshake(_) | AttemptError::HandshakeTimeout(_) | AttemptError::Rejected(_) => {
                (everything, 2 * SEC, 2 * SEC)
            }
            AttemptError::WrongCookie => (cookie, 5 * SEC, 60 * SEC),
            AttemptError::WrongName { .. } | AttemptError::NameInUse(_) => (name, 10 * SEC, 10 * SEC),
            _ => return,
        };
        let known = self.0.entry((attempt.address.to_string(), against)).or_default();
        if now >= known.1 + 60 * SEC {
            known.0 = 0;
        }
        known.0 += 1;
        let term = (0..known.0 - 1).fold(first, |term, _| (term * 2).min(most));
        known.1 = now + term;
    }

    /// Records a successful attempt.
    pub fn succeeded(&mut self, attempt: &Attempt) {
        for against in Against::all(attempt) {
            self.0.remove(&(attempt.address.to_string(), against));
        }
    }

    /// Returns `true` while a wrong cookie must not be shown again at this address.
    pub fn refuses_cookie(&self, now: Micros, address: &str, cookie: &[u8]) -> bool {
        let key = (address.to_owned(), Against::Cookie(cookie.to_vec()));
        self.0.get(&key).is_some_and(|(_, until)| *until > now)
    }

    /// Returns true if a failure is remembered that applies to an attempt.
    pub fn holds(&self, now: Micros, attempt: &Attempt) -> bool {
        let address = attempt.address.to_string();
        let mut all = Against::all(attempt).into_iter();
        all.any(|against| self.0.get(&(address.clone(), against)).is_some_and(|(_, until)| *until > now))
    }
}
