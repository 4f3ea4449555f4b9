//! Turns what the tasks reported into a checkpoint in the store.
//!
//! An operator names its segments by number; here each number becomes a file. A segment that is new is encoded as an
//! Arrow IPC file and uploaded; one that an earlier checkpoint has is named again. So a checkpoint costs what changed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::array::RecordBatch;
use arrow_ipc::writer::FileWriter;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use windrow_connectors::{Epoch, Receipt, Sink};
use windrow_operators::{
    OperatorError,
    spill::{Stored, read_all},
    state::SegmentId,
};

use super::{
    coordinator::Sinks,
    error::CheckpointError,
    faults::mutated,
    layout::{ChainLayout, Layout},
    manifest::{Form, Kind, Manifest, OperatorState, Parent, SavedTask, SegmentFile, SinkState, SplitState},
    settings::{KEPT_CHECKPOINTS, Timeout},
    store::{CheckpointStore, Claim},
    witnessed::{Witnessed, conclude},
};
use crate::{
    Error, Result,
    clock::{Moment, wall_millis},
    metrics::CheckpointCounters,
    runtime::report::{Snapshot, TaskId},
};

/// How many segments are uploaded side by side.
const UPLOADS: usize = 4;

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
    async fn upload(&mut self, layout: &Layout, epoch: Epoch, reports: &BTreeMap<TaskId, Snapshot>) -> Result<()> {
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
        let uploading = uploads.into_iter().map(|Upload { key, operator, rows }| async move {
            let failed = |error: OperatorError| Error::Operator { operator: operator.clone(), error };
            let rows = match rows {
                Rows::Here(rows) => rows,
                Rows::Stored(stored) => read_all(stored.as_ref()).map_err(failed)?,
            };
            let bytes = encode(&rows).map_err(|error| failed(error.into()))?;
            let (task, count) = (key.0.task, rows.num_rows() as u64);
            drop(rows);
            let file = store.put_segment(epoch, generation, &operator, task, count, bytes).await;
            Ok::<_, Error>((key, file.map_err(|error| error.of(store.job()))?))
        });
        let uploaded: Vec<_> = stream::iter(uploading).buffer_unordered(UPLOADS).try_collect().await?;
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
        let collected = self.store.collect(&self.claim, KEPT_CHECKPOINTS).await;
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

/// A segment as the bytes of an Arrow IPC file.
pub(super) fn encode(rows: &RecordBatch) -> std::result::Result<Bytes, arrow::error::ArrowError> {
    let mut writer = FileWriter::try_new(Vec::with_capacity(rows.get_array_memory_size()), rows.schema_ref())?;
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner()?.into())
}
