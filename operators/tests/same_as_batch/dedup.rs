//! Deduplication behind a sort: the same firsts for every order of arrival.

use std::collections::BTreeMap;

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, UInt8Array},
    compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch},
    datatypes::{Schema, TimestampMicrosecondType},
};
use proptest::prelude::*;
use typed_arrow::schema::SchemaMeta;
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Result, StreamSchema, Timestamp,
    key::key_groups,
    keyed::{Dedup, DedupPlan},
    state::{KEY_GROUP, StateReader, StateWriter},
    testing::{Check, Pipeline, Row, Value},
};

use crate::{
    aggregate::{KEYS, key_of},
    bids::{Bid, bids, cases, fail, some_bids, us},
    restored::Saved,
};

/// Holds rows until the watermark has passed them, and emits them in order; equal times by all columns.
struct Sort {
    key: Vec<usize>,
    rows: RecordBatch,
}

impl Sort {
    fn new(key: &[&str]) -> Self {
        let key = key.iter().map(|name| bids().index_of(name).unwrap()).collect();
        Self { key, rows: RecordBatch::new_empty(Bid::schema()) }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let both = concat_batches(&Bid::schema(), [&self.rows, batch])?;
        let columns = [3, 0, 1, 2].map(|i| SortColumn { values: both.column(i).clone(), options: None });
        self.rows = take_record_batch(&both, &lexsort_to_indices(&columns, None)?)?;
        Ok(())
    }
}

impl Operator for Sort {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        out.processed(batch.num_rows());
        self.add(&batch)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        let times = self.rows.column(3).as_primitive::<TimestampMicrosecondType>().values().clone();
        let before = |at: i64| at < time.micros() || time == Timestamp::MAX;
        let ready = times.partition_point(|at| before(*at));
        out.emit(self.rows.slice(0, ready));
        self.rows = self.rows.slice(ready, self.rows.num_rows() - ready);
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if self.rows.num_rows() > 0 {
            let key: Vec<ArrayRef> = self.key.iter().map(|&column| self.rows.column(column).clone()).collect();
            let groups = match key.is_empty() {
                true => vec![0; self.rows.num_rows()],
                false => key_groups(&key, self.rows.num_rows())?.iter().map(|group| group.0).collect(),
            };
            let groups: ArrayRef = std::sync::Arc::new(UInt8Array::from(groups));
            let rest = self.rows.schema_ref().fields().iter().map(|field| field.name().as_str());
            let rest: Vec<_> = rest.zip(self.rows.columns().iter().cloned()).collect();
            let columns = std::iter::once((KEY_GROUP, groups)).chain(rest);
            let nullable =
                RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))?;
            state.seal(nullable);
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        for (_, rows) in state.parts.iter().flat_map(|part| &part.segments) {
            let schema: &Schema = &Bid::schema();
            self.add(&RecordBatch::try_new(schema.clone().into(), rows.columns()[1..].to_vec())?)?;
        }
        Ok(())
    }
}

fn oracle(rows: &[Bid], key: &[&str], within: i128) -> Vec<Row> {
    let mut rows: Vec<&Bid> = rows.iter().collect();
    rows.sort_by_key(|bid| (bid.at, bid.auction, (bid.who.clone(), bid.price)));
    let mut kept: BTreeMap<Vec<Value>, i128> = BTreeMap::new();
    let mut firsts = Vec::new();
    for bid in rows {
        let (key, time) = (key_of(bid, key), i128::from(bid.at.micros()));
        // Beyond the end of time there is nothing: what lives so long lives for ever.
        let until = kept.get(&key).map(|kept| (kept + within).min(i128::from(i64::MAX)));
        if until.is_none_or(|until| time > until) {
            kept.insert(key, time);
            firsts.push(Row::from((bid.auction, bid.who.clone(), bid.price, bid.at)));
        }
    }
    firsts
}

fn pipeline<'a>(plan: &'a DedupPlan, key: &'static [&'static str]) -> Pipeline<'a> {
    let columns: Vec<usize> = key.iter().map(|name| bids().index_of(name).unwrap()).collect();
    Pipeline::new(&bids())
        .exchange(columns)
        .stage(&bids(), move || Ok(Sort::new(key)))
        .stage(plan.output(), || plan.whole())
        .keyed(Plan::keyed_output(plan))
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn the_first_of_each_key(
        rows in prop_oneof![some_bids(-60i64..60), some_bids(any::<i64>())],
        key in prop::sample::select(KEYS.to_vec()),
        within in prop_oneof![Just(0u64), 1u64..40, Just(u64::MAX / 1_000)],
        bound in 0u64..25, seed: u64,
    ) {
        let plan = DedupPlan::new(&bids(), key, us(within)).unwrap();
        let check = Check::new(pipeline(&plan, key)).out_of_order(us(bound)).seed(seed);
        check.run(&rows, |rows| oracle(rows, key, within.into())).map_err(fail)?;
    }
}

/// A state that forgets too early, or whose segments do, is caught.
#[test]
fn the_wrong_stretch_is_caught() {
    let rows: Vec<Bid> = (0..200)
        .map(|i| Bid { auction: i * 7 % 23, who: None, price: Some(i), at: Timestamp::from_micros(i) })
        .collect();
    for (wrong, word) in [(29, "extra"), (69, "missing")] {
        let plan = DedupPlan::new(&bids(), &["auction"], us(wrong)).unwrap();
        let check = Check::new(pipeline(&plan, &["auction"])).out_of_order(us(6)).batch_rows(1..=12);
        let failure = check.run(&rows, |rows| oracle(rows, &["auction"], 46)).unwrap_err();
        assert!(failure.contains(word), "{failure}");
    }
}

fn process(dedup: &mut Dedup, rows: impl IntoIterator<Item = (i64, i64)>) -> (usize, (u64, u64)) {
    use typed_arrow::schema::BuildRows;
    let mut builders = Bid::new_builders(0);
    let bid = |(auction, at)| Bid { auction, who: None, price: None, at: Timestamp::from_micros(at) };
    builders.append_rows(rows.into_iter().map(bid));
    let mut out = Outbox::new();
    dedup.process(Port::MAIN, builders.finish().into_record_batch(), &mut out).unwrap();
    let counts = out.take_counts();
    let kept = out.drain().filter(|(port, _)| *port == Port::MAIN).map(|(_, rows)| rows.num_rows()).sum();
    (kept, counts)
}

#[test]
fn a_row_behind_the_watermark_is_late_and_the_rest_of_its_batch_is_not() {
    let plan = DedupPlan::new(&bids(), &["auction"], us(10)).unwrap();
    let mut dedup = plan.whole().unwrap();
    assert_eq!(process(&mut dedup, [(1, 0), (1, 10), (1, 11)]), (2, (3, 0)));
    while dedup.advance(Timestamp::from_micros(50), &mut Outbox::new()).unwrap() == Advance::Again {}
    assert_eq!(dedup.size(), 0);
    assert_eq!(process(&mut dedup, [(1, 49), (1, 50), (2, 20), (2, 51)]), (2, (2, 2)));
}

/// A day of new keys: what is held is what came within the stretch.
#[test]
fn a_day_of_new_keys() {
    let plan = DedupPlan::new(&bids(), &["auction"], us(60_000_000)).unwrap();
    let mut dedup = plan.whole().unwrap();
    let mut saved = Saved::new();
    let (mut most, mut most_saved) = (0, 0);
    for minute in 0..24 * 60_i64 {
        let rows = (0..30).map(|i| (minute * 30 + i, (minute * 60 + 2 * i) * 1_000_000));
        assert_eq!(process(&mut dedup, rows).0, 30);
        dedup.advance(Timestamp::from_micros((minute * 60 + 58) * 1_000_000), &mut Outbox::new()).unwrap();
        most = most.max(dedup.size());
        saved.save(&mut dedup);
        most_saved = most_saved.max(saved.part().segments.iter().map(|(_, rows)| rows.num_rows()).sum());
    }
    assert!(most < 15_000, "{most} bytes for 60 keys");
    assert!(most_saved < 500, "{most_saved} rows for 60 keys");
    dedup.advance(Timestamp::from_micros(i64::MAX - 1), &mut Outbox::new()).unwrap();
    saved.save(&mut dedup);
    assert_eq!((dedup.size(), &saved.state.segments[..]), (0, &[][..]));
}

#[test]
fn a_plan_says_what_it_is() {
    let plan = DedupPlan::new(&bids(), &["who", "auction"], us(60_000_000)).unwrap();
    assert_eq!(plan.state_form().meaning, "the first within 60s per who, auction");
    assert_eq!(plan.noun(), "dedup");
    let error = DedupPlan::new(&StreamSchema::without_time(Bid::schema()), &["who"], us(1)).unwrap_err().to_string();
    assert!(error.starts_with("deduplication needs event time"), "{error}");
}
