//! The bytes of a key, where they are compared.
//!
//! ```text
//!   1 │ 9 bytes: a number that may be null │ ┄┄┄┄┄┄ │       in the map, the queue or the tree that has the key
//!   2 │ pointer, length ───────────────────│────────│──► longer text, which all that have the key share
//! ```
//!
//! Most keys are a number or two or a short text. A look-up that finds their bytes in its map need not go elsewhere in memory
//! for each key that it compares.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

/// The most bytes that stand in the key itself: as many as make it no larger.
const SHORT: usize = 22;

/// The bytes of a key, which sort like its columns; or those of the key of an entry.
#[derive(Clone)]
pub(crate) struct Key(Bytes);

#[derive(Clone)]
enum Bytes {
    Short(u8, [u8; SHORT]),
    Long(Arc<[u8]>),
}

impl Key {
    /// How many bytes it has elsewhere.
    pub(crate) fn elsewhere(&self) -> usize {
        match &self.0 {
            Bytes::Short(..) => 0,
            Bytes::Long(bytes) => bytes.len(),
        }
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match short.get_mut(..bytes.len()) {
            Some(own) => {
                own.copy_from_slice(bytes);
                Self(Bytes::Short(bytes.len() as u8, short))
            }
            None => Self(Bytes::Long(bytes.into())),
        }
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Short(length, bytes) => &bytes[..SHORT.min(usize::from(*length))],
            Bytes::Long(bytes) => bytes,
        }
    }
}

// As its bytes in all that a map may ask.

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (**self).hash(hasher);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, mem::size_of};

    use super::*;

    #[test]
    fn short_and_long_keys_are_their_bytes() {
        assert_eq!(size_of::<Option<Key>>(), 24);
        let bytes: Vec<u8> = (1..=40).collect();
        let keys: Vec<Key> = (0..=40).map(|length| bytes[..length].into()).collect();
        assert!(keys.is_sorted(), "a beginning comes before the whole");
        let all: HashSet<Key> = keys.iter().cloned().collect();
        for (length, key) in keys.iter().enumerate() {
            assert_eq!(**key, bytes[..length]);
            assert!(all.contains(&bytes[..length]));
            assert_eq!(key.elsewhere(), if length > SHORT { length } else { 0 });
        }
    }
}
