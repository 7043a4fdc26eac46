//! A table of weighted regular expressions in Go's syntax that can be edited while it is read. With a hundred thousand
//! patterns, a look-up takes microseconds, and so does adding a pattern.
//!
//! For a name, the table returns every entry whose pattern is found in it, or matches all of it, by descending weight,
//! and equal weights in the order in which they were added.
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
//! Yes, if you have many patterns and one name and want *all* patterns that match, in a fixed order, while patterns are
//! added and removed at run time: routes, event subscriptions, access lists, log pipelines. Also if you have patterns
//! that were written for Go's `regexp` and need them to mean the same in Rust. Names are `&str`; values can be of any
//! type, and need not be `Clone`.
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
//! * [`PatternError`]: the reason why a pattern was refused, with the place in the text. [`Limits`]: how large a
//!   pattern may be. [`Lint`]: a part of a pattern that probably does not mean what its author wanted. [`Needed`]: the
//!   reason why a pattern matches no name that the caller can have.
//! * [`PatternTable`]: the table, shared between threads. It holds patterns of both kinds, each as a [`TablePattern`].
//!   [`TableEdit`]: the table during an edit. [`PatternIndex`]: a snapshot of it. [`PatternReader`]: the fastest way to
//!   read it, optionally with a cache of answers. [`TableLimits`]: how large the table and its answers may be.
//! * [`Entry`], [`Matches`]: the answers. [`Scratch`]: memory for look-ups in a snapshot.
//! * [`Explanation`], [`Stats`]: how names are looked up, and what a table contains.
//!
//! # How it works
//!
//! Each pattern is filed under one piece of text that every name it matches must contain: the piece that is rarest in
//! the table. A look-up takes all pieces of the name and checks with a filter which of them are filed; nearly none are.
//! The entries filed under such a piece are compared by a signature, and the remaining ones are tested: text with
//! wildcards by comparing it in place, other patterns as steps on sets of positions. Patterns without text but with a
//! byte that every match has (`[a-z]\d+@`) are tested together in a table of bits around that byte; patterns with
//! neither run in lazy automata, 64 patterns to one.
//!
//! An edit adds new entries in place, and marks the ones that it removes. Every entry records the generations that
//! contain it, so a snapshot is a number and a few references. [`PatternIndex::explain`] and [`PatternIndex::stats`]
//! show how each pattern is searched for.
//!
//! # The syntax
//!
//! The syntax is that of [Go's `regexp`](https://pkg.go.dev/regexp/syntax), of Go 1.27, read by a parser of this crate
//! and tested against the answers that Go gave to some ten thousand pairs of patterns and names. Where Go and Rust's
//! `regex` crate differ, Go's meaning holds. Among the differences:
//!
//! * `\d`, `\w`, `\s` and `\b` are ASCII, and `\s` leaves out U+000B. `(?i)` still folds by Unicode: `(?i)k` matches
//!   the Kelvin sign.
//! * `[a&&b]`, `[a~~b]` and `[[a]b]` contain no set operations.
//! * `\Q…\E`, octal escapes (`\0`, `\123`), a literal `{` (`a{,3}`), `\<` and `(?)` are accepted.
//! * `a**`, `{1001}`, `(?x)`, `\u0041` and `\p{Alphabetic}` are errors. `\p{…}` takes general categories and scripts,
//!   by the tables of Unicode 17, as in Go 1.27.
//!
//! # Cost
//!
//! The cost is for `n` entries and a name of `m` bytes; the figures are for names of 36 bytes with 1.5 matches each, on
//! one core of a server. `cargo xtask bench matcher` measures them beside other engines; here are
//! [the results](https://github.com/trunkline/trunkline/blob/main/docs/BENCHMARKS.md#many-patterns-cargo-xtask-bench-matcher).
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
//! Now and then an edit doubles a hash table, or rebuilds the table without the removed entries. This pauses the
//! editing thread, in proportion to `n`. Readers are not affected.
//!
//! # Hazards
//!
//! * A dot is any character: `prod-db@example.com` matches `prod-db@exampleXcom`. `prod-*` is `prod` followed by any
//!   number of `-`, including none.
//! * A [`RoutePattern`] without `^` and `$` is found inside longer names. This suits routes; for rules that allow
//!   something, use [`AccessPattern`], alone or in a table.
//! * Patterns without text (`[0-9]+`, `\pL`) are run by every look-up. A few hundred are no trouble;
//!   [`Stats::has_many_literal_free`] reports more.
//! * A removed value is not dropped at once: it is dropped when no snapshot has it and either enough other entries were
//!   removed or the table is dropped. Do not rely on its destructor.
//! * Patterns are searched in linear time, but one near [`Limits::nfa_bytes`] may take ten milliseconds on a name of
//!   255 bytes. Lower the limits where patterns do not come from operators.
//! * A large pattern without text (`\pL{30}`) is tested on its own by every look-up: [`Stats::alone`] counts these
//!   patterns.
//! * A snapshot that is held for long keeps the entries that were removed since. While it is held, adding and removing
//!   the same pattern again and again becomes slower each time.
//! * Texts are hashed without a key: anyone who may add patterns can choose them so that adding is slow. Look-ups are
//!   not affected.

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
mod pattern_class;
mod reach;
mod shape;
mod steps;
mod store;
mod syntax;
mod table;
mod tables;
mod writer;

pub use entry::{Entry, InsertError, Refusal};
pub use error::{PatternError, PatternErrorKind, quoted, spelled_again};
pub use explain::{Explanation, Stats};
pub use index::PatternIndex;
pub use limits::{LimitKind, Limits, TableLimits};
pub use lint::{Lint, LintKind};
pub use matches::{Matches, NameTooLong, Scratch};
pub use pattern::{AccessPattern, RoutePattern, TablePattern};
pub use pattern_class::PatternClass;
pub use reach::Needed;
pub use table::{PatternReader, PatternTable, TableEdit};
