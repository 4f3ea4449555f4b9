//! How far the splits of a task have been read, which is what a checkpoint holds of them.

use std::collections::{HashMap, HashSet};

use windrow_connectors::{Position, SourceReader, SplitId};

use crate::checkpoint::{SplitState, mutated};

/// How far a split has been read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// After the last row that goes through the chain before the next barrier; before the first where the split begins, if the reader knows.
    pub(crate) position: Option<Position>,
    pub(crate) ended: bool,
    /// Where it ends, if that was fixed when the job began.
    pub(crate) end: Option<Position>,
    /// It was not there when the job began, so it is read from its first record.
    pub(crate) appeared: bool,
}

impl Progress {
    /// Where a split of a checkpoint stood.
    pub(crate) fn of(state: &SplitState) -> Self {
        if state.ended && mutated("ended splits are read again") {
            return Self::default();
        }
        let (position, end) = (state.position.map(Position), state.end.map(Position));
        Self { position, ended: state.ended, end, appeared: false }
    }

    /// Of a split that was not there when the ends of its source were fixed: it has nothing before its end.
    pub(crate) fn beyond() -> Self {
        let is_read = mutated("what was not there when the ends were fixed is read");
        Self { end: Some(Position(0)).filter(|_| !is_read), ..Self::default() }
    }

    /// It has no position in checkpoints, and so it is told from one that had no rows when the ends were fixed.
    fn is_beyond(&self) -> bool {
        self.position.is_none() && self.end == Some(Position(0))
    }

    /// Of a split that was not there when the job began.
    pub(crate) fn appeared() -> Self {
        Self { appeared: true, ..Self::default() }
    }

    /// A checkpoint that had it without a position would say: from where the source is configured to start. One that does
    /// not have it says the truth.
    pub(super) fn is_still_new(&self) -> bool {
        let unread = self.position.is_none() && !self.ended;
        self.appeared && (unread || mutated("splits that have appeared are not saved"))
    }
}

/// Notes where the splits begin that have no position yet, and where those end that are still read. Returns whether something was
/// decided that would be decided otherwise if it were not in a checkpoint: not where splits begin that have appeared.
pub(crate) fn note_begins(splits: &mut HashMap<SplitId, Progress>, reader: &dyn SourceReader) -> bool {
    if mutated("where splits begin is not noted") {
        return false;
    }
    let mut decided = false;
    for (split, position) in reader.positions() {
        if let Some(progress) = splits.get_mut(&split).filter(|progress| !progress.is_beyond()) {
            decided |= progress.position.is_none() && !progress.appeared;
            progress.position.get_or_insert(position);
        }
    }
    let ends: HashMap<SplitId, Position> = reader.ends().into_iter().collect();
    // Of one that is not read yet the reader does not know more than it was told.
    let put_off: HashSet<SplitId> = reader.put_off().into_iter().map(|put_off| put_off.split).collect();
    let is_read = |(split, progress): &(&SplitId, &mut Progress)| !progress.ended && !put_off.contains(*split);
    for (split, progress) in splits.iter_mut().filter(is_read) {
        let end = ends.get(split).copied();
        decided |= end.is_some() && end != progress.end;
        progress.end = end;
    }
    decided
}
