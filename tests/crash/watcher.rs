//! A reader that works beside the job: it opens every file under its final name as soon as it is there, like somebody who
//! does not know the job. The file must be whole at that moment, and stay as it is.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::reader;

/// Between two looks at the directories.
const LOOK: Duration = Duration::from_millis(2);

/// The reader. Dropped, it ends by itself.
pub(crate) struct Watcher {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64, String>>>,
}

impl Watcher {
    pub(crate) fn start(mut directories: Vec<PathBuf>) -> Self {
        directories.sort();
        directories.dedup();
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = ended.clone();
        let thread = std::thread::spawn(move || {
            let mut known = HashMap::new();
            loop {
                // Asked first: what appears before the end is seen.
                let over = is_over.load(Relaxed);
                look(&directories, &mut known)?;
                if over {
                    return Ok(known.len() as u64);
                }
                std::thread::sleep(LOOK);
            }
        });
        Self { ended, thread: Some(thread) }
    }

    /// Looks a last time, and tells how many files it has seen.
    pub(crate) fn stop(mut self) -> Result<u64, String> {
        self.ended.store(true, Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(0) };
        thread.join().unwrap_or_else(|_| Err("the reader panicked".into()))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
    }
}

/// Reads what is new. `known` has the length of each file that was seen before.
fn look(directories: &[PathBuf], known: &mut HashMap<PathBuf, u64>) -> Result<(), String> {
    let mut found = 0;
    for directory in directories {
        for path in reader::find(directory).map_err(|error| error.to_string())?.published {
            found += 1;
            let length = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?.len();
            match known.get(&path) {
                Some(former) if *former == length => {}
                Some(former) => return Err(format!("{} had {former} bytes and has {length}", path.display())),
                None => {
                    reader::read(&path).map_err(|reason| format!("seen before it was complete: {reason}"))?;
                    known.insert(path, length);
                }
            }
        }
    }
    match found < known.len() {
        true => Err(format!("{} published files were seen, and only {found} are there", known.len())),
        false => Ok(()),
    }
}
