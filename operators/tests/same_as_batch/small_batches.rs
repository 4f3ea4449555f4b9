//! State of any size is saved in several segments and moves in bounded batches: the same answers when a batch takes a few
//! hundred bytes instead of a gigabyte.

use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, max};
use proptest::prelude::*;
use windrow_operators::{
    Advance, Operator, Outbox, Port, Timestamp,
    changes::UpsertPlan,
    count::{Count, CountPlan},
    session::{Session, SessionPlan},
    sort::SortPlan,
    testing::{Check, final_table, with_batches_of},
    window::{AggregatePlan, Hopping, TopPlan, Tumbling},
};

use crate::{
    aggregate::{self, KEYS, aggregates},
    bids::{Bid, bids, cases, fail, some_bids, us},
    count::{self, Saved},
    pattern, process,
    revisions::last_revisions,
    session,
    session_revisions::not_replaced,
    shape::Shape,
    sort::batch,
    top, upsert,
};

/// From one row to a few rows.
fn sizes() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![0, 100, 400, 1_500])
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn sessions(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), gap in session::gaps(), size in sizes(),
        seed: u64,
    ) {
        let plan = SessionPlan::new(&bids(), key, gap.session(), &aggregates()).unwrap();
        let check = Check::new(session::pipeline(&plan, key)).out_of_order(us(9)).seed(seed);
        with_batches_of(size, || check.run(&rows, |rows| session::oracle(rows, key, gap))).map_err(fail)?;
    }

    #[test]
    fn counts_behind_a_sort(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), of in 1u64..9, slide in 1u64..9,
        size in sizes(), seed: u64,
    ) {
        let sort = SortPlan::new(&bids(), key).unwrap();
        let plan = CountPlan::new(&bids(), key, Count::of(of).every(slide), &aggregates()).unwrap();
        let check = Check::new(count::pipeline(&sort, &plan, key)).out_of_order(us(9)).seed(seed);
        let oracle = |rows: &[Bid]| count::oracle(rows, key, of as usize, slide as usize);
        with_batches_of(size, || check.run(&rows, oracle)).map_err(fail)?;
    }

    #[test]
    fn patterns_behind_a_sort(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), spec in pattern::some_spec(),
        size in sizes(), seed: u64,
    ) {
        with_batches_of(size, || pattern::check(&rows, key, &spec, 9, seed, false)).map_err(fail)?;
    }

    #[test]
    fn processes(rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), size in sizes(), seed: u64) {
        let plan = process::buckets(key);
        let check = Check::new(process::pipeline(&plan, &bids(), key)).out_of_order(us(9)).seed(seed);
        with_batches_of(size, || check.run(&rows, |rows| process::sums(rows, key))).map_err(fail)?;
    }

    #[test]
    fn tables(rows in some_bids(-20i64..20), key in prop::sample::select(KEYS.to_vec()), size in sizes(), seed: u64) {
        let plan = UpsertPlan::new(&bids(), key, Some(&col("price").lt(lit(30))), None).unwrap();
        let check = Check::new(crate::planned::keyed(&bids(), &plan)).out_of_order(us(9)).seed(seed);
        let check = check.reduced(final_table(&upsert::positions(key)));
        let is_delete = |bid: &Bid| bid.price.is_some_and(|price| price < 30);
        let oracle = |rows: &[Bid]| {
            let newest = upsert::newest(rows, key).into_values();
            newest.filter(|bid| !is_delete(bid)).map(upsert::row).collect::<Vec<_>>()
        };
        with_batches_of(size, || check.run(&rows, oracle)).map_err(fail)?;
    }

    #[test]
    fn windows(rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), size in sizes(), seed: u64) {
        let plan = AggregatePlan::new(&bids(), key, Tumbling::of(us(20)), &aggregates()).unwrap();
        let check = Check::new(aggregate::pipeline(&plan, key, false)).out_of_order(us(9)).seed(seed);
        with_batches_of(size, || check.run(&rows, |rows| aggregate::oracle(rows, key, 20, 0))).map_err(fail)?;
        let plan = TopPlan::new(&bids(), key, Tumbling::of(us(20)), 3, "price").unwrap();
        let check = Check::new(top::pipeline(&plan, key, false)).out_of_order(us(9)).seed(seed);
        with_batches_of(size, || check.run(&rows, |rows| top::oracle(rows, key, 20, 3))).map_err(fail)?;
    }

    #[test]
    fn results_that_are_revised(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), gap in session::gaps(), n in 1u32..5,
        size in sizes(), seed: u64,
    ) {
        let shape = Shape::Hopping { size: 20, slide: 7, offset: 0 };
        let window = shape.window().allowed_lateness(us(20)).corrections().early_rows(n);
        let plan = AggregatePlan::new(&bids(), key, window, &aggregates()).unwrap();
        let check = Check::new(aggregate::pipeline(&plan, key, false)).out_of_order(us(9)).seed(seed);
        let check = check.reduced(last_revisions(2, key.len()));
        let oracle = |rows: &[Bid]| aggregate::oracle_of(rows, key, |time| shape.windows_of(time));
        with_batches_of(size, || check.run(&rows, oracle)).map_err(fail)?;
        let session = gap.session().allowed_lateness(us(20)).corrections().early_rows(n);
        let plan = SessionPlan::new(&bids(), key, session, &aggregates()).unwrap();
        let check = Check::new(session::pipeline(&plan, key)).out_of_order(us(9)).seed(seed);
        let check = check.reduced(not_replaced(key.len()));
        with_batches_of(size, || check.run(&rows, |rows| session::oracle(rows, key, gap))).map_err(fail)?;
    }
}

/// Early results have long keys, too.
#[test]
fn early_results_of_sessions_leave_in_several_batches() {
    let session = Session::gap(us(1_000)).early_rows(1);
    let plan = SessionPlan::new(&bids(), &["auction", "who"], session, &[count(lit(1)).alias("n")]).unwrap();
    let (mut operator, mut out) = (plan.whole().unwrap(), Outbox::new());
    with_batches_of(2_000, || operator.process(Port::MAIN, batch(&some_rows()), &mut out)).unwrap();
    let sizes: Vec<usize> = out.drain().map(|(_, rows)| rows.num_rows()).collect();
    assert!(sizes.len() > 1 && sizes.iter().sum::<usize>() == 50, "{sizes:?}");
}

fn some_rows() -> Vec<Bid> {
    let bid = |i: i64| Bid {
        auction: i % 50,
        who: Some(format!("{:>30}", i % 50)),
        price: Some(i),
        at: Timestamp::from_micros(i),
    };
    (0..200).map(bid).collect()
}

/// One save of much is in several segments, and all of it comes back.
#[test]
fn a_save_has_several_segments() {
    fn check<O: Operator>(name: &str, new: impl Fn() -> O) {
        let drain = |mut operator: O| {
            let (mut out, mut results) = (Outbox::new(), Vec::new());
            while operator.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
            for (_, rows) in out.drain() {
                assert!(rows.num_rows() < 50, "{name} emits {} rows", rows.num_rows());
                results.extend((0..rows.num_rows()).map(|row| format!("{:?}", rows.slice(row, 1).columns())));
            }
            results.sort();
            results
        };
        let filled = || {
            let mut operator = new();
            let rows = some_rows();
            for rows in rows.chunks(10) {
                operator.process(Port::MAIN, batch(rows), &mut Outbox::new()).unwrap();
            }
            operator
        };
        let (mut saved, mut operator) = (Saved::default(), filled());
        saved.save(&mut operator);
        let segments = saved.state.segments.len();
        assert!(segments >= 2, "{name} has {segments} segments");
        assert_eq!(drain(saved.load(new())), drain(filled()), "{name}");
        let again = saved.save(&mut operator);
        assert_eq!(again, 0, "{name} writes nothing when nothing has changed");
    }
    with_batches_of(2_000, || {
        let key = ["auction", "who"];
        let sums = [count(lit(1)).alias("n"), max(col("price")).alias("top")];
        let session = SessionPlan::new(&bids(), &key, Session::gap(us(1_000)), &sums).unwrap();
        check("session", || session.whole().unwrap());
        let sort = SortPlan::new(&bids(), &key).unwrap();
        check("sort", || sort.whole().unwrap());
        let count = CountPlan::new(&bids(), &key, Count::of(1_000).every(500), &sums).unwrap();
        check("count", || count.whole().unwrap());
    });
    with_batches_of(2_000, || {
        let window = Hopping::of(us(40), us(20));
        let plan = AggregatePlan::new(&bids(), &["auction"], window, &[count(lit(1)).alias("n")]).unwrap();
        let mut operator = plan.whole().unwrap();
        operator.process(Port::MAIN, batch(&some_rows()), &mut Outbox::new()).unwrap();
        let mut saved = Saved::default();
        saved.save(&mut operator);
        assert!(saved.state.segments.len() >= 2, "a window has {} segments", saved.state.segments.len());
    });
}
