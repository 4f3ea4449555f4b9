//! What do a closure over row views and an expression cost beside a loop over the columns?
//!
//! `filter`: keep the bids above a price, over numbers and over text. `map`: a new record of two numbers. `flat map`: as many records
//! of a row as its price modulo 3. Each beside a loop that reads the columns by hand and uses the same Arrow kernel or vectors. Event
//! time stays with the row on both sides.

use std::sync::Arc;

use windrow::{
    arrow::{
        array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array},
        buffer::BooleanBuffer,
        compute::{filter_record_batch, take},
        datatypes::Int64Type,
    },
    operators::{
        Operator, Result, StreamSchema,
        stateless::{Filter, Project},
        typed::{FilterRows, FlatMapRows, MapRows},
    },
    prelude::*,
};

use crate::{Case, Checksum, Operators, Rows, figures};

#[derive(Record)]
struct Bid {
    auction: i64,
    price: i64,
}

#[derive(Record)]
struct Channel {
    channel: String,
    price: i64,
}

#[derive(Record)]
struct Euro {
    auction: i64,
    cents: i64,
}

const CHEAP: i64 = 1_000;

fn number(batch: &RecordBatch, column: usize) -> &Int64Array {
    batch.column(column).as_primitive::<Int64Type>()
}

/// The figures of column 1 over what `of` makes of each batch.
fn over(batches: &[RecordBatch], of: impl Fn(&RecordBatch) -> RecordBatch) -> Checksum {
    let add = |total: Checksum, one: Checksum| (total.0 + one.0, total.1.wrapping_add(one.1));
    batches.iter().map(|batch| figures(&std::hint::black_box(of(batch)), 1)).fold((0, 0), add)
}

fn kept(batch: &RecordBatch, keep: impl Fn(usize) -> bool) -> RecordBatch {
    let mask = BooleanArray::new(BooleanBuffer::collect_bool(batch.num_rows(), keep), None);
    filter_record_batch(batch, &mask).unwrap_or_else(|error| unreachable!("{error}"))
}

fn euros(auction: Int64Array, cents: Int64Array, at: ArrayRef) -> RecordBatch {
    let columns = [("auction", Arc::new(auction) as ArrayRef), ("cents", Arc::new(cents)), ("at", at)];
    RecordBatch::try_from_iter(columns).unwrap_or_else(|error| unreachable!("{error}"))
}

fn filter_numbers(batches: &[RecordBatch]) -> Checksum {
    over(batches, |batch| {
        let (auction, price) = (number(batch, 0).values(), number(batch, 1).values());
        kept(batch, |row| price[row] > CHEAP && auction[row] % 2 == 0)
    })
}

fn filter_text(batches: &[RecordBatch]) -> Checksum {
    over(batches, |batch| {
        let (price, channel) = (number(batch, 1).values(), batch.column(3).as_string::<i32>());
        kept(batch, |row| price[row] > CHEAP && channel.value(row) == "Google")
    })
}

fn map(batches: &[RecordBatch]) -> Checksum {
    over(batches, |batch| {
        let cents = Int64Array::from_iter_values(number(batch, 1).values().iter().map(|price| price * 9 / 10));
        let auction = Int64Array::from_iter_values(number(batch, 0).values().iter().copied());
        euros(auction, cents, batch.column(2).clone())
    })
}

fn flat_map(batches: &[RecordBatch]) -> Checksum {
    over(batches, |batch| {
        let (auctions, prices) = (number(batch, 0).values(), number(batch, 1).values());
        let [mut auction, mut cents] = [Vec::with_capacity(batch.num_rows()), Vec::with_capacity(batch.num_rows())];
        let mut from = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            for part in 0..prices[row] % 3 {
                auction.push(auctions[row]);
                cents.push(prices[row] + part);
                from.push(row as u32);
            }
        }
        let at = take(batch.column(2), &UInt32Array::from(from), None).unwrap_or_else(|error| unreachable!("{error}"));
        euros(auction.into(), cents.into(), at)
    })
}

fn case<O: Operator + Clone + 'static>(name: &'static str, by_hand: fn(&[RecordBatch]) -> Checksum, of: O) -> Case {
    let operators = move || Ok(vec![Box::new(of.clone()) as Box<dyn Operator>] as Operators);
    Case { name, rows: Rows::InOrder, operators: Box::new(operators), column: 1, by_hand }
}

/// All of them, over auction, price, at; and over these with two texts.
pub(crate) fn cases(numbers: &StreamSchema, wide: &StreamSchema) -> Result<Vec<Case>> {
    let dear = || col("price").gt(lit(CHEAP));
    let even = dear().and((col("auction") % lit(2_i64)).eq(lit(0_i64)));
    let google = dear().and(col("channel").eq(lit("Google")));
    let cents = [col("auction"), (col("price") * lit(9_i64) / lit(10_i64)).alias("cents")];
    let texts = |case| Case { rows: Rows::Wide, ..case };
    let keep = FilterRows::<Bid, _>::new(numbers, |bid| bid.price > CHEAP && bid.auction % 2 == 0)?;
    let keep_text = FilterRows::<Channel, _>::new(wide, |bid| bid.price > CHEAP && bid.channel == "Google")?;
    let convert =
        MapRows::<Bid, Euro, _>::new(numbers, |bid| Euro { auction: bid.auction, cents: bid.price * 9 / 10 })?;
    let parts = FlatMapRows::<Bid, Euro, _>::new(numbers, |bid| {
        let (auction, price) = (bid.auction, bid.price);
        (0..price % 3).map(move |part| Euro { auction, cents: price + part })
    })?;
    Ok(vec![
        case("filter closure", filter_numbers, keep),
        case("filter expression", filter_numbers, Filter::new(numbers, &even)?),
        texts(case("filter text closure", filter_text, keep_text)),
        texts(case("filter text expression", filter_text, Filter::new(wide, &google)?)),
        case("map closure", map, convert),
        case("map expression", map, Project::new(numbers, &cents)?),
        case("flat map closure", flat_map, parts),
    ])
}
