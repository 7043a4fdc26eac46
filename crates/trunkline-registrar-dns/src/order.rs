//! The order of SRV records.

use hickory_resolver::proto::rr::rdata::SRV;

/// Puts records into the order in which RFC 2782 has them tried (<https://www.rfc-editor.org/rfc/rfc2782>): by priority,
/// and among equals drawn at random by weight, those of weight 0 with the least chance.
pub(crate) fn ordered(mut records: Vec<SRV>, rng: &mut fastrand::Rng) -> Vec<SRV> {
    // Within a priority, those of weight 0 come first, as the running sums need it.
    records.sort_by_key(|record| (record.priority, record.weight > 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let equals = records.iter().take_while(|record| record.priority == priority).count();
        let sum: u32 = records[..equals].iter().map(|record| u32::from(record.weight)).sum();
        let drawn = rng.u32(0..=sum);
        let mut running = 0;
        let chosen = records[..equals].iter().position(|record| {
            running += u32::from(record.weight);
            running >= drawn
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    fn record(priority: u16, weight: u16, port: u16) -> SRV {
        SRV::new(priority, weight, port, Name::root())
    }

    proptest! {
        #[test]
        fn each_record_is_there_once_and_no_later_priority_comes_first(
            records in proptest::collection::vec((0_u16..4, any::<u16>(), any::<u16>()), 0..40),
            seed in any::<u64>(),
        ) {
            let records: Vec<SRV> = records.into_iter().map(|(p, w, port)| record(p, w, port)).collect();
            let ordered = ordered(records.clone(), &mut fastrand::Rng::with_seed(seed));
            prop_assert!(ordered.is_sorted_by_key(|record| record.priority));
            let ports = |records: &[SRV]| {
                let mut all: Vec<_> = records.iter().map(|record| (record.priority, record.weight, record.port)).collect();
                all.sort();
                all
            };
            prop_assert_eq!(ports(&ordered), ports(&records));
        }
    }

    #[test]
    fn the_first_one_is_drawn_by_weight() {
        let (mut rng, mut first) = (fastrand::Rng::with_seed(7), [0_u32; 3]);
        for _ in 0..10_000 {
            let ordered = ordered(vec![record(1, 0, 0), record(1, 1, 1), record(1, 3, 2), record(2, 9, 9)], &mut rng);
            first[usize::from(ordered[0].port)] += 1;
        }
        // Of five draws, 0 to 4, one leads to weight 0, one to weight 1, and three to weight 3.
        assert!(
            first[0].abs_diff(2_000) < 200 && first[1].abs_diff(2_000) < 200 && first[2].abs_diff(6_000) < 200,
            "{first:?}"
        );
    }
}
