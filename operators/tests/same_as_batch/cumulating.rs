//! Cumulating windows: aggregates and tops, whole and in two phases, late rows, restored, at both ends of time.

use proptest::prelude::*;

use crate::{
    bids::{Bid, cases, fail},
    extremes::instants,
    shape::{Case, Shape, bid, check, late_rows, some_cases},
};

fn shapes() -> impl Strategy<Value = Shape> {
    (1u64..12, 1u64..9, prop_oneof![Just(0u64), 0u64..50]).prop_map(|(step, times, offset)| Shape::Cumulating {
        size: step * times,
        step,
        offset,
    })
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_row_is_in_every_window_from_its_step_on(shape in shapes(), case in some_cases(-60i64..60, 1)) {
        check(&shape, &case).map_err(fail)?;
    }
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn at_all_times_with_all_sizes(
        step in prop_oneof![Just(10u64), Just(i64::MAX as u64), Just(1 << 60), 1u64..100, 1u64..=u64::MAX],
        times in 1u64..8,
        offset in prop_oneof![Just(0u64), 0u64..20, Just(i64::MAX as u64)],
        case in some_cases(instants(), 1),
    ) {
        let step = step / times;
        let step = step.max(1);
        let shape = Shape::Cumulating { size: step * times, step, offset };
        check(&shape, &Case { beyond: false, ..case }).map_err(fail)?;
    }
}

#[test]
fn rows_beyond_the_bound_are_late() {
    let rows: Vec<Bid> = (0..80).map(|i| bid(i % 3, i, i * 37 % 83 - 41)).collect();
    for top in [None, Some(2)] {
        let late = late_rows(&Shape::Cumulating { size: 12, step: 4, offset: 1 }, &rows, top);
        assert!(late > 20, "only {late} rows were late");
    }
}
