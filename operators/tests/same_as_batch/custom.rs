//! Aggregates written as Rust structs: in one phase and in two, with a filter, restored, and their mistakes.

use std::collections::BTreeMap;

use datafusion_expr::{ExprFunctionExt, col, lit};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use typed_arrow::prelude::*;
use windrow_operators::{
    Timestamp,
    testing::{Check, Row},
    typed::{Aggregate, custom},
    window::{AggregatePlan, Tumbling},
};

use crate::{
    aggregate::{KEYS, key_of, pipeline},
    bids::{Bid, bids, cases, fail, some_bids, us, window_of},
};

#[derive(Record)]
struct Offer {
    price: Option<i64>,
    at: Timestamp,
}

/// The price of the earliest rows and how many there are, with a list as its state.
struct Earliest;

#[derive(Default, Serialize, Deserialize)]
struct Found {
    at: Option<i64>,
    prices: Vec<Option<i64>>,
}

impl Aggregate for Earliest {
    type Row = Offer;
    type State = Found;
    type Output = i64;
    const NAME: &'static str = "earliest";

    fn add(&self, found: &mut Found, offer: OfferView<'_>) {
        self.merge(found, Found { at: Some(offer.at.micros()), prices: vec![offer.price] });
    }

    fn merge(&self, found: &mut Found, other: Found) {
        match (found.at, other.at) {
            (Some(own), Some(theirs)) if own == theirs => found.prices.extend(other.prices),
            (Some(own), Some(theirs)) if own < theirs => {}
            (_, None) => {}
            _ => *found = other,
        }
    }

    fn finish(&self, found: &Found) -> Option<i64> {
        found.prices.iter().flatten().min().copied()
    }
}

fn oracle(rows: &[Bid], key: &[&str], size: u128) -> Vec<Row> {
    let mut groups: BTreeMap<_, Vec<&Bid>> = BTreeMap::new();
    for bid in rows {
        groups.entry((window_of(bid.at, size, 0), key_of(bid, key))).or_default().push(bid);
    }
    let earliest = |bids: &[&Bid]| {
        let first = bids.iter().map(|bid| bid.at).min();
        bids.iter().filter(|bid| Some(bid.at) == first).filter_map(|bid| bid.price).min()
    };
    let result = |(((start, end), key), bids): (((i64, i64), Vec<_>), Vec<&Bid>)| {
        let dear: Vec<&Bid> = bids.iter().filter(|bid| bid.price.is_some_and(|price| price > 20)).copied().collect();
        let mut row = vec![start.into(), end.into()];
        row.extend(key);
        row.extend([earliest(&bids).into(), earliest(&dear).into()]);
        Row::from(row)
    };
    groups.into_iter().map(result).collect()
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn an_aggregate_of_ones_own(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), two_phases: bool, size in 1u64..30, seed: u64,
    ) {
        let dear = custom(Earliest).filter(col("price").gt(lit(20))).build().unwrap();
        let aggregates = [custom(Earliest).alias("earliest"), dear.alias("dear")];
        let plan = AggregatePlan::new(&bids(), key, Tumbling::of(us(size)), &aggregates).unwrap();
        let check = Check::new(pipeline(&plan, key, two_phases)).out_of_order(us(9)).seed(seed);
        check.run(&rows, |rows| oracle(rows, key, size.into())).map_err(fail)?;
    }
}

#[test]
fn its_columns_are_checked_when_it_is_planned() {
    #[derive(Record)]
    struct Sure {
        price: i64,
    }
    struct Strict;
    impl Aggregate for Strict {
        type Row = Sure;
        type State = i64;
        type Output = i64;
        const NAME: &'static str = "strict";
        fn add(&self, state: &mut i64, row: SureView<'_>) {
            *state += row.price;
        }
        fn merge(&self, state: &mut i64, other: i64) {
            *state += other;
        }
        fn finish(&self, state: &i64) -> Option<i64> {
            Some(*state)
        }
    }
    let plan = AggregatePlan::new(&bids(), &[], Tumbling::of(us(5)), &[custom(Strict)]);
    let error = plan.unwrap_err().to_string();
    assert!(error.contains(r#"column "price" may be null: make the field an Option"#), "{error}");
}
