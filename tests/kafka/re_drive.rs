//! Dead letters go back to where they came from: each once, as the records that they were.

use tests::{
    broker::{Broker, Message, Result, verify::Record as Found},
    run,
};
use windrow::{connectors::kafka::ReDriven, prelude::*};

use crate::{
    running::{accounted, store},
    windows::Order,
};

/// What a record is, wherever it lies.
type Said = (i32, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<String>)>);

fn said(record: &Found) -> Said {
    (record.partition, record.time, record.key.clone(), record.value.clone(), record.headers.clone())
}

/// Records of a topic as they were, and its letters.
fn letters(broker: &Broker, rejected: usize) -> Result<(String, String, Vec<Said>)> {
    let (topic, dead) = (broker.new_topic("payments", 3)?, broker.new_topic("dead", 2)?);
    let record = |n: usize| {
        let record = Message::of(format!("garbage {n}")).partition((n % 3) as i32).time(1_767_225_600_000 + n as i64);
        // Not all have a key or a header.
        let record = if n.is_multiple_of(2) { record.key(format!("k{n}")) } else { record };
        if n.is_multiple_of(5) { record.header("trace", "7").header("trace", "8").null_header("none") } else { record }
    };
    let tombstone = Message::null().key("gone").partition(1).time(1_767_225_599_000);
    broker.produce(&topic, (0..rejected).map(record).chain([tombstone]))?;
    let were = broker.committed(&topic)?.iter().map(said).collect();

    let place = tempfile::tempdir()?;
    let job = Job::new(format!("buries-{:08x}", fastrand::u32(..))).checkpoint(store(place.path()), millis(200));
    let kafka = Kafka::brokers(broker.address());
    let (good, rejects) = job.source(kafka.topic(&topic).bounded().json::<Order>()).with_rejects();
    good.discard();
    rejects.sink(kafka.to_topic(&dead).dead_letters().exactly_once());
    let all = rejected as u64 + 1;
    accounted(&run(job)?, all, all);
    Ok((topic, dead, were))
}

fn sent(done: &ReDriven) -> (bool, u64, u64, bool) {
    (done.sent, done.letters(), done.kept_count, done.more)
}

#[test]
fn each_letter_goes_back_once_as_the_record_that_it_was() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    // More than go into a transaction.
    let (topic, dead, mut were) = letters(broker, 2_500)?;
    let count = were.len() as u64;
    let redrive = Kafka::brokers(broker.address()).re_drive(&dead);
    for _ in 0..2 {
        let counted = redrive.count()?;
        assert_eq!(
            (sent(&counted), counted.topics.keys().collect::<Vec<_>>()),
            ((false, count, 0, false), vec![&topic])
        );
    }
    assert_eq!(broker.committed(&topic)?.len(), were.len(), "to count is not to write");

    assert_eq!(sent(&redrive.clone().at_most(700).send()?), (true, 700, 0, true));
    assert_eq!(broker.committed(&topic)?.len(), were.len() + 700);
    assert_eq!(sent(&redrive.count()?), (false, count - 700, 0, false));
    assert_eq!(sent(&redrive.send()?), (true, count - 700, 0, false));
    assert_eq!(sent(&redrive.send()?), (true, 0, 0, false), "each once");
    assert!(redrive.send()?.from_beginning.is_empty(), "the group is known in all partitions");
    let mut twice: Vec<Said> = broker.committed(&topic)?.iter().map(said).collect();
    were.extend_from_within(..);
    were.sort_unstable();
    twice.sort_unstable();
    assert!(twice == were, "{} of {}", twice.len(), were.len());

    // By their keys to another topic, for another group, which has had none yet.
    let other = broker.new_topic("other", 4)?;
    assert_eq!(sent(&redrive.clone().group(format!("again-{other}")).to(&other).send()?), (true, count, 0, false));
    let there = broker.committed(&other)?;
    assert_eq!(there.len() as u64, count);
    let gone = there.iter().filter(|record| record.key.as_deref() == Some(b"gone")).map(|record| &record.value);
    assert_eq!(gone.collect::<Vec<_>>(), [&None], "a tombstone is one again");
    Ok(())
}

#[test]
fn what_cannot_be_sent_is_named_and_left() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, dead) = (format!("payments-{:08x}", fastrand::u32(..)), broker.new_topic("dead", 1)?);
    // As the topic of a record of the future has to be.
    broker.create_topic(&topic, 1, &[("message.timestamp.after.max.ms", "9223372036854775807")])?;
    let letter = |message: Message| {
        let message =
            message.header("mine", "x").header("windrow.error", "no").header("windrow.split", format!("{topic}/0"));
        message.header("windrow.position", "12").header("windrow.topic", topic.clone()).header("windrow.partition", "0")
    };
    let cut =
        letter(Message::null().key("cut")).header("windrow.truncated", "5000000").header("windrow.excerpt", "{\"v\":");
    let former = letter(Message::of("{\"v\":")).header("windrow.truncated", "5000000");
    let lost = Message::of("lost").header("windrow.error", "no").header("windrow.split", "a.json");
    let lost = lost.header("windrow.topic", "no-such-topic");
    let stranger = Message::of("hello").header("windrow.topic", topic.clone());
    let late = letter(Message::of("late").time(1_767_225_600_000)).header("windrow.timestamp", "1799999999999");
    broker.produce(&dead, [letter(Message::of("whole")), cut, former, lost, stranger, late])?;

    let redrive = Kafka::brokers(broker.address()).re_drive(&dead);
    let done = redrive.send()?;
    assert_eq!(sent(&done), (true, 2, 4, false));
    let text = done.to_string();
    for expected in [
        "2 sent again:",
        &format!("  2 to {topic}"),
        &format!("partition 0 at 1, of {topic}/0 at 12: it is only the beginning of its record"),
        "partition 0 at 2, of",
        "partition 0 at 3, of a.json: there is no topic no-such-topic",
        "partition 0 at 4, of",
        "it is no dead letter: it has no windrow.error",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let there = broker.committed(&topic)?;
    let [whole, late] = there.as_slice() else { panic!("{there:?}") };
    assert_eq!((whole.text().as_str(), late.text().as_str(), late.time), ("whole", "late", 1_799_999_999_999));
    assert_eq!(whole.headers, [("mine".to_string(), Some("x".to_string()))], "a letter's own headers are taken off");
    assert_eq!(sent(&redrive.send()?), (true, 0, 0, false), "the group has passed them");
    assert_eq!(
        sent(&redrive.group(format!("{dead}-2")).to(&topic).count()?),
        (false, 3, 3, false),
        "to a topic that is said"
    );
    Ok(())
}

#[test]
fn letters_without_a_topic_are_not_passed_over() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, dead, were) = letters(broker, 10)?;
    broker.produce(&dead, [Message::of("line").header("windrow.error", "no").header("windrow.split", "a.json")])?;
    let redrive = Kafka::brokers(broker.address()).re_drive(&dead);
    let error = redrive.send().unwrap_err();
    assert!(error.to_string().contains("1 letters in") && error.to_string().contains("--to TOPIC"), "{error}");
    assert_eq!(broker.committed(&topic)?.len(), were.len(), "nothing was sent");
    assert_eq!(sent(&redrive.to(&topic).send()?), (true, were.len() as u64 + 1, 0, false));
    Ok(())
}

#[test]
fn a_topic_that_is_not_there_is_told_before_anything_is_sent() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (_, dead, were) = letters(broker, 10)?;
    let redrive = Kafka::brokers(broker.address()).re_drive(&dead);
    for error in [
        redrive.clone().to("no-such-topic").count().unwrap_err(),
        redrive.clone().to("no-such-topic").send().unwrap_err(),
    ] {
        assert!(error.to_string().contains("there is no topic no-such-topic"), "{error}");
    }
    let error = Kafka::brokers(broker.address()).re_drive("no-such-topic").count().unwrap_err();
    assert!(error.to_string().contains("there is no topic no-such-topic"), "{error}");
    assert_eq!(sent(&redrive.send()?), (true, were.len() as u64, 0, false), "what went wrong before holds nothing up");
    Ok(())
}
