//! From the store to a job that can begin: who is allowed to run, what is decided, what is still to be published.
//!
//! ```text
//!   claim ──► the witness, if there is one, fences former incarnations
//!      ──► recover (the newest decided checkpoint; fences them in the store) ──► does the job fit it?
//!      ──► publish what it staged ──► clean up behind former incarnations ──► restore state
//! ```
//!
//! Every step may be repeated: a crash anywhere begins again at the first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use windrow_connectors::{Epoch, Incarnation, SplitId};
use windrow_operators::{Timestamp, spill::Room};

use super::{
    archive::{Archive, Start, blank},
    coordinator::{Sinks, publish},
    crash::crash_point,
    error::CheckpointError,
    faults::mutated,
    fetched::{Aside, whole},
    layout::Layout,
    manifest::{Kind, Manifest, Parent},
    read::Wanted,
    recovery::Recovered,
    restore::{Left, Restored, left, misfits, restore},
    settings::{Restore, Settings},
    store::{CheckpointStore, Claim},
    witnessed::{Witnessed, conclude, give_up},
};
use crate::{Error, Result, plan::graph::Graph};

/// What an attempt begins with.
pub(crate) struct Begin {
    pub(crate) incarnation: Incarnation,
    /// The first epoch of this incarnation.
    pub(crate) next: Epoch,
    /// Whether there is no checkpoint yet.
    pub(crate) fresh: bool,
    pub(crate) restored: Restored,
    /// `None` without a store.
    pub(crate) archive: Option<Archive>,
    /// What a person should know about the store.
    pub(crate) warnings: Vec<String>,
}

impl Begin {
    /// A job without checkpoints begins at the beginning; what it stages is told from that of others by chance.
    pub(crate) fn without_store() -> Self {
        let incarnation =
            Incarnation { job: format!("{:08x}", fastrand::u32(..)), generation: 1, nonce: fastrand::u32(..) };
        Self {
            incarnation,
            next: Epoch(1),
            fresh: true,
            restored: Restored::default(),
            archive: None,
            warnings: Vec::new(),
        }
    }
}

/// Makes this process the one that runs the job, and finds what the job goes on from.
pub(crate) async fn begin(
    settings: &Settings,
    graph: &Graph,
    layout: &Layout,
    sinks: &Sinks,
    splits: &HashMap<usize, Vec<SplitId>>,
    memory: Option<(usize, &dyn Room)>,
) -> Result<Begin> {
    let failed = |error: CheckpointError| error.of(&graph.job);
    let store = CheckpointStore::open(&settings.url, &graph.job).map_err(failed)?;
    let mut claim = store.claim().await.map_err(failed)?;
    let witnessed = Witnessed::of(sinks, &graph.job, claim.incarnation(), settings.restore.repeat_output);
    let keeper = Keeper { store: &store, claim: &claim, witnessed: witnessed.as_ref() };
    let resumed = Box::pin(resume(settings, graph, layout, sinks, splits, keeper, memory)).await;
    let Resumed { manifest, next, mut restored, left_aside } = match resumed {
        Ok(resumed) => resumed,
        Err(error) => {
            let error = Start { store, generation: claim.generation }.explain(error).await;
            give_up(witnessed.as_ref()).await;
            return Err(error);
        }
    };
    let incarnation = claim.incarnation();
    let mut warnings = std::mem::take(&mut claim.warnings);
    warnings.extend(left_aside);
    let archive = Archive {
        store,
        claim,
        witnessed,
        every: settings.every,
        keep: settings.keep,
        timeout: settings.timeout.clone(),
        parent: manifest.as_ref().map(Manifest::as_parent),
        origin: manifest.as_ref().and_then(|manifest| manifest.origin),
        files: std::mem::take(&mut restored.files),
        absent: std::mem::take(&mut restored.absent),
        counters: Arc::default(),
        collect_at: None,
        at_once: whole(memory.map_or(0, |(budget, _)| budget)),
    };
    Ok(Begin { incarnation, next, fresh: manifest.is_none(), restored, archive: Some(archive), warnings })
}

/// Where the checkpoints are, who writes them, and who decides them when it is not the store.
#[derive(Clone, Copy)]
struct Keeper<'a> {
    store: &'a CheckpointStore,
    claim: &'a Claim,
    witnessed: Option<&'a Witnessed>,
}

/// The checkpoint that a job goes on from, published and read.
struct Resumed {
    manifest: Option<Manifest>,
    next: Epoch,
    restored: Restored,
    /// What was found and left aside, or that the job has nothing left to do.
    left_aside: Vec<String>,
}

/// Finds the checkpoint, decides and publishes what is still to be, and reads it.
async fn resume(
    settings: &Settings,
    graph: &Graph,
    layout: &Layout,
    sinks: &Sinks,
    splits: &HashMap<usize, Vec<SplitId>>,
    keeper: Keeper<'_>,
    memory: Option<(usize, &dyn Room)>,
) -> Result<Resumed> {
    let Keeper { store, claim, .. } = keeper;
    let failed = |error: CheckpointError| error.of(&graph.job);
    let Recovered { committed: newest, done, next_epoch: mut next, warnings: mut left_aside } =
        fence_and_recover(keeper).await.map_err(failed)?;
    let by_id = splits.iter().filter_map(|(node, splits)| Some((graph.nodes[*node].id.clone()?, splits.clone())));
    let by_id: BTreeMap<String, Vec<SplitId>> = by_id.collect();
    let chosen = choose(store, &settings.restore, newest).await.map_err(failed)?;
    let mut manifest = chosen.manifest;
    // What is only published now was not finished before.
    if let Some(manifest) = manifest.as_ref().filter(|_| done && chosen.instead_of.is_none()) {
        left_aside.extend(left(manifest, graph, splits).map(|left| has_finished(store, manifest, left)));
    }
    if let Some(manifest) = &manifest {
        let mut reasons = misfits(manifest, layout, &by_id, settings.drop_state);
        let done = done || chosen.instead_of.is_some();
        if !done {
            reasons.extend(unpublishable(manifest, sinks));
        }
        if !reasons.is_empty() {
            return Err(Error::Misfit { job: graph.job.clone(), epoch: manifest.epoch, reasons });
        }
        if !done {
            let staged = manifest.sinks.iter().map(|(id, sink)| (id.clone(), sink.receipts.clone()));
            if !mutated("what was decided is not published after a crash") {
                publish(sinks, &staged.collect()).await?;
            }
            crash_point("K13 R5 published");
            store.done(manifest.epoch).await.map_err(failed)?;
        }
    }
    if let (Some(newest), Some(savepoint)) = (chosen.instead_of, &mut manifest) {
        *savepoint = write_again(keeper, savepoint, (next, newest)).await.map_err(failed)?;
        next = Epoch(next.0 + 1);
    }
    let incarnation = claim.incarnation();
    // Only now: what the checkpoint staged is published, so whatever is left of former incarnations is of no use.
    for (operator, sink) in sinks.values() {
        let cleaned = sink.clean(&incarnation).await;
        cleaned.map_err(|error| Error::Sink { operator: operator.clone(), error })?;
    }
    crash_point("K13 R6 cleaned");
    let restored = match &manifest {
        Some(manifest) => {
            let aside = memory.map(|(budget, room)| Aside::new(budget, room));
            restore(store, manifest, layout, &by_id, aside).await?
        }
        None => Restored::default(),
    };
    crash_point("K13 R8 restored");
    Ok(Resumed { manifest, next, restored, left_aside })
}

/// R2 to R4: fence first, read after. What the witness has said before could be overtaken by an incarnation that still lives; it is
/// asked before only whether the fence would meet a job of another directory.
async fn fence_and_recover(Keeper { store, claim, witnessed }: Keeper<'_>) -> Result<Recovered, CheckpointError> {
    let late = mutated("the marker is read before the fence");
    let recovered = if late { Some(store.recover(claim, witnessed).await?) } else { None };
    if let Some(witnessed) = witnessed {
        store.is_its_own(claim, witnessed).await?;
        witnessed.fence().await?;
    }
    match recovered {
        Some(recovered) => Ok(recovered),
        None => store.recover(claim, witnessed).await,
    }
}

/// What a job begins from.
struct Chosen {
    manifest: Option<Manifest>,
    /// The newest checkpoint, when it is an older savepoint that the job goes back to.
    instead_of: Option<Parent>,
}

/// The checkpoint that the user wants, if it can be had. Nothing is written.
async fn choose(
    store: &CheckpointStore,
    restore: &Restore,
    newest: Option<Manifest>,
) -> Result<Chosen, CheckpointError> {
    let as_it_is = |manifest| Chosen { manifest, instead_of: None };
    let Some(name) = &restore.savepoint else { return Ok(as_it_is(newest)) };
    let savepoint = store.load_committed(&Wanted::Savepoint(name.clone())).await?;
    let Some(mut newest) = newest else { return Ok(as_it_is(Some(savepoint))) };
    let epoch = savepoint.epoch;
    if newest.epoch == epoch || newest.origin == Some(epoch) {
        // From now on the checkpoints of the job say where they come from, so that the next start goes on from them.
        newest.origin = Some(epoch);
        return Ok(as_it_is(Some(newest)));
    }
    if !restore.repeat_output {
        let wanted = format!("savepoint {name:?}");
        return Err(CheckpointError::Rewind { wanted, epoch: epoch.0, newest: newest.epoch.0 });
    }
    Ok(Chosen { manifest: Some(savepoint), instead_of: Some(newest.as_parent()) })
}

/// Writes a savepoint down as the newest checkpoint, so that from then on there is one line of checkpoints again.
async fn write_again(
    Keeper { store, claim, witnessed }: Keeper<'_>,
    savepoint: &Manifest,
    (epoch, newest): (Epoch, Parent),
) -> Result<Manifest, CheckpointError> {
    let mut again = blank(store, claim, epoch, Kind::Periodic, Some(newest));
    again.origin = Some(savepoint.epoch);
    again.operators = savepoint.operators.clone();
    again.sources = savepoint.sources.clone();
    conclude(store, claim, witnessed, &mut again).await?;
    store.done(again.epoch).await?;
    Ok(again)
}

/// That a start of the job does nothing, or next to nothing.
fn has_finished(store: &CheckpointStore, manifest: &Manifest, left: Left) -> String {
    let when = i64::try_from(manifest.created_ms).ok().and_then(Timestamp::from_millis).unwrap_or_default();
    let reads = match left {
        Left::Nothing => "nothing",
        Left::NewSplits => "nothing but splits (partitions, files) that are new",
    };
    format!(
        "job {:?} has finished: its checkpoint {} in {}, of {when}, says that all its input has been read and all its output is \
         written. So this start reads {reads}, and writes nothing again. To read what has come since, or everything anew, give the \
         job another name, or another directory for its checkpoints",
        manifest.job,
        manifest.epoch,
        store.shown(),
    )
}

/// What the checkpoint staged for sinks that the job does not have any more.
fn unpublishable(manifest: &Manifest, sinks: &Sinks) -> Vec<String> {
    let staged = manifest.sinks.iter().filter(|(_, sink)| !sink.receipts.is_empty());
    let gone = staged.filter(|(id, saved)| sinks.get(*id).is_none_or(|(_, sink)| sink.name() != saved.name));
    let reason = |(id, saved): (&String, &super::manifest::SinkState)| {
        format!(
            "{id}: {} pieces of output for {:?} are decided and not published yet, but the job does not write there any \
             more: run the former job once, to publish them",
            saved.receipts.len(),
            saved.name
        )
    };
    gone.map(reason).collect()
}
