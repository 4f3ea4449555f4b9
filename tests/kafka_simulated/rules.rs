//! What the simulated cluster must do, one test a rule, so that whoever doubts it can read. Times are in milliseconds.

use std::{sync::Arc, time::Duration};

use windrow::connectors::{
    ConnectorError,
    kafka::cluster::{Cluster, Outgoing, Producer},
};

use super::simulated::{BATCH, Fate, Kind, Settings, Simulated, broker::Code};

const OUT: &str = "out";

fn cluster(settings: Settings) -> Simulated {
    let cluster = Simulated::new(settings);
    cluster.create(OUT, 2);
    cluster
}

async fn producer(cluster: &Simulated, id: &str) -> Arc<dyn Producer> {
    let producer = cluster.transactional(id, BATCH).await.unwrap();
    producer.init_transactions().await.unwrap();
    producer
}

fn record(partition: i32, value: &str) -> Outgoing<'_> {
    let value = Some(value.as_bytes());
    Outgoing { topic: OUT, partition: Some(partition), key: None, value, headers: &[], timestamp: None }
}

/// A transaction with one record.
async fn begin(producer: &Arc<dyn Producer>, partition: i32, value: &str) {
    producer.begin().await.unwrap();
    assert!(producer.send(&record(partition, value)).unwrap());
    producer.flush().await.unwrap();
}

fn texts(topic: Vec<Vec<Arc<super::simulated::log::Record>>>) -> Vec<String> {
    let records = topic.into_iter().flatten();
    records.map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap()).collect()
}

fn committed(cluster: &Simulated) -> Vec<String> {
    texts(cluster.committed(OUT))
}

async fn millis(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Fatal: the producer says that it was replaced, and does so for ever.
async fn assert_fenced(producer: &Arc<dyn Producer>, error: ConnectorError) {
    for error in [error, producer.begin().await.unwrap_err()] {
        assert!(error.to_string().contains("fenced"), "{error}");
        assert!(matches!(error, ConnectorError::Remote { passes: true, .. }), "{error:?}");
    }
    assert!(producer.send(&record(0, "never")).is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_is_seen_and_what_is_not_is_not() {
    let cluster = cluster(Settings::default());
    let producer = producer(&cluster, "a").await;
    begin(&producer, 0, "1").await;
    assert_eq!((committed(&cluster), texts(cluster.uncommitted(OUT))), (vec![], vec!["1".to_owned()]));
    assert_eq!((cluster.open(), cluster.stuck().len()), (vec!["a".to_owned()], 1));
    producer.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["1"]);
    begin(&producer, 0, "2").await;
    producer.abort().await.unwrap();
    begin(&producer, 1, "3").await;
    producer.commit().await.unwrap();
    millis(10).await;
    assert_eq!((committed(&cluster), texts(cluster.uncommitted(OUT)).len()), (vec!["1".into(), "3".into()], 3));
    assert!(cluster.open().is_empty() && cluster.stuck().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_touched_nothing_is_committed_without_asking_anyone() {
    let cluster = cluster(Settings::default());
    let (old, _new) = (producer(&cluster, "a").await, producer(&cluster, "a").await);
    old.begin().await.unwrap();
    old.commit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_takes_an_id_over_aborts_the_open_transaction_and_fences_its_producer() {
    let cluster = cluster(Settings::default());
    let old = producer(&cluster, "a").await;
    begin(&old, 0, "old").await;
    let new = producer(&cluster, "a").await;
    // Nothing is open any more when this returns.
    assert!(cluster.open().is_empty() && cluster.stuck().is_empty());
    let error = old.commit().await.unwrap_err();
    assert_fenced(&old, error).await;
    begin(&new, 0, "new").await;
    new.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_zombie_cannot_write_into_the_transaction_of_who_replaced_it() {
    let cluster = cluster(Settings::default());
    let zombie = producer(&cluster, "a").await;
    begin(&zombie, 0, "z1").await;
    let new = producer(&cluster.process(), "a").await;
    begin(&new, 0, "new").await;
    // Where it wrote before, and where it did not.
    assert!(zombie.send(&record(0, "z2")).unwrap());
    let error = zombie.flush().await.unwrap_err();
    assert_fenced(&zombie, error).await;
    new.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["new"]);

    let cluster = self::cluster(Settings::default());
    let zombie = producer(&cluster, "a").await;
    zombie.begin().await.unwrap();
    let _new = producer(&cluster, "a").await;
    assert!(zombie.send(&record(1, "z")).unwrap());
    let error = zombie.commit().await.unwrap_err();
    assert_fenced(&zombie, error).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_sleeps_does_nothing_and_finds_itself_fenced_when_it_wakes() {
    let cluster = cluster(Settings::default());
    let process = cluster.process();
    let old = producer(&process, "a").await;
    begin(&old, 0, "old").await;
    assert!(old.send(&record(0, "queued")).unwrap());
    process.sleep();
    let committing = tokio::spawn(async move { (old.commit().await, old) });
    millis(5_000).await;
    assert!(!committing.is_finished());
    assert_eq!(texts(cluster.uncommitted(OUT)), ["old"]);
    let new = producer(&cluster, "a").await;
    process.wake();
    let (error, old) = committing.await.unwrap();
    assert_fenced(&old, error.unwrap_err()).await;
    begin(&new, 0, "new").await;
    new.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn who_takes_over_while_a_commit_is_under_way_waits_until_it_is_complete() {
    let cluster = cluster(Settings::default());
    let old = producer(&cluster, "a").await;
    begin(&old, 0, "old").await;
    cluster.look(|world| world.plan.say_marker(30_000));
    // Decided: the reply comes at once, the control record in half a minute.
    old.commit().await.unwrap();
    millis(1_000).await;
    assert_eq!((committed(&cluster).len(), cluster.open().len(), cluster.stuck().len()), (0, 1, 1));
    let began = tokio::time::Instant::now();
    let _new = producer(&cluster, "a").await;
    assert!(began.elapsed() >= Duration::from_secs(28), "{:?}", began.elapsed());
    assert_eq!(committed(&cluster), ["old"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_was_sent_counts_though_its_sender_dies() {
    for (fate, counts) in [(Fate::late(500), true), (Fate::lost_there(), false), (Fate::lost_back(), true)] {
        let cluster = cluster(Settings::default());
        let old = producer(&cluster, "a").await;
        begin(&old, 0, "old").await;
        cluster.say(Kind::End, fate);
        let died = tokio::time::timeout(Duration::from_millis(100), old.commit()).await;
        assert!(died.is_err(), "it does not know yet");
        drop(old);
        millis(1_000).await;
        let _new = producer(&cluster, "a").await;
        assert_eq!(committed(&cluster).len(), usize::from(counts), "{fate:?}");
        assert!(cluster.open().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_comes_behind_a_takeover_does_not_count() {
    let cluster = cluster(Settings::default());
    let old = producer(&cluster, "a").await;
    begin(&old, 0, "old").await;
    cluster.say(Kind::End, Fate::late(4_000));
    let (error, _new) = tokio::join!(old.commit(), producer(&cluster, "a"));
    assert_fenced(&old, error.unwrap_err()).await;
    assert!(committed(&cluster).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_or_a_reply_that_is_lost_is_asked_for_again_and_done_once() {
    for kind in [Kind::Init, Kind::Add, Kind::Produce, Kind::End] {
        for fate in [Fate::lost_there(), Fate::lost_back(), Fate::twice()] {
            let cluster = cluster(Settings::default());
            cluster.say(kind, fate);
            let producer = producer(&cluster, "a").await;
            begin(&producer, 0, "1").await;
            producer.commit().await.unwrap();
            begin(&producer, 0, "2").await;
            producer.commit().await.unwrap();
            millis(10).await;
            assert_eq!(committed(&cluster), ["1", "2"], "{kind:?} {fate:?}");
            assert_eq!(texts(cluster.uncommitted(OUT)), ["1", "2"], "{kind:?} {fate:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moves_is_waited_for() {
    let cluster = cluster(Settings::default());
    for kind in [Kind::Init, Kind::Add, Kind::End] {
        cluster.say(kind, Fate::away(7_000));
        for _ in 0..30 {
            cluster.say(kind, Fate::refused(Code::NotCoordinator));
        }
    }
    let began = tokio::time::Instant::now();
    let producer = producer(&cluster, "a").await;
    begin(&producer, 0, "1").await;
    producer.commit().await.unwrap();
    millis(10).await;
    assert!(began.elapsed() > Duration::from_secs(7), "{:?}", began.elapsed());
    assert_eq!(committed(&cluster), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn who_gets_no_answer_to_a_commit_says_so_and_it_may_count_or_not() {
    let cluster = cluster(Settings { patience: 1_000, ..Settings::default() });
    let producer = producer(&cluster, "a").await;
    begin(&producer, 0, "1").await;
    cluster.say(Kind::End, Fate::lost_back());
    let error = producer.commit().await.unwrap_err();
    assert!(matches!(&error, ConnectorError::Remote { passes: true, .. }), "{error:?}");
    assert_eq!(committed(&cluster), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn the_next_transaction_waits_until_the_former_is_complete() {
    let cluster = cluster(Settings::default());
    let producer = producer(&cluster, "a").await;
    begin(&producer, 0, "1").await;
    cluster.look(|world| world.plan.say_marker(20_000));
    producer.commit().await.unwrap();
    let began = tokio::time::Instant::now();
    begin(&producer, 0, "2").await;
    assert!(began.elapsed() > Duration::from_secs(19), "concurrent transactions: {:?}", began.elapsed());
    producer.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_seen_in_one_partition_before_it_is_seen_in_another() {
    let cluster = cluster(Settings::default());
    let producer = producer(&cluster, "a").await;
    begin(&producer, 0, "1").await;
    assert!(producer.send(&record(1, "2")).unwrap());
    for after in [5_000, 9_000] {
        cluster.look(|world| world.plan.say_marker(after));
    }
    producer.commit().await.unwrap();
    for (after, seen) in [(1_000, 0), (5_000, 1), (5_000, 2)] {
        millis(after).await;
        assert_eq!(committed(&cluster).len(), seen);
        assert_eq!(cluster.open().len(), usize::from(seen < 2));
    }
}

#[tokio::test(start_paused = true)]
async fn what_lies_behind_an_open_transaction_is_not_seen_before_that_ends() {
    let cluster = cluster(Settings::default());
    let (a, b) = (producer(&cluster, "a").await, producer(&cluster, "b").await);
    let plain = cluster.plain(BATCH).await.unwrap();
    begin(&a, 0, "a").await;
    begin(&b, 0, "b").await;
    assert!(plain.send(&record(0, "p")).unwrap());
    plain.flush().await.unwrap();
    b.commit().await.unwrap();
    millis(10).await;
    assert!(committed(&cluster).is_empty());
    a.abort().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["b", "p"]);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_open_for_too_long_is_thrown_away_and_its_producer_fenced() {
    let cluster = cluster(Settings { transaction_timeout: 10_000, message_timeout: 9_000, ..Settings::default() });
    let producer = producer(&cluster, "a").await;
    begin(&producer, 0, "1").await;
    millis(9_000).await;
    producer.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["1"]);
    begin(&producer, 0, "2").await;
    millis(10_100).await;
    assert!(cluster.open().is_empty() && cluster.stuck().is_empty());
    for error in [producer.commit().await.unwrap_err(), producer.begin().await.unwrap_err()] {
        // Another producer, in a transaction that is shorter, would do.
        assert!(
            matches!(&error, ConnectorError::Remote { passes: true, reason, .. } if reason.contains("took longer"))
        );
    }
    assert_eq!(committed(&cluster), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_written_spoils_its_transaction_and_nothing_else() {
    let cluster = cluster(Settings::default());
    let producer = producer(&cluster, "a").await;
    cluster.say(Kind::Produce, Fate::refused(Code::RecordRefused));
    producer.begin().await.unwrap();
    assert!(producer.send(&record(0, "1")).unwrap());
    let error = producer.flush().await.unwrap_err();
    assert!(matches!(&error, ConnectorError::Remote { passes: true, .. }), "{error:?}");
    // Whoever overlooks that is told again.
    assert!(producer.send(&record(1, "2")).is_err());
    assert!(producer.commit().await.is_err());
    producer.abort().await.unwrap();
    begin(&producer, 0, "3").await;
    producer.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_not_written_in_time_spoils_its_transaction() {
    let cluster = cluster(Settings { message_timeout: 2_000, ..Settings::default() });
    let producer = producer(&cluster, "a").await;
    for _ in 0..200 {
        cluster.say(Kind::Produce, Fate::refused(Code::NotLeader));
    }
    producer.begin().await.unwrap();
    assert!(producer.send(&record(0, "1")).unwrap());
    assert!(producer.commit().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_producer_holds_no_more_than_it_may() {
    let cluster = cluster(Settings { queue_bytes: 200, ..Settings::default() });
    let producer = producer(&cluster, "a").await;
    producer.begin().await.unwrap();
    let mut taken = 0;
    while producer.send(&record(0, "0123456789")).unwrap() {
        taken += 1;
    }
    assert_eq!(taken, 3);
    let waits = tokio::time::timeout(Duration::ZERO, producer.room()).await;
    assert!(waits.is_err());
    producer.room().await;
    assert!(producer.send(&record(0, "4")).unwrap());
    producer.flush().await.unwrap();
    // One record may be larger than all of it.
    assert!(producer.send(&record(0, &"x".repeat(1_000))).unwrap());
    producer.commit().await.unwrap();
    millis(10).await;
    assert_eq!(committed(&cluster).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn without_a_transaction_records_are_seen_at_once_and_once() {
    let cluster = cluster(Settings::default());
    let plain = cluster.plain(BATCH).await.unwrap();
    cluster.say(Kind::Produce, Fate::lost_back());
    cluster.say(Kind::Produce, Fate::twice());
    for value in ["1", "2", "3"] {
        assert!(plain.send(&record(0, value)).unwrap());
    }
    plain.flush().await.unwrap();
    assert_eq!(committed(&cluster), ["1", "2", "3"]);
    cluster.say(Kind::Produce, Fate::refused(Code::RecordRefused));
    assert!(plain.send(&record(0, "4")).unwrap());
    assert!(plain.flush().await.is_err(), "what is lost is said");
    assert!(plain.send(&record(0, "5")).unwrap());
    assert!(plain.flush().await.is_err(), "and stays lost");
    assert_eq!(committed(&cluster), ["1", "2", "3", "5"]);
}

#[tokio::test(start_paused = true)]
async fn records_of_one_key_go_to_one_partition_in_order() {
    let cluster = cluster(Settings { batch: 3, ..Settings::default() });
    let plain = cluster.plain(BATCH).await.unwrap();
    for n in 0..40 {
        let (key, value) = (format!("k{}", n % 4), n.to_string());
        let record = Outgoing { partition: None, key: Some(key.as_bytes()), ..record(0, &value) };
        assert!(plain.send(&record).unwrap());
    }
    plain.flush().await.unwrap();
    let mut keys = Vec::new();
    for partition in cluster.committed(OUT) {
        for key in 0..4 {
            let of_key = partition.iter().filter(|record| record.key == Some(format!("k{key}").into_bytes()));
            let values: Vec<u32> = of_key
                .map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap().parse().unwrap())
                .collect();
            assert!(values.is_sorted() && (values.is_empty() || values.len() == 10), "{values:?}");
            keys.extend((!values.is_empty()).then_some(key));
        }
    }
    keys.sort_unstable();
    assert_eq!(keys, [0, 1, 2, 3], "every key is in one partition");
}

#[tokio::test(start_paused = true)]
async fn the_newest_committed_value_is_known_only_when_all_before_it_is() {
    let cluster = cluster(Settings { patience: 5_000, ..Settings::default() });
    cluster.create_compacted("m").await.unwrap();
    cluster.create_compacted("m").await.unwrap();
    assert_eq!((cluster.partitions("m").await.unwrap(), cluster.last_committed("m").await.unwrap()), (1, None));
    assert!(matches!(cluster.partitions("n").await, Err(ConnectorError::Config(_))));
    let mark = |value: &'static str| Outgoing { topic: "m", ..record(0, value) };
    let (a, b) = (producer(&cluster, "a").await, producer(&cluster, "b").await);
    a.begin().await.unwrap();
    assert!(a.send(&mark("1")).unwrap());
    a.commit().await.unwrap();
    // It may not be visible yet, and is waited for.
    assert_eq!(cluster.last_committed("m").await.unwrap().unwrap(), b"1");
    b.begin().await.unwrap();
    assert!(b.send(&mark("2")).unwrap());
    b.flush().await.unwrap();
    let error = cluster.last_committed("m").await.unwrap_err();
    assert!(error.to_string().contains("open for too long"), "{error}");
    let (found, aborted) = tokio::join!(cluster.last_committed("m"), async {
        millis(1_000).await;
        b.abort().await
    });
    aborted.unwrap();
    assert_eq!(found.unwrap().unwrap(), b"1");
    // A commit in the former partition of one behind which another is complete.
    a.begin().await.unwrap();
    assert!(a.send(&mark("3")).unwrap());
    a.flush().await.unwrap();
    b.begin().await.unwrap();
    assert!(b.send(&mark("4")).unwrap());
    cluster.look(|world| world.plan.say_marker(3_000));
    a.commit().await.unwrap();
    b.commit().await.unwrap();
    assert_eq!(cluster.last_committed("m").await.unwrap().unwrap(), b"4");
}

#[tokio::test(start_paused = true)]
async fn what_a_reader_has_taken_is_forgotten_and_the_rest_is_read_on() {
    let cluster = cluster(Settings::default());
    let (a, b) = (producer(&cluster, "a").await, producer(&cluster, "b").await);
    begin(&a, 0, "1").await;
    begin(&b, 0, "2").await;
    a.commit().await.unwrap();
    millis(10).await;
    assert_eq!(texts(vec![cluster.take_committed(OUT)]), ["1"]);
    assert!(cluster.take_committed(OUT).is_empty());
    b.commit().await.unwrap();
    begin(&a, 0, "3").await;
    a.abort().await.unwrap();
    millis(10).await;
    assert_eq!(texts(vec![cluster.take_committed(OUT)]), ["2"]);
}
