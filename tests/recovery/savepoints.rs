//! Savepoints: taken, named, gone back to.

use tests::on_two_threads;
use windrow::{CheckpointError, Error, Restore, prelude::*};

use super::{
    hand::{Hand, click, read, save_and_stop},
    lives::start,
};

fn amounts(hand: &Hand) -> Job {
    hand.job(|rows, out| rows.select([col("amount")]).sink(out))
}

#[test]
fn a_name_is_taken_once_and_the_job_goes_on() {
    on_two_threads(async {
        let hand = Hand::new();
        hand.push(&[click(1, 10, 1)]);
        let running = read(|| amounts(&hand), 1).await.unwrap();
        let handle = running.handle();
        let first = handle.savepoint("monday").await.unwrap();
        assert_eq!(hand.rows(), ["10"], "a savepoint is a checkpoint: what it holds is visible");
        let again = handle.savepoint("monday").await.unwrap_err();
        assert!(matches!(&again, Error::Checkpoint { error: CheckpointError::Exists { .. }, .. }));
        let said = again.to_string();
        assert!(said.contains(r#"there is already a savepoint "monday""#) && said.contains("another name"), "{said}");
        for name in ["", "..", "a/b", "../escape", "ünï", "a b", &"x".repeat(201)] {
            let error = handle.savepoint(name).await.unwrap_err();
            assert!(
                matches!(&error, Error::Checkpoint { error: CheckpointError::Name { .. }, .. }),
                "{name:?}: {error}"
            );
            let said = error.to_string();
            assert!(said.contains(&format!("a savepoint cannot be called {name:?}")), "{said}");
        }
        // To stop with a name that is taken does not stop.
        assert!(handle.stop_with_savepoint("monday").await.is_err());
        hand.push(&[click(1, 20, 2)]);
        let second = handle.savepoint("tuesday").await.unwrap();
        assert!(second > first);
        hand.input.end_all();
        let report = running.wait().await.unwrap();
        assert!(!report.stopped, "nothing has stopped it");
        assert_eq!(hand.rows(), ["10", "20"]);
        let late = handle.savepoint("wednesday").await.unwrap_err().to_string();
        assert!(late.contains("the job ended before the savepoint was complete"), "{late}");
        let late = handle.checkpoint().await.unwrap_err().to_string();
        assert!(late.contains("no checkpoint: the job ended before the checkpoint was complete"), "{late}");
    });
}

#[test]
fn without_checkpoints_there_are_no_savepoints() {
    on_two_threads(async {
        let job = Job::new("bare");
        job.source(Sequence::endless()).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let because = "the job has no checkpoints: say .checkpoint(url, every) before it runs";
        let error = handle.savepoint("now").await.unwrap_err();
        assert_eq!(error.to_string(), format!(r#"job "bare": no savepoint: {because}"#));
        let error = handle.checkpoint().await.unwrap_err();
        assert_eq!(error.to_string(), format!(r#"job "bare": no checkpoint: {because}"#));
        assert!(matches!(error, Error::NoCheckpoint { .. }));
        let job = Job::new("bare").restore(Restore::savepoint("now"));
        job.source(Sequence::new(1)).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
        let error = job.start().await.err().unwrap().to_string();
        assert!(error.contains("it is to be restored, but has no checkpoints: say .checkpoint(url, every)"), "{error}");
    });
}

#[test]
fn a_job_stopped_with_a_savepoint_goes_on_exactly_there() {
    on_two_threads(async {
        let hand = Hand::new();
        hand.push(&[click(1, 1, 1)]);
        hand.push(&[click(2, 2, 2)]);
        let report = save_and_stop(read(|| amounts(&hand), 2).await.unwrap(), "stop").await;
        assert!(report.stopped);
        assert_eq!(hand.rows(), ["1", "2"]);
        hand.push(&[click(3, 3, 3)]);
        // The savepoint is the newest checkpoint: both ways lead to the same.
        let by_name = || amounts(&hand).restore(Restore::savepoint("stop"));
        let running = read(by_name, 1).await.unwrap();
        assert_eq!(running.handle().metrics().named("source").next().unwrap().rows_in, 1, "nothing is read again");
        drop(running);
        hand.input.end_all();
        start(|| amounts(&hand)).await.unwrap().wait().await.unwrap();
        assert_eq!(hand.rows(), ["1", "2", "3"]);
    });
}

/// A job that has stopped with the savepoint `new` behind its second row, and has `old` behind its first.
async fn old_and_new() -> Hand {
    let hand = Hand::new();
    hand.push(&[click(1, 1, 1)]);
    let running = read(|| amounts(&hand), 1).await.unwrap();
    running.handle().savepoint("old").await.unwrap();
    hand.push(&[click(2, 2, 2)]);
    super::hand::until(&running.handle(), |job| job.metrics().named("source").all(|s| s.rows_in == 2)).await;
    save_and_stop(running, "new").await;
    hand
}

#[test]
fn an_older_savepoint_is_refused_unless_output_may_be_repeated() {
    on_two_threads(async {
        let hand = old_and_new().await;
        assert_eq!(hand.rows(), ["1", "2"]);

        let back = || amounts(&hand).restore(Restore::savepoint("old"));
        let error = start(back).await.err().unwrap();
        assert!(matches!(&error, Error::Checkpoint { error: CheckpointError::Rewind { .. }, .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(r#"savepoint "old" is checkpoint"#) && said.contains("already visible"), "{said}");
        let unknown = start(|| amounts(&hand).restore(Restore::savepoint("never"))).await.err().unwrap().to_string();
        assert!(unknown.contains("never") && unknown.contains("does not exist"), "{unknown}");

        let back = || amounts(&hand).restore(Restore::savepoint("old").repeat_output());
        let running = read(back, 1).await.unwrap();
        running.handle().savepoint("again").await.unwrap();
        assert_eq!(
            hand.rows(),
            ["1", "2", "2"],
            "what came after the savepoint comes again, what came before does not"
        );
        hand.push(&[click(3, 3, 3)]);
        drop(running);

        // The same program is started once more: it does not go back a second time.
        let running = read(back, 1).await.unwrap();
        hand.input.end_all();
        running.wait().await.unwrap();
        assert_eq!(hand.rows(), ["1", "2", "2", "3"]);
        // And without a word about the savepoint there is one line of checkpoints.
        start(|| amounts(&hand)).await.unwrap().wait().await.unwrap();
        assert_eq!(hand.rows(), ["1", "2", "2", "3"]);
    });
}

#[test]
fn a_job_that_goes_back_and_dies_at_once_goes_on_from_where_it_went_back_to() {
    on_two_threads(async {
        let hand = old_and_new().await;
        let back = || amounts(&hand).restore(Restore::savepoint("old").repeat_output());
        drop(start(back).await.unwrap());
        hand.input.end_all();
        start(|| amounts(&hand)).await.unwrap().wait().await.unwrap();
        assert_eq!(hand.rows(), ["1", "2", "2"]);
    });
}
