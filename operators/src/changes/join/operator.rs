//! The state machine of a join of changes: two stores, the rows of each by join key, and what partners they have.
//!
//! ```text
//!   a batch, or rows that end ──► Coming: rows as they were and as they are
//!                                   │ as many rows as have about a step of partners, or one
//!                                   ▼
//!                                 Pairs ──folded──► Told ──a step──► Outbox, again
//! ```
//!
//! So a batch is as many small ones as its partners ask for. Of one row that has very many partners the slots of these are held,
//! not their columns.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
};

use super::{
    LEFT, RIGHT, Shared,
    pairs::{ByJoinKey, JoinKeys, Pairs, Told},
    partners::{Counts, Finder, Met},
};
use crate::{
    Advance, Operator, OperatorError, Outbox, Port, Result, Timestamp,
    changes::{
        DELETE, changes,
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
    /// Rows that are half-way through, and what has not been told of those that are through.
    coming: Option<Coming>,
    told: Option<Told>,
}

/// Rows of a side that change, each of another key: as they were, if they were there, and then as they are.
struct Coming {
    side: usize,
    own: RecordBatch,
    keys: JoinKeys,
    /// Which of the changes each of the rows as they were is of, and its slot.
    former: Vec<usize>,
    slots: Vec<u32>,
    /// Which changes take the row away, and when each is.
    goes: Vec<bool>,
    when: Vec<i64>,
    /// The store has let them go: it is not to be told.
    ended: bool,
    /// The change that is next.
    next: usize,
}

impl Coming {
    /// Where in `own` the row is that a change sets.
    fn set(&self, change: usize) -> usize {
        self.former.len() + change
    }

    /// Where in `own` the rows are as they were before the changes up to this one.
    fn before(&self, change: usize) -> usize {
        self.former.partition_point(|&former| former < change)
    }
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
            coming: None,
            told: None,
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

    /// Changes of a side, and what is there of their keys.
    fn coming(&self, side: usize, batch: &RecordBatch) -> Result<Coming> {
        let (new, goes) = self.last_changes(side, batch)?;
        let store = &self.stores[side];
        let known = store.find(&store.encode(store.key(&new))?, new.num_rows());
        let is_there = |slot: &u32| !store.is_gone(*slot);
        let (former, slots): (Vec<usize>, Vec<u32>) =
            known.iter().enumerate().filter_map(|(row, slot)| Some((row, slot.filter(is_there)?))).unzip();
        let old = store.gather(&slots)?;
        let own = concat_batches(old.schema_ref(), [&old, &new])?;
        let (keys, when) = (self.join_keys(side, &own)?, store.times(&new).to_vec());
        Ok(Coming { side, own, keys, former, slots, goes, when, ended: false, next: 0 })
    }

    /// Some of the rows of a side whose time is before `before`, up to `most`, which their store lets go.
    fn ending(&mut self, side: usize, before: Option<i64>, most: usize) -> Result<Option<Coming>> {
        let (slots, own) = self.stores[side].expire(before, most)?;
        if slots.is_empty() {
            return Ok(None);
        }
        let (keys, when) = (self.join_keys(side, &own)?, self.lifetime.ended(self.stores[side].times(&own)));
        let (former, goes) = (0..slots.len()).map(|row| (row, true)).unzip();
        Ok(Some(Coming { side, own, keys, former, slots, goes, when, ended: true, next: 0 }))
    }

    /// About how many pairs come or go with a row.
    fn weight(&self, side: usize, key: Option<&[u8]>) -> usize {
        let partners = key.map_or(0, |key| self.indexes[1 - side].count(key));
        let weight = match (self.plan.pairs || self.plan.condition.is_some(), self.plan.alone[side]) {
            (true, _) => partners,
            // Of a semi join: a left row looks for one partner, and of right ones the first and the last make a difference.
            (false, Some(_)) => 1,
            (false, None) => partners.div_ceil(key.map_or(1, |key| self.indexes[side].count(key).max(1))),
        };
        weight.max(1)
    }

    /// Where the changes end that have about so many pairs: after one at the least.
    fn end(&self, coming: &Coming, pairs: usize) -> usize {
        let Coming { side, keys, former, goes, next, .. } = coming;
        let (mut weight, mut old, mut end) = (0, coming.before(*next), *next);
        while end < goes.len() {
            if former.get(old) == Some(&end) {
                weight += self.weight(*side, keys.get(old));
                old += 1;
            }
            if !goes[end] {
                weight += self.weight(*side, keys.get(coming.set(end)));
            }
            if weight > pairs && end > *next {
                break;
            }
            end += 1;
        }
        end
    }

    /// Takes the next changes, up to `end`.
    fn take(&mut self, coming: &Coming, end: usize) -> Result<Told> {
        let plan = self.plan.clone();
        let Coming { side, own, keys, former, slots, goes, when, .. } = coming;
        let (side, olds, news) = (*side, coming.before(coming.next)..coming.before(end), coming.next..end);
        let is_wanted = |row: usize| match row.checked_sub(former.len()) {
            None => olds.contains(&row),
            Some(change) => news.contains(&change) && !goes[change],
        };
        let met = self.met(side, own, keys, is_wanted)?;

        let mut pairs = Pairs::new(&plan, side);
        for own in olds.clone() {
            let (key, time) = (keys.get(own), when[former[own]]);
            let only = key.is_some_and(|key| self.indexes[side].remove(key, slots[own]));
            self.pair(&mut pairs, side, met.as_ref(), Step { comes: false, own, key, only, time });
        }
        if !coming.ended {
            let gone: Vec<u32> = olds.filter(|&old| goes[former[old]]).map(|old| slots[old]).collect();
            self.stores[side].remove(&gone)?;
        }
        let set: Vec<usize> = news.filter(|&change| !goes[change]).collect();
        let rows: Vec<usize> = set.iter().map(|&change| coming.set(change)).collect();
        for ((&own, &change), slot) in rows.iter().zip(&set).zip(self.put(side, own, &rows)?) {
            let key = keys.get(own);
            let only = key.is_some_and(|key| self.indexes[side].add(key, slot));
            if let Some(met) = met.as_ref().filter(|_| plan.alone[side].is_some()) {
                self.counts[side].set(slot, met.of(own).len());
            }
            self.pair(&mut pairs, side, met.as_ref(), Step { comes: true, own, key, only, time: when[change] });
        }
        pairs.fold(own, &self.stores[1 - side], &self.output_key)
    }

    /// Goes on with what is half-way through, one step; returns whether that was all.
    fn step(&mut self, out: &mut Outbox) -> Result<bool> {
        if self.told.is_none()
            && let Some(mut coming) = self.coming.take()
        {
            // An update is two pairs that leave as one change.
            let end = self.end(&coming, 2 * out.step());
            self.told = Some(self.take(&coming, end)?);
            coming.next = end;
            self.coming = Some(coming).filter(|coming| end < coming.goes.len());
        }
        if let Some(mut told) = self.told.take() {
            let (columns, ops, times) = told.step(&self.plan, &self.stores[1 - told.side()], out.step())?;
            out.emit(changes(&self.plan.output, columns, ops, || self.lifetime.held(times.iter().copied()))?);
            self.told = Some(told).filter(|told| !told.is_done());
        }
        let is_done = self.is_idle();
        if is_done {
            self.shrink();
        }
        Ok(is_done)
    }

    /// Whether nothing is half-way through.
    fn is_idle(&self) -> bool {
        self.coming.is_none() && self.told.is_none()
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
        if batch.num_rows() > 0 {
            if !self.is_idle() {
                return Err(OperatorError::Internal("a join was given rows while others were half-way through".into()));
            }
            let batch = self.lifetime.on_time(batch, self.plan.sides[side].input.time(), late, out)?;
            if batch.num_rows() > 0 {
                self.coming = Some(self.coming(side, &batch)?);
            }
        }
        if !self.step(out)? {
            out.again();
        }
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        if !self.step(out)? {
            return Ok(Advance::Again);
        }
        if let Some(before) = self.lifetime.ends(time) {
            for side in [LEFT, RIGHT] {
                self.coming = self.ending(side, before, out.step())?;
                if self.coming.is_some() {
                    return Ok(Advance::Again);
                }
            }
        }
        self.lifetime.reach(time);
        Ok(Advance::Promise(time))
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        if !self.is_idle() {
            return Err(OperatorError::Internal("a join was saved with rows half-way through".into()));
        }
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
