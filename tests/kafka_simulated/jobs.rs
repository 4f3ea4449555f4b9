//! What users do to whole jobs that write to topics exactly once: savepoints, going back, another sink, two jobs on one connection;
//! and what is left of them on the cluster when they fail.

use std::{fs, sync::Arc, time::Duration};

use windrow::{
    CheckpointError, Error, Faults, Report, Restarts, Restore, RunningJob,
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    connectors::{
        kafka::{Kafka, KafkaSink},
        memory::MemoryInput,
    },
    prelude::*,
};

use super::{
    lives::HANGS,
    mode_k::ExactlyOnce,
    simulated::{Fate, Kind, Settings, Simulated},
    targets::Target,
};

const OUT: &str = "results";

/// A row, whose time is its value in seconds.
fn batch(value: i64) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![value]));
    RecordBatch::try_from_iter([("value", values), ("at", Timestamp::column(vec![value * 1_000_000]))]).unwrap()
}

#[derive(Record)]
struct Out {
    a: i64,
}

/// A job that is fed by hand, its checkpoints and the cluster; they outlive its starts.
struct Setting {
    name: &'static str,
    cluster: Simulated,
    directory: tempfile::TempDir,
    input: MemoryInput,
    source: MemorySource,
    pushed: u64,
}

impl Setting {
    fn new(name: &'static str, cluster: &Simulated) -> Self {
        let (input, source) = MemorySource::by_hand(batch(0).schema(), 1);
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { name, cluster: cluster.clone(), directory, input, source, pushed: 0 }
    }

    fn push(&mut self, value: i64) {
        self.input.push(0, batch(value));
        self.pushed += 1;
    }

    /// A connection of a process of its own. Its transactions may be open for a day, as those of the cluster.
    fn kafka(&self) -> Kafka {
        kafka(&self.cluster)
    }

    fn job(&self, build: impl FnOnce(Stream<Out>)) -> Job {
        let job = Job::new(self.name).restarts(Restarts::never());
        let rows = job.source(self.source.clone()).event_time("at", Watermarks::in_order()).fail_on_rejects();
        build(rows.select([col("value").alias("a")]).typed());
        job.checkpoint(self.directory.path().to_str().unwrap(), hours(1)).checkpoint_timeout(mins(1))
    }

    fn to_topic(&self) -> Job {
        self.job(|rows| rows.sink(exactly_once(&self.kafka())))
    }

    /// Starts a job, and waits until it has read all that there is.
    async fn start(&self, job: impl Fn() -> Job) -> RunningJob {
        let running = loop {
            match job().start().await {
                Err(Error::Checkpoint { error: CheckpointError::Locked { .. }, .. }) => tokio::task::yield_now().await,
                started => break started.unwrap(),
            }
        };
        self.is_read(&running).await;
        running
    }

    async fn is_read(&self, running: &RunningJob) {
        let handle = running.handle();
        let source = || handle.metrics().named("source").map(|source| source.rows_in).sum::<u64>();
        // What a checkpoint holds is not read again: it may only be some of them.
        for _ in 0..1_000 {
            if source() >= self.pushed {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A commit is complete soon after it is decided.
    async fn rows(&self) -> Vec<String> {
        tokio::time::sleep(secs(1)).await;
        ExactlyOnce.rows(&self.cluster, OUT)
    }
}

fn kafka(cluster: &Simulated) -> Kafka {
    Kafka::brokers("simulated").transaction_timeout(hours(24)).written_to(Arc::new(cluster.process()))
}

fn exactly_once(kafka: &Kafka) -> KafkaSink {
    kafka.to_topic(OUT).json().exactly_once()
}

fn cluster() -> Simulated {
    // A long time: virtual hours pass while a test waits.
    let day = 24 * 3_600_000;
    let cluster = Simulated::new(Settings { transaction_timeout: day, ..Settings::default() });
    cluster.create(OUT, 2);
    cluster
}

async fn stop(running: RunningJob, name: &str) -> Report {
    let handle = running.handle();
    let (saved, ended) = tokio::join!(handle.stop_with_savepoint(name), tokio::time::timeout(HANGS, running.wait()));
    saved.unwrap();
    ended.expect("it hangs").unwrap()
}

#[tokio::test(start_paused = true)]
async fn savepoints_and_going_back_to_one() {
    let mut s = Setting::new("saved", &cluster());
    for value in 1..4 {
        s.push(value);
        let running = s.start(|| s.to_topic()).await;
        stop(running, &format!("s{value}")).await;
    }
    assert_eq!(s.rows().await, ["1", "2", "3"]);
    let error = s.to_topic().restore(Restore::savepoint("s1")).start().await.err().unwrap();
    assert!(matches!(error, Error::Checkpoint { error: CheckpointError::Rewind { .. }, .. }), "{error}");
    let again = || s.to_topic().restore(Restore::savepoint("s1").repeat_output());
    stop(s.start(again).await, "again").await;
    assert_eq!(s.rows().await, ["1", "2", "2", "3", "3"]);
    // From there on there is one line again.
    s.push(4);
    stop(s.start(|| s.to_topic()).await, "s4").await;
    assert_eq!(s.rows().await, ["1", "2", "2", "3", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn the_markers_are_lost_and_that_is_accepted() {
    let mut s = Setting::new("lost", &cluster());
    s.push(1);
    stop(s.start(|| s.to_topic()).await, "s1").await;
    s.cluster.create("__windrow.lost.commits", 1);
    s.push(2);
    let error = s.to_topic().start().await.err().unwrap();
    assert!(error.to_string().contains("has no marker at all"), "{error}");
    let running = s.start(|| s.to_topic().restore(Restore::newest().repeat_output())).await;
    stop(running, "s2").await;
    assert_eq!(s.rows().await, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_gains_the_topic_and_loses_it_and_writes_files_beside_it() {
    let mut s = Setting::new("beside", &cluster());
    let files = s.directory.path().join("files");
    for value in 1..7 {
        s.push(value);
        let topic = [true, false, true, true, false, false][value as usize - 1];
        let job = || {
            s.job(|rows| {
                if topic {
                    rows.clone().sink(exactly_once(&s.kafka()));
                }
                rows.sink(File::directory(&files).json());
            })
        };
        stop(s.start(job).await, &format!("s{value}")).await;
    }
    assert_eq!(s.rows().await, ["1", "3", "4"]);
    let mut lines: Vec<String> = Vec::new();
    for entry in fs::read_dir(&files).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            lines.extend(fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    lines.sort_unstable();
    assert_eq!(lines.len(), 6, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn two_jobs_of_one_process_share_a_connection() {
    let cluster = cluster();
    let (mut one, mut other) = (Setting::new("one", &cluster), Setting::new("other", &cluster));
    let kafka = kafka(&cluster);
    let first = one.start(|| one.job(|rows| rows.sink(exactly_once(&kafka)))).await;
    let second = other.start(|| other.job(|rows| rows.sink(exactly_once(&kafka)))).await;
    for round in 0..3 {
        one.push(round);
        other.push(10 + round);
        one.is_read(&first).await;
        other.is_read(&second).await;
        first.handle().savepoint(format!("one{round}")).await.unwrap();
        second.handle().savepoint(format!("other{round}")).await.unwrap();
    }
    one.push(3);
    one.input.end_all();
    first.wait().await.unwrap();
    // The end of one is not that of the other.
    other.push(13);
    other.input.end_all();
    second.wait().await.unwrap();
    assert_eq!(one.rows().await, ["0", "1", "10", "11", "12", "13", "2", "3"]);
    assert_eq!(cluster.open(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_another_directory_does_not_fence_the_one_that_runs() {
    let cluster = cluster();
    let (mut one, other) = (Setting::new("same", &cluster), Setting::new("same", &cluster));
    one.push(1);
    let running = one.start(|| one.to_topic()).await;
    running.handle().savepoint("first").await.unwrap();
    let refused = other.to_topic().start().await.err().unwrap();
    assert!(refused.to_string().contains("is of another checkpoint directory"), "{refused}");
    one.push(2);
    one.is_read(&running).await;
    stop(running, "second").await;
    assert_eq!(one.rows().await, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_between_staging_and_decision_leaves_nothing_open() {
    for point in ["K5 prepared", "K6 undecided"] {
        let mut s = Setting::new("fails", &cluster());
        s.push(1);
        let running = Faults::default()
            .at_points(passes_once(point))
            .during(Box::pin(async { s.start(|| s.to_topic()).await }))
            .await;
        s.is_read(&running).await;
        let handle = running.handle();
        let saved = tokio::spawn(async move { handle.savepoint("never").await });
        let error = tokio::time::timeout(HANGS, running.wait()).await.expect("it hangs").unwrap_err();
        assert!(matches!(error, Error::Panic { .. }), "{error}");
        assert!(saved.await.unwrap().is_err());
        // At once, and not only when the transaction is too old, or the job is started again.
        assert!(s.cluster.look(|world| world.broker.coordinator.ongoing().next().is_none()), "{point}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(s.cluster.stuck(), [], "{point}");
        stop(s.start(|| s.to_topic()).await, "last").await;
        assert_eq!(s.rows().await, ["1"]);
    }
}

/// A crash at the second time that `point` is passed: the first checkpoint is about nothing.
fn passes_once(point: &'static str) -> impl Fn(&'static str) + Send + Sync {
    let passed = std::sync::atomic::AtomicUsize::new(0);
    move |at| {
        if at == point && passed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            std::panic::resume_unwind(Box::new("a crash"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_never_comes_back_is_found_by_the_next_start_in_the_same_process() {
    for handled in [false, true] {
        let mut s = Setting::new("never", &cluster());
        s.push(1);
        let kafka = s.kafka();
        let job = || {
            let job = s.job(|rows| rows.sink(exactly_once(&kafka)));
            job.restarts(Restarts::at_most(3).waiting(millis(1)..=secs(1)))
        };
        let running = s.start(job).await;
        let handle = running.handle();
        // The first checkpoint is complete.
        while handle.metrics().checkpoints.completed == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        s.cluster.say(Kind::End, Fate::never(handled));
        let began = tokio::time::Instant::now();
        let saved = tokio::spawn(async move { handle.savepoint("never").await });
        let ended = tokio::spawn(running.wait());
        assert!(saved.await.unwrap().is_err());
        assert!(began.elapsed() < secs(62), "{:?}", began.elapsed());
        s.push(2);
        s.input.end_all();
        tokio::time::timeout(HANGS, ended).await.expect("it hangs").unwrap().unwrap();
        assert_eq!(s.rows().await, ["1", "2"], "handled: {handled}");
        assert_eq!(s.cluster.open(), [""; 0]);
    }
}
