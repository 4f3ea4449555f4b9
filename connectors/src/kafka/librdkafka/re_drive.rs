//! Reads dead letters and sends them, in transactions that hold how far it has come.
//!
//! ```text
//!   init (fences another re-drive) ─► committed offsets of the group, ends of the topic
//!        ─► begin ─► records … ─► offsets ─► commit ─► begin …        a thousand letters or 8 MiB at a time
//! ```
//!
//! The offsets are asked for after the producer has been initialised: a commit that another one had begun is decided by then.
//!
//! Kafka forgets the offset of each partition for itself, so many days after it was last committed. So every commit holds those of all
//! partitions, and every re-drive commits: one that is quiet is not forgotten while others have letters.

mod sender;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError, types::RDKafkaErrorCode as Code,
};
use sender::{Sender, forbidden};

use super::{
    super::{
        codes::is_passing,
        re_drive::{NO_TOPIC, Original, ReDrive, ReDriven, original},
    },
    SLICE,
    newest::{Question, Reader},
    refused::{refused, refused_by},
};
use crate::{ConnectorError, Result};

/// So many letters go into a transaction.
const LETTERS: usize = 1_000;
const BYTES: usize = 8 << 20;
/// How long the first answers may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long nothing may come of a topic that has more, and how long a commit may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The partitions of the topics that letters go to; or why none can go there.
type Targets = BTreeMap<String, Result<Vec<i32>, NoTarget>>;

/// Why letters cannot go to a topic.
enum NoTarget {
    /// There is none: what this says.
    Missing(String),
    /// This user may not see it, and so not write to it.
    Forbidden,
}

impl NoTarget {
    fn why(&self, topic: &str) -> String {
        match self {
            Self::Missing(why) => why.clone(),
            Self::Forbidden => format!("this user may not use topic {topic}: it needs the right to WRITE to it"),
        }
    }
}

/// Counts letters, and sends them if told.
pub(in crate::kafka) fn re_drive(what: &ReDrive, send: bool) -> Result<ReDriven> {
    let mut targets = Targets::new();
    if let Some(to) = &what.to {
        // Whoever says a topic that is not there has mistyped it: the letters are not to be passed over for that.
        let there = target(what, to)?.map_err(|none| match none {
            NoTarget::Missing(why) => ConnectorError::Config(format!("{}: {why}", what.config.name())),
            NoTarget::Forbidden => forbidden(&what.config.name(), &BTreeSet::from([to.clone()])),
        })?;
        targets.insert(to.clone(), Ok(there));
    }
    let sender = if send { Some(Sender::new(what)?) } else { None };
    let mut question = Question::new(what.config.clone(), what.topic.clone(), Arc::default());
    // Somebody waits at a keyboard.
    question.until = Instant::now() + ANSWER;
    let settings =
        [("group.id", what.group.as_str()), ("isolation.level", "read_committed"), ("enable.auto.commit", "false")];
    let more =
        [("enable.auto.offset.store", "false"), ("auto.offset.reset", "error"), ("enable.partition.eof", "true")];
    let settings = [settings.as_slice(), &more].concat();
    let reader = question.reader(&settings)?;
    let begin = begin(what, &question, &reader)?;
    let assign = |reader: &Reader| {
        let assigned = reader.assign(&begin.from);
        assigned.map_err(|error| refused_by(&question.system, &format!("read topic {}", what.topic), &error))
    };
    if send && what.to.is_none() {
        // The group would pass over letters that do not say where they came from, and to say a topic later would come too late; and so it
        // would be with a right that is given later. They are looked for with a reader of its own, so that the other one begins where
        // the group is.
        let reader = question.reader(&settings)?;
        assign(&reader)?;
        let mut scan = Run { at_most: u64::MAX, ..Run::new(what, &reader, &begin, targets) };
        scan.read(begin.ends.clone())?;
        if scan.without_topic > 0 {
            return Err(without_topic(what, scan.without_topic));
        }
        targets = scan.targets;
        let barred = targets.iter().filter(|(_, target)| matches!(target, Err(NoTarget::Forbidden)));
        let barred: BTreeSet<String> = barred.map(|(topic, _)| topic.clone()).collect();
        if !barred.is_empty() {
            return Err(forbidden(&what.config.name(), &barred));
        }
    }
    assign(&reader)?;
    let mut run = Run { sender, ..Run::new(what, &reader, &begin, targets) };
    run.done.sent = send;
    let read = run.read(begin.ends.clone()).and_then(|()| run.commit());
    if let Err(error) = read {
        let before = run.done.letters() - run.pending.0 as u64;
        run.abort();
        return Err(match error {
            ConnectorError::Remote { system, reason, passes } if send => {
                let next = if passes { ": run it again, and it goes on with the others" } else { "" };
                let reason = format!("{reason}. {before} letters were sent before that{next}");
                ConnectorError::Remote { system, reason, passes }
            }
            other => other,
        });
    }
    Ok(run.done)
}

/// Nothing was sent, for the sake of letters that could not be sent later any more.
fn without_topic(what: &ReDrive, letters: u64) -> ConnectorError {
    ConnectorError::Config(format!(
        "{}: {letters} letters in {} do not say which topic they came from, and would be passed over: nothing was sent. Say the topic \
         that all letters are to go to, with --to TOPIC (ReDrive::to); to count names the letters",
        what.config.name(),
        what.topic
    ))
}

/// Where a re-drive begins and ends.
struct Begin {
    /// Where the group is in the partitions that have letters.
    from: TopicPartitionList,
    /// Where those end now. Letters that come later are for another time: a job that still does not understand them would have them
    /// here again at once.
    ends: BTreeMap<i32, i64>,
    /// Where the group is in all partitions.
    next: BTreeMap<i32, i64>,
    /// The partitions with letters in which the group is nowhere.
    from_beginning: Vec<i32>,
}

fn begin(what: &ReDrive, question: &Question, reader: &Reader) -> Result<Begin> {
    let topic = what.topic.as_str();
    let partitions = partitions(question, reader, topic)?;
    let mut asked = TopicPartitionList::new();
    for partition in &partitions {
        asked.add_partition(topic, *partition);
    }
    let action = format!("ask how far group {} has come", what.group);
    let committed = question.ask(reader, &action, |reader| reader.committed_offsets(asked.clone(), SLICE))?;
    let (mut from, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
    let (mut next, mut from_beginning) = (BTreeMap::new(), Vec::new());
    for partition in partitions {
        let action = format!("ask where {topic}/{partition} ends");
        let (low, high) = question.ask(reader, &action, |reader| reader.fetch_watermarks(topic, partition, SLICE))?;
        let known = match committed.find_partition(topic, partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        };
        if let Some(offset) = known.filter(|offset| *offset > high) {
            let at = format!("{}, topic {topic}/{partition}", question.system);
            let reason = format!(
                "group {} has come to offset {offset}, and it ends at {high}. Was the topic deleted and made again? Then name another \
                 group (--group NAME), which begins at its beginning",
                what.group
            );
            return Err(ConnectorError::Data { at, reason });
        }
        // What retention has removed meanwhile is gone.
        let begin = known.map_or(low, |offset| offset.max(low));
        next.insert(partition, begin);
        if begin < high {
            ends.insert(partition, high);
            if known.is_none() {
                from_beginning.push(partition);
            }
            let added = from.add_partition_offset(topic, partition, Offset::Offset(begin));
            added.map_err(|error| refused_by(&question.system, &action, &error))?;
        }
    }
    Ok(Begin { from, ends, next, from_beginning })
}

/// Looks up where letters go: its partitions, or why none can go there.
fn target(what: &ReDrive, topic: &str) -> Result<Result<Vec<i32>, NoTarget>> {
    if !is_topic(topic) {
        return Ok(Err(NoTarget::Missing(format!("{topic:?} is no name of a topic"))));
    }
    let question = Question::new(what.config.clone(), topic.into(), Arc::default());
    // A client of its own: a question takes what comes meanwhile, and that would be letters.
    Ok(match look_up(&question, &question.reader(&[])?, topic)? {
        Ok(partitions) => Ok(partitions),
        Err(Code::TopicAuthorizationFailed) => Err(NoTarget::Forbidden),
        Err(_) => Err(NoTarget::Missing(format!("there is no topic {topic}, or this user may not see it"))),
    })
}

/// Whether Kafka can have a topic of this name; it stands in a header, and so may be anything.
fn is_topic(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    plain && (1..=249).contains(&name.len()) && !matches!(name, "." | "..")
}

/// The partitions of a topic, which must be there.
fn partitions(question: &Question, reader: &Reader, topic: &str) -> Result<Vec<i32>> {
    look_up(question, reader, topic)?.map_err(|code| match code {
        Code::TopicAuthorizationFailed => refused(&question.system, &format!("look up topic {topic}"), code, ""),
        _ => {
            let missing = format!("{}: there is no topic {topic}, or this user may not see it", question.system);
            ConnectorError::Config(missing)
        }
    })
}

/// The partitions of a topic; or with which code the cluster says that it is not there, or not for this user.
fn look_up(question: &Question, reader: &Reader, topic: &str) -> Result<Result<Vec<i32>, Code>> {
    let action = format!("look up topic {topic}");
    let found = question.ask(reader, &action, |reader| reader.fetch_metadata(Some(topic), SLICE))?;
    let Some(found) = found.topics().first() else { return Ok(Err(Code::UnknownTopic)) };
    match found.error().map(Code::from) {
        None => Ok(Ok(found.partitions().iter().map(|partition| partition.id()).collect())),
        Some(
            code @ (Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed),
        ) => Ok(Err(code)),
        Some(code) => Err(refused(&question.system, &action, code, "")),
    }
}

/// One re-drive.
struct Run<'a> {
    what: &'a ReDrive,
    reader: &'a Reader,
    /// None: only counts.
    sender: Option<Sender>,
    /// So many letters, and no more.
    at_most: u64,
    targets: Targets,
    /// Letters that do not say which topic they came from, while nobody has said one.
    without_topic: u64,
    done: ReDriven,
    /// Where the group goes on, in all partitions.
    next: BTreeMap<i32, i64>,
    /// Letters and bytes in the open transaction.
    pending: (usize, usize),
}

impl<'a> Run<'a> {
    fn new(what: &'a ReDrive, reader: &'a Reader, begin: &Begin, targets: Targets) -> Self {
        let done = ReDriven { from_beginning: begin.from_beginning.clone(), ..ReDriven::default() };
        let (at_most, next) = (what.at_most, begin.next.clone());
        Self { what, reader, sender: None, at_most, targets, without_topic: 0, done, next, pending: (0, 0) }
    }

    fn read(&mut self, mut ends: BTreeMap<i32, i64>) -> Result<()> {
        let mut heard = Instant::now();
        while !ends.is_empty() {
            match self.reader.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let Some(end) = ends.get(&message.partition()).copied() else { continue };
                    if message.offset() < end {
                        if self.done.letters() >= self.at_most {
                            self.done.more = true;
                            return Ok(());
                        }
                        self.letter(&message)?;
                    }
                    // To look up a topic or to commit takes time, in which nothing was asked for.
                    heard = Instant::now();
                    if message.offset() + 1 >= end {
                        ends.remove(&message.partition());
                    }
                }
                // Behind the last record there may be what transactions have left. And what others have not committed is not there.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
                Some(Err(error)) if !is_passing(error.rdkafka_error_code().unwrap_or(Code::Fail)) => {
                    return Err(refused_by(
                        &self.what.config.name(),
                        &format!("read topic {}", self.what.topic),
                        &error,
                    ));
                }
                Some(Err(_)) | None if heard.elapsed() > PATIENCE => {
                    let reason =
                        format!("nothing comes of topic {} for {PATIENCE:?}, and it has more", self.what.topic);
                    return Err(ConnectorError::Remote { system: self.what.config.name(), reason, passes: true });
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }

    fn letter(&mut self, message: &rdkafka::message::BorrowedMessage<'_>) -> Result<()> {
        let what = self.what;
        let record = match original(message, what.to.as_deref()) {
            Ok(record) => self.why_not(&record)?.map_or(Ok(record), Err),
            Err(why) => {
                self.without_topic += u64::from(why == NO_TOPIC);
                Err(why.to_owned())
            }
        };
        match record {
            Ok(record) => {
                if let Some(sender) = &mut self.sender {
                    sender.send(&record)?;
                }
                *self.done.topics.entry(record.topic.into()).or_default() += 1;
                self.pending.0 += 1;
            }
            Err(why) => self.done.keep(message, why),
        }
        self.pending.1 += message.payload_len() + message.key_len();
        self.next.insert(message.partition(), message.offset() + 1);
        if self.pending.0 >= LETTERS || self.pending.1 >= BYTES { self.commit() } else { Ok(()) }
    }

    /// Why a record cannot go where it came from, if so.
    fn why_not(&mut self, record: &Original<'_>) -> Result<Option<String>> {
        if !self.targets.contains_key(record.topic) {
            self.targets.insert(record.topic.into(), target(self.what, record.topic)?);
        }
        Ok(match (self.targets.get(record.topic), record.partition) {
            (Some(Err(none)), _) => Some(none.why(record.topic)),
            (Some(Ok(there)), Some(partition)) if !there.contains(&partition) => {
                Some(format!("topic {} has no partition {partition}", record.topic))
            }
            _ => None,
        })
    }

    /// Commits what was sent, and how far it has come.
    fn commit(&mut self) -> Result<()> {
        if let Some(sender) = &mut self.sender {
            sender.commit(self.what, self.reader, &self.next)?;
        }
        self.pending = (0, 0);
        Ok(())
    }

    fn abort(&mut self) {
        if let Some(sender) = &self.sender {
            sender.abort();
        }
    }
}
