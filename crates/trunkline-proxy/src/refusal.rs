//! The reason why a connection is not passed on: a code and names for the neighbour, words for this node's own log.

use std::cmp::Reverse;
use std::fmt;

use trunkline_route::NodeName;
use trunkline_stack::StreamCode;

/// The reason why a connection is not passed on.
///
/// A neighbour is told the code and the names of nodes, and nothing else: see [`Refusal::told`]. The cause may name addresses,
/// patterns and files; it is for the log and the traces of the node that found it and never leaves that node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The node at which the way ends.
    pub hop: NodeName,
    /// The code that goes back to the neighbour.
    pub code: StreamCode,
    /// The next node on the way, if `hop` could not reach it.
    pub next: Option<NodeName>,
    /// The cause in words; empty when only another node knows it.
    pub cause: String,
}

impl Refusal {
    /// Returns the refusal of the node `hop`, with a cause for its own log.
    pub fn new(hop: &NodeName, code: StreamCode, cause: impl Into<String>) -> Self {
        Self { hop: hop.clone(), code, next: None, cause: cause.into() }
    }

    /// Names the node that `hop` could not reach.
    #[must_use]
    pub fn next(mut self, next: &NodeName) -> Self {
        self.next = Some(next.clone());
        self
    }

    /// Returns what a neighbour said, read from OPEN_ERR or a trace. Text that is not a node name is dropped, so that a
    /// gateway passes no words of other nodes on; a `hop` that is not a node name stands for the neighbour itself.
    pub fn heard(neighbour: &NodeName, hop: &str, code: StreamCode, text: &str) -> Self {
        let hop = hop.parse().unwrap_or_else(|_| neighbour.clone());
        Self { hop, code, next: text.parse().ok(), cause: String::new() }
    }

    /// Returns the text that goes to a neighbour beside `hop` and `code`: the name of the node that was not reached, or
    /// nothing.
    pub fn told(&self) -> &str {
        self.next.as_ref().map_or("", NodeName::as_str)
    }

    /// Sorts the refusals of several ways, given in the order in which they were tried, so that the most telling one comes
    /// first: a node that refused, then a node further on that could not be reached, then a neighbour of the node `own` that
    /// could not be reached, then a loop, then a way that `own` does not know. Among equals the first tried stays first.
    pub fn sort(own: &NodeName, refusals: &mut [Self]) {
        refusals.sort_by_key(|refusal| Reverse(refusal.telling(own)));
    }

    fn telling(&self, own: &NodeName) -> Telling {
        match self.code {
            StreamCode::Unreachable | StreamCode::TimedOut if self.hop != *own => Telling::UnreachedFurtherOn,
            StreamCode::Unreachable if self.next.is_none() => Telling::NoWay,
            StreamCode::Unreachable | StreamCode::TimedOut => Telling::Unreached,
            StreamCode::Loop => Telling::Loop,
            _ => Telling::Refused,
        }
    }
}

/// Names who refused, and the cause if this node knows it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hop, code, next, cause } = self;
        match next {
            Some(next) if *code == StreamCode::TimedOut => write!(f, "{hop} got no answer from {next} in time")?,
            Some(next) => write!(f, "{hop} cannot reach {next}")?,
            None => write!(f, "{hop} refused: {code}")?,
        }
        if cause.is_empty() { Ok(()) } else { write!(f, ": {cause}") }
    }
}

/// Rank of a refusal by how much it tells about the cause, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Telling {
    NoWay,
    Loop,
    Unreached,
    UnreachedFurtherOn,
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn a_neighbour_is_told_names_and_never_words() {
        let refusal = Refusal::new(&name("edge@dmz"), StreamCode::Unreachable, "TCP: 10.0.0.7:4370: refused");
        let refusal = refusal.next(&name("core@dmz"));
        assert_eq!(refusal.told(), "core@dmz");
        assert_eq!(refusal.to_string(), "edge@dmz cannot reach core@dmz: TCP: 10.0.0.7:4370: refused");
        // Whatever another node says, names are all that is kept of it.
        for (hop, text, expected) in [
            ("edge@dmz", "core@dmz", ("edge@dmz", "core@dmz")),
            ("edge@dmz", "no route to core@dmz at 10.0.0.7:4370", ("edge@dmz", "")),
            ("no name", "line 1: s3cret", ("gate@dmz", "")),
            ("", "", ("gate@dmz", "")),
        ] {
            let heard = Refusal::heard(&name("gate@dmz"), hop, StreamCode::Unreachable, text);
            assert_eq!((heard.hop.as_str(), heard.told()), expected, "{text}");
            assert!(heard.cause.is_empty());
        }
    }

    #[test]
    fn the_most_telling_refusal_comes_first_whichever_way_was_tried_first() {
        let (own, core, db) = (name("edge@dmz"), name("core@dmz"), name("db@in"));
        let unknown = Refusal::new(&own, StreamCode::Unreachable, "no static route matches");
        let passed = Refusal::new(&own, StreamCode::Loop, "every gateway is passed already");
        let down = Refusal::new(&own, StreamCode::Unreachable, "Connection refused").next(&core);
        let silent = Refusal::new(&own, StreamCode::TimedOut, "no answer within 8s").next(&core);
        let behind = Refusal::heard(&core, "core@dmz", StreamCode::Unreachable, "db@in");
        let denied = Refusal::heard(&core, "core@dmz", StreamCode::RelayDenied, "");
        let mut all = [&unknown, &passed, &down, &silent, &behind, &denied].map(Clone::clone);
        Refusal::sort(&own, &mut all);
        assert_eq!(all, [&denied, &behind, &down, &silent, &passed, &unknown].map(Clone::clone));
        let mut equal = [silent.clone(), down.clone(), unknown];
        Refusal::sort(&own, &mut equal);
        assert_eq!(equal[..2], [silent, down], "the first tried stays first");
        assert_eq!(behind.to_string(), format!("core@dmz cannot reach {db}"));
    }
}
