//! R4 for a checkpoint that a witness decides: what its newest marker says about what lies in the store.
//!
//! ```text
//!   newest marker       prepared, not decided: 8          nothing prepared
//!   ─────────────       ────────────────────────          ────────────────
//!   8, of that start    epoch/8 = commit, go on from 8
//!   7, the last commit  epoch/8 = abort, go on from 7     go on from 7
//!   older, or none      refused, unless 7 was not decided by this witness: a job may gain and lose its sinks
//!   anything else       refused: directory and marker do not belong together
//! ```
//!
//! The witness has fenced every former incarnation before it is asked, so what it says stays true. A start never goes on
//! from a guess: that a marker is missing is no sign that nothing was decided.

use windrow_connectors::Marker;

use super::{
    error::CheckpointError,
    faults::mutated,
    manifest::Manifest,
    names::{self, EPOCHS},
    record::{Decision, Outcome},
    store::{CheckpointStore, Claim, Result},
    witnessed::Witnessed,
};

/// What lies in the store, as far as it matters here.
pub(super) struct Held<'a> {
    /// The numbers with a decision, ascending.
    pub(super) numbers: &'a [u64],
    pub(super) committed: Option<&'a Manifest>,
    pub(super) undecided: Option<&'a Manifest>,
}

impl CheckpointStore {
    /// What becomes of the undecided checkpoint, if there is one. Fails when the store and the witness contradict each
    /// other; when the user has accepted that, it is a warning.
    pub(super) async fn answer(
        &self,
        claim: &Claim,
        witnessed: Option<&Witnessed>,
        held: Held<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Outcome>> {
        let commit = |manifest: &Manifest| Outcome::Commit { nonce: manifest.nonce, folder: manifest.folder() };
        if let Some(manifest) = held.undecided {
            let decided_by = manifest.witness.as_deref();
            if decided_by.is_none() || mutated("what a witness did not decide is claimed") {
                return Ok(Some(commit(manifest)));
            }
            if decided_by != witnessed.map(|witnessed| witnessed.name.as_str()) {
                return Err(self.whose(manifest));
            }
        }
        let Some(witnessed) = witnessed else { return Ok(None) };
        let newest = witnessed.newest().await?;
        if let (Some(manifest), Some(marker)) = (held.undecided, &newest)
            && *marker == manifest.marker()
        {
            return Ok(Some(commit(manifest)));
        }
        if !self.agrees(claim, witnessed, &held, newest.as_ref()).await?
            && !mutated("an unknown marker is taken for an abort")
        {
            let here = held.committed.map_or("there is no checkpoint".into(), |committed| {
                format!("the newest checkpoint is {}", words(&committed.marker()))
            });
            let apart = self.apart(claim, witnessed, held.committed, newest.as_ref(), &here);
            if !witnessed.repeat_output {
                return Err(apart);
            }
            warnings.push(format!("{apart}. The job goes on all the same, because .repeat_output() was said"));
        }
        Ok(held.undecided.map(|manifest| Outcome::Abort { nonce: manifest.nonce }))
    }

    /// Fails when the markers are of another checkpoint directory: a fence would end a job that is at work and well. What cannot be
    /// known before the fence is found by [`answer`](Self::answer).
    pub(super) async fn is_its_own(&self, claim: &Claim, witnessed: &Witnessed) -> Result<()> {
        if witnessed.repeat_output || mutated("an unknown marker is taken for an abort") {
            return Ok(());
        }
        match witnessed.glance().await {
            Some(marker) if marker.incarnation.job != claim.job_id => {
                let here = format!("this directory is of job id {}", claim.job_id);
                Err(self.apart(claim, witnessed, None, Some(&marker), &here))
            }
            _ => Ok(()),
        }
    }

    /// Whether the newest marker is that of the last commit, or of one before it when others have decided since.
    async fn agrees(
        &self,
        claim: &Claim,
        witnessed: &Witnessed,
        held: &Held<'_>,
        newest: Option<&Marker>,
    ) -> Result<bool> {
        let Some(committed) = held.committed else { return Ok(newest.is_none()) };
        let by_another = committed.witness.as_ref() != Some(&witnessed.name);
        match newest {
            None => Ok(by_another),
            Some(marker) if *marker == committed.marker() => Ok(true),
            Some(marker) if !by_another || marker.incarnation.job != claim.job_id => Ok(false),
            Some(marker) => self.was_committed(marker, held).await,
        }
    }

    /// Whether the marker is of a checkpoint that was committed before the last one.
    async fn was_committed(&self, marker: &Marker, held: &Held<'_>) -> Result<bool> {
        let epoch = marker.epoch;
        if held.committed.is_none_or(|committed| committed.epoch <= epoch) {
            return Ok(false);
        }
        let record: Option<Decision> = self.objects.read_record(&names::numbered(EPOCHS, epoch.0)).await?;
        Ok(match record.map(|record| record.outcome) {
            Some(Outcome::Commit { nonce, folder }) => {
                (nonce, folder.generation) == (marker.incarnation.nonce, marker.incarnation.generation)
            }
            Some(Outcome::Abort { .. } | Outcome::Fence { .. }) => false,
            // It is so old that its record was removed.
            None => held.numbers.first().is_some_and(|oldest| epoch.0 < *oldest),
        })
    }

    /// Who could say what became of `manifest` is not a witness of this job.
    fn whose(&self, manifest: &Manifest) -> CheckpointError {
        CheckpointError::Conflict {
            path: self.objects.show(&manifest.folder().manifest()),
            reason: format!(
                "checkpoint {} is prepared, and only {} can say whether it counts, but the job does not write there any more. \
                 Run the former job once, to decide it, and then the new one",
                manifest.epoch,
                manifest.witness.as_deref().unwrap_or("the store")
            ),
        }
    }

    fn apart(
        &self,
        claim: &Claim,
        witnessed: &Witnessed,
        committed: Option<&Manifest>,
        newest: Option<&Marker>,
        here: &str,
    ) -> CheckpointError {
        let there = newest.map_or("has no marker at all".into(), |marker| {
            format!("says that the newest that counts is {}", words(marker))
        });
        let advice = match newest {
            None => "What the markers were kept in was removed or made anew: put it back",
            Some(marker) if marker.incarnation.job != claim.job_id => {
                "The marker is of another checkpoint directory, or of this one before it was emptied: start with that one, or \
                 give each job a name of its own"
            }
            Some(marker) if committed.is_none_or(|committed| committed.epoch < marker.epoch) => {
                "The directory is an old copy or was emptied: put the right one back"
            }
            Some(_) => "The last markers were lost: put back what they were kept in",
        };
        CheckpointError::Conflict {
            path: self.shown().into(),
            reason: format!(
                "{here}, but {} {there}. The two do not belong together, and to go on could lose rows or write them twice. \
                 {advice}. To go on from the directory nevertheless, and write again what came after it, say \
                 .restore(Restore::newest().repeat_output())",
                witnessed.name
            ),
        }
    }
}

fn words(marker: &Marker) -> String {
    let Marker { incarnation, epoch } = marker;
    format!("epoch {epoch} of start {} of job id {}", incarnation.generation, incarnation.job)
}
