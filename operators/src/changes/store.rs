//! The newest row per key, in immutable pieces: what operators on changes keep, and at the same time their checkpoint.
//!
//! ```text
//!   key ──index──► slot ──► (piece, row)          pieces, oldest first
//!                                                 ┌────────────────────────┐
//!   put(rows) ──► a new piece ──────────────────► │ 9000 rows, 700 dead    │ segment 3
//!     the rows they replace are dead              │  800 rows, all newest  │ segment 7
//!                                                 │   20 rows              │ not yet sealed
//!   small and mostly dead pieces are merged ◄──── └────────────────────────┘
//! ```
//!
//! A piece never changes, so it is a segment as it is: a save seals the new ones and names the others. A row that was
//! replaced stays where it is, *dead*: the newest segment's row of a key counts. A key that goes away while an older segment
//! may have a row of it leaves a row that says so (`__gone`), until no older segment has a dead row. A piece has at least about
//! twice as many rows that count as all newer ones together, and half of its rows count: otherwise it is merged with the
//! newer ones. So there are about log₂(rows) pieces, a row is copied about so many times, and a small change writes little.
//! But no piece is merged to more than some megabytes: larger tables have more of them, and their rows are not copied again.
//!
//! A row of the state has the columns `__key_group`, the key, `__gone`, `__time`, and those of the operator.

mod saved;
mod tidy;

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array},
    compute::{interleave, interleave_record_batch, take_record_batch},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimestampMicrosecondType},
};

use crate::{
    Result, Timestamp,
    bytes::lean_bytes,
    key::{
        bytes::Key,
        encoded::{ByKey, KeyBytes, KeyEncoder},
    },
    schema::{HIDDEN_TIME, reserved},
    state::{KEY_GROUP, Reading, Rule, SegmentId, bounded::bytes_of, segments::key_group_column},
};

/// The column that says that a key has no row any more.
pub(crate) const GONE: &str = "__gone";

/// What an entry of the index costs besides the bytes of its key.
const ENTRY: usize = size_of::<(Key, u32)>();
/// The slot of a row that was dead when it came.
const NONE: u32 = u32::MAX;

/// A table by key.
pub(crate) struct Newest {
    columns: SchemaRef,
    /// How many columns the key has.
    keys: usize,
    encoder: KeyEncoder,
    index: ByKey<Key, u32>,
    key_bytes: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Oldest first, their numbers ascend.
    pieces: Vec<Piece>,
    next: u64,
    /// Whether rows go away by time: then pieces are in its order.
    by_time: bool,
    /// Keys that went away at this time or later are remembered; without it none.
    remembered: Option<i64>,
}

/// Where the newest row of a key is.
#[derive(Clone, Copy)]
struct Slot {
    piece: u64,
    row: u32,
    gone: bool,
    /// An older segment may have a row of this key.
    sealed: bool,
}

struct Piece {
    id: u64,
    rows: RecordBatch,
    bytes: usize,
    /// The slot of each row; the row counts when the slot says so.
    slots: Vec<u32>,
    /// How many rows count, and how many of these say that a key is gone.
    held: usize,
    gone: usize,
    /// So many rows have been looked at because their time has passed.
    passed: usize,
    /// No older segment has rows of its keys that are gone, and these have been told.
    told: bool,
    segment: Option<SegmentId>,
}

/// The columns of a store: the key, then what its operator keeps, which may be null when the key is gone.
pub(crate) fn columns(key: &[FieldRef], own: &[FieldRef]) -> Result<SchemaRef> {
    let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false)];
    fields.extend(key.iter().map(|field| field.as_ref().clone()));
    fields.push(Field::new(GONE, DataType::Boolean, false));
    fields.push(Field::new(HIDDEN_TIME, Timestamp::data_type(), true));
    fields.extend(own.iter().map(|field| field.as_ref().clone().with_nullable(true)));
    let users = Schema::new(key.iter().chain(own).cloned().collect::<Vec<_>>());
    [KEY_GROUP, GONE, HIDDEN_TIME].iter().try_for_each(|name| reserved(&users, name))?;
    Ok(Arc::new(Schema::new(fields)))
}

/// Which rows of a segment count: those whose key is not gone. `keys` columns are before the one that says so.
pub(crate) fn reading(keys: usize) -> Reading {
    Reading::newest([Rule::NotGone(1 + keys)])
}

impl Newest {
    /// Nothing yet. `columns` are those of [`columns`] with so many of the key; `by_time` is for [`Newest::expire`].
    pub(crate) fn new(columns: SchemaRef, keys: usize, by_time: bool) -> Result<Self> {
        let encoder = KeyEncoder::new(columns.fields()[1..1 + keys].iter().map(|field| field.data_type()))?;
        Ok(Self {
            columns,
            keys,
            encoder,
            index: ByKey::default(),
            key_bytes: 0,
            slots: Vec::new(),
            free: Vec::new(),
            pieces: Vec::new(),
            next: 0,
            by_time,
            remembered: None,
        })
    }

    /// Remembers from now on keys that went away at `time` or later, so that rows that come out of order can be told to be
    /// older; [`Newest::forget_before`] forgets them.
    pub(crate) fn remember_from(&mut self, time: Timestamp) {
        self.remembered = Some(time.micros());
    }

    fn remembers(&self, time: i64) -> bool {
        self.remembered.is_some_and(|from| time >= from)
    }

    /// Rows of the state. `group` are the columns by which the exchange has brought them.
    pub(crate) fn rows(
        &self,
        group: &[ArrayRef],
        key: &[ArrayRef],
        gone: BooleanArray,
        time: ArrayRef,
        own: Vec<ArrayRef>,
    ) -> Result<RecordBatch> {
        let mut columns = vec![key_group_column(group, gone.len())?];
        columns.extend(key.iter().cloned());
        columns.extend([Arc::new(gone) as ArrayRef, time]);
        columns.extend(own);
        Ok(RecordBatch::try_new(self.columns.clone(), columns)?)
    }

    /// The columns of the key of rows of the state.
    pub(crate) fn key<'r>(&self, rows: &'r RecordBatch) -> &'r [ArrayRef] {
        &rows.columns()[1..1 + self.keys]
    }

    /// The operator's columns of rows of the state.
    pub(crate) fn own<'r>(&self, rows: &'r RecordBatch) -> &'r [ArrayRef] {
        &rows.columns()[3 + self.keys..]
    }

    /// The times of rows of the state; what they are where a row has none means nothing.
    pub(crate) fn times<'r>(&self, rows: &'r RecordBatch) -> &'r [i64] {
        rows.column(2 + self.keys).as_primitive::<TimestampMicrosecondType>().values()
    }

    fn gone<'r>(&self, rows: &'r RecordBatch) -> &'r BooleanArray {
        rows.column(1 + self.keys).as_boolean()
    }

    /// The bytes of keys, to find them by.
    pub(crate) fn encode(&self, key: &[ArrayRef]) -> Result<KeyBytes> {
        self.encoder.encode(key)
    }

    /// Where each of these keys is, if it is known, also when it is gone.
    pub(crate) fn find(&self, keys: &KeyBytes, rows: usize) -> Vec<Option<u32>> {
        (0..rows).map(|row| self.index.get(keys.get(row)).copied()).collect()
    }

    /// The time of the row of a slot.
    pub(crate) fn time(&self, slot: u32) -> i64 {
        let Slot { piece, row, .. } = self.slots[slot as usize];
        self.times(&self.pieces[self.position(piece)].rows)[row as usize]
    }

    /// Whether no key is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Whether the key of a slot has no row any more.
    pub(crate) fn is_gone(&self, slot: u32) -> bool {
        self.slots[slot as usize].gone
    }

    /// The rows of slots.
    pub(crate) fn gather(&self, slots: &[u32]) -> Result<RecordBatch> {
        self.interleave(&self.pieces, &self.places(slots))
    }

    fn places(&self, slots: &[u32]) -> Vec<(usize, usize)> {
        let place = |&slot: &u32| {
            let Slot { piece, row, .. } = self.slots[slot as usize];
            (self.position(piece), row as usize)
        };
        slots.iter().map(place).collect()
    }

    fn interleave(&self, pieces: &[Piece], places: &[(usize, usize)]) -> Result<RecordBatch> {
        if places.is_empty() {
            return Ok(RecordBatch::new_empty(self.columns.clone()));
        }
        let batches: Vec<&RecordBatch> = pieces.iter().map(|piece| &piece.rows).collect();
        Ok(interleave_record_batch(&batches, places)?)
    }

    /// One column of the rows of slots, of which there is one at the least.
    pub(crate) fn column(&self, slots: &[u32], column: usize) -> Result<ArrayRef> {
        let arrays: Vec<&dyn Array> = self.pieces.iter().map(|piece| piece.rows.column(column).as_ref()).collect();
        Ok(interleave(&arrays, &self.places(slots))?)
    }

    fn position(&self, piece: u64) -> usize {
        self.pieces.partition_point(|other| other.id < piece)
    }

    /// The slots of the rows that are there, piece by piece with the rows of the piece.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&RecordBatch, Vec<(usize, u32)>)> {
        self.pieces.iter().map(|piece| {
            let slots = piece.slots.iter().copied().enumerate();
            let here = slots.filter(|&(row, slot)| self.counts(piece.id, row, slot) && !self.is_gone(slot));
            (&piece.rows, here.collect())
        })
    }

    fn counts(&self, piece: u64, row: usize, slot: u32) -> bool {
        slot != NONE && {
            let place = self.slots[slot as usize];
            place.piece == piece && place.row as usize == row
        }
    }

    /// Replaces or adds rows; no two are of one key. `found` is what [`Newest::find`] said of them. Returns their slots.
    pub(crate) fn put(&mut self, rows: RecordBatch, keys: &KeyBytes, found: &[Option<u32>]) -> Result<Vec<u32>> {
        let slots = self.add(rows, keys, found, None)?;
        self.tidy()?;
        Ok(slots)
    }

    fn add(
        &mut self,
        rows: RecordBatch,
        keys: &KeyBytes,
        found: &[Option<u32>],
        segment: Option<SegmentId>,
    ) -> Result<Vec<u32>> {
        let order = self.order(&rows);
        let columns = match &order {
            Some(order) => take_record_batch(&rows, &UInt32Array::from(order.clone()))?.columns().to_vec(),
            None => rows.columns().to_vec(),
        };
        let rows = RecordBatch::try_new(self.columns.clone(), columns.into_iter().map(lean_bytes).collect())?;
        let (id, total) = (self.next, rows.num_rows());
        self.next += 1;
        let mut piece = Piece::new(id, rows, segment);
        let mut given = vec![NONE; total];
        let all_gone = self.gone(&piece.rows).clone();
        for row in 0..total {
            let from = order.as_ref().map_or(row, |order| order[row] as usize);
            let gone = all_gone.value(row);
            let slot = match found[from] {
                Some(slot) => {
                    self.replace(slot);
                    slot
                }
                None if gone && !self.remembers(self.times(&piece.rows)[row]) => NONE,
                None => self.insert(keys.get(from)),
            };
            if slot != NONE {
                let place = &mut self.slots[slot as usize];
                (place.piece, place.row, place.gone) = (id, row as u32, gone);
                (piece.held, piece.gone) = (piece.held + 1, piece.gone + usize::from(gone));
            }
            piece.slots.push(slot);
            given[from] = slot;
        }
        self.pieces.push(piece);
        Ok(given)
    }

    /// The order of rows by time, unless they are in it.
    fn order(&self, rows: &RecordBatch) -> Option<Vec<u32>> {
        let times = self.times(rows);
        if !self.by_time || times.is_sorted() {
            return None;
        }
        let mut order: Vec<u32> = (0..times.len() as u32).collect();
        order.sort_by_key(|&row| times[row as usize]);
        Some(order)
    }

    /// The row of a slot does not count any more.
    fn replace(&mut self, slot: u32) {
        let Slot { piece, gone, .. } = self.slots[slot as usize];
        let at = self.position(piece);
        let piece = &mut self.pieces[at];
        piece.held -= 1;
        piece.gone -= usize::from(gone);
        self.slots[slot as usize].sealed |= piece.segment.is_some();
    }

    fn insert(&mut self, key: &[u8]) -> u32 {
        let new = Slot { piece: 0, row: 0, gone: false, sealed: false };
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = new,
            None => self.slots.push(new),
        }
        self.index.insert(key.into(), slot);
        self.key_bytes += key.len();
        slot
    }

    /// Removes the keys of slots that are not gone, each named once; gives their last rows back.
    pub(crate) fn remove(&mut self, slots: &[u32]) -> Result<RecordBatch> {
        let rows = self.gather(slots)?;
        let keys = self.encode(self.key(&rows))?;
        let (mut forgotten, mut told) = (Vec::new(), Vec::new());
        for (row, &slot) in slots.iter().enumerate() {
            let Slot { piece, sealed, .. } = self.slots[slot as usize];
            match sealed || self.pieces[self.position(piece)].segment.is_some() {
                true => told.push(row as u32),
                false => forgotten.push(row),
            }
        }
        for row in forgotten {
            self.forget(slots[row], keys.get(row));
        }
        if !told.is_empty() {
            let found: Vec<Option<u32>> = told.iter().map(|&row| Some(slots[row as usize])).collect();
            let told = take_record_batch(&rows, &UInt32Array::from(told))?;
            let mut columns = told.columns().to_vec();
            columns[1 + self.keys] = Arc::new(BooleanArray::from(vec![true; told.num_rows()]));
            for (column, field) in columns.iter_mut().zip(self.columns.fields()).skip(3 + self.keys) {
                *column = new_null_array(field.data_type(), told.num_rows());
            }
            let told = RecordBatch::try_new(self.columns.clone(), columns)?;
            let keys = self.encode(self.key(&told))?;
            self.add(told, &keys, &found, None)?;
        }
        self.tidy()?;
        Ok(rows)
    }

    fn forget(&mut self, slot: u32, key: &[u8]) {
        self.replace(slot);
        // A piece has no such number, so no row counts by this slot until it is another key's.
        self.slots[slot as usize].piece = u64::MAX;
        self.free.push(slot);
        if self.index.remove(key).is_some() {
            self.key_bytes -= key.len();
        }
    }

    /// Removes rows that are earlier than `before` (without it all), at most `limit`, and gives them back with what were their
    /// slots. When it gives none back there are none.
    pub(crate) fn expire(&mut self, before: Option<i64>, limit: usize) -> Result<(Vec<u32>, RecordBatch)> {
        let (mut slots, mut forgotten) = (Vec::new(), Vec::new());
        for at in 0..self.pieces.len() {
            let piece = &self.pieces[at];
            let times = self.times(&piece.rows);
            let end = before.map_or(times.len(), |before| times.partition_point(|&time| time < before));
            let mut row = piece.passed;
            while row < end && slots.len() < limit {
                let slot = piece.slots[row];
                if self.counts(piece.id, row, slot) {
                    match self.slots[slot as usize] {
                        Slot { gone: false, .. } => slots.push(slot),
                        Slot { sealed: false, .. } => forgotten.push(slot),
                        _ => {}
                    }
                }
                row += 1;
            }
            self.pieces[at].passed = row;
        }
        self.forget_all(&forgotten)?;
        let rows = self.remove(&slots)?;
        Ok((slots, rows))
    }

    /// Forgets keys that went away before `time`; rows stay. For stores that remember them.
    pub(crate) fn forget_before(&mut self, time: Timestamp) -> Result<()> {
        self.remember_from(time);
        let mut forgotten = Vec::new();
        for at in 0..self.pieces.len() {
            let piece = &self.pieces[at];
            let times = self.times(&piece.rows);
            let end = times.partition_point(|&other| other < time.micros());
            for row in piece.passed..end {
                let slot = piece.slots[row];
                if self.counts(piece.id, row, slot) && self.is_gone(slot) && !self.slots[slot as usize].sealed {
                    forgotten.push(slot);
                }
            }
            self.pieces[at].passed = end.max(piece.passed);
        }
        self.forget_all(&forgotten)?;
        self.tidy()
    }

    fn forget_all(&mut self, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let rows = self.gather(slots)?;
        let keys = self.encode(self.key(&rows))?;
        slots.iter().enumerate().for_each(|(row, &slot)| self.forget(slot, keys.get(row)));
        Ok(())
    }

    /// About how many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| piece.rows.get_array_memory_size() + 4 * piece.slots.len());
        let slots = self.slots.len() * size_of::<Slot>() + self.free.len() * size_of::<u32>();
        pieces.sum::<usize>() + self.index.len() * ENTRY + self.key_bytes + slots
    }
}

impl Piece {
    fn is_mostly_dead(&self) -> bool {
        2 * self.held < self.rows.num_rows()
    }

    /// About how many bytes the rows have that count.
    fn held_bytes(&self) -> usize {
        self.bytes / self.rows.num_rows().max(1) * self.held
    }

    fn new(id: u64, rows: RecordBatch, segment: Option<SegmentId>) -> Self {
        let slots = Vec::with_capacity(rows.num_rows());
        let bytes = bytes_of(rows.columns());
        Self { id, rows, bytes, slots, held: 0, gone: 0, passed: 0, told: false, segment }
    }
}

#[cfg(test)]
mod tests;
