//! Whose records are read: those of committed transactions, or all; and that what a transaction leaves in the log is no record.

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tests::{
    broker::{Broker, Result},
    run,
};
use windrow::prelude::*;

use crate::{
    running::{accounted, has_read, source, until, while_running},
    starts::{Number, numbers, seen},
};

#[test]
fn what_was_aborted_is_no_row_and_markers_are_no_lag() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("transactions", 2)?;
    broker.transaction(&topic, numbers(0..10, 0), true)?;
    broker.transaction(&topic, numbers(100..110, 0).chain(numbers(200..205, 1)), false)?;
    broker.produce(&topic, numbers(10..20, 0))?;
    broker.transaction(&topic, numbers(20..25, 0), false)?;
    let kafka = Kafka::brokers(broker.address());
    let all: Vec<i64> = (0..25).chain(100..110).chain(200..205).collect();
    for (isolation, expected) in
        [(Isolation::ReadCommitted, (0..20).collect::<Vec<_>>()), (Isolation::ReadUncommitted, all)]
    {
        let out = MemorySink::new();
        let job = Job::new("bounded").parallelism(2);
        job.source(kafka.topic(&topic).isolation(isolation).bounded().json::<Number>()).sink(out.clone());
        accounted(&run(job)?, expected.len() as u64, 0);
        assert_eq!(seen(&out), expected, "{isolation:?}");
        // Partition 0 ends with a marker, and partition 1 has nothing else.
        let job = Job::new("endless");
        job.source(kafka.topic(&topic).isolation(isolation).json::<Number>()).discard();
        while_running(job, async |job| {
            has_read(job, expected.len() as u64).await;
            until("the lag is 0", || source(job).lag == Some(0)).await;
        })?;
    }
    Ok(())
}

#[test]
fn records_of_a_transaction_are_read_when_it_is_committed_and_not_before() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("open", 1)?;
    let mut config = broker.config();
    let producer: BaseProducer = config.set("transactional.id", &topic).create()?;
    let patience = secs(20);
    producer.init_transactions(patience)?;
    producer.begin_transaction()?;
    producer.send(BaseRecord::<(), str>::to(&topic).payload(r#"{"n":1}"#)).map_err(|(error, _)| error)?;
    producer.flush(patience)?;
    broker.produce(&topic, numbers(2..3, 0))?;
    let kafka = Kafka::brokers(broker.address());
    let (out, all) = (MemorySink::new(), MemorySink::new());
    let job = Job::new("patient");
    job.source(kafka.topic(&topic).json::<Number>()).sink(out.clone());
    job.source(kafka.topic(&topic).isolation(Isolation::ReadUncommitted).json::<Number>()).sink(all.clone());
    while_running(job, async |job| {
        let read = || job.metrics().named("source").map(|source| source.rows_in).collect::<Vec<_>>();
        until("the one that reads all has read them", || read() == [0, 2]).await;
        producer.commit_transaction(patience).unwrap();
        until("both have", || read() == [2, 2]).await;
    })?;
    assert_eq!((seen(&out), seen(&all)), (vec![1, 2], vec![1, 2]));
    Ok(())
}
