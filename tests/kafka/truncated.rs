//! A cluster that loses records which it had confirmed, and has others in their place.

use tests::broker::{
    Broker, Options, Result,
    proxy::{Api, Fault, Rule},
};
use windrow::prelude::*;

use crate::{
    running::{has_read, store, while_running},
    starts::{Number, numbers},
};

/// The job is not let in while the log grows again beyond where it stands: only librdkafka's look at the epochs shows it.
#[test]
fn records_that_were_replaced_end_the_job() -> Result<()> {
    let data = tempfile::tempdir()?;
    let options = Options::default().proxied().set("log.dirs", data.path().display());
    let Some(broker) = Broker::own(options) else { return Ok(()) };
    let (topic, place) = (broker.new_topic("replaced", 1)?, tempfile::tempdir()?);
    let proxy = broker.proxy()?;
    broker.produce(&topic, numbers(0..50, 0))?;
    let job = Job::new("replaced").checkpoint(store(place.path()), hours(1)).restarts(Restarts::at_most(3));
    job.source(Kafka::brokers(proxy.address()).topic(&topic).json::<Number>()).discard();
    let error = while_running(job, async |job| {
        has_read(job, 50).await;
        broker.kill().unwrap();
        let shut = [Api::Metadata, Api::Fetch, Api::ListOffsets].map(|api| Rule::of(api, Fault::DropRequest));
        proxy.inject(1, shut).unwrap();
        std::fs::remove_dir_all(data.path().join(format!("{topic}-0"))).unwrap();
        broker.restart().unwrap();
        broker.produce(&topic, numbers(1_000..1_100, 0)).unwrap();
        proxy.heal();
        tokio::time::sleep(secs(60)).await;
    });
    let error = error.unwrap_err().to_string();
    let expected = format!("{topic}/0, offset 50: the cluster has lost records of {topic}/0 that it had confirmed");
    assert!(error.contains(&expected), "{error}");
    Ok(())
}
