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
    asset("/assets/icon.svg", "image/svg+xml", include_bytes!("page/icon.svg")),
    script("/assets/actions.js", include_bytes!("page/actions.js")),
    script("/assets/api.js", include_bytes!("page/api.js")),
    script("/assets/checkpoints.js", include_bytes!("page/checkpoints.js")),
    script("/assets/details.js", include_bytes!("page/details.js")),
    script("/assets/elements.js", include_bytes!("page/elements.js")),
    script("/assets/format.js", include_bytes!("page/format.js")),
    script("/assets/glance.js", include_bytes!("page/glance.js")),
    script("/assets/graph.js", include_bytes!("page/graph.js")),
    script("/assets/layout.js", include_bytes!("page/layout.js")),
    script("/assets/page.js", include_bytes!("page/page.js")),
    script("/assets/sql.js", include_bytes!("page/sql.js")),
    script("/assets/table.js", include_bytes!("page/table.js")),
];

const fn asset(path: &'static str, kind: &'static str, bytes: &'static [u8]) -> Asset {
    Asset { path, kind, bytes }
}

const fn script(path: &'static str, bytes: &'static [u8]) -> Asset {
    asset(path, "text/javascript; charset=utf-8", bytes)
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
