//! Hopping windows: aggregates and tops, whole and in two phases, late rows, restored, at both ends of time.

use proptest::prelude::*;

use crate::{
    bids::{Bid, cases, fail},
    extremes::instants,
    shape::{Case, Phases, Shape, bid, check, late_rows, some_cases},
};

/// A size and a slide: one that divides it, or any.
fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = prop_oneof![
        (1u64..12, 1u64..6).prop_map(|(slide, times)| (slide * times, slide)),
        (1u64..40, 1u64..40).prop_map(|(a, b)| (a.max(b), a.min(b).max(a.max(b) / 12))),
    ];
    (sizes, prop_oneof![Just(0u64), 0u64..50]).prop_map(|((size, slide), offset)| Shape::Hopping {
        size,
        slide,
        offset,
    })
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_row_is_in_every_window_that_contains_it(shape in shapes(), case in some_cases(-60i64..60, 1)) {
        check(&shape, &case).map_err(fail)?;
    }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn at_all_times_with_all_sizes(
        size in prop_oneof![Just(10u64), Just(i64::MAX as u64), Just(1 << 62), Just(u64::MAX), 1u64..100, 1u64..=u64::MAX],
        times in 1u64..8,
        offset in prop_oneof![Just(0u64), 0u64..20, Just(i64::MAX as u64)],
        case in some_cases(instants(), 1),
    ) {
        let shape = Shape::Hopping { size, slide: (size / times).max(1), offset };
        check(&shape, &Case { beyond: false, ..case }).map_err(fail)?;
    }
}

/// One watermark completes many windows of many groups.
#[test]
fn a_large_firing_leaves_in_steps() {
    let rows: Vec<Bid> = (0..6_000).map(|i| bid(i % 3_000, i, i % 7)).collect();
    for phases in [Phases::One, Phases::Two] {
        let case = Case {
            rows: rows.clone(),
            key: &["auction"],
            top: None,
            phases,
            lateness: 0,
            bound: 7,
            beyond: false,
            seed: 1,
        };
        let shape = Shape::Hopping { size: 6, slide: 2, offset: 0 };
        crate::shape::check_few(&shape, &case, 2, 2_000..=3_000).unwrap();
    }
}

#[test]
fn rows_beyond_the_bound_are_late() {
    let rows: Vec<Bid> = (0..80).map(|i| bid(i % 3, i, i * 37 % 83 - 41)).collect();
    for top in [None, Some(2)] {
        let late = late_rows(&Shape::Hopping { size: 10, slide: 4, offset: 0 }, &rows, top);
        assert!(late > 20, "only {late} rows were late");
    }
}
