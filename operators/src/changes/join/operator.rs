//! The state machine of a join of changes: two stores, the rows of each by join key, and what partners they have.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
};

use super::{
    LEFT, RIGHT, Shared,
    pairs::{ByJoinKey, JoinKeys, Pairs},
    partners::{Counts, Finder, Met},
};
use crate::{
    Advance, Operator, Outbox, Port, Result, Timestamp,
    changes::{
        DELETE, EMIT_ROWS, changes,
        lifetime::{Lifetime, time_column, times},
        stateless::ops,
        store::Newest,
    },
    key::encoded::{Grouped, KeyEncoder},
    state::{StateReader, StateWriter},
};

/// A join of changes as one task does it.
pub(super) struct ChangeJoin {
    plan: Arc<Shared>,
    stores: [Newest; 2],
    indexes: [ByJoinKey; 2],
    /// With a condition, of the sides whose rows are in the result on their own.
    counts: [Counts; 2],
    join_key: KeyEncoder,
    output_key: KeyEncoder,
    lifetime: Lifetime,
}

/// A row of a side that comes or goes.
struct Step<'k> {
    comes: bool,
    /// Among the rows that change.
    own: usize,
    key: Option<&'k [u8]>,
    /// No other row of its side has its join key.
    only: bool,
    time: i64,
}

impl ChangeJoin {
    pub(super) fn new(plan: Arc<Shared>) -> Result<Self> {
        let store = |side: usize| {
            let side = &plan.sides[side];
            Newest::new(side.columns.clone(), side.key.len(), plan.ttl.is_some())
        };
        let left = &plan.sides[LEFT];
        let on = left.on.iter().map(|&column| left.input.columns().field(column).data_type());
        let output = plan.output.columns();
        let key = plan.output.change_key().unwrap_or_default();
        Ok(Self {
            stores: [store(LEFT)?, store(RIGHT)?],
            indexes: Default::default(),
            counts: Default::default(),
            join_key: KeyEncoder::new(on)?,
            output_key: KeyEncoder::new(key.iter().map(|&column| output.field(column).data_type()))?,
            lifetime: Lifetime::new(plan.ttl),
            plan,
        })
    }

    fn join_keys(&self, side: usize, rows: &RecordBatch) -> Result<JoinKeys> {
        let columns = self.plan.sides[side].join_key(rows);
        Ok(JoinKeys { bytes: self.join_key.encode(&columns)?, columns })
    }

    /// The last change of each key of a batch, as rows of the store, and which of them take their key away.
    fn last_changes(&self, side: usize, batch: &RecordBatch) -> Result<(RecordBatch, Vec<bool>)> {
        let own = &self.plan.sides[side];
        let columns = |batch: &RecordBatch, columns: &[usize]| -> Vec<ArrayRef> {
            columns.iter().map(|&column| batch.column(column).clone()).collect()
        };
        let keys = self.stores[side].encode(&columns(batch, &own.key))?;
        let last = UInt32Array::from(Grouped::new(&keys, 0..batch.num_rows()).last());
        let batch = take_record_batch(batch, &last)?;
        let goes = ops(&own.input, &batch)?.values().iter().map(|op| *op == DELETE).collect();
        let time = time_column(times(&batch, own.input.time())?.map(<[i64]>::to_vec), batch.num_rows());
        let group = columns(&batch, &own.partition);
        let there = BooleanArray::from(vec![false; batch.num_rows()]);
        let store = &self.stores[side];
        let rows = store.rows(&group, &columns(&batch, &own.key), there, time, columns(&batch, &own.others))?;
        Ok((rows, goes))
    }

    /// Takes changes of a side.
    fn change(&mut self, side: usize, batch: &RecordBatch, out: &mut Outbox) -> Result<()> {
        let plan = self.plan.clone();
        let (new, goes) = self.last_changes(side, batch)?;
        let keys = self.stores[side].encode(self.stores[side].key(&new))?;
        let known = self.stores[side].find(&keys, new.num_rows());
        let is_there = |slot: &u32| !self.stores[side].is_gone(*slot);
        let (of_old, slots): (Vec<usize>, Vec<u32>) =
            known.iter().enumerate().filter_map(|(row, slot)| Some((row, slot.filter(is_there)?))).unzip();
        let old = self.stores[side].gather(&slots)?;
        let (own, first) = (concat_batches(old.schema_ref(), [&old, &new])?, old.num_rows());
        let keys = self.join_keys(side, &own)?;
        let met = self.met(side, &own, &keys, |row| row < first || !goes[row - first])?;
        let when = self.stores[side].times(&new);

        let mut pairs = Pairs::new(&plan, side);
        for (own, (&row, &slot)) in of_old.iter().zip(&slots).enumerate() {
            let key = keys.get(own);
            let only = key.is_some_and(|key| self.indexes[side].remove(key, slot));
            self.pair(&mut pairs, side, met.as_ref(), Step { comes: false, own, key, only, time: when[row] });
        }
        let gone: Vec<u32> = of_old.iter().zip(&slots).filter(|(row, _)| goes[**row]).map(|(_, slot)| *slot).collect();
        self.stores[side].remove(&gone)?;
        let set: Vec<usize> = (0..new.num_rows()).filter(|&row| !goes[row]).collect();
        for (&row, slot) in set.iter().zip(self.put(side, &new, &set)?) {
            let own = first + row;
            let key = keys.get(own);
            let only = key.is_some_and(|key| self.indexes[side].add(key, slot));
            if let Some(met) = met.as_ref().filter(|_| plan.alone[side].is_some()) {
                self.counts[side].set(slot, met.of(own).len());
            }
            self.pair(&mut pairs, side, met.as_ref(), Step { comes: true, own, key, only, time: when[row] });
        }
        self.emit(pairs, side, &own, out)?;
        self.shrink();
        Ok(())
    }

    /// With a condition, the partners of those of `rows` that `wanted` names.
    fn met(
        &self,
        side: usize,
        rows: &RecordBatch,
        keys: &JoinKeys,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Option<Met>> {
        let (others, index) = (&self.stores[1 - side], &self.indexes[1 - side]);
        let finder = |condition| Finder { plan: &self.plan, condition, side, others, index };
        self.plan.condition.as_ref().map(|condition| finder(condition).partners(rows, keys, wanted)).transpose()
    }

    /// Tells the pairs of a row that comes or goes.
    fn pair(&mut self, pairs: &mut Pairs<'_>, side: usize, met: Option<&Met>, step: Step<'_>) {
        let Step { comes, own, key, only, time } = step;
        if let Some(met) = met {
            let (partners, counts) = (met.of(own).iter().copied(), &mut self.counts[1 - side]);
            return pairs.row(comes, own as u32, partners, |other| counts.turn(other, comes), time);
        }
        // Of a semi join: another right row has made the left ones what they are.
        if !self.plan.pairs && self.plan.alone[side].is_none() && !only {
            return;
        }
        let partners = key.into_iter().flat_map(|key| self.indexes[1 - side].matches(key));
        pairs.row(comes, own as u32, partners, |_| only, time);
    }

    /// Gives memory back when much of it is free.
    fn shrink(&mut self) {
        for ((store, index), counts) in self.stores.iter_mut().zip(&mut self.indexes).zip(&mut self.counts) {
            if let Some(to) = store.renumber() {
                index.renumber(&to);
                counts.renumber(&to);
            }
            if store.is_empty() {
                counts.clear();
            }
        }
    }

    /// Stores rows; returns their slots.
    fn put(&mut self, side: usize, new: &RecordBatch, set: &[usize]) -> Result<Vec<u32>> {
        if set.is_empty() {
            return Ok(Vec::new());
        }
        let store = &mut self.stores[side];
        let rows = UInt32Array::from_iter_values(set.iter().map(|&row| row as u32));
        let rows = take_record_batch(new, &rows)?;
        let keys = store.encode(store.key(&rows))?;
        let found = store.find(&keys, rows.num_rows());
        store.put(rows, &keys, &found)
    }

    /// Emits what the pairs add up to, because of changes of a side with these rows.
    fn emit(&self, pairs: Pairs<'_>, side: usize, own: &RecordBatch, out: &mut Outbox) -> Result<()> {
        let others = self.stores[1 - side].gather(&pairs.others())?;
        let (columns, ops, times) = pairs.changes(own, &others, &self.output_key)?;
        for from in (0..ops.len()).step_by(EMIT_ROWS) {
            let rows = EMIT_ROWS.min(ops.len() - from);
            let columns = columns.iter().map(|column| column.slice(from, rows)).collect();
            let times = || self.lifetime.held(times[from..from + rows].iter().copied());
            out.emit(changes(&self.plan.output, columns, ops[from..from + rows].to_vec(), times)?);
        }
        Ok(())
    }

    /// Lets some of the rows of a side go whose time is before `before`; returns whether there were any.
    fn expire(&mut self, side: usize, before: Option<i64>, out: &mut Outbox) -> Result<bool> {
        let plan = self.plan.clone();
        let (slots, rows) = self.stores[side].expire(before, EMIT_ROWS)?;
        let keys = self.join_keys(side, &rows)?;
        let met = self.met(side, &rows, &keys, |_| true)?;
        let ended = self.lifetime.ended(self.stores[side].times(&rows));
        let mut pairs = Pairs::new(&plan, side);
        for (own, &slot) in slots.iter().enumerate() {
            let key = keys.get(own);
            let only = key.is_some_and(|key| self.indexes[side].remove(key, slot));
            self.pair(&mut pairs, side, met.as_ref(), Step { comes: false, own, key, only, time: ended[own] });
        }
        self.emit(pairs, side, &rows, out)?;
        self.shrink();
        Ok(!slots.is_empty())
    }

    /// Counts the partners of all rows of a side.
    fn count(&mut self, side: usize) -> Result<()> {
        if self.plan.condition.is_none() {
            return Ok(());
        }
        let mut counts = Counts::default();
        for (rows, slots) in self.stores[side].all() {
            let keys = self.join_keys(side, rows)?;
            let mut there = vec![false; rows.num_rows()];
            slots.iter().for_each(|&(row, _)| there[row] = true);
            if let Some(met) = self.met(side, rows, &keys, |row| there[row])? {
                slots.iter().for_each(|&(row, slot)| counts.set(slot, met.of(row).len()));
            }
        }
        self.counts[side] = counts;
        Ok(())
    }
}

impl Operator for ChangeJoin {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        let (side, late) = if port == Port::RIGHT { (RIGHT, Port::LATE_RIGHT) } else { (LEFT, Port::LATE) };
        let batch = self.lifetime.on_time(batch, self.plan.sides[side].input.time(), late, out)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.change(side, &batch, out)
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if let Some(before) = self.lifetime.ends(time)
            && (self.expire(LEFT, before, out)? || self.expire(RIGHT, before, out)?)
        {
            return Ok(Advance::Again);
        }
        self.lifetime.reach(time);
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.lifetime.save(state);
        for (side, store) in self.stores.iter_mut().enumerate() {
            store.save(state, |rows| self.plan.segment(side, rows))?;
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.lifetime.load(state);
        for side in [LEFT, RIGHT] {
            let plan = self.plan.clone();
            self.stores[side].load(state, |segment| plan.of_segment(side, segment))?;
            for (rows, slots) in self.stores[side].all() {
                let columns = plan.sides[side].join_key(rows);
                let keys = JoinKeys { bytes: self.join_key.encode(&columns)?, columns };
                for (row, slot) in slots {
                    keys.get(row).map(|key| self.indexes[side].add(key, slot));
                }
            }
        }
        let plan = self.plan.clone();
        [LEFT, RIGHT].into_iter().filter(|&side| plan.alone[side].is_some()).try_for_each(|side| self.count(side))
    }

    fn size(&self) -> usize {
        let stores = self.stores.iter().map(Newest::size).sum::<usize>();
        let indexes = self.indexes.iter().map(ByJoinKey::size).sum::<usize>();
        stores + indexes + self.counts.iter().map(Counts::size).sum::<usize>()
    }
}
