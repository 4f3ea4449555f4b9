//! The directory of the checkpoints or of a sink fails: full, read-only, gone, a file. The job says which path and what
//! about it, publishes nothing that is wrong, and when the fault is mended goes on to the right answer.
//!
//! What needs a real disk that is full, or a user who may not write, is left out where the test runs as one who may do
//! everything. Failures at every single call of the store are tested in the store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tests::on_two_threads;
use windrow::{Error, Restarts, prelude::*};

use super::{
    hand::until,
    lives::{HANGS, place, start},
};

#[derive(Record)]
struct Number {
    value: i64,
}

/// Endless numbers into files, until they are stopped.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(place())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn job(&self) -> Job {
        let job = Job::new("numbers").channel_bytes(100_000);
        job.source(Sequence::endless().splits(2))
            .event_time("at", Watermarks::in_order())
            .typed::<Number>()
            .select([col("value")])
            .sink(File::directory(self.path("out")).json());
        let job = job.checkpoint(self.path("store").to_str().unwrap(), millis(5));
        job.restarts(Restarts::at_most(2).waiting(millis(1)..=millis(2)))
    }

    /// Runs until something is visible, then lets the fault happen and waits for the error.
    async fn failing(&self, fault: impl FnOnce()) -> Error {
        let running = start(|| self.job()).await.unwrap();
        until(&running.handle(), |_| !self.visible().is_empty()).await;
        fault();
        tokio::time::timeout(HANGS, running.wait()).await.expect("it hangs").unwrap_err()
    }

    /// The names of the files that a reader sees.
    fn visible(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("out")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let hidden = entry.file_name().to_string_lossy().starts_with(['.', '_']);
                match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    _ if hidden => {}
                    true => folders.push(entry.path()),
                    false => found.push(entry.path()),
                }
            }
        }
        found
    }

    /// Every visible number, sorted: of each split without a gap, each once.
    fn check(&self) -> usize {
        let text: String = self.visible().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let number = |line: &str| line.trim_start_matches("{\"value\":").trim_end_matches('}').parse::<i64>().unwrap();
        let mut numbers: Vec<i64> = text.lines().map(number).collect();
        numbers.sort_unstable();
        for split in 0..2 {
            let of_split = numbers.iter().filter(|number| **number % 2 == split);
            let wrong = of_split.zip(0..).find(|(number, at)| **number != 2 * at + split);
            assert_eq!(wrong, None, "of {} numbers the first that is missing, or is there twice", numbers.len());
        }
        numbers.len()
    }

    /// The fault is mended: the job goes on, and stops cleanly with more than before.
    async fn goes_on(&self) {
        let before = self.check();
        let running = start(|| self.job()).await.unwrap();
        let handle = running.handle();
        until(&handle, |job| job.metrics().named("sink").all(|sink| sink.rows_in > 0)).await;
        handle.stop();
        tokio::time::timeout(HANGS, running.wait()).await.expect("it hangs").unwrap();
        assert!(self.check() > before);
        let leftovers = walk(&self.path("out")).into_iter().filter(|path| !self.visible().contains(path));
        assert_eq!(leftovers.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "a clean stop leaves nothing hidden");
    }
}

/// All files below a directory, hidden ones too.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path().is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn names(error: &Error, path: &Path) {
    let said = error.to_string();
    assert!(said.contains(path.to_str().unwrap()), "{said}\ndoes not name {}", path.display());
}

#[test]
fn a_folder_of_the_store_that_becomes_a_file() {
    on_two_threads(async {
        for folder in ["ckpt", "epoch", "done", "gen"] {
            let files = Files::new();
            let (here, aside) = (files.path("store/numbers").join(folder), files.path("aside"));
            let error = files.failing(|| {
                fs::rename(&here, &aside).unwrap();
                // The job may be making it again at this moment.
                while fs::write(&here, "not a folder").is_err() {
                    let _ = fs::remove_dir_all(&here);
                }
            });
            let error = error.await;
            names(&error, &files.path("store/numbers"));
            files.check();
            fs::remove_file(&here).unwrap();
            fs::rename(&aside, &here).unwrap();
            files.goes_on().await;
        }
    });
}

#[test]
fn a_store_that_is_moved_away_while_the_job_runs() {
    on_two_threads(async {
        let files = Files::new();
        let (here, aside) = (files.path("store"), files.path("aside"));
        let error = files.failing(|| fs::rename(&here, &aside).unwrap()).await;
        names(&error, &here);
        files.check();
        let _ = fs::remove_dir_all(&here);
        fs::rename(&aside, &here).unwrap();
        files.goes_on().await;
    });
}

#[test]
fn a_directory_of_output_that_becomes_a_file() {
    on_two_threads(async {
        let files = Files::new();
        let (here, aside) = (files.path("out"), files.path("aside"));
        let error = files.failing(|| {
            fs::rename(&here, &aside).unwrap();
            while fs::write(&here, "not a directory").is_err() {
                let _ = fs::remove_dir_all(&here);
            }
        });
        names(&error.await, &here);
        fs::remove_file(&here).unwrap();
        fs::rename(&aside, &here).unwrap();
        files.check();
        files.goes_on().await;
    });
}

#[test]
fn a_store_that_cannot_be_made_is_refused_at_the_start() {
    on_two_threads(async {
        let files = Files::new();
        fs::write(files.path("store"), "a file").unwrap();
        let error = files.job().start().await.err().unwrap();
        names(&error, &files.path("store"));
        fs::remove_file(files.path("store")).unwrap();
        // A disk that is full, as far as one can have it without rights.
        if Path::new("/dev/full").exists() {
            fs::create_dir_all(files.path("store/numbers")).unwrap();
            std::os::unix::fs::symlink("/dev/full", files.path("store/numbers/gen")).unwrap();
            let error = files.job().start().await.err().unwrap();
            names(&error, &files.path("store/numbers/gen"));
            fs::remove_file(files.path("store/numbers/gen")).unwrap();
        }
        files.goes_on().await;
    });
}

#[test]
fn directories_that_this_user_may_not_write() {
    use std::os::unix::fs::PermissionsExt;

    let files = Files::new();
    let may = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::create_dir(files.path("probe")).unwrap();
    may(&files.path("probe"), 0o500);
    if fs::write(files.path("probe/x"), "").is_ok() {
        println!("left out: this user may write everywhere");
        return;
    }
    on_two_threads(async {
        for folder in ["store/numbers/ckpt", "store/numbers/epoch", "store/numbers/done", "out"] {
            let files = Files::new();
            let error = files.failing(|| may(&files.path(folder), 0o500)).await;
            names(&error, &files.path(folder));
            assert!(error.to_string().contains("may not") || error.to_string().contains("ermission"), "{error}");
            may(&files.path(folder), 0o700);
            files.check();
            files.goes_on().await;
        }
    });
}
