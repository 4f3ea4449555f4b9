//! Partitions without a leader when the job begins: they keep no other from being read, and begin as they would have.

use rdkafka::mocking::MockCluster;

use super::*;
use crate::{PutOff, Source, kafka::Start};

/// Two partitions of ten records each; nobody leads the second.
fn world() -> World {
    let world = World::new(&[2]);
    for number in 0..2 {
        world.log(at(0, number), |log| (0..10).for_each(|_| log.append_number()));
    }
    world.lock().leaderless.insert(at(0, 1));
    world
}

fn from(start: Start) -> Plan {
    plan(&input().from(start).group("g").json_with(numbers()))
}

/// Asserts that it puts the second one off, and says why.
fn waits_for_the_second(reader: &KafkaReader) {
    let put_off = reader.put_off();
    let [PutOff { split: which, reason, unanswered, .. }] = &put_off[..] else { panic!("{put_off:?}") };
    assert_eq!((which, *unanswered), (&split("a/1"), false));
    assert!(reason.contains("a/1 has no leader at the moment: look at the brokers"), "{reason}");
}

/// The second one is led now. What is asked of it is answered, whatever is asked meanwhile.
async fn led_again(world: &World, reader: &mut KafkaReader) {
    world.lock().leaderless.clear();
    for _ in 0..100 {
        reader.add(vec![split("a/1")]).await.unwrap();
        if reader.put_off().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", reader.put_off());
}

/// What is read up to the end, by partition.
async fn all(reader: &mut KafkaReader) -> [Vec<i64>; 2] {
    let (all, end) = drain(reader).await;
    end.unwrap();
    ["a/0", "a/1"]
        .map(|name| all.iter().filter(|rows| rows.split.as_str() == name).flat_map(values).collect::<Vec<_>>())
}

#[tokio::test]
async fn every_start_is_decided_when_there_is_a_leader() {
    for (start, given, expected) in [
        (Start::Earliest, None, 0),
        (Start::Latest, None, 10),
        (Start::Millis(5), None, 10),
        (Start::Group, None, 7),
        (Start::Offsets([(("a".into(), 0), 10), (("a".into(), 1), 3)].into()), None, 3),
        // A position is a position.
        (Start::Latest, Some(4), 4),
    ] {
        let world = world();
        world.lock().committed.extend([(at(0, 0), 10), (at(0, 1), 7)]);
        let mut reader =
            open(&from(start.clone()), world.feed(1, false), &[(at(0, 0), Some(10)), (at(0, 1), given)]).await.unwrap();
        waits_for_the_second(&reader);
        let has_nothing = start == Start::Latest && given.is_none();
        assert_eq!(reader.put_off()[0].behind, !has_nothing, "{start:?}");
        assert_eq!(reader.positions(), [(split("a/0"), Position(10))], "{start:?}");
        world.log(at(0, 0), |log| log.append_number());
        assert_eq!(values(&rows(&mut reader).await), [10], "the other is read");
        led_again(&world, &mut reader).await;
        assert_eq!(reader.positions(), [(split("a/1"), Position(expected))], "{start:?}");
        world.log(at(0, 1), |log| log.append_number());
        assert_eq!(all(&mut reader).await, [vec![], (expected as i64..11).collect()], "{start:?}");
    }
}

#[tokio::test]
async fn a_position_is_looked_at_when_there_is_a_leader() {
    let world = world();
    let mut reader =
        open(&from(Start::Earliest), world.feed(1, false), &[(at(0, 0), Some(10)), (at(0, 1), Some(2))]).await.unwrap();
    waits_for_the_second(&reader);
    world.log(at(0, 1), |log| log.remove_before(6));
    world.lock().leaderless.clear();
    let error = reader.add(vec![split("a/1")]).await.unwrap_err();
    assert!(matches!(error, ConnectorError::Data { .. }), "{error:?}");
    assert!(error.to_string().contains("4 records of a/1 were removed before they were read"), "{error}");
    // What is missing in what the user said is said at once.
    let start = Start::Offsets([(("a".into(), 0), 10)].into());
    world.lock().leaderless.insert(at(0, 1));
    let error =
        open(&from(start), world.feed(1, false), &[(at(0, 0), None), (at(0, 1), None)]).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("no offset for a/1"), "{error}");
}

#[tokio::test]
async fn a_bounded_reader_does_not_end_without_it() {
    for (given, end, expected) in [(None, None, 0..10), (Some(4), Some(8), 4..8), (Some(4), None, 4..10)] {
        let (world, plan) = (world(), plan(&input().bounded().json_with(numbers())));
        let ends: Vec<_> = end.map(|end| (at(0, 1), end)).into_iter().collect();
        let assigned = [(at(0, 0), None), (at(0, 1), given)];
        let mut reader = open_until(&plan, world.feed(1, false), &assigned, &ends).await.unwrap();
        waits_for_the_second(&reader);
        assert_eq!(values(&rows(&mut reader).await), (0..10).collect::<Vec<_>>());
        assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::SplitEnd(one))) if one == split("a/0")));
        assert!(next(&mut reader).await.is_none(), "not the end");
        led_again(&world, &mut reader).await;
        let fixed = Position(end.unwrap_or(10));
        assert_eq!(reader.ends(), [(split("a/0"), Position(10)), (split("a/1"), fixed)]);
        world.log(at(0, 1), |log| (0..10).for_each(|_| log.append_number()));
        assert_eq!(all(&mut reader).await, [vec![], expected.collect()]);
        assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::End))));
    }
}

#[tokio::test]
async fn a_bounded_reader_of_an_empty_one_ends_when_that_is_known() {
    let (world, plan) = (World::new(&[1]), plan(&input().bounded().json_with(numbers())));
    world.lock().leaderless.insert(at(0, 0));
    let mut reader = open(&plan, world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert!(next(&mut reader).await.is_none(), "not the end");
    world.lock().leaderless.clear();
    while !reader.put_off().is_empty() {
        reader.add(vec![split("a/0")]).await.unwrap();
    }
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::SplitEnd(_)))));
    assert!(matches!(next(&mut reader).await, Some(Ok(Fetch::End))));
}

#[tokio::test]
async fn of_what_has_been_read_nobody_is_asked() {
    let (world, plan) = (world(), plan(&input().bounded().json_with(numbers())));
    let (assigned, ends) = ([(at(0, 0), Some(3)), (at(0, 1), Some(5))], [(at(0, 0), 3), (at(0, 1), 5)]);
    let mut reader = open_until(&plan, world.feed(1, false), &assigned, &ends).await.unwrap();
    assert_eq!(reader.put_off(), []);
    assert_eq!(all(&mut reader).await, [const { Vec::<i64>::new() }; 2]);
}

#[tokio::test]
async fn a_leader_that_comes_soon_is_waited_for() {
    let world = world();
    let late = world.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        late.lock().leaderless.clear();
    });
    let reader = open(&from(Start::Latest), world.feed(1, false), &[(at(0, 0), None), (at(0, 1), None)]).await.unwrap();
    assert_eq!(reader.positions(), [(split("a/0"), Position(10)), (split("a/1"), Position(10))]);
}

#[tokio::test]
async fn one_that_has_a_position_is_not_waited_for() {
    let begun = std::time::Instant::now();
    let (world, plan) = (world(), from(Start::Earliest));
    let reader = open(&plan, world.feed(1, false), &[(at(0, 0), Some(10)), (at(0, 1), Some(2))]).await.unwrap();
    waits_for_the_second(&reader);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

/// Whether that fails the start depends on what the other readers of the source have.
#[tokio::test]
async fn brokers_of_which_none_answers_are_told() {
    let world = world();
    world.lock().hangs.insert(at(0, 0));
    let reader = open(&from(Start::Latest), world.feed(1, false), &[(at(0, 0), None), (at(0, 1), None)]).await.unwrap();
    let put_off = reader.put_off();
    let told: Vec<_> = put_off.iter().map(|one| (one.split.as_str(), one.unanswered, one.reason.as_str())).collect();
    let leaderless = "a/1 has no leader at the moment: look at the brokers that hold it";
    assert_eq!(told, [("a/0", true, "no answer"), ("a/1", false, leaderless)]);
}

#[tokio::test]
async fn a_group_that_does_not_answer_is_asked_once_and_is_no_reason_for_positions() {
    let world = World::new(&[6]);
    (0..6).for_each(|number| world.log(at(0, number), |log| log.append_number()));
    world.lock().group_away = true;
    // Those of two leaders have been read.
    let given = |number: i32| Some(1).filter(|_| number >= 4);
    let assigned: Vec<_> = (0..6).map(|number| (at(0, number), given(number))).collect();
    let mut reader = open(&from(Start::Group), world.feed(1, false), &assigned).await.unwrap();
    assert_eq!(world.lock().group_asked, 1);
    let put_off = reader.put_off();
    assert_eq!(put_off.iter().filter(|one| one.unanswered && one.reason == "no answer").count(), 4, "{put_off:?}");
    assert_eq!(reader.positions(), [(split("a/4"), Position(1)), (split("a/5"), Position(1))]);
    world.lock().group_away = false;
    world.lock().committed.extend((0..4).map(|number| (at(0, number), 1)));
    while !reader.put_off().is_empty() {
        reader.add((0..4).map(|number| split(&format!("a/{number}"))).collect()).await.unwrap();
    }
    assert_eq!(reader.positions().len(), 6);
}

/// librdkafka's own words and ways.
#[tokio::test]
async fn librdkafka_says_so_too() {
    let cluster = MockCluster::new(2).unwrap();
    cluster.create_topic("a", 3, 1).unwrap();
    for (partition, leader) in [(0, Some(1)), (1, Some(2)), (2, None)] {
        cluster.partition_leader("a", partition, leader).unwrap();
    }
    let source = Kafka::brokers(cluster.bootstrap_servers()).topic("a").from(Start::Latest).json_with(numbers());
    let assigned = (0..3).map(|number| (split(&format!("a/{number}")), None)).collect();
    let mut reader = source.reader(assigned).await.unwrap();
    assert_eq!(reader.positions(), [(split("a/0"), Position(0)), (split("a/1"), Position(0))]);
    let put_off = reader.put_off();
    assert!(put_off.len() == 1 && put_off[0].reason.contains("a/2 has no leader at the moment"), "{put_off:?}");
    // The same of the ends, which are asked for when all is silent.
    let plan = super::super::KafkaSource::plan(&source).unwrap().clone();
    let mut asking = super::super::topics::Topics::new(plan.clone(), None);
    let mut ends = asking.ends(&[at(0, 0), at(0, 1), at(0, 2)]);
    ends.sort();
    assert_eq!(ends, [(at(0, 0), 0), (at(0, 1), 0)]);
    // One broker does not answer.
    cluster.broker_down(2).unwrap();
    let begun = std::time::Instant::now();
    let mut asking = super::super::topics::Topics::new(plan, None);
    assert_eq!(asking.ends(&[at(0, 0), at(0, 1), at(0, 2)]), [(at(0, 0), 0)]);
    assert!(begun.elapsed() < Duration::from_secs(60));
    cluster.broker_up(2).unwrap();
    cluster.partition_leader("a", 2, Some(1)).unwrap();
    for _ in 0..100 {
        reader.add(vec![split("a/2")]).await.unwrap();
        if reader.put_off().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(reader.put_off(), []);
    assert_eq!(reader.positions().len(), 3);
}
