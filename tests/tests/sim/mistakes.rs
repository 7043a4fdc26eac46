//! One deliberate mistake at a time in the shipped rules, and the invariant that detects it.

use trunkline_dial::mutants::{self, Mutant};
use trunkline_tests::sim::{Config, run};

/// Returns the invariant that the first two thousand seeds find broken by a mistake.
fn bites(config: Config) -> &'static str {
    for seed in 0..2000 {
        if let Some(violation) = run(seed, config, false).violation {
            println!("seed {seed}: {violation}");
            return violation.invariant;
        }
    }
    panic!("two thousand histories found nothing");
}

/// Settings without the table, which would detect every wrong verdict at once.
const NO_TABLE: Config = Config { table: false, loser_ends_lookup: false };

/// Returns the invariant that the first two thousand seeds find broken by this mistake in the shipped rules.
fn bites_in(mutant: Mutant, config: Config) -> &'static str {
    mutants::with(mutant, || bites(config))
}

/// Checks one seed. The conditions that reveal some mistakes are rare; these seeds are kept for them.
fn bites_at(mutant: Mutant, seed: u64, invariant: &str) {
    let violation = mutants::with(mutant, || run(seed, NO_TABLE, false)).violation;
    assert!(violation.as_ref().is_some_and(|v| v.invariant.starts_with(invariant)), "seed {seed}: {violation:?}");
}

#[test]
fn accepting_both_of_two_crossing_dials_is_detected() {
    assert!(bites_in(Mutant::BothWin, Config::default()).starts_with("verdicts"));
    bites_in(Mutant::BothWin, NO_TABLE);
}

#[test]
fn refusing_both_of_two_crossing_dials_is_detected() {
    bites_in(Mutant::BothLose, NO_TABLE);
}

#[test]
fn going_up_without_the_flight_is_detected() {
    bites_at(Mutant::UpOnAnyAccept, 2757, "(i)");
}

#[test]
fn going_up_before_the_first_frame_is_detected() {
    assert!(bites_in(Mutant::UpOnOffer, NO_TABLE).starts_with("(c)"));
}

#[test]
fn accepting_a_second_incarnation_without_a_probe_is_detected() {
    assert!(bites_in(Mutant::NoChallenge, NO_TABLE).starts_with("(f)"));
}

#[test]
fn two_finishes_at_once_are_detected() {
    assert!(bites_in(Mutant::ManyFinishes, NO_TABLE).starts_with("(b)"));
}

#[test]
fn an_epoch_used_twice_is_detected() {
    bites_in(Mutant::OneEpoch, NO_TABLE);
}

#[test]
fn closing_a_replaced_link_before_it_is_drained_is_detected() {
    assert!(bites_in(Mutant::ReplaceKills, NO_TABLE).starts_with("(d)"));
}

#[test]
fn a_hold_that_forgets_older_links_is_detected() {
    bites_at(Mutant::HoldForReplacedOnly, 944, "(d)");
}

#[test]
fn a_hold_for_a_former_incarnation_is_detected() {
    bites_at(Mutant::HoldForEveryIncarnation, 1079, "(d)");
}

#[test]
fn a_dial_that_begins_while_another_one_ends_is_detected() {
    assert!(bites_in(Mutant::DialsOverlap, NO_TABLE).starts_with("(o)"));
}

#[test]
fn ending_a_lookup_for_the_loser_of_its_own_stagger_is_detected() {
    bites(Config { loser_ends_lookup: true, ..Config::default() });
}
