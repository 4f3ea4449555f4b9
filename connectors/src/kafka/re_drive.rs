//! Dead letters go back to where they came from: what was rejected once, by a reader that did not understand it, is read again.
//!
//! ```text
//!   payments.dead: value, key, headers + windrow.error, windrow.topic, windrow.partition …
//!        │ whole letters, up to where the topic ended at the start
//!        ▼
//!   payments/3: value, key, headers          in one transaction with how far the group has come: each letter once
//! ```
//!
//! The records and the offsets of the group are committed in the same transactions of Kafka. So a re-drive that is killed goes on where
//! it was, and one that is run again finds what is new; readers of committed records see each record once for each group. Two at a
//! time fence each other, because the group is their transactional id.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rdkafka::{
    Message, Timestamp,
    message::{BorrowedMessage, Headers},
};

use super::{
    Kafka,
    connection::Config,
    letters::{self, ERROR, TIMESTAMP, TRUNCATED},
    librdkafka,
};
use crate::Result;

/// So many letters that stay are named; the others are counted.
const NAMED: usize = 1_000;

/// What is to become of the dead letters of a topic.
///
/// Its calls block: they are for a program of its own, and not for a worker of a runtime.
///
/// ```no_run
/// use windrow_connectors::kafka::Kafka;
///
/// let letters = Kafka::brokers("localhost:9092").re_drive("payments.dead");
/// println!("{}", letters.count()?);                       // nothing is written
/// println!("{}", letters.at_most(1_000).send()?);
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReDrive {
    pub(super) config: Arc<Config>,
    pub(super) topic: String,
    pub(super) group: String,
    pub(super) to: Option<String>,
    pub(super) at_most: u64,
}

impl Kafka {
    /// The dead letters in a topic, to be sent again. [`ReDrive`] has an example.
    pub fn re_drive(&self, topic: impl Into<String>) -> ReDrive {
        let topic = topic.into();
        let group = format!("windrow.re-drive.{topic}");
        ReDrive { config: Arc::new(self.config.clone()), topic, group, to: None, at_most: u64::MAX }
    }
}

impl ReDrive {
    /// Sends them to this topic, by their keys, instead of where they came from: to the topic and partition in their headers, which
    /// whoever writes to the source can write too. Also letters that do not say it.
    #[must_use]
    pub fn to(self, topic: impl Into<String>) -> Self {
        Self { to: Some(topic.into()), ..self }
    }

    /// The consumer group that remembers how far letters were sent, `windrow.re-drive.TOPIC` unless told. Another group begins at
    /// the beginning, and sends everything again; so does one that Kafka has forgotten: see [`ReDriven::from_beginning`].
    #[must_use]
    pub fn group(self, group: impl Into<String>) -> Self {
        Self { group: group.into(), ..self }
    }

    /// Sends no more letters than this.
    #[must_use]
    pub fn at_most(self, letters: u64) -> Self {
        Self { at_most: letters, ..self }
    }

    /// What [`ReDrive::send`] would do. Nothing is written, and the group stays where it is.
    pub fn count(&self) -> Result<ReDriven> {
        librdkafka::re_drive(self, false)
    }

    /// Sends the letters that the group has not had yet, up to where the topic ends now, as the records that they were: value, key,
    /// time and headers. After an error some may have been sent, which a further call does not send again.
    ///
    /// Without [`ReDrive::to`] it first reads all letters, and sends none while there are some that do not say where they came from, or
    /// that came from a topic which this user may not see: the group would pass over them. Of a topic that may be seen, but not
    /// written to, the first letter ends it, and is not passed over either.
    pub fn send(&self) -> Result<ReDriven> {
        librdkafka::re_drive(self, true)
    }
}

/// What became of dead letters. Printing it gives lines for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReDriven {
    /// Whether they were sent; else they were only counted.
    pub sent: bool,
    /// How many, by the topic that they go to.
    pub topics: BTreeMap<String, u64>,
    /// Letters that cannot be sent: a thousand at most are named.
    pub kept: Vec<KeptLetter>,
    /// How many cannot be sent.
    pub kept_count: u64,
    /// The partitions of the dead letters in which the group has no position, so that all letters there count: it has sent none of
    /// them before, or Kafka has forgotten it, which it does after a week without a re-drive (`offsets.retention.minutes`).
    pub from_beginning: Vec<i32>,
    /// Whether there are more, which [`ReDrive::at_most`] leaves for another time.
    pub more: bool,
}

/// A letter that cannot be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptLetter {
    /// Its partition of the topic of dead letters.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Where its record came from, if it says so: `payments/3 at 1207`.
    pub origin: Option<String>,
    /// Why it stays.
    pub why: String,
}

impl ReDriven {
    /// How many letters were, or would be, sent.
    pub fn letters(&self) -> u64 {
        self.topics.values().sum()
    }

    pub(super) fn keep(&mut self, message: &BorrowedMessage<'_>, why: String) {
        self.kept_count += 1;
        if self.kept.len() < NAMED {
            let (partition, offset, origin) = (message.partition(), message.offset(), origin(message));
            self.kept.push(KeptLetter { partition, offset, origin, why });
        }
    }
}

impl fmt::Display for ReDriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.sent { "sent again" } else { "would be sent again" };
        match self.letters() {
            0 => writeln!(f, "no letter {}", if self.sent { "was sent again" } else { done })?,
            letters => writeln!(f, "{letters} {done}:")?,
        }
        for (topic, letters) in &self.topics {
            writeln!(f, "  {letters} to {topic}")?;
        }
        if self.kept_count > 0 {
            writeln!(f, "{} cannot be sent again, and stay:", self.kept_count)?;
        }
        for KeptLetter { partition, offset, origin, why } in &self.kept {
            let of = origin.as_ref().map_or(String::new(), |origin| format!(", of {origin}"));
            writeln!(f, "  partition {partition} at {offset}{of}: {why}")?;
        }
        let unnamed = self.kept_count - self.kept.len() as u64;
        if unnamed > 0 {
            writeln!(f, "  and {unnamed} more")?;
        }
        if !self.from_beginning.is_empty() {
            let partitions: Vec<_> = self.from_beginning.iter().map(i32::to_string).collect();
            writeln!(
                f,
                "From the beginning of partition {}: the group has sent none of these before, or Kafka has forgotten it, as it does \
                 after a week (offsets.retention.minutes)",
                partitions.join(", ")
            )?;
        }
        if self.more {
            writeln!(f, "there are more")?;
        }
        Ok(())
    }
}

/// Why a letter cannot be sent unless somebody says where to.
pub(super) const NO_TOPIC: &str = "it does not say which topic it came from: name one to send it to (--to)";

/// A letter as the record that it was.
pub(super) struct Original<'a> {
    pub(super) topic: &'a str,
    /// None: by its key.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: Vec<(&'a str, Option<&'a [u8]>)>,
    pub(super) timestamp: Option<i64>,
}

/// The record that a letter was; or why it cannot be sent.
pub(super) fn original<'a>(
    message: &'a BorrowedMessage<'_>,
    to: Option<&'a str>,
) -> Result<Original<'a>, &'static str> {
    if header(message, ERROR).is_none() {
        return Err("it is no dead letter: it has no windrow.error");
    }
    // Also one that has a value: builds before 22 November 2026 wrote the beginning there.
    if header(message, TRUNCATED).is_some() {
        return Err("it is only the beginning of its record, which was too large (windrow.excerpt)");
    }
    let (topic, partition) = match to {
        Some(to) => (to, None),
        None => {
            let topic = header(message, "windrow.topic").and_then(text);
            let Some(topic) = topic else {
                return Err(NO_TOPIC);
            };
            (topic, header(message, "windrow.partition").and_then(text).and_then(|partition| partition.parse().ok()))
        }
    };
    let said = header(message, TIMESTAMP).and_then(text).and_then(|millis| millis.parse().ok());
    let timestamp = said.or(match message.timestamp() {
        Timestamp::CreateTime(millis) => Some(millis),
        // Of the letter, and not of its record.
        Timestamp::LogAppendTime(_) | Timestamp::NotAvailable => None,
    });
    let all = message.headers().into_iter().flat_map(Headers::iter);
    let headers = all.filter(|header| !letters::is_own(header.key)).map(|header| (header.key, header.value)).collect();
    Ok(Original { topic, partition, key: message.key(), value: message.payload(), headers, timestamp })
}

/// The last header of a name: what a letter says stands behind what its record had.
fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a [u8]> {
    let headers = message.headers()?;
    headers.iter().filter(|header| header.key == name).last().map(|header| header.value.unwrap_or_default())
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

fn origin(message: &BorrowedMessage<'_>) -> Option<String> {
    let said = |name| header(message, name).and_then(text);
    let split = said("windrow.split").or_else(|| said("windrow.topic"))?;
    Some(said("windrow.position").map_or_else(|| split.into(), |position| format!("{split} at {position}")))
}
