//! How many patterns a name of the workload matches.
#![forbid(unsafe_code)]
#![expect(dead_code, reason = "the measurements that use the rest follow")]

mod workload;

use workload::{Mix, Set, Workload};

fn main() {
    for name in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        let set = Set::named(&name).expect("a data set, as 100, 10k or c1M");
        let workload = Workload::new(set, Mix::MAIN, 1);
        let patterns: Vec<_> = workload.patterns.iter().map(|p| regex::Regex::new(&p.text).unwrap()).collect();
        let sample = &workload.cold[..(1_000_000 / patterns.len()).clamp(100, 4_000)];
        let found: usize = sample.iter().map(|name| patterns.iter().filter(|p| p.is_match(name)).count()).sum();
        println!("{name}: {:.2} patterns for a name", found as f64 / sample.len() as f64);
    }
}
