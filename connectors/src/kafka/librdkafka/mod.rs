//! The cluster that there really is, through librdkafka.
//!
//! ```text
//!   send ──► queue of librdkafka (bounded) ──► its threads ──► brokers
//!                                                 │
//!   flush, room ◄── Reports ◄── polling thread ◄──┘ delivery reports, errors
//! ```
//!
//! | file | why it exists |
//! |---|---|
//! | `producer` | sends, waits, commits |
//! | `reports` | what comes back about what was sent |
//! | `limits` | the largest records that topics take |
//! | `newest` | the last committed value of a topic |
//! | `re_drive` | dead letters, sent again with how far that has come |
//! | `refused` | errors in words that say what to do |

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::Consumer,
    types::RDKafkaErrorCode as Code,
};

use super::{
    LATE,
    cluster::{Cluster, Producer},
    connection::Config,
    context::Context,
};
use crate::{ConnectorError, Result};

mod limits;
mod newest;
mod producer;
mod re_drive;
mod refused;
mod reports;

use newest::Question;
use producer::{LibrdkafkaProducer, Transactional};
pub(super) use re_drive::re_drive;
use refused::refused;

/// How long one call into librdkafka takes at most. What takes longer is asked for again.
const SLICE: Duration = Duration::from_secs(3);

/// What a producer may hold that is not written yet, unless the user says otherwise. Beyond it writers wait.
const QUEUE_KBYTES: u64 = 64 << 10;

/// How long a record may wait for its brokers unless the user says otherwise.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// How often a producer's figures are looked at.
const STATISTICS_MS: u32 = 5_000;

/// How long the creation of a topic may take.
const CREATE_PATIENCE: Duration = Duration::from_secs(30);

/// A cluster reached through librdkafka. Every client is made when it is needed.
pub(super) struct Librdkafka {
    config: Arc<Config>,
}

/// The settings of a producer. What the user has set stays, except for what exactly-once rests on, and batches that are larger than
/// topics take. Reads the secrets.
fn producer_settings(config: &Config, batch: usize, transactional: Option<&Transactional>) -> Result<ClientConfig> {
    let settings = &config.settings;
    let mut client = config.client()?;
    let mut unless_set = |names: &[&str], value: String| {
        if let Some(name) = names.first().filter(|_| !names.iter().any(|name| settings.contains_key(*name))) {
            client.set(*name, value);
        }
    };
    unless_set(&["partitioner"], "murmur2_random".into());
    unless_set(&["compression.type", "compression.codec"], "lz4".into());
    unless_set(&["allow.auto.create.topics"], "false".into());
    unless_set(&["enable.idempotence"], "true".into());
    unless_set(&["message.max.bytes"], config.max_message_bytes().to_string());
    unless_set(&["queue.buffering.max.kbytes"], queue_kbytes(settings).to_string());
    let most = transactional.map_or(MESSAGE_TIMEOUT, |transactional| transactional.timeout.mul_f32(0.8));
    let timeout = MESSAGE_TIMEOUT.min(most).as_millis();
    unless_set(&["message.timeout.ms", "delivery.timeout.ms"], timeout.to_string());
    // They tell whether it knows of brokers.
    client.set("statistics.interval.ms", STATISTICS_MS.to_string());
    // What is no number is for librdkafka to refuse.
    if settings.get("batch.size").is_none_or(|set| set.trim().parse().is_ok_and(|set: usize| set > batch)) {
        client.set("batch.size", batch.to_string());
    }
    if let Some(Transactional { id, timeout }) = transactional {
        client.set("enable.idempotence", "true").set("transactional.id", id);
        client.set("transaction.timeout.ms", timeout.as_millis().to_string());
    }
    Ok(client)
}

impl Librdkafka {
    pub(super) fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    /// Does something on a thread that may wait: clients are made there, because that reads secrets and certificates.
    async fn blocking<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Config>) -> Result<T> + Send + 'static,
    {
        let config = self.config.clone();
        let done = tokio::task::spawn_blocking(move || call(config)).await;
        done.unwrap_or_else(|error| {
            let (system, reason) = (self.name(), format!("a call to librdkafka was stopped: {error}"));
            Err(ConnectorError::Remote { system, reason, passes: true })
        })
    }

    /// Asks something, and lets it stop when nobody waits for the answer any more.
    async fn ask<T, F>(&self, topic: &str, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Question) -> Result<T> + Send + 'static,
    {
        let stop = StopOnDrop(Arc::default());
        let (topic, stopped) = (topic.to_owned(), stop.0.clone());
        self.blocking(move |config| call(&Question::new(config, topic, stopped))).await
    }

    async fn producer(&self, batch: usize, transactional: Option<Transactional>) -> Result<Arc<dyn Producer>> {
        self.blocking(move |config| {
            let client = producer_settings(&config, batch, transactional.as_ref())?;
            Ok(Arc::new(LibrdkafkaProducer::new(&config, &client, transactional)?) as Arc<dyn Producer>)
        })
        .await
    }

    /// How many partitions a topic has; none when it does not exist.
    async fn find(&self, topic: &str) -> Result<Option<usize>> {
        self.ask(topic, |question| {
            let reader = question.reader(&[])?;
            let topic = question.topic.as_str();
            let action = format!("look up topic {topic}");
            let found = question.ask(&reader, &action, |reader| reader.fetch_metadata(Some(topic), SLICE))?;
            let Some(found) = found.topics().first() else { return Ok(None) };
            match found.error().map(Code::from) {
                None => Ok(Some(found.partitions().len())),
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
                Some(code) => Err(refused(&question.system, &action, code, "")),
            }
        })
        .await
    }
}

impl Librdkafka {
    /// rdkafka's administrator does not serve what librdkafka asks of it, so it would wait for a token for ever.
    fn has_admin(&self) -> bool {
        self.config.sasl.as_ref().is_none_or(|sasl| sasl.provider().is_none())
    }

    /// An administrator. Its end waits for a thread.
    async fn admin(&self) -> Result<AdminClient<Context>> {
        let make = |config: Arc<Config>| {
            let admin = config.client()?.create_with_context(config.context());
            admin.map_err(|error| config.not_made(error))
        };
        self.blocking(make).await
    }

    /// As [`Librdkafka::find`] of a topic that should be there.
    async fn find_late(&self, topic: &str) -> Result<Option<usize>> {
        for pause in LATE {
            let found = self.find(topic).await?;
            if found.is_some() {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.find(topic).await
    }
}

/// The bound on a producer's queue: at least two of the largest records have to fit, or there would never be room for one.
fn queue_kbytes(settings: &BTreeMap<String, String>) -> u64 {
    let largest = settings.get("message.max.bytes").and_then(|bytes| bytes.parse::<u64>().ok());
    QUEUE_KBYTES.max(largest.unwrap_or(0).div_ceil(1024).saturating_mul(2))
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[async_trait]
impl Cluster for Librdkafka {
    fn name(&self) -> String {
        self.config.name()
    }

    async fn transactional(&self, id: &str, batch: usize) -> Result<Arc<dyn Producer>> {
        let timeout = self.config.transaction_timeout();
        self.producer(batch, Some(Transactional { id: id.into(), timeout })).await
    }

    async fn plain(&self, batch: usize) -> Result<Arc<dyn Producer>> {
        self.producer(batch, None).await
    }

    async fn partitions(&self, topic: &str) -> Result<usize> {
        let missing = || {
            ConnectorError::Config(format!(
                "{}: topic {topic:?} does not exist, or the user of this job may not DESCRIBE it. Topics are not created by \
                 writing to them: create it with as many partitions as it needs",
                self.name()
            ))
        };
        self.find_late(topic).await?.ok_or_else(missing)
    }

    async fn largest_records(&self, topics: &[&str]) -> Result<BTreeMap<String, usize>> {
        limits::largest_records(self, topics).await
    }

    async fn create_compacted(&self, topic: &str) -> Result<()> {
        if self.find(topic).await?.is_some() {
            return Ok(());
        }
        let action = format!("create topic {topic}");
        let by_hand = format!(
            "Create it by hand: kafka-topics --create --topic {topic} --partitions 1 --config cleanup.policy=compact"
        );
        if !self.has_admin() {
            if self.find_late(topic).await?.is_some() {
                return Ok(());
            }
            return Err(ConnectorError::Config(format!(
                "{}: there is no topic {topic}, and with OAUTHBEARER it is not created from here. {by_hand}",
                self.name()
            )));
        }
        let admin = self.admin().await?;
        let options =
            AdminOptions::new().operation_timeout(Some(CREATE_PATIENCE)).request_timeout(Some(CREATE_PATIENCE));
        // -1: as many replicas as the brokers give by default.
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
        let created = admin.create_topics([&new], &options).await;
        drop(tokio::task::spawn_blocking(move || drop(admin)));
        let created = created.map_err(|error| refused::refused_by(&self.name(), &action, &error))?;
        match created.into_iter().next() {
            // Somebody else has just created it.
            Some(Err((_, Code::TopicAlreadyExists))) | Some(Ok(_)) => self.wait_for(topic).await,
            // It may be that this user must not create topics, and that a broker which was just started did not know of this one.
            Some(Err((_, code))) => match self.find_late(topic).await? {
                Some(_) => Ok(()),
                None => Err(refused(&self.name(), &action, code, &by_hand)),
            },
            None => Err(refused(&self.name(), &action, Code::Fail, &by_hand)),
        }
    }

    async fn last_committed(&self, topic: &str) -> Result<Option<Vec<u8>>> {
        self.ask(topic, newest::last_committed).await
    }
}

impl Librdkafka {
    /// A topic that was just created takes a moment to be known to all brokers.
    async fn wait_for(&self, topic: &str) -> Result<()> {
        for _ in 0..100 {
            if self.find(topic).await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.partitions(topic).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{mocking::MockCluster, types::RDKafkaRespErr};

    use super::*;

    fn settings(set: &[(&str, &str)], transactional: Option<&Transactional>) -> ClientConfig {
        let settings = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = Config { brokers: "127.0.0.1:1".into(), settings, ..Config::default() };
        producer_settings(&config, config.batch_bytes(Some(20_000)), transactional).unwrap()
    }

    /// A broker that was just started. Without this a job that starts just after it would end, and for good.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_topic_that_is_not_known_yet_is_asked_for_again() {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("late", 3, 1).unwrap();
        brokers.topic_error("late", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        let config = Config { brokers: brokers.bootstrap_servers(), ..Config::default() };
        let asking = async {
            let cluster = Librdkafka::new(config);
            (cluster.partitions("late").await, cluster.partitions("late").await)
        };
        let meanwhile = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            brokers.topic_error("late", RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
        };
        let ((late, known), ()) = tokio::join!(asking, meanwhile);
        assert_eq!((late.unwrap(), known.unwrap()), (3, 3));
        brokers.topic_error("late", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        let config = Config { brokers: brokers.bootstrap_servers(), ..Config::default() };
        let missing = Librdkafka::new(config).partitions("late").await.unwrap_err();
        assert!(matches!(missing, ConnectorError::Config(_)), "{missing}");
    }

    #[test]
    fn producers_are_idempotent_and_place_keys_as_java_does() {
        let config = settings(&[], None);
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        assert_eq!(config.get("partitioner"), Some("murmur2_random"));
        assert_eq!(config.get("queue.buffering.max.kbytes"), Some("65536"));
        assert_eq!(config.get("message.timeout.ms"), Some("300000"));
        assert_eq!(config.get("message.max.bytes"), Some("1048527"), "with what is around it 1048588");
        assert_eq!(config.get("transactional.id"), None);
    }

    #[test]
    fn batches_are_no_larger_than_topics_take_or_the_user_wants() {
        let batch = |set: &[(&str, &str)]| settings(set, None).get("batch.size").map(str::to_owned);
        assert_eq!(batch(&[]).as_deref(), Some("20000"));
        for (set, expected) in [("7000", "7000"), ("1000000", "20000"), ("large", "large")] {
            assert_eq!(batch(&[("batch.size", set)]).as_deref(), Some(expected));
        }
        let config = Config::default();
        let all = [None, Some(5_000_000), Some(500), Some(0)].map(|largest| config.batch_bytes(largest));
        assert_eq!(all, [1_000_000, 1_000_000, 500, 1]);
    }

    #[test]
    fn what_the_user_sets_stays_also_under_its_other_name() {
        let set = [("delivery.timeout.ms", "7"), ("compression.codec", "zstd"), ("message.max.bytes", "100000000")];
        let config = settings(&set, None);
        assert_eq!((config.get("message.timeout.ms"), config.get("compression.type")), (None, None));
        assert_eq!(config.get("queue.buffering.max.kbytes"), Some("195314"));
    }

    #[test]
    fn a_record_waits_less_than_its_transaction_may() {
        let transactional = Transactional { id: "windrow.fraud.0".into(), timeout: Duration::from_secs(60) };
        let config = settings(&[("enable.idempotence", "false")], Some(&transactional));
        assert_eq!(config.get("enable.idempotence"), Some("true"));
        assert_eq!(config.get("transactional.id"), Some("windrow.fraud.0"));
        assert_eq!(config.get("transaction.timeout.ms"), Some("60000"));
        assert_eq!(config.get("message.timeout.ms"), Some("48000"));
    }
}
