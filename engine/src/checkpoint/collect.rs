//! Removes checkpoints that nobody will restore, and what failed ones left.
//!
//! ```text
//!   ckpt/   3      4      5      6      7      8        decided up to 7, keep 2
//!           old    save-  old    keep   keep   not decided yet: not touched
//!                  point
//!           │             └─ its segments that 4, 6 or 7 name stay, without their manifest
//!           └─ MANIFEST first, so that nobody chooses it any more; then its segments
//! ```
//!
//! Everything is classified before the first thing is deleted. A collector that stops half way has left only files that
//! the next one finds; one that belongs to a process which was replaced in the meantime knows only older checkpoints to
//! delete than those the new process works with, because that one began with the newest.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    crash::crash_point,
    faults::mutated,
    names::{self, DONE, EPOCHS, Folder, GENERATIONS, SAVEPOINTS},
    objects::{Object, record_number},
    record::Savepoint,
    store::{CheckpointStore, Claim, Result},
};
use crate::clock::wall_millis;

/// One to restore, and one in case a person wants to look at what was before.
const LEAST_KEPT: usize = 2;
/// Records are tiny, and a process that slept must find the number taken with which it wants to decide something.
const RECORDS_KEPT: usize = 10_000;
const RECORDS_KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How many deletions are under way at once.
const AT_ONCE: usize = 16;

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Checkpoints that could have been restored.
    pub(crate) checkpoints: usize,
    /// Segments.
    pub(crate) segments: usize,
    /// Old records of starts and decisions.
    pub(crate) records: usize,
}

/// What to delete, in this order.
#[derive(Debug, Default)]
struct Doomed {
    manifests: Vec<Folder>,
    segments: Vec<String>,
    records: Vec<String>,
}

impl CheckpointStore {
    /// C9: keeps the last `keep` committed checkpoints, at least two, all savepoints, and everything undecided; deletes
    /// the rest. To be called after [`CheckpointStore::recover`], by one caller at a time. On an error nothing that is
    /// needed was deleted, and the next call does the rest.
    pub(crate) async fn collect(&self, claim: &Claim, keep: usize) -> Result<Collected> {
        self.still_mine(claim).await?;
        let doomed = self.classify(claim, keep.max(LEAST_KEPT)).await;
        let doomed = self.unless_fenced(claim, doomed).await?;
        let delete = async |names: Vec<String>, at_once: usize| -> Result<usize> {
            let deleted = stream::iter(names).map(|name| async move {
                self.objects.delete(&name).await?;
                crash_point("K12 gc");
                Ok(1)
            });
            deleted.buffered(at_once).try_fold(0, async |sum, one| Ok(sum + one)).await
        };
        crash_point("K12 gc");
        let manifests = doomed.manifests.iter().map(|folder| folder.manifest()).collect();
        let checkpoints = delete(manifests, AT_ONCE).await?;
        // Not even a power cut may bring a manifest back whose segments are gone.
        for folder in &doomed.manifests {
            self.objects.settle(&folder.to_string())?;
        }
        let segments = delete(doomed.segments, AT_ONCE).await?;
        // One after the other, oldest first: there is never a gap among those that are left.
        let records = delete(doomed.records, 1).await?;
        Ok(Collected { checkpoints, segments, records })
    }

    async fn classify(&self, claim: &Claim, keep: usize) -> Result<Doomed> {
        let epochs = self.objects.list(EPOCHS).await?;
        let numbers: Vec<u64> = epochs.iter().filter_map(|object| record_number(EPOCHS, object)).collect();
        let folders = self.folders().await?;
        let mut kept: HashSet<Folder> = HashSet::new();
        let mut commits = self.commits(&numbers);
        let (mut newest, mut oldest) = (None, None);
        while kept.len() < keep
            && let Some(commit) = commits.next().await?
        {
            if newest.is_none() && mutated("the newest checkpoint is removed") {
                newest = Some(commit.checkpoint.epoch);
                continue;
            }
            let whole = folders.get(&commit.folder).is_some_and(|files| files.contains_key(&commit.folder.manifest()));
            if newest.is_some() && !whole {
                // From here on everything was collected, when fewer were to be kept.
                break;
            }
            newest = newest.or(Some(commit.checkpoint.epoch));
            oldest = Some(commit.checkpoint.epoch);
            kept.insert(commit.folder);
        }
        let (Some(newest), Some(oldest), Some(highest)) = (newest, oldest, numbers.last()) else {
            // Nothing is committed yet. The orphans of failed starts can wait.
            return Ok(Doomed::default());
        };
        kept.extend(self.savepoints().await?.iter().map(|savepoint| savepoint.folder));
        let mut needed = self.needed(&kept).await?;
        if mutated("segments that kept checkpoints name are removed") {
            needed.clear();
        }

        let mut doomed = Doomed::default();
        for (folder, files) in folders {
            // Beyond the decisions lies what is being written now. An earlier process cannot be writing there: the
            // fence of this one has taken its number.
            let being_written =
                folder.epoch.0 > *highest || folder.epoch > newest && folder.generation >= claim.generation;
            if kept.contains(&folder) || being_written {
                continue;
            }
            let manifest = folder.manifest();
            if files.contains_key(&manifest) {
                doomed.manifests.push(folder);
            }
            let unneeded = files.into_keys().filter(|name| *name != manifest && !needed.contains(name));
            doomed.segments.extend(unneeded);
        }
        doomed.records.extend(old_records(EPOCHS, &epochs, oldest.0));
        doomed.records.extend(old_records(DONE, &self.objects.list(DONE).await?, oldest.0));
        doomed.records.extend(old_records(GENERATIONS, &self.objects.list(GENERATIONS).await?, claim.generation));
        Ok(doomed)
    }

    /// The savepoints. One that cannot be read is an error: it is not known what it keeps.
    pub(super) async fn savepoints(&self) -> Result<Vec<Savepoint>> {
        let mut savepoints = Vec::new();
        for object in self.objects.list(SAVEPOINTS).await? {
            // What cannot be the name of a savepoint, such as .DS_Store, is somebody else's.
            let name = object.name.rsplit('/').next().unwrap_or_default();
            if names::check_savepoint(name).is_err() || name.starts_with('.') {
                continue;
            }
            // It may have been removed since.
            savepoints.extend(self.savepoint_record(&object.name).await?);
        }
        Ok(savepoints)
    }

    pub(super) async fn savepoint_record(&self, name: &str) -> Result<Option<Savepoint>> {
        let found: Option<Savepoint> = self.objects.read_record(name).await?;
        if let Some(other) = found.as_ref().filter(|found| format!("{SAVEPOINTS}/{}", found.savepoint) != name) {
            return Err(self.objects.damaged(name, format!("it is the record of savepoint {:?}", other.savepoint)));
        }
        Ok(found)
    }

    /// The segments that the kept checkpoints name, wherever they lie.
    async fn needed(&self, kept: &HashSet<Folder>) -> Result<HashSet<String>> {
        let mut needed = HashSet::new();
        for folder in kept {
            let manifest = self.manifest(*folder).await?;
            let manifest = manifest.ok_or_else(|| self.objects.damaged(&folder.manifest(), "it is gone"))?;
            needed.extend(manifest.segments().map(|segment| segment.path.clone()));
        }
        Ok(needed)
    }
}

/// The records of `folder` below the number `least` that are beyond the last ten thousand and old, oldest first.
fn old_records(folder: &str, records: &[Object], least: u64) -> Vec<String> {
    let (now, count) = (wall_millis(), records.len().saturating_sub(RECORDS_KEPT));
    let old = records[..count].iter().take_while(|record| {
        let number = record_number(folder, record);
        number.is_some_and(|number| number < least) && now.saturating_sub(record.modified_ms) > RECORDS_KEPT_MS
    });
    old.map(|record| record.name.clone()).collect()
}
