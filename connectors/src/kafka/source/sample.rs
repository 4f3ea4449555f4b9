//! A few records of a topic, to infer columns from.

use std::time::{Duration, Instant};

use rdkafka::Message;

use super::{
    fault,
    feed::{Event, Fault, Feed, Partition},
    plan::Plan,
    start,
    topics::Topics,
};
use crate::{ConnectorError, Result};

/// A sample has at most this many bytes.
const MAX_BYTES: usize = 16 << 20;

/// How long to wait for records.
const PATIENCE: Duration = Duration::from_secs(10);

/// Up to `records` payloads, from the first offsets on, as `keep` wants them: `None` for one that shows nothing. Blocks.
pub(super) fn sample(
    plan: &Plan,
    records: usize,
    mut keep: impl FnMut(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let mut feed = Topics::new(plan.clone(), None);
    let mut assigned = Vec::new();
    for topic in 0..plan.topics.len() {
        let count = feed.partitions(topic, 1)?.ok_or_else(|| fault::missing(plan, topic))?;
        assigned.extend((0..count).map(|number| start::Assigned {
            at: Partition { topic, number },
            position: None,
            end: None,
            appeared: false,
        }));
    }
    // Any partition will do, but there must be one.
    let (mut begins, put_off) = start::resolve(&mut feed, plan, &assigned)?;
    if let Some((assigned, why)) = put_off.into_iter().next().filter(|_| begins.is_empty()) {
        return Err(ConnectorError::Remote { system: plan.topic(assigned.at.topic), reason: why.reason, passes: true });
    }
    begins.retain(|begin| begin.end.is_none_or(|end| begin.next < end));
    let mut unread: Vec<Partition> = begins.iter().map(|begin| begin.at).collect();
    feed.assign(&begins.iter().map(|begin| (begin.at, begin.next)).collect::<Vec<_>>())?;
    let (mut sample, mut bytes) = (Vec::new(), 0);
    let begun = Instant::now();
    while sample.len() < records && bytes < MAX_BYTES && !unread.is_empty() && begun.elapsed() < PATIENCE {
        match feed.poll(Duration::from_millis(100)) {
            Some(Event::Record { record, .. }) => {
                let payload = record.payload().filter(|payload| payload.len() <= plan.max_record_bytes);
                if let Some(kept) = payload.and_then(&mut keep) {
                    bytes += kept.len();
                    sample.push(kept);
                }
            }
            Some(Event::End { at, .. }) => unread.retain(|other| *other != at),
            Some(Event::Failed { topic, fault, reason }) if fault != Fault::Passing => {
                return Err(fault::failed(plan, topic, fault, &reason));
            }
            Some(Event::Failed { .. }) | None => {}
        }
    }
    Ok(sample)
}
