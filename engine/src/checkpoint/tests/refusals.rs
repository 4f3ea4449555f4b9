//! What a start does not take for something else: a lost decision for one never made, half a checkpoint for a whole one.

use bytes::Bytes;
use windrow_connectors::sink::Epoch;

use super::{
    super::{error::CheckpointError, manifest::Kind, store::CheckpointStore},
    Log, Process, memory, store,
};

async fn three_checkpoints() -> (CheckpointStore, Log, Process) {
    let (store, log) = (store(memory()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    for _ in 0..3 {
        process.checkpoint(Kind::Periodic).await.unwrap();
    }
    (store, log, process)
}

async fn remove(store: &CheckpointStore, folder: &str) -> Vec<(String, Bytes)> {
    let mut removed = Vec::new();
    for object in store.objects.list(folder).await.unwrap() {
        removed.push((object.name.clone(), store.objects.read(&object.name, u64::MAX).await.unwrap().unwrap()));
        store.objects.delete(&object.name).await.unwrap();
    }
    removed
}

/// Starts the job, which must refuse, and returns what it says.
async fn refusal(store: &CheckpointStore, log: &Log) -> String {
    let error = Process::start(store, log, 2).await.err().expect("a refusal");
    assert!(matches!(error, CheckpointError::Corrupt { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn without_its_records_a_directory_is_not_empty() {
    let (store, log, _) = three_checkpoints().await;
    let starts = remove(&store, "gen").await;
    assert!(refusal(&store, &log).await.contains("gen/00000000000000000001"));
    for (name, bytes) in starts {
        store.objects.create(&name, bytes).await.unwrap();
    }
    remove(&store, "epoch").await;
    assert!(refusal(&store, &log).await.contains("epoch/00000000000000000000"));
    remove(&store, "done").await;
    assert!(refusal(&store, &log).await.contains("epoch/00000000000000000000"), "the manifests alone tell it");
    remove(&store, "ckpt").await;
    assert_eq!(
        store.recover(&store.claim().await.unwrap(), None).await.unwrap().next_epoch,
        Epoch(1),
        "now it is empty"
    );
}

#[tokio::test]
async fn published_without_a_decision_is_a_lost_decision() {
    let (store, log, _) = three_checkpoints().await;
    for name in ["epoch/00000000000000000003", "ckpt/00000000000000000003-1/MANIFEST"] {
        store.objects.delete(name).await.unwrap();
    }
    assert!(refusal(&store, &log).await.contains("checkpoint 3 was published"));
}

#[tokio::test]
async fn a_gap_in_the_decisions_is_a_lost_decision() {
    let (store, log, _) = three_checkpoints().await;
    Process::start(&store, &log, 2).await.unwrap();
    for name in ["epoch/00000000000000000003", "done/00000000000000000003"] {
        store.objects.delete(name).await.unwrap();
    }
    let message = refusal(&store, &log).await;
    assert!(message.contains("epoch/00000000000000000003") && message.contains("last checkpoint"), "{message}");
}

#[tokio::test]
async fn what_was_prepared_after_another_checkpoint_is_left_aside() {
    let (store, log, mut process) = three_checkpoints().await;
    let mut manifest = process.segments(Kind::Periodic).await.unwrap();
    manifest.parent = None;
    store.prepare(&process.claim, &manifest).await.unwrap();
    let recovered = Process::start(&store, &log, 2).await.unwrap().recovered;
    assert_eq!(recovered.committed.unwrap().epoch, Epoch(3));
    assert!(recovered.warnings[0].contains("does not follow"), "{:?}", recovered.warnings);
}

#[tokio::test]
async fn what_was_prepared_and_is_not_whole_is_left_aside() {
    for half in [false, true] {
        let (store, log, mut process) = three_checkpoints().await;
        let manifest = process.segments(Kind::Periodic).await.unwrap();
        let file = manifest.segments().last().unwrap().clone();
        store.prepare(&process.claim, &manifest).await.unwrap();
        store.objects.delete(&file.path).await.unwrap();
        if half {
            store.objects.create(&file.path, Bytes::from(vec![0; file.length as usize + 1])).await.unwrap();
        }
        let recovered = Process::start(&store, &log, 2).await.unwrap().recovered;
        assert_eq!(recovered.committed.unwrap().epoch, Epoch(3));
        assert!(recovered.warnings[0].contains(&file.path), "{:?}", recovered.warnings);
    }
}

#[tokio::test]
async fn two_checkpoints_of_one_number_are_not_guessed_between() {
    let (store, log, mut process) = three_checkpoints().await;
    let mut manifest = process.segments(Kind::Periodic).await.unwrap();
    store.prepare(&process.claim, &manifest).await.unwrap();
    manifest.generation = 7;
    store.objects.create(&manifest.folder().manifest(), manifest.encode().unwrap()).await.unwrap();
    let error = Process::start(&store, &log, 2).await.err().expect("a refusal");
    assert!(matches!(error, CheckpointError::Conflict { .. }), "{error}");
}
