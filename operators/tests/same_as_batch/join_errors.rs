//! Mistakes in joins that are known before a job runs, and what their messages say.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_expr::{Expr, col, lit};
use windrow_operators::{
    StreamSchema, Timestamp,
    join::{Interval, IntervalJoinPlan, JoinType, TemporalJoinPlan, WindowJoinPlan},
    window::Tumbling,
};

use crate::bids::us;

fn stream(columns: &[(&str, DataType)]) -> StreamSchema {
    let mut fields: Vec<Field> = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), false)).collect();
    let time = format!("at_{}", columns[0].0);
    fields.push(Field::new(&time, Timestamp::data_type(), false));
    StreamSchema::with_time(Arc::new(Schema::new(fields)), &time).unwrap()
}

fn bids() -> StreamSchema {
    stream(&[("auction", DataType::Int64), ("price", DataType::Int64), ("who", DataType::Utf8)])
}

fn auctions() -> StreamSchema {
    stream(&[("id", DataType::Int64), ("least", DataType::Int64), ("small", DataType::Int32)])
}

type On<'a> = &'a [(&'a str, &'a str)];

const ON: On<'_> = &[("auction", "id")];

/// The error of all three joins, which must say the same.
#[track_caller]
fn refused(left: &StreamSchema, right: &StreamSchema, on: On<'_>, words: &[&str]) {
    let window = WindowJoinPlan::new(left, right, on, Tumbling::of(us(10)), JoinType::Inner, None).map(drop);
    let interval = IntervalJoinPlan::new(left, right, on, Interval::between(0, 1), JoinType::Inner, None).map(drop);
    let temporal = TemporalJoinPlan::new(left, right, on, JoinType::Inner, None, None).map(drop);
    for result in [window, interval, temporal] {
        contains(result, words);
    }
}

#[track_caller]
fn contains(result: windrow_operators::Result<()>, words: &[&str]) {
    let message = result.expect_err("this was accepted").to_string();
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

fn with_condition(left: &StreamSchema, right: &StreamSchema, condition: &Expr) -> windrow_operators::Result<()> {
    IntervalJoinPlan::new(left, right, ON, Interval::between(0, 1), JoinType::Inner, Some(condition)).map(drop)
}

#[test]
fn keys_of_different_types_are_refused() {
    let words =
        ["joining different key types", "\"auction\" of the left side is Int64", "\"small\"", "Int32", "cast()"];
    refused(&bids(), &auctions(), &[("auction", "small")], &words);
    refused(&bids(), &auctions(), &[("who", "id")], &["joining different key types", "\"who\"", "Utf8", "\"id\""]);
}

#[test]
fn an_unknown_column_is_answered_with_those_of_its_side() {
    refused(&bids(), &auctions(), &[("prise", "id")], &["\"prise\"", "did you mean \"price\"?", "auction, price, who"]);
    refused(&bids(), &auctions(), &[("auction", "ids")], &["\"ids\"", "did you mean \"id\"?", "id, least, small"]);
    contains(
        with_condition(&bids(), &auctions(), &col("prise").gt(lit(1))),
        &["\"prise\"", "did you mean \"price\"?", "auction, price, who, at_auction, id, least"],
    );
    contains(with_condition(&bids(), &auctions(), &col("right.price").gt(lit(1))), &["\"price\"", "id, least, small"]);
    contains(
        with_condition(&bids(), &auctions(), &col("bids.price").gt(lit(1))),
        &["bids.price", "are called left and right"],
    );
}

#[test]
fn a_name_on_both_sides_is_refused_unless_it_is_the_key() {
    let right = stream(&[("id", DataType::Int64), ("price", DataType::Int64)]);
    refused(&bids(), &right, ON, &["both sides", "\"price\"", ".select(", "alias(\"right_price\")"]);
    refused(&bids(), &bids(), &[("auction", "auction")], &["both sides", "\"price\""]);
    let same_key = stream(&[("auction", DataType::Int64), ("since", DataType::Int64)]);
    refused(&bids(), &same_key, &[("auction", "auction")], &["both sides", "\"at_auction\""]);
    // Left columns only: there is nothing to be confused.
    let interval = Interval::between(0, 1);
    assert!(
        IntervalJoinPlan::new(&bids(), &bids(), &[("auction", "auction")], interval, JoinType::LeftSemi, None).is_ok()
    );
    let cheaper = col("left.price").lt(col("right.price"));
    assert!(with_condition_semi(&cheaper).is_ok());
    contains(
        with_condition_semi(&col("price").lt(lit(3))),
        &["\"price\" is on both sides", "write left(\"price\") or right(\"price\")"],
    );
}

fn with_condition_semi(condition: &Expr) -> windrow_operators::Result<()> {
    let on = [("auction", "auction")];
    IntervalJoinPlan::new(&bids(), &bids(), &on, Interval::between(0, 1), JoinType::LeftSemi, Some(condition)).map(drop)
}

#[test]
fn what_is_not_a_condition_is_refused() {
    contains(with_condition(&bids(), &auctions(), &(col("price") + col("least"))), &["Int64", "not a condition"]);
    contains(with_condition(&bids(), &auctions(), &col("who").and(col("price").gt(lit(1)))), &["who"]);
}

#[test]
fn both_sides_need_event_time() {
    let timeless = StreamSchema::without_time(auctions().columns().clone());
    refused(&bids(), &timeless, ON, &["the right side of a join needs event time", ".event_time("]);
    refused(&timeless, &bids(), &[("id", "auction")], &["the left side of a join needs event time"]);
}

#[test]
fn a_list_cannot_be_a_key() {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
    let (left, right) = (stream(&[("tags", list.clone())]), stream(&[("labels", list)]));
    refused(&left, &right, &[("tags", "labels")], &["\"tags\"", "cannot be a key"]);
}

#[test]
fn an_interval_or_a_window_that_holds_nothing_is_refused() {
    let interval = IntervalJoinPlan::new(&bids(), &auctions(), ON, Interval::between(2, 1), JoinType::Inner, None);
    contains(interval.map(drop), &["between 2 and 1", "holds nothing"]);
    for size in [Duration::ZERO, Duration::from_nanos(10)] {
        let window = WindowJoinPlan::new(&bids(), &auctions(), ON, Tumbling::of(size), JoinType::Inner, None);
        contains(window.map(drop), &["whole microseconds"]);
    }
}

#[test]
fn a_temporal_join_is_inner_or_left() {
    for join_type in [JoinType::Right, JoinType::Full, JoinType::LeftSemi, JoinType::LeftAnti] {
        let plan = TemporalJoinPlan::new(&bids(), &auctions(), ON, join_type, None, None);
        contains(plan.map(drop), &["temporal join", &join_type.to_string(), "Inner or Left"]);
    }
}

/// The bounds of former windows give way to those of this one, on both sides.
#[test]
fn windows_of_windows_have_one_pair_of_bounds() {
    let time = Timestamp::data_type();
    let counts = |name| {
        let columns = [
            ("window_start", time.clone()),
            ("window_end", time.clone()),
            ("auction", DataType::Int64),
            (name, DataType::UInt64),
        ];
        let fields: Vec<Field> = columns.into_iter().map(|(name, t)| Field::new(name, t, false)).collect();
        StreamSchema::with_hidden_time(&Schema::new(fields)).unwrap()
    };
    let on = [("auction", "auction")];
    let plan =
        WindowJoinPlan::new(&counts("bids"), &counts("asks"), &on, Tumbling::of(us(10)), JoinType::Full, None).unwrap();
    assert_eq!(
        plan.output().to_string(),
        "window_start Timestamp, window_end Timestamp, auction Int64, bids UInt64, asks UInt64"
    );
    let nullable = |name: &str| plan.output().columns().field_with_name(name).unwrap().is_nullable();
    assert_eq!(["auction", "bids", "asks"].map(nullable), [false, true, true]);
    refused_interval(&counts("bids"), &counts("asks"));
}

#[track_caller]
fn refused_interval(left: &StreamSchema, right: &StreamSchema) {
    let on = [("auction", "auction")];
    let plan = IntervalJoinPlan::new(left, right, &on, Interval::between(0, 1), JoinType::Inner, None);
    contains(plan.map(drop), &["both sides", "\"window_start\""]);
}
