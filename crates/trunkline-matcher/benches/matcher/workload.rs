//! Patterns and names, generated from a seed: the same seed gives the same table in every process.
//!
//! The table imitates that of an operator of many nodes: names of single nodes, prefixes of a team's services, hosts, a
//! few real expressions, and the occasional pattern that suits no index. The spaces from which teams, hosts and numbers
//! are drawn grow with the table, so that a name matches about as many patterns in a large table as in a small one.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use regex_syntax::hir::{Class, Hir, HirKind};

/// Kind of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `^prod-db17@eu-west.example.com$`. Its dots are wildcards, so it is not a literal.
    Exact,
    /// `prod-db17@eu-west.example.com`, the same without `^` and `$`.
    Loose,
    /// `prod-billing-api-.*`, some with `^`.
    Prefix,
    /// `.*@eu-west.example.com`
    Suffix,
    /// `^svc-a[0-9]+@(eu|us)-[a-z]+\.example\.com$`
    Complex,
    /// `(?i)GATEWAY-?123`: a literal, but in no fixed case, and with a stem that many share.
    AnyCase,
    /// `.*-[0-9]{3}@.*`, `[a-z]+\d+@`: classes, and no literal longer than a byte.
    LiteralFree,
}

/// Number of each kind, in percent: exact, loose, prefix, suffix, complex, and the two nasty ones together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix([usize; 6]);

impl Mix {
    /// The mix for which figures are published.
    pub(crate) const MAIN: Self = Self([40, 15, 25, 10, 8, 2]);
    /// A mix with fewer names and more expressions, which reveals an engine tuned to the other mix.
    pub(crate) const OTHER: Self = Self([15, 25, 20, 15, 23, 2]);

    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "main" => Some(Self::MAIN),
            "other" => Some(Self::OTHER),
            _ => None,
        }
    }
}

/// A data set: the number of patterns, and a bound on the nasty ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// The mix unchanged.
    Plain(usize),
    /// At most 20 nasty patterns up to 10,000 patterns, 200 above: an operator does not write 20,000 patterns by hand
    /// that match by classes alone.
    Capped(usize),
    /// Only patterns without a literal.
    LiteralFree(usize),
}

impl Set {
    /// Parses the name of a set: `100`, `c10k`, `c1M`, `free143`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (make, digits): (fn(usize) -> Self, &str) = if let Some(rest) = name.strip_prefix("free") {
            (Self::LiteralFree, rest)
        } else if let Some(rest) = name.strip_prefix('c') {
            (Self::Capped, rest)
        } else {
            (Self::Plain, name)
        };
        let (digits, unit) = match digits.strip_suffix(['k', 'M']) {
            Some(rest) if digits.ends_with('k') => (rest, 1_000),
            Some(rest) => (rest, 1_000_000),
            None => (digits, 1),
        };
        digits.parse::<usize>().ok().filter(|n| *n > 0).map(|n| make(n * unit))
    }

    pub(crate) fn len(self) -> usize {
        let (Self::Plain(n) | Self::Capped(n) | Self::LiteralFree(n)) = self;
        n
    }
}

/// One pattern of the table. Its value is its place in [`Workload::patterns`], which is the order of insertion.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) text: String,
    pub(crate) weight: i64,
    pub(crate) kind: Kind,
}

/// A table, and the names to look up in it.
pub(crate) struct Workload {
    pub(crate) patterns: Vec<Pattern>,
    /// Distinct names, each looked up once.
    pub(crate) cold: Vec<String>,
    /// Names looked up again and again.
    pub(crate) hot: Vec<String>,
    /// Places in `hot`, by Zipf's law with exponent 1.
    pub(crate) hot_order: Vec<u32>,
    generator: Generator,
}

impl Workload {
    pub(crate) fn new(set: Set, mix: Mix, seed: u64) -> Self {
        let mut generator = Generator::new(set.len(), seed);
        let kinds = generator.kinds(set, mix);
        let patterns: Vec<Pattern> = kinds.into_iter().map(|kind| generator.pattern(kind)).collect();
        let cold = generator.names(&patterns, COLD_NAMES);
        let hot = generator.names(&patterns, HOT_NAMES);
        let hot_order = generator.zipf(hot.len(), HOT_LOOKUPS);
        Self { patterns, cold, hot, hot_order, generator }
    }

    /// Draws more patterns of the same mix, none of which is in the table.
    pub(crate) fn further(&mut self, set: Set, mix: Mix, count: usize) -> Vec<Pattern> {
        let kinds = self.generator.kinds(set, mix);
        kinds.into_iter().cycle().take(count).map(|kind| self.generator.pattern(kind)).collect()
    }
}

/// Splitmix64: a small generator, fast enough, and good enough to draw names.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`, which must not be zero.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

type Seen = HashSet<u64, BuildHasherDefault<DefaultHasher>>;

/// Generator of patterns and names for a table of one size.
struct Generator {
    random: Random,
    size: usize,
    syllables: Vec<String>,
    /// Number of nasty patterns so far, of each kind. Later ones are narrower, so that all of them together match about
    /// as much in a large table as in a small one.
    any_case: usize,
    literal_free: usize,
    /// Fingerprints of texts and names already given out. They are kept as long as the workload, so that an engine
    /// cannot reuse their memory unmeasured when it is built.
    seen: Seen,
}

impl Generator {
    fn new(size: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut syllables: Vec<String> = CONSONANTS
            .chars()
            .flat_map(|consonant| VOWELS.chars().map(move |vowel| format!("{consonant}{vowel}")))
            .collect();
        // A different seed gives different words.
        random.shuffle(&mut syllables);
        Self { random, size, syllables, any_case: 0, literal_free: 0, seen: Seen::default() }
    }

    /// Returns the kinds of a data set in the order in which they are inserted: exact counts, shuffled.
    fn kinds(&mut self, set: Set, mix: Mix) -> Vec<Kind> {
        let (size, cap) = match set {
            Set::LiteralFree(size) => return vec![Kind::LiteralFree; size],
            Set::Plain(size) => (size, usize::MAX),
            Set::Capped(size) => (size, if size <= 10_000 { 20 } else { 200 }),
        };
        let share = |place: usize| size * mix.0[place] / 100;
        let nasty = share(5).min(cap);
        let any_case = (nasty * 3 + 5) / 10;
        let mut kinds = Vec::with_capacity(size);
        for (kind, count) in [
            (Kind::AnyCase, any_case),
            (Kind::LiteralFree, nasty - any_case),
            (Kind::Loose, share(1)),
            (Kind::Prefix, share(2)),
            (Kind::Suffix, share(3)),
            (Kind::Complex, share(4)),
        ] {
            kinds.resize(kinds.len() + count, kind);
        }
        kinds.resize(size, Kind::Exact);
        self.random.shuffle(&mut kinds);
        kinds
    }

    fn pattern(&mut self, kind: Kind) -> Pattern {
        let size = self.size;
        let text = loop {
            let text = self.text(kind);
            if self.is_new(&text) {
                break text;
            }
            // The space may be used up.
            self.size += self.size / 16 + 1;
        };
        self.size = size;
        Pattern { text, weight: self.random.of(WEIGHTS), kind }
    }

    fn is_new(&mut self, text: &str) -> bool {
        let fingerprint = self.seen.hasher().hash_one(text);
        self.seen.insert(fingerprint)
    }

    fn text(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Exact => format!("^{}$", self.node()),
            Kind::Loose => self.node(),
            Kind::Prefix => {
                let anchor = if self.random.percent(40) { "^" } else { "" };
                format!("{anchor}{}-.*", self.service())
            }
            Kind::Suffix => format!(".*@{}.example.com", self.host()),
            Kind::Complex => self.complex(),
            Kind::AnyCase => {
                self.any_case += 1;
                self.any_case()
            }
            Kind::LiteralFree => {
                self.literal_free += 1;
                self.literal_free()
            }
        }
    }

    fn complex(&mut self) -> String {
        let space = self.size / 12 + 12;
        let stem = format!("{}-{}", self.random.of(SERVICES), self.word(space));
        let middle =
            self.random.of(&["a[0-9]+", "[0-9]+", r"b\d{1,3}", "[a-f][0-9]+", "(blue|green)[0-9]*", "c[0-9]?x"]);
        let place = self.random.of(&["(eu|us)-[a-z]+", "(eu|us|ap)-[a-z]+", "eu-(west|north)", "[a-z]+-(east|south)"]);
        let end = self.random.of(&[r"\.example\.com$", r"\.example\.com$", r"\.example\.(com|net)$", r"\."]);
        format!("^{stem}-{middle}@{place}{end}")
    }

    fn any_case(&mut self) -> String {
        if self.any_case == 1 {
            return "(?i)GATEWAY".to_owned();
        }
        let stem = if self.random.percent(37) { "GATEWAY" } else { self.random.of(STEMS) };
        let joint = self.random.of(&["-?", "", "[-_]?"]);
        let space = self.any_case * 4 + 100;
        format!("(?i){stem}{joint}{}", self.random.within(10, 10 + space))
    }

    fn literal_free(&mut self) -> String {
        let count = self.literal_free;
        match count {
            1 => return ".*-[0-9]{3}@.*".to_owned(),
            2 => return r"[a-z]+\d+@[n-z]".to_owned(),
            _ => {}
        }
        // A class narrows by a factor of three on average.
        let (whole, mut narrow) = (count.is_multiple_of(2), 1);
        while 3_usize.pow(narrow) < count {
            narrow += 1;
        }
        // The positions to narrow: letters before, digits, letters after.
        let mut places = [false; 7];
        for place in places.iter_mut().take(usize::try_from(narrow).expect("small") + usize::from(whole)) {
            *place = true;
        }
        self.random.shuffle(&mut places);
        let letters = |random: &mut Random, narrowed: &[bool]| {
            let mut text = String::new();
            for narrowed in narrowed {
                text.push_str(&if *narrowed {
                    class(random, "abcdefghijklmnopqrstuvwxyz", 6, 12)
                } else {
                    "[a-z]".into()
                });
            }
            text
        };
        let before = letters(&mut self.random, &places[..2]);
        let after = letters(&mut self.random, &places[4..]);
        // An unrestricted class at either end restricts nothing.
        let (before, after) = (before.trim_start_matches("[a-z]"), after.trim_end_matches("[a-z]"));
        let digits: Vec<String> = places[2..4]
            .iter()
            .map(|narrowed| if *narrowed { class(&mut self.random, "0123456789", 2, 5) } else { r"\d".into() })
            .collect();
        if whole {
            let digits = digits.concat();
            let digits = if digits == r"\d\d" { r"\d+" } else { &digits };
            format!("[a-z]+{before}{digits}@{after}")
        } else {
            format!(".*{before}-[0-9]{}@{after}.*", digits.concat())
        }
    }

    /// Returns a word of the language. Each space of teams or hosts has as many words as the table needs.
    fn word(&mut self, space: usize) -> String {
        let mut rest = self.random.below(space);
        let mut word = String::new();
        for _ in 0..2 {
            word.push_str(&self.syllables[rest % self.syllables.len()]);
            rest /= self.syllables.len();
        }
        while rest > 0 {
            word.push_str(&self.syllables[rest % self.syllables.len()]);
            rest /= self.syllables.len();
        }
        word
    }

    /// Draws a host. There are twice as many hosts as patterns for hosts in the main mix.
    fn host(&mut self) -> String {
        let space = self.size / 6 + 2;
        match self.random.below(space) {
            few if few < REGIONS.len() => REGIONS[few].to_owned(),
            _ => {
                let continent = self.random.of(&["eu", "us", "ap"]);
                format!("{continent}-{}", self.word(space.saturating_sub(REGIONS.len()) / 3 + 1))
            }
        }
    }

    /// Draws a team and a service, as prefixes name them.
    fn service(&mut self) -> String {
        let space = self.size / 40 + 4;
        let (environment, service) = (self.random.of(ENVIRONMENTS), self.random.of(SERVICES));
        format!("{environment}-{}-{service}", self.word(space))
    }

    /// Draws the name of one node.
    fn node(&mut self) -> String {
        let (environment, role) = (self.random.of(ENVIRONMENTS), self.random.of(ROLES));
        let number = self.random.within(1, self.size / 20 + 30);
        let host = self.host();
        if self.random.percent(10) {
            return format!("{role}{number}@{host}.example.com");
        }
        format!("{environment}-{role}{number}@{host}.example.com")
    }

    /// Draws the part before the `@` in a name of a service.
    fn instance(&mut self) -> String {
        match self.random.below(4) {
            0 => format!("{:03}", self.random.below(1_000)),
            1 => format!("{}{}", self.random.of(&["a", "b", "blue", "green"]), self.random.below(100)),
            2 => self.word(1_000),
            _ => format!("{}-{}", self.random.of(ROLES), self.random.below(100)),
        }
    }

    /// Draws distinct names: six of ten from entries of the table, the others just as plausible but in no table.
    fn names(&mut self, patterns: &[Pattern], count: usize) -> Vec<String> {
        let mut names = Vec::with_capacity(count);
        while names.len() < count {
            // A small table has few names of single nodes: the choice is kept while the name is drawn again.
            let hit = self.random.percent(60);
            names.push(loop {
                let name = if hit {
                    let chosen = self.random.below(patterns.len());
                    self.hit(&patterns[chosen])
                } else {
                    self.miss(patterns)
                };
                if NAME_BYTES.contains(&name.len()) && self.is_new(&name) {
                    break name;
                }
            });
        }
        names
    }

    /// Draws a name that the pattern matches.
    fn hit(&mut self, pattern: &Pattern) -> String {
        let text = pattern.text.as_str();
        match pattern.kind {
            Kind::Exact => {
                let name = text.trim_matches(['^', '$']);
                // A dot is any character.
                if self.random.percent(2) { name.replacen(".example", "-example", 1) } else { name.to_owned() }
            }
            Kind::Loose if self.random.percent(20) => format!("{}-{text}", self.random.of(&["my", "old", "eu"])),
            Kind::Loose => text.to_owned(),
            Kind::Prefix => {
                let prefix = text.trim_start_matches('^').trim_end_matches(".*");
                format!("{prefix}{}@{}.example.com", self.instance(), self.host())
            }
            Kind::Suffix => {
                let (service, instance) = (self.service(), self.instance());
                format!("{service}-{instance}{}", text.trim_start_matches(".*"))
            }
            Kind::Complex => {
                let mut name = self.sample(text);
                if !name.contains(".example") {
                    name.push_str("example.com");
                }
                name
            }
            Kind::AnyCase => {
                let (environment, middle) = (self.random.of(ENVIRONMENTS), self.sample(text));
                format!("{environment}-{middle}@{}.example.com", self.host())
            }
            Kind::LiteralFree => {
                let environment = self.random.of(ENVIRONMENTS);
                let middle = self.sample(text.trim_start_matches(".*").trim_end_matches(".*"));
                let (role, rest) = (self.random.of(ROLES), self.random.of(&["east", "west", "-north", "-south"]));
                format!("{environment}-{role}{middle}{rest}.example.com")
            }
        }
    }

    /// Draws a name that was not made from an entry. A pattern for its host may still match it.
    fn miss(&mut self, patterns: &[Pattern]) -> String {
        match self.random.below(4) {
            // Another node.
            0 => {
                let (environment, role) = (self.random.of(ENVIRONMENTS), self.random.of(ROLES));
                let number = self.random.within(1, self.size * 20);
                format!("{environment}-{role}{number}@{}.example.org", self.host())
            }
            // Another team.
            1 => {
                let (environment, service, team) =
                    (self.random.of(ENVIRONMENTS), self.random.of(SERVICES), self.word(500_000));
                format!("{environment}-{team}-{service}-{}@{}.example.com", self.instance(), self.host())
            }
            // Near miss: one character of a hit is replaced.
            _ => {
                let chosen = self.random.below(patterns.len());
                let mut name = self.hit(&patterns[chosen]).into_bytes();
                let at = self.random.below(name.len());
                name[at] = self.random.of(b"abcdefghijklmnopqrstuvwxyz0123456789-");
                String::from_utf8(name).expect("names are ASCII")
            }
        }
    }

    /// Draws a text that a pattern without `.*` matches.
    fn sample(&mut self, pattern: &str) -> String {
        let hir = regex_syntax::ParserBuilder::new().unicode(false).build().parse(pattern).expect("own pattern");
        let mut text = String::new();
        self.walk(&hir, &mut text);
        text
    }

    fn walk(&mut self, hir: &Hir, out: &mut String) {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => {}
            HirKind::Literal(literal) => out.push_str(std::str::from_utf8(&literal.0).expect("patterns are ASCII")),
            HirKind::Class(Class::Unicode(class)) => {
                let range = class.ranges()[self.random.below(class.ranges().len())];
                out.push(
                    char::from_u32(self.random.within(range.start() as usize, range.end() as usize) as u32)
                        .expect("no surrogates"),
                );
            }
            HirKind::Class(Class::Bytes(class)) => {
                let range = class.ranges()[self.random.below(class.ranges().len())];
                out.push(char::from(self.random.within(range.start().into(), range.end().into()) as u8));
            }
            HirKind::Repetition(repetition) => {
                let most = repetition.max.unwrap_or(repetition.min + 2).min(repetition.min + 2);
                for _ in 0..self.random.within(repetition.min as usize, most as usize) {
                    self.walk(&repetition.sub, out);
                }
            }
            HirKind::Capture(capture) => self.walk(&capture.sub, out),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.walk(part, out)),
            HirKind::Alternation(parts) => {
                let chosen = self.random.below(parts.len());
                self.walk(&parts[chosen], out);
            }
        }
    }

    fn zipf(&mut self, ranks: usize, count: usize) -> Vec<u32> {
        let mut total = 0.0;
        let reach: Vec<f64> = (1..=ranks)
            .map(|rank| {
                total += 1.0 / rank as f64;
                total
            })
            .collect();
        (0..count)
            .map(|_| {
                let at = self.random.next() as f64 / u64::MAX as f64 * total;
                reach.partition_point(|end| *end < at).min(ranks - 1) as u32
            })
            .collect()
    }
}

/// Draws a class of some consecutive characters of an alphabet.
fn class(random: &mut Random, alphabet: &str, least: usize, most: usize) -> String {
    let width = random.within(least, most);
    let start = random.below(alphabet.len() - width + 1);
    let bytes = alphabet.as_bytes();
    format!("[{}-{}]", char::from(bytes[start]), char::from(bytes[start + width - 1]))
}

/// Number of cold names: enough that no engine has seen most of them, and that slow engines are stopped by the clock.
const COLD_NAMES: usize = 100_000;
const HOT_NAMES: usize = 1_000;
const HOT_LOOKUPS: usize = 100_000;

const NAME_BYTES: std::ops::RangeInclusive<usize> = 21..=53;

/// Weights, few so that the order of insertion often decides.
const WEIGHTS: &[i64] = &[10, 50, 100, 100, 200];

const CONSONANTS: &str = "bdfgklmnprstvz";
const VOWELS: &str = "aeiou";
const ENVIRONMENTS: &[&str] = &["prod", "test", "dev", "qa", "lab"];
const REGIONS: &[&str] =
    &["eu-west", "eu-north", "eu-central", "us-east", "us-west", "us-south", "ap-east", "ap-south"];
const ROLES: &[&str] = &[
    "db", "web", "api", "mq", "auth", "cache", "queue", "proxy", "mail", "search", "worker", "gateway", "ledger",
    "storage", "metrics", "balancer",
];
const SERVICES: &[&str] =
    &["svc", "api", "jobs", "web", "batch", "billing", "orders", "stock", "geo", "log", "pay", "cart"];
const STEMS: &[&str] = &["LEDGER", "BALANCER", "STORAGE", "METRICS", "SEARCH", "WORKER"];
