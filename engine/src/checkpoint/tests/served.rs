//! A store in memory that gives objects in pieces of a chosen size, and not always all of them; and that takes its time to take one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

/// What a read gives.
pub(super) type Gives = Box<dyn Fn(Bytes) -> Bytes + Send + Sync>;

/// Passes calls on to a store in memory.
pub(super) struct Served {
    inner: Arc<InMemory>,
    piece: usize,
    /// How many reads give what was written before one gives something else.
    right: usize,
    then: Gives,
    reads: AtomicUsize,
    /// How long a write takes.
    takes: Duration,
    /// How many bytes are being written, and were at the most.
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Served {
    pub(super) fn in_pieces(inner: &Arc<InMemory>, piece: usize) -> Self {
        let (reads, under_way, most) = Default::default();
        let (inner, then) = (inner.clone(), Box::new(|bytes| bytes));
        Self { inner, piece, right: usize::MAX, then, reads, takes: Duration::ZERO, under_way, most }
    }

    /// After so many reads they give something else.
    pub(super) fn then(self, right: usize, then: Gives) -> Self {
        Self { right, then, ..self }
    }

    pub(super) fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    /// How many bytes were being written at a time, at the most.
    pub(super) fn most(&self) -> usize {
        self.most.load(SeqCst)
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}

#[async_trait]
impl ObjectStore for Served {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let length = payload.content_length();
        self.most.fetch_max(self.under_way.fetch_add(length, SeqCst) + length, SeqCst);
        tokio::time::sleep(self.takes).await;
        self.under_way.fetch_sub(length, SeqCst);
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("the store puts whole objects")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await?;
        let payload = std::mem::replace(&mut found.payload, GetResultPayload::Stream(stream::empty().boxed()));
        let GetResultPayload::Stream(all) = payload else { unreachable!("it is in memory") };
        let mut bytes = Bytes::from(all.try_collect::<Vec<_>>().await?.concat());
        if self.reads.fetch_add(1, SeqCst) >= self.right {
            bytes = (self.then)(bytes);
        }
        let piece = self.piece;
        let pieces = (0..bytes.len()).step_by(piece);
        let pieces = pieces.map(move |from| Ok(bytes.slice(from..bytes.len().min(from.saturating_add(piece)))));
        found.payload = GetResultPayload::Stream(stream::iter(pieces).boxed());
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unreachable!("the store lists everything below a prefix")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("the store copies nothing")
    }
}
