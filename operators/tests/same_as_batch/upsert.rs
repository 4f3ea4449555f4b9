//! The newest row per key, and what becomes of its changes on their way.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Float64Array, RecordBatch},
    datatypes::{Float64Type, Int64Type, UInt8Type},
};
use datafusion_expr::{col, lit};
use proptest::prelude::*;
use windrow_operators::{
    Outbox, Plan, Port, StreamSchema, Timestamp,
    changes::{ChangeFilter, ChangeProject, Changelog, UpdatingPlan, UpsertPlan},
    testing::{Check, Row, Value, final_table},
};

use crate::{
    aggregate::{KEYS, key_of},
    bids::{Bid, bids, cases, fail, some_bids, us},
    planned::{Task, behind, keyed},
    restored::Saved,
};

/// Rows by the order of the operator: time, then all columns, where null comes first.
pub(crate) fn newest<'b>(rows: &'b [Bid], key: &[&str]) -> BTreeMap<Vec<Value>, &'b Bid> {
    let mut newest: BTreeMap<Vec<Value>, &Bid> = BTreeMap::new();
    let order = |bid: &Bid| (bid.at, bid.auction, bid.who.clone(), bid.price);
    for bid in rows {
        let kept = newest.entry(key_of(bid, key)).or_insert(bid);
        if order(bid) > order(kept) {
            *kept = bid;
        }
    }
    newest
}

pub(crate) fn row(bid: &Bid) -> Row {
    (bid.auction, bid.who.clone(), bid.price, bid.at).into()
}

pub(crate) fn positions(key: &[&str]) -> Vec<usize> {
    key.iter().map(|name| bids().index_of(name).unwrap()).collect()
}

fn is_delete(bid: &Bid) -> bool {
    bid.price.is_some_and(|price| price < 30)
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn the_newest_row_counts(
        rows in some_bids(-20i64..20), key in prop::sample::select(KEYS.to_vec()), bound in 0u64..40, seed: u64,
    ) {
        let plan = UpsertPlan::new(&bids(), key, None, None).unwrap();
        let check = Check::new(keyed(&bids(), &plan)).out_of_order(us(bound)).seed(seed);
        let check = check.reduced(final_table(&positions(key)));
        let oracle = |rows: &[Bid]| newest(rows, key).into_values().map(row).collect::<Vec<_>>();
        check.run(&rows, oracle).map_err(fail)?;
        prop_assert_eq!(check.fall_idle().run_beyond_bound(&rows, |_, _| false, oracle).map_err(fail)?, 0);
    }

    #[test]
    fn some_rows_take_their_key_away(
        rows in some_bids(-20i64..20), key in prop::sample::select(KEYS.to_vec()), bound in 0u64..40, seed: u64,
    ) {
        let plan = UpsertPlan::new(&bids(), key, Some(&col("price").lt(lit(30))), None).unwrap();
        let check = || {
            let check = Check::new(keyed(&bids(), &plan)).out_of_order(us(bound)).seed(seed);
            check.reduced(final_table(&positions(key)))
        };
        let oracle = |rows: &[Bid]| {
            newest(rows, key).into_values().filter(|bid| !is_delete(bid)).map(row).collect::<Vec<_>>()
        };
        check().run(&rows, oracle).map_err(fail)?;
        let is_late = |bid: &Bid, time: Timestamp| bid.at < time;
        check().fall_idle().run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
    }

    /// Through a filter and a projection the changes still add up to the table, by insert or update and delete alone.
    #[test]
    fn a_filter_and_a_projection_of_a_table(rows in some_bids(-20i64..20), bound in 0u64..40, seed: u64) {
        let plan = UpsertPlan::new(&bids(), &["auction"], Some(&col("price").lt(lit(0))), None).unwrap();
        let pipeline = || {
            let filter = || ChangeFilter::new(plan.output(), &col("price").gt(lit(50)));
            let columns = || ChangeProject::new(plan.output(), &[(col("price") + lit(1)).alias("more"), col("auction").alias("id")]);
            let output = columns().unwrap().output().clone();
            let log = output.clone();
            let pipeline = keyed(&bids(), &plan).stage(plan.output(), filter).stage(&output, columns);
            pipeline.stage(Changelog::new(&log).unwrap().output(), move || Changelog::new(&log))
        };
        let upserts = |changes: Vec<Row>| {
            let mut table = BTreeMap::new();
            for change in changes {
                let [op, more, id] = change.values() else { panic!("{change}") };
                match op == &Value::from("delete") {
                    true => table.remove(id),
                    false => table.insert(id.clone(), Row::from(vec![more.clone(), id.clone()])),
                };
            }
            Ok(table.into_values().collect())
        };
        let check = Check::new(pipeline()).out_of_order(us(bound)).seed(seed).reduced(upserts);
        check.run(&rows, |rows| {
            let newest = newest(rows, &["auction"]).into_values();
            newest.filter_map(|bid| Some((bid.price.filter(|price| *price > 50)? + 1, bid.auction))).collect::<Vec<_>>()
        }).map_err(fail)?;
    }
}

/// Changes of one operator go through the exchange of another in order.
#[test]
fn a_table_of_a_table() {
    let rows: Vec<Bid> = (0..200)
        .map(|i| Bid { auction: i * i % 23, who: None, price: Some(i % 37), at: Timestamp::from_micros(i) })
        .collect();
    let sums = UpdatingPlan::new(
        &bids(),
        &["auction"],
        &[datafusion_functions_aggregate::expr_fn::max(col("price")).alias("top")],
        None,
    )
    .unwrap();
    let log = Changelog::new(sums.output()).unwrap();
    let again = UpsertPlan::new(log.output(), &["auction"], Some(&col("op").eq(lit("delete"))), None).unwrap();
    let pipeline = keyed(&bids(), &sums).stage(log.output(), || Changelog::new(sums.output()));
    let check = Check::new(behind(pipeline, &again)).out_of_order(us(9)).reduced(|changes| {
        let keys: std::collections::BTreeSet<_> =
            final_table(&[1])(changes)?.into_iter().map(|row| row.values()[1].clone()).collect();
        Ok(keys.into_iter().map(|key| Row::from(vec![key])).collect())
    });
    check.assert(&rows, |rows| {
        let keys: std::collections::BTreeSet<i64> = rows.iter().map(|bid| bid.auction).collect();
        keys.into_iter().map(|key| (key,))
    });
}

/// Without event time the last row counts, through restarts after every batch.
#[test]
fn without_event_time_the_last_row_counts() {
    let stream = StreamSchema::without_time(bids().columns().clone());
    let plan = UpsertPlan::new(&stream, &["auction"], Some(&col("price").lt(lit(30))), None).unwrap();
    assert_eq!(plan.outputs().len(), 1, "no row is late");
    let mut task = Task::new(&plan);
    let (mut model, mut table) = (BTreeMap::new(), BTreeMap::new());
    for step in 0..60 {
        let bid = |i: i64| {
            let (auction, price) = (i * i % 17, i * 7 % 90);
            Bid { auction, who: None, price: Some(price), at: Timestamp::from_micros(0) }
        };
        let rows: Vec<Bid> = (step * 5..step * 6 + 9).map(bid).collect();
        for bid in &rows {
            match is_delete(bid) {
                true => model.remove(&bid.auction),
                false => model.insert(bid.auction, bid.price.unwrap()),
            };
        }
        for (_, changes) in task.process(Port::MAIN, crate::updating::batch_of(rows)) {
            let number = |column: usize| changes.column(column).as_primitive::<Int64Type>();
            for row in 0..changes.num_rows() {
                let (key, price) = (number(0).value(row), number(2).value(row));
                let former = match changes.column(4).as_primitive::<UInt8Type>().value(row) {
                    2 => table.remove(&key).inspect(|former| assert_eq!(*former, price, "the row as it was")),
                    op => table.insert(key, price).inspect(|_| assert_eq!(op, 1)).or((op == 0).then_some(0)),
                };
                assert!(former.is_some());
            }
        }
        assert_eq!(table, model);
        task.save();
        task.restart();
    }
}

#[test]
fn zeros_are_one_key_and_so_are_nans() {
    let batch = |keys: [f64; 2]| {
        let keys: ArrayRef = Arc::new(Float64Array::from(keys.to_vec()));
        RecordBatch::try_from_iter([("key", keys)]).unwrap()
    };
    let stream = StreamSchema::without_time(batch([0.0, 0.0]).schema());
    let plan = UpsertPlan::new(&stream, &["key"], None, None).unwrap();
    let mut task = Task::new(&plan);
    for (keys, op) in [([0.0, f64::NAN], 0), ([-0.0, -f64::NAN], 1)] {
        let changes = task.process(Port::MAIN, batch(keys)).remove(0).1;
        assert_eq!(changes.column(1).as_primitive::<UInt8Type>().values(), &[op, op]);
        let bits = changes.column(0).as_primitive::<Float64Type>().values().iter().map(|key| key.to_bits());
        assert_eq!(bits.collect::<Vec<_>>(), [0, f64::NAN.to_bits()], "a sink sees the same key");
    }
}

#[test]
fn keys_that_are_gone_are_forgotten_when_nothing_older_can_come() {
    let plan = UpsertPlan::new(&bids(), &["auction"], Some(&col("price").eq(lit(0))), None).unwrap();
    let mut task = Task::new(&plan);
    let floor = task.operator.size();
    let mut most = 0;
    for round in 0..60 {
        for price in [1, 0] {
            let bid = |auction| Bid {
                auction,
                who: None,
                price: Some(price),
                at: Timestamp::from_micros(round * 10 - price),
            };
            let rows: Vec<Bid> = (0..200).map(|i| bid(round * 100 + i)).collect();
            task.process(Port::MAIN, crate::updating::batch_of(rows));
            task.save();
        }
        task.advance(round * 10);
        if round % 7 == 0 {
            task.save();
            task.restart();
        }
        most = most.max(task.operator.size());
    }
    task.advance(1_000);
    assert_eq!(task.operator.size(), floor);
    assert_eq!((task.save(), task.state.segments.len()), (0, 0));
    assert!(most < 600_000, "{most} bytes for 200 rows");
}

#[test]
fn plans_that_cannot_work() {
    let upsert = UpsertPlan::new(&bids(), &["auction"], None, None).unwrap();
    let table = upsert.output();
    let error = |result: windrow_operators::Result<()>| result.unwrap_err().to_string();
    let rows_needed = [
        error(UpsertPlan::new(table, &["auction"], None, None).map(drop)),
        error(UpdatingPlan::new(table, &["auction"], &[], None).map(drop)),
        error(windrow_operators::stateless::Filter::new(table, &col("price").gt(lit(1))).map(drop)),
        error(
            windrow_operators::window::TopPlan::new(
                table,
                &[],
                windrow_operators::window::Tumbling::of(us(1)),
                1,
                "price",
            )
            .map(drop),
        ),
    ];
    for text in rows_needed {
        assert!(text.contains("make rows of them with .changelog()"), "{text}");
    }
    for text in [
        error(ChangeFilter::new(&bids(), &col("price").gt(lit(1))).map(drop)),
        error(ChangeProject::new(&bids(), &[col("price")]).map(drop)),
        error(Changelog::new(&bids()).map(drop)),
    ] {
        assert!(text.contains("make changes of them with .key_by(…).latest()"), "{text}");
    }
    let text = error(ChangeProject::new(table, &[col("price"), (col("auction") + lit(1)).alias("auction")]).map(drop));
    assert!(text.contains(r#"the projection drops "auction", a column of the key"#), "{text}");
    let text = error(UpsertPlan::new(&bids(), &["auction", "auction"], None, None).map(drop));
    assert!(text.contains(r#"the key has "auction" twice"#), "{text}");
    let text = error(UpsertPlan::new(&bids(), &["acution"], None, None).map(drop));
    assert!(text.contains(r#"did you mean "auction"?"#), "{text}");
    assert!(
        error(UpsertPlan::new(&bids(), &["auction"], Some(&col("price")), None).map(drop)).contains("not a condition")
    );
}

fn plain(rows: &[(i64, i64)]) -> RecordBatch {
    let column = |of: fn(&(i64, i64)) -> i64| -> ArrayRef {
        Arc::new(arrow::array::Int64Array::from_iter_values(rows.iter().map(of)))
    };
    RecordBatch::try_from_iter([("item", column(|row| row.0)), ("stock", column(|row| row.1))]).unwrap()
}

fn ops(out: &mut Outbox) -> Vec<u8> {
    out.drain().flat_map(|(_, rows)| rows.column(2).as_primitive::<UInt8Type>().values().to_vec()).collect()
}

/// Without event time keys are forgotten as they are deleted, while what is sealed is put together anew.
#[test]
fn a_key_that_comes_back_while_others_go_is_inserted() {
    let stream = StreamSchema::without_time(plain(&[]).schema());
    let plan = UpsertPlan::new(&stream, &["item"], Some(&col("stock").eq(lit(0))), None).unwrap();
    let (mut table, mut out, mut saved) = (plan.whole().unwrap(), Outbox::new(), Saved::new());
    table.process(Port::MAIN, plain(&[(1, 1), (2, 1), (3, 1), (4, 1)]), &mut out).unwrap();
    saved.save(table.as_mut());
    assert_eq!(ops(&mut out), [0, 0, 0, 0]);
    table.process(Port::MAIN, plain(&[(1, 0)]), &mut out).unwrap();
    assert_eq!(ops(&mut out), [2]);
    table.process(Port::MAIN, plain(&[(2, 0), (1, 5)]), &mut out).unwrap();
    assert_eq!(ops(&mut out), [2, 0]);
}

/// The end of the input is not a time: a job that goes on with more finds nothing late.
#[test]
fn a_table_goes_on_after_the_end() {
    let rows = |at: i64| {
        let [item, stock] = [plain(&[(1, 1)]).column(0).clone(), plain(&[(1, 1)]).column(1).clone()];
        RecordBatch::try_from_iter([("item", item), ("stock", stock), ("at", Timestamp::column(vec![at]))]).unwrap()
    };
    let stream = StreamSchema::with_time(rows(0).schema(), "at").unwrap();
    let plan = UpsertPlan::new(&stream, &["item"], Some(&col("stock").eq(lit(0))), None).unwrap();
    let (mut table, mut out, mut saved) = (plan.whole().unwrap(), Outbox::new(), Saved::new());
    table.process(Port::MAIN, rows(5), &mut out).unwrap();
    table.advance(Timestamp::from_micros(4), &mut out).unwrap();
    table.advance(Timestamp::MAX, &mut out).unwrap();
    saved.save(table.as_mut());
    out.drain().for_each(drop);
    out.take_counts();
    let mut again = plan.whole().unwrap();
    saved.load(again.as_mut());
    again.process(Port::MAIN, rows(6), &mut out).unwrap();
    assert_eq!(out.take_counts(), (1, 0), "not late");
    let (_, changes) = out.drain().next().unwrap();
    let at = changes.column(4).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0);
    assert_eq!(at, 6);
}
