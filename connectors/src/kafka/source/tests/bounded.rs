//! The ends of a bounded source: fixed once, and the same for every later reader.

use super::*;
use crate::{Source, kafka::Start};

fn bounded() -> Plan {
    plan(&input().bounded().json_with(numbers()))
}

/// Two partitions of ten records each.
fn world() -> World {
    let world = World::new(&[2]);
    for number in 0..2 {
        world.log(at(0, number), |log| (0..10).for_each(|_| log.append_number()));
    }
    world
}

async fn read(reader: &mut KafkaReader) -> Vec<(SplitId, i64)> {
    let (all, end) = drain(reader).await;
    end.unwrap();
    let mut all: Vec<_> =
        all.iter().flat_map(|rows| values(rows).into_iter().map(|value| (rows.split.clone(), value))).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_later_reader_ends_where_the_first_one_would_have() {
    let (world, plan) = (world(), bounded());
    let both = [(at(0, 0), None), (at(0, 1), None)];
    let first = open(&plan, world.feed(1, false), &both).await.unwrap();
    assert_eq!(first.ends(), [(split("a/0"), Position(10)), (split("a/1"), Position(10))]);
    drop(first);
    for number in 0..2 {
        world.log(at(0, number), |log| (0..90).for_each(|_| log.append_number()));
    }
    let (ends, later) = ([(at(0, 0), 10), (at(0, 1), 10)], [(at(0, 0), Some(4)), (at(0, 1), Some(10))]);
    let mut reader = open_until(&plan, world.feed(2, true), &later, &ends).await.unwrap();
    assert_eq!(reader.ends(), [(split("a/0"), Position(10)), (split("a/1"), Position(10))], "for its checkpoints");
    let expected: Vec<_> = (4..10).map(|value| (split("a/0"), value)).collect();
    assert_eq!(read(&mut reader).await, expected);
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::End))));
    // Who does not want it bounded any more gets it all, and no ends are kept.
    let endless = super::plan(&input().json_with(numbers()));
    let mut reader = open_until(&endless, world.feed(3, false), &later, &ends).await.unwrap();
    assert_eq!(reader.ends(), []);
    assert_eq!(read(&mut reader).await.len(), 96 + 90);
}

#[tokio::test]
async fn what_was_not_there_when_the_job_began_is_not_read() {
    let world = world();
    // Neither has a start, and of the second there are records that nobody misses.
    let start = Start::Offsets([(("a".into(), 9), 3)].into());
    let plan = plan(&input().bounded().from(start).json_with(numbers()));
    world.log(at(0, 1), |log| log.remove_before(5));
    let ends = [(at(0, 0), 0), (at(0, 1), 0)];
    let mut reader =
        open_until(&plan, world.feed(1, false), &[(at(0, 0), None), (at(0, 1), None)], &ends).await.unwrap();
    assert_eq!(read(&mut reader).await, []);
    // The same where the end had been reached before what was read of it expired.
    let mut reader =
        open_until(&bounded(), world.feed(1, false), &[(at(0, 1), Some(3))], &[(at(0, 1), 3)]).await.unwrap();
    assert_eq!(read(&mut reader).await, []);
}

#[tokio::test]
async fn an_end_that_the_log_does_not_have_is_an_error() {
    let (world, plan) = (world(), bounded());
    let until = async |end| open_until(&plan, world.feed(1, false), &[(at(0, 0), Some(4))], &[(at(0, 0), end)]).await;
    let error = until(12).await.err().unwrap().to_string();
    let expected = "fake:1, a/0, offset 4: when the job began a/0 ended at 12, and it is to be read to there; now it ends at 10: the \
                    topic was deleted and made again, or the cluster has lost 2 records that it had confirmed";
    assert!(error.contains(expected), "{error}");
    // It was read without regard to a transaction that is still open: it ends once that is decided.
    world.lock().open.insert(at(0, 0), 12);
    let mut reader = until(12).await.unwrap();
    assert_eq!(values(&rows(&mut reader).await), [4, 5, 6, 7, 8, 9]);
    assert!(next(&mut reader).await.is_none());
    world.log(at(0, 0), |log| (0..5).for_each(|_| log.append_number()));
    assert_eq!(values(&rows(&mut reader).await), [10, 11]);
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::SplitEnd(_)))));
}

#[tokio::test]
async fn ends_of_another_source_are_of_no_use_and_no_harm() {
    let source = input().bounded().json_with(numbers());
    let ends = vec![(split("b/0"), Position(7))];
    let mut reader = source.reader_until(Vec::new(), ends).await.unwrap();
    assert!(matches!(reader.fetch().await, Ok(Fetch::End)));
}
