//! The frame around every file of the store but the segments: it tells a whole file from a torn or damaged one before
//! anything in it is believed.
//!
//! ```text
//!   "WINDROW\x01" │ format version │ length of the body │ body (JSON)          │ XXH3-128 of the body
//!    8 bytes      │ u32            │ u64                │ can be read by people │ 16 bytes
//! ```
//!
//! Numbers are little-endian. A checkpoint is trusted as far as the directory it lies in: the checksum finds accidents,
//! not forgeries.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use twox_hash::{
    XxHash3_128,
    xxhash3_128::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer},
};

/// The version of the format of manifests and records that this program writes, and the only one so far.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"WINDROW\x01";
const HEAD: usize = 8 + 4 + 8;
const CHECKSUM: usize = 16;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is not what was written; the reason.
    Damaged(String),
    /// It was written by a program that knows more; its version.
    Version(u32),
}

/// The checksum of `bytes` in hexadecimal digits.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    format!("{:032x}", XxHash3_128::oneshot(bytes))
}

/// The checksum of bytes that come in pieces.
pub(super) struct Checksum(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(RawHasher::new(SecretBuffer::default()))
    }

    /// The next bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// As [`checksum`] of all of them.
    pub(super) fn digits(&self) -> String {
        format!("{:032x}", self.0.finish_128())
    }
}

/// A framed body. Fails only if `body` has no JSON form, which types of this program have.
pub(crate) fn encode(body: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let body = serde_json::to_vec(body)?;
    let mut framed = Vec::with_capacity(HEAD + body.len() + CHECKSUM);
    framed.extend_from_slice(MAGIC);
    framed.extend_from_slice(&FORMAT.to_le_bytes());
    framed.extend_from_slice(&(body.len() as u64).to_le_bytes());
    framed.extend_from_slice(&body);
    framed.extend_from_slice(&XxHash3_128::oneshot(&body).to_le_bytes());
    Ok(framed.into())
}

/// The body of a framed file. Allocates nothing before the checksum has matched.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    let damaged = |reason: &str| Unreadable::Damaged(reason.into());
    let short = || Unreadable::Damaged(format!("it ends after {} bytes, within its frame", bytes.len()));
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
    if magic != MAGIC {
        return Err(damaged("it does not begin as a file of a checkpoint does"));
    }
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let version = u32::from_le_bytes(*version);
    if version != FORMAT {
        return Err(Unreadable::Version(version));
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let length = u64::from_le_bytes(*length);
    let (body, sum) = rest.split_last_chunk::<CHECKSUM>().ok_or_else(short)?;
    if body.len() as u64 != length {
        return Err(Unreadable::Damaged(format!("{} bytes where {length} were written", body.len())));
    }
    if u128::from_le_bytes(*sum) != XxHash3_128::oneshot(body) {
        return Err(damaged("its checksum does not match"));
    }
    serde_json::from_slice(body).map_err(|error| Unreadable::Damaged(format!("its content is not understood: {error}")))
}
