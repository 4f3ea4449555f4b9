//! Topics, and records put into them, by a plain client that is not the engine's.
//!
//! Every call waits for what it asks for: a topic that has been created has leaders, one that has been deleted is gone.
//! Calls block, and may be made inside of a runtime too.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    config::ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

use super::{
    Broker, Result,
    node::{has_leaders, metadata},
};

const TOO_LONG: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A record to be produced. `Message::of("value").key("k").header("h", "v").partition(0).time(1_700_000_000_000)`.
#[derive(Clone, Debug, Default)]
pub struct Message {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    partition: Option<i32>,
    time: Option<i64>,
}

impl Message {
    /// A record with this value.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record without a value: a tombstone.
    pub fn null() -> Self {
        Self::default()
    }

    /// Sets the key, which chooses the partition unless that is set.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header without a value.
    #[must_use]
    pub fn null_header(mut self, name: &str) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since 1970.
    #[must_use]
    pub fn time(mut self, millis: i64) -> Self {
        self.time = Some(millis);
        self
    }

    fn record<'a>(&'a self, topic: &'a str) -> BaseRecord<'a, [u8], [u8]> {
        let mut record = BaseRecord::to(topic);
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record.partition = self.partition;
        record.timestamp = self.time;
        if !self.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(self.headers.len());
            let add = |headers: OwnedHeaders, (name, value): &(String, Option<Vec<u8>>)| {
                headers.insert(Header { key: name, value: value.as_ref() })
            };
            record.headers = Some(self.headers.iter().fold(headers, add));
        }
        record
    }
}

impl Broker {
    /// Creates a topic whose name begins with `name` and is nobody else's, and returns its name.
    ///
    /// # Errors
    ///
    /// As [`Broker::create_topic`].
    pub fn new_topic(&self, name: &str, partitions: usize) -> Result<String> {
        let name = format!("{name}-{:08x}", fastrand::u32(..));
        self.create_topic(&name, partitions, &[])?;
        Ok(name)
    }

    /// Creates a topic with settings such as `("retention.ms", "1000")`.
    ///
    /// # Errors
    ///
    /// When the broker refuses, or does not do it in time.
    pub fn create_topic(&self, name: &str, partitions: usize, settings: &[(&str, &str)]) -> Result<()> {
        let topic = NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
        let results = wait(self.admin()?.create_topics([&topic], &patience()))??;
        done(results)?;
        self.until_partitions(name, partitions)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    ///
    /// When the broker refuses, or does not do it in time.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        done(wait(self.admin()?.delete_topics(&[name], &patience()))??)?;
        self.until(&format!("deleting {name}"), || {
            let all = metadata(self.address(), None)?;
            Ok(all.topics().iter().all(|topic| topic.name() != name))
        })
    }

    /// Gives a topic more partitions: `count` in all.
    ///
    /// # Errors
    ///
    /// When the broker refuses, or does not do it in time.
    pub fn create_partitions(&self, name: &str, count: usize) -> Result<()> {
        done(wait(self.admin()?.create_partitions([&NewPartitions::new(name, count)], &patience()))??)?;
        self.until_partitions(name, count)
    }

    /// Gives a topic this setting, and takes all others away from it.
    ///
    /// # Errors
    ///
    /// When the broker refuses, or does not do it in time.
    pub fn set_topic(&self, name: &str, setting: &str, value: &str) -> Result<()> {
        let alter = AlterConfig::new(ResourceSpecifier::Topic(name)).set(setting, value);
        for altered in wait(self.admin()?.alter_configs([&alter], &patience()))?? {
            altered.map_err(|(_, code)| format!("{setting} of {name}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes the records of a partition before `offset`, as retention would.
    ///
    /// # Errors
    ///
    /// When the broker refuses, or does not do it in time.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
        let done = wait(self.admin()?.delete_records(&list, &patience()))??;
        done.elements().iter().try_for_each(|element| element.error())?;
        Ok(())
    }

    /// Produces records, in order per partition, and waits until the broker has them all.
    ///
    /// # Errors
    ///
    /// When the broker refuses one, or does not take them in time.
    pub fn produce(&self, topic: &str, messages: impl IntoIterator<Item = Message>) -> Result<()> {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("linger.ms", "1").set("message.max.bytes", "100000000");
        // Else it waits half a minute for a topic that is not there.
        config.set("topic.metadata.propagation.max.ms", "2000");
        let producer: BaseProducer<Failures> = config.create_with_context(Failures::default())?;
        for message in messages {
            send(&producer, topic, &message)?;
        }
        producer.flush(TOO_LONG)?;
        producer.context().check()
    }

    /// Produces records, one at a time, through the proxy, by a producer that does not number them: one whose reply is lost is sent
    /// again and is there twice, one behind the other.
    ///
    /// # Errors
    ///
    /// As [`Broker::produce`], and when there is no proxy.
    pub fn produce_repeating(&self, topic: &str, messages: impl IntoIterator<Item = Message>) -> Result<()> {
        let mut config = self.config();
        config.set("bootstrap.servers", self.proxy()?.address()).set("enable.idempotence", "false");
        config.set("max.in.flight", "1").set("batch.num.messages", "1").set("linger.ms", "0");
        // A lost reply is a lost connection; else each is waited for longer than the one before, up to ten seconds.
        config.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "100");
        let producer: BaseProducer<Failures> = config.create_with_context(Failures::default())?;
        for message in messages {
            send(&producer, topic, &message)?;
        }
        producer.flush(TOO_LONG)?;
        producer.context().check()
    }

    /// Produces records in a transaction that commits, or that aborts.
    ///
    /// # Errors
    ///
    /// As [`Broker::produce`].
    pub fn transaction(&self, topic: &str, messages: impl IntoIterator<Item = Message>, commit: bool) -> Result<()> {
        let mut config = self.config();
        let id = format!("{topic}-{:08x}", fastrand::u32(..));
        let producer: BaseProducer<Failures> =
            config.set("transactional.id", id).create_with_context(Failures::default())?;
        producer.init_transactions(TOO_LONG)?;
        producer.begin_transaction()?;
        for message in messages {
            send(&producer, topic, &message)?;
        }
        producer.flush(TOO_LONG)?;
        producer.context().check()?;
        match commit {
            true => producer.commit_transaction(TOO_LONG)?,
            false => producer.abort_transaction(TOO_LONG)?,
        }
        Ok(())
    }

    /// The settings of a plain client of this broker.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // It would say to the test's error output that the broker is gone, where the test has killed it.
        config.set("bootstrap.servers", self.address()).set("log_level", "0");
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config().create()?)
    }

    fn until_partitions(&self, topic: &str, count: usize) -> Result<()> {
        self.until(&format!("waiting for {count} partitions of {topic}"), || {
            let found = metadata(self.address(), Some(topic))?;
            let partitions: usize = found.topics().iter().map(|topic| topic.partitions().len()).sum();
            Ok(has_leaders(&found) && partitions == count)
        })
    }

    /// A broker that does not answer once, on a machine that is busy, is asked again.
    fn until(&self, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let until = Instant::now() + TOO_LONG;
        loop {
            let found = is_so();
            if matches!(found, Ok(true)) {
                return Ok(());
            }
            if Instant::now() >= until {
                let why = found.err().map(|error| format!(": {error}")).unwrap_or_default();
                return Err(format!("{what} takes longer than {TOO_LONG:?}{why}").into());
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The records that the broker did not take.
#[derive(Default)]
struct Failures(Mutex<Vec<KafkaError>>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(error.clone());
        }
    }
}

impl Failures {
    fn check(&self) -> Result<()> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.first() {
            Some(first) => Err(format!("{} records were not taken; the first: {first}", failures.len()).into()),
            None => Ok(()),
        }
    }
}

fn send(producer: &BaseProducer<Failures>, topic: &str, message: &Message) -> Result<()> {
    let mut record = message.record(topic);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                producer.poll(LOOK);
                record = again;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn patience() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TOO_LONG)).request_timeout(Some(TOO_LONG))
}

fn done(results: Vec<Result<String, (String, RDKafkaErrorCode)>>) -> Result<()> {
    for result in results {
        result.map_err(|(topic, code)| format!("topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Waits for a future of the admin client on a thread of its own: the caller may be inside of a runtime already.
fn wait<T: Send>(future: impl Future<Output = T> + Send) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    std::thread::scope(|scope| scope.spawn(move || runtime.block_on(future)).join()).map_err(|_| "a panic".into())
}
