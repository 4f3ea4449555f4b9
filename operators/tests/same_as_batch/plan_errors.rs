//! Mistakes that are known before a job runs, and what their messages say.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_expr::{Expr, ExprFunctionExt, col, lit, try_cast};
use datafusion_functions_aggregate::expr_fn::{approx_distinct, avg, bool_and, corr, count, max, median, sum};
use typed_arrow::prelude::*;
use windrow_operators::{
    Plan, StreamSchema, Timestamp,
    changes::UpdatingPlan,
    count::{Count, CountPlan},
    session::{Session, SessionPlan},
    stateless::{Filter, Project},
    typed::{FilterRows, MapRows},
    window::{AggregatePlan, Calendar, Cumulating, Hopping, TopPlan, Tumbling, Window},
};

use crate::bids::{Bid, bids, us};

/// The message of an error.
#[track_caller]
fn message<T>(result: windrow_operators::Result<T>) -> String {
    match result {
        Ok(_) => panic!("this was accepted"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn refused<T>(result: windrow_operators::Result<T>, words: &[&str]) {
    let message = message(result);
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

fn aggregate(key: &[&str], aggregates: &[Expr]) -> windrow_operators::Result<AggregatePlan> {
    AggregatePlan::new(&bids(), key, Tumbling::of(us(10)), aggregates)
}

fn top(key: &[&str], by: &str) -> windrow_operators::Result<TopPlan> {
    TopPlan::new(&bids(), key, Tumbling::of(us(10)), 3, by)
}

#[test]
fn an_unknown_column_is_answered_with_the_likely_one() {
    let hint = &["there is no column \"prise\"", "did you mean \"price\"?", "auction, who, price, at"][..];
    refused(Filter::new(&bids(), &col("prise").gt(lit(1))), hint);
    refused(Project::new(&bids(), &[col("auction"), col("prise") + lit(1)]), hint);
    refused(aggregate(&["prise"], &[]), hint);
    refused(aggregate(&["auction"], &[sum(col("prise"))]), hint);
    refused(top(&[], "prise"), hint);
    refused(top(&["prise"], "price"), hint);
    refused(StreamSchema::with_time(bids().columns().clone(), "prise"), hint);
}

#[test]
fn a_wrong_type_is_named() {
    refused(Filter::new(&bids(), &col("price")), &["price is Int64", "not a condition"]);
    assert!(message(Filter::new(&bids(), &col("who").gt(lit(Timestamp::MAX.micros())).and(lit(3)))).len() > 10);
    refused(StreamSchema::with_time(bids().columns().clone(), "price"), &["\"price\" is Int64", "not event time"]);
}

/// Whatever aggregates, in one way or another.
fn aggregating(aggregate: &Expr) -> Vec<windrow_operators::Result<Box<dyn Plan>>> {
    fn boxed<P: Plan + 'static>(plan: windrow_operators::Result<P>) -> windrow_operators::Result<Box<dyn Plan>> {
        plan.map(|plan| Box::new(plan) as _)
    }
    let (bids, key, one) = (bids(), &["auction"][..], std::slice::from_ref(aggregate));
    vec![
        boxed(AggregatePlan::new(&bids, key, Tumbling::of(us(10)), one)),
        boxed(AggregatePlan::new(&bids, &[], Hopping::of(us(10), us(5)), one)),
        boxed(SessionPlan::new(&bids, key, Session::gap(us(10)), one)),
        boxed(CountPlan::new(&bids, key, Count::of(3), one)),
        boxed(UpdatingPlan::new(&bids, key, one, None)),
    ]
}

#[test]
fn an_aggregate_of_a_wrong_type_says_what_it_takes() {
    let cast = "take another column, or convert it with try_cast(…, DataType::Float64)";
    let time = r#"column "at" is Timestamp(µs, "+00:00")"#;
    let number = |name: &str, expr: &str, column: &str| format!("{expr}: {name} takes a number, but {column}: {cast}");
    let cases = [
        (sum(col("at")).alias("x"), number("sum", "sum(at) AS x", time)),
        (avg(col("at")), number("avg", "avg(at)", time)),
        (sum(col("who")), number("sum", "sum(who)", r#"column "who" is Utf8"#)),
        (median(col("who")), number("median", "median(who)", r#"column "who" is Utf8"#)),
        (corr(col("price"), col("at")), number("corr", "corr(price, at)", time)),
        (sum(col("price").gt(lit(3))), number("sum", "sum(price > Int32(3))", "price > 3 is Boolean")),
        (
            bool_and(col("at")),
            format!("bool_and(at): bool_and takes true or false, but {time}: take another column"),
        ),
        (
            approx_distinct(try_cast(col("price"), DataType::Float64)),
            "approx_distinct(TRY_CAST(price AS Float64)): approx_distinct takes a whole number, true or false, text, a time, \
             but TRY_CAST(price AS Float64) is Float64: take another column, or convert it with try_cast(…, DataType::Int64)"
                .into(),
        ),
    ];
    for (aggregate, expected) in cases {
        for plan in aggregating(&aggregate) {
            assert_eq!(message(plan), expected);
        }
    }
}

#[test]
fn what_is_said_of_a_wrong_type_helps() {
    for column in ["at", "who"] {
        for plan in aggregating(&sum(try_cast(col(column), DataType::Float64))) {
            assert!(plan.is_ok(), "{column}");
        }
    }
}

#[test]
fn a_filter_of_an_aggregate_is_a_condition() {
    let filtered = sum(col("price")).filter(col("price")).build().unwrap();
    for plan in aggregating(&filtered) {
        refused(plan, &["price is Int64", "not a condition"]);
    }
}

#[test]
fn what_is_not_an_aggregate_is_refused() {
    refused(aggregate(&[], &[col("price").alias("p")]), &["price AS p", "not an aggregate", "max(col("]);
    refused(aggregate(&[], &[sum(col("price")) + lit(1)]), &["not an aggregate"]);
}

#[test]
fn results_of_one_name_are_refused() {
    let twice = [sum(col("price")).alias("x"), max(col("price")).alias("x")];
    let words = &["two columns", "\"x\"", ".alias("][..];
    refused(aggregate(&[], &twice), words);
    refused(Project::new(&bids(), &[col("price").alias("x"), col("who").alias("x")]), words);
    refused(aggregate(&["auction"], &[count(lit(1)).alias("auction")]), &["\"auction\""]);
    refused(aggregate(&["auction", "auction"], &[]), &["\"auction\""]);
    refused(aggregate(&[], &[count(lit(1)).alias("window_start")]), &["\"window_start\""]);
    let ranked = Project::new(&bids(), &[col("price").alias("rank"), col("at")]).unwrap();
    refused(TopPlan::new(ranked.output(), &[], Tumbling::of(us(1)), 1, "rank"), &["\"rank\""]);
}

#[test]
fn reserved_names_are_refused() {
    let hidden = [count(lit(1)).alias("__time")];
    refused(aggregate(&[], &hidden), &["\"__time\" is reserved"]);
    refused(Project::new(&bids(), &[col("price").alias("__time")]), &["\"__time\" is reserved"]);
}

#[test]
fn a_window_needs_event_time_and_a_size() {
    let timeless = StreamSchema::without_time(bids().columns().clone());
    let window = Tumbling::of(us(10));
    refused(AggregatePlan::new(&timeless, &[], window.clone(), &[]), &["needs event time", ".event_time("]);
    refused(TopPlan::new(&timeless, &[], window, 1, "price"), &["needs event time"]);
    for size in [Duration::ZERO, Duration::from_nanos(10)] {
        refused(AggregatePlan::new(&bids(), &[], Tumbling::of(size), &[]), &["whole microseconds"]);
        refused(TopPlan::new(&bids(), &[], Tumbling::of(size), 1, "price"), &["whole microseconds"]);
    }
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let cases: [(Window, &[&str]); 7] = [
        (Hopping::of(us(10), us(0)), &["whole microseconds", "at least one"]),
        (Hopping::of(us(10), us(11)), &["hopping 10µs every 11µs", "in no window"]),
        (Hopping::of(us(1_000_000), us(9)), &["222224 slices", "at most 100000"]),
        (Cumulating::of(us(10), us(3)), &["cumulating 10µs by 3µs", "multiple of the step"]),
        (Cumulating::of(us(1_000_000), us(1)), &["1000000 slices"]),
        (Calendar::days("Europe/Berln"), &["\"Europe/Berln\"", "did you mean \"Europe/Berlin\"?"]),
        (Calendar::weeks("UTC").offset(us(1)), &["weeks in UTC", "local midnight"]),
    ];
    for (window, words) in cases {
        refused(AggregatePlan::new(&bids(), &[], window.clone(), &[]), words);
        refused(TopPlan::new(&bids(), &[], window, 1, "price"), words);
    }
}

#[test]
fn a_list_cannot_be_a_key() {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let fields = vec![Field::new("tags", list, false), Field::new("at", Timestamp::data_type(), false)];
    let stream = StreamSchema::with_time(Arc::new(Schema::new(fields)), "at").unwrap();
    let window = Tumbling::of(us(10));
    let words = &["\"tags\"", "List", "cannot be a key"][..];
    refused(AggregatePlan::new(&stream, &["tags"], window.clone(), &[]), words);
    refused(TopPlan::new(&stream, &["tags"], window.clone(), 1, "at"), words);
    refused(TopPlan::new(&stream, &[], window, 1, "at"), &["\"tags\"", "sorted"]);
}

#[derive(Clone, Record)]
struct Typo {
    prise: Option<i64>,
}

#[derive(Clone, Record)]
struct OtherType {
    price: Option<f64>,
}

#[derive(Clone, Record)]
struct NotOptional {
    price: i64,
}

#[test]
fn a_record_that_does_not_fit_is_refused() {
    refused(
        FilterRows::<Typo, _>::new(&bids(), |row| row.prise.is_some()),
        &["record Typo", "did you mean \"price\"?"],
    );
    refused(
        FilterRows::<OtherType, _>::new(&bids(), |row| row.price.is_some()),
        &["record OtherType", "field \"price\" is Float64, but the column is Int64"],
    );
    refused(
        MapRows::<NotOptional, Typo, _>::new(&bids(), |row| Typo { prise: Some(row.price) }),
        &["record NotOptional", "\"price\" may be null", "Option"],
    );
    assert!(FilterRows::<Bid, _>::new(&bids(), |row| row.auction > 0).is_ok());
}
