//! The aggregates of sessions, in pieces: a session is a union of fragments, and every fragment is a group.
//!
//! ```text
//!   rows ──► current table: accumulators ──freeze──► frozen tables: arrays of states, one row per fragment
//!             (one group per fragment)                 │  ▲
//!                                                      │  └─merge── small ones, and what is left of dead ones
//!                                                      └──gather──► the states of the sessions that are complete
//! ```
//!
//! DataFusion's accumulators give up the states of all their groups or of none. So when a session is complete, or at a
//! save, the current table is frozen, and a later row of a session that goes on opens a new fragment. What is frozen does not
//! change; a save seals each frozen table once, as a segment.
//!
//! Sizes of tables fall by half from one to the next, because the newest absorbs the ones before it that have at most twice
//! as many living fragments. So there are logarithmically many, a state is written again about so many times, and a session
//! has about as many fragments. States are merged in the order in which their rows came, for aggregates that see it.

use std::collections::BTreeMap;

use arrow::{array::ArrayRef, compute::interleave};

use super::{
    open::{OpenSession, Sessions},
    spec::Span,
};
use crate::{
    Result,
    aggregates::{Accumulators, Aggregates, Arguments},
    state::{
        SegmentId,
        bounded::{batch_bytes, bytes_of, cut},
    },
};

/// How many times as many living fragments as all newer tables one may have to be merged with them.
const ABSORB: usize = 2;
/// With more fragments than this per session all are merged…
const CROWDED: usize = 4;
/// …but not when there are few.
const FEW: usize = 4096;
/// The owner of a fragment whose session has given its result.
const DEAD: u32 = u32::MAX;

/// Where a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fragment {
    table: u64,
    row: u32,
}

/// The fragments of a table: what the rows of each span, and whose it is.
///
/// The spans of the fragments of one session hang together, because a row lies in the fragment that takes it and overlaps
/// another of the session. So a session is found again from its saved fragments alone.
#[derive(Default)]
struct Owned {
    spans: Vec<Span>,
    owners: Vec<u32>,
    /// How many rows each has.
    rows: Vec<i64>,
}

/// Fragments that take no more rows.
pub(super) struct Frozen {
    owned: Owned,
    /// The state columns of all aggregates.
    states: Vec<ArrayRef>,
    /// How many fragments have an owner.
    living: usize,
    bytes: usize,
    /// The segments it was sealed as.
    pub(super) sealed: Vec<SegmentId>,
}

/// All fragments.
pub(super) struct Fragments {
    accumulators: Accumulators,
    current: Owned,
    /// The number of the current table.
    number: u64,
    /// By number, oldest first.
    frozen: BTreeMap<u64, Frozen>,
    /// How many have an owner.
    living: usize,
}

impl Owned {
    fn push(&mut self, span: Span, owner: u32, rows: i64) -> u32 {
        self.spans.push(span);
        self.owners.push(owner);
        self.rows.push(rows);
        (self.owners.len() - 1) as u32
    }
}

impl Frozen {
    fn new(states: Vec<ArrayRef>, owned: Owned) -> Self {
        let bytes = bytes_of(&states) + owned.owners.len() * (size_of::<(Span, i64)>() + size_of::<u32>());
        let living = owned.owners.iter().filter(|owner| **owner != DEAD).count();
        Self { owned, states, living, bytes, sealed: Vec::new() }
    }

    /// How many rows each fragment has.
    pub(super) fn rows(&self) -> &[i64] {
        &self.owned.rows
    }

    /// The fragments that have an owner: (row, its span, its owner).
    pub(super) fn living(&self) -> impl Iterator<Item = (u32, Span, u32)> {
        let all = self.owned.spans.iter().zip(&self.owned.owners).zip(0..);
        all.filter(|((_, owner), _)| **owner != DEAD).map(|((span, owner), row)| (row, *span, *owner))
    }

    pub(super) fn states(&self) -> &[ArrayRef] {
        &self.states
    }

    fn is_mostly_dead(&self) -> bool {
        self.owned.owners.len() > 2 * self.living
    }
}

impl Fragments {
    pub(super) fn new(aggregates: &Aggregates) -> Result<Self> {
        let accumulators = Accumulators::new(aggregates)?;
        Ok(Self { accumulators, current: Owned::default(), number: 0, frozen: BTreeMap::new(), living: 0 })
    }

    /// The group of the current table that takes a row of the session in `slot`.
    pub(super) fn group(&mut self, session: &mut OpenSession, slot: u32, row: Span) -> usize {
        if let Some(last) = session.fragments.last().filter(|last| self.takes_rows(**last)) {
            let span = &mut self.current.spans[last.row as usize];
            *span = span.hull(row);
            self.current.rows[last.row as usize] += 1;
            return last.row as usize;
        }
        let fragment = Fragment { table: self.number, row: self.current.push(row, slot, 1) };
        session.fragments.push(fragment);
        self.living += 1;
        fragment.row as usize
    }

    /// Adds rows, given the group of each.
    pub(super) fn update(&mut self, arguments: &Arguments, groups: &[usize]) -> Result<()> {
        self.accumulators.update(arguments, groups, self.current.owners.len())
    }

    /// Whether the current table has so much that it should be frozen, because a larger one might not fit into arrays.
    pub(super) fn is_full(&self) -> bool {
        self.accumulators.size() > batch_bytes()
    }

    /// Whether it is in the current table.
    pub(super) fn takes_rows(&self, fragment: Fragment) -> bool {
        fragment.table == self.number
    }

    /// Gives fragments another owner.
    pub(super) fn relabel(&mut self, fragments: &[Fragment], owner: u32) {
        for fragment in fragments {
            if let Some(owners) = self.owners(fragment.table) {
                owners[fragment.row as usize] = owner;
            }
        }
    }

    fn owners(&mut self, table: u64) -> Option<&mut Vec<u32>> {
        match table == self.number {
            true => Some(&mut self.current.owners),
            false => self.frozen.get_mut(&table).map(|table| &mut table.owned.owners),
        }
    }

    /// Gives all owners the numbers that they have moved to.
    pub(super) fn renumber(&mut self, moved: &[u32]) {
        let frozen = self.frozen.values_mut().map(|table| &mut table.owned);
        for owner in frozen.chain([&mut self.current]).flat_map(|owned| &mut owned.owners) {
            *owner = moved.get(*owner as usize).copied().unwrap_or(DEAD);
        }
    }

    /// Lets go of fragments of frozen tables.
    pub(super) fn kill(&mut self, fragments: &[Fragment]) {
        self.living -= fragments.len();
        for fragment in fragments {
            if let Some(table) = self.frozen.get_mut(&fragment.table) {
                table.owned.owners[fragment.row as usize] = DEAD;
                table.living -= 1;
            }
        }
    }

    /// Makes a frozen table of the current one, and begins another.
    pub(super) fn freeze(&mut self, aggregates: &Aggregates) -> Result<()> {
        if self.current.owners.is_empty() {
            return Ok(());
        }
        let mut full = std::mem::replace(&mut self.accumulators, Accumulators::new(aggregates)?);
        let table = Frozen::new(full.states()?, std::mem::take(&mut self.current));
        self.push(table);
        Ok(())
    }

    fn push(&mut self, table: Frozen) {
        self.frozen.insert(self.number, table);
        self.number += 1;
    }

    /// Adds a table that was saved; its fragments have no owners yet.
    pub(super) fn restore(
        &mut self,
        states: Vec<ArrayRef>,
        spans: Vec<Span>,
        rows: Vec<i64>,
        sealed: Option<SegmentId>,
    ) -> u64 {
        let owners = vec![DEAD; spans.len()];
        let table =
            Frozen { sealed: sealed.into_iter().collect(), ..Frozen::new(states, Owned { spans, owners, rows }) };
        self.push(table);
        self.number - 1
    }

    /// Gives restored fragments, by table and row, to their session.
    pub(super) fn own(&mut self, fragments: impl Iterator<Item = (u64, u32)>, owner: u32) -> Vec<Fragment> {
        let fragments: Vec<_> = fragments.map(|(table, row)| Fragment { table, row }).collect();
        self.relabel(&fragments, owner);
        for fragment in &fragments {
            if let Some(table) = self.frozen.get_mut(&fragment.table) {
                table.living += 1;
            }
        }
        self.living += fragments.len();
        fragments
    }

    /// Forgets tables without a living fragment, and merges those that are small or mostly dead.
    pub(super) fn tidy(&mut self, sessions: &mut Sessions, aggregates: &Aggregates) -> Result<()> {
        self.frozen.retain(|_, table| table.living > 0);
        if self.is_crowded(sessions) {
            self.freeze(aggregates)?;
            return self.merge_all(sessions, aggregates);
        }
        let (mut newer, mut is_small, mut merged, mut bytes) = (0, true, 0, 0);
        for (at, table) in self.frozen.values().rev().enumerate() {
            bytes += table.bytes;
            // Together they might not fit into one.
            if at > 0 && bytes > batch_bytes() {
                break;
            }
            is_small &= at == 0 || table.living <= ABSORB * newer;
            if is_small || table.is_mostly_dead() {
                merged = at + 1;
            }
            newer += table.living;
        }
        let chosen: Vec<u64> = self.frozen.keys().rev().take(merged).rev().copied().collect();
        // Also those that do not fit.
        let wasted = self.frozen.iter().rev().skip(merged).filter(|(_, table)| table.is_mostly_dead());
        for number in wasted.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.merge(vec![number], sessions, aggregates)?;
        }
        if merged == 1 && self.frozen.values().next_back().is_some_and(|newest| !newest.is_mostly_dead()) {
            return Ok(());
        }
        self.merge(chosen, sessions, aggregates)
    }

    /// Whether sessions have become few and large, by rows that joined them, without a save or a result.
    pub(super) fn is_crowded(&self, sessions: &Sessions) -> bool {
        self.living > CROWDED * sessions.len() + FEW
    }

    /// Makes one table of all frozen ones, with one fragment for each session; a few, if one might be too large.
    pub(super) fn merge_all(&mut self, sessions: &mut Sessions, aggregates: &Aggregates) -> Result<()> {
        let numbers: Vec<u64> = self.frozen.keys().copied().collect();
        for range in cut(self.frozen.values().map(|table| table.bytes), usize::MAX) {
            self.merge(numbers[range].to_vec(), sessions, aggregates)?;
        }
        Ok(())
    }

    /// Makes one table of several that follow one another, which are given in order: with one fragment for each session,
    /// and without what is dead in them.
    fn merge(&mut self, chosen: Vec<u64>, sessions: &mut Sessions, aggregates: &Aggregates) -> Result<()> {
        let Some(&number) = chosen.last() else { return Ok(()) };
        let mut tables: Vec<Frozen> = chosen.iter().filter_map(|number| self.frozen.remove(number)).collect();
        let mut merged = Owned::default();
        let (mut rows, mut groups) = (Vec::new(), Vec::new());
        for at in 0..tables.len() {
            for row in 0..tables[at].owned.owners.len() {
                let owner = tables[at].owned.owners[row];
                if owner == DEAD {
                    continue;
                }
                // All fragments of the session that are in these tables, at the first of them.
                let (mut span, mut count) = (tables[at].owned.spans[row], 0_i64);
                let fragments = &mut sessions.slots[owner as usize].fragments;
                let group = merged.owners.len();
                fragments.sort_unstable();
                fragments.retain(|fragment| {
                    let Ok(place) = chosen.binary_search(&fragment.table) else { return true };
                    let owned = &mut tables[place].owned;
                    owned.owners[fragment.row as usize] = DEAD;
                    span = span.hull(owned.spans[fragment.row as usize]);
                    count = count.saturating_add(owned.rows[fragment.row as usize]);
                    rows.push((place, fragment.row as usize));
                    groups.push(group);
                    false
                });
                // The one that takes rows is last.
                let last = fragments.last().is_some_and(|last| last.table == self.number);
                let place = fragments.len() - usize::from(last);
                fragments.insert(place, Fragment { table: number, row: merged.push(span, owner, count) });
            }
        }
        if merged.owners.is_empty() {
            return Ok(());
        }
        self.living -= rows.len() - merged.owners.len();
        let tables: Vec<&Frozen> = tables.iter().collect();
        let mut full = merge_states(aggregates, &tables, &rows, &groups, merged.owners.len())?;
        self.frozen.insert(number, Frozen::new(full.states()?, merged));
        Ok(())
    }

    /// Accumulators with one group for each of these sessions, in order. None may be in the current table.
    pub(super) fn gather(&self, sessions: &[&OpenSession], aggregates: &Aggregates) -> Result<Accumulators> {
        let numbers: Vec<u64> = self.frozen.keys().copied().collect();
        let tables: Vec<&Frozen> = self.frozen.values().collect();
        let (mut rows, mut groups) = (Vec::new(), Vec::new());
        let mut own: Vec<Fragment> = Vec::new();
        for (group, session) in sessions.iter().enumerate() {
            own.clear();
            own.extend(&session.fragments);
            own.sort_unstable();
            for fragment in &own {
                if let Ok(place) = numbers.binary_search(&fragment.table) {
                    rows.push((place, fragment.row as usize));
                    groups.push(group);
                }
            }
        }
        merge_states(aggregates, &tables, &rows, &groups, sessions.len())
    }

    /// The frozen tables.
    pub(super) fn frozen(&mut self) -> impl Iterator<Item = &mut Frozen> {
        self.frozen.values_mut()
    }

    /// About how many bytes they hold.
    pub(super) fn size(&self) -> usize {
        let current = self.accumulators.size();
        let owned = self.current.owners.capacity() * (size_of::<(Span, i64)>() + size_of::<u32>());
        current + owned + self.frozen.values().map(|table| table.bytes).sum::<usize>()
    }
}

/// New accumulators with the states of these rows (table, row) in these groups.
fn merge_states(
    aggregates: &Aggregates,
    tables: &[&Frozen],
    rows: &[(usize, usize)],
    groups: &[usize],
    count: usize,
) -> Result<Accumulators> {
    let mut merged = Accumulators::new(aggregates)?;
    let column = |column: usize| {
        let pieces: Vec<_> = tables.iter().map(|table| table.states[column].as_ref()).collect();
        interleave(&pieces, rows)
    };
    let states = (0..merged.width()).map(column).collect::<Result<Vec<_>, _>>()?;
    merged.merge(&states, groups, count)?;
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use datafusion_expr::lit;
    use datafusion_functions_aggregate::expr_fn::count;

    use super::*;
    use crate::{
        StreamSchema,
        aggregates::{ArgumentReader, Planned},
        state::bounded::with_batches_of,
    };

    /// Ten tables of which no two fit into one; of the older half little is left.
    #[test]
    fn what_is_dead_is_forgotten_also_in_tables_that_do_not_fit_together() {
        const ROWS: i64 = 60;
        let number: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values(0..ROWS));
        let rows = RecordBatch::try_from_iter([("number", number)]).unwrap();
        let input = StreamSchema::without_time(rows.schema());
        let aggregates = Planned::new(&input, &[], &[count(lit(1))]).unwrap().aggregates;
        with_batches_of(3_000, || {
            let (mut fragments, mut sessions) = (Fragments::new(&aggregates).unwrap(), Sessions::new(false));
            let mut arguments = ArgumentReader::default();
            for table in 0..10 {
                let mut groups = Vec::new();
                for row in 0..ROWS {
                    let start = if table < 5 && row > 2 { 0 } else { 1_000 };
                    let (span, key) = (Span { start, end: start + 10 }, (table * ROWS + row).to_be_bytes());
                    let slot = sessions.add(&key, span, i64::MIN, &mut fragments).unwrap();
                    groups.push(fragments.group(&mut sessions.slots[slot as usize], slot, span));
                }
                fragments.update(&arguments.read(&aggregates, &rows).unwrap(), &groups).unwrap();
                fragments.freeze(&aggregates).unwrap();
                fragments.tidy(&mut sessions, &aggregates).unwrap();
            }
            assert_eq!(fragments.frozen.len(), 10);
            for slot in sessions.complete(500, usize::MAX) {
                fragments.kill(&sessions.slots[slot as usize].fragments);
                sessions.remove(slot);
            }
            fragments.tidy(&mut sessions, &aggregates).unwrap();
            assert!(!fragments.frozen.values().any(Frozen::is_mostly_dead));
            assert_eq!(
                sessions.open().map(|session| session.fragments.len()).sum::<usize>(),
                5 * 3 + 5 * ROWS as usize
            );
            let all: Vec<&OpenSession> = sessions.open().collect();
            let values = fragments.gather(&all, &aggregates).unwrap().values().unwrap();
            assert_eq!(values[0].as_ref(), &Int64Array::from(vec![1; all.len()]));
        });
    }
}
