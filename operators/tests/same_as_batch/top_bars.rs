//! The greatest rows when most rows lose as they come: in every order of arrival, with values that are alike, missing or no
//! numbers, and over restores.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray},
    datatypes::{DataType, Float64Type, Int64Type, UInt64Type},
};
use fastrand::Rng;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, StreamSchema, Timestamp,
    testing::Check,
    window::{Hopping, TopPlan, Tumbling},
};

use crate::{
    aggregate::KEYS,
    bids::{Bid, bids, us, window_of},
    restored::Saved,
    shape::wide,
    top::{pipeline, ranked},
};

/// Enough rows for bars to rise several times, of few keys and of many.
#[test]
fn in_whatever_order_they_come() {
    const ROWS: i64 = 24_000;
    let arrivals: [fn(i64) -> Option<i64>; 6] = [
        Some,
        |i| Some(-i),
        |_| Some(7),
        |i| (i % 3 == 0).then_some(i / 6_000),
        |i| Some(i * 7_919 % 1_000),
        |i| (i > 20_000).then_some(i),
    ];
    for (number, price) in arrivals.into_iter().enumerate() {
        for (key, auctions) in [(KEYS[0], 50), (KEYS[1], 3), (KEYS[1], 2_000)] {
            let who = |i: i64| (i % 11 != 0).then(|| format!("w{}", i * 31 % 8));
            let bid = |i: i64| Bid {
                auction: i % auctions,
                who: who(i),
                price: price(i),
                at: Timestamp::from_micros(i * 20 / ROWS),
            };
            let rows: Vec<Bid> = (0..ROWS).map(bid).collect();
            let (ties, two_phases) = (auctions == 3 || number == 4, number % 2 == 0);
            let plan = if ties { TopPlan::with_ties } else { TopPlan::new };
            let plan = plan(&bids(), key, Tumbling::of(us(15)), 3, "price").unwrap();
            let check = Check::new(pipeline(&plan, key, two_phases)).out_of_order(us(3)).rounds(1);
            let windows = |time| vec![wide(window_of(time, 15, 0))];
            check.batch_rows(1_000..=6_000).assert(&rows, |rows| ranked(rows, key, 3, ties, windows));
        }
    }
}

/// A key, the value, and a column that breaks ties.
type Three = (i64, Option<f64>, Option<f64>);

const VALUES: [Option<f64>; 10] = [
    None,
    Some(f64::NEG_INFINITY),
    Some(-1.5),
    Some(-0.0),
    Some(0.0),
    Some(1.0),
    Some(1.5),
    Some(f64::INFINITY),
    Some(f64::NAN),
    Some(-f64::NAN),
];

fn input() -> StreamSchema {
    StreamSchema::with_time(batch(&[], 0).schema(), "at").unwrap()
}

fn batch(rows: &[Three], at: i64) -> RecordBatch {
    let floats = |of: fn(&Three) -> Option<f64>| Arc::new(rows.iter().map(of).collect::<Float64Array>()) as ArrayRef;
    RecordBatch::try_from_iter_with_nullable([
        ("k", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))) as ArrayRef, false),
        ("x", floats(|row| row.1), true),
        ("y", floats(|row| row.2), true),
        ("at", Timestamp::column(vec![at; rows.len()]), false),
    ])
    .unwrap()
}

/// Ascending, nulls last, floats as IEEE 754 orders them all.
fn ascending(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// Floats that are one value in one form.
fn one(value: Option<f64>) -> Option<f64> {
    value.map(|value| if value.is_nan() { f64::NAN } else { value + 0.0 })
}

/// A rank and a row as bits, because NaN is not equal to itself.
type Ranked = (u64, i64, Option<u64>, Option<u64>);

fn expected(rows: &[Three], keyed: bool, n: usize, ties: bool) -> Vec<Ranked> {
    let mut keys: BTreeMap<i64, Vec<Three>> = BTreeMap::new();
    for row in rows {
        keys.entry(if keyed { row.0 } else { 0 }).or_default().push(*row);
    }
    let greatest = |a: Option<f64>, b: Option<f64>| match (one(a), one(b)) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => a.is_none().cmp(&b.is_none()),
    };
    let mut all = Vec::new();
    for (_, mut rows) in keys {
        rows.sort_by(|a, b| {
            let tie = || a.0.cmp(&b.0).then(ascending(a.1, b.1)).then(ascending(a.2, b.2));
            greatest(a.1, b.1).then_with(tie)
        });
        let last = rows.get(n - 1).map(|row| row.1);
        let tied = rows.iter().skip(n).take_while(|row| ties && last.is_some_and(|it| greatest(it, row.1).is_eq()));
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        let count = n + tied.count();
        all.extend((1..).zip(rows).take(count).map(|(rank, (k, x, y))| (rank, k, bits(x), bits(y))));
    }
    all
}

fn given(operator: &mut dyn Operator) -> Vec<Ranked> {
    let mut out = Outbox::new();
    while operator.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
    let mut all = Vec::new();
    for (_, rows) in out.drain() {
        let float = |column: &str| rows.column_by_name(column).unwrap().as_primitive::<Float64Type>().clone();
        let bits = |value: Option<f64>| value.map(f64::to_bits);
        let (x, y) = (float("x"), float("y"));
        let k = rows.column_by_name("k").unwrap().as_primitive::<Int64Type>();
        let rank = rows.column_by_name("rank").unwrap().as_primitive::<UInt64Type>();
        let xy = x.iter().map(bits).zip(y.iter().map(bits));
        all.extend(rank.values().iter().zip(k.values()).zip(xy).map(|((rank, k), (x, y))| (*rank, *k, x, y)));
    }
    all
}

/// Ties across batches, values of which several are one, and nulls; saved and restored in the midst.
#[test]
fn values_that_are_alike_missing_or_no_numbers() {
    for seed in 0..48 {
        let mut random = Rng::with_seed(seed);
        let (keyed, ties, n) = (random.bool(), random.bool(), random.usize(1..40));
        let plan = if ties { TopPlan::with_ties } else { TopPlan::new };
        let key: &[&str] = if keyed { &["k"] } else { &[] };
        let plan = plan(&input(), key, Tumbling::of(us(100)), n, "x").unwrap();
        let mut operator = Plan::whole(&plan).unwrap();
        let mut saved = Saved::new();
        // Few values are ties, one of two more has many nulls and the last many different values.
        let kind = random.u8(0..3);
        let keys = *random.choice([1_i64, 7, 300]).as_ref().unwrap();
        let mut rows: Vec<Three> = Vec::new();
        for _ in 0..random.usize(1..40) {
            let some = random.usize(1..2_000);
            let from = rows.len();
            rows.extend((0..some).map(|_| {
                let x = match (kind, random.u8(..)) {
                    (0, _) | (2, 0..3) => VALUES[random.usize(..VALUES.len())],
                    (1, 2..) => None,
                    _ => Some(random.f64()),
                };
                (random.i64(0..keys), x, VALUES[random.usize(..VALUES.len())])
            }));
            operator.process(Port::MAIN, batch(&rows[from..], random.i64(0..100)), &mut Outbox::new()).unwrap();
            if random.u8(0..4) == 0 {
                saved.save(&mut *operator);
                if random.bool() {
                    operator = Plan::whole(&plan).unwrap();
                    saved.load(&mut *operator);
                }
            }
        }
        assert_eq!(given(&mut *operator), expected(&rows, keyed, n, ties), "seed {seed}");
    }
}

/// How a number is shown once it is a value of some type.
type Shown = fn(i64) -> String;

/// Whatever the type of the value: the greatest two of 20,000, and the greatest of windows that overlap.
#[test]
fn any_type_that_has_an_order() {
    let numbers = || (0..20_000_i64).map(|i| i * 7_919 % 20_000);
    let text = || numbers().map(|n| format!("a text that is long enough {n:09}"));
    let values: [(ArrayRef, Shown); 5] = [
        (Arc::new(Int64Array::from_iter_values(numbers())), |n| n.to_string()),
        (Arc::new(StringArray::from_iter_values(text())), |n| format!("a text that is long enough {n:09}")),
        (Arc::new(StringViewArray::from_iter_values(text())), |n| format!("a text that is long enough {n:09}")),
        (arrow::compute::cast(&Int64Array::from_iter_values(numbers()), &DataType::Decimal128(20, 0)).unwrap(), |n| {
            n.to_string()
        }),
        (
            arrow::compute::cast(
                &StringArray::from_iter_values(text()),
                &DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            )
            .unwrap(),
            |n| format!("a text that is long enough {n:09}"),
        ),
    ];
    let key: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers().map(|n| n % 2)));
    let nulls = arrow::array::new_null_array(&DataType::Null, 20_000);
    for (value, shown) in values {
        let columns =
            [("at", Timestamp::column(vec![5; 20_000])), ("k", key.clone()), ("v", value), ("none", nulls.clone())];
        let all = RecordBatch::try_from_iter(columns).unwrap();
        let input = StreamSchema::with_time(all.schema(), "at").unwrap();
        for key in [&[][..], &["k"]] {
            let windows = Hopping::of(us(20), us(10));
            let plan = TopPlan::new(&input, key, windows, 2, "v").unwrap();
            let mut operator = plan.whole().unwrap();
            for first in (0..20_000).step_by(1_000) {
                operator.process(Port::MAIN, all.slice(first, 1_000), &mut Outbox::new()).unwrap();
            }
            let mut out = Outbox::new();
            while operator.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
            let mut given = Vec::new();
            for (_, rows) in out.drain() {
                let column = rows.column_by_name("v").unwrap();
                let value = |row| arrow::util::display::array_value_to_string(column, row).unwrap();
                given.extend((0..rows.num_rows()).map(value));
            }
            let winners: &[i64] = if key.is_empty() { &[19_999, 19_998] } else { &[19_998, 19_996, 19_999, 19_997] };
            let expected = [winners, winners].concat();
            assert_eq!(given, expected.into_iter().map(shown).collect::<Vec<_>>(), "by {key:?}");
        }
        // A column without a value has an order too: all rows are alike in it.
        let plan = TopPlan::with_ties(&input, &[], Tumbling::of(us(20)), 2, "none").unwrap();
        let mut operator = plan.whole().unwrap();
        operator.process(Port::MAIN, all.slice(0, 100), &mut Outbox::new()).unwrap();
        let mut out = Outbox::new();
        while operator.advance(Timestamp::MAX, &mut out).unwrap() == Advance::Again {}
        assert_eq!(out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 100);
    }
}
