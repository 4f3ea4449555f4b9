//! The last committed value of a topic with one partition.
//!
//! ```text
//!   … marker 5 │ C │ marker 6 │ C │ rows of another's open transaction │ marker 7 │ A │
//!                                  ▲ last stable offset                              ▲ high watermark
//! ```
//!
//! *C* and *A* are the records that Kafka itself writes when a transaction commits or aborts. The end to read up to is the *high
//! watermark* of a reader that sees everything. For a reader of committed records the topic seems to end at the last stable
//! offset, in front of the first open transaction, and behind that the newest marker may lie.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode as Code,
};

use super::{
    super::{connection::Config, context::Context},
    SLICE,
    refused::{refused_by, unanswered},
};
use crate::{ConnectorError, Result};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records at the end of the topic that are read first.
const TAIL: i64 = 1000;

/// How long a reader listens on at an end that comes before the one that was to be reached: a leader that has just taken over may not
/// yet know of the last records.
const DOUBT: Duration = Duration::from_secs(2);

pub(super) type Reader = BaseConsumer<Context>;

/// A client that asks, for a topic of one cluster, until it is answered or told to stop.
pub(super) struct Question {
    config: Arc<Config>,
    pub(super) system: String,
    pub(super) topic: String,
    pub(super) until: Instant,
    pub(super) stop: Arc<AtomicBool>,
}

impl Question {
    pub(super) fn new(config: Arc<Config>, topic: String, stop: Arc<AtomicBool>) -> Self {
        Self { system: config.name(), config, topic, until: Instant::now() + PATIENCE, stop }
    }

    /// A client to ask.
    pub(super) fn reader(&self, settings: &[(&str, &str)]) -> Result<Reader> {
        let mut client = self.config.client()?;
        client.set("allow.auto.create.topics", "false");
        for (name, value) in settings {
            client.set(*name, *value);
        }
        client.create_with_context(self.config.context()).map_err(|error| self.config.not_made(error))
    }

    /// Makes the same call until it is answered. `action` is for messages: `read the end of topic t`.
    pub(super) fn ask<T>(&self, reader: &Reader, action: &str, call: impl Fn(&Reader) -> KafkaResult<T>) -> Result<T> {
        loop {
            hear(reader);
            let error = match call(reader) {
                Ok(answer) => {
                    reader.context().forget();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            hear(reader);
            let heard = reader.client().context().last();
            let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
            if let Some(complaint) = heard.as_ref().filter(|complaint| complaint.refused) {
                return Err(unanswered(&self.system, action, complaint));
            }
            let silent = matches!(code, Code::OperationTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown);
            if !silent && !is_moving(code) {
                return Err(refused_by(&self.system, action, &error));
            }
            if self.is_over() {
                return Err(match heard {
                    Some(heard) if silent => unanswered(&self.system, action, &heard),
                    _ => refused_by(&self.system, action, &error),
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.stop.load(Relaxed)
    }

    fn late(&self, reason: String) -> ConnectorError {
        ConnectorError::Remote { system: format!("{}, topic {}", self.system, self.topic), reason, passes: true }
    }
}

/// Serves what librdkafka wants to say, also that it needs a token. Nothing is assigned yet, so no record is lost.
fn hear(reader: &Reader) {
    let enough = Instant::now() + Duration::from_millis(100);
    while Instant::now() < enough && reader.poll(Duration::from_millis(1)).is_some() {}
}

/// Whether a partition is only about to get another leader.
fn is_moving(code: Code) -> bool {
    use Code::{KafkaStorageError, LeaderNotAvailable, NotLeaderForPartition, OffsetNotAvailable, ReplicaNotAvailable};
    matches!(
        code,
        KafkaStorageError | LeaderNotAvailable | NotLeaderForPartition | OffsetNotAvailable | ReplicaNotAvailable
    )
}

pub(super) fn last_committed(question: &Question) -> Result<Option<Vec<u8>>> {
    let action = format!("read the end of topic {}", question.topic);
    let all = reader(question, "read_uncommitted")?;
    let (low, high) = question.ask(&all, &action, |all| all.fetch_watermarks(&question.topic, 0, SLICE))?;
    if high == 0 {
        return Ok(None);
    }
    let committed = reader(question, "read_committed")?;
    wait_until_stable(&committed, question, high)?;
    let (mut tail, mut found) = (TAIL, None);
    loop {
        let start = high.saturating_sub(tail).max(low);
        found = read(&committed, question, start, high)?.or(found);
        if found.is_some() {
            return Ok(found);
        }
        if start == low {
            break;
        }
        tail = tail.saturating_mul(10);
    }
    if low > 0 {
        let at = format!("{}, topic {}", question.system, question.topic);
        let reason = format!(
            "its records before offset {low} were deleted, and no committed one is left, so nobody can say which epoch was \
             committed. The topic needs cleanup.policy=compact"
        );
        return Err(ConnectorError::Data { at, reason });
    }
    Ok(None)
}

fn reader(question: &Question, isolation: &str) -> Result<Reader> {
    question.reader(&[
        ("isolation.level", isolation),
        // Nothing is ever committed in its name; librdkafka wants one.
        ("group.id", "windrow-markers"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "error"),
    ])
}

/// Waits until every transaction that has records before `high` is committed or aborted.
fn wait_until_stable(committed: &Reader, question: &Question, high: i64) -> Result<()> {
    let action = format!("read the end of topic {}", question.topic);
    loop {
        let (_, stable) =
            question.ask(committed, &action, |reader| reader.fetch_watermarks(&question.topic, 0, SLICE))?;
        if stable >= high {
            return Ok(());
        }
        if question.is_over() {
            return Err(question.late(format!(
                "a transaction has been open at offset {stable} for over {PATIENCE:?}, and nobody knows yet what comes of the \
                 records from there to {high}. Does another program write to this topic?"
            )));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The last committed value from `start` on.
fn read(committed: &Reader, question: &Question, start: i64, high: i64) -> Result<Option<Vec<u8>>> {
    let topic = &question.topic;
    let action = format!("read topic {topic}");
    let failed = |error: &KafkaError| refused_by(&question.system, &action, error);
    let mut assignment = TopicPartitionList::new();
    let assigned = assignment.add_partition_offset(topic, 0, Offset::Offset(start));
    assigned.and_then(|()| committed.assign(&assignment)).map_err(|error| failed(&error))?;
    let (mut found, mut in_doubt) = (None, None);
    loop {
        let mut at = -1;
        match committed.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                at = message.offset();
                in_doubt = None;
                found = message.payload().map(<[u8]>::to_vec);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => in_doubt = Some(Instant::now()),
            Some(Err(error)) => match error.rdkafka_error_code() {
                // Of the group, which is not used.
                Some(Code::GroupAuthorizationFailed) => {}
                Some(Code::TopicAuthorizationFailed | Code::OffsetOutOfRange | Code::UnknownTopicOrPartition) => {
                    return Err(failed(&error));
                }
                // It tries again by itself.
                _ => {
                    if let Some(complaint) = committed.context().refused() {
                        return Err(unanswered(&question.system, &action, &complaint));
                    }
                }
            },
        }
        if at + 1 >= high || position(committed, topic) >= high {
            return Ok(found);
        }
        // The records at the very end may have been removed by compaction: then the position does not come there.
        if in_doubt.is_some_and(|since: Instant| since.elapsed() >= DOUBT) {
            return Ok(found);
        }
        if question.is_over() {
            return Err(question.late(format!("it was not read up to offset {high} within {PATIENCE:?}")));
        }
    }
}

/// The offset behind what was read, records of Kafka itself included; -1 if nothing was.
fn position(reader: &Reader, topic: &str) -> i64 {
    let position = reader.position().ok();
    let position = position.and_then(|list| list.find_partition(topic, 0)?.offset().to_raw());
    position.unwrap_or(-1)
}
