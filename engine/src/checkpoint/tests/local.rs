//! The store on a real disk.

use std::{fs, path::Path};

use bytes::Bytes;
use windrow_connectors::sink::Epoch;

use super::{
    super::{error::CheckpointError, manifest::Kind, read::Wanted, store::CheckpointStore},
    JOB, Log, Process, assert_no_orphans,
};

fn open(directory: &Path) -> CheckpointStore {
    CheckpointStore::open(directory.to_str().unwrap(), JOB).unwrap()
}

fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

#[tokio::test]
async fn a_job_on_a_disk_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (root, log) = (directory.path().join("new/checkpoints"), Log::default());
    let mut process = Process::start(&open(&root), &log, 1).await.unwrap();
    for _ in 0..4 {
        process.checkpoint(Kind::Periodic).await.unwrap();
        process.collect().await.unwrap();
    }
    let last = process.recovered.committed.take();
    assert!(last.is_none());
    drop(process);

    let url = format!("file://{}", root.display());
    let store = CheckpointStore::open(&url, JOB).unwrap();
    let mut process = Process::start(&store, &log, 2).await.unwrap();
    assert_eq!(process.recovered.committed.as_ref().unwrap().epoch, Epoch(4));
    for _ in 0..2 {
        process.checkpoint(Kind::Periodic).await.unwrap();
        process.collect().await.unwrap();
    }
    assert_no_orphans(&store, "").await;
    // Folders of old checkpoints go with their files.
    let folders = fs::read_dir(root.join(JOB).join("ckpt")).unwrap().count();
    let needed = files(&root.join(JOB).join("ckpt"));
    assert!(folders <= needed.len());
    let reader = CheckpointStore::open_to_read(&url, JOB).unwrap();
    assert_eq!(reader.load_committed(&Wanted::Newest).await.unwrap().epoch, Epoch(7));
}

#[cfg(unix)]
#[tokio::test]
async fn others_cannot_read_it_and_a_directory_that_all_can_write_is_named() {
    use std::os::unix::fs::PermissionsExt;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/b");
    let claim = open(&root).claim().await.unwrap();
    assert!(claim.warnings.is_empty(), "{:?}", claim.warnings);
    for made in [directory.path().join("a"), root.clone(), root.join(JOB), root.join(JOB).join("ckpt")] {
        assert_eq!(mode(&made), 0o700, "{}", made.display());
    }
    drop(claim);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    let claim = open(&root).claim().await.unwrap();
    assert!(claim.warnings[0].contains("a/b") && claim.warnings[0].contains("chmod"), "{:?}", claim.warnings);
}

#[tokio::test]
async fn names_of_jobs_stay_below_the_root() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let names = ["..", ".", "a/b", "../../x", "a\\b", "ü", "a#1", "a%2Fb", "a%2fb", "%2E%2E", " ", "a\nb", "con:x"];
    for name in names {
        let store = CheckpointStore::open(root.to_str().unwrap(), name).unwrap();
        let claim = store.claim().await.expect(name);
        assert_eq!(claim.generation, 1, "{name:?} has the folder of another job");
        store.recover(&claim, None).await.expect(name);
        let bytes = Bytes::from_static(b"x");
        let file = store.put_segment(Epoch(1), 1, name, 0, 1, bytes.clone()).await.expect(name);
        assert_eq!(store.get_segment(&file).await.expect(name), bytes);
        assert_eq!(store.objects.list("ckpt").await.expect(name).len(), 1, "{name:?}");
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), names.len());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    for name in ["", &"x".repeat(201), &"ü".repeat(40)] {
        assert!(matches!(CheckpointStore::open(root.to_str().unwrap(), name), Err(CheckpointError::Location { .. })));
    }
}

#[test]
fn places_that_cannot_be_used_are_explained() {
    let reason = |url: &str| CheckpointStore::open(url, JOB).unwrap_err().to_string();
    assert!(reason("").contains("give a directory"));
    assert!(reason("gs://bucket/x").contains("not known"));
    assert!(reason("file://host/x y").contains("file:///"));
    assert!(reason("http://[").contains("not a URL"));
    let secret = reason("s3://key:hunter2@bucket/x");
    assert!(!secret.contains("hunter2") && secret.contains("environment"), "{secret}");
    #[cfg(not(feature = "s3"))]
    assert!(reason("s3://bucket/x").contains("feature `s3`"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(reason(file.join("below").to_str().unwrap()).contains("file"));
    let missing = CheckpointStore::open_to_read(directory.path().join("none").to_str().unwrap(), JOB).unwrap_err();
    assert!(missing.to_string().contains("none") && missing.to_string().contains("does not exist"), "{missing}");
}

#[tokio::test]
async fn half_written_files_of_a_crash_are_swept() {
    let directory = tempfile::tempdir().unwrap();
    let (store, log) = (open(directory.path()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    process.checkpoint(Kind::Periodic).await.unwrap();
    drop(process);
    let before = files(directory.path());
    let root = directory.path().join(JOB);
    fs::create_dir_all(root.join("ckpt/00000000000000000002-1/s/op-x")).unwrap();
    for staged in ["ckpt/00000000000000000002-1/s/op-x/000-00#1", "epoch/00000000000000000009#12", "gen/x#1"] {
        fs::write(root.join(staged), "half").unwrap();
    }
    let claim = store.claim().await.unwrap();
    let mut left = files(directory.path());
    left.retain(|name| !before.contains(name));
    assert_eq!(left.len(), 1, "the new generation: {left:?}");
    store.recover(&claim, None).await.unwrap();
}

#[tokio::test]
async fn a_directory_that_was_removed_under_a_running_job_stops_it() {
    let directory = tempfile::tempdir().unwrap();
    let (store, log) = (open(directory.path()), Log::default());
    let mut process = Process::start(&store, &log, 1).await.unwrap();
    process.checkpoint(Kind::Periodic).await.unwrap();
    fs::remove_dir_all(directory.path().join(JOB)).unwrap();
    let error = process.checkpoint(Kind::Periodic).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Fenced { .. }), "{error}");
    let error = process.collect().await.unwrap_err();
    assert!(error.to_string().contains("was removed"), "{error}");
}

/// A file in the place of a folder: every write fails with an error that says where.
#[tokio::test]
async fn an_error_of_the_disk_names_the_path() {
    let directory = tempfile::tempdir().unwrap();
    let (store, log) = (open(directory.path()), Log::default());
    let process = Process::start(&store, &log, 1).await.unwrap();
    let done = directory.path().join(JOB).join("done");
    fs::remove_dir(&done).unwrap();
    fs::write(&done, "").unwrap();
    let error = store.done(Epoch(1)).await.unwrap_err().of(JOB).to_string();
    assert!(
        error.contains("job \"hot items\": cannot write") && error.contains("done/00000000000000000001"),
        "{error}"
    );
    drop(process);
}
