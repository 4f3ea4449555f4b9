//! From a checkpoint to what each task begins with, at any parallelism, or the reasons why the job does not fit it.
//!
//! ```text
//!   Manifest ── operators ── tasks of then ──┐  rows by key group   ┌──► StateReader of each task of now
//!                └ segments ── IPC files ────┴──────────────────────┘
//!                                 └ with a memory budget by way of the disk, if its operator spills and it is not small
//!            └─ sources ── splits ───────────────────────────────────► positions, watermarks, who was idle
//! ```
//!
//! A split that the checkpoint does not have, of a source that it has, begins where the source is configured to start; but if the
//! source gets new splits it is one of those, and begins at its first record, whether or not anyone looked for them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io::Cursor,
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::UInt8Type,
};
use arrow_ipc::reader::FileReader;
use windrow_connectors::SplitId;
use windrow_operators::{
    OperatorError,
    state::{Part, SegmentId, StateReader, StoredSegment},
};

use super::{
    archive::SegmentKey,
    error::CheckpointError,
    faults::mutated,
    fetched::{Aside, Fetched, Fetching, Unfetched},
    layout::{Layout, OperatorLayout},
    manifest::{Kind, Manifest, SegmentFile, SplitState},
    store::CheckpointStore,
};
use crate::{
    Error, Result,
    plan::graph::{self, Graph},
    runtime::report::TaskId,
};

/// What the tasks of a job begin with.
#[derive(Default)]
pub(crate) struct Restored {
    /// By task and place in its chain.
    operators: HashMap<(TaskId, usize), StateReader>,
    /// By source.
    splits: BTreeMap<String, Vec<SplitState>>,
    /// Sources with splits that the checkpoint does not have.
    grown: BTreeSet<String>,
    /// The files of the segments that the operators were given, which they may go on to name.
    pub(crate) files: HashMap<SegmentKey, SegmentFile>,
    /// By source: splits that have ended and are not there any more. They stay in the checkpoints, or they would be read
    /// again when they are back.
    pub(crate) absent: BTreeMap<String, Vec<SplitState>>,
}

impl Restored {
    /// What an operator begins with; with nothing when the checkpoint did not have it.
    /// All of it is in memory, unless the operator `spills`.
    pub(crate) fn operator(
        &mut self,
        layout: &Layout,
        task: TaskId,
        place: usize,
        spills: bool,
    ) -> std::result::Result<StateReader, OperatorError> {
        let key_groups = layout.chains[task.chain].key_groups(task.task);
        let state = self.operators.remove(&(task, place)).unwrap_or(StateReader { key_groups, parts: Vec::new() });
        if spills {
            return Ok(state);
        }
        let parts = state.parts.into_iter().map(Part::in_memory).collect::<std::result::Result<_, _>>()?;
        Ok(StateReader { parts, ..state })
    }

    /// Where the given splits of a source stood; nothing of those that were not there then.
    pub(crate) fn splits(&self, source: &str, splits: &[SplitId]) -> Vec<SplitState> {
        let known = self.splits.get(source).map(Vec::as_slice).unwrap_or_default();
        known.iter().filter(|state| state.is_among(splits)).cloned().collect()
    }

    /// Where all splits of a source stood; `None` if it has one that the checkpoint does not have.
    pub(crate) fn whole(&self, source: &str) -> Option<&[SplitState]> {
        self.splits.get(source).filter(|_| !self.grown.contains(source)).map(Vec::as_slice)
    }

    /// The splits of a source that the checkpoint has, also those that have ended and are not there any more; `None` when it
    /// does not know the source.
    pub(crate) fn known(&self, source: &str) -> Option<HashSet<&str>> {
        let known = self.splits.get(source)?;
        Some(known.iter().map(|state| state.split.as_str()).collect())
    }

    /// Whether the ends of a source were fixed when the job began.
    pub(crate) fn has_ends(&self, source: &str) -> bool {
        self.splits.get(source).is_some_and(|states| has_ends(states))
    }

    /// Those of the given splits that were not there when the ends of their source were fixed.
    pub(crate) fn beyond<'a>(&self, source: &str, splits: &'a [SplitId]) -> Vec<&'a str> {
        let states = self.splits.get(source).filter(|states| has_ends(states));
        let is_beyond = |split: &&str| {
            let state = states.and_then(|states| states.iter().find(|state| state.split == **split));
            states.is_some() && state.is_none_or(|state| state.end == Some(0) && state.position.is_none())
        };
        splits.iter().map(SplitId::as_str).filter(is_beyond).collect()
    }

    /// The latest time that any split of a source had seen.
    pub(crate) fn latest(&self, source: &str) -> Option<i64> {
        self.splits.get(source)?.iter().filter_map(|state| state.latest).max()
    }
}

/// The reasons why a job cannot go on from a checkpoint.
///
/// `splits` are those that each source has now, by id.
pub(crate) fn misfits(
    manifest: &Manifest,
    layout: &Layout,
    splits: &BTreeMap<String, Vec<SplitId>>,
    drop_state: bool,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let operators: BTreeMap<&str, &OperatorLayout> = layout
        .chains
        .iter()
        .flat_map(|chain| &chain.operators)
        .filter_map(|operator| operator.saved.as_ref().map(|(id, _)| (id.as_str(), operator)))
        .collect();
    let gone = |what: &str, id: &str| {
        // The sort in front of an operator is named with it.
        let id = id.strip_suffix("_in_order").unwrap_or(id);
        format!(
            "the checkpoint has state of {what} {id:?}, which the job does not have: give the operator that has taken its \
             place the same name with .id({id:?}), or drop the state with .drop_state()"
        )
    };
    for (id, saved) in &manifest.operators {
        match operators.get(id.as_str()).and_then(|operator| operator.saved.as_ref().zip(Some(&operator.name))) {
            None if drop_state => {}
            None => reasons.push(gone("operator", id)),
            Some(((_, form), name)) => {
                if let Some(Err(reason)) = saved.form.as_ref().map(|saved| form.accepts(&saved.into())) {
                    reasons.push(format!(
                        "{name} ({id}): {reason}: undo the change, or let it begin empty, under another name with .id(…) and \
                         with .drop_state()"
                    ));
                }
            }
        }
    }
    let sources: BTreeSet<&str> = layout.chains.iter().filter_map(|chain| chain.source.as_deref()).collect();
    for (id, states) in &manifest.sources {
        if !sources.contains(id.as_str()) {
            if !drop_state {
                reasons.push(gone("source", id));
            }
            continue;
        }
        let now = splits.get(id).map(Vec::as_slice).unwrap_or_default();
        let lost = states.iter().filter(|state| !state.ended && !state.is_among(now));
        for state in lost {
            let position = state.position.unwrap_or_default();
            reasons.push(format!(
                "{id}: {} was read up to position {position} and is not there any more: what came after would be lost",
                state.split
            ));
        }
    }
    reasons
}

/// What is left for a job that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// Splits that are new, or will be. All others it never reads again.
    NewSplits,
}

/// What is left to read if the job came to its end with this checkpoint; `None` if it did not, or there is something at once.
/// `splits` are those that each source has now, by node.
pub(crate) fn left(manifest: &Manifest, graph: &Graph, splits: &HashMap<usize, Vec<SplitId>>) -> Option<Left> {
    let mut left = Left::Nothing;
    if manifest.kind != Kind::Final {
        return None;
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        let graph::Kind::Source { source, .. } = &node.kind else { continue };
        let states = manifest.sources.get(node.id.as_deref()?)?;
        let now = splits.get(&index).map(Vec::as_slice).unwrap_or_default();
        let is_new = |split: &SplitId| !states.iter().any(|state| state.split == split.as_str());
        if states.iter().any(|state| !state.ended) {
            return None;
        }
        if source.discover_every().is_some() || (source.adds_splits() && now.iter().any(is_new)) {
            left = Left::NewSplits;
        } else if !has_ends(states) && now.iter().any(is_new) {
            // Where the ends were fixed when the job began, what has appeared since is not read.
            return None;
        }
    }
    Some(left)
}

/// Whether the ends of a source were fixed when the job began.
fn has_ends(states: &[SplitState]) -> bool {
    states.iter().any(|state| state.end.is_some())
}

/// Reads the state of a checkpoint and deals it to the tasks of now. Of a job with a memory budget, that of operators that spill
/// is put aside on its way, unless all of it is small.
pub(crate) async fn restore(
    store: &CheckpointStore,
    manifest: &Manifest,
    layout: &Layout,
    splits: &BTreeMap<String, Vec<SplitId>>,
    aside: Option<Aside<'_>>,
) -> Result<Restored> {
    let mut restored = Restored { splits: manifest.sources.clone(), ..Restored::default() };
    for (source, now) in splits {
        let known = manifest.sources.get(source).map(Vec::as_slice).unwrap_or_default();
        let absent = known.iter().filter(|state| state.ended && !state.is_among(now)).cloned().collect();
        restored.absent.insert(source.clone(), absent);
        if !now.iter().all(|split| known.iter().any(|state| state.split == split.as_str())) {
            restored.grown.insert(source.clone());
        }
    }
    let mut wanted = Vec::new();
    for (chain, chain_layout) in layout.chains.iter().enumerate() {
        for (place, operator) in chain_layout.operators.iter().enumerate() {
            let Some(saved) = operator.saved.as_ref().and_then(|(id, _)| manifest.operators.get(id)) else { continue };
            for task in 0..chain_layout.tasks {
                let task = TaskId { chain, task };
                let key_groups = chain_layout.key_groups(task.task);
                // A first phase keeps nothing that has a key.
                let mut own = if operator.first_phase { 0..0 } else { key_groups.clone() };
                if mutated("key groups are off by one at a restore") {
                    own.start += 1;
                }
                let mut parts = Vec::new();
                for former in &saved.tasks {
                    let shared = overlap(former.key_groups, &own);
                    // How far a task had come that had other key groups says nothing of these. Tasks of a first phase have
                    // all key groups mixed.
                    if shared.is_empty() && !operator.first_phase && !former.first_phase {
                        continue;
                    }
                    let to = (task, place, parts.len());
                    let files = former.segments.iter().filter(|_| !shared.is_empty());
                    wanted.extend(files.map(|file| Want {
                        to,
                        file,
                        key_groups: shared.clone(),
                        spills: operator.spills,
                    }));
                    let (first_phase, numbers) = (former.first_phase, former.numbers.clone());
                    parts.push(Part { first_phase, numbers, ..Part::default() });
                }
                restored.operators.insert((task, place), StateReader { key_groups, parts });
            }
        }
    }
    let dealt = deal(store, &wanted, aside).await?;
    for (Want { to: (task, place, part), file, .. }, dealt) in wanted.iter().zip(dealt) {
        let Some(state) = restored.operators.get_mut(&(*task, *place)) else { continue };
        let next = SegmentId(state.parts.iter().map(|part| (part.segments.len() + part.stored.len()) as u64).sum());
        let part = &mut state.parts[*part];
        match dealt {
            Some(Rows::Here(rows)) => part.segments.push((next, rows)),
            Some(Rows::OnDisk(segment)) => part.stored.push(StoredSegment { id: next, ..segment }),
            None => continue,
        }
        restored.files.insert((*task, *place, next), (*file).clone());
    }
    if mutated("the state of one of several former tasks is not loaded") {
        restored.operators.values_mut().filter(|state| state.parts.len() > 1).for_each(|state| drop(state.parts.pop()));
    }
    Ok(restored)
}

/// A file that a task needs rows of.
struct Want<'a> {
    /// The task, the place in its chain, and which of the former tasks it is from.
    to: (TaskId, usize, usize),
    file: &'a SegmentFile,
    key_groups: Range<usize>,
    /// Whether its operator takes rows that are not in memory.
    spills: bool,
}

/// The rows that a task gets.
enum Rows {
    Here(RecordBatch),
    OnDisk(StoredSegment),
}

/// Reads each file once, and has it in memory only until all who want rows of it have got them; those who spill get them on disk
/// when all that is theirs is not small: an operator takes all its rows from memory, or none.
async fn deal(store: &CheckpointStore, wanted: &[Want<'_>], aside: Option<Aside<'_>>) -> Result<Vec<Option<Rows>>> {
    let mut by_file = BTreeMap::<&str, Vec<usize>>::new();
    for (index, want) in wanted.iter().enumerate() {
        by_file.entry(&want.file.path).or_default().push(index);
    }
    let lengths = by_file.values().filter_map(|readers| readers.first()).map(|first| &wanted[*first]);
    let spilled: u64 = lengths.filter(|want| want.spills).map(|want| want.file.length).sum();
    let aside = aside.filter(|aside| spilled > aside.whole);
    let mut dealt: Vec<Option<Rows>> = wanted.iter().map(|_| None).collect();
    for readers in by_file.into_values() {
        let Some(&first) = readers.first() else { continue };
        let Want { file, spills, .. } = &wanted[first];
        let mut segments = Segments::new(store);
        let fetched = match aside.filter(|_| *spills) {
            Some(aside) => Some(segments.fetch(file, aside).await?),
            None => None,
        };
        for reader in readers {
            let key_groups = &wanted[reader].key_groups;
            dealt[reader] = match &fetched {
                Some(fetched) => fetched.deal(SegmentId(0), key_groups).map(Rows::OnDisk),
                None => {
                    let rows = segments.rows(file, key_groups).await?;
                    (rows.num_rows() > 0).then_some(Rows::Here(rows))
                }
            };
        }
    }
    Ok(dealt)
}

fn overlap((start, end): (u16, u16), other: &Range<usize>) -> Range<usize> {
    other.start.max(usize::from(start))..other.end.min(usize::from(end))
}

/// Reads every segment once.
pub(crate) struct Segments<'a> {
    store: &'a CheckpointStore,
    read: HashMap<String, RecordBatch>,
}

impl<'a> Segments<'a> {
    pub(crate) fn new(store: &'a CheckpointStore) -> Self {
        Self { store, read: HashMap::new() }
    }

    /// The rows of the given key groups.
    pub(crate) async fn rows(&mut self, file: &SegmentFile, key_groups: &Range<usize>) -> Result<RecordBatch> {
        if !self.read.contains_key(&file.path) {
            let bytes = self.store.get_segment(file).await.map_err(|error| error.of(self.store.job()))?;
            let rows = decode(bytes).map_err(|error| self.corrupt(file, &error.to_string()))?;
            self.read.insert(file.path.clone(), rows);
        }
        let rows = &self.read[&file.path];
        let corrupt = |reason: &str| self.corrupt(file, reason);
        let groups = rows.columns().first().and_then(|column| column.as_primitive_opt::<UInt8Type>());
        let groups = groups.ok_or_else(|| corrupt("its first column does not hold key groups"))?;
        let wanted: BooleanArray =
            groups.values().iter().map(|&group| Some(key_groups.contains(&usize::from(group)))).collect();
        if wanted.true_count() == wanted.len() {
            return Ok(rows.clone());
        }
        filter_record_batch(rows, &wanted).map_err(|error| corrupt(&error.to_string()))
    }
}

impl Segments<'_> {
    /// The rows of a file, on disk. A large one is never in memory as a whole.
    async fn fetch(&self, file: &SegmentFile, aside: Aside<'_>) -> Result<Arc<Fetched>> {
        let fetch = async {
            let mut fetching = Fetching::new(aside);
            if file.length <= aside.whole {
                fetching.take(self.store.get_segment(file).await?)?;
            } else {
                self.store.get_segment_in_pieces(file, |bytes| fetching.take(bytes)).await?;
            }
            fetching.finish()
        };
        fetch.await.map_err(|unfetched| match unfetched {
            Unfetched::Store(error) => error.of(self.store.job()),
            Unfetched::Corrupt(reason) => self.corrupt(file, &reason),
            Unfetched::Room(error) => Error::Operator { operator: "restoring the state".into(), error },
        })
    }

    /// Its checksum is right, so it was written so: by another version, or by a bug.
    fn corrupt(&self, file: &SegmentFile, reason: &str) -> Error {
        let error = CheckpointError::Incompatible {
            path: format!("{}/{}", self.store.shown(), file.path),
            reason: format!("it cannot be read as a segment of state: {reason}"),
        };
        error.of(self.store.job())
    }
}

/// The rows of an Arrow IPC file.
fn decode(bytes: bytes::Bytes) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let reader = FileReader::try_new(Cursor::new(bytes), None)?;
    let schema = reader.schema();
    concat_batches(&schema, &reader.collect::<std::result::Result<Vec<_>, _>>()?)
}
