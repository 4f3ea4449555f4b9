//! A producer of librdkafka: sends, waits, and asks for what takes long on threads that may wait.
//!
//! Calls that may take long are asked for in slices of some seconds and then asked for again, which librdkafka allows
//! (it goes on where it was). So a process that is told to stop does not wait for a broker that does not answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, KafkaResult},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};

use super::{
    super::{
        cluster::{Delivered, Outgoing, Producer},
        connection::{Config, RECORD_BYTES},
        context::Complaint,
    },
    SLICE,
    refused::{is_fenced, refused, refused_by, too_large, unanswered},
    reports::{Reports, Undelivered, header_bytes},
};
use crate::{ConnectorError, Result};

/// How long to wait before a call is made again.
const PAUSE: Duration = Duration::from_millis(50);

/// So often, and for so long, taking over is asked for at first: a client that is not connected yet looks for its coordinator again
/// half a second later, or when it is asked.
const PROMPTLY: (u32, Duration) = (25, Duration::from_millis(20));

/// How long a cluster may be unreachable before a producer gives up taking over, and the job with it.
const INIT_PATIENCE: Duration = Duration::from_secs(120);

type Inner = ThreadedProducer<Reports>;

/// How a producer writes in transactions.
#[derive(Clone, Debug)]
pub(super) struct Transactional {
    pub(super) id: String,
    pub(super) timeout: Duration,
}

pub(super) struct LibrdkafkaProducer {
    /// Only empty while it is dropped.
    inner: Option<Arc<Inner>>,
    /// For messages: `kafka localhost:9092`.
    system: String,
    transactional: Option<Transactional>,
    /// How many bytes of values the queue takes.
    queue_bytes: usize,
    /// How many bytes of records a batch has at most, unless a single one has more.
    batch_bytes: usize,
    /// When the transaction began.
    begun: Mutex<Option<Instant>>,
}

impl LibrdkafkaProducer {
    /// Begins to connect, in the background. Makes threads and reads certificates, so not on a worker of the runtime.
    pub(super) fn new(config: &Config, client: &ClientConfig, transactional: Option<Transactional>) -> Result<Self> {
        let inner = client.create_with_context(Reports::new(config.context()));
        let inner: Inner = inner.map_err(|error| config.not_made(error))?;
        let number = |name| client.get(name).and_then(|number| number.trim().parse::<usize>().ok());
        let queue_bytes = number("queue.buffering.max.kbytes").map_or(usize::MAX, |kbytes| kbytes.saturating_mul(1024));
        let batch_bytes = number("batch.size").unwrap_or(usize::MAX);
        let (inner, system) = (Some(Arc::new(inner)), config.name());
        Ok(Self { inner, system, transactional, queue_bytes, batch_bytes, begun: Mutex::default() })
    }

    fn inner(&self) -> Result<&Arc<Inner>> {
        let gone = || ConnectorError::Config("the producer is gone".into());
        self.inner.as_ref().ok_or_else(gone)
    }

    /// Asks for something that takes long, on a thread that may wait.
    async fn blocking<F>(&self, call: F) -> Result<KafkaResult<()>>
    where
        F: FnOnce(&Inner) -> KafkaResult<()> + Send + 'static,
    {
        let inner = self.inner()?.clone();
        let done = tokio::task::spawn_blocking(move || call(&inner)).await;
        done.map_err(|error| ConnectorError::Remote {
            system: self.system.clone(),
            reason: format!("a call to librdkafka was stopped: {error}"),
            passes: true,
        })
    }

    /// Asks again as long as librdkafka says that it may work later, and `patience` lasts.
    async fn persistently(&self, action: &str, patience: Duration, call: fn(&Inner) -> KafkaResult<()>) -> Result<()> {
        let begun = Instant::now();
        loop {
            let Err(error) = self.blocking(call).await? else {
                self.inner()?.client().context().context.forget();
                return Ok(());
            };
            let may_pass = match &error {
                KafkaError::Transaction(error) => error.is_retriable() || error.code() == Code::OperationTimedOut,
                KafkaError::Flush(code) => *code == Code::OperationTimedOut,
                _ => false,
            };
            if let Some(complaint) = self.heard().filter(|complaint| may_pass && complaint.refused) {
                return Err(unanswered(&self.called(), action, &complaint));
            }
            let failure = self.inner()?.client().context().failure();
            if let Some(failure) = failure.filter(|failure| may_pass && failure.is_brokerless()) {
                return Err(self.undelivered(&failure));
            }
            if !may_pass || begun.elapsed() >= patience {
                return Err(self.transaction_failed(action, &error));
            }
            // Some answers come at once, as while a coordinator moves.
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn heard(&self) -> Option<Complaint> {
        self.inner.as_ref().and_then(|inner| inner.client().context().context.last())
    }

    /// What really happened: a client that has met a fatal error says from then on only that it has, and one without an answer
    /// says only that it waited.
    fn transaction_failed(&self, action: &str, error: &KafkaError) -> ConnectorError {
        let fatal = self.inner.as_ref().and_then(|inner| inner.client().fatal_error());
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        let system = self.called();
        match (fatal, self.heard()) {
            (Some((code, reason)), _) => self.fatal(action, code, &reason),
            (None, Some(heard)) if code == Code::OperationTimedOut => unanswered(&system, action, &heard),
            _ if is_fenced(code) => self.fatal(action, code, ""),
            _ => refused_by(&system, action, error),
        }
    }

    /// A producer is fenced when another start of the job has taken over, and also when its transaction became too old.
    fn fatal(&self, action: &str, code: Code, reason: &str) -> ConnectorError {
        let (system, open) = (self.called(), self.open_for());
        let timeout = self.transactional.as_ref().map_or(Duration::MAX, |transactional| transactional.timeout);
        if is_fenced(code) && open >= timeout.mul_f32(0.9) {
            let reason = format!(
                "cannot {action}: the transaction has been open for {open:.0?} and the cluster threw it away after {timeout:.0?}. \
                 Take checkpoints more often, or raise Kafka::transaction_timeout"
            );
            return ConnectorError::Remote { system, reason, passes: true };
        }
        if is_fenced(code) {
            let reason = format!(
                "cannot {action}: fenced ({code}): another start of the job has taken over its transactional ids, or a former one \
                 whose last request came late"
            );
            // Which of the two it was the checkpoint store knows: the engine asks it before it starts the job again.
            return ConnectorError::Remote { system, reason, passes: true };
        }
        refused(&system, action, code, reason)
    }

    fn open_for(&self) -> Duration {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    fn begun(&self, now: Option<Instant>) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn called(&self) -> String {
        match &self.transactional {
            Some(Transactional { id, .. }) => format!("{}, transactional id {id}", self.system),
            None => self.system.clone(),
        }
    }

    fn undelivered(&self, record: &Undelivered) -> ConnectorError {
        let Undelivered { code, topic, bytes, in_batch, reason, .. } = record;
        if record.is_brokerless() {
            let reason =
                "the cluster has named no brokers, and librdkafka asks nobody any more: another start connects anew";
            return ConnectorError::Remote { system: self.called(), reason: reason.into(), passes: true };
        }
        let fatal = self.inner.as_ref().and_then(|inner| inner.client().fatal_error());
        let action = match reason {
            // What made the transaction fail need not have to do with this record.
            Some(_) => {
                format!("write the records of a transaction (the first that was not written is for topic {topic})")
            }
            None => format!("write a record of {bytes} bytes to {}", record.place()),
        };
        match fatal {
            Some((code, reason)) => self.fatal(&action, code, &reason),
            None if is_fenced(*code) => self.fatal(&action, *code, ""),
            // It was alone in its batch. What is refused with others fits into the batches of the next start, which asks again what the
            // topic takes, or is alone then.
            None if *code == Code::MessageSizeTooLarge && reason.is_none() && *in_batch > self.batch_bytes => {
                too_large(&self.called(), &action)
            }
            None => match self.heard() {
                Some(heard) if *code == Code::MessageTimedOut => refused(&self.called(), &action, *code, &heard.reason),
                _ => refused(&self.called(), &action, *code, reason.as_deref().unwrap_or_default()),
            },
        }
    }

    /// Finds out why a transaction has failed whose records were taken out of the queue.
    ///
    /// `fatal_error` has only what ends the whole producer (which comes first in [`undelivered`](Self::undelivered)), and librdkafka's
    /// log has words without a code. The reason of a transaction that can only be thrown away is told to whoever asks for something
    /// that cannot be done with it. Of all such calls beginning another one asks no broker and changes nothing. When the failed one
    /// has just been thrown away it does begin one, which stays empty, so no broker hears of it: a producer with a failure is
    /// not used again.
    async fn explained(&self, failure: Undelivered) -> Undelivered {
        if !failure.is_unexplained() {
            return failure;
        }
        let asked = self.blocking(|inner| inner.begin_transaction()).await;
        // The report of the record that is to blame may have come meanwhile.
        let reported = self.inner().ok().and_then(|inner| inner.client().context().failure());
        if let Some(reported) = reported.filter(|failure| !failure.is_unexplained()) {
            return reported;
        }
        let (code, reason) = match asked {
            Ok(Err(KafkaError::Transaction(error))) => (error.code(), error.string()),
            _ => (failure.code, String::new()),
        };
        if let Ok(inner) = self.inner() {
            inner.client().context().explain(code, reason.clone());
        }
        Undelivered { code, reason: Some(reason), ..failure }
    }

    fn not_taken(&self, record: &Outgoing<'_>, error: &KafkaError) -> ConnectorError {
        let too_large = |why: String| ConnectorError::Data {
            at: format!("{}, topic {}", self.system, record.topic),
            reason: format!("a record of {} bytes is larger than {why}", bytes(record)),
        };
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) => {
                too_large("this client sends: raise its message.max.bytes, and max.message.bytes of the topic".into())
            }
            Some(Code::QueueFull) => {
                let queue = self.queue_bytes / 1024;
                too_large(format!(
                    "the queue of this client, which is {queue} KiB: raise its queue.buffering.max.kbytes"
                ))
            }
            Some(code) => self.undelivered(&unsent(record, code)),
            None => refused_by(&self.called(), &format!("write to topic {}", record.topic), error),
        }
    }
}

#[async_trait]
impl Producer for LibrdkafkaProducer {
    async fn init_transactions(&self) -> Result<()> {
        let call = |inner: &Inner| {
            let (times, short) = PROMPTLY;
            for _ in 0..times {
                match inner.init_transactions(short) {
                    // Nobody has answered yet.
                    Err(KafkaError::Transaction(error)) if error.code() == Code::OperationTimedOut => {}
                    // Somebody has, that it is too early: to ask at once again is of no use.
                    Err(KafkaError::Transaction(error)) if error.is_retriable() => break,
                    done => return done,
                }
            }
            inner.init_transactions(SLICE)
        };
        self.persistently("take over the transactions", INIT_PATIENCE, call).await
    }

    async fn begin(&self) -> Result<()> {
        self.inner()?.client().context().forget_delivered();
        self.begun(Some(Instant::now()));
        let begun = self.blocking(|inner| inner.begin_transaction()).await?;
        begun.map_err(|error| self.transaction_failed("begin a transaction", &error))
    }

    fn send(&self, record: &Outgoing<'_>) -> Result<bool> {
        let inner = self.inner()?;
        let reports = inner.client().context();
        let flush = match reports.sending() {
            Ok(flush) => flush,
            // There is no room for anything any more: who waits for it finds out why.
            Err(failure) if failure.is_unexplained() => return Ok(false),
            Err(failure) => return Err(self.undelivered(&failure)),
        };
        let headers = (!record.headers.is_empty()).then(|| {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            record.headers.iter().fold(headers, |headers, (key, value)| headers.insert(Header { key, value: *value }))
        });
        let sent = inner.send(BaseRecord::<[u8], [u8], usize> {
            topic: record.topic,
            partition: record.partition,
            payload: record.value,
            key: record.key,
            // librdkafka takes 0 for "now": the first millisecond of 1970 is written as the second.
            timestamp: record.timestamp.map(|at| at.max(1)),
            headers,
            delivery_opaque: flush,
        });
        let Err((error, _)) = sent else { return Ok(true) };
        reports.not_sent(flush);
        match error.rdkafka_error_code() {
            // Room for more than there is in all would be waited for for ever. librdkafka counts values only.
            Some(Code::QueueFull) if record.value.map_or(0, <[u8]>::len) <= self.queue_bytes => Ok(false),
            Some(code) if unsent(record, code).is_unexplained() => {
                reports.fail(unsent(record, code));
                Ok(false)
            }
            _ => Err(self.not_taken(record, &error)),
        }
    }

    async fn room(&self) {
        let Ok(inner) = self.inner() else { return };
        let reports = inner.client().context();
        match reports.failure() {
            Some(failure) => drop(self.explained(failure).await),
            None => reports.room().await,
        }
    }

    async fn flush(&self) -> Result<()> {
        let Err(failure) = self.inner()?.client().context().flush().await else { return Ok(()) };
        Err(self.undelivered(&self.explained(failure).await))
    }

    fn delivered(&self) -> Delivered {
        self.inner().map_or_else(|_| Delivered::new(), |inner| inner.client().context().delivered())
    }

    async fn commit(&self) -> Result<()> {
        self.flush().await?;
        // Beyond the age at which the cluster throws it away there is nothing to wait for.
        let patience = self.transactional.as_ref().map_or(SLICE, |transactional| transactional.timeout + SLICE);
        self.persistently("commit", patience, |inner| {
            wait_for_reports(inner);
            inner.commit_transaction(SLICE)
        })
        .await?;
        self.begun(None);
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        self.persistently("abort", INIT_PATIENCE, |inner| inner.abort_transaction(SLICE)).await?;
        self.begun(None);
        Ok(())
    }
}

/// A record that was not even taken.
fn unsent(record: &Outgoing<'_>, code: Code) -> Undelivered {
    let (topic, partition, bytes) = (record.topic.to_owned(), record.partition.unwrap_or(-1), bytes(record));
    let headers: usize = record.headers.iter().map(|(name, value)| header_bytes(name, *value)).sum();
    Undelivered { code, topic, partition, bytes, in_batch: bytes + headers + RECORD_BYTES, reason: None }
}

fn bytes(record: &Outgoing<'_>) -> usize {
    record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len)
}

/// The last report is handed on a moment before librdkafka counts its record as done, and rdkafka, before it commits, waits for a
/// tenth of a second if one is not.
fn wait_for_reports(inner: &Inner) {
    let begun = Instant::now();
    while inner.in_flight_count() > 0 && begun.elapsed() < Duration::from_millis(50) {
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl Drop for LibrdkafkaProducer {
    /// Waits for threads of librdkafka, which a worker of the runtime must not do.
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let dropping = std::thread::Builder::new().name("kafka producer: end".into());
        // Without a thread the closure comes to its end here, and with it the producer.
        let _ = dropping.spawn(move || drop(inner));
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        mocking::MockCluster,
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };

    use super::{super::producer_settings, *};

    /// A producer whose queue has room for 1 KiB and that never gets rid of it.
    fn stuck() -> LibrdkafkaProducer {
        let settings = [("queue.buffering.max.kbytes".to_owned(), "1".to_owned())].into();
        let config = Config { brokers: "127.0.0.1:1".into(), settings, ..Config::default() };
        LibrdkafkaProducer::new(&config, &producer_settings(&config, 1_000_000, None).unwrap(), None).unwrap()
    }

    /// A coordinator that is still loading says so at once: it must not be asked again and again meanwhile.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_coordinator_that_is_loading_is_asked_twice_a_second() {
        let brokers = MockCluster::new(1).unwrap();
        let loading = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 5];
        brokers.request_errors(RDKafkaApiKey::InitProducerId, &loading);
        let config = Config { brokers: brokers.bootstrap_servers(), ..Config::default() };
        let transactional = Transactional { id: "windrow.fraud.0".into(), timeout: Duration::from_secs(60) };
        let settings = producer_settings(&config, 1_000_000, Some(&transactional)).unwrap();
        let producer = LibrdkafkaProducer::new(&config, &settings, Some(transactional)).unwrap();
        let begun = Instant::now();
        producer.init_transactions().await.unwrap();
        let waited = begun.elapsed();
        assert!((Duration::from_millis(1_400)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
    }

    /// The report says which record it was. One that was alone in its batch is too large at the next start too.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_batch_that_is_refused_is_smaller_at_the_next_start_unless_it_was_one_record() {
        for (records, passes) in
            [(vec![150, 150, 150], true), (vec![960], true), (vec![970], false), (vec![5_000], false)]
        {
            let brokers = MockCluster::new(1).unwrap();
            brokers.create_topic("t", 1, 1).unwrap();
            brokers.request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 9]);
            let config = Config { brokers: brokers.bootstrap_servers(), ..Config::default() };
            let settings = producer_settings(&config, 1_000, None).unwrap();
            let producer = LibrdkafkaProducer::new(&config, &settings, None).unwrap();
            for bytes in &records {
                assert!(producer.send(&record(&vec![0; *bytes])).unwrap());
            }
            let refused = producer.flush().await.unwrap_err();
            assert!(matches!(refused, ConnectorError::Remote { passes: which, .. } if which == passes), "{refused}");
            let said = format!("cannot write a record of {} bytes to topic t, partition 0: ", records[0] + 3);
            assert!(refused.to_string().contains(&said), "{refused}");
            assert!(refused.to_string().contains("max.message.bytes"), "{refused}");
        }
    }

    fn record(value: &[u8]) -> Outgoing<'_> {
        Outgoing { topic: "t", partition: None, key: Some(b"key"), value: Some(value), headers: &[], timestamp: None }
    }

    #[test]
    fn what_never_fits_is_an_error_and_what_will_fit_waits() {
        let producer = stuck();
        for value in [vec![0; 1025], vec![0; 2_000_000]] {
            let refused = producer.send(&record(&value)).unwrap_err();
            assert!(matches!(refused, ConnectorError::Data { .. }));
            let limit = match value.len() {
                1025 => "the queue of this client, which is 1 KiB: raise its queue.buffering.max.kbytes",
                _ => "this client sends: raise its message.max.bytes, and max.message.bytes of the topic",
            };
            let bytes = value.len() + 3;
            let expected = format!("kafka 127.0.0.1:1, topic t: a record of {bytes} bytes is larger than {limit}");
            assert_eq!(refused.to_string(), expected);
        }
        assert!(producer.send(&record(&[0; 1024])).unwrap());
        assert!(!producer.send(&record(&[0; 1024])).unwrap(), "there is room when the first is written");
    }
}
