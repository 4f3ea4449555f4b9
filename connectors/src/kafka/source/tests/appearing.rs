//! Partitions that appear: those of which nothing can be known keep nobody waiting, and none is begun too late.

use super::*;
use crate::{PutOff, kafka::Start};

fn grow(world: &World, by: usize) {
    world.lock().topics[0].as_mut().unwrap().extend(std::iter::repeat_with(Default::default).take(by));
}

/// What it cannot read for now, and why, in words.
fn put_off(reader: &KafkaReader) -> Vec<(SplitId, String)> {
    reader.put_off().into_iter().map(|PutOff { split, reason, .. }| (split, reason)).collect()
}

/// Gives what is put off again until there is none.
async fn add_the_rest(reader: &mut KafkaReader) {
    let begun = std::time::Instant::now();
    while !reader.put_off().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", reader.put_off());
        tokio::time::sleep(Duration::from_millis(5)).await;
        let again = reader.put_off().into_iter().map(|put_off| put_off.split).collect();
        reader.add(again).await.unwrap();
    }
}

#[tokio::test]
async fn those_that_nobody_answers_for_keep_neither_the_others_nor_the_reading() {
    let world = World::new(&[1]);
    let plan = plan(&input().batch_rows(10).json_with(numbers()));
    let mut reader = open(&plan, world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), reader.fetch()).await.is_err());
    grow(&world, 5);
    (0..6).for_each(|number| world.log(at(0, number), |log| log.append_number()));
    world.lock().leaderless.insert(at(0, 2));
    world.lock().hangs.insert(at(0, 3));
    let begun = std::time::Instant::now();
    // One call takes those that it can, and asks no second client.
    reader.add([1, 2, 3, 5].map(|number| split(&format!("a/{number}"))).to_vec()).await.unwrap();
    let left = put_off(&reader);
    assert_eq!(left.iter().map(|(split, _)| split.as_str()).collect::<Vec<_>>(), ["a/2", "a/3"], "{left:?}");
    assert!(left[0].1.contains("where a/2 begins is not known: a/2 has no leader at the moment"), "{left:?}");
    assert!(left[1].1.contains("the cluster has not said yet where a/3 begins"), "{left:?}");
    for _ in 0..3 {
        reader.add(vec![split("a/2"), split("a/3")]).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    let mut first = [(); 3].map(|()| split(""));
    for split in &mut first {
        *split = rows(&mut reader).await.split;
    }
    first.sort();
    assert_eq!(first, [split("a/0"), split("a/1"), split("a/5")]);
    // One that nobody has been asked for yet waits for its turn.
    reader.add(vec![split("a/4")]).await.unwrap();
    assert_eq!(put_off(&reader).len(), 3);
    world.lock().hangs.clear();
    world.lock().leaderless.clear();
    add_the_rest(&mut reader).await;
    let mut rest = Vec::new();
    for _ in 2..5 {
        rest.push(rows(&mut reader).await.split);
    }
    rest.sort();
    assert_eq!(rest, [2, 3, 4].map(|number| split(&format!("a/{number}"))));
}

#[tokio::test]
async fn many_that_nobody_answers_for_are_one_question() {
    let world = World::new(&[1]);
    let plan = plan(&input().json_with(numbers()));
    let feed = world.feed(1, false);
    let (another, asked) = (feed.another(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let (first, count) = (std::sync::Mutex::new(Some(feed)), asked.clone());
    let open = move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(first.lock().unwrap().take().unwrap_or_else(&another))
    };
    let known = vec![Assigned { at: at(0, 0), position: None, end: None, appeared: false }];
    let mut reader = KafkaReader::start(plan, known, Ends::default(), open).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), reader.fetch()).await.is_err());
    grow(&world, 100);
    (1..100).step_by(2).for_each(|number| world.lock().leaderless.extend([at(0, number)]));
    let begun = std::time::Instant::now();
    reader.add((1..101).map(|number| split(&format!("a/{number}"))).collect()).await.unwrap();
    assert_eq!((put_off(&reader).len(), asked.load(std::sync::atomic::Ordering::Relaxed)), (50, 2));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_has_not_answered_is_asked_last_and_by_the_same_client() {
    let world = World::new(&[1]);
    let plan = plan(&input().json_with(numbers()));
    let feed = world.feed(1, false);
    let (another, opened) = (feed.another(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let (first, count) = (std::sync::Mutex::new(Some(feed)), opened.clone());
    let open = move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(first.lock().unwrap().take().unwrap_or_else(&another))
    };
    let opened = || opened.load(std::sync::atomic::Ordering::Relaxed);
    let known = vec![Assigned { at: at(0, 0), position: None, end: None, appeared: false }];
    let mut reader = KafkaReader::start(plan, known, Ends::default(), open).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), reader.fetch()).await.is_err());
    grow(&world, 3);
    // Its leader comes before those of the others.
    world.lock().hangs.insert(at(0, 1));
    reader.add([1, 2, 3].map(|number| split(&format!("a/{number}"))).to_vec()).await.unwrap();
    assert_eq!(put_off(&reader).len(), 3, "the first time nobody knows");
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    reader.add([1, 2, 3].map(|number| split(&format!("a/{number}"))).to_vec()).await.unwrap();
    let left = put_off(&reader);
    assert!(left.len() == 1 && left[0].1.contains("where a/1 begins is not known: no answer"), "{left:?}");
    // The next time there are others, of other leaders.
    grow(&world, 3);
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let begun = std::time::Instant::now();
    reader.add([1, 5, 6].map(|number| split(&format!("a/{number}"))).to_vec()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(put_off(&reader).iter().map(|(split, _)| split.as_str()).collect::<Vec<_>>(), ["a/1"]);
    assert_eq!(opened(), 2, "one to read with and one to ask with");
    world.lock().hangs.clear();
    add_the_rest(&mut reader).await;
    assert_eq!(opened(), 2);
    // Nothing is left to ask, so the next question has a client of its own.
    grow(&world, 1);
    reader.add(vec![split("a/7")]).await.unwrap();
    assert_eq!((put_off(&reader), opened()), (Vec::new(), 3));
}

#[tokio::test]
async fn before_anything_is_read_there_is_time_for_the_answer() {
    let world = World::new(&[3]);
    world.log(at(0, 1), |log| log.append_number());
    world.lock().hangs.insert(at(0, 1));
    world.lock().leaderless.insert(at(0, 2));
    let late = world.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1_500));
        late.lock().hangs.clear();
        late.lock().leaderless.clear();
    });
    let plan = plan(&input().json_with(numbers()));
    let mut reader = open(&plan, world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    reader.add(vec![split("a/1"), split("a/2")]).await.unwrap();
    assert_eq!(rows(&mut reader).await.split, split("a/1"));
}

#[tokio::test]
async fn a_source_for_whose_partitions_nobody_looks_takes_them_at_its_start() {
    use crate::Source;
    let source = input().from(Start::Latest).discover_every(None).json_with(numbers());
    assert!(source.adds_splits() && source.discover_every().is_none());
    assert!(!input().bounded().json_with(numbers()).adds_splits());
    let world = World::new(&[2]);
    (0..2).for_each(|number| world.log(at(0, number), |log| log.append_number()));
    // A task may have none but new ones.
    for known in [vec![], vec![(at(0, 0), Some(1))]] {
        let mut reader = open(&plan(&source), world.feed(1, false), &known).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        reader.add(vec![split("a/1")]).await.unwrap();
        assert_eq!(values(&rows(&mut reader).await), [0], "from its first record");
    }
}

#[tokio::test]
async fn an_error_of_the_thread_is_not_hidden_by_partitions_that_are_added() {
    let world = World::new(&[1]);
    world.log(at(0, 0), |log| (0..10).for_each(|_| log.append_number()));
    let plan = plan(&input().json_with(numbers()));
    let mut reader = open(&plan, world.feed(1, false), &[(at(0, 0), Some(0))]).await.unwrap();
    assert_eq!(rows(&mut reader).await.next, Position(10));
    grow(&world, 1);
    world.lock().truncated = Some((at(0, 0), "no words".to_string()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let error = reader.add(vec![split("a/1")]).await.unwrap_err().to_string();
    assert!(error.contains("the cluster has lost records of a/0"), "{error}");
}

#[tokio::test]
async fn a_log_that_was_cut_off_and_has_grown_again_ends_the_job() {
    let words = "Partition log truncation detected at offset 20 (leader epoch 3): broker end offset is 14 (offset leader epoch 2). \
                 Reset to INVALID.: Local: Partition log truncation detected (broker 1)";
    let unknown = "No epoch found less or equal to offset 20 (leader epoch 3): broker end offset is -1 (offset leader epoch -1). Reset \
                   using configured policy.: Local: Partition log truncation detected (broker 1)";
    for (positions, words, name) in [
        (
            [10, 20],
            words,
            "a/1, offset 20: the cluster has lost records of a/1 that it had confirmed from offset 14 on",
        ),
        // Behind what it has read there are markers.
        ([10, 19], words, "a/1, offset 20: the cluster has lost records of a/1 that"),
        ([20, 20], words, "one of a/0, a/1, offset 20: the cluster has lost records of one of a/0, a/1 that"),
        ([10, 20], unknown, "a/1, offset 20: the cluster has lost records of a/1 that it had confirmed, and"),
        ([10, 20], "log truncation detected", "one of a/0, a/1: the cluster has lost records of one of a/0, a/1 that"),
    ] {
        let world = World::new(&[2]);
        world.log(at(0, 0), |log| log.skip(40));
        world.log(at(0, 1), |log| log.skip(40));
        world.log(at(0, 0), |log| log.end = positions[0]);
        world.log(at(0, 1), |log| log.end = positions[1]);
        let assigned = [(at(0, 0), Some(positions[0])), (at(0, 1), Some(positions[1]))];
        let mut reader = open(&plan(&input().json_with(numbers())), world.feed(1, false), &assigned).await.unwrap();
        world.lock().truncated = Some((at(0, 1), words.to_string()));
        let error = tokio::time::timeout(PATIENCE, reader.fetch()).await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectorError::Data { .. }), "{error:?}");
        assert!(error.to_string().contains(name), "{error} instead of {name}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_where_the_partitions_stand() {
    let damaged = "MessageSet at offset 20 (77 bytes) failed CRC32C check (original 0x1 != calculated 0x2)";
    let compressed = "Decompression (codec 0x4) of message at 10 of 77 bytes failed: Local: Invalid compressed data";
    for (positions, reason, place, perhaps) in [
        (vec![10, 20], damaged, "fake:1, a/1, offset 20: what the broker sent", false),
        (vec![10, 20], compressed, "fake:1, a/0, offset 10: what the broker sent", false),
        (vec![10, 20], "BadMessage", "partitions: a/0 at offset 10, a/1 at offset 20", true),
        (vec![20, 20], damaged, "partitions: a/0 at offset 20, a/1 at offset 20", true),
        (vec![7], "BadMessage", "fake:1, a/0, offset 7: what the broker sent", false),
        (vec![5; 30], "BadMessage", "a/19 at offset 5, 10 more", true),
    ] {
        let world = World::new(&[positions.len()]);
        let all = || (0..).map(|number| at(0, number)).zip(positions.clone());
        all().for_each(|(at, end)| world.log(at, |log| log.skip(end)));
        let assigned: Vec<_> = all().map(|(at, next)| (at, Some(next))).collect();
        let mut reader = open(&plan(&input().json_with(numbers())), world.feed(1, false), &assigned).await.unwrap();
        world.lock().garbage = Some((at(0, 0), reason.to_string()));
        let error = tokio::time::timeout(PATIENCE, reader.fetch()).await.unwrap().unwrap_err();
        assert!(matches!(error, ConnectorError::Data { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains(place) && error.contains(reason), "{error} instead of {place}");
        assert_eq!(error.contains("one of these partitions"), perhaps, "{error}");
    }
}

#[tokio::test]
async fn a_thousand_partitions_are_one_question_to_each_broker() {
    let world = World::new(&[1_000]);
    let all: Vec<_> = (0..1_000).map(|number| (at(0, number), None)).collect();
    drop(open(&plan(&input().json_with(numbers())), world.feed(1, false), &all).await.unwrap());
    assert_eq!(world.lock().bounds_of.iter().map(Vec::len).collect::<Vec<_>>(), [333, 333, 334], "to each broker");
}
