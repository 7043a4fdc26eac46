//! A table of weighted regular expressions in Go's syntax that is edited while
//! it is read: a hundred thousand patterns answer in microseconds, and take a
//! new one in microseconds.
//!
//! Given a name, the table answers with every entry whose pattern is found in
//! it, by descending weight, and equal weights in the order in which they were
//! added.
//!
//! ```
//! use trunkline_matcher::{PatternTable, RoutePattern};
//!
//! let table = PatternTable::new();
//! table.insert(RoutePattern::new("^prod-")?, 10, "gateway")?;
//! table.insert(RoutePattern::new(r"@eu\.example\.com$")?, 50, "europe")?;
//!
//! let mut reader = table.reader();
//! let found: Vec<_> = reader.matches("prod-db7@eu.example.com")?.map(|entry| *entry.value()).collect();
//! assert_eq!(found, ["europe", "gateway"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Should I use this crate?
//!
//! Yes, if you have many patterns and one name and want *all* patterns that
//! match, in a fixed order, while patterns come and go at run time: routes,
//! event subscriptions, access lists, log pipelines. Or if you take over
//! patterns that were written for Go's `regexp` and need them to mean the same
//! in Rust. Names are `&str`; values are anything, and need not be `Clone`.
//!
//! No, if you want to know where a match is or what its groups hold (use
//! `regex`); if your keys are exact strings or prefixes (use a map); if you
//! search long texts rather than names, or have a few patterns that never
//! change (use `regex::RegexSet`, or Vectorscan).
//!
//! # Contents
//!
//! * [`RoutePattern`]: one compiled pattern, searched anywhere in a name.
//!   [`AccessPattern`]: the same syntax, but it must match the whole name.
//! * [`PatternError`]: why a pattern was refused, with the place in the text.
//!   [`Limits`]: how large a pattern may be. [`Lint`]: what was hardly meant.
//!   [`Needed`]: why a pattern matches nothing that the caller has.
//! * [`PatternTable`]: the table, shared between threads. [`TableEdit`]: as it
//!   is edited. [`PatternIndex`]: a snapshot of it. [`PatternReader`]: the way
//!   to read it on a hot path, on request with a cache of answers.
//!   [`TableLimits`]: how large the table and its answers may be.
//! * [`Entry`], [`Matches`]: what comes out. [`Scratch`]: memory for look-ups
//!   in a snapshot.
//! * [`Explanation`], [`Stats`]: how names are looked up, and what is in a
//!   table.
//!
//! # How it works
//!
//! Each pattern is filed under one piece of text that every name it is found
//! in must contain: the piece that is rarest in the table. A look-up takes all
//! pieces of the name and asks a filter which of them are filed; nearly none
//! are. What is filed there is compared by a signature, and what is left is
//! asked: text with wildcards by comparing it in place, the rest as steps on
//! sets of positions. Patterns without text but with a byte that every match
//! has (`[a-z]\d+@`) are asked together in a table of bits around that byte;
//! patterns without either run in lazy automata, 64 to one.
//!
//! An edit adds to that in place, and marks what it removes. Every entry knows
//! in which generations it is, so a snapshot is a number and a few references.
//! [`PatternIndex::explain`] and [`PatternIndex::stats`] show which way each
//! pattern goes.
//!
//! # The syntax
//!
//! It is that of [Go's `regexp`](https://pkg.go.dev/regexp/syntax), of Go 1.27,
//! read by a front end of its own, and held to the answers that Go gave to some
//! ten thousand pairs of patterns and names. Where Go and Rust's `regex` crate
//! differ, Go's meaning holds. Among the differences:
//!
//! * `\d`, `\w`, `\s` and `\b` are ASCII, and `\s` leaves out U+000B. `(?i)`
//!   folds by Unicode all the same: `(?i)k` matches the Kelvin sign.
//! * `[a&&b]`, `[a~~b]` and `[[a]b]` have no set operations in them.
//! * `\Q…\E`, octal escapes (`\0`, `\123`), a literal `{` (`a{,3}`), `\<` and
//!   `(?)` are understood.
//! * `a**`, `{1001}`, `(?x)`, `\u0041` and `\p{Alphabetic}` are errors.
//!   `\p{…}` takes general categories and scripts, by the tables of Unicode 17,
//!   as Go 1.27 does.
//!
//! # Cost
//!
//! For `n` entries and a name of `m` bytes; figures are for names of 36 bytes,
//! 1.5 matches each, on one core of a server. `cargo xtask bench matcher`
//! measures them beside other engines; `docs/BENCHMARKS.md` has the results.
//!
//! | operation | time |
//! | --- | --- |
//! | compile a pattern | some microseconds |
//! | [`PatternTable::insert`], [`PatternTable::remove`] | O(pattern), amortised: under 10 µs and 1 µs at n = 1,000,000 |
//! | [`PatternTable::edit`] | the sum of its changes |
//! | [`PatternTable::snapshot`] | a few instructions; never blocks |
//! | [`PatternReader::matches`] | O(m), and what is found: 0.3 µs at n = 100, 3 µs at 1,000,000 |
//! | the same, answered from the cache | O(m): some 50 ns |
//! | each pattern without text | O(m), all of them in every look-up |
//! | [`PatternIndex::iter`] | O(n log n) |
//! | memory | some 500 bytes for a pattern |
//!
//! An edit now and then doubles a table of hashes, or leaves behind what was
//! removed: a pause of the editing thread, in proportion to `n`. Readers do not
//! notice.
//!
//! # Hazards
//!
//! * A dot is any character: `prod-db@example.com` matches
//!   `prod-db@exampleXcom`. And `prod-*` is `prod` followed by any number of
//!   `-`, also none.
//! * A pattern without `^` and `$` is found inside longer names. That is meant
//!   for routes; for rules that allow something there is [`AccessPattern`].
//! * Patterns without text (`[0-9]+`, `\pL`) are run by every look-up. A few
//!   hundred are no trouble; [`Stats::has_many_literal_free`] tells.
//! * A removed value is dropped only when enough was removed since, or the
//!   table is, and no snapshot has it. Do not count on its destructor.
//! * Patterns are searched in linear time, but one near [`Limits::nfa_bytes`]
//!   may take ten milliseconds on a name of 255 bytes. Lower the limits where
//!   patterns are not from operators.
//! * A large pattern without text (`\pL{30}`) is asked on its own, by every
//!   look-up: [`Stats::alone`] counts those.
//! * A snapshot that is held for long keeps what was removed since, and makes
//!   adding a pattern again that comes and goes ever slower.
//! * Texts are hashed without a key: who may add patterns can choose them so
//!   that adding is slow. Looking names up is not affected.

mod anchor;
mod engine;
mod entry;
mod error;
mod explain;
mod fold;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod glob;
mod grams;
mod group;
mod index;
mod limits;
mod lint;
mod matches;
mod pattern;
mod reach;
mod shape;
mod steps;
mod store;
mod syntax;
mod table;
mod writer;

pub use entry::{Entry, InsertError, Refusal};
pub use error::{PatternError, PatternErrorKind, quoted, spelled_again};
pub use explain::{Explanation, PatternClass, Stats};
pub use index::PatternIndex;
pub use limits::{LimitKind, Limits, TableLimits};
pub use lint::{Lint, LintKind};
pub use matches::{Matches, NameTooLong, Scratch};
pub use pattern::{AccessPattern, RoutePattern};
pub use reach::Needed;
pub use table::{PatternReader, PatternTable, TableEdit};
