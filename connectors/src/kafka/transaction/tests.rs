//! The gate, the two producers, and what becomes of them when something fails: with a cluster in memory.

use std::{collections::BTreeMap, time::Duration};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use tokio::time::timeout;

use super::{super::in_memory::InMemory, *};
use crate::{Sink, SinkWriter, kafka::KafkaSink};

mod jobs;

const MARKERS: &str = "__windrow.fraud.commits";

fn incarnation(nonce: u32) -> Incarnation {
    Incarnation { job: "00c0ffee".into(), generation: u64::from(nonce), nonce }
}

fn marker(nonce: u32, epoch: u64) -> Marker {
    Marker { incarnation: incarnation(nonce), epoch: Epoch(epoch) }
}

fn schema() -> arrow::datatypes::SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn row(n: i64) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![n]))]).unwrap()
}

/// A cluster, two sinks of one connection, and their witness, which has fenced.
struct Setting {
    cluster: InMemory,
    a: KafkaSink,
    b: KafkaSink,
    witness: Arc<dyn Witness>,
}

impl Setting {
    async fn new() -> Self {
        let cluster = InMemory::with_topics(&["a", "b"]);
        let kafka = Kafka::brokers("memory").written_to(Arc::new(cluster.clone()));
        let a = kafka.to_topic("a").json().exactly_once();
        let b = kafka.clone().to_topic("b").json().exactly_once();
        let witness = a.witness().unwrap();
        witness.fence("fraud", &incarnation(1), &[]).await.unwrap();
        assert_eq!(cluster.story(), ["init 0", "init 1"]);
        Self { cluster, a, b, witness }
    }

    async fn writer(&self, sink: &KafkaSink) -> Box<dyn SinkWriter> {
        sink.writer(&incarnation(1), 0, schema()).await.unwrap()
    }

    async fn both(&self) -> (Box<dyn SinkWriter>, Box<dyn SinkWriter>) {
        (self.writer(&self.a).await, self.writer(&self.b).await)
    }
}

/// Whatever goes wrong, nobody waits for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), what).await.expect("it waits for ever")
}

/// A stage on a task of its own.
fn staging(mut writer: Box<dyn SinkWriter>, epoch: u64) -> tokio::task::JoinHandle<Result<Box<dyn SinkWriter>>> {
    tokio::spawn(async move {
        writer.stage(Epoch(epoch)).await?;
        Ok(writer)
    })
}

async fn settled() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_of_a_connection_commit_as_one() {
    let s = Setting::new().await;
    assert!(Arc::ptr_eq(&s.witness, &s.b.witness().unwrap()));
    let (mut a, mut b) = s.both().await;
    a.write(row(1)).await.unwrap();
    b.write(row(2)).await.unwrap();
    let (a, b) = (staging(a, 1), staging(b, 1));
    let (mut a, mut b) = (soon(a).await.unwrap().unwrap(), soon(b).await.unwrap().unwrap());
    // Of the next epoch, while the first is not decided.
    a.write(row(3)).await.unwrap();
    assert_eq!(s.cluster.committed(), []);
    s.witness.decide(&marker(1, 1)).await.unwrap();
    assert_eq!((s.cluster.values("a"), s.cluster.values("b")), (vec![r#"{"n":1}"#.into()], vec![r#"{"n":2}"#.into()]));
    assert_eq!(s.witness.newest("fraud").await.unwrap(), Some(marker(1, 1)));
    b.write(row(4)).await.unwrap();
    let (a, b) = (staging(a, 2), staging(b, 2));
    let (mut a, _b) = (soon(a).await.unwrap().unwrap(), soon(b).await.unwrap().unwrap());
    s.witness.decide(&marker(1, 2)).await.unwrap();
    a.write(row(5)).await.unwrap();
    let story = ["begin 0", "flush 0", "begin 1", "flush 0", "commit 0", "flush 1", "flush 1", "commit 1", "begin 0"];
    assert_eq!(s.cluster.story(), story);
    assert_eq!(s.cluster.values("a"), [r#"{"n":1}"#, r#"{"n":3}"#]);
    let value: serde_json::Value = serde_json::from_str(&s.cluster.values(MARKERS)[1]).unwrap();
    let said = serde_json::json!({
        "job": "fraud", "incarnation": { "job": "00c0ffee", "generation": 1, "nonce": 1 }, "epoch": 2,
        "records": { "a": { "0": 1 }, "b": { "0": 1 } },
    });
    assert_eq!(value, said);
    let of_markers = s.cluster.committed().into_iter().find(|record| record.topic == MARKERS).unwrap();
    assert_eq!((of_markers.key.as_deref(), of_markers.partition), (Some("fraud"), Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_passes_the_gate_before_the_last() {
    let s = Setting::new().await;
    let (mut a, mut b) = s.both().await;
    a.write(row(1)).await.unwrap();
    let a = staging(a, 1);
    settled().await;
    assert!(!a.is_finished());
    // Still of epoch 1.
    b.write(row(2)).await.unwrap();
    b.stage(Epoch(1)).await.unwrap();
    soon(a).await.unwrap().unwrap();
    assert_eq!(s.cluster.story(), ["begin 0", "flush 0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_ends_is_waited_for_no_more() {
    let s = Setting::new().await;
    let (mut a, mut b) = s.both().await;
    b.write(row(2)).await.unwrap();
    // B has no rows since its last barrier, and goes while A waits: A opens the gate.
    let (a1, b1) = (staging(a, 1), staging(b, 1));
    a = soon(a1).await.unwrap().unwrap();
    b = soon(b1).await.unwrap().unwrap();
    s.witness.decide(&marker(1, 1)).await.unwrap();
    a.write(row(3)).await.unwrap();
    let a2 = staging(a, 2);
    settled().await;
    assert!(!a2.is_finished());
    drop(b);
    a = soon(a2).await.unwrap().unwrap();
    s.witness.decide(&marker(1, 2)).await.unwrap();
    drop(a);
    // All have ended, and there are checkpoints still.
    for epoch in 3..6 {
        s.witness.decide(&marker(1, epoch)).await.unwrap();
    }
    assert_eq!(s.witness.newest("fraud").await.unwrap(), Some(marker(1, 5)));
    assert_eq!(s.cluster.values("a"), [r#"{"n":3}"#]);
}

#[tokio::test]
async fn an_epoch_without_rows_has_a_marker_too() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    for epoch in 1..4 {
        a.stage(Epoch(epoch)).await.unwrap();
        assert_eq!(s.witness.open_for("fraud"), None);
        s.witness.decide(&marker(1, epoch)).await.unwrap();
    }
    assert_eq!(s.witness.newest("fraud").await.unwrap(), Some(marker(1, 3)));
    assert_eq!(
        s.cluster.story(),
        ["begin 0", "flush 0", "commit 0", "begin 1", "flush 1", "commit 1", "begin 0", "flush 0", "commit 0"]
    );
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_oldest_undecided_transaction_is_known() {
    let s = Setting::new().await;
    assert_eq!(s.witness.longest_epoch(), Duration::from_secs(900));
    let mut a = s.writer(&s.a).await;
    a.write(row(1)).await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    a.stage(Epoch(1)).await.unwrap();
    a.write(row(2)).await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(s.witness.open_for("fraud"), Some(Duration::from_secs(7)));
    s.witness.decide(&marker(1, 1)).await.unwrap();
    assert_eq!(s.witness.open_for("fraud"), Some(Duration::from_secs(2)));
    a.stage(Epoch(2)).await.unwrap();
    s.witness.decide(&marker(1, 2)).await.unwrap();
    assert_eq!(s.witness.open_for("fraud"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_an_epoch_wait_until_the_one_before_the_last_is_decided() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    a.write(row(1)).await.unwrap();
    a.stage(Epoch(1)).await.unwrap();
    a.write(row(2)).await.unwrap();
    let second = staging(a, 2);
    settled().await;
    assert!(!second.is_finished(), "both producers have an undecided transaction");
    s.witness.decide(&marker(1, 1)).await.unwrap();
    let mut a = soon(second).await.unwrap().unwrap();
    a.write(row(3)).await.unwrap();
    s.witness.decide(&marker(1, 2)).await.unwrap();
    assert_eq!(s.cluster.values("a"), [r#"{"n":1}"#, r#"{"n":2}"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_fails_everybody() {
    let s = Setting::new().await;
    let (mut a, mut b) = s.both().await;
    a.write(row(1)).await.unwrap();
    let a = staging(a, 1);
    settled().await;
    s.cluster.fail("flush");
    let failed = soon(b.stage(Epoch(1))).await.unwrap_err();
    assert!(failed.to_string().contains("flush failed"), "{failed}");
    let also = soon(a).await.unwrap().map(drop).unwrap_err();
    assert!(also.to_string().contains("flush failed"), "{also}");
    let decided = s.witness.decide(&marker(1, 1)).await.unwrap_err();
    assert!(decided.to_string().contains("flush failed"), "{decided}");
    settled().await;
    assert_eq!(s.cluster.story(), ["begin 0", "abort 0"]);
    assert_eq!(s.cluster.committed(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_fails_wakes_those_who_wait_for_it() {
    for call in ["send", "begin"] {
        let s = Setting::new().await;
        let (a, mut b) = s.both().await;
        let a = staging(a, 1);
        settled().await;
        s.cluster.fail(call);
        b.write(row(1)).await.unwrap_err();
        let failed = soon(a).await.unwrap().map(drop).unwrap_err();
        assert!(failed.to_string().contains(&format!("{call} failed")), "{failed}");
        assert!(b.write(row(1)).await.is_err(), "it takes no more rows");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_writer_that_was_stopped_are_not_committed() {
    let s = Setting::new().await;
    let (mut a, mut b) = s.both().await;
    a.write(row(1)).await.unwrap();
    b.write(row(2)).await.unwrap();
    let a = staging(a, 1);
    settled().await;
    drop(b);
    let failed = soon(a).await.unwrap().map(drop).unwrap_err();
    assert!(failed.to_string().contains("stopped before it had staged"), "{failed}");
    s.witness.decide(&marker(1, 1)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_is_given_up_half_way_fails_the_run() {
    // By the one who flushes, and by one who waits.
    for flushes in [true, false] {
        let s = Setting::new().await;
        let (mut a, b) = s.both().await;
        a.write(row(1)).await.unwrap();
        if flushes {
            s.cluster.hold("flush");
        }
        let (waiting, _idle) = if flushes { (Some(staging(b, 1)), None) } else { (None, Some(b)) };
        settled().await;
        let given_up = timeout(Duration::from_millis(50), a.stage(Epoch(1))).await;
        assert!(given_up.is_err());
        s.cluster.let_go();
        if let Some(waiting) = waiting {
            let failed = soon(waiting).await.unwrap().map(drop).unwrap_err();
            assert!(failed.to_string().contains("given up half-way"), "{failed}");
        }
        assert!(s.witness.decide(&marker(1, 1)).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_or_is_given_up_is_never_thrown_away() {
    for fails in [true, false] {
        let s = Setting::new().await;
        let mut a = s.writer(&s.a).await;
        a.write(row(1)).await.unwrap();
        a.stage(Epoch(1)).await.unwrap();
        if fails {
            s.cluster.fail("commit");
            let failed = s.witness.decide(&marker(1, 1)).await.unwrap_err();
            assert!(failed.to_string().contains("commit failed"), "{failed}");
        } else {
            s.cluster.hold("commit");
            let witness = s.witness.clone();
            let deciding = tokio::spawn(async move { witness.decide(&marker(1, 1)).await });
            soon(s.cluster.is_held()).await;
            deciding.abort();
            assert!(soon(deciding).await.unwrap_err().is_cancelled());
        }
        a.write(row(2)).await.unwrap_err();
        settled().await;
        // Whether it counts is not known: it must not be aborted, and nothing follows.
        assert_eq!(s.cluster.story(), ["begin 0", "flush 0", "flush 0"]);
    }
}

/// The marker is refused, so no commit was ever asked for: readers must not wait until the transaction is too old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_marker_is_refused_is_thrown_away() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    a.write(row(1)).await.unwrap();
    a.stage(Epoch(1)).await.unwrap();
    s.cluster.fail("flush");
    let failed = s.witness.decide(&marker(1, 1)).await.unwrap_err();
    assert!(failed.to_string().contains("flush failed"), "{failed}");
    settled().await;
    assert_eq!(s.cluster.story(), ["begin 0", "flush 0", "abort 0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_start_takes_over_from_the_former_one() {
    let s = Setting::new().await;
    let (mut a, b) = s.both().await;
    a.write(row(1)).await.unwrap();
    let a = staging(a, 1);
    settled().await;
    s.witness.fence("fraud", &incarnation(2), &[]).await.unwrap();
    let failed = soon(a).await.unwrap().map(drop).unwrap_err();
    assert!(failed.to_string().contains("started again"), "{failed}");
    drop(b);
    assert_eq!(s.cluster.alive(), 2, "the producers of the former start are gone");
    assert!(s.witness.decide(&marker(1, 1)).await.is_err(), "a former start decides nothing");
    assert!(s.a.writer(&incarnation(1), 0, schema()).await.is_err());
    let mut a = s.a.writer(&incarnation(2), 0, schema()).await.unwrap();
    a.write(row(9)).await.unwrap();
    a.stage(Epoch(1)).await.unwrap();
    s.witness.decide(&marker(2, 1)).await.unwrap();
    assert_eq!(s.cluster.values("a"), [r#"{"n":9}"#]);
}

#[tokio::test]
async fn writers_wait_for_room_and_stop_when_the_run_fails() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    s.cluster.is_full_for(5);
    a.write(row(1)).await.unwrap();
    s.cluster.is_full_for(usize::MAX);
    s.cluster.hold("room");
    let write = tokio::spawn(async move { a.write(row(2)).await });
    soon(s.cluster.is_held()).await;
    s.witness.fence("fraud", &incarnation(2), &[]).await.unwrap();
    s.cluster.let_go();
    soon(write).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn an_epoch_that_nobody_staged_is_not_decided() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    a.write(row(1)).await.unwrap();
    let failed = s.witness.decide(&marker(1, 1)).await.unwrap_err();
    assert!(failed.to_string().contains("before all of its writers had staged it"), "{failed}");
}

#[tokio::test]
async fn writers_at_different_barriers_are_an_error() {
    let s = Setting::new().await;
    let (mut a, mut b) = s.both().await;
    let (a, b) = soon(async { tokio::join!(a.stage(Epoch(1)), b.stage(Epoch(2))) }).await;
    let failed = a.and(b).unwrap_err();
    assert!(failed.to_string().contains("different epochs, "), "{failed}");
}

#[tokio::test]
async fn what_is_no_marker_of_the_job_is_refused() {
    let s = Setting::new().await;
    assert_eq!(s.witness.newest("fraud").await.unwrap(), None);
    s.cluster.put(MARKERS, "{}");
    let refused = s.witness.newest("fraud").await.unwrap_err();
    assert!(matches!(refused, ConnectorError::Data { .. }), "{refused}");
    assert!(refused.to_string().starts_with("kafka memory, topic __windrow.fraud.commits: the newest record is not"));
    let other = r#"{"job":"theft","incarnation":{"job":"00c0ffee","generation":1,"nonce":1},"epoch":7}"#;
    s.cluster.put(MARKERS, other);
    let refused = s.witness.newest("fraud").await.unwrap_err();
    assert!(refused.to_string().contains("of the job \"theft\""), "{refused}");
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_the_first_row() {
    let s = Setting::new().await;
    for name in ["", "hot items", "fraud/1", &"x".repeat(201)] {
        let refused = s.witness.fence(name, &incarnation(1), &[]).await.unwrap_err();
        assert!(refused.to_string().contains("the name of the job"), "{refused}");
    }
    s.cluster.topic("shared", 3);
    let kafka = Kafka::brokers("memory").marker_topic("shared").written_to(Arc::new(s.cluster.clone()));
    let refused =
        kafka.to_topic("a").json().exactly_once().witness().unwrap().fence("fraud", &incarnation(1), &[]).await;
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("topic shared: the topic of the markers has 3 partitions"), "{refused}");
    let missing = kafka.to_topic("nowhere").json();
    let refused = missing.writer(&incarnation(1), 0, schema()).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("nowhere"), "{refused}");
}

#[test]
fn with_other_settings_it_is_another_connection() {
    let kafka = Kafka::brokers("memory");
    let same = kafka.clone();
    assert!(Arc::ptr_eq(&kafka.transactions, &same.transactions));
    let other = same.transaction_timeout(Duration::from_secs(60)).transactional_prefix("w").marker_topic("m");
    assert!(!Arc::ptr_eq(&kafka.transactions, &other.transactions));
    let witness = other.to_topic("a").json().exactly_once().witness().unwrap();
    assert_eq!(witness.longest_epoch(), Duration::from_secs(60));
    assert_eq!(witness.name("fraud"), "kafka, markers in m, transactions w.fraud");
    assert!(kafka.to_topic("a").json().witness().is_none());
}

/// Many writers on several threads, over many epochs, with random pauses: every row is committed in its epoch.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_go_through_the_gate_together() {
    let s = Setting::new().await;
    let (done, mut staged) = tokio::sync::mpsc::unbounded_channel();
    let (decided, _) = tokio::sync::watch::channel(0_u64);
    let mut writers = Vec::new();
    for task in 0..8_i64 {
        writers.push((task, s.writer(if task % 2 == 0 { &s.a } else { &s.b }).await));
    }
    for (task, mut writer) in writers {
        let (done, mut decided) = (done.clone(), decided.subscribe());
        tokio::spawn(async move {
            // The later the task the sooner it ends.
            for epoch in 1..=(30 - task as u64) {
                for _ in 0..fastrand::u8(0..3) {
                    writer.write(row(epoch as i64)).await.unwrap();
                }
                if fastrand::bool() {
                    tokio::task::yield_now().await;
                }
                writer.stage(Epoch(epoch)).await.unwrap();
                done.send(epoch).unwrap();
                decided.wait_for(|decided| *decided + 1 >= epoch).await.unwrap();
            }
        });
    }
    drop(done);
    let mut counts = BTreeMap::<u64, usize>::new();
    let mut next = 1;
    while let Some(epoch) = soon(staged.recv()).await {
        *counts.entry(epoch).or_default() += 1;
        let expected = |epoch: u64| (0..8).filter(|task| epoch <= 30 - task).count();
        while next <= 30 && counts.get(&next) == Some(&expected(next)) {
            soon(s.witness.decide(&marker(1, next))).await.unwrap();
            let _ = decided.send(next);
            next += 1;
        }
    }
    assert_eq!(next, 31);
    let committed = s.cluster.committed();
    let mut epoch = 1;
    for record in committed {
        let value: serde_json::Value = serde_json::from_str(record.value.as_deref().unwrap()).unwrap();
        if record.topic == MARKERS {
            assert_eq!(value["epoch"], epoch);
            epoch += 1;
        } else {
            assert_eq!(value["n"], epoch);
        }
    }
    assert_eq!(epoch, 31);
}
