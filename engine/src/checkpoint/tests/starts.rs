//! Two starts of one job at once: one runs, the others say why they do not.

use std::sync::{Arc, Barrier};

use fastrand::Rng;
use futures::FutureExt;

use super::{
    super::{
        error::CheckpointError,
        manifest::Kind,
        store::{CheckpointStore, Result},
    },
    JOB, Log, Process, assert_one_lineage,
    faulty::FaultyStore,
    memory, store,
};

/// Starts and takes a checkpoint.
async fn start(store: CheckpointStore, log: Log, seed: u64) -> Result<Process> {
    let mut process = Process::start(&store, &log, seed).await?;
    process.checkpoint(Kind::Periodic).await?;
    Ok(process)
}

#[test]
fn without_a_lock_the_last_start_that_got_through_runs() {
    use std::task::{Context, Poll, Waker};
    for seed in 0..300 {
        let (inner, log, mut rng) = (memory(), Log::default(), Rng::with_seed(seed));
        let count = rng.usize(2..=4);
        let run = |task| Box::pin(start(store(FaultyStore::yielding(&inner)), log.clone(), task));
        let mut running: Vec<_> = (0..count as u64).map(run).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let mut through = Vec::new();
        while !running.is_empty() {
            let chosen = rng.usize(..running.len());
            let Poll::Ready(ended) = running[chosen].as_mut().poll(&mut cx) else { continue };
            drop(running.swap_remove(chosen));
            match ended {
                Ok(process) => through.push(process),
                Err(CheckpointError::Starting { .. } | CheckpointError::Fenced { .. }) => {}
                Err(error) => panic!("SEED={seed}: {error}"),
            }
        }
        // One that got through before a later one began is replaced, and finds out at its next step.
        let newest = through.iter().map(|process| process.claim.generation).max().expect("one gets through");
        let mut going_on = 0;
        for process in &mut through {
            let newest = process.claim.generation == newest;
            let process = process.checkpoint(Kind::Periodic);
            // Its store lets others run at every call, but there are none any more.
            let ended = finish(process);
            assert_eq!(ended.is_ok(), newest, "SEED={seed}");
            going_on += usize::from(ended.is_ok());
        }
        assert_eq!(going_on, 1, "SEED={seed}");
        assert_one_lineage(&store(inner.clone()), &log).now_or_never().unwrap();
    }
}

fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    (0..100_000).find_map(|_| future.as_mut().now_or_never()).expect("it ends")
}

fn on_its_own_thread<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn on_a_disk_exactly_one_of_several_starts_runs() {
    for race in 0..100 {
        let directory = tempfile::tempdir().unwrap();
        let (url, log) = (directory.path().to_str().unwrap().to_owned(), Log::default());
        let count = 2 + race % 3;
        let together = Arc::new(Barrier::new(count));
        let begin = |task: usize| {
            let (url, log, together) = (url.clone(), log.clone(), together.clone());
            std::thread::spawn(move || {
                let store = CheckpointStore::open(&url, JOB).unwrap();
                together.wait();
                on_its_own_thread(start(store, log, task as u64))
            })
        };
        let threads: Vec<_> = (0..count).map(begin).collect();
        // Whoever got through holds the lock until all have tried.
        let ended: Vec<Result<Process>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 1, "race {race}");
        for error in ended.iter().filter_map(|ended| ended.as_ref().err()) {
            assert!(matches!(error, CheckpointError::Locked { .. }), "race {race}: {error}");
            assert!(error.to_string().contains("LOCK"), "{error}");
        }
        drop(ended);
        let next = on_its_own_thread(CheckpointStore::open(&url, JOB).unwrap().claim());
        assert_eq!(next.unwrap().generation, 2, "the lock ends with its holder");
    }
}
