//! From what a user writes to a store: a path, `file:///path`, `s3://bucket/path`.

use std::{path::PathBuf, sync::Arc};

use futures::TryStreamExt;
use object_store::{ObjectStore, local::LocalFileSystem, path::Path};
use url::Url;

use super::{error::CheckpointError, local::LocalRoot, names, objects::Objects};

type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// Whether to make what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    Read,
}

/// The store and the name of the job that a folder of a store means: `/var/lib/jobs/hot-items`.
pub(crate) fn job_and_store(url: &str) -> (&str, String) {
    let url = url.trim_end_matches('/');
    let (store, folder) = url.rsplit_once('/').unwrap_or((".", url));
    // On disk the name is encoded; a user may have copied it from there.
    (store, percent_encoding::percent_decode_str(folder).decode_utf8_lossy().into_owned())
}

/// The objects of `job` below `location`.
pub(super) fn open(location: &str, job: &str, purpose: Purpose) -> Result<Objects> {
    let folder = names::job_folder(job)?;
    match place(location)? {
        Place::Directory(path) => local(path, &folder, purpose),
        Place::Bucket(url) => s3(&url, &folder),
    }
}

/// The names of the jobs that have checkpoints below `location`, in order.
pub(crate) async fn jobs(location: &str) -> Result<Vec<String>> {
    let failed = |error| CheckpointError::io("list", without_secrets(location), error);
    let (store, root) = match place(location)? {
        Place::Directory(path) => {
            let store = LocalFileSystem::new_with_prefix(path).map_err(failed)?;
            (Arc::new(store) as Arc<dyn ObjectStore>, Path::default())
        }
        Place::Bucket(url) => bucket(&url)?,
    };
    let mut jobs = Vec::new();
    for folder in store.list_with_delimiter(Some(&root)).await.map_err(failed)?.common_prefixes {
        let starts = folder.clone().join(names::GENERATIONS);
        let first = store.list(Some(&starts)).try_next().await.map_err(failed)?;
        if let Some(name) = folder.filename().filter(|_| first.is_some()) {
            jobs.push(percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned());
        }
    }
    jobs.sort_unstable();
    Ok(jobs)
}

/// What a location is.
enum Place {
    Directory(PathBuf),
    Bucket(Url),
}

fn place(location: &str) -> Result<Place> {
    let refused = |reason: String| CheckpointError::Location { location: without_secrets(location), reason };
    if location.is_empty() {
        return Err(refused("give a directory or a URL".into()));
    }
    if !location.contains("://") {
        return Ok(Place::Directory(location.into()));
    }
    let url = Url::parse(location).map_err(|error| refused(format!("this is not a URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("a URL is printed and logged: give keys by the environment, not in it".into()));
    }
    match url.scheme() {
        "file" => {
            let path = url.to_file_path();
            path.map(Place::Directory).map_err(|()| refused("write it as file:///absolute/path".into()))
        }
        "s3" | "s3a" => Ok(Place::Bucket(url)),
        other => Err(refused(format!("{other}:// is not known; use a path, file:// or s3://"))),
    }
}

fn local(directory: PathBuf, folder: &Path, purpose: Purpose) -> Result<Objects> {
    let opened = match purpose {
        Purpose::Write => LocalRoot::create(&directory, folder),
        Purpose::Read => LocalRoot::open(&directory, folder),
    };
    let (store, root) = opened?;
    let shown = root.shown();
    Ok(Objects { store: Arc::new(store), root: folder.clone(), shown, local: Some(root) })
}

fn s3(url: &Url, folder: &Path) -> Result<Objects> {
    let (store, prefix) = bucket(url)?;
    Ok(objects(store, prefix, folder, url.as_str()))
}

/// A bucket, and the path in it.
#[cfg(feature = "s3")]
fn bucket(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    use object_store::aws::AmazonS3Builder;

    let refused = |reason: object_store::Error| CheckpointError::Location {
        location: url.to_string(),
        reason: reason.to_string(),
    };
    let store = AmazonS3Builder::from_env().with_url(url.as_str()).build().map_err(refused)?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| refused(error.into()))?;
    Ok((Arc::new(store), prefix))
}

#[cfg(not(feature = "s3"))]
fn bucket(url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
    Err(CheckpointError::Location {
        location: url.to_string(),
        reason: "this program was built without S3: switch on the feature `s3` of the crate `windrow`".into(),
    })
}

/// The objects of a job in a store that is not a directory.
pub(super) fn objects(store: Arc<dyn ObjectStore>, root: Path, folder: &Path, shown: &str) -> Objects {
    let root = folder.parts().fold(root, |path, part| path.join(part));
    Objects { store, root, shown: format!("{}/{folder}", shown.trim_end_matches('/')), local: None }
}

/// The location without what may be a password.
pub(crate) fn without_secrets(location: &str) -> String {
    match (location.split_once("://"), location.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => location.into(),
    }
}
