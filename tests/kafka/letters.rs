//! Dead letters in topics that take little: many at once, some of them cut, and all of them to be seen.

use tests::{
    broker::{
        Broker, Message, Options, Result,
        proxy::{Api, Fault, Rule},
        verify::Record as Found,
    },
    run,
};
use windrow::{
    JobHandle,
    arrow::array::{Array, AsArray},
    prelude::*,
};

use crate::{
    running::{accounted, source, store, until, values, while_running},
    windows::Order,
};

const LETTERS: usize = 1_000;
const SMALL: (&str, &str) = ("max.message.bytes", "20000");

fn name(name: &str) -> String {
    format!("{name}-{:08x}", fastrand::u32(..))
}

/// A topic of records that are none, of these sizes; no compression makes them small.
fn garbage(broker: &Broker, sizes: impl IntoIterator<Item = usize>) -> Result<(String, Vec<String>)> {
    let topic = name("garbage");
    broker.create_topic(&topic, 1, &[("max.message.bytes", "10000000")])?;
    let mut random = fastrand::Rng::with_seed(7);
    let mut text = |size: usize| (0..size).map(|_| random.alphanumeric()).collect::<String>();
    let records: Vec<_> = sizes.into_iter().map(&mut text).collect();
    broker.produce(&topic, records.iter().map(|record| Message::of(record.clone()).key("k")))?;
    Ok((topic, records))
}

/// Buries all of a topic.
fn bury(kafka: &Kafka, from: &str, dead: &str, exactly_once: bool) -> Result<windrow::Report> {
    let place = tempfile::tempdir()?;
    let job = Job::new(name("buries")).checkpoint(store(place.path()), millis(200));
    let (good, rejected) = job.source(kafka.topic(from).bounded().json::<Order>()).with_rejects();
    good.discard();
    let letters = kafka.to_topic(dead).dead_letters();
    rejected.sink(if exactly_once { letters.exactly_once() } else { letters });
    Ok(run(job)?)
}

fn texts(letters: &[Found]) -> Vec<String> {
    letters.iter().map(Found::text).collect()
}

/// A broker refuses a batch that is larger than its topic takes, and the job would end, at every start again.
#[test]
fn many_letters_at_once_fit_into_a_topic_that_takes_little() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, records) = garbage(broker, std::iter::repeat_n(5_000, LETTERS))?;
    for compression in ["none", "lz4", "zstd"] {
        for exactly_once in [false, true] {
            let dead = name("dead");
            broker.create_topic(&dead, 1, &[SMALL])?;
            let kafka = Kafka::brokers(broker.address()).set("compression.type", compression);
            accounted(&bury(&kafka, &topic, &dead, exactly_once)?, LETTERS as u64, LETTERS as u64);
            let letters = broker.committed(&dead)?;
            assert!(texts(&letters) == records, "{compression}, {exactly_once}: {} letters", letters.len());
        }
    }
    Ok(())
}

/// Other rows are written to such a topic too; the batches of a user are as large as they want, if the topic takes them.
#[test]
fn other_rows_fit_too_whatever_batches_the_user_wants() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, records) = garbage(broker, std::iter::repeat_n(5_000, LETTERS))?;
    let output = name("output");
    broker.create_topic(&output, 1, &[SMALL])?;
    let kafka = Kafka::brokers(broker.address()).set("batch.size", "900000");
    let job = Job::new("copies");
    job.source(kafka.topic(&topic).bounded().raw()).sink(kafka.to_topic(&output).raw());
    run(job)?;
    assert!(texts(&broker.committed(&output)?) == records);
    Ok(())
}

#[test]
fn the_limit_of_a_broker_counts_and_is_asked_for_until_it_is_known() -> Result<()> {
    let options = Options::default().set("message.max.bytes", 20_000).proxied();
    let Some(broker) = Broker::own(options) else { return Ok(()) };
    let sizes = std::iter::repeat_n(5_000, 200).chain([50_000]);
    let (topic, records) = garbage(&broker, sizes)?;
    let kafka = Kafka::brokers(broker.proxy()?.address());
    let lost = Rule::of(Api::DescribeConfigs, Fault::DropRequest);
    for exactly_once in [false, true] {
        let dead = broker.new_topic("dead", 1)?;
        broker.proxy()?.inject(1, [lost.clone().times(1)])?;
        accounted(&bury(&kafka, &topic, &dead, exactly_once)?, 201, 201);
        let letters = broker.committed(&dead)?;
        let (cut, whole) = letters.split_last().expect("letters");
        assert!(texts(whole) == records[..200], "{} letters", letters.len());
        assert_eq!((&cut.value, cut.header("windrow.truncated")), (&None, Some("50001")));
    }
    assert!(broker.proxy()?.faults(Api::DescribeConfigs) > 0);

    // Nobody answers for as long as it asks: that start fails, and the next one knows.
    for exactly_once in [false, true] {
        let dead = broker.new_topic("dead", 1)?;
        let before = broker.proxy()?.faults(Api::DescribeConfigs);
        broker.proxy()?.inject(1, [lost.clone().times(3)])?;
        accounted(&bury(&kafka, &topic, &dead, exactly_once)?, 201, 201);
        assert_eq!(broker.proxy()?.faults(Api::DescribeConfigs), before + 3);
        assert!(texts(&broker.committed(&dead)?[..200]) == records[..200]);
    }
    Ok(())
}

/// Its batches were what the topic took when the job began. The next start asks again.
#[test]
fn a_topic_that_takes_less_than_when_the_job_began_does_not_end_it() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    for exactly_once in [false, true] {
        let (topic, mut records) = garbage(broker, std::iter::repeat_n(5_000, 10))?;
        let (output, place) = (broker.new_topic("output", 1)?, tempfile::tempdir()?);
        let job = Job::new(name("copies")).checkpoint(store(place.path()), millis(100));
        let sink = kafka.to_topic(&output).raw();
        job.source(kafka.topic(&topic).raw()).sink(if exactly_once { sink.exactly_once() } else { sink });
        while_running(job, async |job: &JobHandle| {
            let there = || values(&broker.committed(&output).expect("records"));
            until("the first are there", || there().len() >= 10).await;
            broker.set_topic(&output, SMALL.0, SMALL.1).expect("a smaller topic");
            let (_, more) = garbage(broker, std::iter::repeat_n(5_001, 300)).expect("more of it");
            broker.produce(&topic, more.iter().map(|record| Message::of(record.clone()).key("k"))).expect("produced");
            records.extend(more);
            records.sort_unstable();
            until("the others are there too", || {
                let mut there = there();
                if !exactly_once {
                    there.dedup();
                }
                there.len() >= records.len()
            })
            .await;
            assert!(source(job).rows_in < records.len() as u64, "no batch was too large: it was not started again");
        })?;
        let mut there = values(&broker.committed(&output)?);
        if !exactly_once {
            there.dedup();
        }
        assert!(there == records, "{exactly_once}: {} of {}", there.len(), records.len());
    }
    Ok(())
}

/// Listed, and then rejected for its event time: it is no whole letter then, and a tombstone is no empty record.
#[test]
fn what_has_no_value_has_none_when_it_is_a_letter_again() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, dead) = (name("odd"), broker.new_topic("dead", 1)?);
    broker.create_topic(&topic, 1, &[("message.timestamp.after.max.ms", "9223372036854775807")])?;
    // A time that the engine cannot keep.
    let late = |message: Message| message.time(5_000_000_000_000_000);
    let cut = Message::null().key("cut").header("windrow.error", "no").header("windrow.topic", "first");
    let cut = cut.header("windrow.truncated", "5000000").header("windrow.excerpt", "{\"v\":");
    let others = [Message::null().key("gone"), Message::of("").key("empty"), Message::of("whole").key("whole")];
    broker.produce(&topic, std::iter::once(cut).chain(others).map(late))?;

    let kafka = Kafka::brokers(broker.address());
    let (job, listed) = (Job::new("lists"), kafka.topic(&topic).bounded().headers_column("h").timestamp_column("at"));
    let watermarks = Watermarks::out_of_order(secs(1));
    let (rows, rejected) = job.source(listed.raw()).event_time("at", watermarks).with_rejects();
    rows.discard();
    rejected.sink(kafka.to_topic(&dead).dead_letters());
    accounted(&run(job)?, 4, 4);
    let letters = broker.committed(&dead)?;
    let [cut, gone, empty, whole] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((&cut.value, cut.header("windrow.truncated")), (&None, Some("5000000")));
    assert_eq!((cut.header("windrow.excerpt"), cut.header("windrow.topic")), (Some("{\"v\":"), Some("first")));
    assert_eq!((&gone.value, gone.header("windrow.truncated")), (&None, None));
    assert_eq!((empty.value.as_deref(), whole.text().as_str()), (Some(&b""[..]), "whole"));
    Ok(())
}

#[test]
fn letters_that_were_cut_can_be_seen_and_copied_and_are_no_rows_otherwise() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, records) = garbage(broker, [10, 50_000, 20])?;
    let (dead, copy) = (name("dead"), broker.new_topic("copy", 1)?);
    broker.create_topic(&dead, 1, &[SMALL])?;
    let kafka = Kafka::brokers(broker.address());
    bury(&kafka, &topic, &dead, false)?;
    let letters = broker.committed(&dead)?;

    let job = Job::new("lists");
    let (seen, input) = (MemorySink::new(), kafka.topic(&dead).bounded().key_column("k").headers_column("h"));
    let listed = job.source(input.raw()).drop_rejects();
    listed.clone().sink(seen.clone());
    listed.sink(kafka.to_topic(&copy).key("k").headers_column("h").raw());
    accounted(&run(job)?, 3, 0);
    let batches = seen.batches();
    let cut = batches.iter().flat_map(|batch| {
        let (values, headers) = (batch.column(0).as_binary::<i32>().clone(), batch.column(2).as_map().clone());
        (0..batch.num_rows()).filter(move |&row| values.is_null(row)).map(move |row| headers.value(row))
    });
    let cut: Vec<_> = cut.collect();
    let [headers] = cut.as_slice() else { panic!("{cut:?}") };
    let (names, values) = (headers.column(0).as_string::<i32>(), headers.column(1).as_binary::<i32>());
    let excerpt = (0..headers.len()).find(|&at| names.value(at) == "windrow.excerpt").map(|at| values.value(at));
    assert_eq!(excerpt, Some(&records[1].as_bytes()[..1024]));
    let all = |records: &[Found]| {
        records.iter().map(|one| (one.key.clone(), one.value.clone(), one.headers.clone())).collect::<Vec<_>>()
    };
    assert_eq!(all(&broker.committed(&copy)?), all(&letters), "a copy is what it was");

    for (n, source) in
        [kafka.topic(&dead).bounded().raw(), kafka.topic(&dead).bounded().infer_csv(["a"], 10)?].into_iter().enumerate()
    {
        let (job, rows) = (Job::new("reads"), MemorySink::new());
        job.source(source).drop_rejects().sink(rows.clone());
        accounted(&run(job)?, 3, 1);
        assert_eq!(rows.rows(), 2, "{n}");
    }
    Ok(())
}
