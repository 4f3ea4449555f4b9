//! Reads a checkpoint of a job that may run meanwhile, and remove it.
//!
//! ```text
//!   newest? ──► manifest ──► segments ──► what was wanted
//!      ▲            └───────────┴── one is gone: a newer checkpoint has taken its place
//!      └──────────────────────────────────┘
//! ```
//!
//! A job keeps its last checkpoints, two unless told, and removes older ones as newer come. Who reads the newest may be overtaken; so
//! everybody who looks into a store from outside does it here.

use futures::future::BoxFuture;

use crate::{
    Error, Result,
    checkpoint::{CheckpointError, CheckpointStore, Manifest, Wanted, job_and_store},
};

/// How often the newest checkpoint is looked for, when it was removed while it was being read.
const ATTEMPTS: usize = 3;

/// Reads a checkpoint of the job at `url` with `read`. Of the newest it begins again with the one that is the newest by then, when a
/// part of it is gone; one that was asked for by number or name is that one or none.
pub(super) async fn reading<T>(
    url: &str,
    wanted: &Wanted,
    mut read: impl for<'a> FnMut(&'a CheckpointStore, Manifest) -> BoxFuture<'a, Result<T>>,
) -> Result<T> {
    let (root, job) = job_and_store(url);
    let failed = |error: CheckpointError| error.of(&job);
    let store = CheckpointStore::open_to_read(root, &job).map_err(failed)?;
    let mut attempts = 1;
    loop {
        let before = store.last_decided().await.map_err(failed)?;
        let done = match store.load_committed(wanted).await.map_err(failed) {
            Ok(manifest) => read(&store, manifest).await,
            Err(error) => Err(error),
        };
        match done {
            Err(error) if *wanted == Wanted::Newest && is_gone(&error) && attempts < ATTEMPTS => {
                // Nothing is removed before a newer one is decided: without one it is damaged, and would be read again in vain.
                if store.last_decided().await.map_err(failed)? == before {
                    return Err(error);
                }
                attempts += 1;
            }
            done => return done,
        }
    }
}

/// Whether it may be that the job has removed what was read.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Checkpoint { error: CheckpointError::Corrupt { .. }, .. })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use windrow_connectors::Epoch;

    use super::*;
    use crate::{Job, prelude::*, state};

    /// Runs a job until it has taken a checkpoint more, and so many that it has removed an old one.
    async fn go_on(store: &str, old: Option<Epoch>) {
        let job = Job::new("numbers").checkpoint(store, hours(1));
        job.source(Sequence::endless().rate(1_000))
            .event_time("at", Watermarks::in_order())
            .window(Tumbling::of(hours(24)))
            .aggregate([count()])
            .drop_late()
            .sink(MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let taken = async {
            while handle.metrics().named("source").all(|source| source.rows_in == 0) {
                tokio::task::yield_now().await;
            }
            let is_there = async |epoch| state::inspect(format!("{store}/numbers"), Wanted::Epoch(epoch)).await.is_ok();
            handle.checkpoint().await.unwrap();
            // The collector comes round every now and then.
            while let Some(old) = old
                && is_there(old).await
            {
                handle.checkpoint().await.unwrap();
            }
            handle.stop();
        };
        let ((), ended) = tokio::join!(taken, running.wait());
        ended.unwrap();
    }

    /// A reader that the job overtakes in its first attempts: which checkpoints it began to read, and what came of it.
    async fn overtaken(store: &str, times: usize, wanted: Option<Epoch>) -> (Vec<Epoch>, Result<Epoch>) {
        let (mut begun, wanted) = (Vec::new(), wanted.map_or(Wanted::Newest, Wanted::Epoch));
        let url = format!("{store}/numbers");
        let read = reading(&url, &wanted, |_, manifest| {
            begun.push(manifest.epoch);
            let (store, is_left_alone) = (store.to_owned(), begun.len() > times);
            Box::pin(async move {
                if is_left_alone {
                    return Ok(manifest.epoch);
                }
                go_on(&store, Some(manifest.epoch)).await;
                let (path, reason) = (String::from("a segment"), String::from("it is gone"));
                Err(CheckpointError::Corrupt { path, reason, advice: "restore it" }.of("numbers"))
            })
        });
        let read = read.await;
        (begun, read)
    }

    #[tokio::test]
    async fn who_is_overtaken_by_the_job_begins_again_with_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().to_str().unwrap();
        go_on(store, None).await;
        let (begun, read) = overtaken(store, ATTEMPTS - 1, None).await;
        assert_eq!(begun.len(), ATTEMPTS);
        assert!(begun.is_sorted_by(|a, b| a < b), "each time a newer one: {begun:?}");
        assert_eq!(read.unwrap(), begun[ATTEMPTS - 1]);

        let (begun, read) = overtaken(store, usize::MAX, None).await;
        assert_eq!(begun.len(), ATTEMPTS, "and not for ever");
        assert!(read.unwrap_err().to_string().contains("it is gone"));

        let newest = state::open(format!("{store}/numbers")).await.unwrap().epoch();
        let (begun, read) = overtaken(store, 1, Some(newest)).await;
        assert_eq!(begun, [newest], "another one is not what was asked for");
        assert!(read.is_err());
    }

    #[tokio::test]
    async fn what_is_damaged_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().to_str().unwrap();
        go_on(store, None).await;
        let mut begun = 0;
        let url = format!("{store}/numbers");
        let read = reading(&url, &Wanted::Newest, |_, _| {
            begun += 1;
            let (path, reason) = (String::from("a segment"), String::from("a bit of it has changed"));
            let error = CheckpointError::Corrupt { path, reason, advice: "restore it" }.of("numbers");
            Box::pin(async move { Err::<(), _>(error) })
        });
        let error = read.await.unwrap_err();
        assert!(error.to_string().contains("a bit of it has changed"), "{error}");
        assert_eq!(begun, 1, "there is no newer one");
    }

    /// Who looks may do so on a runtime of several threads.
    #[test]
    fn what_reads_may_go_from_thread_to_thread() {
        fn is_send(_: impl Send) {}
        is_send(state::open("/jobs/numbers"));
        is_send(state::open_savepoint("/jobs/numbers", "one"));
        is_send(state::inspect("/jobs/numbers", Wanted::Newest));
    }

    /// What the loop waits for is what readers say of files that are gone.
    #[tokio::test]
    async fn a_file_that_is_gone_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().to_str().unwrap();
        go_on(store, None).await;
        let url = format!("{store}/numbers");
        // First the segments of all, and then the manifests too.
        for part in ["s", "MANIFEST"] {
            for folder in fs::read_dir(directory.path().join("numbers/ckpt")).unwrap() {
                let gone = folder.unwrap().path().join(part);
                // A checkpoint in which nothing is new has no segments of its own.
                if !gone.exists() {
                    continue;
                }
                if gone.is_dir() { fs::remove_dir_all(gone) } else { fs::remove_file(gone) }.unwrap();
            }
            let gone = state::open(&url).await.unwrap_err();
            assert!(is_gone(&gone), "{gone}");
            assert!(is_gone(&state::inspect(&url, Wanted::Newest).await.unwrap_err()));
        }
    }
}
