//! The edges: ends without records, pauses when all has been read, a task that takes nothing for long, records that are small and
//! become large, and a cluster that does not answer for a while.

use super::*;
use crate::{Source, kafka::source::tests::fake::Written};

fn written(payload: &[u8]) -> Written {
    Written { payload: Some(payload.to_vec()), ..Written::default() }
}

#[tokio::test]
async fn a_bounded_partition_that_is_paused_waits_when_all_has_been_read() {
    let world = World::new(&[2]);
    for number in 0..2 {
        world.log(at(0, number), |log| (0..20).for_each(|_| log.append_number()));
    }
    let source = input().bounded().json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None), (at(0, 1), None)]).await.unwrap();
    // The thread has sent all and ended by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    reader.pause(&[split("a/0"), split("a/1")]);
    assert!(next(&mut reader).await.is_none(), "both wait");
    reader.pause(&[split("a/0")]);
    let (other, end) = drain(&mut reader).await;
    end.unwrap();
    assert!(other.iter().all(|rows| rows.split.as_str() == "a/1"));
    assert_eq!(other.iter().flat_map(values).count(), 20);
    reader.pause(&[]);
    let (rest, end) = drain(&mut reader).await;
    end.unwrap();
    assert_eq!(rest.iter().flat_map(values).count(), 20);
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::End))));
}

#[tokio::test]
async fn positions_go_behind_what_is_no_record_so_that_it_may_expire() {
    let world = World::new(&[2]);
    world.log(at(0, 0), |log| {
        log.append_number();
        log.skip(2);
    });
    // Nothing but what was aborted.
    world.log(at(0, 1), |log| log.skip(7));
    let plan = plan(&input().json_with(numbers()));
    let all = [(at(0, 0), None), (at(0, 1), None)];
    let mut reader = open(&plan, world.feed(1, false), &all).await.unwrap();
    let (fetched, end) = drain(&mut reader).await;
    end.unwrap();
    let last = |name: &str| fetched.iter().rfind(|rows| rows.split.as_str() == name).unwrap().next.0;
    assert_eq!((last("a/0"), last("a/1")), (3, 7));
    assert_eq!(fetched.iter().flat_map(values).collect::<Vec<_>>(), [0]);
    // More of the same behind them, and a record that is not read yet.
    world.log(at(0, 0), |log| log.skip(2));
    let (fetched, _) = drain(&mut reader).await;
    assert_eq!((fetched.len(), fetched[0].batch.num_rows(), fetched[0].next), (1, 0, Position(5)));
    drop(reader);
    for (number, end) in [(0, 5), (1, 7)] {
        world.log(at(0, number), |log| log.remove_before(end));
    }
    open(&plan, world.feed(1, false), &[(at(0, 0), Some(5)), (at(0, 1), Some(7))]).await.unwrap();
}

#[tokio::test]
async fn the_end_that_is_told_without_an_offset_is_an_error() {
    for bounded in [false, true] {
        let world = World::new(&[1]);
        world.log(at(0, 0), |log| {
            log.append_number();
            log.skip(1);
        });
        world.lock().ends_unknown = true;
        let source = if bounded { input().bounded() } else { input() }.json_with(numbers());
        let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
        let error = drain(&mut reader).await.1.unwrap_err();
        assert!(error.to_string().contains("the end of a/0 was told without its offset"), "{error}");
    }
}

#[tokio::test]
async fn while_nobody_takes_batches_librdkafka_is_served_and_nothing_is_lost() {
    let world = World::new(&[2]);
    for number in 0..2 {
        world.log(at(0, number), |log| (0..500).for_each(|_| log.append_number()));
    }
    let source = input().batch_rows(10).json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, true), &[(at(0, 0), None), (at(0, 1), None)]).await.unwrap();
    reader.pause(&[split("a/1")]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let polls = world.lock().polls;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(world.lock().polls > polls + 5, "{} polls", world.lock().polls - polls);
    let (fetched, _) = drain(&mut reader).await;
    assert!(fetched.iter().all(|rows| rows.split.as_str() == "a/0"));
    assert_eq!(fetched.iter().flat_map(values).collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
    reader.pause(&[]);
    let (fetched, _) = drain(&mut reader).await;
    assert_eq!(fetched.iter().flat_map(values).collect::<Vec<_>>(), (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_fetched_ahead_is_not_thrown_away_for_each_batch_of_a_slow_job() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| (0..300).for_each(|_| log.append_number()));
    let source = input().batch_rows(10).json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, true), &[(at(0, 0), None)]).await.unwrap();
    let mut read = Vec::new();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        read.extend(values(&rows(&mut reader).await));
    }
    let pauses = world.lock().pauses;
    assert!((1..=5).contains(&pauses), "{pauses} pauses in twelve batches");
    read.extend(drain(&mut reader).await.0.iter().flat_map(values));
    assert_eq!(read, (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_paused_while_nothing_is_taken_stays_so_and_goes_on_when_it_is_told() {
    let world = World::new(&[2]);
    for number in 0..2 {
        world.log(at(0, number), |log| (0..200).for_each(|_| log.append_number()));
    }
    let source = input().batch_rows(10).json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, true), &[(at(0, 0), None), (at(0, 1), None)]).await.unwrap();
    let of = |fetched: &[Rows], name: &str| -> Vec<i64> {
        fetched.iter().filter(|rows| rows.split == split(name)).flat_map(values).collect()
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    reader.pause(&[split("a/1")]);
    let (first, _) = drain(&mut reader).await;
    assert_eq!(of(&first, "a/0"), (0..200).collect::<Vec<_>>());
    assert!(of(&first, "a/1").is_empty());
    tokio::time::sleep(Duration::from_millis(300)).await;
    reader.pause(&[]);
    assert_eq!(of(&drain(&mut reader).await.0, "a/1"), (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_goes_when_its_columns_are_large() {
    let world = World::new(&[1]);
    let items = vec!["{}"; 1_000].join(",");
    world.log(at(0, 0), |log| {
        for _ in 0..200 {
            log.append(written(format!(r#"{{"l": [{items}]}}"#).as_bytes()));
        }
        log.append(written(format!(r#"{{"l": [{}]}}"#, vec!["{}"; 100_000].join(",")).as_bytes()));
    });
    let fields: Vec<Field> = (0..50).map(|n| Field::new(format!("f{n}"), DataType::Int64, true)).collect();
    let item = Field::new("item", DataType::Struct(fields.into()), true);
    let list = Field::new("l", DataType::List(Arc::new(item)), true);
    let source = input().json_with(Arc::new(Schema::new(vec![list])));
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    let (fetched, end) = drain(&mut reader).await;
    end.unwrap();
    assert_eq!(fetched.iter().map(|rows| rows.batch.num_rows()).sum::<usize>(), 200);
    let largest = fetched.iter().map(|rows| rows.batch.get_array_memory_size()).max().unwrap();
    assert!(largest < 48 << 20, "{largest}");
    let rejected: Vec<_> = fetched.iter().flat_map(|rows| &rows.rejected).collect();
    assert_eq!(rejected.len(), 1);
    assert!(rejected[0].reason.contains("too many values for a record of its size"), "{}", rejected[0].reason);
}

#[tokio::test]
async fn a_time_that_no_column_holds_is_rejected_and_not_null() {
    let world = World::new(&[1]);
    let strange = Written { millis: Some(i64::MAX / 10), ..written(br#"{"v": 7}"#) };
    world.log(at(0, 0), |log| log.append(strange));
    let source = input().timestamp_column("ts").json_with(numbers());
    let mut reader = open(&plan(&source), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    let rows = rows(&mut reader).await;
    assert!(rows.rejected[0].reason.contains("does not fit a column of microseconds"), "{:?}", rows.rejected);
}

#[test]
fn logins_without_encryption_are_warnings() {
    use crate::{SchemaRegistry, Secret, kafka::Sasl};
    let kafka = Kafka::brokers("b").sasl(Sasl::scram_sha_256("me", Secret::new("canary")));
    let registry = SchemaRegistry::at("http://r:1").basic_auth("me", Secret::new("canary"));
    let warnings = kafka.topic("a").avro_with(numbers(), &registry).warnings();
    assert!(warnings.len() == 2 && !warnings.concat().contains("canary"), "{warnings:?}");
    assert!(input().json_with(numbers()).warnings().is_empty());
}

#[tokio::test]
async fn partitions_that_cannot_be_added_now_can_be_later() {
    let world = World::new(&[1]);
    let mut reader =
        open(&plan(&input().json_with(numbers())), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    world.lock().topics[0].as_mut().unwrap().push(Default::default());
    world.log(at(0, 1), |log| log.append_number());
    world.lock().silent = true;
    assert!(tokio::time::timeout(Duration::from_millis(1), reader.fetch()).await.is_err());
    reader.add(vec![split("a/1")]).await.unwrap();
    assert!(matches!(&reader.put_off()[..], [one] if one.split == split("a/1")), "{:?}", reader.put_off());
    world.lock().silent = false;
    world.log(at(0, 0), |log| log.append_number());
    assert_eq!(rows(&mut reader).await.split, split("a/0"), "the others are read on");
    reader.add(vec![split("a/1")]).await.unwrap();
    assert_eq!(rows(&mut reader).await.split, split("a/1"));
}

#[tokio::test]
async fn a_broker_that_knows_the_topic_late_ends_nothing() {
    let world = World::new(&[1]);
    let mut reader =
        open(&plan(&input().json_with(numbers())), world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    world.lock().stale = true;
    world.log(at(0, 0), |log| log.append_number());
    assert_eq!(values(&rows(&mut reader).await), [0]);
}
