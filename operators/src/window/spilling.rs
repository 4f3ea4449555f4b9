//! How a window aggregation keeps to its memory: when it puts groups away, and how it goes on with them.
//!
//! ```text
//!   process ──► keep_within: too much? the largest slices are spilled, until half of that is left
//!   advance ──► fire: round after round, a part of the window's result each; what is in memory stays there
//!   save ─────► settle each slice ──► seal: segments that are made in the room, not in memory
//!   load ─────► adopt: piece after piece of what is too much for memory
//! ```

use std::collections::BTreeMap;

use arrow::{array::RecordBatch, compute::concat_batches};

use super::{
    Slice,
    aggregate::{Shared, constant, result},
    form::{LEADING, SLICE},
    groups::Groups,
    progress::Owed,
    slices::Slices,
    spilled::{Layers, Round, Spilled, Tools},
    spiller::Spiller,
    table::States,
};
use crate::{
    OperatorError, Result, Timestamp,
    spill::Memory,
    state::{
        bounded::{batch_bytes, bytes_of},
        segments::{Loaded, Sealed, key_group_column},
    },
};

/// A segment of what is not in memory has at most about this part of the allowance, because its bytes are in memory when it is
/// uploaded; but not less than so many bytes.
const SEGMENTS: usize = 8;
const SMALLEST_SEGMENT: usize = 1 << 20;
/// And never more, however large the allowance is.
const LARGEST_SEGMENT: usize = 256 << 20;
/// What was saved takes about so many times as much when its groups are in memory.
const LOADING: usize = 3;
/// A slice of less than so many bytes has no file of its own.
const SMALL: usize = 32 << 10;
/// So much it may take to know what was put away, however little the allowance is: no operator of a job is given less.
const LEAST_LISTED: usize = 256 << 10;

/// What a window aggregation with a budget has besides its slices.
pub(super) struct Spilling {
    spiller: Spiller,
    /// How a window goes on that is on its way out.
    firing: Option<Firing>,
    /// How much can be put away, and what it takes to know what was; `None` when it must be summed up again.
    held: Option<(usize, usize)>,
}

/// A window whose result comes in parts.
struct Firing {
    /// Those it has still to go through, the next last.
    rounds: Vec<Round>,
    /// Of each slice the hashes of the keys that are in memory.
    hashes: Vec<Vec<u64>>,
}

impl Spilling {
    pub(super) fn new(plan: &Shared, memory: &Memory) -> Self {
        let spiller = Spiller::new(memory.clone(), &plan.form.columns, plan.key.len());
        Self { spiller, firing: None, held: None }
    }

    /// Rows have come to a slice. It had `before` bytes that can be put away, and has `after`.
    pub(super) fn grew(&mut self, before: usize, after: usize) {
        if let Some((held, _)) = &mut self.held {
            *held = (*held + after).saturating_sub(before);
        }
    }

    /// What is held has changed in another way.
    pub(super) fn moved(&mut self) {
        self.held = None;
    }

    /// Puts groups away when there are too many in memory, the largest slices first.
    pub(super) fn keep_within(&mut self, slices: &mut Slices<Groups>, tools: &mut Tools<'_>) -> Result<()> {
        let most = self.spiller.most();
        let (mut held, listed) = *self.held.get_or_insert_with(|| {
            let sizes = slices.contents().map(|groups| (groups.spillable(), groups.listed()));
            sizes.fold((0, 0), |(held, listed), (bytes, more)| (held + bytes, listed + more))
        });
        let allowance = self.spiller.memory.allowance().max(LEAST_LISTED);
        if listed > allowance {
            return Err(too_many(
                slices.contents().filter(|groups| groups.spilled().is_some()).count(),
                listed,
                allowance,
            ));
        }
        // What cannot be put away leaves less for the rest; but to put that away at every batch would only make it more.
        let most = most.saturating_sub(listed).max(most / 4);
        if held <= most {
            return Ok(());
        }
        self.held = None;
        tools.tables.within(most);
        slices.forget_grown();
        let sizes = slices.held().map(|(slice, groups)| (groups.spillable(), slice.start));
        let mut sizes: Vec<(usize, Timestamp)> = sizes.filter(|(bytes, _)| *bytes > 0).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        held = sizes.iter().map(|(bytes, _)| bytes).sum();
        let mut small = Vec::new();
        for (bytes, start) in sizes {
            if held <= most / 2 {
                break;
            }
            held -= bytes;
            if bytes < SMALL {
                small.push(start);
            } else if let Some((_, groups)) = slices.at(start) {
                self.spiller.spill(groups, tools)?;
            }
        }
        self.spiller.spill_together(slices, &small, tools)
    }

    /// The next part of the result of a window that is made of these slices, of which some are not in memory, for the keys that
    /// are owed it; and whether there is more.
    pub(super) fn fire(
        &mut self,
        plan: &Shared,
        window: Slice,
        slices: &mut [&mut Groups],
        tools: &mut Tools<'_>,
        owed: Option<&Owed>,
    ) -> Result<(RecordBatch, bool)> {
        let mut firing = match self.firing.take() {
            Some(firing) => firing,
            None => {
                let hashes = slices.iter_mut().map(|groups| groups.rest(tools.tables, tools.save));
                let hashes = hashes.collect::<Result<Vec<_>>>()?;
                let rounds = self.spiller.rounds(&layers(slices, &hashes)?);
                Firing { rounds, hashes }
            }
        };
        let round = firing.rounds.pop();
        let layers = layers(slices, &firing.hashes)?;
        let table = round.map(|round| self.spiller.table_of(&layers, &round, tools)).transpose()?.flatten();
        let more = !firing.rounds.is_empty();
        self.firing = more.then_some(firing);
        let Some(table) = table else { return Ok((RecordBatch::new_empty(plan.output.columns().clone()), more)) };
        let rows = table.groups();
        let (key, values) = tools.tables.results(table)?;
        let results = result(plan, window, rows, key.clone(), values)?;
        Ok(match owed {
            Some(owed) => (owed.keep(results, &key)?, more),
            None => (results, more),
        })
    }

    /// Makes what is not in memory ready for a save.
    pub(super) fn settle(&mut self, slices: &mut Slices<Groups>, tools: &mut Tools<'_>) -> Result<()> {
        if self.firing.is_some() {
            return Err(OperatorError::Internal("a window was saved with a result half-way out".into()));
        }
        self.moved();
        for (_, groups) in slices.held() {
            if let Groups::Spilled(spilled) = groups {
                self.spiller.settle(spilled, tools)?;
            }
        }
        Ok(())
    }

    /// Segments of what is not in memory, of the groups that changed after the save `since`.
    pub(super) fn seal(
        &self,
        plan: &Shared,
        slices: &mut Slices<Groups>,
        since: u32,
        tools: &mut Tools<'_>,
    ) -> Result<Vec<Sealed>> {
        let spilled = slices.held().filter_map(|(slice, groups)| Some((slice.start, groups.spilled()?)));
        let mut rounds = spilled.flat_map(|(start, spilled)| {
            let rounds = self.spiller.rounds_since(spilled, since).into_iter();
            rounds.map(move |round| (start, spilled, round))
        });
        let mut ready = Vec::new().into_iter();
        let changed = std::iter::from_fn(|| {
            loop {
                if let Some(states) = ready.next() {
                    return Some(segment(plan, states));
                }
                let (start, spilled, round): (_, &Spilled, _) = rounds.next()?;
                match self.spiller.since(spilled, &round, since, tools) {
                    Ok(states) => {
                        ready = states.into_iter().map(|states| (start, states)).collect::<Vec<_>>().into_iter()
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
        });
        let mut changed = changed.peekable();
        let most = (self.spiller.memory.allowance() / SEGMENTS).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT);
        let mut sealed = Vec::new();
        while changed.peek().is_some() {
            let mut bytes = 0;
            let mut some = std::iter::from_fn(|| {
                let next = if bytes < most { changed.next()? } else { return None };
                bytes += next.as_ref().map_or(0, |rows| bytes_of(rows.columns()));
                Some(next)
            });
            sealed.push(Sealed::Stored(self.spiller.memory.room().store(&plan.form.columns, &mut some)?));
        }
        Ok(sealed)
    }

    /// Whether what former tasks left is not in memory, and would be too much there.
    pub(super) fn is_too_much(&self, parts: &[Loaded<'_>]) -> bool {
        let bytes: usize = parts.iter().flat_map(|former| &former.stored).map(|(_, segment)| segment.bytes).sum();
        parts.iter().all(|former| former.segments.is_empty()) && bytes.saturating_mul(LOADING) > self.spiller.most()
    }

    /// Takes over what former tasks left and is not in memory, a bounded piece at a time.
    pub(super) fn adopt(
        &self,
        plan: &Shared,
        slices: &mut Slices<Groups>,
        parts: &[Loaded<'_>],
        tools: &mut Tools<'_>,
    ) -> Result<()> {
        // Two pieces are in memory at a time, and what is written of one, which is in one batch.
        let most = (self.spiller.most() / 4).min(batch_bytes());
        tools.tables.within(self.spiller.most());
        for former in parts {
            for (save, segment) in former.stored.iter().rev() {
                let (mut pieces, mut bytes, mut count) = (BTreeMap::new(), 0, 0);
                for batch in 0..segment.rows.batches() {
                    let rows = plan.form.widen(&segment.rows.read(batch)?)?;
                    count += rows.num_rows();
                    for (slice, selection) in slices.saved_parts(former.part, &rows, SLICE)? {
                        let rows = selection.batch(&rows)?;
                        bytes += bytes_of(rows.columns());
                        let (_, of_slice) = pieces.entry(slice.start).or_insert_with(|| (slice, Vec::new()));
                        of_slice.push(rows);
                    }
                    if bytes > most {
                        self.adopt_pieces(slices, std::mem::take(&mut pieces), *save, tools)?;
                        bytes = 0;
                    }
                }
                self.adopt_pieces(slices, pieces, *save, tools)?;
                if count != segment.count {
                    let (id, expected) = (segment.id.0, segment.count);
                    let wrong = format!("of the {expected} rows of the segment {id} there were {count} in the room");
                    return Err(OperatorError::Internal(wrong));
                }
            }
        }
        Ok(())
    }

    /// Takes over rows of one segment by slice.
    fn adopt_pieces(
        &self,
        slices: &mut Slices<Groups>,
        pieces: BTreeMap<Timestamp, (Slice, Vec<RecordBatch>)>,
        save: u32,
        tools: &mut Tools<'_>,
    ) -> Result<()> {
        for (slice, pieces) in pieces.into_values() {
            let Some(first) = pieces.first() else { continue };
            let of_key: Vec<usize> = (LEADING..first.num_columns()).collect();
            let rows = concat_batches(first.schema_ref(), &pieces)?.project(&of_key)?;
            drop(pieces);
            match slices.content(slice, || Ok(Groups::Spilled(Box::default())))? {
                Groups::Spilled(spilled) => self.spiller.adopt(spilled, rows, save, tools)?,
                Groups::Open(_) | Groups::Closed(_) => {
                    return Err(OperatorError::Internal("a state was loaded into an operator that had some".into()));
                }
            }
        }
        Ok(())
    }
}

/// It takes too much memory to know where the groups of so many slices are.
fn too_many(slices: usize, listed: usize, allowance: usize) -> OperatorError {
    let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    OperatorError::OverBudget(format!(
        "the groups of {slices} slices of windows are on disk, and to know where takes {:.1} MiB, but it may hold {:.1} MiB in \
         this task: give the job more with .memory_budget(bytes), or let it have fewer slices at a time, with longer ones or \
         with less allowed lateness",
        mebibytes(listed),
        mebibytes(allowance),
    ))
}

/// What these slices are made of, given the hashes of what is in memory of each.
fn layers<'a>(slices: &'a [&mut Groups], hashes: &'a [Vec<u64>]) -> Result<Vec<Layers<'a>>> {
    slices.iter().zip(hashes).map(|(groups, hashes)| groups.layers(hashes)).collect()
}

/// Groups of the slice that begins at `start`, in the form of a segment.
fn segment(plan: &Shared, (start, (rows, key, states)): (Timestamp, States)) -> Result<RecordBatch> {
    let mut columns = vec![key_group_column(&key, rows)?, constant(start, rows)];
    columns.extend(key.into_iter().chain(states));
    Ok(RecordBatch::try_new(plan.form.columns.clone(), columns)?)
}
