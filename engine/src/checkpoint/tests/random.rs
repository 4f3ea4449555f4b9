//! Collections, crashes and processes that were replaced but go on, in random order: a start never meets a deleted file,
//! there is one lineage, and what crashed leaves nothing behind for long.
//!
//! Every process is a future, and every call to the store lets the others run before and after it takes effect. A seed
//! chooses who goes on, who dies, and when another one starts.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

use fastrand::Rng;
use futures::FutureExt;
use object_store::memory::InMemory;

use super::{
    super::{error::CheckpointError, manifest::Kind},
    Log, Process, assert_no_orphans, assert_one_lineage,
    faulty::FaultyStore,
    memory, store,
};

const SEEDS: u64 = 1_000;

/// Runs until it is replaced or dies.
async fn life(inner: Arc<InMemory>, log: Log, seed: u64) {
    let store = store(FaultyStore::yielding(&inner));
    let claim = match store.claim().await {
        Ok(claim) => claim,
        Err(CheckpointError::Starting { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let generation = claim.generation;
    let ended = async {
        let mut process = Process::recover(&store, claim, &log, seed).await?;
        loop {
            process.checkpoint(Kind::Periodic).await?;
            process.collect().await?;
        }
    };
    let ended: Result<(), CheckpointError> = ended.await;
    match ended.expect_err("it runs for ever") {
        CheckpointError::Fenced { .. } => {}
        // A process that was replaced may find a file gone, because the new one has cleaned up.
        error => {
            let newest = super::store(inner).objects.numbers("gen").await.unwrap().pop().unwrap();
            assert!(newest > generation, "start {generation}, which is the newest, met: {error}");
            assert!(matches!(error, CheckpointError::Corrupt { .. }), "{error}");
        }
    }
}

fn run(seed: u64) {
    let (inner, log, mut rng) = (memory(), Log::default(), Rng::with_seed(seed));
    let mut alive: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..rng.usize(100..500) {
        let most = 3;
        if alive.is_empty() || alive.len() < most && rng.u8(..) < 5 {
            alive.push(Box::pin(life(inner.clone(), log.clone(), rng.u64(..))));
        }
        let chosen = rng.usize(..alive.len());
        // A process that has the machine goes on for a while; one that sleeps, sleeps.
        let calls = if rng.u8(..) < 60 { rng.usize(1..30) } else { 1 };
        let ended = (0..calls).any(|_| alive[chosen].as_mut().poll(&mut cx).is_ready());
        if ended || rng.u8(..) < 3 {
            drop(alive.swap_remove(chosen));
        }
    }
    drop(alive);
    let check = async {
        let store = store(inner.clone());
        let mut process = Process::start(&store, &log, seed).await.unwrap();
        for _ in 0..2 {
            process.checkpoint(Kind::Periodic).await.unwrap();
            process.collect().await.unwrap();
        }
        assert_no_orphans(&store, "two checkpoints after the last crash").await;
        assert_one_lineage(&store, &log).await;
    };
    check.now_or_never().expect("a store in memory answers at once");
}

#[test]
fn a_start_never_meets_a_deleted_file() {
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "SEED={seed}");
    }
}
