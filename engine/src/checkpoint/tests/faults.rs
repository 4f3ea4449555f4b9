//! A fault of every kind at every single call of a small job: what was decided is never lost.

use std::io::ErrorKind;

use super::{
    super::{error::CheckpointError, manifest::Kind},
    Log, Process, Result, assert_no_orphans,
    faulty::{Fault, FaultyStore, Written},
    memory, restore, store,
};

/// Two starts with checkpoints, a savepoint and collections.
async fn script(objects: &std::sync::Arc<FaultyStore>, log: &Log) -> Result<()> {
    let store = store(objects.clone());
    let mut process = Process::start(&store, log, 1).await?;
    for epoch in 0..3 {
        process.checkpoint(if epoch == 1 { Kind::Savepoint("before".into()) } else { Kind::Periodic }).await?;
        process.collect().await?;
    }
    let mut process = Process::start(&store, log, 2).await?;
    process.checkpoint(Kind::Periodic).await?;
    process.collect().await
}

/// Whether a start may refuse: half a decision or savepoint is not believed to be anything. No store that writes
/// atomically ever leaves one.
fn may_refuse(fault: Fault, error: &CheckpointError) -> bool {
    let half = fault == Fault::PowerLoss(Written::Half);
    half && matches!(error, CheckpointError::Corrupt { path, .. } if path.contains("/epoch/") || path.contains("/savepoint/"))
}

#[tokio::test]
async fn a_fault_at_any_call_loses_nothing_that_was_decided() {
    let kinds = [ErrorKind::StorageFull, ErrorKind::Other];
    let power = [Written::Nothing, Written::Half, Written::All];
    let faults: Vec<Fault> = kinds
        .into_iter()
        .flat_map(|kind| [Fault::Before(kind), Fault::After(kind)])
        .chain(power.into_iter().map(Fault::PowerLoss))
        .collect();
    let whole = FaultyStore::new(&memory(), None);
    script(&whole, &Log::default()).await.unwrap();
    let (mut refused, mut runs) = (0, 0);
    for (call, fault) in (0..whole.calls()).flat_map(|call| faults.iter().map(move |fault| (call, *fault))) {
        let (inner, log) = (memory(), Log::default());
        let context = format!("call {call}, {fault:?}");
        let error = script(&FaultyStore::new(&inner, Some((call, fault))), &log).await.expect_err(&context);
        let message = error.to_string();
        assert!(message.contains("root/hot items/"), "{context}: no path in {message:?}");
        if fault == Fault::Before(ErrorKind::StorageFull) {
            assert!(message.contains("the disk is full"), "{context}: {message:?}");
        }
        let store = store(inner);
        runs += 1;
        if fault != Fault::PowerLoss(Written::Half) {
            // What can be chosen can be restored, also in the middle of a collection.
            for checkpoint in store.manifests().await.expect(&context) {
                let state = restore(&store, &checkpoint.manifest).await.expect(&context);
                assert_eq!(state, log.state(&checkpoint.manifest), "{context}");
            }
        }
        match Process::start(&store, &log, 3).await {
            Ok(mut process) => {
                for _ in 0..2 {
                    process.checkpoint(Kind::Periodic).await.expect(&context);
                    match process.collect().await {
                        Err(error) if may_refuse(fault, &error) => break,
                        collected => collected.expect(&context),
                    }
                }
                if fault != Fault::PowerLoss(Written::Half) {
                    assert_no_orphans(&store, &context).await;
                }
            }
            Err(error) => {
                assert!(may_refuse(fault, &error), "{context}: {error}");
                refused += 1;
            }
        }
    }
    assert!(runs > 500, "only {runs} runs");
    assert!(refused <= 9, "{refused} refusals: at most one per decision and savepoint of the script");
}
