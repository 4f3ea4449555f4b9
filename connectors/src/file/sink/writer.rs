//! The parts of one task: which are open, which part a row goes to, and when a part is complete.
//!
//! ```text
//!   batch ──► Partitioning ──► country=DE ──► Part ─┐
//!                         └──► country=FR ──► Part ─┼─ large, old, or one too many ──► ClosedPart ─┐
//!                                             ...   └──────────────── stage ──────────► ClosedPart ─┴─► receipts
//! ```
//!
//! Rows are encoded on the worker of the runtime that runs the task, as any other computation of it; the page cache
//! takes the bytes. What waits for the disk (`close`, which is fsync) runs on a thread that may wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    Settings, blocking, directory,
    name::PartName,
    part::{ClosedPart, Part},
    partition::Partitioning,
    publish,
};
use crate::{ConnectorError, Epoch, Incarnation, Receipt, Result, SinkWriter};

/// Parts of one task that are open at the same time; for one more, the least recently used is closed. It bounds the
/// file descriptors and, with a buffer of 256 KiB each, the memory.
const MAX_OPEN: usize = 64;

/// What the row groups of all open Parquet files of a task may take in memory. Beyond it the largest is written out.
const MAX_ROW_GROUPS_BYTES: usize = 64 << 20;

pub(super) struct FileWriter {
    settings: Arc<Settings>,
    incarnation: Incarnation,
    task: usize,
    schema: SchemaRef,
    partitioning: Partitioning,
    /// By directory, relative to the root.
    open: BTreeMap<String, OpenPart>,
    /// Closed since the last stage.
    closed: Vec<ClosedPart>,
    /// Counts writes to parts, to know which was used last.
    uses: u64,
    /// A call failed or was given up half-way: rows may be missing in the parts, and nothing of them may be published.
    broken: bool,
}

struct OpenPart {
    part: Part,
    used: u64,
}

impl FileWriter {
    pub(super) fn new(
        settings: Arc<Settings>,
        incarnation: Incarnation,
        task: usize,
        schema: SchemaRef,
    ) -> Result<Self> {
        let partitioning = Partitioning::new(&settings.partition_by, &schema)?;
        let (open, closed) = (BTreeMap::new(), Vec::new());
        Ok(Self { settings, incarnation, task, schema, partitioning, open, closed, uses: 0, broken: false })
    }

    async fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        for (directory, rows) in self.partitioning.split(batch)? {
            if !self.open.contains_key(&directory) && self.open.len() >= MAX_OPEN {
                let least = self.open.iter().min_by_key(|(_, open)| open.used).map(|(directory, _)| directory.clone());
                self.close(least).await?;
            }
            if self.append(directory.clone(), &rows)? >= self.settings.roll_bytes {
                self.close([directory]).await?;
            }
        }
        self.bound_memory()?;
        if let Some(age) = self.settings.roll_after {
            self.close(self.older_than(age)).await?;
        }
        Ok(())
    }

    /// Writes to the part of a directory, and says how many bytes it has.
    fn append(&mut self, directory: String, rows: &RecordBatch) -> Result<u64> {
        if !self.open.contains_key(&directory) {
            let Settings { root, format, .. } = &*self.settings;
            let name = PartName::next(&self.incarnation, self.task);
            let part = Part::create(root, &directory, name, *format, &self.schema)?;
            self.open.insert(directory.clone(), OpenPart { part, used: 0 });
        }
        let Some(open) = self.open.get_mut(&directory) else { return Ok(0) };
        self.uses += 1;
        open.used = self.uses;
        open.part.write(rows)?;
        Ok(open.part.bytes())
    }

    fn older_than(&self, age: Duration) -> Vec<String> {
        let now = Instant::now();
        let old = self.open.iter().filter(|(_, open)| now.duration_since(open.part.opened()) >= age);
        old.map(|(directory, _)| directory.clone()).collect()
    }

    fn bound_memory(&mut self) -> Result<()> {
        let mut parts: Vec<(usize, &mut Part)> =
            self.open.values_mut().map(|open| (open.part.memory(), &mut open.part)).collect();
        let mut memory: usize = parts.iter().map(|(bytes, _)| bytes).sum();
        parts.sort_unstable_by_key(|(bytes, _)| *bytes);
        while memory > MAX_ROW_GROUPS_BYTES
            && let Some((bytes, largest)) = parts.pop()
        {
            largest.free_memory()?;
            memory -= bytes;
        }
        Ok(())
    }

    /// Closes parts whose rows are published with the next epoch.
    async fn close(&mut self, directories: impl IntoIterator<Item = String>) -> Result<()> {
        for directory in directories {
            let Some(OpenPart { part, .. }) = self.open.remove(&directory) else { continue };
            let closed = blocking(&self.settings.root, move || part.close()).await?;
            self.closed.push(closed);
        }
        Ok(())
    }

    async fn stage_all(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        let open: Vec<Part> = std::mem::take(&mut self.open).into_values().map(|open| open.part).collect();
        let mut parts = std::mem::take(&mut self.closed);
        if parts.is_empty() && open.is_empty() {
            return Ok(Vec::new());
        }
        let settings = self.settings.clone();
        blocking(&self.settings.root, move || {
            for part in open {
                parts.push(part.close()?);
            }
            directory::sync_below(&settings.root, parts.iter().map(ClosedPart::directory))?;
            let receipts: Result<Vec<_>> =
                parts.iter().map(|part| publish::receipt(part, epoch, settings.format)).collect();
            let receipts = receipts?;
            // Only now: until there are receipts for all of them, an error removes all of them.
            parts.into_iter().for_each(ClosedPart::keep);
            Ok(receipts)
        })
        .await
    }

    /// Makes the writer unusable until a call succeeds. It is said before the call and taken back after it, because the
    /// caller may also drop the call half-way.
    fn begin(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.broken, true) {
            false => Ok(()),
            true => Err(ConnectorError::Data {
                at: self.settings.root.display().to_string(),
                reason: format!("an earlier write of task {} failed: its writer takes no more rows", self.task),
            }),
        }
    }

    fn end<T>(&mut self, result: Result<T>) -> Result<T> {
        match &result {
            Ok(_) => self.broken = false,
            Err(_) => {
                self.open.clear();
                self.closed.clear();
            }
        }
        result
    }
}

#[async_trait]
impl SinkWriter for FileWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.begin()?;
        let taken = if batch.num_rows() == 0 { Ok(()) } else { self.take(&batch).await };
        self.end(taken)
    }

    async fn stage(&mut self, epoch: Epoch) -> Result<Vec<Receipt>> {
        self.begin()?;
        let staged = self.stage_all(epoch).await;
        self.end(staged)
    }
}
