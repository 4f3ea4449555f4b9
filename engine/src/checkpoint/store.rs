//! The checkpoint store: the steps of a checkpoint, each one durable when it returns.
//!
//! ```text
//!   claim ─► recover ─► put_segment … ─► prepare ─► decide ─► (sinks commit) ─► done ─► collect
//!    gen/g    epoch/f     ckpt/…/s/…      MANIFEST   epoch/e                     done/e
//!             (fence)                                └ from here on the checkpoint counts
//! ```
//!
//! A step that fails leaves the truth in the store and not in the caller's hands: whether an epoch was decided is known
//! only by reading, that is, by `claim` and `recover` once more.

use std::{fs::File, sync::Arc};

use bytes::Bytes;
use windrow_connectors::sink::{Epoch, Incarnation};

use super::{
    crash::crash_point,
    error::CheckpointError,
    faults::mutated,
    frame,
    location::{self, Purpose},
    manifest::{Kind, Manifest, SegmentFile},
    names::{self, CHECKPOINTS, DONE, EPOCHS, Folder, GENERATIONS, SAVEPOINTS},
    objects::{Created, Object, Objects, record_number},
    record::{Decision, Done, Generation, Outcome, Savepoint},
};
use crate::clock::wall_millis;

pub(crate) type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// A manifest of this size would name millions of segments.
pub(super) const LARGEST_MANIFEST: u64 = 256 << 20;

/// The checkpoints of one job. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CheckpointStore {
    pub(super) objects: Arc<Objects>,
    job: Arc<str>,
}

/// The right of one process to run the job. On a local disk nobody else can have one while it lives; elsewhere a later
/// one ends it, which [`CheckpointStore::decide`] notices.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) generation: u64,
    pub(crate) nonce: u32,
    /// Eight hexadecimal digits that the first start of the job in this store drew.
    pub(crate) job_id: String,
    /// What the user should know, for instance that everybody may write to the directory.
    pub(crate) warnings: Vec<String>,
    _lock: Option<File>,
}

impl Claim {
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation { job: self.job_id.clone(), generation: self.generation, nonce: self.nonce }
    }
}

impl CheckpointStore {
    /// The store at `url`: a path, `file:///path`, or `s3://bucket/path` with the feature `s3`. The job gets a
    /// folder of its own in it.
    pub(crate) fn open(url: &str, job: &str) -> Result<Self> {
        Ok(Self::of(location::open(url, job, Purpose::Write)?, job))
    }

    /// As [`CheckpointStore::open`], but makes no directory: for who only reads.
    pub(crate) fn open_to_read(url: &str, job: &str) -> Result<Self> {
        Ok(Self::of(location::open(url, job, Purpose::Read)?, job))
    }

    /// The checkpoints of `job` below `root` in a store that is given.
    #[cfg(test)]
    pub(crate) fn with(store: Arc<dyn object_store::ObjectStore>, root: &str, job: &str) -> Result<Self> {
        Ok(Self::of(
            location::objects(store, object_store::path::Path::from(root), &names::job_folder(job)?, root),
            job,
        ))
    }

    fn of(objects: Objects, job: &str) -> Self {
        Self { objects: Arc::new(objects), job: job.into() }
    }

    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    /// Where the checkpoints lie, for messages.
    pub(crate) fn shown(&self) -> &str {
        &self.objects.shown
    }

    /// R1: takes the lock and the next generation. From here on every older incarnation is doomed.
    pub(crate) async fn claim(&self) -> Result<Claim> {
        let (mut lock, mut warnings) = (None, Vec::new());
        if let Some(local) = &self.objects.local {
            lock = Some(local.lock()?);
            crash_point("K13 R1 locked");
            warnings = local.warnings();
            local.sweep()?;
        }
        let numbers = self.objects.numbers(GENERATIONS).await?;
        let job_id = match self.job_id(&numbers, &mut warnings).await? {
            Some(job_id) => job_id,
            None => self.first_job_id(&numbers).await?,
        };
        let last = numbers.last().copied().unwrap_or_default();
        let Some(generation) = last.checked_add(1) else {
            return Err(self.objects.damaged(&names::numbered(GENERATIONS, last), "there is no higher number"));
        };
        let nonce = fastrand::u32(..);
        let record = Generation {
            generation,
            nonce,
            job: self.job.to_string(),
            job_id: job_id.clone(),
            host: host(),
            pid: std::process::id(),
            started_ms: wall_millis(),
        };
        let name = names::numbered(GENERATIONS, generation);
        match self.objects.record(&name, &record).await? {
            Created::Ours => crash_point("K13 R1 generation"),
            Created::Others(_) => return Err(CheckpointError::Starting { path: self.objects.show(&name) }),
        }
        Ok(Claim { generation, nonce, job_id, warnings, _lock: lock })
    }

    /// The id of the job, from the newest start that can be read: a start that was interrupted may have left half a
    /// record, and it did nothing else.
    pub(super) async fn job_id(&self, generations: &[u64], warnings: &mut Vec<String>) -> Result<Option<String>> {
        for number in generations.iter().rev() {
            let name = names::numbered(GENERATIONS, *number);
            match self.objects.read_record::<Generation>(&name).await {
                Ok(Some(found)) if found.generation != *number => {
                    warnings.push(self.objects.damaged(&name, "it is the record of another start").to_string());
                }
                Ok(Some(found)) if found.job != *self.job => return Err(self.other_job(&name, &found.job)),
                Ok(Some(found)) => return Ok(Some(found.job_id)),
                Ok(None) => {}
                Err(error @ CheckpointError::Corrupt { .. }) => warnings.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// R3: a store without a readable start must hold nothing at all. "Empty" is not to be guessed: it would mean to
    /// begin anew beside checkpoints that count.
    async fn first_job_id(&self, generations: &[u64]) -> Result<String> {
        for folder in [CHECKPOINTS, EPOCHS, DONE, SAVEPOINTS] {
            if let Some(object) = self.objects.list(folder).await?.first() {
                // Unless it was written since, by the first start, which was faster than this one.
                if let Some(other) = self.objects.numbers(GENERATIONS).await?.iter().find(|n| !generations.contains(n))
                {
                    let path = self.objects.show(&names::numbered(GENERATIONS, *other));
                    return Err(CheckpointError::Starting { path });
                }
                let missing = names::numbered(GENERATIONS, generations.last().copied().unwrap_or(1));
                return Err(CheckpointError::Corrupt {
                    path: self.objects.show(&missing),
                    reason: format!("no start of the job is recorded, but there is {}", object.name),
                    advice: "put the folder gen back from a copy, or move the whole directory away to begin anew",
                });
            }
        }
        Ok(format!("{:08x}", fastrand::u32(..)))
    }

    pub(super) fn other_job(&self, name: &str, job: &str) -> CheckpointError {
        CheckpointError::Incompatible {
            path: self.objects.show(name),
            reason: format!(
                "it is of job {job:?}, and this is job {:?}. Give each job a directory of its own",
                self.job
            ),
        }
    }

    /// Whether `claim` is still the newest. It is asked after each step that a newer one must be able to prevent.
    pub(super) async fn still_mine(&self, claim: &Claim) -> Result<()> {
        self.still_newest(claim.generation).await
    }

    /// Whether start number `generation` of the job is still the newest.
    pub(super) async fn still_newest(&self, generation: u64) -> Result<()> {
        if mutated("a newer generation is not noticed") {
            return Ok(());
        }
        let fenced = |by: String| CheckpointError::Fenced { generation, by };
        let before = generation.checked_sub(1).map(|before| names::numbered(GENERATIONS, before));
        let found = self.objects.list_after(GENERATIONS, before.as_deref()).await?;
        let number = |object: &Object| record_number(GENERATIONS, object);
        if let Some(newer) = found.iter().find(|object| number(object) > Some(generation)) {
            return Err(fenced(self.objects.show(&newer.name)));
        }
        if !found.iter().any(|object| number(object) == Some(generation)) {
            let own = names::numbered(GENERATIONS, generation);
            return Err(fenced(format!("{} was removed", self.objects.show(&own))));
        }
        Ok(())
    }

    /// `result`, if `claim` is still the newest. Who was replaced while it was reading may have seen half of what the new
    /// one did, and would blame the files.
    pub(super) async fn unless_fenced<T>(&self, claim: &Claim, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.still_mine(claim).await?;
        }
        result
    }

    /// Writes a segment of checkpoint `epoch`. It counts when a manifest names it and is decided.
    pub(crate) async fn put_segment(
        &self,
        epoch: Epoch,
        generation: u64,
        operator: &str,
        task: usize,
        rows: u64,
        bytes: Bytes,
    ) -> Result<SegmentFile> {
        let path = names::segment(Folder { epoch, generation }, operator, task, fastrand::u64(..));
        let (length, checksum) = (bytes.len() as u64, frame::checksum(&bytes));
        match self.objects.create(&path, bytes).await? {
            Created::Ours => crash_point("K2 segments written"),
            Created::Others(_) => return Err(self.taken(&path)),
        }
        Ok(SegmentFile { path, length, checksum, rows })
    }

    /// The bytes of a segment, exactly those that were saved.
    pub(crate) async fn get_segment(&self, file: &SegmentFile) -> Result<Bytes> {
        names::segment_folder(&file.path).map_err(|reason| self.objects.damaged(&file.path, reason))?;
        let bytes = self.objects.read(&file.path, file.length).await?;
        let bytes = bytes.ok_or_else(|| self.objects.damaged(&file.path, GONE))?;
        self.check_segment(file, bytes.len() as u64, || frame::checksum(&bytes))?;
        Ok(bytes)
    }

    /// The same in pieces, for a segment that is not to be in memory as a whole. It is read twice: so `each` takes nothing of a
    /// file that is damaged; and what it took is to be believed only when this returns, for the second time may go wrong where
    /// the first did not.
    pub(super) async fn get_segment_in_pieces<E: From<CheckpointError>>(
        &self,
        file: &SegmentFile,
        each: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        names::segment_folder(&file.path).map_err(|reason| self.objects.damaged(&file.path, reason))?;
        self.read_checked(file, |_| Ok::<_, CheckpointError>(())).await?;
        self.read_checked(file, each).await
    }

    /// Hands on the pieces of a segment, and says when all have come whether they are those that were saved.
    async fn read_checked<E: From<CheckpointError>>(
        &self,
        file: &SegmentFile,
        mut each: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut length, mut sum) = (0, frame::Checksum::new());
        let take = |bytes: Bytes| {
            length += bytes.len() as u64;
            if length > file.length {
                return Err(self.other_length(file, length).into());
            }
            sum.add(&bytes);
            each(bytes)
        };
        let found = self.objects.read_pieces(&file.path, file.length, take).await?;
        found.then_some(()).ok_or_else(|| self.objects.damaged(&file.path, GONE))?;
        Ok(self.check_segment(file, length, || sum.digits())?)
    }

    fn other_length(&self, file: &SegmentFile, length: u64) -> CheckpointError {
        let reason = format!("it has {length} bytes where {} were written", file.length);
        self.objects.damaged(&file.path, reason)
    }

    fn check_segment(&self, file: &SegmentFile, length: u64, checksum: impl FnOnce() -> String) -> Result<()> {
        if length != file.length {
            return Err(self.other_length(file, length));
        }
        if checksum() != file.checksum {
            return Err(self.objects.damaged(&file.path, "its checksum does not match"));
        }
        Ok(())
    }

    /// C5: writes the manifest. The checkpoint is prepared: whoever comes next can decide it. What it names must be
    /// durable, and of older checkpoints it may name only what its parent names.
    pub(crate) async fn prepare(&self, claim: &Claim, manifest: &Manifest) -> Result<()> {
        let name = manifest.folder().manifest();
        self.check_own(claim, manifest, &name)?;
        let bytes = manifest.encode().map_err(|reason| self.objects.unwritable(&name, reason))?;
        if bytes.len() as u64 > LARGEST_MANIFEST {
            return Err(self.objects.unwritable(&name, format!("it would have over {LARGEST_MANIFEST} bytes")));
        }
        crash_point("K4 manifest begun");
        match self.objects.create(&name, bytes).await? {
            Created::Ours => crash_point("K5 prepared"),
            Created::Others(_) => return Err(self.taken(&name)),
        }
        Ok(())
    }

    fn check_own(&self, claim: &Claim, manifest: &Manifest, name: &str) -> Result<()> {
        let own = (claim.generation, claim.nonce, claim.job_id.as_str(), &*self.job);
        if own != (manifest.generation, manifest.nonce, manifest.job_id.as_str(), manifest.job.as_str()) {
            return Err(self.objects.unwritable(name, "internal: it is the manifest of another incarnation".into()));
        }
        Ok(())
    }

    fn taken(&self, name: &str) -> CheckpointError {
        CheckpointError::Conflict {
            path: self.objects.show(name),
            reason: "somebody else has written it. Stop every process of this job and start one again".into(),
        }
    }

    /// C6: decides the checkpoint, which must be prepared; or, C7, writes down what a witness has decided. When this returns,
    /// it counts and its sinks must commit. On any error it may count or not: only [`CheckpointStore::recover`] can tell.
    pub(crate) async fn decide(&self, claim: &Claim, manifest: &Manifest) -> Result<()> {
        let name = names::numbered(EPOCHS, manifest.epoch.0);
        self.check_own(claim, manifest, &name)?;
        let outcome = Outcome::Commit { nonce: manifest.nonce, folder: manifest.folder() };
        self.settle_number(claim, manifest.epoch, outcome).await?;
        crash_point("K8 decided");
        // A newer start may have begun before this decision. Then it is its business: it reads the decision or has
        // taken the number, but it must be the only one to publish.
        self.still_mine(claim).await
    }

    async fn settle_number(&self, claim: &Claim, epoch: Epoch, outcome: Outcome) -> Result<()> {
        let name = names::numbered(EPOCHS, epoch.0);
        let decision = Decision { epoch, outcome, by: claim.generation };
        if let Created::Others(bytes) = self.objects.record(&name, &decision).await? {
            let found: Decision = self.objects.decode(&name, &bytes)?;
            // A newer start may have decided the same, by reading the manifest.
            if found.outcome != decision.outcome {
                let by = format!("start {} has written {}", found.by, self.objects.show(&name));
                return Err(CheckpointError::Fenced { generation: claim.generation, by });
            }
        }
        Ok(())
    }

    /// C8: notes that everything checkpoint `epoch` made visible is visible.
    pub(crate) async fn done(&self, epoch: Epoch) -> Result<()> {
        // Who was first with it does not matter: publishing is idempotent.
        self.objects.record(&names::numbered(DONE, epoch.0), &Done { done: epoch }).await?;
        crash_point("K11 done");
        Ok(())
    }

    /// That a savepoint can be called `name`: to be asked before the work is done.
    pub(crate) async fn savepoint_is_free(&self, name: &str) -> Result<()> {
        names::check_savepoint(name)?;
        let record = format!("{SAVEPOINTS}/{name}");
        match self.objects.read(&record, u64::MAX).await? {
            Some(_) => Err(CheckpointError::Exists { name: name.into(), path: self.objects.show(&record) }),
            None => Ok(()),
        }
    }

    /// Keeps `manifest`, which must be the newest committed one, under the name of its kind, [`Kind::Savepoint`]. For
    /// another kind there is nothing to do. [`CheckpointStore::recover`] repeats it for a process that died before it.
    pub(crate) async fn savepoint(&self, manifest: &Manifest) -> Result<()> {
        let Kind::Savepoint(name) = &manifest.kind else { return Ok(()) };
        names::check_savepoint(name)?;
        let record = format!("{SAVEPOINTS}/{name}");
        let savepoint =
            Savepoint { savepoint: name.clone(), folder: manifest.folder(), checkpoint: manifest.as_parent() };
        match self.objects.record(&record, &savepoint).await? {
            Created::Ours => Ok(()),
            Created::Others(_) => Err(CheckpointError::Exists { name: name.clone(), path: self.objects.show(&record) }),
        }
    }
}

const GONE: &str = "it is gone, but a checkpoint needs it";

/// The name of this machine, for people.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map(|name| name.trim().chars().take(100).collect()).unwrap_or_default()
}
