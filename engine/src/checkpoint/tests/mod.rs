//! A small job that takes checkpoints, and what it remembers of them, so that every test can say what a restore must
//! find.
//!
//! The state of the job is a list of segments. Each checkpoint adds some and drops some, as operators do. What a
//! manifest stands for is written down in a [`Log`] before it is prepared: a restore gets exactly that or the test fails.

mod corruption;
mod dealt;
mod faults;
mod faulty;
mod formats;
mod golden;
mod local;
mod random;
mod refusals;
mod served;
mod starts;
mod steps;
mod uploads;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use fastrand::Rng;
use object_store::{ObjectStore, memory::InMemory};
use windrow_connectors::sink::{Epoch, Receipt};

use super::{
    error::CheckpointError,
    manifest::{Kind, Manifest, OperatorState, Parent, SavedTask, SegmentFile, SinkState, SplitState},
    recovery::Recovered,
    store::{CheckpointStore, Claim, Result},
};

pub(super) const JOB: &str = "hot items";

pub(super) fn memory() -> Arc<InMemory> {
    Arc::new(InMemory::new())
}

pub(super) fn store(objects: Arc<dyn ObjectStore>) -> CheckpointStore {
    CheckpointStore::with(objects, "root", JOB).unwrap()
}

/// What manifests stand for, and which of them count.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    /// By epoch and nonce: the content of each segment.
    states: HashMap<(Epoch, u32), BTreeMap<String, Bytes>>,
    /// By epoch and nonce: what it follows.
    parents: HashMap<(Epoch, u32), Option<Parent>>,
    /// The newest epoch that a process knows to be decided.
    decided: Option<Epoch>,
}

impl Log {
    fn note(&self, manifest: &Manifest, state: &BTreeMap<String, Bytes>) {
        let mut entries = self.0.lock().unwrap();
        entries.states.insert((manifest.epoch, manifest.nonce), state.clone());
        entries.parents.insert((manifest.epoch, manifest.nonce), manifest.parent);
    }

    fn decided(&self, epoch: Epoch) {
        let newest = &mut self.0.lock().unwrap().decided;
        *newest = (*newest).max(Some(epoch));
    }

    pub(super) fn newest(&self) -> Option<Epoch> {
        self.0.lock().unwrap().decided
    }

    fn state(&self, manifest: &Manifest) -> BTreeMap<String, Bytes> {
        let entries = self.0.lock().unwrap();
        entries.states.get(&(manifest.epoch, manifest.nonce)).expect("a manifest that somebody prepared").clone()
    }
}

/// That every decision for a checkpoint follows the one before: nobody has gone on from another state.
pub(super) async fn assert_one_lineage(store: &CheckpointStore, log: &Log) {
    let mut last = None;
    for number in store.objects.numbers("epoch").await.unwrap() {
        let Some(commit) = store.commit(number).await.unwrap() else { continue };
        let parent = log.0.lock().unwrap().parents[&(commit.checkpoint.epoch, commit.checkpoint.nonce)];
        assert_eq!(parent, last, "checkpoint {number} does not follow the one before");
        last = Some(commit.checkpoint);
    }
}

/// One process that runs the job.
pub(super) struct Process {
    pub(super) store: CheckpointStore,
    pub(super) claim: Claim,
    pub(super) recovered: Recovered,
    log: Log,
    rng: Rng,
    parent: Option<Parent>,
    next: Epoch,
    segments: Vec<SegmentFile>,
    state: BTreeMap<String, Bytes>,
}

impl Process {
    /// Starts the job, checks that it finds what it must, and publishes what was not published.
    pub(super) async fn start(store: &CheckpointStore, log: &Log, seed: u64) -> Result<Self> {
        let claim = store.claim().await?;
        Self::recover(store, claim, log, seed).await
    }

    pub(super) async fn recover(store: &CheckpointStore, claim: Claim, log: &Log, seed: u64) -> Result<Self> {
        let decided = log.newest();
        let recovered = store.recover(&claim, None).await?;
        let found = recovered.committed.as_ref().map(|manifest| manifest.epoch);
        assert!(found >= decided, "checkpoint {decided:?} was decided, and the start found {found:?}");
        let mut state = BTreeMap::new();
        if let Some(manifest) = &recovered.committed {
            state = restore(store, manifest).await?;
            assert_eq!(state, log.state(manifest), "checkpoint {} has another content", manifest.epoch);
            log.decided(manifest.epoch);
            if !recovered.done {
                store.done(manifest.epoch).await?;
            }
        }
        let segments = recovered.committed.iter().flat_map(Manifest::segments).cloned().collect();
        Ok(Self {
            store: store.clone(),
            log: log.clone(),
            rng: Rng::with_seed(seed),
            parent: recovered.committed.as_ref().map(Manifest::as_parent),
            next: recovered.next_epoch,
            segments,
            state,
            claim,
            recovered,
        })
    }

    /// Writes the segments of the next checkpoint, and returns its manifest.
    pub(super) async fn segments(&mut self, kind: Kind) -> Result<Manifest> {
        let dropped = self.rng.usize(..=self.segments.len()).min(2);
        for file in self.segments.drain(..dropped) {
            self.state.remove(&file.path);
        }
        for task in 0..self.rng.usize(1..4) {
            let bytes: Bytes = (0..self.rng.usize(0..40)).map(|_| self.rng.u8(..)).collect();
            let generation = self.claim.generation;
            let file = self.store.put_segment(self.next, generation, "window 3", task, 7, bytes.clone()).await?;
            self.state.insert(file.path.clone(), bytes);
            self.segments.push(file);
        }
        let manifest = self.manifest(kind);
        self.log.note(&manifest, &self.state);
        Ok(manifest)
    }

    fn manifest(&self, kind: Kind) -> Manifest {
        let numbers = BTreeMap::from([("closed".to_owned(), self.rng.clone().i64(..))]);
        let task = SavedTask { first_phase: false, key_groups: (0, 256), numbers, segments: self.segments.clone() };
        let split = SplitState {
            split: "a.csv".into(),
            position: Some(self.next.0),
            ended: false,
            end: None,
            latest: None,
            idle: true,
            promised: None,
        };
        let sink = SinkState { name: "file out/".into(), receipts: vec![Receipt(format!("part-{}", self.next))] };
        Manifest {
            job: JOB.into(),
            job_id: self.claim.job_id.clone(),
            epoch: self.next,
            generation: self.claim.generation,
            nonce: self.claim.nonce,
            parent: self.parent,
            origin: None,
            kind,
            witness: None,
            created_ms: 0,
            operators: BTreeMap::from([("window 3".into(), OperatorState { form: None, tasks: vec![task] })]),
            sources: BTreeMap::from([("source".into(), vec![split])]),
            sinks: BTreeMap::from([("sink".into(), sink)]),
        }
    }

    pub(super) async fn decide(&mut self, manifest: &Manifest) -> Result<()> {
        self.store.decide(&self.claim, manifest).await?;
        self.log.decided(manifest.epoch);
        self.parent = Some(manifest.as_parent());
        self.next = Epoch(self.next.0 + 1);
        Ok(())
    }

    /// A whole checkpoint.
    pub(super) async fn checkpoint(&mut self, kind: Kind) -> Result<Manifest> {
        let manifest = self.segments(kind).await?;
        self.store.prepare(&self.claim, &manifest).await?;
        self.decide(&manifest).await?;
        self.store.savepoint(&manifest).await?;
        self.store.done(manifest.epoch).await?;
        Ok(manifest)
    }

    pub(super) async fn collect(&self) -> Result<()> {
        self.store.collect(&self.claim, 2).await.map(drop)
    }
}

/// The content of every segment of a checkpoint.
pub(super) async fn restore(store: &CheckpointStore, manifest: &Manifest) -> Result<BTreeMap<String, Bytes>> {
    let mut state = BTreeMap::new();
    for file in manifest.segments() {
        state.insert(file.path.clone(), store.get_segment(file).await?);
    }
    Ok(state)
}

/// That nothing lies among the checkpoints which no kept one needs.
pub(super) async fn assert_no_orphans(store: &CheckpointStore, context: &str) {
    let listed = store.manifests().await.unwrap();
    let mut needed: Vec<String> = Vec::new();
    for checkpoint in &listed {
        needed.push(checkpoint.manifest.folder().manifest());
        needed.extend(checkpoint.manifest.segments().map(|file| file.path.clone()));
    }
    let found = store.objects.list("ckpt").await.unwrap();
    let orphans: Vec<_> = found.iter().filter(|object| !needed.contains(&object.name)).collect();
    assert!(orphans.is_empty(), "{context}: {orphans:?}");
    let periodic = listed.iter().filter(|checkpoint| checkpoint.savepoints.is_empty()).count();
    assert!(periodic <= 2, "{context}: {periodic} checkpoints are kept");
}
