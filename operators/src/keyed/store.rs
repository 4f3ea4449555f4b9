//! What an operator holds per key, in memory and in segments.
//!
//! ```text
//!   key columns ──encode──► bytes ──► HashMap: bytes → Slot { what is held, or nothing: a tombstone; its place }
//!                                                                              │
//!   runs: the keys that last changed   … before save 3 │ since save 3 │ since the last save
//!                                              │              │                └─ save ──► a new segment, and a run of it
//!                                           segment        segment
//!
//!   __key_group │ key columns │ columns of the holder      one row per key; all null in the holder's columns: a tombstone
//! ```
//!
//! Each key stands in one run, so a save walks what it writes and nothing else, however many keys are held.
//!
//! The newest row of a key counts. A key that is removed leaves a *tombstone*, because an older segment still has a row of
//! it; without one the key would come back at the next restore. A tombstone in the oldest segment hides nothing, so it is
//! forgotten. As segments absorb one another (see `state/segments.rs`) every tombstone comes there, and when nothing lives
//! in the oldest segment any more that one goes too: the state falls to nothing when its keys do.

use std::{
    collections::{BTreeMap, HashMap},
    mem::size_of,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, Field, FieldRef, Schema},
};
use foldhash::fast::RandomState;

use crate::{
    OperatorError, Result, StreamSchema,
    key::{
        check_key,
        encoded::{KeyBytes, KeyEncoder},
    },
    state::{
        KEY_GROUP, Reading, Rule, StateForm, StateReader, StateWriter,
        bounded::{SEGMENT_ROWS, cut},
        segments::{Changes, Segments, key_group_column},
    },
};

/// The bytes of a key, which sort like its columns.
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

    /// Says how segments are read without the operator, by columns of the holder: the one that is null in a tombstone, those that
    /// are MessagePack, and the one that has a value in rows that are the same in every task.
    pub(crate) fn read_as(mut self, living: usize, packed: &[usize], shared: Option<usize>) -> Self {
        let place = |held: usize| 1 + self.columns.len() + held;
        self.form.reading = Reading {
            packed: packed.iter().copied().map(place).collect(),
            shared: shared.map(place),
            ..Reading::newest([Rule::Value(place(living))])
        };
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

    /// The key columns.
    pub(crate) fn key_fields(&self) -> &[FieldRef] {
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

struct Slot<E> {
    key: Key,
    /// `None`: a tombstone.
    held: Option<E>,
    /// The run that has the key, and its place there.
    run: u32,
    place: usize,
    /// Whether a segment may have a row of it.
    sealed: bool,
}

/// The run of keys that have changed since the last save. The others have the number of the last save of their segment.
const NEW: u32 = u32::MAX;

/// Keys that last changed in the same stretch of saves.
#[derive(Default)]
struct Run {
    living: Vec<Key>,
    tombs: Vec<Key>,
}

impl Run {
    fn keys(&mut self, living: bool) -> &mut Vec<Key> {
        if living { &mut self.living } else { &mut self.tombs }
    }

    fn len(&self) -> usize {
        self.living.len() + self.tombs.len()
    }
}

/// An `E` for each key.
pub(crate) struct Store<E> {
    plan: KeyPlan,
    encoder: KeyEncoder,
    slots: HashMap<Key, Slot<E>, RandomState>,
    runs: BTreeMap<u32, Run>,
    /// How many keys hold something.
    living: usize,
    /// The bytes of all keys.
    key_bytes: usize,
    segments: Segments,
}

impl<E: Default> Store<E> {
    pub(crate) fn new(plan: &KeyPlan) -> Result<Self> {
        Ok(Self {
            encoder: KeyEncoder::new(plan.key_fields().iter().map(|field| field.data_type()))?,
            slots: HashMap::default(),
            runs: BTreeMap::new(),
            living: 0,
            key_bytes: 0,
            segments: Segments::default(),
            plan: plan.clone(),
        })
    }

    /// The keys of the rows of an input batch.
    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<KeyBytes> {
        let columns: Vec<ArrayRef> = self.plan.columns.iter().map(|&column| batch.column(column).clone()).collect();
        self.encoder.encode(&columns)
    }

    /// Looks at what `key` holds, a default if it holds nothing; `act` says what becomes of it.
    pub(crate) fn entry(&mut self, key: &[u8], act: impl FnOnce(&Key, &mut E) -> Fate) {
        let tomb = match self.slots.get_mut(key) {
            Some(Slot { key: known, held: Some(held), run, .. }) => {
                match act(known, held) {
                    Fate::Same => {}
                    Fate::Changed if *run == NEW => {}
                    Fate::Changed => self.renew(key, true),
                    Fate::Removed => self.remove(key),
                }
                return;
            }
            // Removed lately, it may be in an older segment; removed again, it must leave a tombstone again.
            Some(tomb) => Some(tomb.key.clone()),
            None => None,
        };
        let key = tomb.unwrap_or_else(|| key.into());
        let mut held = E::default();
        if act(&key, &mut held) == Fate::Changed {
            self.insert(key, held);
        }
    }

    /// Looks at what `key` holds, if anything.
    pub(crate) fn existing(&mut self, key: &[u8], act: impl FnOnce(&mut E) -> Fate) {
        let Some(Slot { held: Some(held), .. }) = self.slots.get_mut(key) else { return };
        match act(held) {
            Fate::Same => {}
            Fate::Changed => self.renew(key, true),
            Fate::Removed => self.remove(key),
        }
    }

    fn insert(&mut self, key: Key, held: E) {
        self.living += 1;
        match self.slots.get_mut(&key) {
            Some(tomb) => {
                tomb.held = Some(held);
                self.renew(&key, false);
            }
            None => self.add(key, Some(held), NEW, false),
        }
    }

    /// Adds a slot for a key that has none.
    fn add(&mut self, key: Key, held: Option<E>, run: u32, sealed: bool) {
        let keys = self.runs.entry(run).or_default().keys(held.is_some());
        let place = keys.len();
        keys.push(key.clone());
        self.key_bytes += key.len();
        self.slots.insert(key.clone(), Slot { key, held, run, place, sealed });
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        self.living -= 1;
        if slot.sealed {
            slot.held = None;
            self.renew(key, true);
        } else if let Some(Slot { key, run, place, .. }) = self.slots.remove(key) {
            self.key_bytes -= key.len();
            self.leave(run, place, true);
        }
        self.shrink();
    }

    /// A key has changed since the last save; `was_living` says which list of its run it stands in.
    fn renew(&mut self, key: &[u8], was_living: bool) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let (run, place, living) = (slot.run, slot.place, slot.held.is_some());
        if run == NEW && living == was_living {
            return;
        }
        let keys = self.runs.entry(NEW).or_default().keys(living);
        (slot.run, slot.place) = (NEW, keys.len());
        keys.push(slot.key.clone());
        self.leave(run, place, was_living);
    }

    /// Takes a key out of its run; the last one gets its place.
    fn leave(&mut self, run: u32, place: usize, living: bool) {
        let Some(keys) = self.runs.get_mut(&run).map(|run| run.keys(living)) else { return };
        keys.swap_remove(place);
        if let Some(slot) = keys.get(place).and_then(|moved| self.slots.get_mut(moved)) {
            slot.place = place;
        }
        if keys.capacity() > 1024 && keys.len() < keys.capacity() / 8 {
            keys.shrink_to(2 * keys.len());
        }
    }

    fn shrink(&mut self) {
        // Not each time that a key comes and goes.
        if self.slots.capacity() > 1024 && self.slots.len() < self.slots.capacity() / 8 {
            self.slots.shrink_to(2 * self.slots.len());
        }
    }

    /// What a key holds, if anything.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(&Key, &E)> {
        self.slots.get(key).and_then(|slot| Some((&slot.key, slot.held.as_ref()?)))
    }

    /// All keys that hold something. What changes here is not saved for it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut E)> {
        self.slots.values_mut().filter_map(|slot| Some((&slot.key, slot.held.as_mut()?)))
    }

    /// How many keys hold something.
    pub(crate) fn len(&self) -> usize {
        self.living
    }

    /// About how many bytes it takes, without what an `E` points to.
    pub(crate) fn size(&self) -> usize {
        (size_of::<(Key, Slot<E>)>() + size_of::<Key>()) * self.slots.len() + self.key_bytes
    }

    /// Saves the keys that have changed. `columns` makes the columns of the holder, null where there is a tombstone. It is
    /// called once for each segment.
    pub(crate) fn save(
        &mut self,
        state: &mut StateWriter<'_>,
        columns: impl FnMut(&[Option<&E>]) -> Result<Vec<ArrayRef>>,
    ) -> Result<()> {
        self.save_sized(state, |_| 0, columns)
    }

    /// The same when what the keys hold has text or lists: `bytes` of each.
    pub(crate) fn save_sized(
        &mut self,
        state: &mut StateWriter<'_>,
        bytes: impl Fn(&E) -> usize,
        columns: impl FnMut(&[Option<&E>]) -> Result<Vec<ArrayRef>>,
    ) -> Result<()> {
        let now = self.segments.begin();
        self.forget_tombs();
        self.runs.retain(|_, run| run.len() > 0);
        let save_of = |run: u32| if run == NEW { now } else { run };
        let changes: Changes = self.runs.iter().map(|(number, run)| (save_of(*number), run.len())).collect();
        let mut segments = std::mem::take(&mut self.segments);
        let oldest = segments.start();
        let mut sealed = None;
        let saved = segments.finish(state, &changes, |since| {
            sealed = Some(since);
            self.batches(since, since <= oldest, bytes, columns)
        });
        self.segments = segments;
        if let Some(since) = sealed {
            self.join_runs(since, since <= oldest, now);
        }
        saved
    }

    /// Forgets the tombstones that hide nothing: those in the oldest segment, and when nothing else is there those in the
    /// next.
    fn forget_tombs(&mut self) {
        let ends: Vec<u32> = self.segments.ends().collect();
        for end in ends {
            let tombs: Vec<Key> = self.runs.range_mut(..=end).flat_map(|(_, run)| run.tombs.drain(..)).collect();
            self.forget(&tombs);
            if self.runs.range(..=end).any(|(_, run)| !run.living.is_empty()) {
                return;
            }
        }
        let tombs: Vec<Key> = self.runs.values_mut().flat_map(|run| std::mem::take(&mut run.tombs)).collect();
        self.forget(&tombs);
    }

    fn forget(&mut self, tombs: &[Key]) {
        for key in tombs {
            self.key_bytes -= self.slots.remove(key).map_or(0, |slot| slot.key.len());
        }
        if !tombs.is_empty() {
            self.shrink();
        }
    }

    /// The rows that changed after the save `since`. In the oldest segment tombstones are left out.
    fn batches(
        &self,
        since: u32,
        is_oldest: bool,
        bytes: impl Fn(&E) -> usize,
        mut columns: impl FnMut(&[Option<&E>]) -> Result<Vec<ArrayRef>>,
    ) -> Result<Vec<RecordBatch>> {
        let runs = || self.runs.range(since + 1..).map(|(_, run)| run);
        let living = runs().flat_map(|run| &run.living);
        let tombs = runs().flat_map(|run| &run.tombs).filter(|_| !is_oldest);
        let slots: Vec<&Slot<E>> = living.chain(tombs).filter_map(|key| self.slots.get(key)).collect();
        let sizes = slots.iter().map(|slot| slot.key.len() + slot.held.as_ref().map_or(0, &bytes));
        let mut batch = |slots: &[&Slot<E>]| {
            let held: Vec<Option<&E>> = slots.iter().map(|slot| slot.held.as_ref()).collect();
            let key = self.encoder.decode(slots.iter().map(|slot| &*slot.key))?;
            let mut all = vec![key_group_column(&key, slots.len())?];
            all.extend(key);
            all.extend(columns(&held)?);
            Ok(RecordBatch::try_new(self.plan.form.columns.clone(), all)?)
        };
        cut(sizes, SEGMENT_ROWS).into_iter().map(|range| batch(&slots[range])).collect()
    }

    /// What changed after the save `since` is in one segment, that of the save `now`.
    fn join_runs(&mut self, since: u32, is_oldest: bool, now: u32) {
        let mut joined = Run::default();
        for (_, run) in self.runs.split_off(&(since + 1)) {
            if is_oldest {
                self.forget(&run.tombs);
            }
            for key in run.living.into_iter().chain(run.tombs) {
                let Some(slot) = self.slots.get_mut(&key) else { continue };
                let keys = joined.keys(slot.held.is_some());
                (slot.run, slot.place, slot.sealed) = (now, keys.len(), true);
                keys.push(key);
            }
        }
        self.runs.insert(now, joined);
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
                let keys = self.encoder.encode(&rows.columns()[1..=self.plan.columns.len()])?;
                // Newest first: a key that is known has a newer row.
                let is_new = |key: &[u8]| !self.slots.contains_key(key);
                let newest: Vec<usize> = (0..rows.num_rows()).filter(|&row| is_new(keys.get(row))).collect();
                for (row, held) in newest.iter().zip(read(&rows, &newest)?) {
                    self.living += usize::from(held.is_some());
                    self.add(keys.get(*row).into(), held, save, true);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
