//! The entries of maps and lists of all keys, in memory and in segments.
//!
//! ```text
//!   key ──► handle ──► entry, ordered ──► place ──┬──► Kept: Cell { version, bytes }, or nothing: a tombstone
//!   tombs: (key, handle, entry) ──────────────────┘      │ save: what has changed
//!                                                        ▼
//!   __key_group │ key columns │ handle │ entry │ version │ state │ …        one row per entry; no state: a tombstone
//! ```
//!
//! A cell has its value in the bytes that are saved. So a save copies bytes, what a map takes in memory is known, and an
//! entry costs one look-up and the decoding of one value, however many there are. A cache of values would hold them twice
//! or encode all that changed at once at the barrier.
//!
//! What changed, segments and tombstones are in `kept.rs`.

use std::{
    any::TypeId,
    collections::{BTreeMap, HashMap},
    mem::size_of,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeBinaryArray, RecordBatch, StringArray, UInt32Array, new_null_array},
    datatypes::UInt32Type,
};
use foldhash::fast::RandomState;

use super::{
    kept::{Kept, is_slack},
    key_reader::KeyReader,
    store::Key,
};
use crate::{
    OperatorError, Result,
    state::{StateForm, StateReader, StateWriter, segments::key_group_column},
};

/// The bytes of the key of an entry.
pub(super) type EntryKey = Key;

/// Where the entries of one handle of one key are kept.
pub(super) type Places = BTreeMap<EntryKey, u32>;

/// Names one entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Id {
    key: Key,
    handle: u16,
    entry: EntryKey,
}

/// What an entry holds.
#[derive(Debug)]
pub(super) struct Cell {
    /// The version of the state that wrote it.
    pub(super) version: u32,
    pub(super) bytes: Box<[u8]>,
}

/// A name that maps or lists of keys have.
#[derive(Debug)]
struct Handle {
    name: Arc<str>,
    /// The type it is used as, once it is, and that type in words.
    used: Option<(TypeId, String)>,
    /// An entry that was restored: what it is used as has to be able to read it.
    sample: Option<EntryKey>,
}

/// The entries of all keys.
#[derive(Debug, Default)]
pub(super) struct Entries {
    handles: Vec<Handle>,
    keys: Keys,
    /// Where tombstones are kept.
    tombs: HashMap<Id, u32, RandomState>,
    kept: Kept<Id, Cell>,
    /// The bytes of values, and of long keys of entries.
    bytes: usize,
}

type Keys = HashMap<Key, Vec<(u16, Places)>, RandomState>;

/// The places of a handle of a key, to which one is to be added.
fn places<'a>(keys: &'a mut Keys, key: &Key, handle: u16) -> &'a mut Places {
    let handles = keys.entry(key.clone()).or_default();
    let at = handles.iter().position(|(other, _)| *other == handle).unwrap_or_else(|| {
        handles.push((handle, Places::new()));
        handles.len() - 1
    });
    &mut handles[at].1
}

impl Entries {
    /// The number of the handle `name`, which is used as the type `used`, `what` in words; its entries are to pass `reads`.
    pub(super) fn handle(
        &mut self,
        name: &str,
        used: TypeId,
        what: impl Fn() -> String,
        reads: impl Fn(&[u8]) -> bool,
    ) -> Result<u16, String> {
        let at = self.number_of(name);
        let handle = &mut self.handles[at];
        match &handle.used {
            Some((other, _)) if *other == used => {}
            Some((_, other)) => {
                return Err(format!("{name:?} is used as {} and as {other}: give each a name of its own", what()));
            }
            None if handle.sample.take().is_some_and(|sample| !reads(&sample)) => {
                return Err(format!(
                    "{name:?} is {} now, but what was saved under this name has other entries: give it another name",
                    what()
                ));
            }
            None => handle.used = Some((used, what())),
        }
        u16::try_from(at).map_err(|_| format!("{name:?} is one of more than 65536 names of maps and lists"))
    }

    fn number_of(&mut self, name: &str) -> usize {
        self.handles.iter().position(|handle| *handle.name == *name).unwrap_or_else(|| {
            self.handles.push(Handle { name: name.into(), used: None, sample: None });
            self.handles.len() - 1
        })
    }

    fn places(&self, key: &Key, handle: u16) -> Option<&Places> {
        self.keys.get(key)?.iter().find(|(other, _)| *other == handle).map(|(_, places)| places)
    }

    /// An entry, if it is there.
    pub(super) fn get(&self, key: &Key, handle: u16, entry: &[u8]) -> Option<&Cell> {
        Some(self.kept.get(*self.places(key, handle)?.get(entry)?)?.1)
    }

    /// The entries of a handle of a key, in order.
    pub(super) fn iter(&self, key: &Key, handle: u16) -> impl DoubleEndedIterator<Item = (&EntryKey, &Cell)> {
        let places = self.places(key, handle).into_iter().flatten();
        places.filter_map(|(entry, at)| Some((entry, self.kept.get(*at)?.1)))
    }

    /// How many entries a handle of a key has.
    pub(super) fn len(&self, key: &Key, handle: u16) -> usize {
        self.places(key, handle).map_or(0, Places::len)
    }

    /// Gives an entry a value.
    pub(super) fn set(&mut self, key: &Key, handle: u16, entry: &[u8], version: u32, bytes: Box<[u8]>) {
        let Self { keys, tombs, kept, .. } = self;
        let places = places(keys, key, handle);
        if let Some(&at) = places.get(entry) {
            let Some((_, cell)) = kept.get_mut(at).filter(|(_, cell)| cell.version != version || cell.bytes != bytes)
            else {
                return;
            };
            self.bytes = self.bytes - cell.bytes.len() + bytes.len();
            *cell = Cell { version, bytes };
            kept.changed(at);
            return;
        }
        let entry = EntryKey::from(entry);
        let id = Id { key: key.clone(), handle, entry: entry.clone() };
        self.bytes += entry.elsewhere() + bytes.len();
        let cell = Cell { version, bytes };
        let at = match tombs.remove(&id) {
            Some(tomb) => {
                kept.revive(tomb, cell);
                tomb
            }
            None => kept.add(id, cell),
        };
        places.insert(entry, at);
    }

    /// Removes an entry; says whether it was there.
    pub(super) fn remove(&mut self, key: &Key, handle: u16, entry: &[u8]) -> bool {
        let Some(handles) = self.keys.get_mut(key) else { return false };
        let Some(own) = handles.iter().position(|(other, _)| *other == handle) else { return false };
        let Some(at) = handles[own].1.remove(entry) else { return false };
        if handles[own].1.is_empty() {
            handles.swap_remove(own);
        }
        if handles.is_empty() {
            self.keys.remove(key);
        }
        self.gone([at]);
        true
    }

    /// Removes all entries of a handle of a key.
    pub(super) fn clear(&mut self, key: &Key, handle: u16) {
        let Some(handles) = self.keys.get_mut(key) else { return };
        let Some(own) = handles.iter().position(|(other, _)| *other == handle) else { return };
        let (_, places) = handles.swap_remove(own);
        if handles.is_empty() {
            self.keys.remove(key);
        }
        self.gone(places.into_values());
    }

    /// Removes all entries of a key.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(handles) = self.keys.remove(key) {
            self.gone(handles.into_iter().flat_map(|(_, places)| places.into_values()));
        }
    }

    /// Removes what is kept at places that no key has any more.
    fn gone(&mut self, places: impl IntoIterator<Item = u32>) {
        for at in places {
            let Some((id, cell)) = self.kept.get(at) else { continue };
            self.bytes -= id.entry.elsewhere() + cell.bytes.len();
            let id = id.clone();
            if self.kept.remove(at).is_none() {
                self.tombs.insert(id, at);
            }
        }
        self.shrink();
    }

    /// Gives back room that is needed no more.
    fn shrink(&mut self) {
        let Self { keys, tombs, kept, .. } = self;
        if is_slack(keys.capacity(), keys.len()) {
            keys.shrink_to(2 * keys.len());
        }
        if is_slack(tombs.capacity(), tombs.len()) {
            tombs.shrink_to(2 * tombs.len());
        }
        if let Some(places) = kept.shrink() {
            let cells = keys.values_mut().flatten().flat_map(|(_, cells)| cells.values_mut());
            cells.chain(tombs.values_mut()).for_each(|at| *at = places[*at as usize]);
        }
    }

    /// About how many bytes it takes, without the long keys, which are shared with the store.
    pub(super) fn size(&self) -> usize {
        let places = self.kept.len() * size_of::<(EntryKey, u32)>() + self.tombs.len() * size_of::<(Id, u32)>();
        self.kept.size() + places + self.bytes
    }

    /// Saves the entries that have changed.
    pub(super) fn save(&mut self, state: &mut StateWriter<'_>, form: &StateForm, keys: &KeyReader) -> Result<()> {
        let Self { handles, kept, .. } = self;
        let bytes =
            |id: &Id, cell: Option<&Cell>| id.key.len() + id.entry.len() + cell.map_or(0, |cell| cell.bytes.len());
        for id in kept.save(state, bytes, |rows| batch(handles, rows, form, keys))? {
            self.tombs.remove(&id);
        }
        self.shrink();
        Ok(())
    }

    /// Becomes what former tasks were. `state` has segments of entries only.
    pub(super) fn load(&mut self, state: &StateReader, form: &StateForm, keys: &KeyReader) -> Result<()> {
        for (save, rows) in self.kept.load(state) {
            self.load_segment(save, &form.widen(rows)?, keys)?;
        }
        Ok(())
    }

    /// Newest first: an entry that is known has a newer row.
    fn load_segment(&mut self, save: u32, rows: &RecordBatch, keys: &KeyReader) -> Result<()> {
        let columns = rows.columns();
        let at = 1 + keys.fields().len();
        let key = keys.keys(&columns[1..at])?;
        let damaged = || OperatorError::Internal("a segment of entries that has not their columns".into());
        let names = columns[at].as_string_opt::<i32>().ok_or_else(damaged)?;
        let entries = columns[at + 1].as_binary_opt::<i64>().ok_or_else(damaged)?;
        let versions = columns[at + 2].as_primitive_opt::<UInt32Type>().ok_or_else(damaged)?;
        let states = columns[at + 3].as_binary_opt::<i64>().ok_or_else(damaged)?;
        for row in 0..rows.num_rows() {
            let number = self.number_of(names.value(row));
            let handle = u16::try_from(number).map_err(|_| damaged())?;
            // Entries of a long key share it.
            let known = self.keys.get_key_value(key.get(row));
            let key = known.map_or_else(|| key.get(row).into(), |(key, _)| key.clone());
            let id = Id { key, handle, entry: entries.value(row).into() };
            if self.tombs.contains_key(&id) || self.get(&id.key, handle, &id.entry).is_some() {
                continue;
            }
            if states.is_null(row) {
                let at = self.kept.restore(id.clone(), None, save);
                self.tombs.insert(id, at);
                continue;
            }
            self.handles[number].sample.get_or_insert_with(|| id.entry.clone());
            let cell = Cell { version: versions.value(row), bytes: states.value(row).into() };
            self.bytes += id.entry.elsewhere() + cell.bytes.len();
            let at = self.kept.restore(id.clone(), Some(cell), save);
            places(&mut self.keys, &id.key, handle).insert(id.entry, at);
        }
        Ok(())
    }
}

/// A row for each entry, a tombstone for one that is not there.
fn batch(handles: &[Handle], rows: &[(&Id, Option<&Cell>)], form: &StateForm, keys: &KeyReader) -> Result<RecordBatch> {
    let key = keys.columns(rows.iter().map(|(id, _)| &id.key))?;
    let names: StringArray = rows.iter().map(|(id, _)| Some(&*handles[usize::from(id.handle)].name)).collect();
    let entries = LargeBinaryArray::from_iter_values(rows.iter().map(|(id, _)| &*id.entry));
    let versions: UInt32Array = rows.iter().map(|(_, cell)| cell.map(|cell| cell.version)).collect();
    let states: LargeBinaryArray = rows.iter().map(|(_, cell)| cell.map(|cell| &cell.bytes)).collect();
    let mut all = vec![key_group_column(&key, rows.len())?];
    all.extend(key);
    let entries: [ArrayRef; 4] = [Arc::new(names), Arc::new(entries), Arc::new(versions), Arc::new(states)];
    all.extend(entries);
    let rest = form.columns.fields().iter().skip(all.len());
    all.extend(rest.map(|field| new_null_array(field.data_type(), rows.len())).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(form.columns.clone(), all)?)
}

/// The state of the keys and that of their entries: segments have rows of one of them. Each has all segments, those of the other
/// without rows, so that the segments of several former tasks are never taken for those of one.
pub(super) fn apart(state: &StateReader, key_columns: usize) -> (StateReader, StateReader) {
    let of_entries = |rows: &RecordBatch| rows.num_rows() > 0 && rows.column(1 + key_columns).is_valid(0);
    let only = |entries: bool| {
        let mut state = state.clone();
        for (_, rows) in state.parts.iter_mut().flat_map(|part| &mut part.segments) {
            if of_entries(rows) != entries {
                *rows = rows.slice(0, 0);
            }
        }
        state
    };
    (only(false), only(true))
}
