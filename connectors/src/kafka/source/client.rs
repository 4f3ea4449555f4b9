//! One client of librdkafka that consumes, and how it asks the cluster something.
//!
//! A call of librdkafka that waits for an answer does not serve its own events, and these say why no answer comes, and ask for
//! tokens. So a question is asked in short turns with a look at the events between them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
};
use serde::Deserialize;

use super::{
    fault,
    feed::{Fault, Partition},
    plan::{Isolation, Plan},
    reader::Ends,
};
use crate::{
    ConnectorError, Result,
    kafka::{
        LATE,
        context::{Brokers, Context},
    },
};

/// How long a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One turn of asking.
const TURN: Duration = Duration::from_secs(2);

/// librdkafka's queue of one client, in KiB. It and what it takes to receive one answer bound the memory of a client.
const QUEUE_KIB: usize = 32 << 10;

/// The largest answer of a broker that librdkafka takes; the default.
const RECEIVE_BYTES: usize = 100_000_000;

/// How often librdkafka is to tell its figures. They are of every partition of the topic, so that making and reading them takes its
/// time where there are many.
fn statistics_ms(partitions: i32) -> i32 {
    (partitions / 200).clamp(1, 5) * 1_000
}

/// One client. It is opened and dropped where waiting is allowed: both talk with the cluster.
pub(super) struct Client {
    consumer: BaseConsumer<Ear>,
    system: String,
    /// Records come through its queue, so it is not for us to take its events from there.
    pub(super) assigned: bool,
}

/// What a client hears.
pub(super) struct Ear {
    context: Context,
    topic: usize,
    committed_only: bool,
    ends: Option<Ends>,
    /// How far its partitions have been fetched, by number.
    fetched: Mutex<BTreeMap<i32, u64>>,
    /// librdkafka has forgotten all brokers.
    brokerless: AtomicBool,
    /// Another client has taken over, and knows better where partitions end.
    retired: AtomicBool,
}

impl Client {
    /// A client for records of one topic of the source. `watched`: the ends that it keeps up to date, and of about how many partitions.
    pub(super) fn reading(plan: &Plan, topic: usize, watched: Option<(Ends, i32)>) -> Result<Self> {
        let mut settings = plan.config.client()?;
        let defaults = [
            ("queued.max.messages.kbytes", QUEUE_KIB.to_string()),
            // One answer; a batch that is larger comes alone.
            ("fetch.max.bytes", (16 << 20).to_string()),
            // When its queue is full librdkafka would look again after a second, and run dry meanwhile.
            ("fetch.queue.backoff.ms", "10".to_string()),
            // For so long a topic that is gone is taken for one that is not known everywhere yet; half a minute else. It was there
            // when reading began, and before the job is failed it is asked for again.
            ("topic.metadata.propagation.max.ms", "5000".to_string()),
            // More than the longest record, so that one that is too long arrives and is rejected. One answer may hold a
            // record and what else fits in fetch.max.bytes.
            (
                "receive.message.max.bytes",
                RECEIVE_BYTES.max(plan.max_record_bytes.saturating_mul(2)).min(1_000_000_000).to_string(),
            ),
        ];
        for (name, value) in defaults {
            if settings.get(name).is_none() {
                settings.set(name, value);
            }
        }
        // librdkafka wants a group for any consumer. We never join one: the engine assigns.
        settings.set("group.id", plan.group.as_deref().unwrap_or("windrow"));
        settings.set("enable.auto.commit", "false");
        settings.set("enable.auto.offset.store", "false");
        settings.set("auto.offset.reset", "error");
        settings.set("enable.partition.eof", "true");
        // What was damaged on its way is fetched again, rather than taken for records that do not decode.
        settings.set("check.crcs", "true");
        settings.set("allow.auto.create.topics", "false");
        settings.set(
            "isolation.level",
            match plan.isolation {
                Isolation::ReadCommitted => "read_committed",
                Isolation::ReadUncommitted => "read_uncommitted",
            },
        );
        if let Some((_, partitions)) = watched {
            settings.set("statistics.interval.ms", statistics_ms(partitions).to_string());
        }
        let ends = watched.map(|(ends, _)| ends);
        let committed_only = plan.isolation == Isolation::ReadCommitted;
        let ear = Ear {
            context: plan.config.context(),
            topic,
            committed_only,
            ends,
            fetched: Mutex::default(),
            brokerless: AtomicBool::default(),
            retired: AtomicBool::default(),
        };
        let consumer = settings.create_with_context(ear).map_err(|error| plan.config.not_made(error))?;
        Ok(Self { consumer, system: plan.config.name(), assigned: false })
    }

    pub(super) fn consumer(&self) -> &BaseConsumer<Ear> {
        &self.consumer
    }

    /// Calls `ring` when there is something to poll and there was nothing before.
    pub(super) fn when_not_empty(&mut self, ring: impl Fn() + Send + Sync + 'static) {
        self.consumer.set_nonempty_callback(ring);
    }

    /// How many partitions a topic has; `None` if there is no such topic. If it has fewer than `expected` it asks again for a while.
    pub(super) fn partitions(&self, topic: &str, expected: i32) -> Result<Option<i32>> {
        for pause in LATE {
            let found = self.partitions_now(topic)?;
            if found.unwrap_or_default() >= expected {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        self.partitions_now(topic)
    }

    fn partitions_now(&self, topic: &str) -> Result<Option<i32>> {
        self.ask(&format!("for the partitions of the topic {topic}"), |consumer, wait| {
            let metadata = consumer.fetch_metadata(Some(topic), wait)?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
            match found.error().map(Code::from) {
                None => Ok(i32::try_from(found.partitions().len()).ok().filter(|&count| count > 0)),
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
                Some(code) => Err(KafkaError::MetadataFetch(code)),
            }
        })
    }

    /// Which broker leads each partition that has a leader.
    pub(super) fn leaders(&self, topic: &str) -> Result<BTreeMap<i32, i32>> {
        self.ask(&format!("for the leaders of the topic {topic}"), |consumer, wait| {
            let metadata = consumer.fetch_metadata(Some(topic), wait)?;
            let found = metadata.topics().iter().filter(|found| found.name() == topic);
            let led = found.flat_map(|found| found.partitions()).filter(|partition| partition.leader() >= 0);
            Ok(led.map(|partition| (partition.id(), partition.leader())).collect())
        })
    }

    /// Asks until there is an answer, or for as long as [`PATIENCE`]. The error says why there was none.
    pub(super) fn ask<T>(
        &self,
        what: &str,
        question: impl Fn(&BaseConsumer<Ear>, Duration) -> KafkaResult<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            self.hear();
            let error = match question(&self.consumer, TURN) {
                Ok(answer) => {
                    self.consumer.context().context.forget();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.hear();
            let complaint = self.consumer.context().context.last();
            let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
            let fault = fault::meaning(code, true);
            let refused = complaint.as_ref().is_some_and(|complaint| complaint.refused);
            if fault == Fault::Passing && !refused && begun.elapsed() < PATIENCE {
                // An error that came at once must not make us spin.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            let why = match complaint {
                Some(complaint) => format!("{}. {}", complaint.reason, complaint.advice()),
                None => format!("{code}. Look at the addresses, the network and the brokers"),
            };
            let reason = match fault {
                Fault::Forbidden => {
                    format!("it refuses the question {what}: {code}: give this user the right (DESCRIBE)")
                }
                _ if refused => why,
                Fault::Passing => format!("no answer within {} s to the question {what}: {why}", PATIENCE.as_secs()),
                _ => format!("no answer to the question {what}: {why}"),
            };
            let passes = !matches!(fault, Fault::Forbidden | Fault::Login) && !refused;
            return Err(ConnectorError::Remote { system: self.system.clone(), reason, passes });
        }
    }

    /// Serves what librdkafka wants of us: complaints, and tokens.
    fn hear(&self) {
        let enough = Instant::now() + Duration::from_millis(100);
        while !self.assigned && Instant::now() < enough && self.consumer.poll(Duration::from_millis(1)).is_some() {}
    }

    /// Commits for whoever watches the group. Waits for the answer.
    pub(super) fn commit(&self, offsets: &TopicPartitionList) -> KafkaResult<()> {
        self.hear();
        self.consumer.commit(offsets, CommitMode::Sync)
    }
}

impl ClientContext for Ear {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    /// Takes from the statistics where the partitions end, for the lag, how far they have been fetched, and whether there are brokers.
    fn stats_raw(&self, json: &[u8]) {
        let (Some(ends), Ok(statistics)) = (&self.ends, serde_json::from_slice::<Statistics>(json)) else { return };
        if self.retired.load(Relaxed) {
            return;
        }
        self.brokerless.store(statistics.brokers.is_some_and(|brokers| !brokers.any()), Relaxed);
        let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, partition) in statistics.topics.values().flat_map(|topic| &topic.partitions) {
            let end = if self.committed_only { partition.ls_offset } else { partition.hi_offset };
            let Ok(number) = number.parse() else { continue };
            if let Ok(end) = u64::try_from(end) {
                ends.insert(Partition { topic: self.topic, number }, end);
            }
            if let Ok(next) = u64::try_from(partition.next_offset) {
                fetched.insert(number, next);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context.generate_oauth_token(config)
    }
}

impl ConsumerContext for Ear {}

impl Ear {
    /// The end that goes with the event that was just polled.
    pub(super) fn end(&self) -> Option<u64> {
        self.context.end()
    }

    /// How far a partition has been fetched.
    pub(super) fn fetched(&self, number: i32) -> Option<u64> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).get(&number).copied()
    }

    /// What its statistics say from now on counts no more.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// Whether there is a broker to be asked.
    pub(super) fn knows_brokers(&self) -> bool {
        !self.brokerless.load(Relaxed)
    }

    /// What librdkafka said last, or the name of the error.
    pub(super) fn why(&self, code: Code) -> String {
        self.context.last().map_or_else(|| code.to_string(), |complaint| complaint.reason)
    }
}

/// The few of librdkafka's figures that are looked at: the rest is most of the work of reading them.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: Option<Brokers>,
    #[serde(default)]
    topics: BTreeMap<String, TopicFigures>,
}

#[derive(Deserialize)]
struct TopicFigures {
    #[serde(default)]
    partitions: BTreeMap<String, PartitionFigures>,
}

#[derive(Deserialize)]
struct PartitionFigures {
    /// Where it ends; below 0 if not known.
    hi_offset: i64,
    /// Where what is decided ends.
    ls_offset: i64,
    /// What is fetched next; below 0 if it is not.
    next_offset: i64,
}
