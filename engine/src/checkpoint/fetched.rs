//! Segments of a checkpoint on their way into operators that may not have all of them in memory.
//!
//! ```text
//!   a file in the store ──checked, in pieces──► batches ──some at a time──► the directory that state is spilled to
//!                                                                     └──► Dealt: the rows of a task's key groups, batch by batch
//! ```
//!
//! A state that is small as a whole, or of operators that keep theirs in memory anyway, does not come this way.
//! Arrow IPC files are streams with a frame around them, so they can be read while they come. What is on disk is gone with the last
//! that has a part of it.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    buffer::Buffer,
    compute::filter_record_batch,
    datatypes::UInt8Type,
};
use arrow_ipc::reader::StreamDecoder;
use bytes::Bytes;
use windrow_operators::{
    OperatorError,
    key::KEY_GROUPS,
    spill::{self, Room, Stored},
    state::{SegmentId, StoredSegment},
};

use super::error::CheckpointError;

/// So many bytes may be in memory as a whole, of a state or a file, however small the budget is.
const LEAST_WHOLE: usize = 1 << 20;
/// Of a larger budget such a part.
const WHOLE_PART: usize = 8;
/// So many bytes are put on disk together, if as many may be in memory.
const TOGETHER: usize = 4 << 20;

/// Where state goes that may be too much for memory, and what that is.
#[derive(Clone, Copy)]
pub(crate) struct Aside<'a> {
    pub(crate) room: &'a dyn Room,
    /// A state of so many bytes stays in memory, and a file of so many is read as a whole.
    pub(crate) whole: u64,
}

impl<'a> Aside<'a> {
    /// Of a job with a memory budget of so many bytes.
    pub(super) fn new(budget: usize, room: &'a dyn Room) -> Self {
        Self { room, whole: whole(budget) as u64 }
    }

    fn together(&self) -> usize {
        usize::try_from(self.whole).unwrap_or(usize::MAX).clamp(LEAST_WHOLE, TOGETHER)
    }
}

/// How much of the state of a job with a memory budget of so many bytes may be in memory on its way to a checkpoint or back.
pub(super) fn whole(budget: usize) -> usize {
    (budget / WHOLE_PART).max(LEAST_WHOLE)
}

/// Why a segment cannot be had.
#[derive(Debug)]
pub(super) enum Unfetched {
    /// The store does not give it.
    Store(CheckpointError),
    /// It is not one; the reason.
    Corrupt(String),
    /// It cannot be put on disk.
    Room(OperatorError),
}

impl From<CheckpointError> for Unfetched {
    fn from(error: CheckpointError) -> Self {
        Self::Store(error)
    }
}

/// Takes the bytes of a file as they come, and puts its rows into a room.
pub(super) struct Fetching<'a> {
    aside: Aside<'a>,
    decoder: StreamDecoder,
    place: Place,
    some: Vec<RecordBatch>,
    held: usize,
    fetched: Fetched,
}

/// Where in a file the next bytes are.
#[derive(PartialEq)]
enum Place {
    /// In the frame before the stream.
    Before,
    Within,
    /// In the list of batches behind it, which only those need who jump to one.
    Behind,
}

/// The rows of a segment, on disk.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Files, each of some of its batches.
    files: Vec<Arc<dyn Stored>>,
    /// How many rows each key group has.
    rows: Vec<usize>,
    /// How many bytes all of them have.
    bytes: usize,
}

impl<'a> Fetching<'a> {
    pub(super) fn new(aside: Aside<'a>) -> Self {
        let fetched = Fetched { rows: vec![0; KEY_GROUPS], ..Fetched::default() };
        let decoder = StreamDecoder::new();
        Self { aside, decoder, place: Place::Before, some: Vec::new(), held: 0, fetched }
    }

    /// The next bytes of the file.
    pub(super) fn take(&mut self, bytes: Bytes) -> Result<(), Unfetched> {
        let mut buffer = Buffer::from(bytes);
        if self.place == Place::Before {
            // A name and zeros, and then a message, which begins with ones.
            let Some(begin) = buffer.iter().position(|byte| *byte == 0xff) else { return Ok(()) };
            buffer.advance(begin);
            self.place = Place::Within;
        }
        while self.place == Place::Within && !buffer.is_empty() {
            match self.decoder.decode(&mut buffer) {
                Ok(Some(rows)) => self.add(rows)?,
                Ok(None) => {}
                // It does not say that the stream has ended, but takes no more of it.
                Err(_) if self.decoder.finish().is_ok() => self.place = Place::Behind,
                Err(error) => return Err(Unfetched::Corrupt(error.to_string())),
            }
        }
        Ok(())
    }

    fn add(&mut self, rows: RecordBatch) -> Result<(), Unfetched> {
        for group in groups(&rows)? {
            self.fetched.rows[usize::from(*group)] += 1;
        }
        self.held += spill::bytes(&rows);
        if rows.num_rows() > 0 {
            self.some.push(rows);
        }
        if self.held >= self.aside.together() { self.store() } else { Ok(()) }
    }

    fn store(&mut self) -> Result<(), Unfetched> {
        if let Some(first) = self.some.first() {
            let schema = first.schema();
            let stored = self.aside.room.store(&schema, &mut self.some.drain(..).map(Ok)).map_err(Unfetched::Room)?;
            self.fetched.files.push(stored);
        }
        self.fetched.bytes += std::mem::take(&mut self.held);
        Ok(())
    }

    /// All bytes have come, and are those that were saved.
    pub(super) fn finish(mut self) -> Result<Arc<Fetched>, Unfetched> {
        match self.place {
            Place::Before => return Err(Unfetched::Corrupt("there is no schema in it".into())),
            // Also between two batches: how many there are is known by the mark behind the last only.
            Place::Within => return Err(Unfetched::Corrupt("it ends before the mark behind its last batch".into())),
            Place::Behind => {}
        }
        self.store()?;
        Ok(Arc::new(self.fetched))
    }
}

fn groups(rows: &RecordBatch) -> Result<&[u8], Unfetched> {
    let groups = rows.columns().first().and_then(|column| column.as_primitive_opt::<UInt8Type>());
    let missing = || Unfetched::Corrupt("its first column does not hold key groups".into());
    Ok(groups.ok_or_else(missing)?.values())
}

impl Fetched {
    /// The rows of some key groups; `None` when there are none.
    pub(super) fn deal(self: &Arc<Self>, id: SegmentId, key_groups: &Range<usize>) -> Option<StoredSegment> {
        let present = key_groups.clone().filter(|group| self.rows.get(*group).is_some_and(|rows| *rows > 0));
        let count: usize = present.clone().map(|group| self.rows[group]).sum();
        let all: usize = self.rows.iter().sum();
        (count > 0).then(|| {
            let bytes = (self.bytes as u128 * count as u128 / all as u128) as usize;
            let rows = Dealt { of: self.clone(), key_groups: key_groups.clone(), is_all: count == all, bytes };
            let key_groups = present.map(|group| group as u8).collect();
            StoredSegment { id, rows: Arc::new(rows), count, bytes, key_groups }
        })
    }
}

/// The rows of some key groups.
#[derive(Debug)]
struct Dealt {
    of: Arc<Fetched>,
    key_groups: Range<usize>,
    is_all: bool,
    bytes: usize,
}

impl Stored for Dealt {
    fn batches(&self) -> usize {
        self.of.files.iter().map(|file| file.batches()).sum()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn read(&self, batch: usize) -> Result<RecordBatch, OperatorError> {
        let mut place = batch;
        for file in &self.of.files {
            if let Some(behind) = place.checked_sub(file.batches()) {
                place = behind;
                continue;
            }
            let rows = file.read(place)?;
            if self.is_all {
                return Ok(rows);
            }
            let groups = groups(&rows).map_err(|_| OperatorError::Internal("a segment lost its key groups".into()))?;
            let own: BooleanArray =
                groups.iter().map(|group| Some(self.key_groups.contains(&usize::from(*group)))).collect();
            return Ok(filter_record_batch(&rows, &own)?);
        }
        Err(OperatorError::Internal(format!("batch {batch} of a segment was asked for")))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, UInt8Array};
    use arrow_ipc::writer::FileWriter;

    use super::*;
    use crate::{
        metrics::Counters,
        runtime::spill::{Directory, Shelf},
    };

    /// However a file ends too early, between two batches as well, none of it is taken for all of it.
    #[test]
    fn a_file_that_ends_early_is_not_a_file() {
        let batch = |from: i64| {
            let groups: ArrayRef = Arc::new(UInt8Array::from(vec![1, 2, 3]));
            let values: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 3));
            RecordBatch::try_from_iter([("group", groups), ("value", values)]).unwrap()
        };
        let mut writer = FileWriter::try_new(Vec::new(), batch(0).schema_ref()).unwrap();
        (0..3).for_each(|part| writer.write(&batch(part * 3)).unwrap());
        writer.finish().unwrap();
        let bytes = Bytes::from(writer.into_inner().unwrap());
        let below = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(Directory::below(Some(below.path())), Counters::new("restore".into(), 1));
        let rows = |length: usize| {
            let mut fetching = Fetching::new(Aside::new(0, &shelf));
            fetching.take(bytes.slice(..length)).unwrap();
            fetching.finish().map(|fetched| fetched.rows.iter().sum::<usize>())
        };
        let mark = bytes.windows(8).rposition(|bytes| bytes == [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).unwrap();
        for length in 0..=bytes.len() {
            assert_eq!(rows(length).ok(), (length > mark + 8).then_some(9), "{length} of {} bytes", bytes.len());
        }
    }
}
