//! Dead letters go back to where they came from: each once, as the records that they were.

use std::{
    collections::BTreeMap,
    env,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use tests::{
    TOO_LONG,
    broker::{
        Broker, Message, Options, Result,
        proxy::{Api, Fault, Rule},
        rights::{Operation, Resource},
        secure::{Listener, NOBODY, PASSWORD},
        verify::Record as Found,
    },
    run,
};
use windrow::{
    connectors::{ConnectorError, kafka::ReDriven},
    prelude::*,
};

use crate::{
    running::{accounted, store},
    security::secure,
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

/// Where the group is in each partition of the letters, as the broker says it.
fn positions(broker: &Broker, dead: &str, partitions: i32) -> Result<BTreeMap<i32, i64>> {
    let member: BaseConsumer = broker.config().set("group.id", format!("windrow.re-drive.{dead}")).create()?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(dead, 0, partitions - 1);
    let found = member.committed_offsets(asked, Duration::from_secs(30))?;
    let position = |partition| match found.find_partition(dead, partition).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => (partition, offset),
        other => panic!("no position in partition {partition}: {other:?}"),
    };
    Ok((0..partitions).map(position).collect())
}

/// The letters of each partition that the group has passed, and those that it has not.
fn passed(broker: &Broker, dead: &str, partitions: i32) -> Result<(usize, usize)> {
    let at = positions(broker, dead, partitions)?;
    let letters = broker.committed(dead)?;
    let passed = letters.iter().filter(|letter| letter.offset < at[&letter.partition]).count();
    Ok((passed, letters.len() - passed))
}

/// Waits until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + TOO_LONG;
    while !is_so()? {
        assert!(Instant::now() < end, "after {TOO_LONG:?} still not so: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// That the topic has the records that were there, and each once more.
fn once_more(broker: &Broker, topic: &str, mut were: Vec<Said>) -> Result<()> {
    let mut twice: Vec<Said> = broker.committed(topic)?.iter().map(said).collect();
    were.extend_from_within(..);
    were.sort_unstable();
    twice.sort_unstable();
    assert!(twice == were, "{} of {}", twice.len(), were.len());
    Ok(())
}

#[test]
fn the_broker_knows_of_each_partition_how_far_the_group_has_come() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, dead) = (broker.new_topic("payments", 3)?, broker.new_topic("dead", 4)?);
    let letter = |n: usize| {
        let letter = Message::of(n.to_string()).header("windrow.error", "no").header("windrow.topic", topic.clone());
        letter.header("windrow.partition", (n % 3).to_string())
    };
    // Of one partition nothing was ever written, and in another a transaction was thrown away behind the last letter.
    let counts = [0, 5, 30, 700];
    for (partition, count) in (0..).zip(counts) {
        broker.transaction(&dead, (0..count).map(|n| letter(n).partition(partition)), true)?;
    }
    broker.transaction(&dead, [letter(1).partition(1)], false)?;

    let redrive = Kafka::brokers(broker.address()).re_drive(&dead);
    assert_eq!(sent(&redrive.clone().at_most(200).send()?), (true, 200, 0, true));
    assert_eq!(passed(broker, &dead, 4)?, (200, 535), "those that were left are not passed");
    assert_eq!(sent(&redrive.send()?), (true, 535, 0, false));
    let ends = (0..).zip(counts).map(|(partition, count)| (partition, count as i64));
    assert_eq!(positions(broker, &dead, 4)?, ends.collect(), "behind the last letter of each");
    assert_eq!(sent(&redrive.send()?), (true, 0, 0, false));
    broker.produce(&dead, [letter(0).partition(0), letter(1).partition(3)])?;
    assert_eq!(sent(&redrive.send()?), (true, 2, 0, false));
    assert_eq!(passed(broker, &dead, 4)?, (737, 0));
    assert_eq!(broker.committed(&topic)?.len(), 737);
    Ok(())
}

const ADDRESS: &str = "WINDROW_TEST_ADDRESS";
const LETTERS: &str = "WINDROW_TEST_TOPIC";

/// In a process of its own, which another test kills. Does nothing by itself.
#[test]
fn sends_letters_until_it_is_killed() -> Result<()> {
    let (Ok(address), Ok(letters)) = (env::var(ADDRESS), env::var(LETTERS)) else { return Ok(()) };
    println!("{}", Kafka::brokers(address).re_drive(letters).send()?);
    Ok(())
}

/// A process that is killed when the test ends in any way.
struct Sends(Child);

impl Sends {
    fn start(address: &str, letters: &str) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["re_drive::sends_letters_until_it_is_killed", "--exact", "--nocapture"]);
        command.envs([(ADDRESS, address), (LETTERS, letters)]).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    fn kill(&mut self) -> Result<()> {
        assert!(self.0.try_wait()?.is_none(), "it has ended by itself");
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Sends {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Before the commit of its second transaction has come to the broker, and when that is done and the answer has not come back.
#[test]
fn a_re_drive_that_is_killed_and_run_again_sends_each_letter_once() -> Result<()> {
    let Some(broker) = Broker::own(Options::default().proxied()) else { return Ok(()) };
    let proxy = broker.proxy()?;
    for (fault, before) in [(Fault::DelayRequest(TOO_LONG), 1_000), (Fault::DelayReply(TOO_LONG), 2_000)] {
        let (topic, dead, were) = letters(&broker, 2_500)?;
        let held = proxy.faults(Api::EndTxn);
        proxy.inject(1, [Rule::of(Api::EndTxn, fault).after(1)])?;
        let mut sends = Sends::start(proxy.address(), &dead)?;
        until("the second commit is held up", || Ok(proxy.faults(Api::EndTxn) > held))?;
        until("what is committed is there", || Ok(broker.committed(&topic)?.len() == were.len() + before))?;
        sends.kill()?;
        proxy.heal();
        let redrive = Kafka::brokers(broker.address()).re_drive(&dead);
        assert_eq!(sent(&redrive.send()?), (true, (were.len() - before) as u64, 0, false), "{fault:?}");
        assert_eq!(passed(&broker, &dead, 2)?, (were.len(), 0));
        once_more(&broker, &topic, were)?;
    }
    Ok(())
}

/// The one that began later takes over, and the other one is told so.
#[test]
fn of_two_re_drives_at_a_time_the_later_one_goes_on_where_the_other_was() -> Result<()> {
    let Some(broker) = Broker::own(Options::default().proxied()) else { return Ok(()) };
    let proxy = broker.proxy()?;
    // What the first one is about to do when the second one comes.
    for (api, after, before) in [(Api::EndTxn, 1, 1_000), (Api::AddOffsetsToTxn, 0, 0), (Api::Produce, 0, 0)] {
        let (topic, dead, were) = letters(&broker, 2_500)?;
        let held = proxy.faults(api);
        proxy.inject(1, [Rule::of(api, Fault::DelayRequest(TOO_LONG)).after(after)])?;
        let first = Kafka::brokers(proxy.address()).re_drive(&dead);
        let first = thread::spawn(move || first.send());
        until("the first one is held up", || Ok(proxy.faults(api) > held))?;
        let second = Kafka::brokers(broker.address()).re_drive(&dead);
        assert_eq!(sent(&second.send()?), (true, were.len() as u64 - before, 0, false), "{api:?}");
        proxy.heal();
        proxy.cut();
        let refused = first.join().unwrap().unwrap_err().to_string();
        assert!(refused.contains("another re-drive of this group has taken over"), "{api:?}: {refused}");
        assert!(refused.contains(&format!("{before} letters were sent before that")), "{api:?}: {refused}");
        once_more(&broker, &topic, were)?;
    }
    Ok(())
}

#[test]
fn many_re_drives_at_a_time_lose_and_double_nothing() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, dead, were) = letters(broker, 4_500)?;
    let redrive = Kafka::brokers(broker.address()).re_drive(&dead);
    let all: Vec<_> = (0..4).map(|_| redrive.clone()).map(|one| thread::spawn(move || one.send())).collect();
    let mut done = 0;
    for one in all {
        match one.join().unwrap() {
            Ok(redriven) => done += usize::from(!redriven.more),
            Err(error) => {
                assert!(error.to_string().contains("another re-drive of this group has taken over"), "{error}")
            }
        }
    }
    assert!(done >= 1, "the last one is not disturbed");
    assert_eq!(sent(&redrive.send()?), (true, 0, 0, false));
    once_more(broker, &topic, were)
}

/// It sees the target or it does not: in both cases nothing is passed over, and when it has the right all letters come.
#[test]
fn who_may_not_write_to_the_target_is_told_and_loses_no_letter() -> Result<()> {
    let Some(secure) = secure() else { return Ok(()) };
    let broker = secure.broker();
    for sees in [false, true] {
        let (topic, dead, were) = letters(broker, 20)?;
        let group = format!("windrow.re-drive.{dead}");
        secure.allow(NOBODY, Operation::Read, Resource::Topic(&dead))?;
        secure.allow(NOBODY, Operation::Read, Resource::Group(&group))?;
        secure.allow(NOBODY, Operation::Write, Resource::TransactionalId(&group))?;
        if sees {
            secure.allow(NOBODY, Operation::Read, Resource::Topic(&topic))?;
        }
        let login = Sasl::scram_sha_512(NOBODY, Secret::new(PASSWORD));
        let redrive = Kafka::brokers(secure.address(Listener::Sasl)?).sasl(login).re_drive(&dead);
        for redrive in [redrive.clone(), redrive.clone().to(&topic)] {
            let refused = redrive.send().unwrap_err();
            println!("{refused}");
            let said = refused.to_string();
            assert!(said.contains("WRITE") && said.contains(&topic), "sees {sees}: {said}");
            let passes = matches!(refused, ConnectorError::Remote { passes: true, .. });
            assert!(!passes && !said.contains("cannot note"), "sees {sees}: {said}");
        }
        assert_eq!(broker.committed(&topic)?.len(), were.len(), "nothing was sent");
        secure.allow(NOBODY, Operation::Write, Resource::Topic(&topic))?;
        assert_eq!(sent(&redrive.send()?), (true, were.len() as u64, 0, false), "nothing was passed over");
        once_more(broker, &topic, were)?;
    }
    Ok(())
}
