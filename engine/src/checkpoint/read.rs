//! Reading checkpoints without running the job: what there is, and one of them.
//!
//! Nothing here writes. A running job may remove an old checkpoint while it is being read; then an error says that a
//! file is gone, and the next attempt, which [`state`](crate::state) makes for all who look, sees what there is now.

use windrow_connectors::sink::Epoch;

use super::{
    error::CheckpointError,
    manifest::Manifest,
    names::{self, EPOCHS, GENERATIONS, SAVEPOINTS},
    record::{Decision, Outcome},
    recovery::Commit,
    store::{CheckpointStore, Result},
};

/// A checkpoint that can be restored.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) manifest: Manifest,
    /// The savepoints that keep it.
    pub(crate) savepoints: Vec<String>,
}

/// Which checkpoint to look at: for [`state::inspect`](crate::state::inspect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The newest.
    Newest,
    /// The one with this number.
    Epoch(Epoch),
    /// The savepoint of this name.
    Savepoint(String),
}

impl Wanted {
    fn words(&self) -> String {
        match self {
            Self::Newest => "a checkpoint".into(),
            Self::Epoch(epoch) => format!("checkpoint {epoch}"),
            Self::Savepoint(name) => format!("savepoint {name:?}"),
        }
    }
}

impl CheckpointStore {
    /// The checkpoints that can be restored, oldest first.
    pub(crate) async fn manifests(&self) -> Result<Vec<Listed>> {
        let savepoints = self.savepoints().await?;
        let mut listed = Vec::new();
        for (folder, files) in self.folders().await? {
            if !files.contains_key(&folder.manifest()) {
                continue;
            }
            let kept = savepoints.iter().filter(|savepoint| savepoint.folder == folder);
            let names: Vec<String> = kept.map(|savepoint| savepoint.savepoint.clone()).collect();
            let decision: Option<Decision> = self.objects.read_record(&names::numbered(EPOCHS, folder.epoch.0)).await?;
            let decided = decision.map(|decision| decision.outcome);
            let committed = matches!(decided, Some(Outcome::Commit { folder: decided, .. }) if decided == folder);
            if !committed && names.is_empty() {
                continue;
            }
            // None when it was collected while we looked.
            let manifest = self.manifest(folder).await?;
            listed.extend(manifest.map(|manifest| Listed { manifest, savepoints: names }));
        }
        Ok(listed)
    }

    /// The highest number with a decision. As long as it is the same, nothing that the newest checkpoint is made of is removed.
    pub(crate) async fn last_decided(&self) -> Result<Option<u64>> {
        Ok(self.objects.numbers(EPOCHS).await?.into_iter().max())
    }

    /// A committed checkpoint, of which all segments are there. Changes nothing and needs no claim.
    pub(crate) async fn load_committed(&self, wanted: &Wanted) -> Result<Manifest> {
        let missing = || CheckpointError::Missing { what: wanted.words(), path: self.shown().into() };
        let found = match wanted {
            Wanted::Newest => {
                let numbers = self.objects.numbers(EPOCHS).await?;
                self.commits(&numbers).next().await?
            }
            Wanted::Epoch(epoch) => match self.objects.numbers(EPOCHS).await?.contains(&epoch.0) {
                true => self.commit(epoch.0).await?,
                false => None,
            },
            Wanted::Savepoint(name) => {
                names::check_savepoint(name)?;
                let record = self.savepoint_record(&format!("{SAVEPOINTS}/{name}")).await?;
                record.map(|record| Commit { checkpoint: record.checkpoint, folder: record.folder })
            }
        };
        let commit = found.ok_or_else(missing)?;
        let folders = self.folders().await?;
        let files = folders.get(&commit.folder);
        let there = files.is_some_and(|files| files.contains_key(&commit.folder.manifest()));
        if matches!(wanted, Wanted::Epoch(_)) && !there {
            // It was committed, and collected since.
            return Err(missing());
        }
        let generations = self.objects.numbers(GENERATIONS).await?;
        let job_id = self.job_id(&generations, &mut Vec::new()).await?;
        self.committed(&folders, commit, job_id.as_deref()).await
    }
}
