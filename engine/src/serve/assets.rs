//! The files of the page, which are in the program: what a path names is looked up here and nowhere else.

use bytes::Bytes;
use hyper::StatusCode;

use super::answer::{Response, bytes_of};

/// A file of the page.
pub(super) struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

/// A line each: the path, the type, the file.
const ASSETS: &[Asset] = &[
    asset("/", "text/html; charset=utf-8", include_bytes!("page/index.html")),
    asset("/assets/page.css", "text/css; charset=utf-8", include_bytes!("page/page.css")),
    asset("/assets/page.js", "text/javascript; charset=utf-8", include_bytes!("page/page.js")),
];

const fn asset(path: &'static str, kind: &'static str, bytes: &'static [u8]) -> Asset {
    Asset { path, kind, bytes }
}

impl Asset {
    /// The file of this path, exactly as it was sent: nothing is decoded, and nothing made shorter.
    pub(super) fn find(path: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == path)
    }

    pub(super) fn response(&self) -> Response {
        bytes_of(StatusCode::OK, self.kind, Bytes::from_static(self.bytes))
    }
}
