//! The proxy loses what it is told to lose, and clients get over it.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientContext, Message as _,
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tests::broker::{
    Broker, Options, Result,
    proxy::{Api, Fault, ResponseError, Rule},
};

use super::{PATIENCE, values};

#[test]
fn the_proxy_loses_what_it_is_told_to_lose() -> Result<()> {
    let Some(broker) = Broker::own(Options::default().proxied()) else { return Ok(()) };
    let proxy = broker.proxy()?;
    let topic = broker.new_topic("proxied", 2)?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", proxy.address()).set("log_level", "0");
    config.set("transactional.id", &topic);
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(PATIENCE)?;
    let mut expected = Vec::new();
    let mut transact = |rules: Vec<Rule>| -> Result<()> {
        proxy.inject(1, rules)?;
        producer.begin_transaction()?;
        for partition in 0..2 {
            let value = expected.len().to_string();
            let record = BaseRecord::<(), str>::to(&topic).payload(&value).partition(partition);
            producer.send(record).map_err(|(error, _)| error)?;
            expected.push(value);
        }
        Ok(producer.commit_transaction(PATIENCE)?)
    };
    let once = |api, fault| vec![Rule::of(api, fault).times(1)];
    transact(once(Api::EndTxn, Fault::DropReply))?;
    transact(once(Api::EndTxn, Fault::DropRequest))?;
    let answers = [ResponseError::NotCoordinator, ResponseError::ConcurrentTransactions];
    for error in answers.into_iter().chain([ResponseError::CoordinatorLoadInProgress]) {
        transact(once(Api::EndTxn, Fault::Answer(error)))?;
    }
    assert_eq!(proxy.faults(Api::EndTxn), 5);
    transact(once(Api::AddPartitionsToTxn, Fault::Answer(ResponseError::ConcurrentTransactions)))?;
    transact(once(Api::Produce, Fault::DropReply))?;
    transact(vec![Rule::of(Api::Produce, Fault::DropRequest).after(1).times(1)])?;
    let begin = Instant::now();
    let delay = Duration::from_millis(400);
    transact(once(Api::EndTxn, Fault::DelayReply(delay)))?;
    assert!(begin.elapsed() >= delay);
    proxy.heal();
    proxy.cut();
    transact(Vec::new())?;
    assert!(proxy.inject(1, once(Api::Fetch, Fault::Answer(ResponseError::NotCoordinator))).is_err());

    // Each once, however often it was sent.
    let mut found = values(&broker.committed(&topic)?);
    found.sort_unstable_by_key(|value| value.parse::<usize>().ok());
    assert_eq!(found, expected);
    let counts = proxy.counts();
    assert!(counts.requests["EndTxn"] >= 15 && counts.connections >= 5, "{counts:?}");
    assert_eq!((counts.faults["EndTxn"], counts.faults["AddPartitionsToTxn"]), (6, 1), "{counts:?}");
    assert!(counts.faults["Produce"] >= 1, "{counts:?}");

    // A second life, whose coordinator is hard to find.
    let late = Fault::Answer(ResponseError::CoordinatorLoadInProgress);
    let nowhere = Fault::Answer(ResponseError::CoordinatorNotAvailable);
    proxy.inject(1, [once(Api::InitProducerId, late), once(Api::FindCoordinator, nowhere)].concat())?;
    let heir: BaseProducer = config.create()?;
    heir.init_transactions(PATIENCE)?;
    assert_eq!((proxy.faults(Api::InitProducerId), proxy.faults(Api::FindCoordinator)), (1, 1));
    producer.begin_transaction()?;
    let record = BaseRecord::<(), str>::to(&topic).payload("of a zombie");
    producer.send(record).map_err(|(error, _)| error)?;
    assert!(producer.commit_transaction(PATIENCE).is_err(), "the first life is over");

    // And a consumer, whose connections end in the middle.
    proxy.inject(7, [Rule::of(Api::Fetch, Fault::DropReply).chance(0.5).times(3)])?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", proxy.address()).set("group.id", "g").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer<Silent> = config.set("log_level", "0").create_with_context(Silent)?;
    consumer.subscribe(&[&topic])?;
    let mut seen = 0;
    let until = Instant::now() + PATIENCE;
    while seen < expected.len() && Instant::now() < until {
        // A lost connection is an event, not the end.
        seen +=
            usize::from(consumer.poll(LOOK).is_some_and(|found| found.is_ok_and(|found| found.payload().is_some())));
    }
    assert_eq!(seen, expected.len());
    Ok(())
}

const LOOK: Duration = Duration::from_millis(50);

/// A consumer that says nothing of lost connections.
struct Silent;

impl ClientContext for Silent {
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Silent {}
