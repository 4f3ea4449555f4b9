//! What an operator holds per key, in memory and in segments.
//!
//! ```text
//!   key columns ──row format──► bytes ──► HashMap: bytes → Slot { what is held, save in which it last changed }
//!                                            │ removed
//!                                            ▼
//!                                         tombs: bytes → save in which it was removed
//!                                            │ save: what changed since the last one
//!                                            ▼
//!   __key_group │ key columns │ columns of the holder      one row per key; all null in the holder's columns: a tombstone
//! ```
//!
//! The newest row of a key counts. A key that is removed leaves a *tombstone*, because an older segment still has a row of
//! it; without one the key would come back at the next restore. A tombstone in the oldest segment hides nothing, so it is
//! forgotten. As segments absorb one another (see `state/segments.rs`) every tombstone comes there, and when nothing lives
//! in the oldest segment any more that one goes too: the state falls to nothing when its keys do.

use std::{collections::HashMap, mem::size_of, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, Field, FieldRef, Schema},
    row::{RowConverter, Rows, SortField},
};
use foldhash::fast::RandomState;

use crate::{
    OperatorError, Result, StreamSchema,
    key::{check_key, comparable},
    state::{
        KEY_GROUP, Reading, Rule, StateForm, StateReader, StateWriter,
        segments::{Changes, Segments, key_group_column},
    },
};

/// A key in the row format of Arrow, which sorts like its columns.
pub(crate) type Key = Arc<[u8]>;

/// What is to become of an entry that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is as it was. One that was not there before is not kept.
    Same,
    Changed,
    Removed,
}

/// The key columns of an input and the form of the state that is kept by them.
#[derive(Clone, Debug)]
pub(crate) struct KeyPlan {
    columns: Vec<usize>,
    form: StateForm,
}

impl KeyPlan {
    /// Keyed by the columns `key` of `input`, with the columns `held` per key. `what` it is, in the words of the user.
    pub(crate) fn new(input: &StreamSchema, key: &[&str], held: Vec<Field>, what: &str) -> Result<Self> {
        let columns = key.iter().map(|name| input.index_of(name)).collect::<Result<Vec<_>>>()?;
        check_key(input.columns(), &columns)?;
        let key_fields: Vec<FieldRef> = columns.iter().map(|&i| input.columns().fields()[i].clone()).collect();
        if key_fields.iter().any(|field| field.name() == KEY_GROUP) {
            return Err(OperatorError::Plan(format!("the column name {KEY_GROUP:?} is reserved")));
        }
        let mut fields: Vec<Field> = vec![Field::new(KEY_GROUP, DataType::UInt8, false)];
        fields.extend(key_fields.iter().map(|field| field.as_ref().clone()));
        for field in held {
            // The key may have a column of this name.
            let mut name = field.name().clone();
            while fields.iter().any(|other| *other.name() == name) {
                name.insert(0, '_');
            }
            fields.push(field.with_name(name).with_nullable(true));
        }
        let per = if key.is_empty() { String::new() } else { format!(" per {}", key.join(", ")) };
        let form = StateForm {
            columns: Arc::new(Schema::new(fields)),
            identity: key.len(),
            meaning: format!("{what}{per}"),
            // The first column of the holder is null in a tombstone.
            reading: Reading::newest([Rule::Value(1 + key.len())]),
        };
        Ok(Self { columns, form })
    }

    /// Lets segments have rows without a key, which are not the store's.
    pub(crate) fn with_rows_without_key(mut self) -> Self {
        let fields = self.form.columns.fields().iter().enumerate();
        let fields: Vec<FieldRef> = fields
            .map(|(i, field)| match i {
                0 => field.clone(),
                _ => Arc::new(field.as_ref().clone().with_nullable(true)),
            })
            .collect();
        self.form.columns = Arc::new(Schema::new(fields));
        self
    }

    /// Says which columns of the holder are MessagePack, and which rows are the same in every task.
    pub(crate) fn read_as(mut self, packed: &[&str], shared: Option<usize>) -> Self {
        let held = self.form.columns.fields().iter().enumerate().skip(1 + self.columns.len());
        // A name may have got an underscore before it, if the key has a column of it.
        let is_packed = |name: &str| packed.contains(&name.trim_start_matches('_'));
        self.form.reading.packed =
            held.filter(|(_, field)| is_packed(field.name())).map(|(column, _)| column).collect();
        self.form.reading.shared = shared;
        self
    }

    /// The key columns of the input.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The form of the state.
    pub(crate) fn form(&self) -> &StateForm {
        &self.form
    }

    fn key_fields(&self) -> &[FieldRef] {
        &self.form.columns.fields()[1..=self.columns.len()]
    }

    /// The columns of the holder in a segment.
    pub(crate) fn held<'a>(&self, segment: &'a RecordBatch) -> &'a [ArrayRef] {
        &segment.columns()[1 + self.columns.len()..]
    }

    /// The key of a row of a segment, to be printed.
    pub(crate) fn printed(&self, segment: &RecordBatch, row: usize) -> String {
        let value = |column: &ArrayRef| {
            let text = arrow::util::display::array_value_to_string(column, row);
            text.unwrap_or_else(|_| "?".into())
        };
        let key: Vec<String> = segment.columns()[1..=self.columns.len()].iter().map(value).collect();
        key.join(", ")
    }
}

/// The keys of a batch; without key columns all rows have one.
pub(crate) struct Keys(Option<Rows>);

impl Keys {
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

struct Slot<E> {
    key: Key,
    held: E,
    /// The save in which it was last written; [`NEVER`] when no segment can have a row of it.
    saved: u32,
    /// Whether it has changed since the last save.
    changed: bool,
}

/// Saves are numbered from 1.
const NEVER: u32 = 0;
/// Of a tombstone: not yet in a segment.
const UNSAVED: u32 = u32::MAX;

/// An `E` for each key.
pub(crate) struct Store<E> {
    plan: KeyPlan,
    converter: Option<RowConverter>,
    entries: HashMap<Key, Slot<E>, RandomState>,
    tombs: HashMap<Key, u32, RandomState>,
    /// The bytes of all keys that are held.
    key_bytes: usize,
    segments: Segments,
}

impl<E: Default> Store<E> {
    pub(crate) fn new(plan: &KeyPlan) -> Result<Self> {
        let fields: Vec<_> = plan.key_fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            converter: if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) },
            entries: HashMap::default(),
            tombs: HashMap::default(),
            key_bytes: 0,
            segments: Segments::default(),
            plan: plan.clone(),
        })
    }

    /// The keys of the rows of an input batch.
    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<Keys> {
        self.convert(self.plan.columns.iter().map(|&column| batch.column(column)))
    }

    /// The keys of key columns.
    pub(crate) fn convert<'a>(&self, columns: impl Iterator<Item = &'a ArrayRef>) -> Result<Keys> {
        let columns: Vec<ArrayRef> = columns.map(comparable).collect();
        let rows = self.converter.as_ref().map(|converter| converter.convert_columns(&columns));
        Ok(Keys(rows.transpose()?))
    }

    /// The key columns of keys.
    pub(crate) fn key_columns<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        Ok(converter.convert_rows(keys.map(|key| parser.parse(key)))?)
    }

    /// Looks at what `key` holds, a default if it holds nothing; `act` says what becomes of it.
    pub(crate) fn entry(&mut self, key: &[u8], act: impl FnOnce(&Key, &mut E) -> Fate) {
        if let Some(slot) = self.entries.get_mut(key) {
            match act(&slot.key, &mut slot.held) {
                Fate::Same => {}
                Fate::Changed => slot.changed = true,
                Fate::Removed => self.remove(key),
            }
            return;
        }
        let key: Key = key.into();
        let mut held = E::default();
        if act(&key, &mut held) == Fate::Changed {
            // Removed lately, it may be in an older segment; removed again, it must leave a tombstone again.
            let saved = self.tombs.remove(&key).unwrap_or(NEVER);
            self.insert(key, held, saved, true);
        }
    }

    /// Looks at what `key` holds, if anything.
    pub(crate) fn existing(&mut self, key: &[u8], act: impl FnOnce(&mut E) -> Fate) {
        let Some(slot) = self.entries.get_mut(key) else { return };
        match act(&mut slot.held) {
            Fate::Same => {}
            Fate::Changed => slot.changed = true,
            Fate::Removed => self.remove(key),
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(Slot { key, saved, .. }) = self.entries.remove(key) {
            self.key_bytes -= key.len();
            if saved != NEVER {
                self.tombs.insert(key, UNSAVED);
            }
        }
        // Not each time that a key comes and goes.
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    fn insert(&mut self, key: Key, held: E, saved: u32, changed: bool) {
        self.key_bytes += key.len();
        self.entries.insert(key.clone(), Slot { key, held, saved, changed });
    }

    /// What a key holds, if anything.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(&Key, &E)> {
        self.entries.get(key).map(|slot| (&slot.key, &slot.held))
    }

    /// All keys that hold something. What changes here is not saved for it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut E)> {
        self.entries.values_mut().map(|slot| (&slot.key, &mut slot.held))
    }

    /// How many keys hold something.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// About how many bytes it takes, without what an `E` points to.
    pub(crate) fn size(&self) -> usize {
        let table = size_of::<(Key, Slot<E>)>() * self.entries.len() + self.key_bytes;
        // Tombstones have the keys of others that were like these.
        table + 2 * size_of::<(Key, u32)>() * self.tombs.len()
    }

    /// Saves the keys that have changed. `columns` makes the columns of the holder, null where there is a tombstone.
    pub(crate) fn save(
        &mut self,
        state: &mut StateWriter<'_>,
        columns: impl FnOnce(&[Option<&E>]) -> Result<Vec<ArrayRef>>,
    ) -> Result<()> {
        let now = self.segments.begin();
        let mut changes = Changes::new();
        for slot in self.entries.values_mut() {
            if std::mem::take(&mut slot.changed) {
                slot.saved = now;
            }
            *changes.entry(slot.saved).or_default() += 1;
        }
        self.forget_tombs(&changes);
        for saved in self.tombs.values_mut() {
            *saved = if *saved == UNSAVED { now } else { *saved };
            *changes.entry(*saved).or_default() += 1;
        }
        let mut segments = std::mem::take(&mut self.segments);
        let oldest = segments.start();
        let sealed = segments.finish(state, &changes, |since| self.segment(since, since <= oldest, columns));
        self.segments = segments;
        sealed
    }

    /// Forgets the tombstones that hide nothing: those in the oldest segment, and when nothing else is there those in the
    /// next.
    fn forget_tombs(&mut self, living: &Changes) {
        if self.tombs.is_empty() {
            return;
        }
        for end in self.segments.ends() {
            self.tombs.retain(|_, saved| *saved == UNSAVED || *saved > end);
            if living.range(1..=end).any(|(_, rows)| *rows > 0) {
                return;
            }
        }
        self.tombs = HashMap::default();
    }

    /// The rows that changed after the save `since`. In the oldest segment tombstones are left out, unless there is
    /// nothing else.
    fn segment(
        &self,
        since: u32,
        is_oldest: bool,
        columns: impl FnOnce(&[Option<&E>]) -> Result<Vec<ArrayRef>>,
    ) -> Result<RecordBatch> {
        let living = self.entries.values().filter(|slot| slot.saved > since);
        let (mut keys, mut held): (Vec<&Key>, Vec<Option<&E>>) =
            living.map(|slot| (&slot.key, Some(&slot.held))).unzip();
        if !is_oldest || keys.is_empty() {
            keys.extend(self.tombs.iter().filter(|(_, saved)| **saved > since).map(|(key, _)| key));
            held.resize(keys.len(), None);
        }
        let key = self.key_columns(keys.iter().copied())?;
        let mut all = vec![key_group_column(&key, keys.len())?];
        all.extend(key);
        all.extend(columns(&held)?);
        Ok(RecordBatch::try_new(self.plan.form.columns.clone(), all)?)
    }

    /// Becomes what former tasks were. `read` gives what the rows of a segment hold that are asked for, `None` for a
    /// tombstone.
    pub(crate) fn load(
        &mut self,
        state: &StateReader,
        mut read: impl FnMut(&RecordBatch, &[usize]) -> Result<Vec<Option<E>>>,
    ) -> Result<()> {
        let (segments, parts) = Segments::load(state);
        self.segments = segments;
        for former in parts {
            for (save, rows) in former.segments {
                let rows = self.plan.form.widen(rows)?;
                let keys = self.convert(rows.columns()[1..=self.plan.columns.len()].iter())?;
                // Newest first: a key that is known has a newer row.
                let is_new = |key: &[u8]| !self.entries.contains_key(key) && !self.tombs.contains_key(key);
                let newest: Vec<usize> = (0..rows.num_rows()).filter(|&row| is_new(keys.row(row))).collect();
                for (row, held) in newest.iter().zip(read(&rows, &newest)?) {
                    let key: Key = keys.row(*row).into();
                    match held {
                        Some(held) => self.insert(key, held, save, false),
                        None => drop(self.tombs.insert(key, save)),
                    }
                }
            }
        }
        Ok(())
    }
}
