//! The rows of a slice that may still win, and which of them a save has to write.
//!
//! ```text
//!   rows ──► bars: may it win? ──no──► nothing is kept of it
//!              │ yes
//!              ▼
//!   batches   ┌───── settled ────┬─ came since ─┐ ──enough, or a save──► sort, and know the losers
//!   kept      │ 0  1     3  4  5 │              │
//!   saved_at  │ 3  3  ∙  1  1  5 │              │      key a: 3 3 ∙ → 3 3     nothing new in it: written by save 3
//!             └──────────────────┴──────────────┘      key b: 1 ∙ 1 → 6 6     a new row: written again by save 6
//! ```
//!
//! To copy texts costs more than to sort, so a batch stays as it came while a part of its rows may still win; the others only lie
//! there. The winners are copied out of it when it has few, and when they leave.
//!
//! The winners of a key change only when a row comes that is one of them. So a save writes the keys that have such a row, with
//! all their winners, and of a key the newest segment that has rows of it has all that count.

use arrow::{
    array::{Array, ArrayRef, BooleanArray, RecordBatch},
    compute::filter,
    datatypes::SchemaRef,
};

use super::{
    Shared,
    bars::Bars,
    order::{Winners, nth_greatest, rows_at},
};
use crate::{
    Result,
    bytes::{bytes_of, own_bytes},
    key::comparable,
    outbox::EMIT_ROWS,
    state::segments::{Changes, key_group_column},
    window::{Slice, aggregate::constant, form::LEADING, split::Selection},
};

/// A slice sorts and drops its losers when it holds this many rows, and at least four times what it wants to keep.
const COMPACT_ROWS: usize = 16_384;
/// The same without keys: sooner, because then few rows come in that do not win, and the bar rises with it.
const COMPACT_ROWS_OF_ALL: usize = 1_024;
/// A batch of so many rows or more stays as it is while at least one in [`STAYS`] of them may win.
const LARGE: usize = 1_024;
const STAYS: usize = 3;
/// Instead of the number of a save: no save has written it.
const NEVER: u32 = u32::MAX;
/// The same: the row has lost. It is before the first save.
const LOST: u32 = 0;
/// Instead of the place of a row: it is dropped.
const NOWHERE: u32 = u32::MAX;

/// The rows of a slice, or of several.
#[derive(Default)]
pub(super) struct Buffer {
    batches: Vec<RecordBatch>,
    rows: usize,
    /// So many rows were there when it was last sorted, and these of them won, in their order.
    settled: usize,
    kept: Vec<u32>,
    /// About how many bytes the batches are.
    bytes: usize,
    /// What rows that come have to reach.
    bars: Option<Bars>,
    /// How many rows have come since the bars were looked at, and how many have lost, at the bars or later.
    came: usize,
    lost: usize,
    /// How many of these at the bars.
    barred: usize,
    /// Bars have kept out few: keys come and go.
    no_bars: bool,
    /// By which save the first rows were written, or [`NEVER`]. It lacks those that came since, or all before the first save.
    saved_at: Vec<u32>,
    /// How many rows were written by which save.
    changes: Changes,
    /// Whether rows have come since the last save.
    changed: bool,
    /// The result that is on its way out, and how many rows of it are out.
    leaving: Option<(Winners, usize)>,
}

impl Buffer {
    /// Takes the rows of a batch that may win.
    pub(super) fn push(&mut self, plan: &Shared, batch: &RecordBatch, of: &Selection) -> Result<()> {
        let came = of.rows(batch);
        self.came += came;
        let rows = match self.hopeful(plan, batch, of)? {
            Some(hopeful) => match hopeful.true_count() {
                0 => {
                    self.lost += came;
                    self.barred += came;
                    return Ok(());
                }
                all if all == hopeful.len() => of.batch(batch)?,
                _ => of.filter(batch, &hopeful)?,
            },
            None => of.batch(batch)?,
        };
        self.lost += came - rows.num_rows();
        self.barred += came - rows.num_rows();
        self.add(rows)?;
        self.changed = true;
        let most = if plan.key.is_empty() { COMPACT_ROWS_OF_ALL } else { COMPACT_ROWS };
        if self.rows >= most.max(4 * self.kept.len()).max(2 * self.settled) {
            self.compact(plan, STAYS)?;
        }
        Ok(())
    }

    /// Which rows may win, looking at the columns that decide and no others. `None` when all may.
    fn hopeful(&mut self, plan: &Shared, batch: &RecordBatch, of: &Selection) -> Result<Option<BooleanArray>> {
        if self.bars.is_none() && !plan.key.is_empty() {
            return Ok(None);
        }
        let column = |i: usize| Ok(comparable(&of.array(batch.column(i))?));
        let by = column(plan.by)?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&i| column(i)).collect::<Result<_>>()?;
        let reached = self.bars.as_mut().map(|bars| bars.reached(&key, &by)).transpose()?;
        // More than n rows that reach the bar raise it themselves.
        if plan.key.is_empty() && reached.as_ref().map_or(by.len(), BooleanArray::true_count) > plan.n {
            let values = reached.as_ref().map_or(Ok(by.clone()), |reached| filter(&by, reached))?;
            if let Some(bar) = nth_greatest(&values, plan.n)? {
                return self.bars.insert(Bars::over_all(bar)).reached(&key, &by).map(Some);
            }
        }
        Ok(reached)
    }

    fn add(&mut self, batch: RecordBatch) -> Result<()> {
        let batch = own(batch)?;
        self.rows += batch.num_rows();
        self.bytes += bytes_of(batch.columns());
        self.batches.push(batch);
        Ok(())
    }

    /// Finds out who has lost, and drops the losers of batches of whose rows less than one in `stays` has won. Returns the
    /// winners.
    fn compact(&mut self, plan: &Shared, stays: usize) -> Result<Winners> {
        let Winners { ranks, mut places } = {
            let winners = self.sort(plan)?;
            self.raise(plan, &winners)?;
            winners
        };
        let mut has_won = vec![false; self.rows];
        places.iter().for_each(|&place| has_won[place as usize] = true);
        // Where rows come to be that stay; they are followed by those that are copied.
        let (mut batches, mut to, mut end) = (Vec::new(), vec![NOWHERE; self.rows], 0);
        let mut first = 0;
        for batch in &self.batches {
            let rows = first..first + batch.num_rows();
            first = rows.end;
            let won = has_won[rows.clone()].iter().filter(|won| **won).count();
            if batch.num_rows() >= LARGE && stays * won >= batch.num_rows() {
                to[rows].iter_mut().zip(end..).for_each(|(to, row)| *to = row);
                end += batch.num_rows() as u32;
                batches.push(batch.clone());
            }
        }
        let copied: Vec<u32> = places.iter().copied().filter(|&place| to[place as usize] == NOWHERE).collect();
        for rows in copied.chunks(EMIT_ROWS) {
            batches.push(own(rows_at(&self.batches, rows)?)?);
            rows.iter().zip(end..).for_each(|(&row, place)| to[row as usize] = place);
            end += rows.len() as u32;
        }
        if !self.saved_at.is_empty() {
            let mut saved_at = vec![NEVER; end as usize];
            for (&place, &save) in to.iter().zip(&self.saved_at).filter(|(place, _)| **place != NOWHERE) {
                saved_at[place as usize] = save;
            }
            self.saved_at = saved_at;
        }
        places.iter_mut().for_each(|place| *place = to[*place as usize]);
        self.bytes = batches.iter().map(|batch| bytes_of(batch.columns())).sum();
        (self.batches, self.kept) = (batches, places.clone());
        (self.rows, self.settled) = (end as usize, end as usize);
        Ok(Winners { ranks, places })
    }

    /// Looks at the bars anew. With keys they are kept only when they pay: to look for the key of each row costs something too.
    fn raise(&mut self, plan: &Shared, winners: &Winners) -> Result<()> {
        if plan.key.is_empty() {
            self.bars = Bars::of(plan, &self.batches, winners)?.or(self.bars.take());
            return Ok(());
        }
        // A union of slices has not counted its rows; nothing comes to it.
        self.lost += (self.kept.len() + self.rows - self.settled).saturating_sub(winners.ranks.len());
        if self.came >= COMPACT_ROWS {
            self.no_bars |= self.bars.is_some() && self.barred < self.came / 8;
            let pay = !self.no_bars && self.lost >= self.came / 4;
            self.bars = if pay { Bars::of(plan, &self.batches, winners)? } else { None };
            (self.came, self.lost, self.barred) = (0, 0, 0);
        }
        Ok(())
    }

    /// The rows of all of these slices that may win in their window. No more rows come for them, so each drops its losers.
    pub(super) fn union(slices: Vec<&mut Self>, plan: &Shared) -> Result<Self> {
        let mut all = Self::default();
        for slice in slices {
            if slice.rows > slice.kept.len() {
                slice.compact(plan, 1)?;
            }
            all.batches.extend(slice.batches.iter().cloned());
            all.rows += slice.rows;
        }
        Ok(all)
    }

    /// The same rows without losers, to be part of another union.
    pub(super) fn copy(&mut self, plan: &Shared) -> Result<Self> {
        self.compact(plan, 1)?;
        Ok(Self {
            batches: self.batches.clone(),
            rows: self.rows,
            settled: self.settled,
            kept: self.kept.clone(),
            bytes: self.bytes,
            ..Self::default()
        })
    }

    /// Keeps of each batch what `of` keeps.
    pub(super) fn retain(&mut self, mut of: impl FnMut(RecordBatch) -> Result<RecordBatch>) -> Result<()> {
        self.batches = std::mem::take(&mut self.batches).into_iter().map(&mut of).collect::<Result<_>>()?;
        self.rows = self.batches.iter().map(RecordBatch::num_rows).sum();
        (self.settled, self.kept) = (0, Vec::new());
        Ok(())
    }

    /// Finds out which keys have other winners than at the last save.
    pub(super) fn save(&mut self, plan: &Shared, now: u32, changes: &mut Changes) -> Result<()> {
        if std::mem::take(&mut self.changed) {
            let Winners { ranks, places } = self.compact(plan, STAYS)?;
            self.saved_at.resize(self.rows, NEVER);
            let former = std::mem::replace(&mut self.saved_at, vec![LOST; self.rows]);
            // Ranks begin anew with each key.
            let mut rest = places.as_slice();
            for winners in ranks.chunk_by(|rank, next| rank < next) {
                let (of_key, others) = rest.split_at(winners.len());
                let is_new = of_key.iter().any(|&row| former[row as usize] == NEVER);
                for row in of_key.iter().map(|&row| row as usize) {
                    self.saved_at[row] = if is_new { now } else { former[row] };
                }
                rest = others;
            }
            self.count();
        }
        for (save, rows) in &self.changes {
            *changes.entry(*save).or_default() += rows;
        }
        Ok(())
    }

    fn count(&mut self) {
        self.changes.clear();
        for run in self.saved_at.chunk_by(|a, b| a == b).filter(|run| run[0] != LOST) {
            *self.changes.entry(run[0]).or_default() += run.len();
        }
    }

    /// What a segment has of the slice: rows that were written after the save `since`, if there are any.
    pub(super) fn segment(&self, plan: &Shared, slice: Slice, since: u32) -> Result<Option<RecordBatch>> {
        if self.changes.range(since + 1..).next().is_none() {
            return Ok(None);
        }
        let written = self.saved_at.iter().zip(0..).filter(|(at, _)| **at > since).map(|(_, row)| row);
        let rows = rows_at(&self.batches, &written.collect::<Vec<_>>())?;
        let key: Vec<ArrayRef> = plan.key.iter().map(|&i| rows.column(i).clone()).collect();
        let mut columns = vec![key_group_column(&key, rows.num_rows())?, constant(slice.start, rows.num_rows())];
        columns.extend(plan.saved.iter().map(|&i| own_bytes(rows.column(i).clone())));
        Ok(Some(RecordBatch::try_new(plan.form.columns.clone(), columns)?))
    }

    /// Takes back what a segment has of the slice. The hidden event time of a row is not saved: once the row has its
    /// slice nobody reads it.
    pub(super) fn restore(
        &mut self,
        plan: &Shared,
        schema: &SchemaRef,
        slice: Slice,
        rows: &RecordBatch,
        save: u32,
    ) -> Result<()> {
        let mut columns = vec![constant(slice.result_time(), rows.num_rows()); schema.fields().len()];
        for (&column, saved) in plan.saved.iter().zip(&rows.columns()[LEADING..]) {
            columns[column] = saved.clone();
        }
        self.add(RecordBatch::try_new(schema.clone(), columns)?)?;
        (self.kept, self.settled) = ((0..self.rows as u32).collect(), self.rows);
        self.saved_at.resize(self.rows, save);
        self.count();
        Ok(())
    }

    /// The rows that win, as it is now.
    fn sort(&self, plan: &Shared) -> Result<Winners> {
        let came = self.settled as u32..self.rows as u32;
        let candidates = (self.settled > 0).then(|| self.kept.iter().copied().chain(came).collect());
        Winners::of(plan, &self.batches, candidates)
    }

    /// The rows that win, and their ranks.
    pub(super) fn winners(&self, plan: &Shared) -> Result<(RecordBatch, Vec<u64>)> {
        let Winners { ranks, places } = self.sort(plan)?;
        Ok((rows_at(&self.batches, &places)?, ranks))
    }

    /// The same in bounded steps: the next of them, and whether there are more. No more rows come.
    pub(super) fn leave(&mut self, plan: &Shared) -> Result<(RecordBatch, Vec<u64>, bool)> {
        let (winners, out) = match self.leaving.take() {
            Some(leaving) => leaving,
            None => (self.sort(plan)?, 0),
        };
        let end = winners.places.len().min(out + EMIT_ROWS);
        let (rows, ranks) = (rows_at(&self.batches, &winners.places[out..end])?, winners.ranks[out..end].to_vec());
        let more = end < winners.places.len();
        self.leaving = more.then_some((winners, end));
        Ok((rows, ranks, more))
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        let leaving = self.leaving.as_ref().map_or(0, |(winners, _)| winners.size());
        self.bytes + size_of_val(&self.kept[..]) + leaving + self.bars.as_ref().map_or(0, Bars::size)
    }
}

/// With the bytes of its own rows only: views of text would keep those of all losers.
fn own(rows: RecordBatch) -> Result<RecordBatch> {
    let columns = rows.columns().iter().cloned().map(own_bytes).collect();
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use arrow::{
        array::{AsArray, Int64Array, StringViewArray},
        datatypes::Int64Type,
    };

    use super::*;
    use crate::{
        Operator, Outbox, Port, StreamSchema, Timestamp,
        window::{Top, TopPlan, Tumbling},
    };

    /// A thousand rows with texts of a thousand bytes in views; `n` ascends.
    fn batch(first: i64) -> RecordBatch {
        let texts = StringViewArray::from_iter_values((first..first + 1_000).map(|row| format!("{row:01000}")));
        let columns: [(&str, ArrayRef); 4] = [
            ("at", Timestamp::column(vec![first; 1_000])),
            ("n", Arc::new(Int64Array::from_iter_values(first..first + 1_000))),
            ("last_digit", Arc::new(Int64Array::from_iter_values((first..first + 1_000).map(|n| n % 10)))),
            ("text", Arc::new(texts)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn top(key: &[&str]) -> Top {
        let input = StreamSchema::with_time(batch(0).schema(), "at").unwrap();
        TopPlan::new(&input, key, Tumbling::of(Duration::from_secs(1)), 10, "n").unwrap().whole().unwrap()
    }

    /// How many rows it holds after these batches, how large it says it is, and how large they are.
    fn held(top: &mut Top, batches: impl IntoIterator<Item = i64>) -> (usize, usize, usize) {
        for first in batches {
            top.process(Port::MAIN, batch(1_000 * first), &mut Outbox::new()).unwrap();
        }
        let buffer = top.slices.contents().next().unwrap();
        let held: usize = buffer.batches.iter().map(RecordBatch::get_array_memory_size).sum();
        (buffer.rows, top.size(), held)
    }

    #[test]
    fn what_it_says_it_holds_is_what_it_holds() {
        let (rows, size, held) = held(&mut top(&["n"]), [0]);
        assert!(
            rows == 1_000 && size > 1_000 * rows && held < size + size / 4,
            "{rows} rows, {size} bytes, {held} held"
        );
    }

    /// One row in a hundred may win, and then none at all.
    #[test]
    fn losers_are_not_kept() {
        let mut top = top(&[]);
        for batches in [0..1, 1..17, 0..17] {
            let (rows, size, held) = held(&mut top, batches);
            assert!(rows >= 10 && size < 1_100 * rows && held < 20 * size, "{rows} rows, {size} bytes, {held} held");
        }
        let rows = top.slices.contents().next().unwrap().rows;
        assert!(rows < 200, "{rows} rows");
    }

    /// The bars of ten keys, known once there were enough rows, and counted.
    #[test]
    fn losers_of_a_key_are_not_kept_once_its_bar_is_known() {
        let mut top = top(&["last_digit"]);
        let (rows, ..) = held(&mut top, 0..17);
        assert_eq!(rows, 100, "10 of each");
        let buffer = top.slices.contents().next().unwrap();
        assert!(buffer.size() > bytes_of(buffer.batches[0].columns()) + 10 * 16, "{} bytes", buffer.size());
        assert_eq!(held(&mut top, 0..17).0, 100 + 100, "ties of those that are there may win");
        let (rows, size, held) = held(&mut top, 0..15);
        assert!(rows == 200 && size < 1_200 * rows && held < 2 * size, "{rows} rows, {size} bytes, {held} held");
    }

    /// Where rows lie, batch by batch, after batches of 2,048 rows of which one in so many wins against those of its key.
    fn lie(one_in: i64) -> Vec<*const i64> {
        let batch = |first: i64| {
            let numbers = |of: fn(i64, i64) -> i64| -> ArrayRef {
                Arc::new(Int64Array::from_iter_values((first..first + 2_048).map(|n| of(n, one_in))))
            };
            let columns =
                [("at", numbers(|_, _| 0)), ("n", numbers(|n, _| n)), ("key", numbers(|n, one_in| n / one_in))];
            let [(_, at), n, key] = columns;
            let at = Timestamp::column(at.as_primitive::<Int64Type>().values().to_vec());
            RecordBatch::try_from_iter([("at", at), n, key]).unwrap()
        };
        let input = StreamSchema::with_time(batch(0).schema(), "at").unwrap();
        let plan = TopPlan::new(&input, &["key"], Tumbling::of(Duration::from_secs(1)), 1, "n").unwrap();
        let mut top = plan.whole().unwrap();
        let batches: Vec<RecordBatch> = (0..40).map(|at| batch(2_048 * at)).collect();
        for batch in &batches {
            top.process(Port::MAIN, batch.clone(), &mut Outbox::new()).unwrap();
        }
        let data = |rows: &RecordBatch| rows.column(1).as_primitive::<Int64Type>().values().as_ptr();
        let came: Vec<_> = batches.iter().map(data).collect();
        let stays = top.slices.contents().next().unwrap().batches.iter().map(data);
        stays.filter(|data| came.contains(data)).collect()
    }

    /// Of many batches, none of which has been sorted away by its bars.
    #[test]
    fn a_batch_stays_as_it_came_while_a_third_of_its_rows_may_win() {
        assert_eq!(lie(2).len(), 40);
        let few = lie(16).len();
        assert!(few < 20, "{few} of 40 batches are as they came");
    }

    /// Losers that still lie there do not win, are not saved, and do not come back.
    #[test]
    fn losers_that_stay_are_out() {
        let columns = |rows: std::ops::Range<i64>| {
            let numbers =
                |of: fn(i64) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.clone().map(of))) };
            let at = Timestamp::column(vec![0; rows.clone().count()]);
            RecordBatch::try_from_iter([("at", at), ("n", numbers(|n| n)), ("key", numbers(|n| n / 2))]).unwrap()
        };
        let input = StreamSchema::with_time(columns(0..1).schema(), "at").unwrap();
        let plan = TopPlan::new(&input, &["key"], Tumbling::of(Duration::from_secs(1)), 1, "n").unwrap();
        let mut top = plan.whole().unwrap();
        let mut buffer = Buffer::default();
        top.process(Port::MAIN, columns(0..1), &mut Outbox::new()).unwrap();
        let slice = top.slices.held().next().unwrap().0;
        let mut saved = 0;
        for (save, rows) in [(1, 0..2_000), (2, 2_000..4_000), (3, 4_000..4_001), (4, 4_001..4_002)] {
            buffer.push(&plan.0, &columns(rows), &Selection::All).unwrap();
            let mut changes = Changes::new();
            buffer.save(&plan.0, save, &mut changes).unwrap();
            let written = buffer.segment(&plan.0, slice, save - 1).unwrap().unwrap();
            assert_eq!(written.num_rows(), changes[&save]);
            saved += written.num_rows();
            assert_eq!(changes.values().sum::<usize>(), buffer.winners(&plan.0).unwrap().0.num_rows());
        }
        assert_eq!((saved, buffer.rows > 4_000), (1_000 + 1_000 + 1 + 1, true));
        let (rows, ranks) = buffer.winners(&plan.0).unwrap();
        assert!(rows.column(1).as_primitive::<Int64Type>().values().iter().all(|n| n % 2 == 1));
        assert_eq!(ranks, vec![1; 2_001]);
    }
}
