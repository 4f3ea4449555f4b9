//! The names of parts: from a name it can be told whose file it is, and no two parts have the same.
//!
//! ```text
//!   .part-00c0ffee-000003-001-000042-89abcdef.tmp                   while it is hidden
//!         job      gen.   task part  nonce
//!    part-00c0ffee-000003-0000000017-001-000042-89abcdef.parquet    when it is published with epoch 17
//! ```
//!
//! Numbers are as wide as is common and wider where they must be, so names sort by generation, epoch, task and part.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{ConnectorError, Epoch, Incarnation, Result, file::format::FileFormat};

/// The next number of a part. One count for the whole process, because two sinks of a job may write to one directory.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What distinguishes a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartName {
    pub(super) incarnation: Incarnation,
    task: usize,
    number: u64,
}

impl PartName {
    /// The name of the next part of a task.
    pub(super) fn next(incarnation: &Incarnation, task: usize) -> Self {
        Self { incarnation: incarnation.clone(), task, number: NEXT.fetch_add(1, Relaxed) }
    }

    /// The name while the part is written and staged. Begins with a dot, so that no usual pattern matches it.
    pub(super) fn hidden(&self) -> String {
        let Self { incarnation: Incarnation { job, generation, nonce }, task, number } = self;
        format!(".part-{job}-{generation:06}-{task:03}-{number:06}-{nonce:08x}.tmp")
    }

    /// The name that readers see.
    pub(super) fn published(&self, epoch: Epoch, format: FileFormat) -> String {
        let Self { incarnation: Incarnation { job, generation, nonce }, task, number } = self;
        let (Epoch(epoch), extension) = (epoch, format.extension());
        format!("part-{job}-{generation:06}-{epoch:010}-{task:03}-{number:06}-{nonce:08x}.{extension}")
    }

    /// The part whose hidden file is called `name`, if it is one.
    pub(super) fn of_hidden(name: &str) -> Option<Self> {
        let fields: Vec<&str> = name.strip_prefix(".part-")?.strip_suffix(".tmp")?.split('-').collect();
        let [job, generation, task, number, nonce] = fields[..] else { return None };
        let nonce = u32::from_str_radix(nonce, 16).ok()?;
        let incarnation = Incarnation { job: job.to_owned(), generation: generation.parse().ok()?, nonce };
        let part = Self { incarnation, task: task.parse().ok()?, number: number.parse().ok()? };
        (part.hidden() == name).then_some(part)
    }

    /// Whether `name` is the published name of this part, for whatever epoch and format.
    pub(super) fn is_published_as(&self, name: &str) -> bool {
        let Some(Ok(epoch)) = name.split('-').nth(3).map(str::parse) else { return false };
        FileFormat::ALL.into_iter().any(|format| self.published(Epoch(epoch), format) == name)
    }
}

/// Refuses a job whose name would make the names of its parts ambiguous.
pub(super) fn check_job(job: &str) -> Result<()> {
    if (1..=64).contains(&job.len()) && job.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(ConnectorError::Config(format!(
        "{job:?} cannot be a job in the names of files: it takes 1 to 64 ASCII letters, digits and underscores"
    )))
}
