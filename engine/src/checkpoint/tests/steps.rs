//! The steps of the protocol in order, and what each refuses.

use windrow_connectors::sink::Epoch;

use super::{
    super::{
        error::CheckpointError,
        manifest::{Kind, Parent},
        read::Wanted,
    },
    Log, Process, assert_no_orphans, memory, restore, store,
};

#[tokio::test]
async fn a_job_goes_on_where_it_was() {
    let (store, log) = (store(memory()), Log::default());
    let mut first = Process::start(&store, &log, 1).await.unwrap();
    assert_eq!((first.claim.generation, first.recovered.next_epoch), (1, Epoch(1)));
    assert!(first.recovered.committed.is_none() && first.recovered.warnings.is_empty());
    first.checkpoint(Kind::Periodic).await.unwrap();
    let last = first.checkpoint(Kind::Final).await.unwrap();

    let second = Process::start(&store, &log, 2).await.unwrap();
    assert_eq!(second.recovered.committed.as_ref(), Some(&last));
    assert!(second.recovered.done);
    assert_eq!(
        second.recovered.committed.as_ref().map(crate::checkpoint::Manifest::as_parent),
        Some(Parent { epoch: Epoch(2), nonce: first.claim.nonce })
    );
    assert_eq!(second.recovered.next_epoch, Epoch(4), "3 is the fence");
    assert_eq!(second.claim.job_id, first.claim.job_id);
    assert_eq!(second.claim.incarnation().generation, 2);
}

#[tokio::test]
async fn what_was_prepared_is_decided_by_the_next_start() {
    let (store, log) = (store(memory()), Log::default());
    let mut first = Process::start(&store, &log, 1).await.unwrap();
    first.checkpoint(Kind::Periodic).await.unwrap();
    let prepared = first.segments(Kind::Savepoint("upgrade".into())).await.unwrap();
    first.store.prepare(&first.claim, &prepared).await.unwrap();

    let second = Process::start(&store, &log, 2).await.unwrap();
    assert_eq!(second.recovered.committed, Some(prepared.clone()));
    assert!(!second.recovered.done, "its sinks have not committed");
    assert_eq!(store.load_committed(&Wanted::Savepoint("upgrade".into())).await.unwrap(), prepared);
}

#[tokio::test]
async fn a_process_that_slept_through_a_new_start_cannot_decide() {
    let (store, log) = (store(memory()), Log::default());
    let mut old = Process::start(&store, &log, 1).await.unwrap();
    let manifest = old.segments(Kind::Periodic).await.unwrap();
    let new = Process::start(&store, &log, 2).await.unwrap();
    assert!(new.recovered.committed.is_none());
    store.prepare(&old.claim, &manifest).await.unwrap();
    let error = old.decide(&manifest).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { generation: 1, .. }), "{error}");
    let error = old.collect().await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { generation: 1, .. }), "{error}");

    // What it prepared too late has no effect on the new one, and goes with its next collection.
    let mut third = Process::start(&store, &log, 3).await.unwrap();
    assert!(third.recovered.committed.is_none());
    third.checkpoint(Kind::Periodic).await.unwrap();
    third.collect().await.unwrap();
    assert_no_orphans(&store, "").await;
}

#[tokio::test]
async fn a_process_whose_checkpoint_was_taken_over_does_not_publish_it() {
    let (store, log) = (store(memory()), Log::default());
    let mut old = Process::start(&store, &log, 1).await.unwrap();
    let manifest = old.segments(Kind::Periodic).await.unwrap();
    store.prepare(&old.claim, &manifest).await.unwrap();
    let new = Process::start(&store, &log, 2).await.unwrap();
    assert_eq!(new.recovered.committed.as_ref(), Some(&manifest));
    let error = old.decide(&manifest).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { generation: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_decision_made_between_a_claim_and_its_recovery_is_found() {
    let (store, log) = (store(memory()), Log::default());
    let mut old = Process::start(&store, &log, 1).await.unwrap();
    let manifest = old.segments(Kind::Periodic).await.unwrap();
    store.prepare(&old.claim, &manifest).await.unwrap();
    let claim = store.claim().await.unwrap();
    let error = old.decide(&manifest).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { .. }), "decided, but not the one to publish: {error}");
    let new = Process::recover(&store, claim, &log, 2).await.unwrap();
    assert_eq!((new.recovered.committed.as_ref(), new.recovered.done), (Some(&manifest), false));
}

#[tokio::test]
async fn a_step_that_is_repeated_is_no_other_step() {
    let (store, log) = (store(memory()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    let manifest = process.checkpoint(Kind::Periodic).await.unwrap();
    store.prepare(&process.claim, &manifest).await.unwrap();
    store.decide(&process.claim, &manifest).await.unwrap();
    store.done(manifest.epoch).await.unwrap();
    let mut other = manifest.clone();
    other.created_ms = 1;
    assert!(matches!(store.prepare(&process.claim, &other).await, Err(CheckpointError::Conflict { .. })));
    other.nonce ^= 1;
    let error = store.decide(&process.claim, &other).await.unwrap_err().to_string();
    assert!(error.contains("another incarnation"), "{error}");
}

#[tokio::test]
async fn a_savepoint_outlives_later_checkpoints() {
    let (store, log) = (store(memory()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    let name = "before-upgrade_1.0".to_owned();
    store.savepoint_is_free(&name).await.unwrap();
    let saved = process.checkpoint(Kind::Savepoint(name.clone())).await.unwrap();
    assert!(matches!(store.savepoint_is_free(&name).await, Err(CheckpointError::Exists { .. })));
    for _ in 0..5 {
        process.checkpoint(Kind::Periodic).await.unwrap();
        process.collect().await.unwrap();
    }
    let wanted = Wanted::Savepoint(name.clone());
    let loaded = store.load_committed(&wanted).await.unwrap();
    assert_eq!(loaded, saved);
    assert_eq!(restore(&store, &loaded).await.unwrap(), log.state(&saved));
    let listed = store.manifests().await.unwrap();
    let epochs: Vec<u64> = listed.iter().map(|checkpoint| checkpoint.manifest.epoch.0).collect();
    assert_eq!(epochs, [1, 5, 6]);
    assert_eq!(listed[0].savepoints, std::slice::from_ref(&name));
    assert_no_orphans(&store, "").await;

    let again = process.checkpoint(Kind::Savepoint(name)).await.unwrap_err();
    assert!(matches!(again, CheckpointError::Exists { .. }), "{again}");

    let recovered = Process::start(&store, &log, 2).await.unwrap().recovered;
    assert_eq!(recovered.warnings.len(), 1, "the second savepoint of that name: {:?}", recovered.warnings);
}

#[tokio::test]
async fn names_of_savepoints_stay_in_their_folder() {
    let (store, log) = (store(memory()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    for name in ["", ".", "..", "a/b", "a\\b", "a b", "ä", "%2e", "\0", &"x".repeat(201)] {
        let error = store.savepoint_is_free(name).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Name { .. }), "{error}");
        assert!(store.load_committed(&Wanted::Savepoint(name.into())).await.is_err());
        assert!(process.checkpoint(Kind::Savepoint(name.into())).await.is_err());
    }
}

#[tokio::test]
async fn what_is_not_there_is_missing() {
    let store = store(memory());
    for wanted in [Wanted::Newest, Wanted::Epoch(Epoch(3)), Wanted::Savepoint("a".into())] {
        let error = store.load_committed(&wanted).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Missing { .. }), "{error}");
    }
    assert!(store.manifests().await.unwrap().is_empty());
    let log = Log::default();
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    for _ in 0..3 {
        process.checkpoint(Kind::Periodic).await.unwrap();
    }
    process.collect().await.unwrap();
    let collected = store.load_committed(&Wanted::Epoch(Epoch(1))).await.unwrap_err();
    assert!(matches!(collected, CheckpointError::Missing { .. }), "{collected}");
    assert!(store.load_committed(&Wanted::Epoch(Epoch(2))).await.is_ok());
    assert!(store.load_committed(&Wanted::Epoch(Epoch(0))).await.is_err(), "a fence");
}

#[tokio::test]
async fn more_checkpoints_can_be_kept_later() {
    let (store, log) = (store(memory()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    for _ in 0..5 {
        process.checkpoint(Kind::Periodic).await.unwrap();
        process.collect().await.unwrap();
    }
    for _ in 0..4 {
        process.checkpoint(Kind::Periodic).await.unwrap();
        store.collect(&process.claim, 4).await.unwrap();
    }
    assert_eq!(store.manifests().await.unwrap().len(), 4);
    let removed = store.collect(&process.claim, 0).await.unwrap();
    assert_eq!((removed.checkpoints, removed.records), (2, 0), "never fewer than two");
}

#[tokio::test]
async fn a_collection_leaves_alone_what_is_being_written() {
    let (store, log) = (store(memory()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    process.checkpoint(Kind::Periodic).await.unwrap();
    let next = process.segments(Kind::Periodic).await.unwrap();
    process.collect().await.unwrap();
    store.prepare(&process.claim, &next).await.unwrap();
    process.collect().await.unwrap();
    process.decide(&next).await.unwrap();
    process.collect().await.unwrap();
    assert_eq!(restore(&store, &next).await.unwrap(), log.state(&next));
    let next = Process::start(&store, &log, 2).await.unwrap();
    assert_eq!(next.recovered.committed.unwrap().epoch, Epoch(2));
}
