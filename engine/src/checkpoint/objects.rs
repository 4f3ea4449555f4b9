//! The few things the store does with objects, with errors that name the path, the action and the cause.
//!
//! Nothing is ever overwritten: a name is created once or not at all, and whoever finds it taken reads who was first.
//! That is all the coordination there is between processes, on a disk as in S3.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{BoxStream, try_unfold},
};
use object_store::{
    Error as StoreError, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    error::CheckpointError,
    frame::{self, Unreadable},
    local::LocalRoot,
    names,
};

type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// No record is near as large; what is larger is none.
const LARGEST_RECORD: u64 = 1 << 20;

/// A file on a disk is read in pieces of so many bytes: for each a thread has to be asked that may wait for the disk.
const PIECE_BYTES: u64 = 1 << 20;

/// What came of creating an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there with our content: now, or since an attempt whose reply was lost.
    Ours,
    /// Somebody else was first, with this content.
    Others(Bytes),
}

/// An object below the root of the job.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// Relative to the root of the job.
    pub(super) name: String,
    pub(super) length: u64,
    pub(super) modified_ms: u64,
}

/// The objects of one job.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The root of the job in the store.
    pub(super) root: Path,
    /// The root of the job as a person would write it.
    pub(super) shown: String,
    pub(super) local: Option<LocalRoot>,
}

impl Objects {
    /// `name` as a person would write it.
    pub(super) fn show(&self, name: &str) -> String {
        format!("{}/{name}", self.shown)
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// Creates `name`, if it is not there.
    pub(super) async fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path(name), bytes.clone().into(), options).await {
            Ok(_) => Ok(Created::Ours),
            // The request may have been sent twice because the first reply was lost: then it is our own.
            Err(StoreError::AlreadyExists { .. }) => match self.read(name, u64::MAX).await? {
                Some(found) if found == bytes => Ok(Created::Ours),
                Some(found) => Ok(Created::Others(found)),
                None => Err(CheckpointError::Conflict {
                    path: self.show(name),
                    reason: "it was there and is gone: somebody else works in this directory".into(),
                }),
            },
            Err(error) => Err(CheckpointError::io("write", self.show(name), error)),
        }
    }

    /// Creates a record.
    pub(super) async fn record(&self, name: &str, record: &impl Serialize) -> Result<Created> {
        let bytes = frame::encode(record).map_err(|error| self.unwritable(name, error.to_string()))?;
        self.create(name, bytes).await
    }

    pub(super) fn unwritable(&self, name: &str, reason: String) -> CheckpointError {
        CheckpointError::Io { action: "write", path: self.show(name), reason, source: None }
    }

    /// The content of `name`; none if it is not there. An object over `limit` bytes is not read.
    pub(super) async fn read(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        let Some(found) = self.find(name, limit).await? else { return Ok(None) };
        let bytes = found.bytes().await;
        bytes.map(Some).map_err(|error| CheckpointError::io("read", self.show(name), error))
    }

    /// The same in pieces, as they come; whether it is there.
    pub(super) async fn read_pieces<E: From<CheckpointError>>(
        &self,
        name: &str,
        limit: u64,
        mut each: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(found) = self.find(name, limit).await? else { return Ok(false) };
        let mut pieces = match found.payload {
            GetResultPayload::File(file, _) => in_pieces(file),
            GetResultPayload::Stream(pieces) => pieces,
        };
        while let Some(piece) =
            pieces.try_next().await.map_err(|it| CheckpointError::io("read", self.show(name), it))?
        {
            each(piece)?;
        }
        Ok(true)
    }

    async fn find(&self, name: &str, limit: u64) -> Result<Option<GetResult>> {
        let found = match self.store.get(&self.path(name)).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(CheckpointError::io("read", self.show(name), error)),
        };
        if found.meta.size > limit {
            return Err(CheckpointError::Corrupt {
                path: self.show(name),
                reason: format!("it has {} bytes where at most {limit} can be right", found.meta.size),
                advice: RESTORE_FILE,
            });
        }
        Ok(Some(found))
    }

    /// A record; none if it is not there.
    pub(super) async fn read_record<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let bytes = self.read(name, LARGEST_RECORD).await?;
        bytes.map(|bytes| self.decode(name, &bytes)).transpose()
    }

    pub(super) fn decode<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T> {
        frame::decode(bytes).map_err(|unreadable| self.unreadable(name, unreadable))
    }

    pub(super) fn unreadable(&self, name: &str, unreadable: Unreadable) -> CheckpointError {
        match unreadable {
            Unreadable::Damaged(reason) => self.damaged(name, reason),
            Unreadable::Version(version) => CheckpointError::Incompatible {
                path: self.show(name),
                reason: format!(
                    "it has format version {version}, this program reads version {} only. Use the program that wrote it",
                    frame::FORMAT
                ),
            },
        }
    }

    pub(super) fn damaged(&self, name: &str, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Corrupt { path: self.show(name), reason: reason.into(), advice: RESTORE_FILE }
    }

    /// Everything in `folder` and below, in the order of names.
    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Object>> {
        self.list_after(folder, None).await
    }

    /// As [`Objects::list`], but only what comes after the name `after`.
    pub(super) async fn list_after(&self, folder: &str, after: Option<&str>) -> Result<Vec<Object>> {
        let prefix = self.path(folder);
        let found = match after {
            Some(after) => self.store.list_with_offset(Some(&prefix), &self.path(after)),
            None => self.store.list(Some(&prefix)),
        };
        let object = |meta: object_store::ObjectMeta| {
            let below = meta.location.prefix_match(&self.root)?;
            let name = below.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let modified_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default();
            Some(Object { name, length: meta.size, modified_ms })
        };
        let found = found.try_filter_map(async |meta| Ok(object(meta))).try_collect::<Vec<_>>().await;
        match found {
            Ok(mut objects) => {
                objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                Ok(objects)
            }
            Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(CheckpointError::io("list", self.show(folder), error)),
        }
    }

    /// The numbered records of `folder`, ascending. What is not named by a number is not one of ours.
    pub(super) async fn numbers(&self, folder: &str) -> Result<Vec<u64>> {
        Ok(self.list(folder).await?.iter().filter_map(|object| record_number(folder, object)).collect())
    }

    /// Deletes `name`; it need not be there.
    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(CheckpointError::io("delete", self.show(name), error)),
        }
    }

    /// Makes sure that what was found in `folder` stays there when the power fails: a process that died may have
    /// written a name and not lived to flush it. Object stores show only what is durable.
    pub(super) fn settle(&self, folder: &str) -> Result<()> {
        self.local.as_ref().map_or(Ok(()), |local| local.sync(folder))
    }
}

/// A file from its beginning to its end.
fn in_pieces(file: File) -> BoxStream<'static, Result<Bytes, StoreError>> {
    let failed = |error: io::Error| StoreError::Generic { store: "the disk", source: Box::new(error) };
    let next = move |file: File| async move {
        let read = move || {
            let mut piece = Vec::new();
            (&file).take(PIECE_BYTES).read_to_end(&mut piece)?;
            Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
        };
        tokio::task::spawn_blocking(read).await?.map_err(failed)
    };
    try_unfold(file, next).boxed()
}

/// The number of a record in `folder`.
pub(super) fn record_number(folder: &str, object: &Object) -> Option<u64> {
    names::number(object.name.strip_prefix(folder)?.strip_prefix('/')?)
}

/// What to do about a damaged file that is needed.
pub(super) const RESTORE_FILE: &str =
    "put the file back from a copy of the directory; without one, move the directory away to begin anew";
