//! That state falls: over a day of virtual time an operator holds what its open windows need, and nothing after them.

use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, count_distinct, sum};
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Timestamp,
    window::{AggregatePlan, Calendar, Cumulating, Hopping, TopPlan, Tumbling, Window},
};

use crate::{
    bids::{Bid, bids, us},
    restored::Saved,
    shape::{YEAR_2024, bid},
};

const MINUTE: u64 = 60_000_000;

fn advance(operator: &mut dyn Operator, time: Timestamp) -> usize {
    let mut out = Outbox::new();
    while operator.advance(time, &mut out).unwrap() == Advance::Again {}
    out.drain().map(|(_, rows)| rows.num_rows()).sum()
}

/// Rows of a hundred keys every minute of 24 hours, and a watermark behind each; `longest` is how long a row is needed.
/// Returns the largest sizes of the first and of the last third, and the number of results.
fn a_day(operator: &mut dyn Operator, longest: u64, saves: bool) -> (usize, usize, usize) {
    assert_eq!(operator.size(), 0);
    let mut saved = Saved::new();
    let (mut early, mut late, mut results) = (0, 0, 0);
    for minute in 0..24 * 60 {
        let at = YEAR_2024 + minute * MINUTE as i64;
        let mut rows = Bid::new_builders(100);
        rows.append_rows((0..100).map(|i| bid(i, i * 31 % 17, at + i)));
        operator.process(Port::MAIN, rows.finish().into_record_batch(), &mut Outbox::new()).unwrap();
        results += advance(operator, Timestamp::from_micros(at));
        let largest = if minute < 8 * 60 { &mut early } else { &mut late };
        *largest = operator.size().max(*largest);
        if saves && minute % 10 == 0 {
            let mut out = Outbox::new();
            operator.flush(&mut out).unwrap();
            saved.save(operator);
        }
    }
    let end = YEAR_2024 + 24 * 60 * MINUTE as i64;
    results += advance(operator, Timestamp::from_micros(end + longest as i64));
    (early, late, results)
}

fn shapes() -> Vec<(Window, u64)> {
    let minutes = |n: u64| us(n * MINUTE);
    vec![
        (Tumbling::of(minutes(10)), 10),
        (Tumbling::of(minutes(10)).allowed_lateness(minutes(20)), 30),
        (Hopping::of(minutes(30), minutes(10)), 40),
        (Hopping::of(minutes(25), minutes(10)), 40),
        (Cumulating::of(minutes(60), minutes(5)), 60),
        (Calendar::days("Asia/Kolkata"), 24 * 60),
    ]
}

#[test]
fn state_falls_to_its_floor_when_the_watermark_has_passed() {
    for (window, longest) in shapes() {
        let aggregates = [count(lit(1)).alias("n"), sum(col("price")).alias("sum"), count_distinct(col("price"))];
        let plan = AggregatePlan::new(&bids(), &["auction"], window.clone(), &aggregates).unwrap();
        let top = TopPlan::new(&bids(), &["auction"], window.clone(), 2, "price").unwrap();
        let operators: Vec<(&str, Box<dyn Operator>)> = vec![
            ("aggregation", Plan::whole(&plan).unwrap()),
            ("first phase", Box::new(plan.partial().unwrap())),
            ("top", Plan::whole(&top).unwrap()),
            ("first phase of top", Box::new(top.partial().unwrap())),
        ];
        for (name, mut operator) in operators {
            let saves = name.len() < 12;
            let (early, late, results) = a_day(operator.as_mut(), longest * MINUTE, saves);
            assert!(early > 1_000 && results >= 100, "{name} of {window}: {early} bytes, {results} results");
            // The day of Kolkata changes within.
            assert!(longest > 1_000 || late < early * 5 / 4, "{name} of {window} grows: {early}, then {late} bytes");
            assert_eq!(operator.size(), 0, "{name} of {window} at the end");
        }
    }
}
