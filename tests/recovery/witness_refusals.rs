//! What a job with a witness refuses, at its start and while it runs, and in which words: sinks that cannot commit as one,
//! times that do not fit, a checkpoint directory and markers that do not belong together, an epoch that stays open.

use std::fs;

use tests::on_two_threads;
use windrow::{
    CheckpointError, Error, Faults, Restarts, Restore,
    connectors::{Epoch, Incarnation, Marker},
    prelude::*,
};

use super::{
    hand::{Hand, click, read, save_and_stop, until},
    lives::start,
    witness::{Connection, Fate},
};

/// A job fed by hand whose amounts become visible when the cluster decides.
struct Decided {
    hand: Hand,
    cluster: Connection,
}

impl Decided {
    fn new() -> Self {
        Self { hand: Hand::new(), cluster: Connection::new() }
    }

    fn job(&self) -> Job {
        let cluster = self.cluster.again();
        self.hand.job(|rows, out| rows.select([col("amount")]).sink(cluster.sink(&out)))
    }

    /// The same job before it had the sink, or after.
    fn plain(&self) -> Job {
        self.hand.job(|rows, out| rows.select([col("amount")]).sink(out))
    }

    /// Reads one more row, and stops when it is visible.
    async fn one_more(&self, job: impl Fn() -> Job, amount: i64) {
        self.hand.push(&[click(1, amount, amount)]);
        save_and_stop(read(job, 1).await.unwrap(), &format!("s{amount}")).await;
    }

    async fn refused(&self, job: impl Fn() -> Job) -> String {
        let error = start(job).await.err().expect("it is refused");
        assert!(matches!(error, Error::Checkpoint { error: CheckpointError::Conflict { .. }, .. }), "{error}");
        error.to_string()
    }

    /// Crashes with its second checkpoint prepared and `point` passed.
    async fn crash_at(&self, job: impl Fn() -> Job, point: &'static str) {
        let faults = Faults::default().at_points(move |at| {
            if at == point {
                std::panic::resume_unwind(Box::new("a crash"));
            }
        });
        let crashed = faults.during(Box::pin(async { start(job).await?.wait().await })).await;
        assert!(matches!(crashed, Err(Error::Panic { .. })), "it crashes");
    }
}

fn has(said: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(said.contains(part), "no {part:?} in: {said}"));
}

fn foreign(epoch: u64) -> Marker {
    Marker { incarnation: Incarnation { job: "f0e19000".into(), generation: 3, nonce: 1 }, epoch: Epoch(epoch) }
}

#[test]
fn a_lost_request_loses_nothing_and_a_lost_reply_repeats_nothing() {
    on_two_threads(async {
        for lost in [Fate::RequestLost, Fate::ReplyLost, Fate::Late, Fate::Slow] {
            for at in 0..3 {
                let decided = Decided::new();
                decided.cluster.reply((0..at).map(|_| Fate::Fine).chain([lost]));
                let job = || decided.job().restarts(Restarts::at_most(1).waiting(millis(1)..=millis(1)));
                decided.hand.push(&[click(1, 1, 1)]);
                let running = start(job).await.unwrap();
                let handle = running.handle();
                let save = async {
                    while handle
                        .savepoint("on-the-way")
                        .await
                        .is_err_and(|error| matches!(error, Error::Savepoint { .. }))
                    {
                        tokio::task::yield_now().await;
                    }
                    decided.hand.push(&[click(1, 2, 2)]);
                    decided.hand.input.end_all();
                };
                let (ended, ()) = tokio::join!(running.wait(), save);
                ended.unwrap_or_else(|error| panic!("{lost:?} at {at}: {error}"));
                assert_eq!(decided.hand.rows(), ["1", "2"], "{lost:?} at {at}");
                decided.cluster.check().unwrap();
            }
        }
    });
}

#[test]
fn rows_are_visible_when_they_are_decided_and_not_before() {
    on_two_threads(async {
        let decided = Decided::new();
        decided.hand.push(&[click(1, 1, 1)]);
        decided.cluster.reply([Fate::Fine, Fate::RequestLost]);
        let running = read(|| decided.job(), 1).await.unwrap();
        assert!(running.handle().savepoint("now").await.is_err());
        let error = running.wait().await.unwrap_err();
        assert!(matches!(error, Error::Checkpoint { error: CheckpointError::Witness { .. }, .. }));
        has(&error.to_string(), &["sink memory: cluster: no reply"]);
        assert_eq!(decided.hand.rows(), [""; 0]);
        assert_eq!(decided.cluster.markers().len(), 1, "checkpoint 0 has one");
    });
}

#[test]
fn a_job_gains_the_sink_and_loses_it_between_runs() {
    on_two_threads(async {
        let decided = Decided::new();
        decided.one_more(|| decided.plain(), 1).await;
        assert_eq!(decided.cluster.markers(), []);
        decided.one_more(|| decided.job(), 2).await;
        let with = decided.cluster.markers().len();
        assert!(with > 0);
        decided.one_more(|| decided.plain(), 3).await;
        assert_eq!(decided.cluster.markers().len(), with, "the store decided alone");
        decided.one_more(|| decided.job(), 4).await;
        assert_eq!(decided.hand.rows(), ["1", "2", "3", "4"]);
    });
}

/// As the store does with those that are old.
fn remove_records(folder: &std::path::Path, keep: usize) {
    let mut records: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    records.sort_unstable();
    assert!(records.len() > keep);
    records.iter().take(records.len() - keep).for_each(|record| fs::remove_file(record).unwrap());
}

#[test]
fn a_marker_is_right_that_is_older_than_all_that_the_store_knows() {
    on_two_threads(async {
        let decided = Decided::new();
        decided.one_more(|| decided.job(), 1).await;
        let last = decided.cluster.markers().last().unwrap().clone();
        for amount in 2..5 {
            decided.one_more(|| decided.plain(), amount).await;
        }
        let epochs = format!("{}/by-hand/epoch", decided.hand.store());
        remove_records(epochs.as_ref(), 3);
        // Its number is too old to be known, and yet it is not one of ours.
        let mut markers = decided.cluster.markers();
        markers.push(Marker { incarnation: foreign(1).incarnation, ..last });
        decided.cluster.set_markers(markers.clone());
        has(&decided.refused(|| decided.job()).await, &["of job id f0e19000"]);
        markers.pop();
        decided.cluster.set_markers(markers);
        decided.one_more(|| decided.job(), 5).await;
        assert_eq!(decided.hand.rows(), ["1", "2", "3", "4", "5"]);
    });
}

#[test]
fn a_job_of_another_directory_is_refused_before_it_fences_the_one_that_runs() {
    on_two_threads(async {
        let (one, other) = (Decided::new(), Decided::new());
        one.hand.push(&[click(1, 1, 1)]);
        let running = read(|| one.job(), 1).await.unwrap();
        running.handle().savepoint("first").await.unwrap();
        let job = || {
            let cluster = one.cluster.again();
            other.hand.job(|rows, out| rows.select([col("amount")]).sink(cluster.sink(&out)))
        };
        has(&other.refused(job).await, &["this directory is of job id", "is of another checkpoint directory"]);
        one.hand.push(&[click(1, 2, 2)]);
        let rows_in =
            |job: &windrow::JobHandle| job.metrics().named("source").map(|source| source.rows_in).sum::<u64>();
        until(&running.handle(), |job| rows_in(job) == 2).await;
        save_and_stop(running, "last").await;
        assert_eq!(one.hand.rows(), ["1", "2"], "it has not noticed");
        // When it is meant, it takes over.
        let again = || job().restore(Restore::newest().repeat_output());
        start(again).await.unwrap().handle().stop();
    });
}

#[test]
fn a_job_that_died_undecided_and_gains_or_loses_the_sink() {
    on_two_threads(async {
        // Gains: the store decides what it alone could decide.
        let decided = Decided::new();
        decided.one_more(|| decided.plain(), 1).await;
        decided.hand.push(&[click(1, 2, 2)]);
        decided.hand.input.end_all();
        decided.crash_at(|| decided.plain(), "K5 prepared").await;
        start(|| decided.job()).await.unwrap().wait().await.unwrap();
        assert_eq!(decided.hand.rows(), ["1", "2"]);

        // Loses: only the cluster could say.
        for (point, rows) in [("K6 undecided", ["1"].as_slice()), ("K8 witnessed", &["1", "2"])] {
            let decided = Decided::new();
            decided.one_more(|| decided.job(), 1).await;
            decided.hand.push(&[click(1, 2, 2)]);
            decided.hand.input.end_all();
            decided.crash_at(|| decided.job(), point).await;
            assert_eq!(decided.hand.rows(), rows);
            let said = decided.refused(|| decided.plain()).await;
            has(
                &said,
                &[
                    "MANIFEST: checkpoint",
                    "is prepared, and only cluster, markers of by-hand can say",
                    "former job once",
                ],
            );
            start(|| decided.job()).await.unwrap().wait().await.unwrap();
            start(|| decided.plain()).await.unwrap().wait().await.unwrap();
            assert_eq!(decided.hand.rows(), ["1", "2"]);
        }
    });
}

/// A marker that nobody knows, beside a checkpoint that is prepared or decided: it must be refused.
pub async fn foreign_marker() -> Result<(), String> {
    for point in ["K6 undecided", "K11 done"] {
        let decided = Decided::new();
        decided.one_more(|| decided.job(), 1).await;
        decided.hand.push(&[click(1, 2, 2)]);
        decided.hand.input.end_all();
        decided.crash_at_again(point).await;
        let mut markers = decided.cluster.markers();
        markers.push(foreign(900));
        decided.cluster.set_markers(markers);
        match start(|| decided.job()).await {
            Err(Error::Checkpoint { error: CheckpointError::Conflict { .. }, .. }) => {}
            Err(error) => return Err(error.to_string()),
            Ok(_) => return Err(format!("a marker that nobody knows is not refused after {point}")),
        }
    }
    Ok(())
}

impl Decided {
    /// As [`Decided::crash_at`], below the faults of a mutant: the process is dropped there.
    async fn crash_at_again(&self, point: &str) {
        // The prepared one is left by a request that is lost, the decided one by a clean end.
        self.cluster.reply(if point == "K6 undecided" { vec![Fate::RequestLost] } else { Vec::new() });
        if let Ok(running) = start(|| self.job()).await {
            let _ = running.wait().await;
        }
    }
}

#[test]
fn a_foreign_marker_is_refused() {
    on_two_threads(foreign_marker()).unwrap();
}

#[test]
fn a_directory_and_markers_that_do_not_belong_together_are_refused() {
    on_two_threads(async {
        let decided = Decided::new();
        decided.one_more(|| decided.job(), 1).await;
        let old = decided.hand.store().to_owned() + ".old";
        copy(decided.hand.store().as_ref(), old.as_ref());
        decided.one_more(|| decided.job(), 2).await;
        let markers = decided.cluster.markers();
        let folder = format!("{}/by-hand", decided.hand.store());

        decided.cluster.set_markers(Vec::new());
        let said = decided.refused(|| decided.job()).await;
        has(
            &said,
            &[&folder, "has no marker at all", "removed or made anew", ".restore(Restore::newest().repeat_output())"],
        );

        decided.cluster.set_markers(markers[..1].to_vec());
        has(
            &decided.refused(|| decided.job()).await,
            &["says that the newest that counts is epoch", "markers were lost"],
        );

        decided.cluster.set_markers(vec![foreign(1)]);
        has(&decided.refused(|| decided.job()).await, &["of job id f0e19000", "another checkpoint directory"]);

        // The directory is an older copy.
        decided.cluster.set_markers(markers.clone());
        fs::remove_dir_all(decided.hand.store()).unwrap();
        copy(old.as_ref(), decided.hand.store().as_ref());
        has(&decided.refused(|| decided.job()).await, &["is an old copy or was emptied"]);
        // It is refused again, and stays so; not started again by itself.
        let patient = || decided.job().restarts(Restarts::at_most(5));
        has(&decided.refused(patient).await, &["is an old copy or was emptied"]);

        // And when that is meant, the job goes on from there, with a warning.
        let again = || decided.job().restore(Restore::newest().repeat_output());
        let running = read(again, 1).await.unwrap();
        has(&running.handle().warnings().join("\n"), &["is an old copy", "because .repeat_output() was said"]);
        save_and_stop(running, "again").await;
        assert_eq!(decided.hand.rows(), ["1", "2", "2"], "what came after the copy comes again");
        decided.one_more(|| decided.job(), 3).await;
        assert_eq!(decided.hand.rows(), ["1", "2", "2", "3"], "from there on they belong together");

        fs::remove_dir_all(decided.hand.store()).unwrap();
        has(
            &decided.refused(|| decided.job()).await,
            &["this directory is of job id", "but cluster, markers of by-hand says", "before it was emptied"],
        );
        fs::remove_dir_all(old).unwrap();
    });
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn an_older_savepoint_is_written_again_with_a_marker_of_its_own() {
    on_two_threads(async {
        for crash in [None, Some("K6 undecided"), Some("K8 witnessed")] {
            let decided = Decided::new();
            decided.one_more(|| decided.job(), 1).await;
            decided.one_more(|| decided.job(), 2).await;
            let before = decided.cluster.markers().len();
            let back = || decided.job().restore(Restore::savepoint("s1").repeat_output());
            if let Some(point) = crash {
                // In the start, which ends with it.
                let faults = Faults::default().at_points(move |at| {
                    if at == point {
                        std::panic::resume_unwind(Box::new("a crash"));
                    }
                });
                let store = decided.hand.store().to_owned();
                let starting = tokio::spawn({
                    let job = back();
                    async move { faults.during(Box::pin(job.start())).await.map(drop) }
                });
                let crashed = matches!(starting.await.unwrap(), Err(windrow::Error::Panic { .. }));
                assert!(crashed, "it crashes in {store}");
            }
            let running = read(back, 1).await.unwrap();
            assert!(decided.cluster.markers().len() > before, "{crash:?}");
            save_and_stop(running, "again").await;
            assert_eq!(decided.hand.rows(), ["1", "2", "2"], "{crash:?}");
            decided.one_more(|| decided.job(), 3).await;
            assert_eq!(decided.hand.rows(), ["1", "2", "2", "3"], "{crash:?}");
            decided.cluster.check().unwrap();
        }
    });
}

/// The mistakes of a job with these sinks.
fn mistakes(sinks: &[Connection], times: impl Fn(Job) -> Job) -> String {
    let job = Job::new("mistaken");
    let rows = job.source(Sequence::new(10)).event_time("at", Watermarks::in_order()).filter_expr(lit(true));
    for sink in sinks {
        rows.clone().sink(sink.sink(&MemorySink::new()));
    }
    drop(rows);
    on_two_threads(async {
        let explained = times(job).explain().await;
        match explained {
            Err(Error::Plan { mistakes, .. }) => mistakes.join("\n"),
            Err(error) => panic!("{error}"),
            Ok(_) => String::new(),
        }
    })
}

#[test]
fn what_cannot_work_is_a_mistake_before_the_first_row() {
    let (one, other) = (Connection::new(), Connection::new());
    let said = mistakes(std::slice::from_ref(&one), |job| job);
    has(&said, &["sink memory makes its rows visible with the checkpoints of the job: say .checkpoint(url, every)"]);
    let said = mistakes(&[one.clone(), one.clone(), other], |job| job.checkpoint("x", secs(10)));
    has(&said, &["#3 sink memory and #5 sink memory", "cluster, markers of mistaken", "make both from one connection"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(mistakes(&[one.clone(), one.clone()], |job| job.checkpoint("x", secs(10))), "");

    let short = one.longest(secs(900));
    let with = |every, timeout: Option<u64>| {
        mistakes(std::slice::from_ref(&short), |job| {
            let job = job.checkpoint("x", secs(every));
            timeout.map(secs).into_iter().fold(job, Job::checkpoint_timeout)
        })
    };
    assert_eq!(with(10, None), "", "the usual ten minutes are lowered");
    assert_eq!(with(10, Some(290)), "");
    has(
        &with(10, Some(291)),
        &["open for 900s", "every 10s that may take 291s", "3 times", ".checkpoint_timeout(..) of at most 290s"],
    );
    assert_eq!(with(299, None), "");
    has(&with(300, None), &["every 300s", "900s", "take a checkpoint at least every 299s"]);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_stays_open_is_warned_of_and_then_ends_the_job() {
    let decided = Decided::new();
    let cluster = decided.cluster.longest(secs(1_000));
    let job = || {
        let cluster = cluster.clone();
        let job = decided.hand.job(|rows, out| rows.select([col("amount")]).sink(cluster.sink(&out)));
        job.checkpoint(decided.hand.store(), secs(100))
    };
    decided.hand.push(&[click(1, 1, 1)]);
    let running = read(job, 1).await.unwrap();
    let handle = running.handle();
    handle.savepoint("first").await.unwrap();
    cluster.hold_open();
    tokio::time::sleep(secs(499)).await;
    assert_eq!(handle.warnings(), [""; 0]);
    tokio::time::sleep(secs(2)).await;
    let said = handle.warnings().join("\n");
    has(&said, &["sink memory: cluster, markers of by-hand: an epoch has been open for 501 s", "after 1000 s"]);
    cluster.let_go();
    assert_eq!(handle.warnings(), [""; 0], "the epoch is decided");

    cluster.hold_open();
    let began = tokio::time::Instant::now();
    let error = running.wait().await.unwrap_err();
    assert_eq!(began.elapsed().as_secs(), 900);
    has(&error.to_string(), &["an epoch has been open for 900 s", "Find out what holds its checkpoints up"]);

    // A job that may, starts again, and then goes on.
    let patient = || job().restarts(Restarts::at_most(1));
    decided.hand.push(&[click(1, 2, 2)]);
    let running = read(patient, 1).await.unwrap();
    cluster.hold_open();
    let end = async {
        tokio::time::sleep(secs(950)).await;
        decided.hand.input.end_all();
    };
    let (ended, ()) = tokio::join!(running.wait(), end);
    ended.unwrap();
    assert_eq!(decided.hand.rows(), ["1", "2"]);
}
