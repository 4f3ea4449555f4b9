//! A job whose epochs are decided by a [`Witness`] and not by the store: what is asked of it, and in which order.
//!
//! ```text
//!   the store decides       MANIFEST ─────────────────────────────► epoch/8 = commit ──► sinks publish ──► done/8
//!                           prepared                                it counts
//!
//!   a witness decides       MANIFEST ──► Witness::decide(marker 8) ──► epoch/8 = commit ──► other sinks ──► done/8
//!                           prepared     it counts, and its rows       a copy, so that
//!                                        are visible, in one step      a start need not ask
//! ```
//!
//! A staged transaction of a process that died cannot be committed by the next one, so it must not be decided before it
//! commits. Then what decides is the commit itself, and the manifest is only what the job can go on from if it succeeds. When
//! nobody knows whether it did, the marker says so: see [`answer`](super::answer).
//!
//! The system does not keep an epoch open for ever, so there is a limit to what a checkpoint may take, and a watch on it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use windrow_connectors::{ConnectorError, Incarnation, Marker, Sink, Witness};

use super::{
    coordinator::Sinks,
    crash::crash_point,
    error::CheckpointError,
    faults::mutated,
    manifest::Manifest,
    settings::{Settings, Timeout},
    store::{CheckpointStore, Claim},
};
use crate::clock::{Moment, sleep_until};

/// How often an interval and the time for a checkpoint must fit into the time that an epoch may be open. Its first row may come as
/// soon as the barrier of the one before has passed, which may take its whole time; then the interval passes, and it may take its
/// own. The third is for what nobody counted: a restart, a slow clock.
const FITS: u32 = 3;

/// A checkpoint that may take less than this is not worth beginning.
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the end of an incarnation waits until what it left open is thrown away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a start waits to hear whether the markers are those of another job, before it fences.
const GLANCE: Duration = Duration::from_secs(3);

/// The witness of a job. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Witnessed {
    /// The sink that it came from, for messages.
    operator: String,
    witness: Arc<dyn Witness>,
    job: String,
    incarnation: Incarnation,
    /// Where in it the sinks write to.
    places: Arc<[String]>,
    /// What tells it from others in a manifest.
    pub(super) name: String,
    /// Whether the job goes on also when the witness knows of output that the checkpoints do not know of.
    pub(super) repeat_output: bool,
}

impl Witnessed {
    /// The witness of these sinks, if one of them has one. They have no two: [`mistakes`].
    pub(crate) fn of(sinks: &Sinks, job: &str, incarnation: Incarnation, repeat_output: bool) -> Option<Self> {
        let (operator, witness) =
            sinks.values().find_map(|(operator, sink)| Some((operator.clone(), sink.witness()?)))?;
        let places: BTreeSet<_> = sinks.values().filter_map(|(_, sink)| sink.place()).collect();
        let (name, job, places) = (witness.name(job), job.into(), places.into_iter().collect());
        Some(Self { operator, name, witness, job, incarnation, places, repeat_output })
    }

    /// R2: from here on no former incarnation can decide anything.
    pub(crate) async fn fence(&self) -> Result<(), CheckpointError> {
        self.witness.fence(&self.job, &self.incarnation, &self.places).await.map_err(|error| self.failed(error))?;
        crash_point("K13 R2 fenced");
        Ok(())
    }

    /// The marker of the newest epoch that counted a moment ago, if that is soon known: the transaction of a process that died may
    /// hide it until the fence, and then nobody is hurt by the fence.
    pub(super) async fn glance(&self) -> Option<Marker> {
        let gives_up = Some(Moment::now().after(GLANCE));
        tokio::select! {
            newest = self.witness.newest(&self.job) => newest.ok().flatten(),
            () = sleep_until(gives_up) => None,
        }
    }

    /// The marker of the newest epoch that counts.
    pub(super) async fn newest(&self) -> Result<Option<Marker>, CheckpointError> {
        self.witness.newest(&self.job).await.map_err(|error| self.failed(error))
    }

    /// C6: has the epoch decided. On an error only the next start can tell whether it counts.
    async fn decide(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        crash_point("K6 undecided");
        self.witness.decide(&manifest.marker()).await.map_err(|error| self.failed(error))?;
        crash_point("K8 witnessed");
        Ok(())
    }

    /// This incarnation has ended: nothing that it left open is to hold readers up. A system that does not answer must not hold up
    /// the end.
    pub(crate) async fn give_up(&self) {
        let patience = Some(Moment::now().after(PATIENCE));
        tokio::select! {
            () = self.witness.give_up(&self.job, &self.incarnation) => {}
            () = sleep_until(patience) => {}
        }
    }

    /// What a person should know about an epoch that is open for long. It is asked for and not kept, so it goes away with its cause.
    pub(crate) fn warning(&self) -> Option<String> {
        let (open, longest) = (self.witness.open_for(&self.job)?, self.witness.longest_epoch());
        let is_long = open >= longest / 2;
        is_long.then(|| format!("{}: {}: {}", self.operator, self.name, open_for(open, longest)))
    }

    /// Waits until an epoch has been open for so long that its rows are about to be thrown away.
    pub(crate) async fn watch(&self) -> CheckpointError {
        let longest = self.witness.longest_epoch();
        let most = longest - longest / 10;
        loop {
            let open = self.witness.open_for(&self.job).unwrap_or_default();
            let left = most.saturating_sub(open);
            if left.is_zero() {
                let reason = open_for(open, longest);
                return self.failed(ConnectorError::Remote { system: self.name.clone(), reason, passes: true });
            }
            sleep_until(Some(Moment::now().after(left))).await;
        }
    }

    fn failed(&self, error: ConnectorError) -> CheckpointError {
        CheckpointError::Witness { operator: self.operator.clone(), error }
    }
}

fn open_for(open: Duration, longest: Duration) -> String {
    let (open, longest) = (open.as_secs(), longest.as_secs());
    format!(
        "an epoch has been open for {open} s, and after {longest} s its rows are thrown away; at 90 % of that the job starts again \
         from its last checkpoint. Find out what holds its checkpoints up, take them more often, or let the sink keep epochs \
         open for longer"
    )
}

/// C5 to C7: prepares a checkpoint, has it decided, and writes the decision down. When this returns the job will go on from
/// it, whatever happens.
pub(crate) async fn conclude(
    store: &CheckpointStore,
    claim: &Claim,
    witnessed: Option<&Witnessed>,
    manifest: &mut Manifest,
) -> Result<(), CheckpointError> {
    if mutated("a checkpoint is decided before it is prepared") {
        store.decide(claim, manifest).await?;
    }
    match witnessed {
        None => store.prepare(claim, manifest).await?,
        Some(witnessed) => {
            manifest.witness = Some(witnessed.name.clone());
            let late = mutated("the manifest is written after the decision of the witness");
            if !late {
                store.prepare(claim, manifest).await?;
            }
            witnessed.decide(manifest).await?;
            if late {
                store.prepare(claim, manifest).await?;
            }
        }
    }
    store.decide(claim, manifest).await
}

/// How long a checkpoint may take: what was `wanted`, or as long as ten minutes and the witness of the sinks allow.
/// Otherwise what is wrong with the sinks and the times, in words.
pub(crate) fn timeout(
    sinks: &Sinks,
    job: &str,
    settings: Option<&Settings>,
    wanted: Option<Duration>,
) -> Result<Timeout, Vec<String>> {
    let of = |(operator, sink): &(String, Arc<dyn Sink>)| Some((operator.clone(), sink.witness()?));
    let witnesses: Vec<(String, Arc<dyn Witness>)> = sinks.values().filter_map(of).collect();
    let usual = wanted.or(settings.map(|settings| settings.timeout.after)).unwrap_or_default();
    let as_usual = Timeout { after: usual, lowered: None };
    let Some((operator, witness)) = witnesses.first() else { return Ok(as_usual) };
    let Some(Settings { every, .. }) = settings else {
        let silent = |(operator, _): &(String, _)| {
            format!("{operator} makes its rows visible with the checkpoints of the job: say .checkpoint(url, every)")
        };
        return Err(witnesses.iter().map(silent).collect());
    };
    let mut mistakes = Vec::new();
    for (other, its) in witnesses.iter().filter(|(_, its)| !Arc::ptr_eq(its, witness)) {
        mistakes.push(format!(
            "{operator} and {other} cannot be committed as one ({}, and {}): make both from one connection",
            witness.name(job),
            its.name(job)
        ));
    }
    let longest = witness.longest_epoch();
    let most = (longest / FITS).saturating_sub(*every);
    let fits = if wanted.is_some() { usual <= most } else { most >= LEAST_TIMEOUT };
    if !fits {
        mistakes.push(times(operator, *every, wanted.unwrap_or(LEAST_TIMEOUT), longest));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let lowered = (most < usual).then(|| {
        format!(
            "{operator} throws the rows of an epoch away that is open for {longest:?}, into which an interval and a checkpoint must \
             fit {FITS} times. If checkpoints need longer, let the sink keep epochs open for longer"
        )
    });
    Ok(Timeout { after: usual.min(most), lowered })
}

/// [`Witnessed::give_up`], if there is one.
pub(crate) async fn give_up(witnessed: Option<&Witnessed>) {
    if let Some(witnessed) = witnessed {
        witnessed.give_up().await;
    }
}

fn times(operator: &str, every: Duration, timeout: Duration, longest: Duration) -> String {
    let most = (longest / FITS).saturating_sub(every);
    let advice = match most >= LEAST_TIMEOUT {
        true => format!("say .checkpoint_timeout(..) of at most {most:?}, take checkpoints more often"),
        false => format!(
            "take a checkpoint at least every {:?}, with a .checkpoint_timeout(..) that fits",
            (longest / FITS).saturating_sub(LEAST_TIMEOUT)
        ),
    };
    format!(
        "{operator} throws the rows of an epoch away that is open for {longest:?}, and a checkpoint every {every:?} that may take \
         {timeout:?} does not fit into that {FITS} times: {advice}, or let the sink keep epochs open for longer"
    )
}
