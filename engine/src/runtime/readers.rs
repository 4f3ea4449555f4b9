//! Makes the readers of all source tasks, all at once: each may wait for an answer from outside, and none for that of another.
//!
//! ```text
//!   splits of a task ──► known: their positions and ends ──► Source::reader_until ──┐
//!                   └──► have appeared since ────────────────► SourceReader::add ───┴──► Opened, with what is put off
//! ```
//!
//! A source of which none can be read because nobody answers fails the start. Whether it is so is a question of all its tasks: one may
//! have nothing but splits that are put off.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::future::try_join_all;
use windrow_connectors::{ConnectorError, PutOff, SourceReader, SplitId};

use super::{
    report::TaskId,
    source_task::{Progress, note_begins},
};
use crate::{
    Error, Result,
    checkpoint::{Restored, SplitState, mutated},
    metrics::Counters,
    plan::{
        graph::{Graph, Kind},
        physical::{Head, PhysicalPlan},
    },
};

/// The reader of a task, and how far its splits have been read.
pub(super) struct Opened {
    pub(super) reader: Box<dyn SourceReader>,
    /// What the checkpoint has of them.
    pub(super) states: Vec<SplitState>,
    pub(super) progress: HashMap<SplitId, Progress>,
    /// Whether it was decided where a split begins or ends.
    pub(super) decided: bool,
    /// Whether one can be read, of those that are to be.
    reads: bool,
}

/// The readers of all source tasks.
pub(super) async fn open(
    graph: &Graph,
    plan: &PhysicalPlan,
    counters: &[std::sync::Arc<Counters>],
    restored: &Restored,
) -> Result<HashMap<TaskId, Opened>> {
    let mut opening = Vec::new();
    for (chain, of) in plan.chains.iter().enumerate() {
        let Head::Source { node, splits } = &of.head else { continue };
        for (task, splits) in splits.iter().take(of.tasks).enumerate() {
            opening.push(async move {
                let opened = open_one(graph, *node, splits, restored).await;
                let opened =
                    opened.map_err(|error| Error::Source { operator: counters[*node].name().into(), error })?;
                Ok((TaskId { chain, task }, *node, opened))
            });
        }
    }
    let (mut all, mut read, mut unanswered) = (HashMap::new(), HashSet::new(), BTreeMap::new());
    for (task, node, opened) in try_join_all(opening).await? {
        if opened.reads {
            read.insert(node);
        }
        if let Some(PutOff { reason, .. }) = opened.reader.put_off().into_iter().find(|put_off| put_off.unanswered) {
            unanswered.entry(node).or_insert(reason);
        }
        all.insert(task, opened);
    }
    match unanswered.into_iter().find(|(node, _)| !read.contains(node)) {
        Some((node, reason)) => {
            let Kind::Source { source, .. } = &graph.nodes[node].kind else { return Ok(all) };
            let error = ConnectorError::Remote { system: source.name(), reason, passes: true };
            Err(Error::Source { operator: counters[node].name().into(), error })
        }
        None => Ok(all),
    }
}

async fn open_one(
    graph: &Graph,
    node: usize,
    splits: &[SplitId],
    restored: &Restored,
) -> windrow_connectors::Result<Opened> {
    let Kind::Source { source, .. } = &graph.nodes[node].kind else {
        return Err(ConnectorError::Config("internal: a source chain without a source".into()));
    };
    let id = graph.nodes[node].id.as_deref().unwrap_or_default();
    let states = restored.splits(id, splits);
    let unknown = if restored.has_ends(id) { Progress::beyond() } else { Progress::default() };
    let mut progress: HashMap<_, _> = splits.iter().map(|split| (split.clone(), unknown)).collect();
    progress.extend(states.iter().map(|state| (SplitId::new(state.split.as_str()), Progress::of(state))));
    // A checkpoint that knows the source but not the split: it has appeared since. Where the source is configured to start
    // is for those that were there.
    let adds = source.adds_splits() && !mutated("splits that have appeared begin as if they had been there");
    let former = restored.known(id).filter(|_| adds);
    let is_new = |split: &SplitId| former.as_ref().is_some_and(|former| !former.contains(split.as_str()));
    // Or it had, and was not to be read while the source had an end.
    let beyond = if adds { restored.beyond(id, splits) } else { Vec::new() };
    let was_left = |split: &SplitId| beyond.contains(&split.as_str()) && !progress[split].ended;
    let has_appeared = |split: &SplitId| is_new(split) || was_left(split);
    let (appeared, known): (Vec<SplitId>, Vec<SplitId>) = splits.iter().cloned().partition(has_appeared);
    progress.extend(appeared.iter().map(|split| (split.clone(), Progress::appeared())));
    let open = || known.iter().filter(|split| !progress[*split].ended);
    let assigned = open().map(|split| (split.clone(), progress[split].position)).collect();
    let ends = open().filter_map(|split| Some((split.clone(), progress[split].end?))).collect();
    let mut reader = source.reader_until(assigned, ends).await?;
    if !appeared.is_empty() {
        reader.add(appeared).await?;
    }
    let reads = reads(&progress, &*reader);
    let decided = note_begins(&mut progress, &*reader);
    Ok(Opened { reader, states, progress, decided, reads })
}

/// Whether a split can be read; not one that had been read to its end before, for which nobody is asked.
fn reads(progress: &HashMap<SplitId, Progress>, reader: &dyn SourceReader) -> bool {
    let put_off: HashSet<SplitId> = reader.put_off().into_iter().map(|put_off| put_off.split).collect();
    let ends: HashSet<SplitId> = reader.ends().into_iter().map(|(split, _)| split).collect();
    progress.iter().any(|(split, progress)| {
        let former = progress.end.filter(|_| ends.contains(split));
        let is_over = progress.ended || former.is_some_and(|end| progress.position.unwrap_or_default() >= end);
        !is_over && !put_off.contains(split)
    })
}
