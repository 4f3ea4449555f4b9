//! Filter and Project by expressions.

use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::count;
use proptest::prelude::*;
use windrow_operators::{
    stateless::{Filter, Project},
    testing::{Check, Pipeline, Row},
    window::{AggregatePlan, Tumbling},
};

use crate::bids::{Bid, bids, cases, fail, some_bids, us};

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn filter_keeps_what_is_true_and_not_what_is_null(rows in some_bids(any::<i64>()), seed: u64) {
        let condition = col("price").gt(lit(40)).or(col("who").eq(lit("ann")));
        let pipeline = Pipeline::new(&bids()).stage(&bids(), || Filter::new(&bids(), &condition));
        let oracle = |rows: &[Bid]| {
            let keep = |bid: &&Bid| bid.price.is_some_and(|price| price > 40) || bid.who.as_deref() == Some("ann");
            let row = |bid: &Bid| Row::from((bid.auction, bid.who.clone(), bid.price, bid.at));
            rows.iter().filter(keep).map(row).collect::<Vec<_>>()
        };
        Check::new(pipeline).out_of_order(us(30)).seed(seed).run(&rows, oracle).map_err(fail)?;
    }

    #[test]
    fn project_computes_and_renames_event_time(rows in some_bids(-50i64..50), seed: u64) {
        let expressions = [(col("auction") * lit(2)).alias("double"), col("at").alias("when"), col("who").is_null()];
        let project = Project::new(&bids(), &expressions).unwrap();
        assert_eq!(project.output().to_string(), "double Int64, when time, bids.who IS NULL Boolean".replace("bids.", ""));
        let pipeline = Pipeline::new(&bids()).stage(project.output(), || Ok(project.clone()));
        let row = |bid: &Bid| (bid.auction * 2, bid.at, bid.who.is_none());
        let oracle = |rows: &[Bid]| rows.iter().map(row).collect::<Vec<_>>();
        Check::new(pipeline).out_of_order(us(30)).seed(seed).run(&rows, oracle).map_err(fail)?;
    }

    /// Event time that the user projects away goes on hidden, and a window behind still finds it.
    #[test]
    fn hidden_time_still_drives_windows(rows in some_bids(-50i64..50), seed: u64) {
        let hiding = Project::new(&bids(), &[col("price").alias("p")]).unwrap();
        let again = Project::new(hiding.output(), &[(col("p") + lit(1)).alias("q")]).unwrap();
        prop_assert!(again.output().time_is_hidden());
        prop_assert_eq!(again.output().to_string(), "q Int64");
        let plan = AggregatePlan::new(again.output(), &["q"], Tumbling::of(us(10)), &[count(lit(1))]).unwrap();
        let pipeline = Pipeline::new(&bids())
            .stage(hiding.output(), || Ok(hiding.clone()))
            .stage(again.output(), || Ok(again.clone()))
            .first_phase(plan.between(), || plan.partial())
            .exchange(plan.key_between())
            .stage(plan.output(), || plan.merging());
        let oracle = |rows: &[Bid]| {
            let mut counts = std::collections::BTreeMap::new();
            for bid in rows {
                let start = bid.at.micros().div_euclid(10) * 10;
                *counts.entry((start, bid.price.map(|price| price + 1))).or_insert(0u64) += 1;
            }
            counts.into_iter().map(|((start, q), count)| (start, start + 10, q, count))
        };
        Check::new(pipeline).out_of_order(us(30)).seed(seed).run(&rows, oracle).map_err(fail)?;
    }
}

/// Text is not hashed by its place in a batch, and a literal column has as many rows as the batch.
#[test]
fn project_of_literals_and_text() {
    let rows: Vec<Bid> =
        (0..20).map(|i| Bid { auction: i, who: Some(format!("w{i}")), price: None, at: Default::default() }).collect();
    let project = Project::new(&bids(), &[lit(7i64).alias("seven"), col("who")]).unwrap();
    let pipeline = Pipeline::new(&bids()).stage(project.output(), || Ok(project.clone())).exchange([1]);
    Check::new(pipeline).assert(&rows, |rows| rows.iter().map(|bid| (7, bid.who.clone())).collect::<Vec<_>>());
}
