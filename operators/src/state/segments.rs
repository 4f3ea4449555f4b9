//! Which segments hold the state of an operator, and when an older one is written again.
//!
//! ```text
//!   save 5: 10 rows changed                          save 6: 12 rows changed
//!     ├─ saves 0..3 ─┼ 3..4 ┼ 4..5 ┤                   ├─ saves 0..3 ─┼──── 3..6 ────┤
//!       1000 rows      40     10                         1000 rows      12 and those of the absorbed that still live
//! ```
//!
//! Saves are numbered. A segment holds the rows that last changed in a stretch of saves, as they were at its end, over
//! all slices; a row that changed again is dead in it and lives in a newer one. A new segment begins with what changed
//! since the last save, and *absorbs* the newest older segment as long as that has at most twice as many living rows: it
//! then begins where the absorbed one began. So sizes fall by half from segment to segment: there are about log₂(rows)
//! of them, a row is written about so many times, and a small change writes a small segment however large the state is. A
//! segment without a living row is not needed any more.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::{ArrayRef, RecordBatch, UInt8Array};

use crate::{
    Result,
    key::key_groups,
    spill::Stored,
    state::{Part, SegmentId, StateReader, StateWriter, StoredSegment},
};

pub(crate) use crate::bytes::own_bytes;

/// How many rows of open slices last changed at each save: what makes a row live in one segment and dead in another.
pub(crate) type Changes = BTreeMap<u32, usize>;

/// How many times as many living rows as the new segment an older one may have to be absorbed.
pub(crate) const ABSORB: usize = 2;

/// The segments that a checkpoint names.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// Oldest first.
    kept: Vec<Segment>,
    /// The number of the last save.
    last: u32,
    /// What changed until this save is in the segments.
    covered: u32,
}

/// The rows of a new segment.
pub(crate) enum Sealed {
    Rows(RecordBatch),
    /// Some, that are not in memory.
    Stored(Arc<dyn Stored>),
}

impl From<RecordBatch> for Sealed {
    fn from(rows: RecordBatch) -> Self {
        Self::Rows(rows)
    }
}

/// What changed after the save `since` and until the next segment's.
#[derive(Debug)]
struct Segment {
    /// Several when there was too much for one. Each row is in one of them.
    ids: Vec<SegmentId>,
    since: u32,
}

impl Segments {
    /// The number of the next save.
    pub(crate) fn next(&self) -> u32 {
        self.last + 1
    }

    /// The number of the save that begins.
    pub(crate) fn begin(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Names what is needed of older segments and seals the rest as a new one: the rows that changed after the save
    /// that `rows` is given, in as many batches as they need.
    pub(crate) fn finish<R: Into<Sealed>>(
        &mut self,
        state: &mut StateWriter<'_>,
        changes: &Changes,
        rows: impl FnOnce(u32) -> Result<Vec<R>>,
    ) -> Result<()> {
        let live = |since: u32, until: u32| changes.range(since + 1..=until).map(|(_, rows)| rows).sum::<usize>();
        let mut since = self.covered;
        let mut new = live(since, self.last);
        if new > 0 {
            while let Some(newest) = self.kept.pop() {
                let held = live(newest.since, since);
                if held > ABSORB * new {
                    self.kept.push(newest);
                    break;
                }
                (since, new) = (newest.since, new + held);
            }
        }
        let mut until = since;
        for at in (0..self.kept.len()).rev() {
            match live(self.kept[at].since, until) {
                0 => drop(self.kept.remove(at)),
                _ => until = self.kept[at].since,
            }
        }
        for segment in &self.kept {
            segment.ids.iter().for_each(|id| state.keep(*id));
        }
        if new > 0 {
            let ids = rows(since)?.into_iter().filter_map(|rows| match rows.into() {
                Sealed::Rows(rows) => (rows.num_rows() > 0).then(|| state.seal(rows)),
                Sealed::Stored(rows) => Some(state.seal_stored(rows)),
            });
            self.kept.push(Segment { ids: ids.collect(), since });
        }
        self.covered = self.last;
        Ok(())
    }

    /// Up to which save each segment that is kept goes, oldest first.
    pub(crate) fn ends(&self) -> impl Iterator<Item = u32> + '_ {
        self.kept.iter().skip(1).map(|segment| segment.since).chain((!self.kept.is_empty()).then_some(self.covered))
    }

    /// The save after which the oldest segment begins.
    pub(crate) fn start(&self) -> u32 {
        self.kept.first().map_or(self.covered, |segment| segment.since)
    }

    /// Begins with the segments of former tasks. Returns, for each of these tasks, its segments newest first, each with
    /// the number of the save in which all its rows count as changed.
    ///
    /// The segments of one former task are kept. Those of several are written again at the next save, once: their numbers
    /// are of different tasks, and each has rows of which some are another task's now.
    pub(crate) fn load(state: &StateReader) -> (Self, Vec<Loaded<'_>>) {
        let mut parts = state.parts.iter().filter(|part| part.has_rows()).peekable();
        let first = parts.next();
        let Some((part, None)) = first.map(|part| (part, parts.peek())) else {
            let loaded = first.into_iter().chain(parts).map(|part| Loaded::new(part, |_| 1));
            let loaded = loaded.collect();
            return (Self { kept: Vec::new(), last: 1, covered: 0 }, loaded);
        };
        let (mut kept, mut saves, mut before) = (Vec::<Segment>::new(), BTreeMap::new(), 0);
        let here = part.segments.iter().map(|(id, rows)| (*id, rows.num_rows()));
        let stored = part.stored.iter().map(|segment| (segment.id, segment.count));
        for (id, rows) in here.chain(stored).filter(|(_, rows)| *rows > 0) {
            // What is not smaller by half than the one before is of the same save. A wrong guess only costs rows that are
            // written again: the newest row of an id counts, of whatever save it is taken to be, and segments that are taken
            // for one are kept in their order, and go, together.
            match kept.last_mut().filter(|_| before <= ABSORB * rows) {
                Some(segment) => segment.ids.push(id),
                None => kept.push(Segment { ids: vec![id], since: kept.len() as u32 }),
            }
            saves.insert(id, kept.len() as u32);
            before = rows;
        }
        let last = kept.len() as u32;
        (Self { kept, last, covered: last }, vec![Loaded::new(part, |id| saves.get(&id).copied().unwrap_or(last))])
    }
}

/// The segments of a former task.
pub(crate) struct Loaded<'a> {
    pub(crate) part: &'a Part,
    /// Newest first.
    pub(crate) segments: Vec<(u32, &'a RecordBatch)>,
    /// Those that are not in memory, newest first. Only of an operator that keeps to its memory.
    pub(crate) stored: Vec<(u32, &'a StoredSegment)>,
}

impl<'a> Loaded<'a> {
    fn new(part: &'a Part, save: impl Fn(SegmentId) -> u32) -> Self {
        let here = part.segments.iter().rev().filter(|(_, rows)| rows.num_rows() > 0);
        let segments = here.map(|(id, rows)| (save(*id), rows)).collect();
        let stored = part.stored.iter().rev().map(|segment| (save(segment.id), segment)).collect();
        Self { part, segments, stored }
    }

    /// All rows in pieces, those of newer segments first, with the save in which they count as changed.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Result<(u32, RecordBatch)>> + '_ {
        let here = self.segments.iter().map(|(save, rows)| Ok((*save, RecordBatch::clone(rows))));
        let read = |&(save, segment): &(u32, &'a StoredSegment)| {
            let rows = segment.rows.clone();
            (0..rows.batches()).map(move |batch| Ok((save, rows.read(batch)?)))
        };
        here.chain(self.stored.iter().flat_map(read))
    }
}

/// The first column of a segment: the key group of each row, by the hash of the exchange. Without a key it is group 0.
pub(crate) fn key_group_column(key: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let groups =
        if key.is_empty() { vec![0; rows] } else { key_groups(key, rows)?.iter().map(|group| group.0).collect() };
    Ok(Arc::new(UInt8Array::from(groups)))
}

#[cfg(test)]
mod tests {
    use arrow::array::UInt32Array;

    use super::*;
    use crate::state::TaskState;

    /// Groups that change now and then, and nothing else.
    struct Model {
        changed_at: Vec<u32>,
        segments: Segments,
        next: SegmentId,
    }

    impl Model {
        fn new(groups: usize) -> Self {
            Self { changed_at: vec![0; groups], segments: Segments::default(), next: SegmentId(0) }
        }

        fn save(&mut self, touched: impl Iterator<Item = usize>) -> TaskState {
            let now = self.segments.begin();
            for group in touched {
                self.changed_at[group] = now;
            }
            let mut changes = Changes::new();
            for at in &self.changed_at {
                *changes.entry(*at).or_default() += 1;
            }
            let mut state = StateWriter::new(&mut self.next);
            let live = |since| self.changed_at.iter().enumerate().filter(move |(_, at)| **at > since);
            let rows = |since| {
                let groups: ArrayRef = Arc::new(UInt32Array::from_iter_values(live(since).map(|(g, _)| g as u32)));
                Ok(vec![RecordBatch::try_from_iter([("group", groups)])?])
            };
            self.segments.finish(&mut state, &changes, rows).unwrap();
            state.finish()
        }
    }

    fn sealed(state: &TaskState) -> usize {
        state.segments.iter().filter_map(|(_, rows)| rows.as_ref()).map(RecordBatch::num_rows).sum()
    }

    #[test]
    fn a_small_change_of_a_large_state_writes_little() {
        let groups = 50_000;
        let mut model = Model::new(groups);
        assert_eq!(sealed(&model.save(0..groups)), groups);
        let mut random = fastrand::Rng::with_seed(3);
        let mut total = 0;
        for save in 0..100 {
            let touched: Vec<usize> = (0..10).map(|_| random.usize(..groups)).collect();
            let state = model.save(touched.into_iter());
            assert!(state.segments.len() <= 8, "{} segments", state.segments.len());
            total += sealed(&state);
            assert!(save > 0 || total <= 10);
        }
        assert!(total <= 100 * 10 * 10, "{total} rows for 1000 changes");
    }

    #[test]
    fn segments_are_logarithmically_many_and_hold_every_living_row() {
        let mut model = Model::new(4_096);
        let mut random = fastrand::Rng::with_seed(5);
        for save in 1..=400 {
            let most = 1 << random.usize(..8);
            let few = 1 + random.usize(..most);
            let touched: Vec<usize> = (0..few).map(|_| random.usize(..4_096)).collect();
            let state = model.save(touched.into_iter());
            assert!(state.segments.len() <= 13, "{} segments at save {save}", state.segments.len());
            let mut until = save;
            for segment in model.segments.kept.iter().rev() {
                assert!(segment.since < until);
                until = segment.since;
            }
            let oldest = model.changed_at.iter().copied().filter(|at| *at > 0).min().unwrap();
            assert!(until < oldest, "a row that changed at {oldest} is in no segment: they begin after {until}");
        }
    }

    #[test]
    fn a_segment_without_a_living_row_is_not_kept_and_nothing_is_sealed_without_a_change() {
        let mut model = Model::new(100);
        model.save(0..100);
        model.save(0..10);
        let state = model.save(std::iter::empty());
        assert_eq!((state.segments.len(), sealed(&state)), (2, 0));
        model.changed_at.truncate(10);
        assert_eq!(model.save(std::iter::empty()).segments, [(SegmentId(1), None)], "the rows of the first are gone");
        model.changed_at.clear();
        assert_eq!(model.save(std::iter::empty()).segments, []);
    }
}
