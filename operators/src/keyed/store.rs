//! What an operator holds per key, in memory and in segments.
//!
//! ```text
//!   key columns ──encode──► bytes ──► HashMap: bytes → place ──► Kept: what is held, or nothing: a tombstone
//!                                                                  │ save: what has changed
//!                                                                  ▼
//!   __key_group │ key columns │ columns of the holder      one row per key; all null in the holder's columns: a tombstone
//! ```
//!
//! What changed, segments and tombstones are in `kept.rs`.

use std::{collections::HashMap, mem::size_of, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{DataType, Field, FieldRef, Schema},
};
use foldhash::fast::RandomState;

use super::kept::Kept;
pub(crate) use crate::key::bytes::Key;
use crate::{
    OperatorError, Result, StreamSchema,
    key::{
        check_key,
        encoded::{KeyBytes, KeyEncoder},
    },
    state::{KEY_GROUP, Reading, Rule, StateForm, StateReader, StateWriter, segments::key_group_column},
};

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

/// An `E` for each key.
pub(crate) struct Store<E> {
    plan: KeyPlan,
    encoder: KeyEncoder,
    /// Where each key is kept, those with a tombstone too.
    places: HashMap<Key, u32, RandomState>,
    kept: Kept<Key, E>,
    /// The bytes of long keys.
    key_bytes: usize,
}

impl<E: Default> Store<E> {
    pub(crate) fn new(plan: &KeyPlan) -> Result<Self> {
        Ok(Self {
            encoder: KeyEncoder::new(plan.key_fields().iter().map(|field| field.data_type()))?,
            places: HashMap::default(),
            kept: Kept::default(),
            key_bytes: 0,
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
        let at = self.places.get(key).copied();
        if let Some(at) = at
            && let Some((key, held)) = self.kept.get_mut(at)
        {
            let fate = act(key, held);
            return self.settle(at, fate);
        }
        let key = Key::from(key);
        let mut held = E::default();
        if act(&key, &mut held) == Fate::Changed {
            match at {
                Some(tomb) => self.kept.revive(tomb, held),
                None => {
                    let at = self.kept.add(key.clone(), held);
                    self.place(key, at);
                }
            }
        }
    }

    /// Looks at what `key` holds, if anything.
    pub(crate) fn existing(&mut self, key: &[u8], act: impl FnOnce(&mut E) -> Fate) {
        let Some(&at) = self.places.get(key) else { return };
        let Some((_, held)) = self.kept.get_mut(at) else { return };
        let fate = act(held);
        self.settle(at, fate);
    }

    fn settle(&mut self, at: u32, fate: Fate) {
        match fate {
            Fate::Same => {}
            Fate::Changed => self.kept.changed(at),
            Fate::Removed => {
                let gone = self.kept.remove(at);
                self.forget(gone);
            }
        }
    }

    fn place(&mut self, key: Key, at: u32) {
        self.key_bytes += key.elsewhere();
        self.places.insert(key, at);
    }

    /// Forgets the places of keys that are kept no more.
    fn forget(&mut self, gone: impl IntoIterator<Item = Key>) {
        for key in gone {
            self.key_bytes -= key.elsewhere();
            self.places.remove(&key);
        }
        if let Some(places) = self.kept.shrink() {
            self.places.values_mut().for_each(|at| *at = places[*at as usize]);
            self.places.shrink_to(2 * self.places.len());
        }
    }

    /// What a key holds, if anything.
    pub(crate) fn get(&self, key: &[u8]) -> Option<(&Key, &E)> {
        self.places.get(key).and_then(|at| self.kept.get(*at))
    }

    /// All keys that hold something. What changes here is not saved for it.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut E)> {
        self.kept.iter_mut()
    }

    /// How many keys hold something.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// About how many bytes it takes, without what an `E` points to.
    pub(crate) fn size(&self) -> usize {
        self.kept.size() + size_of::<(Key, u32)>() * self.places.len() + self.key_bytes
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
        mut columns: impl FnMut(&[Option<&E>]) -> Result<Vec<ArrayRef>>,
    ) -> Result<()> {
        let Self { plan, encoder, kept, .. } = self;
        let bytes = |key: &Key, held: Option<&E>| key.len() + held.map_or(0, &bytes);
        let batch = |rows: &[(&Key, Option<&E>)]| {
            let held: Vec<Option<&E>> = rows.iter().map(|(_, held)| *held).collect();
            let key = encoder.decode(rows.iter().map(|(key, _)| &***key))?;
            let mut all = vec![key_group_column(&key, rows.len())?];
            all.extend(key);
            all.extend(columns(&held)?);
            Ok(RecordBatch::try_new(plan.form.columns.clone(), all)?)
        };
        let gone = kept.save(state, bytes, batch)?;
        self.forget(gone);
        Ok(())
    }

    /// Becomes what former tasks were. `read` gives what the rows of a segment hold that are asked for, `None` for a
    /// tombstone.
    pub(crate) fn load(
        &mut self,
        state: &StateReader,
        mut read: impl FnMut(&RecordBatch, &[usize]) -> Result<Vec<Option<E>>>,
    ) -> Result<()> {
        for (save, rows) in self.kept.load(state) {
            let rows = self.plan.form.widen(rows)?;
            let keys = self.encoder.encode(&rows.columns()[1..=self.plan.columns.len()])?;
            // Newest first: a key that is known has a newer row.
            let is_new = |key: &[u8]| !self.places.contains_key(key);
            let newest: Vec<usize> = (0..rows.num_rows()).filter(|&row| is_new(keys.get(row))).collect();
            self.places.reserve(newest.len());
            for (row, held) in newest.iter().zip(read(&rows, &newest)?) {
                let key = Key::from(keys.get(*row));
                let at = self.kept.restore(key.clone(), held, save);
                self.place(key, at);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
