//! Messages of 20 MB: the source rejects them or reads them, as it is told, and the sink says which it cannot write.

use tests::{
    broker::{Broker, Message, Result},
    run,
};
use windrow::prelude::*;

use crate::{
    running::{accounted, store, values},
    windows::{Order, order, orders},
};

const LARGE: usize = 20_000_000;

#[derive(Record)]
struct Text {
    text: String,
}

#[test]
fn a_message_of_20_mb_is_rejected_unless_the_limit_is_raised() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let topic = format!("large-{:08x}", fastrand::u32(..));
    broker.create_topic(&topic, 1, &[("max.message.bytes", "30000000")])?;
    let (dead, output) = (broker.new_topic("dead", 1)?, broker.new_topic("small", 1)?);
    let rows = orders(10);
    let mut messages: Vec<Message> = rows.iter().map(order).collect();
    let large = format!(r#"{{"user":"{}","amount":1,"at":"2026-01-01T00:00:00Z"}}"#, "x".repeat(LARGE));
    messages.insert(5, Message::of(large.clone()).key("large"));
    broker.produce(&topic, messages)?;

    let job = Job::new("small");
    let (small, rejected) = job.source(kafka.topic(&topic).bounded().json::<Order>()).with_rejects();
    small.sink(kafka.to_topic(&output).json());
    rejected.sink(kafka.to_topic(&dead).dead_letters());
    accounted(&run(job)?, 11, 1);
    assert_eq!(broker.committed(&output)?.len(), 10);
    let letters = broker.committed(&dead)?;
    let [letter] = letters.as_slice() else { panic!("{} letters", letters.len()) };
    let why = format!("has {} bytes, more than the 10485760 of max_record_bytes", large.len() + "large".len());
    assert_eq!((letter.header("windrow.error"), letter.header("windrow.offset")), (Some(why.as_str()), Some("5")));
    assert_eq!((&letter.value, letter.header("windrow.excerpt")), (&None, Some(&large[..1024])), "its first KiB");
    let whole = (large.len() + "large".len()).to_string();
    assert_eq!(letter.header("windrow.truncated"), Some(whole.as_str()));

    let job = Job::new("all");
    let lengths = MemorySink::new();
    let source = kafka.topic(&topic).bounded().max_record_bytes(25 << 20).json::<Order>();
    job.source(source)
        .map(|order| Order { user: String::new(), amount: order.user.len() as i64, at: order.at })
        .sink(lengths.clone());
    accounted(&run(job)?, 11, 0);
    let lengths: Vec<Order> = lengths.records()?;
    assert!(lengths.iter().any(|order| order.amount == LARGE as i64));
    Ok(())
}

/// A record that a topic takes and librdkafka, or the topic of the dead letters, does not must not end the job for ever.
#[test]
fn garbage_of_any_size_becomes_a_dead_letter() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let name = |name: &str| format!("{name}-{:08x}", fastrand::u32(..));
    let topic = name("garbage");
    broker.create_topic(&topic, 1, &[("max.message.bytes", "10000000")])?;
    // As large as letters get in a topic as it is by default; beyond it; beyond what brokers take; and what comes after it.
    let mut random = fastrand::Rng::with_seed(5);
    let mut garbage = |size: usize| (0..size).map(|_| random.alphanumeric()).collect::<String>();
    let sizes = [1_030_000, 1_048_000, 1_048_500, 1_048_560, 5_000_000, 300_000, 7];
    let records = sizes.map(&mut garbage);
    let message = |(n, text): (usize, &String)| {
        Message::of(text.clone()).header("n", n.to_string()).time(1_700_000_000_000 + n as i64)
    };
    broker.produce(&topic, records.iter().enumerate().map(message))?;

    // A topic of half a megabyte takes less than the client.
    for (exactly_once, limit, whole) in [
        (false, 1_048_588, 1_048_100),
        (true, 1_048_588, 1_048_100),
        (false, 500_000, 499_000),
        (true, 500_000, 499_000),
    ] {
        let dead = name("dead");
        broker.create_topic(&dead, 1, &[("max.message.bytes", &limit.to_string())])?;
        let place = tempfile::tempdir()?;
        let job = Job::new(name("garbage")).checkpoint(crate::running::store(place.path()), millis(100));
        let (good, rejected) = job.source(kafka.topic(&topic).bounded().json::<Order>()).with_rejects();
        good.discard();
        let letters = kafka.to_topic(&dead).dead_letters();
        rejected.sink(if exactly_once { letters.exactly_once() } else { letters });
        accounted(&run(job)?, sizes.len() as u64, sizes.len() as u64);
        let letters = broker.committed(&dead)?;
        assert_eq!(letters.len(), sizes.len());
        for (letter, record) in letters.iter().zip(&records) {
            let at: usize = letter.header("windrow.offset").unwrap_or_default().parse()?;
            let size = sizes[at];
            assert_eq!(letter.time, 1_700_000_000_000 + at as i64);
            if size < whole {
                assert_eq!((letter.text(), letter.header("windrow.truncated")), (record.clone(), None), "{size}");
                assert_eq!(letter.header("n"), Some(at.to_string().as_str()));
            } else {
                assert_eq!((&letter.value, letter.header("windrow.excerpt")), (&None, Some(&record[..1024])), "{size}");
                // With its header.
                assert_eq!(letter.header("windrow.truncated"), Some((size + 2).to_string().as_str()));
            }
        }

        // To try them again is to meet the same garbage, and never a record that is none.
        let again = MemorySink::new();
        let job = Job::new("again");
        let (rows, rejected) = job.source(kafka.topic(&dead).bounded().raw()).with_rejects();
        rows.sink(again.clone());
        rejected.sink(kafka.to_topic(&dead).dead_letters());
        run(job)?;
        let cut = sizes.iter().filter(|size| **size >= whole).count();
        assert_eq!(again.rows(), sizes.len() - cut);
        let letters = broker.committed(&dead)?;
        assert_eq!(letters.len(), sizes.len() + cut);
        for letter in &letters[sizes.len()..] {
            assert_eq!(letter.header("windrow.topic"), Some(topic.as_str()), "where it came from first");
            assert!(letter.header("windrow.error").unwrap_or_default().contains("only the beginning of a record of"));
            let at: usize = letter.header("windrow.offset").unwrap_or_default().parse()?;
            assert_eq!(
                letter.header("windrow.truncated"),
                Some((sizes[at] + 2).to_string().as_str()),
                "and what it was"
            );
            assert_eq!((&letter.value, letter.header("windrow.excerpt")), (&None, Some(&records[at][..1024])));
        }
    }
    Ok(())
}

fn texts(sizes: &[usize]) -> MemorySource<Text> {
    // Text that no compression makes small.
    let mut random = fastrand::Rng::with_seed(3);
    let mut text = |size: usize| (0..size).map(|_| random.alphanumeric()).collect();
    MemorySource::records(sizes.iter().map(|size| Text { text: text(*size) }).collect())
}

#[test]
fn a_record_that_the_sink_cannot_write_ends_the_job_with_its_size() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let topic = broker.new_topic("small", 1)?;
    let length = 2_000_000 + r#"{"text":""}"#.len();

    // What the client does not take.
    let job = Job::new("client");
    job.source(texts(&[3, 2_000_000, 4])).sink(kafka.to_topic(&topic).json());
    let error = run(job).unwrap_err().to_string();
    let expected = format!(
        "#2 sink kafka {}, topic {topic}: a record of {length} bytes is larger than this client sends: \
         raise its message.max.bytes, and max.message.bytes of the topic",
        broker.address()
    );
    assert_eq!(error, expected);

    // What the broker does not take.
    let bold = kafka.clone().set("message.max.bytes", "10000000");
    let job = Job::new("broker");
    job.source(texts(&[3, 2_000_000, 4])).sink(bold.to_topic(&topic).json());
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains(&length.to_string()) && error.contains("max.message.bytes of the topic"), "{error}");

    // The same in a transaction, of which nothing is committed then.
    let (place, name) = (tempfile::tempdir()?, format!("large-{:08x}", fastrand::u32(..)));
    let (marked, before) = (Job::new(name).checkpoint(store(place.path()), secs(60)), broker.committed(&topic)?.len());
    marked.source(texts(&[3, 2_000_000, 4])).sink(bold.to_topic(&topic).json().exactly_once());
    let error = run(marked).unwrap_err().to_string();
    assert!(error.contains(&length.to_string()) && error.contains("max.message.bytes of the topic"), "{error}");
    assert_eq!(broker.committed(&topic)?.len(), before);

    // What both take.
    let roomy = format!("roomy-{:08x}", fastrand::u32(..));
    broker.create_topic(&roomy, 1, &[("max.message.bytes", "10000000")])?;
    let job = Job::new("roomy");
    job.source(texts(&[3, 2_000_000, 4])).sink(bold.to_topic(&roomy).json());
    run(job)?;
    let lengths: Vec<usize> = values(&broker.committed(&roomy)?).iter().map(String::len).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 14 + length + 15);
    Ok(())
}
