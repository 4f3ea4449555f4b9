//! The groups of one slice: keys interned by a `GroupValues`, ours or DataFusion's, and the accumulators of their aggregates.

use std::cell::Cell;

use arrow::{
    array::{ArrayRef, BooleanArray, UInt32Array},
    compute::{concat, filter, take},
    datatypes::SchemaRef,
};
use datafusion_expr::EmitTo;
use datafusion_physical_plan::aggregates::group_values::GroupValues;

use super::{
    direct::group_values,
    given::{COLUMNS, Given},
    saved::{Saved, rows_of_new},
};
use crate::{
    OperatorError, Result,
    aggregates::{Accumulators, Aggregates, Arguments},
    state::{
        bounded::{bytes_of, cut},
        segments::Changes,
    },
};

/// An emptied table that holds more than this is not kept for the next slice.
const SPARE_BYTES: usize = 16 << 20;
/// And under a memory budget, what holds more than this part of it.
const SPARE_PART: usize = 16;

/// How many groups a slice has, their keys and their states.
pub(super) type States = (usize, Vec<ArrayRef>, Vec<ArrayRef>);

/// Makes the tables of an operator's slices. Emptied hash maps are used again: growing one for every slice costs more
/// than clearing it.
pub(crate) struct Tables {
    key: SchemaRef,
    spare: Option<Box<dyn GroupValues>>,
    /// How large that may be.
    spare_bytes: usize,
    /// Whether tables are to be saved. A job without checkpoints must not pay for them.
    recording: bool,
    /// Whether the groups of a table give more than one result each.
    revising: bool,
}

/// The results of some groups: their keys, the revision of each, and the values of the aggregates.
pub(super) struct Revised {
    pub(super) key: Vec<ArrayRef>,
    pub(super) revision: ArrayRef,
    pub(super) values: Vec<ArrayRef>,
}

impl Tables {
    pub(crate) fn new(key: SchemaRef) -> Self {
        Self { key, spare: None, spare_bytes: SPARE_BYTES, recording: false, revising: false }
    }

    /// Tables whose groups give more than one result each. They note keys from the beginning: a result needs them.
    pub(super) fn revising(key: SchemaRef) -> Self {
        Self { recording: true, revising: true, ..Self::new(key) }
    }

    /// A table that can be saved, if there are saves.
    pub(crate) fn table(&mut self, aggregates: &Aggregates) -> Result<GroupTable> {
        let table = self.passing(aggregates)?;
        let given = self.revising.then(Given::default);
        Ok(GroupTable { saved: self.recording.then(Saved::default), given, ..table })
    }

    /// A table that is gone before the next save.
    pub(super) fn passing(&mut self, aggregates: &Aggregates) -> Result<GroupTable> {
        let keys = match (self.key.fields().is_empty(), self.spare.take()) {
            (true, _) => None,
            (false, Some(spare)) => Some(spare),
            (false, None) => Some(group_values(self.key.clone())?),
        };
        let accumulators = Accumulators::new(aggregates)?;
        Ok(GroupTable { keys, accumulators, rows: 0, saved: None, given: None, sized: Cell::default() })
    }

    /// Keeps no emptied table that is large for so much memory.
    pub(super) fn within(&mut self, bytes: usize) {
        self.spare_bytes = SPARE_BYTES.min(bytes / SPARE_PART);
        self.spare = self.spare.take().filter(|keys| keys.size() <= self.spare_bytes);
    }

    /// Makes tables that can be saved, from now on. Returns whether that is new.
    pub(super) fn record(&mut self) -> bool {
        !std::mem::replace(&mut self.recording, true)
    }

    /// Makes a table that was there before the first save into one that can be saved. All its groups count as changed.
    pub(super) fn recorded(
        &mut self,
        table: &mut GroupTable,
        aggregates: &Aggregates,
        now: u32,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        let former = std::mem::replace(table, self.table(aggregates)?);
        let rows = former.groups();
        let (key, states) = self.states(former)?;
        table.restore(&key, &states, rows, now, scratch)
    }

    /// What is left of a table when no more rows come for it: its keys and states. What has changed since the last save
    /// counts as changed in the save `now`, the next one.
    pub(super) fn close(&mut self, mut table: GroupTable, now: u32) -> Result<Saved> {
        let (groups, rows) = (table.groups(), table.rows);
        let Some(mut saved) = table.saved.take() else {
            let (key, states) = self.states(table)?;
            return Ok(Saved::new(key, states, groups, now));
        };
        if saved.rows == rows {
            self.take_keys(table)?;
        } else {
            let (_, states) = self.states(table)?;
            saved.compare(states, groups, now)?;
            saved.rows = rows;
        }
        Ok(saved)
    }

    /// The keys and the final values of all groups of a table.
    pub(crate) fn results(&mut self, mut table: GroupTable) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let values = table.accumulators.values()?;
        Ok((self.take_keys(table)?, values))
    }

    /// The last results of a table: those of the groups that have changed since their last one, if there are any.
    pub(super) fn last_results(&mut self, mut table: GroupTable) -> Result<Option<Revised>> {
        let due = UInt32Array::from(table.given()?.due(1));
        if due.is_empty() {
            // For the spare: not all kinds forget their keys without giving them.
            self.take_keys(table)?;
            return Ok(None);
        }
        let revision = table.given()?.revisions(&due);
        let groups = table.groups();
        let (key, values) = self.results(table)?;
        if due.len() == groups {
            return Ok(Some(Revised { key, revision, values }));
        }
        Ok(Some(Revised { key: rows_of(&key, &due)?, revision, values: rows_of(&values, &due)? }))
    }

    /// The keys, the final values and, in the order of the groups, the states, which an accumulator gives only once.
    pub(super) fn results_and_states(
        &mut self,
        mut table: GroupTable,
        aggregates: &Aggregates,
        scratch: &mut Vec<usize>,
    ) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>, Vec<ArrayRef>)> {
        let groups = table.groups();
        scratch.clear();
        scratch.extend(0..groups);
        let states = table.accumulators.states()?;
        let mut again = Accumulators::new(aggregates)?;
        again.merge(&states, scratch, groups)?;
        let values = again.values()?;
        Ok((self.take_keys(table)?, values, states))
    }

    /// The keys and the states of all groups of a table.
    pub(crate) fn states(&mut self, mut table: GroupTable) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let states = table.accumulators.states()?;
        Ok((self.take_keys(table)?, states))
    }

    /// The keys of a table. What held them is used for the next.
    pub(super) fn take_keys(&mut self, table: GroupTable) -> Result<Vec<ArrayRef>> {
        let Some(mut keys) = table.keys else { return Ok(Vec::new()) };
        let groups = keys.len();
        let columns = keys.emit(EmitTo::All)?;
        // Not all kinds forget their keys when they emit them.
        keys.clear_shrink(groups);
        if keys.size() <= self.spare_bytes {
            self.spare = Some(keys);
        }
        Ok(columns)
    }
}

fn rows_of(columns: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    Ok(columns.iter().map(|column| take(column, rows, None)).collect::<Result<_, _>>()?)
}

/// Groups and their aggregates.
pub(crate) struct GroupTable {
    /// `None` when there are no key columns: all rows are one group.
    keys: Option<Box<dyn GroupValues>>,
    accumulators: Accumulators,
    rows: usize,
    /// What it was at the last save.
    saved: Option<Saved>,
    /// Which results its groups have given, if they give more than one.
    given: Option<Given>,
    /// How many rows it had when its bytes were last counted, and how many these were.
    sized: Cell<(usize, usize)>,
}

impl GroupTable {
    pub(crate) fn groups(&self) -> usize {
        self.keys.as_ref().map_or(1, |keys| keys.len())
    }

    /// How many rows (or states) have gone into it.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes it holds and is. Some accumulators count group by group, so it asks them again only when there is an
    /// eighth more than when it last did.
    pub(super) fn size(&self) -> usize {
        let (rows, bytes) = self.sized.get();
        if rows > 0 && self.rows <= rows + rows / 8 {
            return bytes;
        }
        let keys = self.keys.as_ref().map_or(0, |keys| size_of_val(&**keys) + keys.size());
        let saved = self.saved.as_ref().map_or(0, Saved::size);
        let given = self.given.as_ref().map_or(0, Given::size);
        let bytes = size_of::<Self>() + keys + saved + given + self.accumulators.size();
        self.sized.set((self.rows, bytes));
        bytes
    }

    /// Adds rows. `scratch` is reused between calls.
    pub(crate) fn update(
        &mut self,
        key: &[ArrayRef],
        arguments: &Arguments,
        rows: usize,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        let groups = self.intern(key, rows, scratch)?;
        self.accumulators.update(arguments, scratch, groups)?;
        if let Some(given) = &mut self.given {
            given.count(scratch, groups);
        }
        Ok(())
    }

    /// Counts rows that came to these keys, of a table that knows nothing but what its groups have given. Afterwards `scratch`
    /// has the group of each row.
    pub(super) fn count(&mut self, key: &[ArrayRef], rows: usize, scratch: &mut Vec<usize>) -> Result<()> {
        let groups = self.intern(key, rows, scratch)?;
        self.given()?.count(scratch, groups);
        Ok(())
    }

    /// Adds to such a table the keys that it does not have yet. They count as changed.
    pub(super) fn add_changed(&mut self, key: &[ArrayRef], rows: usize, scratch: &mut Vec<usize>) -> Result<()> {
        if rows > 0 {
            let groups = self.intern(key, rows, scratch)?;
            self.given()?.add_changed(groups);
        }
        Ok(())
    }

    /// The keys of these groups, and the revisions of the results that they give now.
    pub(super) fn give(&mut self, due: &UInt32Array) -> Result<(Vec<ArrayRef>, ArrayRef)> {
        let key = rows_of(self.saved()?.all()?.1, due)?;
        Ok((key, self.given()?.revisions(due)))
    }

    /// The results of these groups, which stay as they are.
    ///
    /// An accumulator gives values or states only by giving up all of them. So its states go into a new one, and those of the
    /// groups that are due into another that makes values of them.
    pub(super) fn revise(
        &mut self,
        due: Vec<u32>,
        aggregates: &Aggregates,
        scratch: &mut Vec<usize>,
    ) -> Result<Revised> {
        let (groups, due) = (self.groups(), UInt32Array::from(due));
        scratch.clear();
        scratch.extend(0..groups);
        let states = self.accumulators.states()?;
        self.accumulators = Accumulators::new(aggregates)?;
        self.accumulators.merge(&states, scratch, groups)?;
        let mut passing = Accumulators::new(aggregates)?;
        passing.merge(&rows_of(&states, &due)?, &scratch[..due.len()], due.len())?;
        let values = passing.values()?;
        let (key, revision) = self.give(&due)?;
        Ok(Revised { key, revision, values })
    }

    /// Which results its groups have given.
    pub(super) fn given(&mut self) -> Result<&mut Given> {
        let missing = || OperatorError::Internal("the groups of a table give one result each".into());
        self.given.as_mut().ok_or_else(missing)
    }

    /// Adds states that other tables emitted: for each row a key and the states of the aggregates, in order.
    pub(crate) fn merge(
        &mut self,
        key: &[ArrayRef],
        states: &[ArrayRef],
        rows: usize,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        let groups = self.intern(key, rows, scratch)?;
        self.accumulators.merge(states, scratch, groups)
    }

    /// The final values of these keys, each of which is in one of these slices at least.
    ///
    /// The states of many slices may not fit into one array, so they are merged in several goes. An accumulator takes it that
    /// a group comes with its first row: so the keys are numbered again as they come.
    pub(super) fn values_of(
        mut self,
        key: &[ArrayRef],
        known: usize,
        slices: &[States],
        scratch: &mut Vec<usize>,
    ) -> Result<Vec<ArrayRef>> {
        self.intern(key, known, scratch)?;
        let asked = scratch.clone();
        let (mut places, mut placed) = (vec![None; known], 0);
        for range in cut(slices.iter().map(|(.., states)| bytes_of(states)), usize::MAX) {
            let slices = &slices[range];
            let (mut groups, mut wanted) = (Vec::new(), Vec::with_capacity(slices.len()));
            for (rows, key, _) in slices {
                self.intern(key, *rows, scratch)?;
                wanted.push(scratch.iter().map(|group| Some(*group < known)).collect::<BooleanArray>());
                for &group in scratch.iter().filter(|group| **group < known) {
                    groups.push(*places[group].get_or_insert_with(|| {
                        placed += 1;
                        placed - 1
                    }));
                }
            }
            if groups.is_empty() {
                continue;
            }
            let column = |column: usize| {
                let pieces = slices.iter().zip(&wanted).map(|((.., states), wanted)| filter(&states[column], wanted));
                let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
                Ok(concat(&pieces.iter().map(|piece| piece.as_ref()).collect::<Vec<_>>())?)
            };
            let states = (0..self.accumulators.width()).map(column).collect::<Result<Vec<_>>>()?;
            self.accumulators.merge(&states, &groups, placed)?;
        }
        let places = asked.iter().map(|group| places[*group].map(|place| place as u32)).collect::<Option<Vec<_>>>();
        let missing = || OperatorError::Internal("a key of a window is in none of its slices".into());
        rows_of(&self.accumulators.values()?, &places.ok_or_else(missing)?.into())
    }

    /// Takes keys alone: for each that is not there yet, a row that carries it.
    pub(super) fn new_keys(&mut self, key: &[ArrayRef], rows: usize, scratch: &mut Vec<usize>) -> Result<UInt32Array> {
        let before = self.known();
        let groups = self.intern(key, rows, scratch)?;
        Ok(rows_of_new(scratch, before, groups))
    }

    fn intern(&mut self, key: &[ArrayRef], rows: usize, scratch: &mut Vec<usize>) -> Result<usize> {
        let before = self.saved.as_ref().map(|_| self.known());
        match &mut self.keys {
            Some(keys) => keys.intern(key, scratch)?,
            None => {
                scratch.clear();
                scratch.resize(rows, 0);
            }
        }
        self.rows += rows;
        let groups = self.groups();
        if let (Some(saved), Some(before)) = (&mut self.saved, before.filter(|before| groups > *before)) {
            saved.add_keys(key, &rows_of_new(scratch, before, groups))?;
        }
        Ok(groups)
    }

    /// How many groups it has taken rows of.
    fn known(&self) -> usize {
        self.keys.as_ref().map_or(usize::from(self.rows > 0), |keys| keys.len())
    }

    /// Adds the saved states of groups that it does not have yet, and passes over the others: of those it has newer
    /// ones. The groups last changed in the save `save`.
    pub(super) fn restore(
        &mut self,
        key: &[ArrayRef],
        states: &[ArrayRef],
        rows: usize,
        save: u32,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        let before = self.known();
        let groups = self.intern(key, rows, scratch)?;
        if groups > before {
            let new = rows_of_new(scratch, before, groups);
            let states = states.iter().map(|state| take(state, &new, None)).collect::<Result<Vec<_>, _>>()?;
            scratch.clear();
            scratch.extend(before..groups);
            self.accumulators.merge(&states, scratch, groups)?;
            if let Some(given) = &mut self.given {
                given.restore(&states[self.accumulators.width()..])?;
            }
            self.saved()?.add_states(states, groups, save);
        }
        let rows = self.rows;
        self.saved()?.rows = rows;
        Ok(())
    }

    /// Finds out which groups have changed since the last save.
    pub(super) fn save(
        &mut self,
        aggregates: &Aggregates,
        now: u32,
        changes: &mut Changes,
        scratch: &mut Vec<usize>,
    ) -> Result<()> {
        let (groups, rows) = (self.groups(), self.rows);
        if self.saved()?.rows != rows {
            scratch.clear();
            scratch.extend(0..groups);
            let mut states = self.accumulators.states()?;
            self.accumulators = Accumulators::new(aggregates)?;
            self.accumulators.merge(&states, scratch, groups)?;
            states.extend(self.given.iter().flat_map(Given::columns));
            let saved = self.saved()?;
            saved.compare(states, groups, now)?;
            saved.rows = rows;
            self.sized.take();
        } else if let Some(given) = self.given.as_ref().filter(|given| given.unsaved) {
            let columns = given.columns();
            let saved = self.saved()?;
            let mut states = saved.all()?.2.to_vec();
            states.truncate(states.len().saturating_sub(COLUMNS));
            states.extend(columns);
            saved.compare(states, groups, now)?;
        }
        if let Some(given) = &mut self.given {
            given.unsaved = false;
        }
        self.saved()?.add_changes(changes);
        Ok(())
    }

    /// What it was at the last save.
    pub(super) fn saved(&mut self) -> Result<&mut Saved> {
        let missing = || OperatorError::Internal("a table that is not recorded was saved".into());
        self.saved.as_mut().ok_or_else(missing)
    }
}
