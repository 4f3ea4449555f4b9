//! Turns what the tasks reported into a checkpoint in the store.
//!
//! An operator names its segments by number; here each number becomes a file. A segment that is new is encoded as an
//! Arrow IPC file and uploaded; one that an earlier checkpoint has is named again. So a checkpoint costs what changed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::DataType, error::ArrowError};
use arrow_ipc::writer::FileWriter;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;
use windrow_connectors::{Epoch, Receipt, Sink};
use windrow_operators::{
    OperatorError,
    spill::{self, Stored, pieces, read_all},
    state::SegmentId,
};

use super::{
    coordinator::Sinks,
    error::CheckpointError,
    faults::mutated,
    layout::{ChainLayout, Layout},
    manifest::{Form, Kind, Manifest, OperatorState, Parent, SavedTask, SegmentFile, SinkState, SplitState},
    settings::Timeout,
    store::{CheckpointStore, Claim},
    witnessed::{Witnessed, conclude},
};
use crate::{
    Error, Result,
    clock::{Moment, wall_millis},
    metrics::CheckpointCounters,
    runtime::report::{Snapshot, TaskId},
};

/// Segments are written in batches of about so many bytes, so that who restores them need not have more in memory.
const BATCH_BYTES: usize = 1 << 20;

/// How many segments are uploaded side by side, of those whose rows are in memory.
const UPLOADS: usize = 4;

/// The same of those whose rows are not: as many as fit into memory, but a store is not to be asked for more at once.
const STORED_UPLOADS: usize = 32;

/// What memory is counted in that uploads take.
const UNIT_BYTES: usize = 1 << 10;

/// How many times as long as removing old checkpoints took to wait before doing it again.
const PAUSES: u32 = 4;

/// A segment of one operator (by its place in the chain) of one task.
pub(crate) type SegmentKey = (TaskId, usize, SegmentId);

/// The checkpoints of a running job.
pub(crate) struct Archive {
    pub(crate) store: CheckpointStore,
    pub(crate) claim: Claim,
    /// Who decides, when it is not the store.
    pub(crate) witnessed: Option<Witnessed>,
    pub(crate) every: Duration,
    /// How many checkpoints are kept besides savepoints.
    pub(crate) keep: usize,
    pub(crate) timeout: Timeout,
    /// The last decided checkpoint.
    pub(crate) parent: Option<Parent>,
    /// The savepoint from which the job once went on although there was newer output.
    pub(crate) origin: Option<Epoch>,
    /// Where the segments are that the operators may name.
    pub(crate) files: HashMap<SegmentKey, SegmentFile>,
    /// Ended splits that are not there any more, by source: see [`Restored::absent`](super::restore::Restored).
    pub(crate) absent: BTreeMap<String, Vec<SplitState>>,
    pub(crate) counters: Arc<CheckpointCounters>,
    /// When old checkpoints are next removed.
    pub(crate) collect_at: Option<Moment>,
    /// How many bytes of segments that were not in memory may be there at a time, for their upload.
    pub(crate) at_once: usize,
}

/// A segment that is not in the store yet.
struct Upload {
    key: SegmentKey,
    operator: String,
    rows: Rows,
}

/// The rows of a new segment.
enum Rows {
    Here(RecordBatch),
    /// Not in memory before they are uploaded.
    Stored(Arc<dyn Stored>),
}

impl Archive {
    /// Makes a checkpoint durable and has it decided. When this returns the job will go on from it, whatever happens.
    pub(crate) async fn write(
        &mut self,
        layout: &Layout,
        sinks: &Sinks,
        epoch: Epoch,
        kind: Kind,
        reports: &BTreeMap<TaskId, Snapshot>,
        staged: &BTreeMap<String, Vec<Receipt>>,
    ) -> Result<Manifest> {
        self.upload(layout, epoch, reports).await?;
        let mut manifest = blank(&self.store, &self.claim, epoch, kind, self.parent);
        manifest.origin = self.origin;
        manifest.sources = self.absent.clone();
        for (task, snapshot) in reports {
            self.describe(&mut manifest, &layout.chains[task.chain], *task, snapshot);
        }
        let staged = |(id, (_, sink)): (&String, &(String, Arc<dyn Sink>))| {
            let receipts = staged.get(id).cloned().unwrap_or_default();
            (id.clone(), SinkState { name: sink.name(), receipts })
        };
        manifest.sinks = sinks.iter().map(staged).collect();
        let concluded = conclude(&self.store, &self.claim, self.witnessed.as_ref(), &mut manifest).await;
        concluded.map_err(|error| self.failed(error))?;
        self.parent = Some(manifest.as_parent());
        Ok(manifest)
    }

    fn failed(&self, error: CheckpointError) -> Error {
        error.of(self.store.job())
    }

    /// Why a step failed, see [`Start::explain`].
    pub(crate) async fn explain(&self, error: Error) -> Error {
        self.this_start().explain(error).await
    }

    /// Fails if a later start of the job has taken over. That it cannot be told for now is no failure.
    pub(crate) async fn replaced(&self) -> Result<()> {
        match self.store.still_newest(self.claim.generation).await {
            Err(fenced @ CheckpointError::Fenced { .. }) => Err(self.failed(fenced)),
            _ => Ok(()),
        }
    }

    /// Which start of which job this is.
    pub(crate) fn this_start(&self) -> Start {
        Start { store: self.store.clone(), generation: self.claim.generation }
    }

    /// Uploads the segments that are new, and forgets those that no operator names any more.
    pub(super) async fn upload(
        &mut self,
        layout: &Layout,
        epoch: Epoch,
        reports: &BTreeMap<TaskId, Snapshot>,
    ) -> Result<()> {
        let mut files = HashMap::new();
        let mut uploads = Vec::new();
        for (&task, snapshot) in reports {
            let operators = &layout.chains[task.chain].operators;
            for (place, (operator, state)) in operators.iter().zip(&snapshot.operators).enumerate() {
                for (segment, rows) in &state.segments {
                    let key = (task, place, *segment);
                    let rows = match (rows, state.stored.get(segment)) {
                        (Some(rows), _) => Some(Rows::Here(rows.clone())),
                        (None, stored) => stored.cloned().map(Rows::Stored),
                    };
                    match (rows, self.files.get(&key)) {
                        // The last word of an ended task comes with its rows every time.
                        (_, Some(file)) => {
                            files.insert(key, file.clone());
                        }
                        (Some(rows), None) => {
                            let operator = operator.saved.as_ref().map_or_else(String::new, |(id, _)| id.clone());
                            uploads.push(Upload { key, operator, rows });
                        }
                        (None, None) => return Err(never_sealed(&operator.name, *segment)),
                    }
                }
            }
        }
        let (store, generation) = (&self.store, self.claim.generation);
        let units = (self.at_once / UNIT_BYTES).clamp(1, u32::MAX as usize);
        let room = &Semaphore::new(units);
        let upload = |Upload { key, operator, rows }: Upload| async move {
            // What was put on disk because it is too much for memory comes back for its upload alone, and has its place until it is
            // there. One that is larger than all places has all of them.
            let _place = match &rows {
                Rows::Stored(stored) => {
                    let own = stored.bytes().div_ceil(UNIT_BYTES).clamp(1, units);
                    room.acquire_many(own as u32).await.ok()
                }
                Rows::Here(_) => None,
            };
            let failed = |error: OperatorError| Error::Operator { operator: operator.clone(), error };
            let (bytes, count) = match rows {
                Rows::Here(rows) => encode(&rows).map(|bytes| (bytes, rows.num_rows())).map_err(OperatorError::from),
                Rows::Stored(stored) => encode_stored(stored.as_ref()),
            }
            .map_err(failed)?;
            let file = store.put_segment(epoch, generation, &operator, key.0.task, count as u64, bytes).await;
            Ok::<_, Error>((key, file.map_err(|error| error.of(store.job()))?))
        };
        let (stored, here): (Vec<_>, Vec<_>) = uploads.into_iter().partition(|it| matches!(it.rows, Rows::Stored(_)));
        let mut uploaded: Vec<_> = stream::iter(here).map(upload).buffer_unordered(UPLOADS).try_collect().await?;
        let stored = stream::iter(stored).map(upload).buffer_unordered(STORED_UPLOADS);
        uploaded.extend(stored.try_collect::<Vec<_>>().await?);
        uploaded.iter().for_each(|(_, file): &(SegmentKey, SegmentFile)| self.counters.wrote(file.length));
        files.extend(uploaded);
        self.files = files;
        Ok(())
    }

    /// Adds what one task is made of.
    fn describe(&self, manifest: &mut Manifest, chain: &ChainLayout, task: TaskId, snapshot: &Snapshot) {
        if let Some(source) = &chain.source {
            manifest.sources.entry(source.clone()).or_default().extend(snapshot.splits.iter().cloned());
        }
        for (place, (operator, state)) in chain.operators.iter().zip(&snapshot.operators).enumerate() {
            let Some((id, form)) = &operator.saved else { continue };
            let key_groups = chain.key_groups(task.task);
            let forgets = mutated("kept segments are forgotten in the manifest");
            let named =
                state.segments.iter().filter(|(id, rows)| rows.is_some() || state.stored.contains_key(id) || !forgets);
            let files = named.filter_map(|(id, _)| self.files.get(&(task, place, *id)).cloned());
            let saved = SavedTask {
                first_phase: operator.first_phase,
                key_groups: (key_groups.start as u16, key_groups.end as u16),
                numbers: state.numbers.clone(),
                segments: files.collect(),
            };
            let entry = manifest.operators.entry(id.clone());
            let new = || OperatorState { form: Some(Form::from(form)), tasks: Vec::new() };
            entry.or_insert_with(new).tasks.push(saved);
        }
    }

    /// The sinks have published everything of `epoch`.
    pub(crate) async fn published(&self, epoch: Epoch) -> Result<()> {
        self.store.done(epoch).await.map_err(|error| self.failed(error))
    }

    /// Removes what no restart needs, unless it did so a moment ago: it looks at every record in the store, and may take
    /// a small part of the time at the most. A failure is counted, not fatal: nothing that is needed was removed, and the
    /// next time does the rest.
    pub(crate) async fn collect(&mut self) -> Result<()> {
        let began = Moment::now();
        if self.collect_at.is_some_and(|at| began < at) {
            return Ok(());
        }
        let collected = self.store.collect(&self.claim, self.keep).await;
        self.collect_at = Some(Moment::now().after(began.elapsed().saturating_mul(PAUSES)));
        match collected {
            Ok(_) => Ok(()),
            Err(fenced @ CheckpointError::Fenced { .. }) => Err(self.failed(fenced)),
            Err(_) => {
                self.counters.not_collected();
                Ok(())
            }
        }
    }

    /// Whether a savepoint can be called `name`.
    pub(crate) async fn check_savepoint(&self, name: &str) -> Result<()> {
        self.store.savepoint_is_free(name).await.map_err(|error| self.failed(error))
    }

    /// Keeps a savepoint under its name.
    pub(crate) async fn keep(&self, manifest: &Manifest) -> Result<()> {
        self.store.savepoint(manifest).await.map_err(|error| self.failed(error))
    }
}

/// One start of a job.
pub(crate) struct Start {
    pub(super) store: CheckpointStore,
    pub(super) generation: u64,
}

impl Start {
    /// Why something failed: because a later start of the job has taken over, if one has. It sweeps away what this one
    /// wrote, collects what this one reads, and fences its sinks.
    pub(crate) async fn explain(&self, error: Error) -> Error {
        match self.store.still_newest(self.generation).await {
            Err(fenced @ CheckpointError::Fenced { .. }) => fenced.of(self.store.job()),
            _ => error,
        }
    }
}

/// The manifest of an incarnation, about nothing yet.
pub(crate) fn blank(
    store: &CheckpointStore,
    claim: &Claim,
    epoch: Epoch,
    kind: Kind,
    parent: Option<Parent>,
) -> Manifest {
    Manifest {
        job: store.job().into(),
        job_id: claim.job_id.clone(),
        epoch,
        generation: claim.generation,
        nonce: claim.nonce,
        parent,
        origin: None,
        kind,
        witness: None,
        created_ms: wall_millis(),
        operators: BTreeMap::new(),
        sources: BTreeMap::new(),
        sinks: BTreeMap::new(),
    }
}

/// The operator named a segment that no checkpoint has: a bug in it.
fn never_sealed(operator: &str, segment: SegmentId) -> Error {
    let message = format!("its state names segment {}, which it never sealed", segment.0);
    Error::Operator { operator: operator.into(), error: OperatorError::Internal(message) }
}

/// A segment as the bytes of an Arrow IPC file, in batches that can be read one by one.
pub(super) fn encode(rows: &RecordBatch) -> std::result::Result<Bytes, ArrowError> {
    let mut writer = FileWriter::try_new(Vec::with_capacity(rows.get_array_memory_size()), rows.schema_ref())?;
    pieces(rows, BATCH_BYTES).iter().try_for_each(|piece| writer.write(piece))?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}

/// The same of rows that are not in memory, of which few are at a time; and how many they are.
fn encode_stored(stored: &dyn Stored) -> std::result::Result<(Bytes, usize), OperatorError> {
    let first = stored.read(0)?;
    let schema = first.schema();
    // A file has one dictionary for each column, so that of all batches must be known before the first is written.
    if schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..))) {
        let rows = read_all(stored)?;
        return Ok((encode(&rows)?, rows.num_rows()));
    }
    let mut writer = FileWriter::try_new(Vec::new(), &schema)?;
    let (mut some, mut bytes, mut count) = (vec![first], 0, 0);
    for batch in 1..=stored.batches() {
        bytes += some.last().map_or(0, spill::bytes);
        if bytes >= BATCH_BYTES || batch == stored.batches() {
            let rows = concat_batches(&schema, &some)?;
            count += rows.num_rows();
            pieces(&rows, BATCH_BYTES).iter().try_for_each(|piece| writer.write(piece))?;
            (some, bytes) = (Vec::new(), 0);
        }
        if batch < stored.batches() {
            some.push(stored.read(batch)?);
        }
    }
    writer.finish()?;
    Ok((writer.into_inner()?.into(), count))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, StringArray, types::Int32Type};
    use arrow_ipc::reader::FileReader;

    use super::*;

    /// Batches, and how many of them were read.
    #[derive(Debug)]
    struct Batches(Vec<RecordBatch>);

    impl Stored for Batches {
        fn batches(&self) -> usize {
            self.0.len()
        }

        fn read(&self, batch: usize) -> std::result::Result<RecordBatch, OperatorError> {
            Ok(self.0[batch].clone())
        }
    }

    fn decoded(bytes: Bytes) -> Vec<RecordBatch> {
        FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_segment_is_written_in_batches_that_can_be_read_one_by_one() {
        let batch = |from: i64, rows: i64| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
            let names = (from..from + rows).map(|i| format!("name {i}"));
            let names: ArrayRef = Arc::new(StringArray::from_iter_values(names));
            RecordBatch::try_from_iter([("n", numbers), ("name", names)]).unwrap()
        };
        let whole = batch(0, 300_000);
        let batches = decoded(encode(&whole).unwrap());
        assert!(batches.len() > 4, "{} batches", batches.len());
        assert_eq!(concat_batches(whole.schema_ref(), &batches).unwrap(), whole);
        for sizes in [vec![300_000], vec![1; 300], (1..700).collect(), vec![5, 0, 100_000, 0]] {
            let mut from = 0;
            let stored = sizes.iter().map(|rows| {
                from += rows;
                batch(from - rows, *rows)
            });
            let stored = Batches(stored.collect());
            let (bytes, count) = encode_stored(&stored).unwrap();
            let batches = decoded(bytes);
            assert_eq!(count as i64, from);
            assert!(batches.iter().all(|batch| spill::bytes(batch) < 3 * BATCH_BYTES));
            assert!(batches.len() < 20, "small ones are joined");
            assert_eq!(concat_batches(whole.schema_ref(), &batches).unwrap(), batch(0, from));
        }
    }

    #[test]
    fn batches_with_dictionaries_of_their_own_become_one_segment() {
        let batch = |names: &[&str]| {
            let names: ArrayRef = Arc::new(names.iter().copied().collect::<DictionaryArray<Int32Type>>());
            RecordBatch::try_from_iter([("name", names)]).unwrap()
        };
        let (bytes, count) = encode_stored(&Batches(vec![batch(&["a", "b"]), batch(&["c", "a", "c"])])).unwrap();
        let rows = arrow::compute::cast(decoded(bytes)[0].column(0), &DataType::Utf8).unwrap();
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "a", "c"]));
        assert_eq!((count, &rows), (5, &names));
    }
}
