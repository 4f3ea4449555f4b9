//! A job over what topics hold when it begins: the same records in every start, and a word when there are none left.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tests::{
    broker::{Broker, Result},
    on_two_threads, run, wait_for,
};
use windrow::{Report, connectors::kafka::KafkaInput, prelude::*};

use crate::{
    running::{accounted, store, until, while_running},
    starts::{Number, numbers, seen},
};

/// Runs a job that fails at number 10, when its first checkpoint is there and `meanwhile` is done. With `restarts` it is started
/// again at once.
pub(crate) fn crash(
    input: KafkaInput,
    job: Job,
    restarts: u32,
    to: impl FnOnce(Stream<Number>),
    meanwhile: impl Fn() + Send + Sync + 'static,
) -> windrow::Result<Report> {
    let (begun, crashes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let has_begun = begun.clone();
    let meanwhile = Arc::new(meanwhile);
    let job = job.parallelism(2).restarts(Restarts::at_most(restarts).waiting(millis(10)..=millis(10)));
    let numbers = job.source(input.bounded().json::<Number>()).filter(move |number| {
        if number.n == 10 && crashes.swap(false, Relaxed) {
            wait_for(&has_begun);
            meanwhile();
            panic!("a crash");
        }
        true
    });
    to(numbers);
    on_two_threads(async {
        let running = job.start().await?;
        let handle = running.handle();
        let watch = async {
            until("it has begun", || handle.metrics().checkpoints.completed > 0).await;
            begun.store(true, Relaxed);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = running.wait() => ended,
            () = watch => unreachable!(),
        }
    })
}

#[test]
fn every_start_reads_to_where_the_topic_ended_when_the_job_began() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, place) = (broker.new_topic("bounded", 2)?, tempfile::tempdir()?);
    // One partition ends with the marker of a transaction.
    broker.transaction(&topic, numbers(0..20, 0), true)?;
    broker.produce(&topic, numbers(100..120, 1))?;
    let (kafka, out) = (Kafka::brokers(broker.address()), MemorySink::new());
    let job = |name: &str| Job::new(name).checkpoint(store(place.path()), hours(1));
    let grown = topic.clone();
    let to = out.clone();
    let grow = move || {
        broker.produce(&grown, numbers(20..30, 0).chain(numbers(120..130, 1))).unwrap();
        broker.create_partitions(&grown, 3).unwrap();
        broker.produce(&grown, numbers(200..210, 2)).unwrap();
    };
    let report = crash(kafka.topic(&topic), job("bounded"), 1, |numbers| numbers.sink(to), grow)?;
    let expected: Vec<i64> = (0..20).chain(100..120).collect();
    assert_eq!(seen(&out), expected);
    let never_read = format!("have come since: {topic}/2. To read them, start another job");
    assert!(report.warnings.len() == 1 && report.warnings[0].contains(&never_read), "{:?}", report.warnings);
    accounted(&report, 40, 0);

    // It has finished, and what has come since belongs to another job.
    let again = |name: &str, out: &MemorySink| {
        let job = job(name);
        job.source(kafka.topic(&topic).bounded().json::<Number>()).sink(out.clone());
        run(job)
    };
    let report = again("bounded", &out)?;
    let said = report.warnings.join("\n");
    assert!(said.contains("job \"bounded\" has finished") && said.contains("another name"), "{said}");
    accounted(&report, 0, 0);
    assert_eq!(seen(&out), expected);
    // Nor does it go on as a job that waits for more.
    let endless = job("bounded");
    endless.source(kafka.topic(&topic).discover_every(hours(1)).json::<Number>()).sink(out.clone());
    let report = while_running(endless, async |job| {
        let said = job.warnings().join("\n");
        assert!(
            said.contains("has finished") && said.contains("nothing but splits (partitions, files) that are new"),
            "{said}"
        );
    })?;
    accounted(&report, 0, 0);
    assert_eq!((report.stopped, report.warnings.len()), (true, 1));
    let all = MemorySink::new();
    assert_eq!(again("bounded-2", &all)?.warnings, [""; 0]);
    assert_eq!(seen(&all), (0..30).chain(100..130).chain(200..210).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn an_end_that_a_topic_does_not_reach_any_more_is_said() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let (topic, place) = (broker.new_topic("remade", 1)?, tempfile::tempdir()?);
    broker.produce(&topic, numbers(0..20, 0))?;
    let kafka = Kafka::brokers(broker.address());
    let job = || Job::new("remade").checkpoint(store(place.path()), hours(1));
    let error = crash(kafka.topic(&topic), job(), 0, Stream::discard, || {}).unwrap_err().to_string();
    assert!(error.contains("a crash"), "{error}");
    broker.delete_topic(&topic)?;
    broker.create_topic(&topic, 1, &[])?;
    broker.produce(&topic, numbers(0..5, 0))?;
    let error = crash(kafka.topic(&topic), job(), 0, Stream::discard, || {}).unwrap_err().to_string();
    let expected = format!(
        "{topic}/0, offset 0: when the job began {topic}/0 ended at 20, and it is to be read to there; now it \
                            ends at 5: the topic was deleted and made again"
    );
    assert!(error.contains(&expected), "{error}");
    Ok(())
}
