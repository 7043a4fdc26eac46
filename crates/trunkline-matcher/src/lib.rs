//! A table of weighted regular expressions in Go's syntax, edited as a whole
//! and read as immutable snapshots.
//!
//! Given a name, the table answers with every entry whose pattern is found in
//! it, by descending weight, and equal weights in the order in which they were
//! added.
//!
//! # Should I use this crate?
//!
//! Yes, if you have many patterns and one name and want *all* patterns that
//! match, in a fixed order, while patterns come and go at run time; or if you
//! take over patterns that were written for Go's `regexp` and need them to mean
//! the same in Rust. Names are `&str`; values are anything, and need not be
//! `Clone`.
//!
//! No, if you want to know where a match is or what its groups hold (use
//! `regex`), or if your keys are exact strings or prefixes (use a map).
//!
//! # Contents
//!
//! * [`RoutePattern`]: one compiled pattern, searched anywhere in a name.
//!   [`AccessPattern`]: the same syntax, but it must match the whole name.
//! * [`PatternError`]: why a pattern was refused, with the place in the text.
//!   [`Limits`]: how large a pattern may be.
//! * [`PatternMap`]: the table as it is edited. [`PatternIndex`]: as it is
//!   read. [`PatternTable`]: shared between threads. [`Entry`]: what is in
//!   them.
//!
//! # The syntax
//!
//! It is that of [Go's `regexp`](https://pkg.go.dev/regexp/syntax), of Go 1.27,
//! read by a front end of its own. Where Go and Rust's `regex` crate differ,
//! Go's meaning holds. Among the differences:
//!
//! * `\d`, `\w`, `\s` and `\b` are ASCII, and `\s` leaves out U+000B. `(?i)`
//!   folds by Unicode all the same: `(?i)k` matches the Kelvin sign.
//! * `[a&&b]`, `[a~~b]` and `[[a]b]` have no set operations in them.
//! * `\Q…\E`, octal escapes (`\0`, `\123`), a literal `{` (`a{,3}`), `\<` and
//!   `(?)` are understood.
//! * `a**`, `{1001}`, `(?x)`, `\u0041` and `\p{Alphabetic}` are errors.
//!   `\p{…}` takes general categories and scripts, by the tables of Unicode 16,
//!   where a release of Go may have newer or older ones.
//!
//! # Cost
//!
//! | operation | time |
//! | --- | --- |
//! | compile a pattern | tens of microseconds, and about 10 KB |
//! | [`PatternMap::insert`], `remove`, `get` | O(log n) |
//! | [`PatternTable::edit`] | O(n), plus the closure |
//! | [`PatternTable::snapshot`] | a few instructions; never blocks |
//! | [`PatternIndex::matches`] | one search for each pattern: O(n) |
//!
//! # Hazards
//!
//! * A dot is any character: `prod-db@example.com` matches
//!   `prod-db@exampleXcom`. And `prod-*` is `prod` followed by any number of
//!   `-`, also none.
//! * A pattern without `^` and `$` is found inside longer names. That is meant
//!   for routes; for rules that allow something there is [`AccessPattern`].
//! * The length of a name is not limited here, and time grows with it. Limit it
//!   where names come in.
//! * Patterns are searched in linear time, but a pattern near
//!   [`Limits::nfa_bytes`] may take milliseconds on a long name. Lower the limit
//!   where patterns are not from operators.

mod anchor;
mod engine;
mod entry;
mod error;
mod explain;
mod fold;
mod glob;
mod grams;
mod group;
mod index;
mod limits;
mod matches;
mod pattern;
mod shape;
mod steps;
mod store;
mod syntax;
mod table;
mod writer;

pub use entry::{Entry, InsertError, Refusal};
pub use error::{PatternError, PatternErrorKind};
pub use explain::{Explanation, PatternClass, Stats};
pub use index::PatternIndex;
pub use limits::{LimitKind, Limits, TableLimits};
pub use matches::{Matches, NameTooLong, Scratch};
pub use pattern::{AccessPattern, RoutePattern};
pub use table::{PatternReader, PatternTable, TableEdit};
