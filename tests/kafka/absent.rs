//! What is not there: brokers, topics, and a topic that goes while it is read.

use tests::{
    broker::{Broker, Message, Result},
    on_two_threads, run,
};
use windrow::prelude::*;

use crate::{
    running::{has_read, while_running},
    windows::{Order, order, orders},
};

/// A port at which nobody listens.
const NOBODY: &str = "127.0.0.1:1";

fn copy(from: &Kafka, input: &str, to: &Kafka, output: &str) -> Job {
    let job = Job::new("copy");
    job.source(from.topic(input).json::<Order>()).sink(to.to_topic(output).json());
    job
}

#[test]
fn brokers_that_cannot_be_reached_are_named() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (kafka, nobody) = (Kafka::brokers(broker.address()), Kafka::brokers(NOBODY));
    let topic = broker.new_topic("there", 1)?;
    let (source, sink) = (copy(&nobody, &topic, &kafka, &topic), copy(&kafka, &topic, &nobody, &topic));
    let (source, sink) = on_two_threads(async { tokio::join!(source.run(), sink.run()) });
    for (error, operator) in [(source.unwrap_err(), "#1 source"), (sink.unwrap_err(), "#2 sink")] {
        let error = error.to_string();
        assert!(error.starts_with(&format!("{operator} kafka {NOBODY}, topic {topic}: ")), "{error}");
        assert_eq!(error.matches("kafka ").count(), 1, "{error}");
        assert!(error.contains("Connection refused"), "{error}");
    }
    Ok(())
}

#[test]
fn topics_that_are_not_there_are_named_at_once() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let topic = broker.new_topic("there", 1)?;
    let error = run(copy(&kafka, "no-such-orders", &kafka, &topic)).unwrap_err().to_string();
    let at = format!("kafka {}", broker.address());
    let expected = format!(
        "#1 source {at}, topic no-such-orders: there is no topic no-such-orders, or this user may not see it: make it, or \
         mend its name or the rights"
    );
    assert_eq!(error, expected);
    let error = run(copy(&kafka, &topic, &kafka, "no-such-alerts")).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("#2 sink {at}, topic no-such-alerts: topic \"no-such-alerts\" does not exist")),
        "{error}"
    );
    let error = run(copy(&kafka, "not a topic/", &kafka, &topic)).unwrap_err().to_string();
    assert!(error.contains("not a topic/"), "{error}");
    Ok(())
}

#[test]
fn a_topic_that_is_deleted_ends_the_job_that_reads_it() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let (input, output) = (broker.new_topic("deleted", 2)?, broker.new_topic("kept", 1)?);
    broker.produce(&input, orders(50).iter().map(order))?;
    let place = tempfile::tempdir()?;
    let job = copy(&kafka, &input, &kafka, &output).checkpoint(crate::running::store(place.path()), hours(1));
    let error = while_running(job, async |job| {
        has_read(job, 50).await;
        broker.delete_topic(&input).unwrap();
        std::future::pending::<()>().await;
    });
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with(&format!("#1 source kafka {}, topic {input}: ", broker.address())), "{error}");
    assert!(error.contains(&format!("{input}/")) && error.contains("the topic was deleted"), "{error}");
    Ok(())
}

#[test]
fn a_topic_that_is_made_again_is_another_one() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address());
    let (input, output) = (broker.new_topic("again", 1)?, broker.new_topic("kept", 1)?);
    broker.produce(&input, orders(50).iter().map(order))?;
    let job = copy(&kafka, &input, &kafka, &output);
    let error = while_running(job, async |job| {
        has_read(job, 50).await;
        broker.delete_topic(&input).unwrap();
        broker.create_topic(&input, 1, &[]).unwrap();
        // Fewer than were read. A log that has grown past the position before the next fetch looks like the former one to a client
        // that is not told the id of a topic: that limit is in the book.
        broker.produce(&input, orders(20).iter().map(order)).unwrap();
        std::future::pending::<()>().await;
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("the topic was deleted"), "{error}");
    Ok(())
}

#[test]
fn a_topic_that_is_deleted_ends_the_job_that_writes_it() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let kafka = Kafka::brokers(broker.address()).set("topic.metadata.propagation.max.ms", "1000");
    let (input, output) = (broker.new_topic("kept", 2)?, broker.new_topic("deleted", 1)?);
    let job = copy(&kafka, &input, &kafka, &output);
    let error = while_running(job, async |job| {
        broker.produce(&input, orders(50).iter().map(order)).unwrap();
        has_read(job, 50).await;
        broker.delete_topic(&output).unwrap();
        loop {
            broker.produce(&input, [Message::of(r#"{"user":"u","amount":1,"at":"2026-01-01T00:00:00Z"}"#)]).unwrap();
            tokio::time::sleep(millis(50)).await;
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with(&format!("#2 sink kafka {}, topic {output}: ", broker.address())), "{error}");
    // The partition is named if the record had one before the topic went.
    assert!(error.contains(&format!("cannot write a record of 51 bytes to topic {output}")), "{error}");
    assert!(!error.contains("partition -1"), "{error}");
    Ok(())
}
