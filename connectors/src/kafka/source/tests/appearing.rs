//! Partitions that appear: those of which nothing can be known keep nobody waiting, and none is begun too late.

use super::*;
use crate::kafka::Start;

fn grow(world: &World, by: usize) {
    world.lock().topics[0].as_mut().unwrap().extend(std::iter::repeat_with(Default::default).take(by));
}

fn refused(error: &ConnectorError) -> String {
    assert!(matches!(error, ConnectorError::Remote { passes: true, .. }), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn those_that_nobody_answers_for_keep_neither_the_others_nor_the_reading() {
    let world = World::new(&[1]);
    let plan = plan(&input().batch_rows(10).json_with(numbers()));
    let mut reader = open(&plan, world.feed(1, false), &[(at(0, 0), None)]).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(1), reader.fetch()).await.is_err());
    grow(&world, 4);
    (0..5).for_each(|number| world.log(at(0, number), |log| log.append_number()));
    world.lock().leaderless.insert(at(0, 2));
    world.lock().hangs.insert(at(0, 3));
    let all = || [1, 2, 3].map(|number| split(&format!("a/{number}"))).to_vec();
    for _ in 0..3 {
        let begun = std::time::Instant::now();
        let error = refused(&reader.add(all()).await.unwrap_err());
        assert!(error.contains("where a/2 begins is not known: a/2 has no leader at the moment"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
    let error = refused(&reader.add(vec![split("a/3")]).await.unwrap_err());
    assert!(error.contains("the cluster has not said yet where a/3 begins"), "{error}");
    assert_eq!(rows(&mut reader).await.split, split("a/0"));
    reader.add(vec![split("a/1")]).await.unwrap();
    assert_eq!(rows(&mut reader).await.split, split("a/1"));
    // One that nobody has been asked for yet waits for its turn.
    assert!(reader.add(vec![split("a/4")]).await.is_err());
    world.lock().hangs.clear();
    world.lock().leaderless.clear();
    for number in 2..5 {
        let begun = std::time::Instant::now();
        while let Err(error) = reader.add(vec![split(&format!("a/{number}"))]).await {
            refused(&error);
            assert!(begun.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(rows(&mut reader).await.split, split(&format!("a/{number}")));
    }
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
async fn a_thousand_partitions_are_one_question() {
    let world = World::new(&[1_000]);
    let all: Vec<_> = (0..1_000).map(|number| (at(0, number), None)).collect();
    drop(open(&plan(&input().json_with(numbers())), world.feed(1, false), &all).await.unwrap());
    assert_eq!(world.lock().bounds_of.iter().map(Vec::len).collect::<Vec<_>>(), [1_000]);
}
