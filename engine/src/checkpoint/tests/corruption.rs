//! Files that were damaged, mixed up or lost: a start restores the right state or says which file is wrong.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fastrand::Rng;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use windrow_connectors::sink::Epoch;

use super::{super::manifest::Kind, JOB, Log, Process, memory, restore, store};

type Files = BTreeMap<Path, Bytes>;

async fn files(objects: &InMemory) -> Files {
    let listed: Vec<_> = objects.list(None).try_collect().await.unwrap();
    let mut files = Files::new();
    for meta in listed {
        files.insert(meta.location.clone(), objects.get(&meta.location).await.unwrap().bytes().await.unwrap());
    }
    files
}

/// Three checkpoints of two starts; with `prepared`, a fourth that is not decided.
async fn base(prepared: bool) -> (Files, Log, Epoch) {
    let (objects, log) = (memory(), Log::default());
    let store = store(objects.clone());
    let mut process = Process::start(&store, &log, 4).await.unwrap();
    process.checkpoint(Kind::Periodic).await.unwrap();
    process.checkpoint(Kind::Savepoint("a".into())).await.unwrap();
    let mut process = Process::start(&store, &log, 5).await.unwrap();
    let last = process.checkpoint(Kind::Periodic).await.unwrap();
    if prepared {
        let manifest = process.segments(Kind::Periodic).await.unwrap();
        store.prepare(&process.claim, &manifest).await.unwrap();
    }
    (files(&objects).await, log, last.epoch)
}

/// Every file deleted, and every two files swapped.
fn losses(files: &Files) -> Vec<(Files, String)> {
    let mut damaged = Vec::new();
    for (one, first) in files {
        let mut less = files.clone();
        less.remove(one);
        damaged.push((less, format!("delete {one}")));
        for (two, second) in files.range(one.clone()..).skip(1) {
            let mut swapped = files.clone();
            swapped.insert(one.clone(), second.clone());
            swapped.insert(two.clone(), first.clone());
            damaged.push((swapped, format!("swap {one} with {two}")));
        }
    }
    damaged
}

/// Damages one or two files, and says how.
fn mutate(files: &mut Files, rng: &mut Rng) -> String {
    let names: Vec<Path> = files.keys().cloned().collect();
    let name = names[rng.usize(..names.len())].clone();
    let mut bytes = files[&name].to_vec();
    let what = match rng.usize(..6) {
        0 if !bytes.is_empty() => {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
            format!("flip a bit of byte {at}")
        }
        1 if !bytes.is_empty() => {
            bytes.truncate(rng.usize(..bytes.len()));
            format!("truncate to {}", bytes.len())
        }
        2 => {
            bytes.extend((0..rng.usize(1..100)).map(|_| rng.u8(..)));
            "extend".into()
        }
        3 => {
            let other = names[rng.usize(..names.len())].clone();
            bytes = files.insert(other.clone(), bytes.into()).unwrap().to_vec();
            format!("swap with {other}")
        }
        4 if bytes.len() > 12 => {
            bytes[8] = rng.u8(2..);
            "another version".into()
        }
        _ => {
            files.remove(&name);
            return format!("delete {name}");
        }
    };
    files.insert(name.clone(), bytes.into());
    format!("{name}: {what}")
}

#[tokio::test]
async fn a_damaged_store_gives_the_right_state_or_an_error_that_names_the_file() {
    let (mut restored, mut refused) = (0, 0);
    for prepared in [false, true] {
        let (whole, log, decided) = base(prepared).await;
        let random = (0..1_000).map(|seed| {
            let mut files = whole.clone();
            let what = mutate(&mut files, &mut Rng::with_seed(seed));
            (files, format!("SEED={seed}: {what}"))
        });
        for (files, what) in random.chain(losses(&whole)) {
            let context = format!("prepared={prepared}: {what}");
            let objects = Arc::new(InMemory::new());
            for (name, bytes) in files {
                objects.put(&name, bytes.into()).await.unwrap();
            }
            let store = store(objects);
            let found = async {
                let claim = store.claim().await?;
                let recovered = store.recover(&claim, None).await?;
                let manifest = recovered.committed.expect("three checkpoints are committed");
                let state = restore(&store, &manifest).await?;
                Ok::<_, super::CheckpointError>((manifest, state))
            };
            match found.await {
                Ok((manifest, state)) => {
                    assert!(manifest.epoch >= decided, "{context}: went back to {}", manifest.epoch);
                    assert_eq!(state, log.state(&manifest), "{context}");
                    restored += 1;
                }
                Err(error) => {
                    let message = error.to_string();
                    assert!(message.contains(&format!("root/{JOB}/")), "{context}: {message}");
                    refused += 1;
                }
            }
            // Looking at it must not panic either.
            let _ = store.manifests().await;
            let _ = store.load_committed(&super::super::read::Wanted::Savepoint("a".into())).await;
        }
    }
    assert!(restored > 200 && refused > 200, "{restored} restored, {refused} refused");
}

#[tokio::test]
async fn directories_of_two_jobs_do_not_mix() {
    let (one, _, _) = base(false).await;
    let (two, _, decided) = base(true).await;
    // The prepared checkpoint of the other directory lies where the next one is looked for.
    let next = format!("ckpt/{:020}-", decided.0 + 1);
    let objects = Arc::new(InMemory::new());
    for (name, bytes) in one.into_iter().chain(two.into_iter().filter(|(name, _)| name.as_ref().contains(&next))) {
        objects.put(&name, bytes.into()).await.unwrap();
    }
    let error = Process::start(&store(objects), &Log::default(), 1).await.err().expect("a refusal").to_string();
    assert!(error.contains("mixed") && error.contains("MANIFEST"), "{error}");
}

#[tokio::test]
async fn a_folder_of_another_job_is_refused() {
    let (files, log, _) = base(false).await;
    let objects = Arc::new(InMemory::new());
    for (name, bytes) in files {
        let moved = name.as_ref().replace(JOB, "other");
        objects.put(&Path::from(moved), bytes.into()).await.unwrap();
    }
    let store = super::CheckpointStore::with(objects, "root", "other").unwrap();
    let error = Process::start(&store, &log, 1).await.err().expect("a refusal").to_string();
    assert!(error.contains("\"hot items\"") && error.contains("\"other\""), "{error}");
}
