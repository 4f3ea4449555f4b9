//! Partitions that stand still: they are taken up again, and those that have a reason are left alone. A look takes ten milliseconds
//! here.

use rdkafka::{
    ClientConfig, Message,
    mocking::MockCluster,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use super::{
    super::{
        feed::{Event, Feed},
        topics::Topics,
    },
    *,
};

/// So many looks, and many more on a machine that is busy.
async fn looks(count: u32) {
    tokio::time::sleep(Duration::from_millis(10) * count).await;
}

/// So many more numbers in a partition.
fn write(world: &World, number: i32, count: usize) {
    world.log(at(0, number), |log| (0..count).for_each(|_| log.append_number()));
}

/// The numbers up to so many, which must come within a while.
async fn numbers_until(reader: &mut KafkaReader, count: usize) -> Vec<i64> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(values(&rows(reader).await));
    }
    all
}

/// A reader of all partitions of a world, at the ends of which it is.
async fn at_ends(world: &World, partitions: i32, stumbles: bool) -> KafkaReader {
    let all: Vec<_> = (0..partitions).map(|number| (at(0, number), None)).collect();
    (0..partitions).for_each(|number| write(world, number, 20));
    let source = input().json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(7, stumbles), &all).await.unwrap();
    let (fetched, end) = drain(&mut reader).await;
    end.unwrap();
    assert_eq!(fetched.iter().flat_map(values).count(), 20 * partitions as usize);
    reader
}

#[tokio::test]
async fn what_stands_still_is_taken_up_again_and_nothing_is_lost_or_repeated() {
    for stumbles in [false, true] {
        let world = World::new(&[1]);
        write(&world, 0, 500);
        world.lock().stuck.insert(at(0, 0), 4);
        let source = input().json_with(numbers());
        let mut reader = open(&plan(&source), world.feed(3, stumbles), &[(at(0, 0), None)]).await.unwrap();
        assert_eq!(numbers_until(&mut reader, 500).await, (0..500).collect::<Vec<_>>());
        // The first is that of the start.
        assert!(world.lock().assigned.len() >= 4);
        let (rest, end) = drain(&mut reader).await;
        end.unwrap();
        assert!(rest.iter().all(|rows| values(rows).is_empty()), "{rest:?}");
    }
}

#[tokio::test]
async fn what_stood_still_at_its_end_is_taken_up_when_the_cluster_has_more() {
    let world = World::new(&[2]);
    let mut reader = at_ends(&world, 2, true).await;
    world.lock().stuck.insert(at(0, 0), 1);
    write(&world, 0, 30);
    assert_eq!(numbers_until(&mut reader, 30).await, (20..50).collect::<Vec<_>>());
    let assigned = world.lock().assigned.clone();
    assert_eq!(assigned.iter().skip(2).copied().collect::<Vec<_>>(), [(at(0, 0), 20)], "and not the other one");
}

#[tokio::test]
async fn a_client_that_has_forgotten_its_brokers_is_replaced_at_once() {
    for stumbles in [false, true] {
        let world = World::new(&[3]);
        let mut reader = at_ends(&world, 3, stumbles).await;
        reader.pause(&[split("a/2")]);
        {
            let mut world = world.lock();
            (world.hopeless, world.brokerless, world.stuck) = (true, true, [(at(0, 1), 1)].into());
        }
        (0..3).for_each(|number| write(&world, number, 10));
        let mut read = numbers_until(&mut reader, 20).await;
        read.sort_unstable();
        assert_eq!(read, (20..30).flat_map(|number| [number, number]).collect::<Vec<_>>());
        // Where each stood, by one new client, and nothing of what is paused.
        let assigned = world.lock().assigned.clone();
        assert_eq!(assigned[3..], [(at(0, 0), 20), (at(0, 1), 20), (at(0, 2), 20)]);
        assert_eq!(world.lock().renewed, 1);
        assert!(next(&mut reader).await.is_none());
        reader.pause(&[]);
        assert_eq!(numbers_until(&mut reader, 10).await, (20..30).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_client_of_which_nothing_comes_is_replaced_when_taking_up_was_of_no_use() {
    let world = World::new(&[2]);
    let mut reader = at_ends(&world, 2, true).await;
    world.lock().hopeless = true;
    write(&world, 0, 30);
    assert_eq!(numbers_until(&mut reader, 30).await, (20..50).collect::<Vec<_>>());
    let assigned = world.lock().assigned.clone();
    // In place, and then both of them.
    assert_eq!(assigned[2..], [(at(0, 0), 20), (at(0, 0), 20), (at(0, 1), 20)]);
    assert_eq!(world.lock().renewed, 1);
}

#[tokio::test]
async fn those_at_their_ends_are_left_alone_and_asked_for_all_at_once() {
    let world = World::new(&[50]);
    let mut reader = at_ends(&world, 50, false).await;
    // The end that is decided stays where it is, whatever is behind it.
    world.lock().open.insert(at(0, 0), 1_000);
    looks(300).await;
    assert_eq!(world.lock().assigned.len(), 50);
    let asked = world.lock().asked.clone();
    assert!((1..8).contains(&asked.len()) && asked.iter().any(|of| of.len() == 50), "{asked:?}");
    assert!(next(&mut reader).await.is_none());
}

#[tokio::test]
async fn paused_ones_are_left_alone() {
    let world = World::new(&[2]);
    let mut reader = at_ends(&world, 2, false).await;
    reader.pause(&[split("a/1")]);
    write(&world, 1, 10);
    looks(200).await;
    assert_eq!(world.lock().assigned.len(), 2);
    reader.pause(&[]);
    assert_eq!(numbers_until(&mut reader, 10).await, (20..30).collect::<Vec<_>>());
    assert_eq!(world.lock().assigned.len(), 2);
}

#[tokio::test]
async fn what_nothing_helps_is_an_error_that_another_start_may_mend() {
    let world = World::new(&[2]);
    let mut reader = at_ends(&world, 2, false).await;
    world.lock().stuck.insert(at(0, 1), u32::MAX);
    world.lock().away = true;
    write(&world, 1, 5);
    // Nobody can say whether there is more.
    looks(300).await;
    assert!(next(&mut reader).await.is_none());
    world.lock().away = false;
    let error = tokio::time::timeout(4 * PATIENCE, reader.fetch()).await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectorError::Remote { passes: true, .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("topic a") && text.contains("a/1 ends at 25, and nothing comes of it from offset 20 on"),
        "{text}"
    );
}

/// The offsets of the records that come of a partition, until so many have come.
fn offsets(topics: &Topics, count: usize) -> Vec<i64> {
    let begun = std::time::Instant::now();
    let mut offsets = Vec::new();
    while offsets.len() < count {
        if let Some(Event::Record { record, .. }) = topics.poll(Duration::from_millis(50)) {
            offsets.push(record.offset());
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{offsets:?}");
    }
    offsets
}

/// librdkafka's own client.
#[test]
fn another_client_reads_on_where_the_former_stood() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("a", 1, 1).unwrap();
    let source = Kafka::brokers(cluster.bootstrap_servers()).topic("a").json_with(numbers());
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for _ in 0..20 {
        producer
            .send(BaseRecord::<(), _>::to("a").partition(0).payload(r#"{"v": 1}"#))
            .map_err(|(error, _)| error)
            .unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let mut topics = Topics::new(plan(&source), Some((Ends::default(), 1)));
    topics.assign(&[(at(0, 0), 0)]).unwrap();
    assert_eq!(offsets(&topics, 10), (0..10).collect::<Vec<_>>());
    assert!(topics.knows_brokers(0));
    topics.renew(0).unwrap();
    topics.assign(&[(at(0, 0), 10)]).unwrap();
    topics.pause(&[at(0, 0)]).unwrap();
    topics.resume(&[at(0, 0)]).unwrap();
    assert_eq!(offsets(&topics, 10), (10..20).collect::<Vec<_>>());
}
