//! Directories that earlier versions wrote still restore. `golden/v1` is one of format version 1; it is never written
//! again. A new format version gets a directory of its own, and the old ones stay.

use std::{fs, path::Path};

use bytes::Bytes;
use windrow_connectors::sink::Epoch;

use super::{
    super::{
        manifest::{Kind, Manifest},
        read::Wanted,
        record::{Decision, Done, Generation, Outcome, Savepoint},
        store::CheckpointStore,
    },
    formats::full,
    restore,
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/checkpoint/golden/v1");

fn copy(from: &Path, to: &Path) {
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

#[tokio::test]
async fn version_1_restores() {
    let directory = tempfile::tempdir().unwrap();
    copy(Path::new(GOLDEN), directory.path());
    let store = CheckpointStore::open(directory.path().to_str().unwrap(), "golden").unwrap();
    let claim = store.claim().await.unwrap();
    assert_eq!((claim.generation, claim.job_id.as_str()), (3, "0badcafe"));
    let recovered = store.recover(&claim, None).await.unwrap();
    assert!(recovered.done && recovered.warnings.is_empty());
    assert_eq!(recovered.next_epoch, Epoch(5));
    assert_eq!(recovered.committed.as_ref(), Some(&full()));
    let state: Vec<Bytes> = restore(&store, &full()).await.unwrap().into_values().collect();
    assert_eq!(state, [&b"first segment"[..], b"second"]);
    assert_eq!(store.load_committed(&Wanted::Savepoint("golden".into())).await.unwrap(), full());
    let listed = store.manifests().await.unwrap();
    assert_eq!(listed.iter().map(|checkpoint| checkpoint.manifest.epoch.0).collect::<Vec<_>>(), [1, 3]);
}

/// Version 1 is also written as it was: a change of the bytes without a new version would be read wrongly by others.
#[test]
fn version_1_is_written_as_it_was() {
    let golden = fs::read(Path::new(GOLDEN).join("golden").join(full().folder().manifest())).unwrap();
    assert_eq!(full().encode().unwrap(), golden);
}

/// Writes the directory. Run once per format version, by hand.
#[tokio::test]
#[ignore = "writes files into the source tree"]
async fn write_version_1() {
    assert!(!Path::new(GOLDEN).exists(), "golden files are never written again");
    let store = CheckpointStore::open(GOLDEN, "golden").unwrap();
    let objects = &store.objects;
    let third = full();
    let first = Manifest {
        epoch: Epoch(1),
        generation: 1,
        nonce: 66,
        parent: None,
        origin: None,
        kind: Kind::Periodic,
        operators: Default::default(),
        ..third.clone()
    };
    for generation in [1, 2] {
        let record = Generation {
            generation,
            nonce: 55 + 11 * generation as u32,
            job: "golden".into(),
            job_id: "0badcafe".into(),
            host: "here".into(),
            pid: 1,
            started_ms: 1_700_000_000_000,
        };
        objects.record(&format!("gen/{generation:020}"), &record).await.unwrap();
    }
    for (segment, bytes) in third.segments().zip([&b"first segment"[..], b"second"]) {
        objects.create(&segment.path, Bytes::from_static(bytes)).await.unwrap();
    }
    for manifest in [&first, &third] {
        objects.create(&manifest.folder().manifest(), manifest.encode().unwrap()).await.unwrap();
        objects.record(&format!("done/{:020}", manifest.epoch.0), &Done { done: manifest.epoch }).await.unwrap();
    }
    let commit = |manifest: &Manifest| Outcome::Commit { nonce: manifest.nonce, folder: manifest.folder() };
    let outcomes = [Outcome::Fence { nonce: 66 }, commit(&first), Outcome::Fence { nonce: 77 }, commit(&third)];
    for (epoch, outcome) in (0..).zip(outcomes) {
        let decision = Decision { epoch: Epoch(epoch), outcome, by: 1 + epoch / 2 };
        objects.record(&format!("epoch/{epoch:020}"), &decision).await.unwrap();
    }
    let savepoint = Savepoint { savepoint: "golden".into(), folder: third.folder(), checkpoint: third.as_parent() };
    objects.record("savepoint/golden", &savepoint).await.unwrap();
}
