//! C9: tells the sources how far they are final, so that who watches them from outside (Kafka's group offsets) sees it too.
//! The job does not depend on it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future::join_all;
use windrow_connectors::{Position, Source, SplitId};

use super::manifest::Manifest;
use crate::clock::{Moment, sleep_until};

/// How long a source may take to hear that a checkpoint is final.
const PATIENCE: Duration = Duration::from_secs(2);

/// The sources of a job, by id.
pub(crate) type Sources = BTreeMap<String, Arc<dyn Source>>;

/// Tells each source its positions in `manifest`, all at once. None of them can fail the job, or hold it up for long.
pub(super) async fn tell(sources: &Sources, manifest: &Manifest) {
    let told = sources.iter().filter_map(|(id, source)| {
        let splits = manifest.sources.get(id)?.iter();
        let of = splits.filter_map(|state| Some((SplitId::new(state.split.as_str()), Position(state.position?))));
        let positions: Vec<(SplitId, Position)> = of.collect();
        Some(async move {
            tokio::select! {
                () = source.checkpointed(&positions) => {}
                () = sleep_until(Some(Moment::now().after(PATIENCE))) => {}
            }
        })
    });
    join_all(told).await;
}
