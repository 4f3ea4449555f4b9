//! The errors of a reader, in words that say where, what, and what to do.

use rdkafka::error::RDKafkaErrorCode as Code;

use super::{
    feed::{Fault, Partition},
    plan::Plan,
    start::Unknown,
};
use crate::{
    ConnectorError, SplitId,
    kafka::codes::{is_login, is_passing},
};

/// What an error of librdkafka means for a reader. `asked`: it is the answer to a question of ours, and not something that happened.
pub(super) fn meaning(code: Code, asked: bool) -> Fault {
    match code {
        Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::LogTruncation | Code::NoOffset => Fault::Position,
        Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => Fault::Unknown,
        // librdkafka looks for the coordinator of the group, which reading does not need. Committing to it fails on its own.
        Code::GroupAuthorizationFailed if !asked => Fault::Passing,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::GroupAuthorizationFailed => {
            Fault::Forbidden
        }
        code if is_login(code) => Fault::Login,
        Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::InvalidMessageSize => Fault::Garbage,
        Code::NotImplemented | Code::UnsupportedFeature => Fault::Garbage,
        code if is_passing(code) => Fault::Passing,
        _ => Fault::Other,
    }
}

/// What librdkafka says of a log that was cut off, and may have grown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The next offset to read.
    pub(super) next: u64,
    /// Up to where the log is as it was, if that is known.
    pub(super) end: Option<u64>,
}

impl Cut {
    /// `Partition log truncation detected at offset 42 (leader epoch 3): broker end offset is 40 (offset leader epoch 2). Reset to
    /// INVALID.: Local: Partition log truncation detected (broker 1)`, or `No epoch found less or equal to offset 42 …`
    pub(super) fn of(reason: &str) -> Option<Self> {
        let after = |words: &str| reason.split_once(words)?.1.split(' ').next()?.parse().ok();
        Some(Self { next: after("offset ")?, end: after("end offset is ") })
    }
}

/// Whether librdkafka says so. It has a code for it, and gives another.
pub(super) fn is_truncation(reason: &str) -> bool {
    reason.contains("log truncation detected")
}

/// Records that were read have been replaced by others. `splits`: it is one of these.
pub(super) fn truncated(
    plan: &Plan,
    topic: usize,
    splits: &[String],
    cut: Option<Cut>,
    reason: &str,
) -> ConnectorError {
    let split = match splits {
        [split] => split.clone(),
        _ => format!("one of {}", splits.join(", ")),
    };
    let system = plan.topic(topic);
    let kept = cut.and_then(|cut| cut.end).map_or_else(String::new, |end| format!(" from offset {end} on"));
    ConnectorError::Data {
        at: cut.map_or_else(|| format!("{system}, {split}"), |cut| format!("{system}, {split}, offset {}", cut.next)),
        reason: format!(
            "the cluster has lost records of {split} that it had confirmed{kept}, and may have put others in their place: a broker \
             became leader that did not have them ({reason}). What was computed from those that were read is in the state; to read \
             the topic as it is now, start a new job (without the checkpoint)"
        ),
    }
}

/// Nobody can say anything of a partition.
pub(super) fn leaderless(plan: &Plan, at: Partition) -> Unknown {
    Unknown {
        reason: format!("{} has no leader at the moment: look at the brokers that hold it", at.split(&plan.topics)),
        leaderless: true,
    }
}

/// Records were gone before they were read. `first` is the first that is left.
pub(super) fn expired(plan: &Plan, split: &SplitId, next: u64, first: u64) -> ConnectorError {
    ConnectorError::Data {
        at: format!("{}, {split}, offset {next}", plan.config.name()),
        reason: format!(
            "{} records of {split} were removed before they were read, by retention or by hand: the offsets {next} to {}. The first \
             that is left is {first}. They cannot be had back from here: to go on without them, start a new job (without the \
             checkpoint), with .from(Start::Earliest); and keep records for longer than the job may stand still",
            first.saturating_sub(next),
            first.saturating_sub(1),
        ),
    }
}

/// The log ends before what was read of it.
pub(super) fn cut_off(plan: &Plan, split: &SplitId, next: u64, end: u64) -> ConnectorError {
    ConnectorError::Data {
        at: format!("{}, {split}, offset {next}", plan.config.name()),
        reason: format!(
            "the next offset to read is {next}, and {split} ends at {end}: the topic was deleted and made again, or the cluster has \
             lost {} records that it had confirmed. What was computed from them is in the state; to read the topic as it is now, \
             start a new job (without the checkpoint)",
            next.saturating_sub(end),
        ),
    }
}

/// The log did not have a position that was read up to, and has it now. No replica that may lead lacks what was read, so the
/// records there are others. `stood`: the partitions of the topic that are read, one of which was refused.
pub(super) fn grown_again(plan: &Plan, topic: usize, stood: &[(&SplitId, u64)], reason: &str) -> ConnectorError {
    let (at, perhaps) = match stood {
        [(split, next)] => (format!("{}, {split}, offset {next}", plan.config.name()), String::new()),
        _ => (plan.topic(topic), format!(" It is one of these partitions: {}.", places(stood))),
    };
    ConnectorError::Data {
        at,
        reason: format!(
            "the broker did not have the next offset to read, and has it now ({reason}): the topic was deleted and made again, or the \
             cluster has lost records that it had confirmed, and others are in their place.{perhaps} What was computed from those \
             that were read is in the state; to read the topic as it is now, start a new job (without the checkpoint)"
        ),
    }
}

/// The log ends before the end that was fixed when the job began. `ends`: that one, and that of the log.
pub(super) fn end_cut_off(plan: &Plan, split: &SplitId, next: u64, (fixed, end): (u64, u64)) -> ConnectorError {
    ConnectorError::Data {
        at: format!("{}, {split}, offset {next}", plan.config.name()),
        reason: format!(
            "when the job began {split} ended at {fixed}, and it is to be read to there; now it ends at {end}: the topic was deleted \
             and made again, or the cluster has lost {} records that it had confirmed. To read the topic as it is now, start a new \
             job (without the checkpoint)",
            fixed.saturating_sub(end),
        ),
    }
}

/// There is no such topic.
pub(super) fn missing(plan: &Plan, topic: usize) -> ConnectorError {
    let name = plan.topics.get(topic).map_or("", String::as_str);
    ConnectorError::Config(format!(
        "{}: there is no topic {name}, or this user may not see it: make it, or mend its name or the rights",
        plan.config.name()
    ))
}

/// A topic or partition is gone that was read.
pub(super) fn deleted(plan: &Plan, split: &SplitId, next: u64) -> ConnectorError {
    ConnectorError::Data {
        at: format!("{}, {split}, offset {next}", plan.config.name()),
        reason: "the partition is not there any more: the topic was deleted, or this user may not see it now. Records that were \
                 not read are lost; start a new job, without the checkpoint, to read a new topic of that name"
            .to_string(),
    }
}

/// Nothing comes of a partition, whatever is done.
pub(super) fn stands_still(plan: &Plan, at: Partition, next: u64, end: u64) -> ConnectorError {
    let split = at.split(&plan.topics);
    ConnectorError::Remote {
        system: plan.topic(at.topic),
        reason: format!(
            "{split} ends at {end}, and nothing comes of it from offset {next} on, although its reading was begun anew {} times. If \
             another start of the job does not help either, look whether its leader serves it (kafka-console-consumer.sh \
             --partition {} --offset {next}), and what the broker's log says of it",
            super::watch::GIVEN_UP,
            at.number,
        ),
        passes: true,
    }
}

/// librdkafka tells an end only in words, and these were others than those that are known.
pub(super) fn end_unknown(plan: &Plan, at: Partition) -> ConnectorError {
    ConnectorError::Remote {
        system: plan.topic(at.topic),
        reason: format!("the end of {} was told without its offset: a bug in the connector", at.split(&plan.topics)),
        passes: false,
    }
}

/// What was received makes no sense. `stood`: the partitions that were read, and the offsets of their next records.
pub(super) fn unreadable(plan: &Plan, topic: usize, stood: &[(&SplitId, u64)], reason: &str) -> ConnectorError {
    // Where the damaged batch begins, if librdkafka's words have come through: its client for Rust keeps the code only.
    let offset = offset_in(reason);
    let begins: Vec<_> = stood.iter().filter(|(_, next)| offset == Some(*next)).copied().collect();
    let (at, perhaps) = match (begins.as_slice(), stood) {
        ([(split, next)], _) | (_, [(split, next)]) => {
            (format!("{}, {split}, offset {next}", plan.config.name()), String::new())
        }
        (_, []) => (plan.topic(topic), String::new()),
        _ => (plan.topic(topic), format!(" It is in one of these partitions: {}", places(stood))),
    };
    ConnectorError::Data {
        at,
        reason: format!(
            "what the broker sent cannot be read as records ({reason}): the log is damaged, or a batch is compressed with \
             something that this client does not know, or to more than it takes: then raise \
             .set(\"receive.message.max.bytes\", ...) of the connection, which is 100 MB unless told.{perhaps}"
        ),
    }
}

/// `MessageSet at offset 42 (…`, `Decompression (codec 0x1) of message at 42 of …`.
fn offset_in(reason: &str) -> Option<u64> {
    let after = |words: &str| reason.split_once(words)?.1.split(' ').next()?.parse().ok();
    after("at offset ").or_else(|| after("message at "))
}

/// Where partitions stand, of which there may be thousands.
fn places(stood: &[(&SplitId, u64)]) -> String {
    const SHOWN: usize = 20;
    let shown = stood.iter().take(SHOWN).map(|(split, next)| format!("{split} at offset {next}"));
    let more = stood.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("{more} more"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

/// A failure that ends the reader and is none of the above.
pub(super) fn failed(plan: &Plan, topic: usize, fault: Fault, reason: &str) -> ConnectorError {
    let system = plan.topic(topic);
    match fault {
        Fault::Garbage => unreadable(plan, topic, &[], reason),
        Fault::Forbidden => ConnectorError::Remote {
            system,
            reason: format!("{reason}: give this user the right to read it (READ and DESCRIBE)"),
            passes: false,
        },
        Fault::Login => ConnectorError::Remote {
            system,
            reason: format!("{reason}: look at the user and the secret in .sasl(...)"),
            passes: false,
        },
        // A reader looks into both before; a sample that is taken meets a log that is being cut.
        Fault::Position | Fault::Truncated => {
            ConnectorError::Remote { system, reason: format!("a position was refused ({reason})"), passes: true }
        }
        Fault::Passing | Fault::Unknown | Fault::Other => {
            ConnectorError::Remote { system, reason: reason.to_string(), passes: true }
        }
    }
}
