//! Messages between nodes about processes, as terms sent to the mailbox `$process`.

use trunkline_term::{Atom, BigInt, Term};

use crate::{Exit, NoProcess, Pid, TooManyTies};

/// The most characters of a peer's words that are kept.
pub(crate) const MAX_TEXT: usize = 1024;

/// A call to a peer about processes.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Begin a process, and tell the watch, if one is given, when it ended: `{spawn, Factory, Arguments}` or
    /// `{spawn, Factory, Arguments, Watch}`, answered by `{ok, Number, Creation}`.
    Spawn(Atom, Term, Option<u64>),
    /// Start an application: `{start_application, Name}`, answered by `ok`.
    StartApplication(Atom),
    /// Link ours to yours: `{link, Number, Creation, YourNumber, YourCreation}`, answered by `ok`.
    Link((u64, u32), (u64, u32)),
    /// Watch yours: `{monitor, Watch, YourNumber, YourCreation}`, answered by `ok`.
    Monitor(u64, (u64, u32)),
}

/// A message to a peer about processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// `{unlink, Number, Creation, YourNumber, YourCreation}`
    Unlink((u64, u32), (u64, u32)),
    /// `{demonitor, Watch, YourNumber, YourCreation}`
    Demonitor(u64, (u64, u32)),
    /// A process of the sender that is linked to one of the receiver ended:
    /// `{exit, Number, Creation, YourNumber, YourCreation, Exit}`
    Exit((u64, u32), (u64, u32), Exit),
    /// A process of the sender that the receiver watches ended: `{down, YourWatch, Exit}`
    Down(u64, Exit),
}

/// Reason of a peer for refusing a request. Answered as `{error, Reason, Text}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// `not_allowed`: the connection or the node does not allow it.
    NotAllowed,
    /// `unknown`: there is no factory or application of that name.
    Unknown,
    /// `no_process`: there is no such process.
    NoProcess,
    /// `failed`: it could not be done.
    Failed,
    /// `overloaded`: as many run as may at once. A node that does not know the word takes it for `failed`.
    Overloaded,
}

const REFUSALS: [(Refusal, &str); 5] = [
    (Refusal::NotAllowed, "not_allowed"),
    (Refusal::Unknown, "unknown"),
    (Refusal::NoProcess, "no_process"),
    (Refusal::Failed, "failed"),
    (Refusal::Overloaded, "overloaded"),
];

/// A peer's refusal and its words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Unwilling {
    /// Of which kind.
    pub refusal: Refusal,
    /// Words of the peer.
    pub text: String,
}

impl From<NoProcess> for Unwilling {
    fn from(error: NoProcess) -> Self {
        Self { refusal: Refusal::NoProcess, text: error.to_string() }
    }
}

impl From<TooManyTies> for Unwilling {
    fn from(error: TooManyTies) -> Self {
        Self { refusal: Refusal::Failed, text: error.to_string() }
    }
}

/// A term that is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it says nothing about processes that is known here")]
pub struct BadMessage;

fn atom(text: &str) -> Term {
    Term::atom(text).expect("a short word is an atom")
}

fn tuple(word: &str, rest: impl IntoIterator<Item = Term>) -> Term {
    Term::tuple(std::iter::once(atom(word)).chain(rest))
}

fn number(number: u64) -> Term {
    i64::try_from(number).map_or_else(|_| Term::BigInteger(BigInt::from(number)), Term::from)
}

fn who((of, creation): (u64, u32)) -> [Term; 2] {
    [number(of), Term::from(i64::from(creation))]
}

fn get(term: &Term) -> Result<u64, BadMessage> {
    match term {
        Term::Integer(number) => u64::try_from(*number).map_err(|_| BadMessage),
        Term::BigInteger(number) => u64::try_from(number).map_err(|_| BadMessage),
        _ => Err(BadMessage),
    }
}

fn get_who(number: &Term, creation: &Term) -> Result<(u64, u32), BadMessage> {
    Ok((get(number)?, get(creation)?.try_into().map_err(|_| BadMessage)?))
}

/// The word and what follows it.
fn parts(term: &Term) -> Result<(&str, &[Term]), BadMessage> {
    match term {
        Term::Atom(word) => Ok((word.as_str(), &[])),
        Term::Tuple(terms) => match terms.split_first() {
            Some((Term::Atom(word), rest)) => Ok((word.as_str(), rest)),
            _ => Err(BadMessage),
        },
        _ => Err(BadMessage),
    }
}

fn exit_term(exit: &Exit) -> Term {
    match exit {
        Exit::Normal => atom("normal"),
        Exit::Panicked => atom("panicked"),
        Exit::Killed => atom("killed"),
        Exit::NoProcess => atom("no_process"),
        Exit::Failed(text) => tuple("failed", [text.as_str().into()]),
        Exit::NodeDown(text) => tuple("node_down", [text.as_str().into()]),
        Exit::Unwatched(text) => tuple("unwatched", [text.as_str().into()]),
    }
}

/// A peer's words, cut to [`MAX_TEXT`].
fn text(term: &Term) -> Result<String, BadMessage> {
    Ok(term.as_text().ok_or(BadMessage)?.chars().take(MAX_TEXT).collect())
}

fn get_exit(term: &Term) -> Result<Exit, BadMessage> {
    match parts(term)? {
        ("normal", []) => Ok(Exit::Normal),
        ("panicked", []) => Ok(Exit::Panicked),
        ("killed", []) => Ok(Exit::Killed),
        ("no_process", []) => Ok(Exit::NoProcess),
        ("failed", [words]) => Ok(Exit::Failed(text(words)?)),
        ("node_down", [words]) => Ok(Exit::NodeDown(text(words)?)),
        ("unwatched", [words]) => Ok(Exit::Unwatched(text(words)?)),
        _ => Err(BadMessage),
    }
}

impl From<&Request> for Term {
    fn from(request: &Request) -> Self {
        match request {
            Request::Spawn(factory, arguments, watch) => {
                let what = [Self::Atom(factory.clone()), arguments.clone()];
                tuple("spawn", what.into_iter().chain(watch.map(number)))
            }
            Request::StartApplication(name) => tuple("start_application", [Self::Atom(name.clone())]),
            Request::Link(own, peers) => tuple("link", who(*own).into_iter().chain(who(*peers))),
            Request::Monitor(watch, peers) => tuple("monitor", [number(*watch)].into_iter().chain(who(*peers))),
        }
    }
}

impl TryFrom<&Term> for Request {
    type Error = BadMessage;
    fn try_from(term: &Term) -> Result<Self, BadMessage> {
        match parts(term)? {
            ("spawn", [Term::Atom(factory), arguments]) => Ok(Self::Spawn(factory.clone(), arguments.clone(), None)),
            ("spawn", [Term::Atom(factory), arguments, watch]) => {
                Ok(Self::Spawn(factory.clone(), arguments.clone(), Some(get(watch)?)))
            }
            ("start_application", [Term::Atom(name)]) => Ok(Self::StartApplication(name.clone())),
            ("link", [a, b, c, d]) => Ok(Self::Link(get_who(a, b)?, get_who(c, d)?)),
            ("monitor", [watch, a, b]) => Ok(Self::Monitor(get(watch)?, get_who(a, b)?)),
            _ => Err(BadMessage),
        }
    }
}

impl From<&Notice> for Term {
    fn from(notice: &Notice) -> Self {
        match notice {
            Notice::Unlink(own, peers) => tuple("unlink", who(*own).into_iter().chain(who(*peers))),
            Notice::Demonitor(watch, peers) => tuple("demonitor", [number(*watch)].into_iter().chain(who(*peers))),
            Notice::Exit(own, peers, exit) => {
                tuple("exit", who(*own).into_iter().chain(who(*peers)).chain([exit_term(exit)]))
            }
            Notice::Down(watch, exit) => tuple("down", [number(*watch), exit_term(exit)]),
        }
    }
}

impl TryFrom<&Term> for Notice {
    type Error = BadMessage;
    fn try_from(term: &Term) -> Result<Self, BadMessage> {
        match parts(term)? {
            ("unlink", [a, b, c, d]) => Ok(Self::Unlink(get_who(a, b)?, get_who(c, d)?)),
            ("demonitor", [watch, a, b]) => Ok(Self::Demonitor(get(watch)?, get_who(a, b)?)),
            ("exit", [a, b, c, d, exit]) => Ok(Self::Exit(get_who(a, b)?, get_who(c, d)?, get_exit(exit)?)),
            ("down", [watch, exit]) => Ok(Self::Down(get(watch)?, get_exit(exit)?)),
            _ => Err(BadMessage),
        }
    }
}

/// The answer to a request: `Some` pid for a spawn, `None` for the rest, or a refusal.
pub fn answer(result: &Result<Option<Pid>, Unwilling>) -> Term {
    match result {
        Ok(Some(pid)) => tuple("ok", who((pid.number, pid.creation))),
        Ok(None) => atom("ok"),
        Err(Unwilling { refusal, text }) => {
            let word = REFUSALS.iter().find(|(other, _)| other == refusal).map_or("failed", |(_, word)| word);
            tuple("error", [atom(word), text.as_str().into()])
        }
    }
}

/// Reads an answer: the number and life of what was spawned, if something was.
///
/// # Errors
/// [`BadMessage`] when it is none.
pub fn answered(term: &Term) -> Result<Result<Option<(u64, u32)>, Unwilling>, BadMessage> {
    match parts(term)? {
        ("ok", []) => Ok(Ok(None)),
        ("ok", [a, b]) => Ok(Ok(Some(get_who(a, b)?))),
        ("error", [Term::Atom(word), words]) => {
            let known = REFUSALS.iter().find(|(_, other)| *other == word.as_str());
            let refusal = known.map_or(Refusal::Failed, |(refusal, _)| *refusal);
            Ok(Err(Unwilling { refusal, text: text(words)? }))
        }
        _ => Err(BadMessage),
    }
}
