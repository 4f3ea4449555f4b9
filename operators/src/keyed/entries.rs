//! The entries of maps and lists of all keys, in memory and in segments.
//!
//! ```text
//!   key ──► handle ──► entry, ordered ──► Cell { version, bytes, save in which it last changed }
//!                           │ removed
//!                           ▼
//!                         tombs: (key, handle, entry) → save in which it was removed
//!                           │ save: what changed since the last one, from `changed`; older rows that a new segment absorbs, from `log`
//!                           ▼
//!   __key_group │ key columns │ handle │ entry │ version │ state │ …        one row per entry; no state: a tombstone
//! ```
//!
//! A cell has its value in the bytes that are saved. So a save copies bytes, what a map takes in memory is known, and an
//! entry costs one look-up and the decoding of one value, however many there are. A cache of values would hold them twice
//! or encode all that changed at once at the barrier.
//!
//! Segments and tombstones are as in `store.rs`. A save does not look at entries that have not changed: `log` knows the
//! entries of all segments but the oldest, which is written again only with everything else.

use std::{
    any::TypeId,
    collections::{BTreeMap, HashMap, HashSet},
    mem::size_of,
    ops::Bound,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeBinaryArray, RecordBatch, StringArray, UInt32Array, new_null_array},
    datatypes::UInt32Type,
};
use foldhash::fast::RandomState;

use super::{key_reader::KeyReader, store::Key};
use crate::{
    OperatorError, Result,
    state::{
        StateForm, StateReader, StateWriter,
        bounded::{SEGMENT_ROWS, cut},
        segments::{Changes, Segments, key_group_column},
    },
};

/// The bytes of the key of an entry.
pub(super) type EntryKey = Arc<[u8]>;

/// The entries of one handle of one key.
pub(super) type Cells = BTreeMap<EntryKey, Cell>;

/// Of a cell: no segment can have a row of it.
const NEVER: u32 = 0;
/// Not yet in a segment; of a cell: an older segment may have a tombstone of it.
const UNSAVED: u32 = u32::MAX;

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
    /// The save in which it was last written, [`NEVER`] or [`UNSAVED`].
    saved: u32,
    /// Whether it is among those that changed.
    changed: bool,
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
    keys: HashMap<Key, Vec<(u16, Cells)>, RandomState>,
    tombs: HashMap<Id, u32, RandomState>,
    changed: HashSet<Id, RandomState>,
    /// How many cells were last written in each save.
    living: Changes,
    /// What was written in each save after `logged`.
    log: BTreeMap<u32, Vec<Id>>,
    logged: u32,
    segments: Segments,
    cells: usize,
    bytes: usize,
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
        let at = match self.handles.iter().position(|handle| *handle.name == *name) {
            Some(at) => at,
            None => self.add_handle(name, None),
        };
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

    fn add_handle(&mut self, name: &str, sample: Option<EntryKey>) -> usize {
        self.handles.push(Handle { name: name.into(), used: None, sample });
        self.handles.len() - 1
    }

    /// The entries of a handle of a key, if there are any.
    pub(super) fn cells(&self, key: &Key, handle: u16) -> Option<&Cells> {
        self.keys.get(key)?.iter().find(|(other, _)| *other == handle).map(|(_, cells)| cells)
    }

    /// Gives an entry a value.
    pub(super) fn set(&mut self, key: &Key, handle: u16, entry: &[u8], version: u32, bytes: Box<[u8]>) {
        let handles = self.keys.entry(key.clone()).or_default();
        let at = handles.iter().position(|(other, _)| *other == handle).unwrap_or_else(|| {
            handles.push((handle, Cells::new()));
            handles.len() - 1
        });
        let cells = &mut handles[at].1;
        let only = (Bound::Included(entry), Bound::Included(entry));
        if let Some((entry, cell)) = cells.range_mut::<[u8], _>(only).next() {
            if cell.version == version && cell.bytes == bytes {
                return;
            }
            self.bytes = self.bytes - cell.bytes.len() + bytes.len();
            (cell.version, cell.bytes) = (version, bytes);
            if !std::mem::replace(&mut cell.changed, true) {
                self.changed.insert(Id { key: key.clone(), handle, entry: entry.clone() });
            }
            return;
        }
        let entry: EntryKey = entry.into();
        let id = Id { key: key.clone(), handle, entry: entry.clone() };
        // Removed lately, it may be in an older segment; removed again, it must leave a tombstone again.
        let saved = if self.tombs.remove(&id).is_some() { UNSAVED } else { NEVER };
        self.cells += 1;
        self.bytes += entry.len() + bytes.len();
        cells.insert(entry, Cell { version, bytes, saved, changed: true });
        self.changed.insert(id);
    }

    /// Removes an entry; says whether it was there.
    pub(super) fn remove(&mut self, key: &Key, handle: u16, entry: &[u8]) -> bool {
        let Some(handles) = self.keys.get_mut(key) else { return false };
        let Some(at) = handles.iter().position(|(other, _)| *other == handle) else { return false };
        let Some((entry, cell)) = handles[at].1.remove_entry(entry) else { return false };
        if handles[at].1.is_empty() {
            handles.swap_remove(at);
        }
        if handles.is_empty() {
            self.keys.remove(key);
        }
        self.gone(Id { key: key.clone(), handle, entry }, &cell);
        true
    }

    /// Removes all entries of a handle of a key.
    pub(super) fn clear(&mut self, key: &Key, handle: u16) {
        let Some(handles) = self.keys.get_mut(key) else { return };
        let Some(at) = handles.iter().position(|(other, _)| *other == handle) else { return };
        let (_, cells) = handles.swap_remove(at);
        if handles.is_empty() {
            self.keys.remove(key);
        }
        self.all_gone(key, handle, cells);
    }

    /// Removes all entries of a key.
    pub(super) fn forget(&mut self, key: &Key) {
        for (handle, cells) in self.keys.remove(key).unwrap_or_default() {
            self.all_gone(key, handle, cells);
        }
        if self.keys.capacity() > 1024 && self.keys.len() < self.keys.capacity() / 8 {
            self.keys.shrink_to(2 * self.keys.len());
        }
    }

    fn all_gone(&mut self, key: &Key, handle: u16, cells: Cells) {
        for (entry, cell) in cells {
            self.gone(Id { key: key.clone(), handle, entry }, &cell);
        }
    }

    fn gone(&mut self, id: Id, cell: &Cell) {
        self.cells -= 1;
        self.bytes -= id.entry.len() + cell.bytes.len();
        not_in(&mut self.living, cell.saved);
        if cell.saved != NEVER {
            self.changed.insert(id.clone());
            self.tombs.insert(id, UNSAVED);
        } else {
            self.changed.remove(&id);
        }
    }

    fn cell_mut(&mut self, id: &Id) -> Option<&mut Cell> {
        let handles = self.keys.get_mut(&id.key)?;
        handles.iter_mut().find(|(handle, _)| *handle == id.handle)?.1.get_mut(&id.entry)
    }

    fn cell(&self, id: &Id) -> Option<&Cell> {
        self.cells(&id.key, id.handle)?.get(&id.entry)
    }

    /// About how many bytes it takes, without the keys, which are shared with the store.
    pub(super) fn size(&self) -> usize {
        // The key of an entry has two counters before it.
        let cell = size_of::<(EntryKey, Cell)>() + 2 * size_of::<usize>();
        let ids = self.tombs.len() + self.changed.len() + self.log.values().map(Vec::len).sum::<usize>();
        self.cells * cell + self.bytes + ids * size_of::<(Id, u32)>()
    }

    /// Saves the entries that have changed.
    pub(super) fn save(&mut self, state: &mut StateWriter<'_>, form: &StateForm, keys: &KeyReader) -> Result<()> {
        let now = self.segments.begin();
        let changed: Vec<Id> = std::mem::take(&mut self.changed).into_iter().collect();
        for id in &changed {
            if let Some(cell) = self.cell_mut(id) {
                let former = std::mem::replace(&mut cell.saved, now);
                cell.changed = false;
                not_in(&mut self.living, former);
                *self.living.entry(now).or_default() += 1;
            }
        }
        self.forget_tombs();
        let mut changes = self.living.clone();
        for saved in self.tombs.values_mut() {
            *saved = if *saved == UNSAVED { now } else { *saved };
            *changes.entry(*saved).or_default() += 1;
        }
        if !changed.is_empty() {
            self.log.insert(now, changed);
        }
        let mut segments = std::mem::take(&mut self.segments);
        let oldest = segments.start();
        let sealed = segments.finish(state, &changes, |since| {
            let living = if since < self.logged { self.all_since(since) } else { self.logged_since(since) };
            // In the oldest segment tombstones hide nothing, but it may have nothing else.
            let with_tombs = since > oldest || living.is_empty();
            let tombs = self.tombs.iter().filter(|(_, saved)| with_tombs && **saved > since);
            let ids: Vec<Id> = living.into_iter().chain(tombs.map(|(id, _)| id.clone())).collect();
            self.batches(&ids, form, keys)
        });
        self.segments = segments;
        self.forget_log();
        sealed
    }

    /// Forgets the tombstones that hide nothing, as `Store` does.
    fn forget_tombs(&mut self) {
        if self.tombs.is_empty() {
            return;
        }
        for end in self.segments.ends() {
            self.tombs.retain(|_, saved| *saved == UNSAVED || *saved > end);
            if self.living.range(1..=end).any(|(_, cells)| *cells > 0) {
                return;
            }
        }
        self.tombs = HashMap::default();
    }

    /// The oldest segment needs no log: with it everything is written.
    fn forget_log(&mut self) {
        self.logged = self.segments.ends().next().unwrap_or(self.segments.next() - 1);
        self.log = self.log.split_off(&(self.logged + 1));
    }

    /// All cells that were last written after the save `since`.
    fn all_since(&self, since: u32) -> Vec<Id> {
        let cells = self.keys.iter().flat_map(|(key, handles)| {
            handles
                .iter()
                .flat_map(move |(handle, cells)| cells.iter().map(move |(entry, cell)| (key, *handle, entry, cell)))
        });
        let cells = cells.filter(|(.., cell)| cell.saved > since);
        cells.map(|(key, handle, entry, _)| Id { key: key.clone(), handle, entry: entry.clone() }).collect()
    }

    /// The same from the log, which from then on has no others of these saves.
    fn logged_since(&mut self, since: u32) -> Vec<Id> {
        let mut all = Vec::new();
        for (save, mut ids) in self.log.split_off(&(since + 1)) {
            ids.retain(|id| self.cell(id).is_some_and(|cell| cell.saved == save));
            all.extend_from_slice(&ids);
            if !ids.is_empty() {
                self.log.insert(save, ids);
            }
        }
        all
    }

    /// A row for each entry, a tombstone for one that is not there, in as many batches as they need.
    fn batches(&self, ids: &[Id], form: &StateForm, keys: &KeyReader) -> Result<Vec<RecordBatch>> {
        let bytes = |id: &Id| id.key.len() + id.entry.len() + self.cell(id).map_or(0, |cell| cell.bytes.len());
        cut(ids.iter().map(bytes), SEGMENT_ROWS).into_iter().map(|range| self.batch(&ids[range], form, keys)).collect()
    }

    fn batch(&self, ids: &[Id], form: &StateForm, keys: &KeyReader) -> Result<RecordBatch> {
        let key = keys.columns(ids.iter().map(|id| &id.key))?;
        let names: StringArray = ids.iter().map(|id| Some(&*self.handles[usize::from(id.handle)].name)).collect();
        let entries = LargeBinaryArray::from_iter_values(ids.iter().map(|id| &id.entry));
        let versions: UInt32Array = ids.iter().map(|id| self.cell(id).map(|cell| cell.version)).collect();
        let states: LargeBinaryArray = ids.iter().map(|id| self.cell(id).map(|cell| &cell.bytes)).collect();
        let mut all = vec![key_group_column(&key, ids.len())?];
        all.extend(key);
        let entries: [ArrayRef; 4] = [Arc::new(names), Arc::new(entries), Arc::new(versions), Arc::new(states)];
        all.extend(entries);
        let rest = form.columns.fields().iter().skip(all.len());
        all.extend(rest.map(|field| new_null_array(field.data_type(), ids.len())).collect::<Vec<_>>());
        Ok(RecordBatch::try_new(form.columns.clone(), all)?)
    }

    /// Becomes what former tasks were. `state` has segments of entries only.
    pub(super) fn load(&mut self, state: &StateReader, form: &StateForm, keys: &KeyReader) -> Result<()> {
        let (segments, parts) = Segments::load(state);
        self.segments = segments;
        self.forget_log();
        for former in parts {
            for (save, rows) in former.segments {
                self.load_segment(save, &form.widen(rows)?, keys)?;
            }
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
        let mut former: Option<(usize, Key)> = None;
        for row in 0..rows.num_rows() {
            // Rows of one key often stand together.
            let same = former.take().filter(|(other, _)| key.get(*other) == key.get(row));
            let own = same.map_or_else(|| key.get(row).into(), |(_, own)| own);
            former = Some((row, own.clone()));
            let entry: EntryKey = entries.value(row).into();
            let name = names.value(row);
            let handle = match self.handles.iter().position(|handle| *handle.name == *name) {
                Some(at) => at,
                None => self.add_handle(name, Some(entry.clone())),
            };
            let handle = u16::try_from(handle).map_err(|_| damaged())?;
            let id = Id { key: own, handle, entry };
            if self.tombs.contains_key(&id) || self.cell(&id).is_some() {
                continue;
            }
            if states.is_null(row) {
                self.tombs.insert(id, save);
                continue;
            }
            self.restore(id, versions.value(row), states.value(row).into(), save);
        }
        Ok(())
    }

    fn restore(&mut self, id: Id, version: u32, bytes: Box<[u8]>, saved: u32) {
        if saved > self.logged {
            self.log.entry(saved).or_default().push(id.clone());
        }
        *self.living.entry(saved).or_default() += 1;
        self.cells += 1;
        self.bytes += id.entry.len() + bytes.len();
        let handles = self.keys.entry(id.key).or_default();
        let at = handles.iter().position(|(handle, _)| *handle == id.handle).unwrap_or_else(|| {
            handles.push((id.handle, Cells::new()));
            handles.len() - 1
        });
        handles[at].1.insert(id.entry, Cell { version, bytes, saved, changed: false });
    }
}

/// A cell is no more one of those that were last written in the save `saved`.
fn not_in(living: &mut Changes, saved: u32) {
    if saved != NEVER
        && saved != UNSAVED
        && let Some(cells) = living.get_mut(&saved)
    {
        *cells -= 1;
        if *cells == 0 {
            living.remove(&saved);
        }
    }
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
