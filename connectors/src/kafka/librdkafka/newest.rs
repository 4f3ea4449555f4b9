//! The last committed value of a topic with one partition.
//!
//! ```text
//!   … marker 5 │ C │ marker 6 │ C │ rows of another's open transaction │ marker 7 │ A │
//!                                  ▲ last stable offset                              ▲ high watermark
//! ```
//!
//! *C* and *A* are the records that Kafka itself writes when a transaction commits or aborts. For a reader of committed records the
//! topic seems to end at the last stable offset, in front of the first open transaction, and behind that the newest marker may lie. So
//! the end is asked for first, and then waited for. Why no marker of the job is missed, when its fence came before:
//!
//! 1. A producer is initialised only when its former transaction has come to its end on *every* partition: Kafka answers when the
//!    *C* and *A* are in the logs of all replicas in sync. So all of ours, markers too, lie below the high watermark *H* of the leader.
//! 2. A leader that has just taken over has these records, and may not know yet that they count. Until it does it refuses to say where
//!    the topic ends (`OffsetNotAvailable`, KIP-207), and is asked again. Ends are told by leaders only.
//! 3. What lies before the last stable offset is decided for good. When that is *H* or more, every transaction with records before
//!    *H* is. Ours are: only a stranger's can hold it back, and that is an error after [`PATIENCE`], not an older marker.
//! 4. Reading ends where the reader is at *H* or behind it. An end that is told before that is one of a replica that lags, and is not
//!    believed; nor are replicas asked that only follow (`client.rack`). Compaction leaves the last records of a log as they are,
//!    so reading comes to *H* also where others have been removed.
//! 5. A leader that was deposed and has not heard of it yet may have told too small an *H*. It hears of it within moments, so *H*
//!    is asked for again after reading, and if it has grown, what is there is read again. What is left is one that both times could
//!    not hear the others of its cluster, while this process could hear it and they it.
//!
//! Without the fence (a glance at a job that may be at work) the answer is true for a moment that lies behind us.

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
    super::{codes::is_passing, connection::Config, context::Context},
    SLICE,
    refused::{refused_by, unanswered},
};
use crate::{ConnectorError, Result};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records at the end of the topic that are read first.
const TAIL: i64 = 1000;

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
            if !is_passing(code) {
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

pub(super) fn last_committed(question: &Question) -> Result<Option<Vec<u8>>> {
    let (all, committed) = (reader(question, "read_uncommitted")?, reader(question, "read_committed")?);
    let (low, high) = ends(question, &all)?;
    let found = last_before(question, &committed, low, high)?;
    match ends(question, &all)? {
        (low, grown) if grown > high => last_before(question, &committed, low, grown),
        _ => Ok(found),
    }
}

/// Where the topic begins and ends, for the reader that is asked.
fn ends(question: &Question, reader: &Reader) -> Result<(i64, i64)> {
    let action = format!("read the end of topic {}", question.topic);
    question.ask(reader, &action, |reader| reader.fetch_watermarks(&question.topic, 0, SLICE))
}

fn last_before(question: &Question, committed: &Reader, low: i64, high: i64) -> Result<Option<Vec<u8>>> {
    if high == 0 {
        return Ok(None);
    }
    wait_until_stable(committed, question, high)?;
    let mut tail = TAIL;
    loop {
        let start = high.saturating_sub(tail).max(low);
        let found = read(committed, question, start, high)?;
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
        // Where a client says where it is, brokers send it to a replica that follows, and may lag.
        ("client.rack", ""),
    ])
}

/// Waits until every transaction that has records before `high` is committed or aborted.
fn wait_until_stable(committed: &Reader, question: &Question, high: i64) -> Result<()> {
    loop {
        let (_, stable) = ends(question, committed)?;
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
    let mut found = None;
    loop {
        let mut at = -1;
        match committed.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                at = message.offset();
                found = message.payload().map(<[u8]>::to_vec);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                at = committed.context().end().and_then(|end| i64::try_from(end).ok()).unwrap_or(0) - 1;
            }
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
        if question.is_over() {
            return Err(question.late(format!(
                "it was not read up to offset {high}, where it ended a moment ago, within {PATIENCE:?}: do its replicas \
                 have all records?"
            )));
        }
    }
}

/// The offset behind what was read, records of Kafka itself included; -1 if nothing was.
fn position(reader: &Reader, topic: &str) -> i64 {
    let position = reader.position().ok();
    let position = position.and_then(|list| list.find_partition(topic, 0)?.offset().to_raw());
    position.unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        ClientConfig,
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };

    use super::*;

    /// A cluster with a topic of these values, and a question about it that may take four seconds.
    fn cluster(values: &[&str]) -> (MockCluster<'static, DefaultProducerContext>, Question) {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("m", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        for value in values {
            producer.send(BaseRecord::<(), str>::to("m").partition(0).payload(value)).unwrap();
            producer.flush(Duration::from_secs(10)).unwrap();
        }
        let config = Config { brokers, ..Config::default() };
        let mut question = Question::new(Arc::new(config), "m".into(), Arc::default());
        question.until = Instant::now() + Duration::from_secs(4);
        (cluster, question)
    }

    #[test]
    fn the_newest_value_is_read_also_when_a_new_leader_does_not_know_its_end_yet() {
        let (cluster, question) = cluster(&["5", "6", "7"]);
        let moving = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE; 2];
        cluster.request_errors(RDKafkaApiKey::ListOffsets, &moving);
        assert_eq!(last_committed(&question).unwrap().as_deref(), Some(&b"7"[..]));
        let (_cluster, question) = self::cluster(&[]);
        assert_eq!(last_committed(&question).unwrap(), None);
    }

    /// The end was told by one leader, and its successor does not have all of it yet.
    #[test]
    fn an_end_before_the_one_that_was_told_is_not_believed() {
        let (_cluster, question) = cluster(&["5", "6"]);
        let committed = reader(&question, "read_committed").unwrap();
        assert_eq!(read(&committed, &question, 0, 2).unwrap().as_deref(), Some(&b"6"[..]));
        let refused = read(&committed, &question, 0, 3).unwrap_err();
        assert!(refused.to_string().contains("it was not read up to offset 3"), "{refused}");
        assert!(matches!(refused, ConnectorError::Remote { passes: true, .. }));
    }
}
