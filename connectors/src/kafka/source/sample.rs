//! A few records of a topic, to infer columns from.

use std::time::{Duration, Instant};

use rdkafka::Message;

use super::{
    fault,
    feed::{Event, Fault, Feed, Partition},
    plan::Plan,
    reader::Ends,
    start,
    topics::Topics,
};
use crate::Result;

/// A sample has at most this many bytes.
const MAX_BYTES: usize = 16 << 20;

/// How long to wait for records.
const PATIENCE: Duration = Duration::from_secs(10);

/// Up to `records` JSON objects, from the first offsets on. Blocks.
pub(super) fn sample(plan: &Plan, records: usize) -> Result<Vec<Vec<u8>>> {
    let mut feed = Topics::new(plan.clone(), Ends::default());
    let mut assigned = Vec::new();
    for topic in 0..plan.topics.len() {
        let count = feed.partitions(topic, 1)?.ok_or_else(|| fault::missing(plan, topic))?;
        assigned.extend((0..count).map(|number| start::Assigned {
            at: Partition { topic, number },
            position: None,
            end: None,
        }));
    }
    let mut begins = start::resolve(&mut feed, plan, &assigned)?;
    begins.retain(|begin| begin.end.is_none_or(|end| begin.next < end));
    let mut unread: Vec<Partition> = begins.iter().map(|begin| begin.at).collect();
    feed.assign(&begins.iter().map(|begin| (begin.at, begin.next)).collect::<Vec<_>>())?;
    let (mut sample, mut bytes) = (Vec::new(), 0);
    let begun = Instant::now();
    while sample.len() < records && bytes < MAX_BYTES && !unread.is_empty() && begun.elapsed() < PATIENCE {
        match feed.poll(Duration::from_millis(100)) {
            Some(Event::Record { record, .. }) => {
                let payload = record.payload().filter(|payload| payload.len() <= plan.max_record_bytes);
                let is_object = |payload: &&[u8]| {
                    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(payload).is_ok()
                };
                if let Some(payload) = payload.filter(is_object) {
                    bytes += payload.len();
                    sample.push(payload.to_vec());
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
