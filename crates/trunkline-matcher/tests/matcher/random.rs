//! Comparison of the answers of Go and of this crate for generated patterns and names.

use std::collections::BTreeSet;
use std::env;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use trunkline_matcher::{LimitKind, PatternErrorKind, RoutePattern};

/// Number of patterns that one run of the recorder answers.
const BATCH: usize = 2000;

/// Number of differences that are shown; more are only counted.
const SHOWN: u64 = 50;

#[test]
#[ignore = "needs Go: cargo xtask corpus --random"]
fn generated_patterns_mean_what_they_mean_in_go() {
    let number = |name: &str| {
        let value = env::var(name).unwrap_or_else(|_| panic!("{name} is set by `cargo xtask corpus --random`"));
        value.parse::<u64>().expect("a number")
    };
    let recorder = env::var("TRUNKLINE_CORPUS_RECORDER").expect("set by `cargo xtask corpus --random`");
    let pairs = number("TRUNKLINE_CORPUS_PAIRS");
    let seed = number("TRUNKLINE_CORPUS_SEED");
    let mut random = Random(seed);
    let mut tally = Tally::default();
    while tally.pairs < pairs {
        let questions: Vec<_> = (0..BATCH).map(|_| question(&mut random)).collect();
        for ((pattern, names), answer) in questions.iter().zip(ask(&recorder, &questions)) {
            if tally.pairs < pairs {
                tally.compare(pattern, names, &answer);
            }
        }
    }
    println!("seed {seed}: {tally:?}");
    assert_eq!(tally.disagreements, 0, "Go and the matcher disagree, see above");
}

#[derive(Debug, Default)]
struct Tally {
    patterns: u64,
    /// Patterns that both sides refuse.
    refused: u64,
    /// Patterns that a size limit of one side refuses, which says nothing about their meaning.
    over_a_limit: u64,
    /// Pairs of a pattern and a name that both sides answered.
    pairs: u64,
    /// Number of those pairs in which the pattern was found in the name.
    found: u64,
    disagreements: u64,
}

impl Tally {
    fn compare(&mut self, pattern: &str, names: &[String], answer: &Value) {
        self.patterns += 1;
        match (answer["refused"].as_str(), RoutePattern::new(pattern)) {
            (Some(_), Err(_)) => self.refused += 1,
            (None, Ok(compiled)) => {
                let found = answer["found"].as_array().expect("a list");
                assert_eq!(found.len(), names.len());
                for (name, found) in names.iter().zip(found) {
                    let found = found.as_bool().expect("a truth value");
                    self.pairs += 1;
                    self.found += u64::from(found);
                    if compiled.is_match(name) != found {
                        self.disagree(&format!("{pattern:?} on {name:?}: Go says {found}"));
                    }
                }
            }
            (Some("expression nests too deeply" | "expression too large"), Ok(_)) => self.over_a_limit += 1,
            (Some(why), Ok(_)) => self.disagree(&format!("{pattern:?}: Go refuses it: {why}")),
            (None, Err(error)) => match error.kind() {
                // Both sides have the same limit of repeats.
                PatternErrorKind::Limit { limit, .. } if *limit != LimitKind::Repeat => self.over_a_limit += 1,
                _ => self.disagree(&format!("Go accepts it: {error}")),
            },
        }
    }

    fn disagree(&mut self, what: &str) {
        self.disagreements += 1;
        if self.disagreements <= SHOWN {
            println!("{what}");
        }
    }
}

fn ask(recorder: &str, questions: &[(String, Vec<String>)]) -> Vec<Value> {
    let lines: String = questions
        .iter()
        .map(|(pattern, names)| json!({ "pattern": pattern, "names": names }).to_string() + "\n")
        .collect();
    let mut child = Command::new(recorder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the recorder");
    let mut input = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("the recorder's answers");
    writer.join().expect("no panic").expect("the recorder reads all");
    let answers: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("answers in JSON");
    assert_eq!(answers.len(), questions.len());
    answers
}

/// SplitMix64: a small generator with the same sequence on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn char(&mut self) -> char {
        match self.below(40) {
            0 => char::from_u32(self.below(0x11_0000) as u32).unwrap_or('\u{fffd}'),
            1 => char::from_u32(self.below(0x600) as u32).unwrap_or('x'),
            2 => self.pick(NEW_CHARS),
            3..10 => self.pick(CHARS),
            _ => self.pick(&['a', 'b', 'a', 'b', 'k', 'A', 'K', 's', '1', '-', '_']),
        }
    }
}

/// Piece of a pattern, and texts in which it is likely to be found.
struct Piece {
    text: String,
    samples: [String; 3],
}

impl Piece {
    fn new(text: impl Into<String>, sample: impl Into<String>) -> Self {
        let sample = sample.into();
        Self { text: text.into(), samples: [sample.clone(), sample.clone(), sample] }
    }
}

/// Draws a pattern and names for it, each name once.
fn question(random: &mut Random) -> (String, Vec<String>) {
    let mut piece = match random.below(10) {
        0 => soup(random),
        _ => {
            let depth = random.below(5);
            node(random, depth)
        }
    };
    if random.one_in(10) {
        damage(random, &mut piece.text);
    }
    let mut names = BTreeSet::from(piece.samples.clone());
    for sample in &piece.samples {
        let (before, after) = (word(random, 2), word(random, 2));
        names.insert([&*before, sample, &after].concat());
        let mut changed: Vec<char> = sample.chars().collect();
        if !changed.is_empty() {
            let at = random.below(changed.len());
            changed[at] = random.char();
        }
        names.insert(changed.into_iter().collect());
    }
    while names.len() < 10 {
        names.insert(word(random, 8));
    }
    (piece.text, names.into_iter().collect())
}

fn word(random: &mut Random, longest: usize) -> String {
    (0..random.below(longest + 1)).map(|_| random.char()).collect()
}

/// Draws pieces of patterns in any order.
fn soup(random: &mut Random) -> Piece {
    let count = 1 + random.below(8);
    Piece::new((0..count).map(|_| random.pick(SOUP)).collect::<String>(), word(random, 4))
}

/// Removes a character, or inserts something.
fn damage(random: &mut Random, text: &mut String) {
    let mut chars: Vec<char> = text.chars().collect();
    let at = random.below(chars.len() + 1);
    if random.one_in(2) && at < chars.len() {
        chars.remove(at);
    } else {
        let put: Vec<char> = random.pick(SOUP).chars().collect();
        chars.splice(at..at, put);
    }
    *text = chars.into_iter().collect();
}

fn node(random: &mut Random, depth: usize) -> Piece {
    if depth == 0 {
        return atom(random);
    }
    match random.below(8) {
        0..3 => {
            let count = random.below(5);
            let mut all = Piece::new("", "");
            for _ in 0..count {
                let part = node(random, depth - 1);
                all.text.push_str(&part.text);
                for (sample, more) in all.samples.iter_mut().zip(&part.samples) {
                    sample.push_str(more);
                }
            }
            all
        }
        3 => {
            let count = 1 + random.below(3);
            let branches: Vec<Piece> = (0..count).map(|_| node(random, depth - 1)).collect();
            let text: Vec<&str> = branches.iter().map(|branch| branch.text.as_str()).collect();
            let open = random.pick(&["(", "(?:"]);
            let samples = [0, 1, 2].map(|at| branches[random.below(branches.len())].samples[at].clone());
            Piece { text: format!("{open}{})", text.join("|")), samples }
        }
        4 => {
            let inner = node(random, depth - 1);
            Piece { text: format!("{}{})", random.pick(OPENINGS), inner.text), samples: inner.samples }
        }
        5..7 => {
            let inner = node(random, depth - 1);
            let (repeat, times) = random.pick(REPEATS);
            let single = inner.text.chars().count() == 1 || random.one_in(8);
            let text = if single { inner.text + repeat } else { format!("(?:{}){repeat}", inner.text) };
            Piece { text, samples: inner.samples.map(|sample| sample.repeat(times)) }
        }
        _ => atom(random),
    }
}

fn atom(random: &mut Random) -> Piece {
    let c = random.char();
    match random.below(16) {
        0..5 => Piece::new(escaped(c), c),
        5 => Piece::new(format!(r"\x{{{:x}}}", c as u32), c),
        6 => Piece::new(format!(r"\Q{c}\E"), c),
        7 => Piece::new(".", c),
        8..11 => {
            let (text, samples) = class(random);
            Piece { text, samples }
        }
        11 => Piece::new(random.pick(NAMED), c),
        12 => Piece::new(random.pick(ANCHORS), ""),
        13 => Piece::new(random.pick(FLAGS), ""),
        _ => {
            let (text, sample) = random.pick(ODD);
            Piece::new(text, sample)
        }
    }
}

fn escaped(c: char) -> String {
    if r"\.+*?()|[]{}^$".contains(c) { format!(r"\{c}") } else { c.to_string() }
}

fn class(random: &mut Random) -> (String, [String; 3]) {
    let mut text = String::from(if random.one_in(3) { "[^" } else { "[" });
    let mut members = vec![random.char()];
    for _ in 0..=random.below(4) {
        let c = random.char();
        match random.below(8) {
            0 | 1 => {
                let other = random.char();
                let (low, high) = if c <= other { (c, other) } else { (other, c) };
                text.push_str(&format!(r"\x{{{:x}}}-\x{{{:X}}}", low as u32, high as u32));
                members.extend([low, high]);
            }
            2 => text.push_str(random.pick(NAMED)),
            3 => text.push_str(random.pick(POSIX)),
            4 => text.push_str(random.pick(IN_CLASS)),
            _ => {
                if r"\]^-[".contains(c) {
                    text.push('\\');
                }
                text.push(c);
                members.push(c);
            }
        }
    }
    text.push(']');
    let samples = [0, 1, 2].map(|_| random.pick(&members).to_string());
    (text, samples)
}

/// Characters that some part of the syntax treats specially, or that fold.
const CHARS: &[char] = &[
    'ſ',
    'S',
    '\u{212a}',
    'ß',
    'ẞ',
    'İ',
    'ı',
    'i',
    'I',
    'é',
    'É',
    'σ',
    'ς',
    'Σ',
    'ǆ',
    'ǅ',
    'Ǆ',
    'θ',
    'ϑ',
    'å',
    '\u{212b}',
    '字',
    '𝄞',
    '٣',
    '½',
    '\u{301}',
    '\n',
    '\r',
    '\t',
    '\u{b}',
    '\u{c}',
    '\u{85}',
    '\u{a0}',
    '\u{2028}',
    '\0',
    '\u{7f}',
    ' ',
    '.',
    '@',
    '{',
    '}',
    '[',
    ']',
    '(',
    ')',
    '^',
    '$',
    '&',
    '~',
    '<',
    '>',
    ':',
    ',',
    '\\',
    '|',
    '*',
    '+',
    '?',
    '/',
    '!',
    '\u{fffd}',
    '\u{378}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{10ffff}',
    'z',
    'Z',
    '0',
    '9',
    'ა',
    'Ა',
    'ꭰ',
    'Ꭰ',
    'ﬀ',
    'Ω',
    '\u{2126}',
];

/// Characters that Unicode 17 added or changed: the newest tables are the likeliest to differ.
const NEW_CHARS: &[char] = &[
    '\u{16ea0}',
    '\u{16ebb}',
    '\u{16ed3}',
    '\u{a7d2}',
    '\u{a7d3}',
    '\u{a7ce}',
    '\u{295}',
    '\u{10940}',
    '\u{20c1}',
    '\u{1acf}',
];

const OPENINGS: &[&str] = &[
    "(", "(?:", "(?i:", "(?s:", "(?m:", "(?U:", "(?-i:", "(?is-m:", "(?P<n>", "(?<n1>", "(?i)(", "(?:(?i)", "(?)(",
    "(?:|", "(|", "^(", "(?i)(?:",
];

const REPEATS: &[(&str, usize)] = &[
    ("*", 0),
    ("+", 1),
    ("?", 1),
    ("*?", 2),
    ("+?", 2),
    ("??", 0),
    ("{0}", 0),
    ("{1}", 1),
    ("{2}", 2),
    ("{3}", 3),
    ("{0,}", 1),
    ("{2,}", 3),
    ("{1,3}", 2),
    ("{0,2}?", 1),
    ("{2,}?", 2),
    ("{10}", 10),
    ("{20}", 20),
    ("{,2}", 1),
    ("{01}", 1),
    ("{5,9}", 7),
];

const NAMED: &[&str] = &[
    r"\d",
    r"\D",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\pL",
    r"\PL",
    r"\p{Lu}",
    r"\P{Lu}",
    r"\p{^Ll}",
    r"\pN",
    r"\p{Nd}",
    r"\pP",
    r"\pS",
    r"\pZ",
    r"\pM",
    r"\pC",
    r"\p{Greek}",
    r"\P{^Greek}",
    r"\p{Latin}",
    r"\P{Latin}",
    r"\p{Han}",
    r"\p{Any}",
    r"\p{ASCII}",
    r"\P{ASCII}",
    r"\p{Assigned}",
    r"\p{Cn}",
    r"\p{LC}",
    r"\p{Common}",
    r"\p{georgian}",
    r"\p{Cased_Letter}",
    r"\p{Lo}",
    r"\P{Ll}",
    r"\p{Beria_Erfe}",
    r"\p{Sc}",
];

const POSIX: &[&str] = &[
    "[:alpha:]",
    "[:^alpha:]",
    "[:digit:]",
    "[:word:]",
    "[:^word:]",
    "[:space:]",
    "[:upper:]",
    "[:^upper:]",
    "[:lower:]",
    "[:punct:]",
    "[:graph:]",
    "[:print:]",
    "[:cntrl:]",
    "[:ascii:]",
    "[:^ascii:]",
    "[:blank:]",
    "[:alnum:]",
    "[:xdigit:]",
];

/// Texts that have no meaning of their own in a class, or almost none.
const IN_CLASS: &[&str] = &[
    "&&", "~~", "--", "-", "[", "[a", "[:", "^", "&", "a-", "-a", "a-c-e", r"\-", r"\]", r"\n", r"\v", r"\0", r"\101",
    ".", "$", "[:foo:]", "]", "|", "(", r"\Q", r"\b", "z-a", "[.a.]",
];

const ANCHORS: &[&str] = &["^", "$", r"\A", r"\z", r"\b", r"\B", "", "^", "$"];

const FLAGS: &[&str] = &["(?i)", "(?s)", "(?m)", "(?U)", "(?-i)", "(?-s)", "(?i-s)", "(?ms)", "(?)", "(?i)", "(?m)"];

/// Patterns that other syntaxes read differently, with texts in which they are found.
const ODD: &[(&str, &str)] = &[
    ("a{,3}", "a{,3}"),
    ("{", "{"),
    ("a{", "a{"),
    ("}", "}"),
    ("]", "]"),
    ("a{01}", "a{01}"),
    ("a{1", "a{1"),
    (r"\<", "<"),
    (r"\>", ">"),
    (r"\b{start}", "{start}"),
    (r"\b{2}", ""),
    (r"\0", "\0"),
    (r"\07", "\u{7}"),
    (r"\123", "S"),
    (r"\1234", "S4"),
    (r"\n", "\n"),
    (r"\v", "\u{b}"),
    (r"\_", "_"),
    (r"\x41", "A"),
    ("[]a]", "]"),
    ("[^]a]", "b"),
    ("[a&&b]", "&"),
    ("[[a]b]", "[b]"),
    (r"[\w-z]", "-"),
    ("()", ""),
    ("|", ""),
    (r"\Q\E", ""),
    (r"\Qa|b\E", "a|b"),
    ("(?:)", ""),
    ("&&", "&&"),
    ("#", "#"),
    (" ", " "),
    ("prod-*", "prod-"),
    (r"\.example\.com", ".example.com"),
    ("(?i)K", "\u{212a}"),
    ("(?i)ſ", "S"),
];

pub(crate) const SOUP: &[&str] = &[
    "a",
    "b",
    "K",
    "é",
    "字",
    "(",
    ")",
    "(?",
    "(?i)",
    "(?:",
    "(?P<",
    "(?P<n>",
    "(?<n>",
    "(?-s",
    "(?x)",
    "(?u)",
    "(?-u:",
    "(?R)",
    ":",
    "<",
    ">",
    "=",
    "!",
    "|",
    "*",
    "+",
    "?",
    "{",
    "}",
    ",",
    "{2}",
    "{1,3}",
    "{2,1}",
    "{1001}",
    "{1000}",
    "{40}",
    "{99",
    "[",
    "]",
    "[^",
    "[:",
    ":]",
    "[:alpha:]",
    "[[:foo:]]",
    "-",
    "^",
    "$",
    ".",
    "\\",
    r"\Q",
    r"\E",
    r"\d",
    r"\W",
    r"\b",
    r"\B",
    r"\z",
    r"\Z",
    r"\A",
    r"\C",
    r"\p",
    r"\P{",
    r"\pL",
    r"\p{^Greek}",
    r"\p{IsGreek}",
    r"\p{Script=Greek}",
    r"\p{sc=Greek}",
    r"\p{Alphabetic}",
    r"\p{greek}",
    r"\x",
    r"\x{",
    r"\x{d800}",
    r"\x{110000}",
    r"\x41",
    r"\0",
    r"\12",
    r"\1",
    r"\8",
    r"\18",
    r"\u0041",
    r"\u{41}",
    r"\U00000041",
    r"\<",
    r"\>",
    r"\k<n>",
    r"\G",
    r"\K",
    r"\R",
    r"\h",
    r"\e",
    r"\v",
    "&&",
    "--",
    "~~",
    "\n",
    "\0",
    "0",
    "9",
    "Lu}",
    "**",
    "++",
    "a*",
    "a+?",
    "(?=",
    "(?!",
    "(?<=",
    "(?>",
    "(?#",
    "(?P=n)",
    "[a-",
    "[z-a]",
    "[a-z",
    "\\\\",
    "(?<",
];
