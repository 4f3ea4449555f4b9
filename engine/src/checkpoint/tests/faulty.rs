//! A store in memory that fails at a chosen call, in the ways in which real ones fail.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call fails and has done nothing.
    Before(io::ErrorKind),
    /// The call has done its work, and the reply is lost.
    After(io::ErrorKind),
    /// The power fails during the call: of what was being written there is nothing, half, or all.
    PowerLoss(Written),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Nothing,
    Half,
    All,
}

/// Passes calls on to a store in memory.
#[derive(Debug)]
pub(super) struct FaultyStore {
    inner: Arc<InMemory>,
    calls: AtomicU64,
    fault: Option<(u64, Fault)>,
    /// The power is off: nothing answers any more.
    dead: AtomicBool,
    /// Whether every call lets others run before and after it took effect.
    yields: bool,
}

impl FaultyStore {
    pub(super) fn new(inner: &Arc<InMemory>, fault: Option<(u64, Fault)>) -> Arc<Self> {
        let (calls, dead) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { inner: inner.clone(), calls, fault, dead, yields: false })
    }

    /// Fails at no call; between two calls of one process others may make theirs.
    pub(super) fn yielding(inner: &Arc<InMemory>) -> Arc<Self> {
        let (calls, dead) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Self { inner: inner.clone(), calls, fault: None, dead, yields: true })
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    /// The fault of this call.
    fn next(&self) -> Result<Option<Fault>> {
        if self.dead.load(SeqCst) {
            return Err(failed(io::ErrorKind::NotConnected));
        }
        let call = self.calls.fetch_add(1, SeqCst);
        let fault = self.fault.filter(|(at, _)| *at == call).map(|(_, fault)| fault);
        match fault {
            Some(Fault::Before(kind)) => return Err(failed(kind)),
            Some(Fault::PowerLoss(_)) => self.dead.store(true, SeqCst),
            _ => {}
        }
        Ok(fault)
    }

    async fn step_aside(&self) {
        if self.yields {
            step_aside().await;
        }
    }
}

/// Pending once, without waking anybody: who polls decides when it goes on.
async fn step_aside() {
    let mut passed = false;
    std::future::poll_fn(|_| match std::mem::replace(&mut passed, true) {
        true => std::task::Poll::Ready(()),
        false => std::task::Poll::Pending,
    })
    .await;
}

fn failed(kind: io::ErrorKind) -> Error {
    Error::Generic { store: "faulty", source: Box::new(io::Error::from(kind)) }
}

fn after<T>(fault: Option<Fault>, result: Result<T>) -> Result<T> {
    match fault {
        Some(Fault::After(kind)) => Err(failed(kind)),
        Some(Fault::PowerLoss(_)) => Err(failed(io::ErrorKind::NotConnected)),
        _ => result,
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.step_aside().await;
        let fault = self.next()?;
        let written = match fault {
            Some(Fault::PowerLoss(Written::Nothing)) => return after(fault, Err(failed(io::ErrorKind::Other))),
            Some(Fault::PowerLoss(Written::Half)) => {
                let bytes: Bytes = payload.into();
                bytes.slice(..bytes.len() / 2).into()
            }
            _ => payload,
        };
        let result = self.inner.put_opts(location, written, options).await;
        self.step_aside().await;
        after(fault, result)
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("the store puts whole objects")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.step_aside().await;
        let fault = self.next()?;
        after(fault, self.inner.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let fault = match self.next() {
            Ok(fault) => fault,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let (inner, yields) = (self.inner.clone(), self.yields);
        let delete = move |location: Path| {
            let inner = inner.clone();
            async move {
                if yields {
                    step_aside().await;
                }
                if fault != Some(Fault::PowerLoss(Written::Nothing)) {
                    inner.delete(&location).await?;
                }
                if yields {
                    step_aside().await;
                }
                after(fault, Ok(location))
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.next() {
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            Ok(Some(fault)) => {
                let lost = after(Some(fault), Ok(Path::default())).map(|_| unreachable!("the call failed"));
                self.inner.list(prefix).chain(futures::stream::once(async { lost })).boxed()
            }
            Ok(None) if self.yields => {
                // The listing is made when it is asked for, not when the stream was.
                let (inner, prefix) = (self.inner.clone(), prefix.cloned());
                let listing = async move {
                    step_aside().await;
                    inner.list(prefix.as_ref())
                };
                futures::stream::once(listing).flatten().boxed()
            }
            Ok(None) => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unreachable!("the store lists everything below a prefix")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("the store copies nothing")
    }
}
