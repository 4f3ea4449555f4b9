//! What a run asks of the broker: its topics, input that comes little by little, how far the job has read, whether readers get on.

use std::time::{Duration, Instant};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tests::broker::{Broker, Result};

use super::scenario::{IN, Input, MORE, Scenario};

const ANSWER: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// What the job writes, without the name of the job.
pub(crate) const OUTPUTS: [&str; 3] = ["rows", "answers", "dead"];

/// Creates the topics of a job.
pub(crate) fn create_topics(broker: &Broker, job: &str, scenario: &Scenario) -> Result<()> {
    let outputs = [("rows", scenario.rows_partitions), ("answers", scenario.answers_partitions), ("dead", 1)];
    let topics = scenario.inputs().into_iter().chain(outputs);
    at_once(topics, |(topic, partitions)| broker.create_topic(&format!("{job}.{topic}"), partitions, &[])).map(drop)
}

/// Does something for several at once, and returns what came of each, in order.
pub(crate) fn at_once<T: Send, R: Send>(
    of: impl IntoIterator<Item = T>,
    act: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let act = &act;
    std::thread::scope(|scope| {
        let threads: Vec<_> = of.into_iter().map(|one| scope.spawn(move || act(one))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a panic".into()))).collect()
    })
}

/// A producer of the input, which is not the job's.
pub(crate) struct Feeder<'a> {
    broker: &'a Broker,
    job: String,
    records: Vec<Input>,
}

impl<'a> Feeder<'a> {
    pub(crate) fn new(broker: &'a Broker, job: &str, records: Vec<Input>) -> Self {
        Self { broker, job: job.to_string(), records }
    }

    /// Produces everything, in parts, within about so much time.
    pub(crate) fn feed(&self, over: Duration) -> Result<()> {
        let begin = Instant::now();
        let parts = u32::try_from(over.as_millis() / 100).unwrap_or(u32::MAX).max(1);
        let length = self.records.len().div_ceil(parts as usize).max(1);
        for (number, part) in (1..).zip(self.records.chunks(length)) {
            for topic in [IN, MORE] {
                let mut messages = part.iter().filter(|record| record.topic == topic).map(Input::message).peekable();
                if messages.peek().is_some() {
                    self.broker.produce(&format!("{}.{topic}", self.job), messages)?;
                }
            }
            if number < parts {
                let due = over * number / parts;
                std::thread::sleep(due.saturating_sub(begin.elapsed()));
            }
        }
        Ok(())
    }
}

/// The partitions of a topic that is read: where each ends, and which offset the job has committed to its group.
pub(crate) fn progress(broker: &Broker, job: &str, (topic, partitions): (&str, usize)) -> Result<Vec<(i64, i64)>> {
    let client: BaseConsumer = broker.config().set("group.id", job).create()?;
    let topic = format!("{job}.{topic}");
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(&topic, i32::try_from(partition)?);
    }
    let committed = client.committed_offsets(list, ANSWER)?;
    let mut found = Vec::new();
    for element in committed.elements() {
        let (_, end) = client.fetch_watermarks(&topic, element.partition(), ANSWER)?;
        found.push((end, element.offset().to_raw().unwrap_or(0).max(0)));
    }
    Ok(found)
}

/// Waits until a checkpoint has everything that is in the input now. `look` is asked meanwhile whether there is any hope.
pub(crate) fn until_read(
    broker: &Broker,
    job: &str,
    inputs: &[(&str, usize)],
    patience: Duration,
    mut look: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        // The coordinator of the group may be busy for a moment after a start of the broker.
        let found: Result<Vec<_>> = inputs.iter().map(|input| progress(broker, job, *input)).collect();
        if let Ok(found) = &found
            && found.iter().flatten().all(|(end, committed)| committed >= end)
        {
            return Ok(());
        }
        look()?;
        if begin.elapsed() >= patience {
            let found = found.map(|found| format!("(end, committed) by partition: {found:?}"));
            let found = found.unwrap_or_else(|error| error.to_string());
            return Err(format!("after {patience:?} the job has not read its input: {found}").into());
        }
        std::thread::sleep(LOOK);
    }
}

/// The longest that readers of committed records do not get on in any topic of the job.
pub(crate) fn stall(broker: &Broker, job: &str, patience: Duration) -> Result<Duration> {
    let stuck = |topic: &str| broker.last_stable_offset_stuck(&format!("{job}.{topic}"), patience);
    Ok(at_once(OUTPUTS, stuck)?.into_iter().max().unwrap_or_default())
}
