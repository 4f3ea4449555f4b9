//! Windows of the calendar: days of 23, 24 and 25 hours in a pipeline, late rows, restored. The arithmetic has its own
//! tests beside it.

use proptest::prelude::*;

use crate::{
    bids::{cases, fail},
    shape::{Shape, YEAR_2024, check, some_cases},
};

pub(crate) const HOUR: i64 = 3_600_000_000;

pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Cairo"];
    (prop::sample::select(vec!["day", "day", "week", "month", "year"]), prop::sample::select(zones.to_vec()))
        .prop_map(|(unit, zone)| Shape::Calendar { unit, zone })
}

/// Some days around a change of clocks in one of the zones, or anywhere in the year.
pub(crate) fn times() -> impl Strategy<Value = i64> + Clone {
    let around = |day: i64| (-60i64..60).prop_map(move |hours| YEAR_2024 + day * 24 * HOUR + hours * HOUR);
    let exact = |day: i64| (0i64..48).prop_map(move |halves| YEAR_2024 + day * 24 * HOUR + halves * HOUR / 2);
    prop_oneof![
        around(69),
        around(90),
        around(97),
        around(117),
        around(300),
        around(307),
        exact(90),
        exact(300),
        (0i64..8_000).prop_map(|hours| YEAR_2024 + hours * HOUR)
    ]
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn a_window_goes_from_one_local_midnight_to_another(shape in shapes(), case in some_cases(times(), HOUR as u64)) {
        check(&shape, &case).map_err(fail)?;
    }
}

/// Times that no calendar knows: rows are in the first window and in the last, and nothing panics.
#[test]
fn at_both_ends_of_time() {
    use datafusion_expr::lit;
    use datafusion_functions_aggregate::expr_fn::count;
    use windrow_operators::{testing::Check, window::AggregatePlan};

    use crate::{
        aggregate::pipeline,
        bids::{Bid, bids},
        shape::bid,
    };

    let rows: Vec<Bid> = [i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1].map(|at| bid(1, 1, at)).to_vec();
    let shape = Shape::Calendar { unit: "month", zone: "America/Sao_Paulo" };
    let plan = AggregatePlan::new(&bids(), &["auction"], shape.window(), &[count(lit(1)).alias("n")]).unwrap();
    let slicing = shape.window().slicing().unwrap();
    for two_phases in [false, true] {
        Check::new(pipeline(&plan, &["auction"], two_phases)).assert(&rows, |rows| {
            let slices = [&rows[0], &rows[2]].map(|bid| slicing.slice_of(bid.at));
            slices.map(|slice| (slice.start, slice.end, 1, 2))
        });
    }
}
