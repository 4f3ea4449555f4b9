//! Maps and lists of a key, of which a save writes the entries that have changed.
//!
//! ```text
//!   struct Visits { seen: MapState<i64, u64> }                  a handle: a name and types, for all keys
//!   key.map(&self.seen) ──► KeyedMap: get, insert, remove …     the entries of this key, in `entries.rs`
//! ```
//!
//! A value is decoded when it is asked for, and encoded when it is given.

use std::{any::TypeId, borrow::Borrow, borrow::Cow, cell::OnceCell, fmt, marker::PhantomData};

use super::{
    State,
    entries::{Cell, Entries, EntryKey},
    key_reader::KeyReader,
    map_key::{KeyBytes, MapKey, bytes_of, key_of, put, take},
    state,
    store::Key,
};
use crate::{OperatorError, typed::type_label};

/// A map per key, by its name: each entry is saved by itself, so that a large map costs what changes in it.
///
/// It is a field of your [`Process`](super::Process) (or a constant), and holds nothing itself:
/// [`Keyed::map`](super::Keyed::map) gives the map of the key. Use it where a key has many entries; a few are simpler as a
/// `BTreeMap` in the [`State`], which is saved as a whole.
///
/// Pages a user sees for the first time:
///
/// ```
/// use typed_arrow::{prelude::*, schema::{BuildRows, SchemaMeta}};
/// use windrow_operators::keyed::{Keyed, MapState, NoSide, Process, ProcessPlan};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema};
///
/// #[derive(Record)]
/// struct Click { user: i64, page: String }
/// #[derive(Record)]
/// struct First { user: i64, pages: u64 }
///
/// #[derive(Clone)]
/// struct Pages { seen: MapState<String, u64> }
///
/// impl Process for Pages {
///     type Row = Click;
///     type State = ();
///     type Output = First;
///     type Side = NoSide;
///
///     fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
///         let mut seen = key.map(&self.seen);
///         let times = seen.get(click.page).unwrap_or(0);
///         seen.insert(click.page, times + 1);
///         let pages = seen.len() as u64;
///         if times == 0 {
///             key.emit(First { user: click.user, pages });
///         }
///     }
/// }
///
/// let clicks = StreamSchema::without_time(Click::schema());
/// let pages = Pages { seen: MapState::new("seen") };
/// let mut operator = ProcessPlan::new(&clicks, &["user"], pages, None).unwrap().whole().unwrap();
///
/// let mut rows = Click::new_builders(4);
/// rows.append_rows(["a", "b", "a", "c"].map(|page| Click { user: 7, page: page.into() }));
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, rows.finish().into_record_batch(), &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>(), 3);
/// ```
///
/// The name is in checkpoints. Within a process each map and list has one of its own; the entries of a name that the program
/// uses no more stay until their key goes. Values have versions as [`State`] has: a map may hold some of an older version, which
/// are brought up to date as they are read.
pub struct MapState<K, V> {
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

/// A list per key, by its name: each item is saved by itself, so that a long list costs what changes in it.
///
/// Like [`MapState`], which says more. [`Keyed::list`](super::Keyed::list) gives the list of the key.
///
/// The sum of the last three amounts:
///
/// ```
/// use typed_arrow::{prelude::*, schema::{BuildRows, SchemaMeta}};
/// use windrow_operators::keyed::{Keyed, ListState, NoSide, Process, ProcessPlan};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema};
///
/// #[derive(Record)]
/// struct Payment { card: i64, amount: i64 }
/// #[derive(Record)]
/// struct Lately { card: i64, sum: i64 }
///
/// const LAST: ListState<i64> = ListState::new("last");
///
/// #[derive(Clone)]
/// struct Three;
///
/// impl Process for Three {
///     type Row = Payment;
///     type State = ();
///     type Output = Lately;
///     type Side = NoSide;
///
///     fn row(&mut self, payment: PaymentView<'_>, key: &mut Keyed<'_, Self>) {
///         let mut last = key.list(&LAST);
///         last.push(payment.amount);
///         if last.len() > 3 {
///             last.pop_front();
///         }
///         let sum = last.iter().sum();
///         key.emit(Lately { card: payment.card, sum });
///     }
/// }
///
/// let payments = StreamSchema::without_time(Payment::schema());
/// let mut operator = ProcessPlan::new(&payments, &["card"], Three, None).unwrap().whole().unwrap();
/// let mut rows = Payment::new_builders(4);
/// rows.append_rows([1, 10, 100, 1_000].map(|amount| Payment { card: 7, amount }));
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, rows.finish().into_record_batch(), &mut out).unwrap();
/// let (_, sums) = out.drain().next().unwrap();
/// use arrow::{array::AsArray, datatypes::Int64Type};
/// assert_eq!(sums.column(1).as_primitive::<Int64Type>().values(), &[1, 11, 111, 1_110]);
/// ```
pub struct ListState<T> {
    name: &'static str,
    types: PhantomData<fn() -> T>,
}

impl<K: MapKey, V: State> MapState<K, V> {
    /// The maps called `name`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }
}

impl<T: State> ListState<T> {
    /// The lists called `name`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }
}

impl<K, V> Clone for MapState<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for MapState<K, V> {}

impl<T> Clone for ListState<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for ListState<T> {}

impl<K, V> fmt::Debug for MapState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapState({:?})", self.name)
    }
}

impl<T> fmt::Debug for ListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListState({:?})", self.name)
    }
}

/// What a map or list needs of its key, and of its operator.
pub(super) struct Access<'a> {
    pub(super) key: &'a Key,
    pub(super) live: &'a mut bool,
    pub(super) changed: &'a mut bool,
    pub(super) entries: &'a mut Entries,
    pub(super) keys: &'a KeyReader,
    pub(super) failed: &'a OnceCell<OperatorError>,
    pub(super) process: fn() -> Cow<'static, str>,
}

/// The entries of one handle of one key. Of one that is used in two ways there are none, and the job fails.
struct Handled<'a> {
    access: Access<'a>,
    name: &'static str,
    handle: Option<u16>,
}

impl<'a> Handled<'a> {
    fn new<H: 'static>(
        access: Access<'a>,
        name: &'static str,
        what: impl Fn() -> String,
        reads: impl Fn(&[u8]) -> bool,
    ) -> Self {
        let handle = access.entries.handle(name, TypeId::of::<H>(), what, reads);
        let handle = handle.map_err(|error| fail(&access, &format!("the state called {error}"))).ok();
        Self { access, name, handle }
    }

    fn cell(&self, entry: &[u8]) -> Option<&Cell> {
        self.access.entries.get(self.access.key, self.handle?, entry)
    }

    fn cells(&self) -> impl DoubleEndedIterator<Item = (&EntryKey, &Cell)> {
        self.handle.into_iter().flat_map(|handle| self.access.entries.iter(self.access.key, handle))
    }

    fn len(&self) -> usize {
        self.handle.map_or(0, |handle| self.access.entries.len(self.access.key, handle))
    }

    /// Notes that an entry cannot be read or written.
    fn fail(&self, entry: &dyn fmt::Debug, error: &dyn fmt::Display) {
        let (name, key) = (self.name, self.access.keys.printed(self.access.key));
        fail(&self.access, &format!("the entry {entry:?} of {name:?} of key ({key}){error}"));
    }

    fn read<V: State>(&self, entry: &dyn fmt::Debug, cell: &Cell) -> Option<V> {
        let value = state::read(cell.version, &cell.bytes).map_err(|error| {
            let (version, now) = (cell.version, V::VERSION);
            self.fail(entry, &format!(", of version {version} (now {now}), cannot be read: {error}"));
        });
        value.ok()
    }

    /// The value of an entry, whose bytes are `entry` and which is printed as `shown`.
    fn get<V: State>(&self, entry: &[u8], shown: &dyn fmt::Debug) -> Option<V> {
        self.read(shown, self.cell(entry)?)
    }

    fn set<V: State>(&mut self, entry: &[u8], shown: &dyn fmt::Debug, value: &V) {
        let Some(handle) = self.handle else { return };
        match state::write(value) {
            Ok(bytes) => {
                let Access { key, live, changed, entries, .. } = &mut self.access;
                entries.set(key, handle, entry, V::VERSION, bytes.into());
                if !**live {
                    (**live, **changed) = (true, true);
                }
            }
            Err(error) => self.fail(shown, &format!(": {error}")),
        }
    }

    fn remove(&mut self, entry: &[u8]) -> bool {
        self.handle.is_some_and(|handle| self.access.entries.remove(self.access.key, handle, entry))
    }

    fn clear(&mut self) {
        if let Some(handle) = self.handle {
            self.access.entries.clear(self.access.key, handle);
        }
    }
}

fn fail(access: &Access<'_>, error: &str) {
    // The first error counts.
    let _ = access.failed.set(OperatorError::Plan(format!("process {}: {error}", (access.process)())));
}

/// The map of one key: what [`Keyed::map`](super::Keyed::map) gives.
///
/// An entry that cannot be read or written fails the job when the call of the process is over; until then it is as if it were
/// not there.
pub struct KeyedMap<'a, K, V> {
    of: Handled<'a>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<'a, K: MapKey, V: State> KeyedMap<'a, K, V> {
    pub(super) fn new(handle: &MapState<K, V>, access: Access<'a>) -> Self {
        let what = || format!("a map of {} to {}", type_label::<K>(), type_label::<V>());
        let reads = |entry: &[u8]| key_of::<K>(entry).is_some();
        Self { of: Handled::new::<MapState<K, V>>(access, handle.name, what, reads), types: PhantomData }
    }

    /// The value of `key`, if it has one.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: KeyBytes + fmt::Debug + ?Sized,
    {
        self.of.get(&bytes_of(key), &key)
    }

    /// Whether `key` has a value. It is not decoded.
    pub fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        self.of.cell(&bytes_of(key)).is_some()
    }

    /// Gives `key` a value, in place of one that it had. From then on the key of the stream takes room, as with
    /// [`Keyed::state_mut`](super::Keyed::state_mut).
    pub fn insert<Q>(&mut self, key: &Q, value: V)
    where
        K: Borrow<Q>,
        Q: KeyBytes + fmt::Debug + ?Sized,
    {
        self.of.set(&bytes_of(key), &key, &value);
    }

    /// Removes `key`; says whether it had a value.
    pub fn remove<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: KeyBytes + ?Sized,
    {
        self.of.remove(&bytes_of(key))
    }

    /// All entries in the order of their keys: numbers and instants from the least, text by its bytes, tuples by their parts.
    /// They are decoded one by one.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (K, V)> {
        self.of.cells().filter_map(|(entry, cell)| {
            let key = key_of::<K>(entry);
            if key.is_none() {
                self.of.fail(entry, &format!(" cannot be read: it is no {}", type_label::<K>()));
            }
            let key = key?;
            let value = self.of.read(&key, cell)?;
            Some((key, value))
        })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.of.clear();
    }
}

/// The list of one key: what [`Keyed::list`](super::Keyed::list) gives.
///
/// An item that cannot be read or written fails the job when the call of the process is over; until then it is as if it were
/// not there.
pub struct KeyedList<'a, T> {
    of: Handled<'a>,
    types: PhantomData<fn() -> T>,
}

/// The letter of the place of an item. Places are numbers without a gap.
const PLACE: u8 = b'#';

fn bytes_of_place(place: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9);
    put(PLACE, &place.to_be_bytes(), &mut bytes);
    bytes
}

fn place_of(mut entry: &[u8]) -> Option<u64> {
    take(PLACE, &mut entry).filter(|_| entry.is_empty()).map(u64::from_be_bytes)
}

impl<'a, T: State> KeyedList<'a, T> {
    pub(super) fn new(handle: &ListState<T>, access: Access<'a>) -> Self {
        let what = || format!("a list of {}", type_label::<T>());
        let reads = |entry: &[u8]| place_of(entry).is_some();
        Self { of: Handled::new::<ListState<T>>(access, handle.name, what, reads), types: PhantomData }
    }

    /// The places of the first and the last item.
    fn ends(&self) -> Option<(u64, u64)> {
        let mut cells = self.of.cells();
        let first = place_of(cells.next()?.0)?;
        Some((first, cells.next_back().map_or(Some(first), |(last, _)| place_of(last))?))
    }

    /// The place of an item, if there is one.
    fn place(&self, at: usize) -> Option<u64> {
        let (first, last) = self.ends()?;
        first.checked_add(at as u64).filter(|place| *place <= last)
    }

    /// Puts an item at the end. From then on the key of the stream takes room, as with
    /// [`Keyed::state_mut`](super::Keyed::state_mut).
    pub fn push(&mut self, item: T) {
        let place = self.ends().map_or(0, |(_, last)| last.saturating_add(1));
        self.of.set(&bytes_of_place(place), &self.len(), &item);
    }

    /// The item `at`, counted from 0 for the first; `None` behind the end.
    pub fn get(&self, at: usize) -> Option<T> {
        self.of.get(&bytes_of_place(self.place(at)?), &at)
    }

    /// Puts `item` in place of the item `at`; says whether there was one.
    pub fn set(&mut self, at: usize, item: T) -> bool {
        let place = self.place(at);
        if let Some(place) = place {
            self.of.set(&bytes_of_place(place), &at, &item);
        }
        place.is_some()
    }

    /// Takes the last item.
    pub fn pop(&mut self) -> Option<T> {
        self.take(self.len().checked_sub(1)?)
    }

    /// Takes the first item.
    pub fn pop_front(&mut self) -> Option<T> {
        self.take(0)
    }

    /// One of the ends: places have no gaps.
    fn take(&mut self, end: usize) -> Option<T> {
        let place = bytes_of_place(self.place(end)?);
        let item = self.of.get(&place, &end);
        self.of.remove(&place);
        item
    }

    /// All items, from the first to the last. They are decoded one by one.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = T> {
        let first = self.ends().map_or(0, |ends| ends.0);
        let cells = self.of.cells();
        cells.filter_map(move |(place, cell)| self.of.read(&place_of(place).map_or(0, |at| at - first), cell))
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all items.
    pub fn clear(&mut self) {
        self.of.clear();
    }
}
