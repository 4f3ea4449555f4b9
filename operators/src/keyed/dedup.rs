//! Of the rows of a key, only the first within a stretch of event time.
//!
//! ```text
//!   key 7, within 10 s:   0 s ──kept──┬─ 4 s dropped ─┬─ 10 s dropped ─┬─ 11 s kept ─ …
//!                                     └── what the key holds: 0 s, until the watermark is past 10 s
//! ```
//!
//! Which row is the first is decided when it comes. So rows of a key have to come in the order of event time, for which a
//! sort stands in front, and then the answer does not depend on how they were mixed. A row behind the watermark is late.
//!
//! The state: `__key_group`, the key columns, `time` (of the row that was kept; null when the key has been forgotten), and the
//! number `promised`, which is the watermark.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray},
    datatypes::{Field, TimestampMicrosecondType},
};

use super::{
    store::{Fate, KeyPlan, Store},
    timers::Expiry,
};
use crate::{
    Advance, KeyedOutput, Operator, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    late::set_late_aside,
    state::{StateForm, StateReader, StateWriter},
    time::{spelled, times_of},
};

const PROMISED: &str = "promised";

/// Keeps the first row of each key, and drops those that follow within a stretch of event time.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp, keyed::DedupPlan};
///
/// let order: ArrayRef = Arc::new(Int64Array::from(vec![7, 7, 8, 7]));
/// let at = Timestamp::column(vec![0, 4_000_000, 5_000_000, 11_000_000]);
/// let orders = RecordBatch::try_from_iter([("order", order), ("at", at)]).unwrap();
/// let stream = StreamSchema::with_time(orders.schema(), "at").unwrap();
///
/// let plan = DedupPlan::new(&stream, &["order"], Duration::from_secs(10)).unwrap();
/// let mut out = Outbox::new();
/// plan.whole().unwrap().process(Port::MAIN, orders, &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 3, "the second row is dropped");
/// ```
#[derive(Clone, Debug)]
pub struct DedupPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    input: StreamSchema,
    input_time: usize,
    within: Duration,
    key: KeyPlan,
}

impl DedupPlan {
    /// Of the rows of `input` that agree in the columns `key`, keeps the first, and drops those that are later by at most
    /// `within`; the next is a first one again. Without key columns all rows agree. Rows of a key have to come in the order of
    /// event time.
    ///
    /// Fails when the stream has no event time, or a column does not exist or cannot be a key.
    pub fn new(input: &StreamSchema, key: &[&str], within: Duration) -> Result<Self> {
        let input_time = input.event_time("deduplication")?;
        let held = vec![Field::new("time", Timestamp::data_type(), true)];
        let key = KeyPlan::new(input, key, held, &format!("the first within {}", spelled(within)))?;
        Ok(Self(Arc::new(Shared { input: input.clone(), input_time, within, key })))
    }

    /// The schema of the result: that of the input.
    pub fn output(&self) -> &StreamSchema {
        &self.0.input
    }

    /// The operator.
    pub fn whole(&self) -> Result<Dedup> {
        let store = Store::new(&self.0.key)?;
        Ok(Dedup { store, expiry: Expiry::default(), promised: i64::MIN, plan: self.0.clone() })
    }
}

impl Plan for DedupPlan {
    fn noun(&self) -> &'static str {
        "dedup"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.columns().to_vec())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        vec![(Port::MAIN, self.0.input.clone()), (Port::LATE, self.0.input.clone())]
    }

    fn state_form(&self) -> StateForm {
        self.0.key.form().clone()
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        Some(KeyedOutput::columns(self.0.key.columns().iter().copied()))
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}

/// A deduplication at work. Made by [`DedupPlan`].
pub struct Dedup {
    plan: Arc<Shared>,
    /// The event time of the row that was kept.
    store: Store<Option<i64>>,
    expiry: Expiry,
    /// The last watermark but the end of the input, which is not a time.
    promised: i64,
}

impl Shared {
    /// The last instant at which a row is a duplicate of one that was kept at `time`.
    fn until(&self, time: i64) -> i64 {
        Timestamp::from_micros(time).saturating_add(self.within).micros()
    }
}

impl Dedup {
    /// Which rows are the first of their key, none of which is late.
    fn firsts(&mut self, batch: &RecordBatch, times: &[i64]) -> Result<BooleanArray> {
        let Self { plan, store, expiry, .. } = self;
        let keys = store.keys(batch)?;
        let mut firsts = Vec::with_capacity(times.len());
        for (row, &time) in times.iter().enumerate() {
            store.entry(keys.get(row), |key, kept| {
                let until = kept.map(|kept| plan.until(kept));
                let is_first = until.is_none_or(|until| time > until);
                firsts.push(is_first);
                if !is_first {
                    return Fate::Same;
                }
                if let Some(until) = until {
                    expiry.forget(until, key);
                }
                expiry.expect(plan.until(time), key);
                *kept = Some(time);
                Fate::Changed
            });
        }
        Ok(BooleanArray::from(firsts))
    }
}

impl Operator for Dedup {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let column = self.plan.input_time;
        let batch = set_late_aside(batch, column, |time| time < self.promised, Port::LATE, out)?;
        let firsts = self.firsts(&batch, times_of(&batch, column)?)?;
        crate::stateless::emit_kept(batch, &firsts, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if time == Timestamp::MAX {
            return Ok(Advance::Promise(time));
        }
        self.promised = self.promised.max(time.micros());
        for _ in 0..out.step() {
            let Some(key) = self.expiry.next(self.promised) else { return Ok(Advance::Promise(time)) };
            self.store.existing(&key, |_| Fate::Removed);
        }
        Ok(Advance::Again)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        state.set(PROMISED, self.promised);
        self.store.save(state, |kept| {
            let times: TimestampMicrosecondArray = kept.iter().map(|kept| kept.copied().flatten()).collect();
            Ok(vec![Arc::new(times.with_data_type(Timestamp::data_type())) as ArrayRef])
        })
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        let Self { plan, store, expiry, promised } = self;
        // The least: a sort that was restored from tasks of which one was behind still has rows from there on.
        *promised = state.least(false, PROMISED).unwrap_or(i64::MIN);
        store.load(state, |segment, rows| {
            let times = plan.key.held(segment)[0].as_primitive::<TimestampMicrosecondType>();
            Ok(rows.iter().map(|&row| times.is_valid(row).then(|| Some(times.value(row)))).collect())
        })?;
        for (key, kept) in store.iter_mut() {
            if let Some(kept) = kept {
                expiry.expect(plan.until(*kept), key);
            }
        }
        Ok(())
    }

    fn size(&self) -> usize {
        self.store.size() + self.expiry.size()
    }
}
