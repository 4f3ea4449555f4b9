//! Writes the records of letters, in transactions that hold how far the group has come; and says what went wrong with one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, KafkaResult},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode as Code,
};

use super::{
    super::{
        super::{
            codes::is_passing,
            context::Context,
            re_drive::{Original, ReDrive},
        },
        SLICE,
        newest::Reader,
        producer::Transactional,
        producer_settings,
        refused::{is_fenced, refused, refused_by, unanswered},
    },
    PATIENCE,
};
use crate::{ConnectorError, Result};

/// How long a transaction may be open: a batch takes seconds, and longer than [`PATIENCE`] where a broker fails meanwhile.
const TIMEOUT: Duration = Duration::from_secs(300);

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    /// One that failed makes the commit of its transaction fail, which says why.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Writes in transactions.
pub(super) struct Sender {
    producer: ThreadedProducer<Context>,
    system: String,
    open: bool,
    /// What the open transaction writes to.
    topics: BTreeSet<String>,
}

impl Sender {
    /// Takes over from any other re-drive of the group.
    pub(super) fn new(what: &ReDrive) -> Result<Self> {
        let transactional = Transactional { id: what.group.clone(), timeout: TIMEOUT };
        let batch = what.config.batch_bytes(None);
        let settings = producer_settings(&what.config, batch, Some(&transactional))?;
        let producer = settings.create_with_context(what.config.context());
        let producer = producer.map_err(|error| what.config.not_made(error))?;
        let system = format!("{}, transactional id {}", what.config.name(), what.group);
        let sender = Self { producer, system, open: false, topics: BTreeSet::new() };
        sender.persistently("take over its transactions", |producer| producer.init_transactions(SLICE))?;
        Ok(sender)
    }

    pub(super) fn send(&mut self, record: &Original<'_>) -> Result<()> {
        if !self.open {
            self.begin()?;
        }
        if !self.topics.contains(record.topic) {
            self.topics.insert(record.topic.into());
        }
        let headers = record.headers.iter();
        let headers =
            headers.fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: *value }));
        let mut next = BaseRecord::<[u8], [u8]>::to(record.topic).headers(headers);
        (next.key, next.payload, next.partition, next.timestamp) =
            (record.key, record.value, record.partition, record.timestamp);
        let began = Instant::now();
        loop {
            match self.producer.send(next) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), again)) if began.elapsed() < PATIENCE => {
                    next = again;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(self.failed(&format!("write to topic {}", record.topic), &error)),
            }
        }
    }

    /// Throws away what was not committed.
    pub(super) fn abort(&self) {
        if self.open {
            // If it cannot be, the cluster does it when the transaction is too old, or the next re-drive begins.
            let _ = self.producer.abort_transaction(SLICE);
        }
    }

    fn begin(&mut self) -> Result<()> {
        self.producer.begin_transaction().map_err(|error| self.failed("begin a transaction", &error))?;
        self.open = true;
        self.topics.clear();
        Ok(())
    }

    pub(super) fn commit(&mut self, what: &ReDrive, reader: &Reader, next: &BTreeMap<i32, i64>) -> Result<()> {
        if !self.open {
            self.begin()?;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            let added = offsets.add_partition_offset(&what.topic, *partition, Offset::Offset(*offset));
            added.map_err(|error| self.failed("note how far it has come", &error))?;
        }
        let group = reader.group_metadata().ok_or_else(|| {
            ConnectorError::Config(format!("{}: librdkafka does not know the group {}", self.system, what.group))
        })?;
        self.persistently("note how far it has come", |producer| {
            producer.send_offsets_to_transaction(&offsets, &group, SLICE)
        })?;
        self.persistently("commit the letters", |producer| producer.commit_transaction(SLICE))?;
        self.open = false;
        Ok(())
    }

    /// Asks again as long as librdkafka says that it may work later.
    fn persistently(&self, action: &str, call: impl Fn(&ThreadedProducer<Context>) -> KafkaResult<()>) -> Result<()> {
        let began = Instant::now();
        loop {
            let Err(error) = call(&self.producer) else { return Ok(()) };
            let may_pass = match &error {
                KafkaError::Transaction(error) => error.is_retriable() || error.code() == Code::OperationTimedOut,
                _ => false,
            };
            let is_refused = self.producer.client().context().refused().is_some();
            if !may_pass || is_refused || began.elapsed() > PATIENCE {
                return Err(self.failed(action, &error));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What really happened: a client that has met a fatal error says from then on only that it has.
    fn failed(&self, action: &str, error: &KafkaError) -> ConnectorError {
        let known = self.producer.client().fatal_error().or_else(|| self.cause());
        let code = known.as_ref().map(|(code, _)| *code).or(error.rdkafka_error_code()).unwrap_or(Code::Fail);
        match (self.producer.client().context().last(), known) {
            _ if is_fenced(code) => {
                let reason = format!(
                    "cannot {action}: another re-drive of this group has taken over, or this one took longer than its transaction \
                     may ({TIMEOUT:?}): run it again"
                );
                ConnectorError::Remote { system: self.system.clone(), reason, passes: false }
            }
            // With nothing to write it is about the topic of letters.
            _ if code == Code::TopicAuthorizationFailed && !self.topics.is_empty() => {
                forbidden(&self.system, &self.topics)
            }
            // Who waited in vain says only that.
            (Some(heard), _) if is_passing(code) || heard.refused => unanswered(&self.system, action, &heard),
            (_, Some((code, reason))) => refused(&self.system, action, code, &reason),
            (_, None) => refused_by(&self.system, action, error),
        }
    }

    /// Why the open transaction can only be thrown away, if so. That is told to whoever asks for something that cannot be done with it,
    /// and of all such calls beginning another one asks no broker and changes nothing. To a good one it says that its state is not right.
    fn cause(&self) -> Option<(Code, String)> {
        if !self.open {
            return None;
        }
        match self.producer.begin_transaction() {
            Err(KafkaError::Transaction(error)) if error.code() != Code::State => Some((error.code(), error.string())),
            _ => None,
        }
    }
}

/// A right that is missing can be given: the letters wait for it, or go elsewhere.
pub(super) fn forbidden(system: &str, topics: &BTreeSet<String>) -> ConnectorError {
    let topics = topics.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let reason = format!(
        "cannot write to topic {topics}: this user needs the right to WRITE to each topic that letters go to. The letters stay: run it \
         again when it has that right, or say another topic for all letters, with --to TOPIC (ReDrive::to)"
    );
    ConnectorError::Remote { system: system.into(), reason, passes: false }
}
