//! What a start of the job finds: the newest checkpoint that counts. And what it does so that this stays true: it decides
//! what an earlier process left undecided, and takes the number with which that process could still decide something.
//!
//! ```text
//!   epoch/   5 commit   6 fence   7 commit   8 ?          ckpt/  5  7  8 (prepared, never decided)
//!                                            │
//!                      a valid manifest 8 whose parent is 7:  epoch/8 = commit, nothing of it is lost
//!                                            otherwise:       nothing; its folder is an orphan
//!                      decided by a witness:            what its newest marker says, commit or abort
//!   then epoch/9 = fence: an old process that wakes up wants to write 8 or 9, and finds both taken
//! ```
//!
//! Whatever should be there and is not, or is not what was written, is an error that names the file. A start never goes
//! on from a guess.

use std::collections::{BTreeMap, HashMap};

use windrow_connectors::sink::Epoch;

use super::{
    answer::Held,
    crash::crash_point,
    error::CheckpointError,
    faults::mutated,
    manifest::{Manifest, Parent},
    names::{self, CHECKPOINTS, DONE, EPOCHS, Folder},
    objects::{Created, Object},
    record::{Decision, Outcome},
    store::{CheckpointStore, Claim, LARGEST_MANIFEST, Result},
    witnessed::Witnessed,
};

/// How often a recovery begins again because another process wrote in between. Each of them can do so once.
const ATTEMPTS: usize = 16;

/// What a job goes on from.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The newest committed checkpoint; none if the job has never completed one.
    pub(crate) committed: Option<Manifest>,
    /// Whether everything that it made visible is visible. If not, its sinks commit its receipts again.
    pub(crate) done: bool,
    /// The number of the next checkpoint.
    pub(crate) next_epoch: Epoch,
    /// What was found and left aside.
    pub(crate) warnings: Vec<String>,
}

/// The folders of checkpoints, and the length of each file in them.
pub(super) type Folders = BTreeMap<Folder, HashMap<String, u64>>;

/// A decision for a checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    pub(super) checkpoint: Parent,
    pub(super) folder: Folder,
}

/// What lies in the store.
struct Found {
    /// The highest number with a decision.
    highest: Option<u64>,
    committed: Option<Manifest>,
    /// Prepared, and to be decided by us.
    undecided: Option<Manifest>,
    done: bool,
    warnings: Vec<String>,
}

impl CheckpointStore {
    /// R3 and R4: finds the newest committed checkpoint, decides what was prepared, and fences older incarnations. A
    /// witness must have fenced them before.
    pub(crate) async fn recover(&self, claim: &Claim, witnessed: Option<&Witnessed>) -> Result<Recovered> {
        for _ in 0..ATTEMPTS {
            let numbers = self.objects.numbers(EPOCHS).await?;
            let found = self.unless_fenced(claim, self.find(claim, &numbers).await).await;
            let found = match found {
                // What was read may have been collected meanwhile, after newer decisions: then those count.
                Err(error @ CheckpointError::Corrupt { .. }) => match self.objects.numbers(EPOCHS).await? == numbers {
                    true => return Err(error),
                    false => continue,
                },
                found => found?,
            };
            crash_point("K13 R3 read");
            let Found { highest, committed, undecided, done, mut warnings } = found;
            let held = Held { numbers: &numbers, committed: committed.as_ref(), undecided: undecided.as_ref() };
            let outcome = self.answer(claim, witnessed, held, &mut warnings).await;
            let outcome = self.unless_fenced(claim, outcome).await?;
            // A start that is slower than a newer one must write nothing from here on, or it would pass the newer one
            // with a higher number. After the last read and before the first write: elsewhere it does not help.
            self.still_mine(claim).await?;
            if let (Some(manifest), Some(outcome)) = (undecided, outcome) {
                self.settle_undecided(claim, &manifest, outcome).await?;
                crash_point("K13 R4 claimed");
                // Whether it was us or a process that woke up: it is decided, and is read again as such.
                continue;
            }
            let number = highest.map_or(Some(0), |highest| highest.checked_add(1));
            let next = number.and_then(|number| Some((number, number.checked_add(1)?)));
            let Some((fence, next)) = next else {
                return Err(self.objects.damaged(EPOCHS, "there is no higher number for the next checkpoint"));
            };
            if mutated("no fence is written") {
                return Ok(Recovered { committed, done, next_epoch: Epoch(fence), warnings });
            }
            let record =
                Decision { epoch: Epoch(fence), outcome: Outcome::Fence { nonce: claim.nonce }, by: claim.generation };
            if let Created::Others(_) = self.objects.record(&names::numbered(EPOCHS, fence), &record).await? {
                continue;
            }
            crash_point("K13 R4 fenced");
            self.still_mine(claim).await?;
            if let Some(manifest) = &committed {
                self.repeat_savepoint(manifest, &mut warnings).await?;
            }
            return Ok(Recovered { committed, done, next_epoch: Epoch(next), warnings });
        }
        Err(CheckpointError::Conflict {
            path: self.objects.show(EPOCHS),
            reason: "other processes of this job keep writing decisions. Stop all of them and start one".into(),
        })
    }

    async fn settle_undecided(&self, claim: &Claim, manifest: &Manifest, outcome: Outcome) -> Result<()> {
        // Once it is decided the manifest must not vanish, and whoever wrote it may not have lived to flush it.
        self.objects.settle(&manifest.folder().to_string())?;
        self.objects.settle(CHECKPOINTS)?;
        let record = Decision { epoch: manifest.epoch, outcome, by: claim.generation };
        self.objects.record(&names::numbered(EPOCHS, manifest.epoch.0), &record).await.map(drop)
    }

    /// A process may have died between its decision and its savepoint.
    async fn repeat_savepoint(&self, manifest: &Manifest, warnings: &mut Vec<String>) -> Result<()> {
        match self.savepoint(manifest).await {
            Err(error @ CheckpointError::Exists { .. }) => {
                warnings.push(error.to_string());
                Ok(())
            }
            other => other,
        }
    }

    async fn find(&self, claim: &Claim, numbers: &[u64]) -> Result<Found> {
        let mut warnings = Vec::new();
        let highest = numbers.last().copied();
        let commit = self.commits(numbers).next().await?;
        let folders = self.folders().await?;
        let committed = match commit {
            Some(commit) => Some(self.committed(&folders, commit, Some(&claim.job_id)).await?),
            None => None,
        };
        let done = self.objects.numbers(DONE).await?;
        let parent = committed.as_ref().map(Manifest::as_parent);
        let next = highest.map_or(0, |highest| highest.saturating_add(1));
        let undecided = self.undecided(claim, &folders, next, parent, &mut warnings).await?;
        self.check_nothing_is_missing(&folders, &done, next, parent, undecided.as_ref())?;
        let done = parent.is_some_and(|parent| done.contains(&parent.epoch.0));
        Ok(Found { highest, committed, undecided, done, warnings })
    }

    /// The committed checkpoints, newest first.
    pub(super) fn commits<'a>(&'a self, numbers: &'a [u64]) -> Commits<'a> {
        Commits { store: self, numbers, found: false }
    }

    /// The commit under `number`; none if it was decided otherwise.
    pub(super) async fn commit(&self, number: u64) -> Result<Option<Commit>> {
        let name = names::numbered(EPOCHS, number);
        let decision: Option<Decision> = self.objects.read_record(&name).await?;
        let decision = decision.ok_or_else(|| self.objects.damaged(&name, "it is gone"))?;
        if decision.epoch.0 != number {
            let reason = format!("it is the decision on checkpoint {}", decision.epoch);
            return Err(self.objects.damaged(&name, reason));
        }
        match decision.outcome {
            Outcome::Commit { nonce, folder } => {
                Ok(Some(Commit { checkpoint: Parent { epoch: decision.epoch, nonce }, folder }))
            }
            Outcome::Abort { .. } | Outcome::Fence { .. } => Ok(None),
        }
    }

    /// The folders of checkpoints with their files.
    pub(super) async fn folders(&self) -> Result<Folders> {
        let mut folders = Folders::new();
        for Object { name, length, .. } in self.objects.list(CHECKPOINTS).await? {
            let folder = name.split('/').nth(1).and_then(Folder::parse);
            if let Some(folder) = folder {
                folders.entry(folder).or_default().insert(name, length);
            }
        }
        Ok(folders)
    }

    /// The manifest in `folder`; none if there is none.
    pub(super) async fn manifest(&self, folder: Folder) -> Result<Option<Manifest>> {
        let name = folder.manifest();
        let Some(bytes) = self.objects.read(&name, LARGEST_MANIFEST).await? else { return Ok(None) };
        let manifest = Manifest::decode(&bytes).map_err(|unreadable| self.objects.unreadable(&name, unreadable))?;
        if manifest.folder() != folder {
            return Err(self.objects.damaged(&name, format!("it is the manifest of {}", manifest.folder())));
        }
        if manifest.job != self.job() {
            return Err(self.other_job(&name, &manifest.job));
        }
        Ok(Some(manifest))
    }

    /// The manifest of a committed checkpoint, which must be whole.
    pub(super) async fn committed(
        &self,
        folders: &Folders,
        Commit { checkpoint, folder }: Commit,
        job_id: Option<&str>,
    ) -> Result<Manifest> {
        let epoch = checkpoint.epoch;
        let name = folder.manifest();
        let manifest = self.manifest(folder).await?;
        let manifest = manifest
            .ok_or_else(|| self.objects.damaged(&name, format!("it is gone, but checkpoint {epoch} is decided")))?;
        if manifest.as_parent() != checkpoint {
            return Err(self.objects.damaged(&name, "it is not the manifest that was decided"));
        }
        if let Some(job_id) = job_id.filter(|job_id| **job_id != manifest.job_id) {
            return Err(self.mixed(&name, &manifest, job_id));
        }
        if let Some((name, reason)) = missing_segment(folders, &manifest) {
            return Err(self.objects.damaged(&name, format!("{reason}, and checkpoint {epoch} needs it")));
        }
        Ok(manifest)
    }

    fn mixed(&self, name: &str, manifest: &Manifest, job_id: &str) -> CheckpointError {
        CheckpointError::Incompatible {
            path: self.objects.show(name),
            reason: format!(
                "it was written into another directory, of job id {} and not {job_id}. The files of two directories were \
                 mixed: separate them",
                manifest.job_id
            ),
        }
    }

    /// The manifest that an earlier process prepared under the number `next` and did not live to decide.
    async fn undecided(
        &self,
        claim: &Claim,
        folders: &Folders,
        next: u64,
        parent: Option<Parent>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Manifest>> {
        let mut undecided: Option<Manifest> = None;
        let prepared = folders
            .iter()
            .filter(|(folder, files)| folder.epoch == Epoch(next) && files.contains_key(&folder.manifest()));
        for (folder, _) in prepared {
            let name = folder.manifest();
            let manifest = match self.manifest(*folder).await {
                Ok(Some(manifest)) => manifest,
                Ok(None) => continue,
                // It was never decided, so it may be anything: for instance half of what was to be written.
                Err(error @ (CheckpointError::Corrupt { .. } | CheckpointError::Incompatible { .. })) => {
                    warnings.push(format!("checkpoint {next} was not complete and is left aside: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if manifest.job_id != claim.job_id {
                return Err(self.mixed(&name, &manifest, &claim.job_id));
            }
            let missing = missing_segment(folders, &manifest);
            if manifest.parent != parent {
                warnings.push(format!(
                    "{} does not follow the last checkpoint and is left aside",
                    self.objects.show(&name)
                ));
            } else if let Some((segment, reason)) = missing {
                let segment = self.objects.show(&segment);
                warnings.push(format!("checkpoint {next} was not complete and is left aside: {segment}: {reason}"));
            } else if let Some(other) = undecided.replace(manifest) {
                return Err(CheckpointError::Conflict {
                    path: self.objects.show(&name),
                    reason: format!(
                        "there is a second checkpoint {next}, {}. Move away the one that is not to count",
                        self.objects.show(&other.folder().manifest())
                    ),
                });
            }
        }
        Ok(undecided)
    }

    /// That the decisions go as far as everything else: a decision that was lost must not look like one that was never
    /// made.
    fn check_nothing_is_missing(
        &self,
        folders: &Folders,
        done: &[u64],
        next: u64,
        parent: Option<Parent>,
        undecided: Option<&Manifest>,
    ) -> Result<()> {
        let mut later = folders.iter().filter(|(folder, _)| folder.epoch.0 > next);
        if let Some((folder, _)) = later.find(|(folder, files)| files.contains_key(&folder.manifest())) {
            let reason = format!("it is gone, but there is a later checkpoint, {folder}");
            return Err(self.objects.damaged(&names::numbered(EPOCHS, next), reason));
        }
        let newest = undecided.map(|manifest| manifest.epoch).or(parent.map(|parent| parent.epoch));
        if let Some(done) = done.last().filter(|done| newest < Some(Epoch(**done))) {
            let reason = format!("checkpoint {done} was published, but nothing says that it was decided");
            return Err(self.objects.damaged(&names::numbered(EPOCHS, *done), reason));
        }
        Ok(())
    }
}

/// Walks over decisions from the newest to the oldest and stops at commits.
pub(super) struct Commits<'a> {
    store: &'a CheckpointStore,
    numbers: &'a [u64],
    found: bool,
}

impl Commits<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Commit>> {
        while let Some((number, older)) = self.numbers.split_last() {
            self.numbers = older;
            if let Some(commit) = self.store.commit(*number).await? {
                self.found = true;
                return Ok(Some(commit));
            }
            // No number is left out. Only the oldest are ever removed, and never one that is not older than a commit.
            if self.found && older.is_empty() {
                return Ok(None);
            }
            if let Some(before) = number.checked_sub(1).filter(|before| older.last() != Some(before)) {
                let name = names::numbered(EPOCHS, before);
                let reason = "it is gone, and without it the last checkpoint is not known";
                return Err(self.store.objects.damaged(&name, reason));
            }
        }
        Ok(None)
    }
}

/// A segment of `manifest` that is not there in its length, and what is wrong.
fn missing_segment(folders: &Folders, manifest: &Manifest) -> Option<(String, String)> {
    manifest.segments().find_map(|segment| {
        let folder = names::segment_folder(&segment.path).ok()?;
        let reason = match folders.get(&folder).and_then(|files| files.get(&segment.path)) {
            None => "it is gone".into(),
            Some(length) if *length != segment.length => {
                format!("it has {length} bytes where {} were written", segment.length)
            }
            Some(_) => return None,
        };
        Some((segment.path.clone(), reason))
    })
}
