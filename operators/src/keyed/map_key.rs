//! What can be the key of an entry of a [`MapState`](super::MapState), and its bytes, which sort as it does.
//!
//! ```text
//!   -1i64      i 7f ff ff ff ff ff ff ff          a letter for the kind, then bytes that sort like the value
//!    7u32      u 00 00 00 00 00 00 00 07          integers of any width have eight bytes
//!   "bob"      s 62 6f 62 00 00                   text ends with 00 00; a 00 in it is 00 ff
//!   ("bob", 7) s 62 6f 62 00 00 u 00 … 07         a tuple is its parts
//! ```
//!
//! They are a disk format. The letter keeps a map that was saved with another kind of key from being misread.

use std::fmt::Debug;

use crate::Timestamp;

/// A value with bytes that sort as it does: what a map of entries is asked for. See [`MapKey`].
pub trait KeyBytes {
    /// Appends its bytes.
    fn write(&self, bytes: &mut Vec<u8>);
}

/// The key of an entry of a [`MapState`](super::MapState): an integer, a `bool`, a [`Timestamp`], text, or a tuple of them.
///
/// A type of your own becomes one by the bytes of what is in it:
///
/// ```
/// use windrow_operators::keyed::{KeyBytes, MapKey};
///
/// #[derive(Debug)]
/// struct Seat { row: String, number: u16 }
///
/// impl KeyBytes for Seat {
///     fn write(&self, bytes: &mut Vec<u8>) {
///         self.row.write(bytes);
///         self.number.write(bytes);
///     }
/// }
///
/// impl MapKey for Seat {
///     fn read(bytes: &mut &[u8]) -> Option<Self> {
///         Some(Self { row: MapKey::read(bytes)?, number: MapKey::read(bytes)? })
///     }
/// }
/// ```
///
/// Integers have the same bytes in every width, so that a later version of the program may have a wider one. Signed and unsigned
/// ones are different.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a map",
    note = "integers, `bool`, `String`, `Timestamp` and tuples of them can; `MapKey` shows how a type of yours becomes one"
)]
pub trait MapKey: KeyBytes + Debug + Sized + Send + 'static {
    /// Takes a value from the front of `bytes`; `None` when they are not of such a value.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

/// The bytes of a key of an entry.
pub(super) fn bytes_of(key: &(impl KeyBytes + ?Sized)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    key.write(&mut bytes);
    bytes
}

/// The key that has exactly these bytes.
pub(super) fn key_of<K: MapKey>(mut bytes: &[u8]) -> Option<K> {
    let key = K::read(&mut bytes)?;
    bytes.is_empty().then_some(key)
}

/// Takes the letter of a kind and the `N` bytes after it.
pub(super) fn take<const N: usize>(kind: u8, bytes: &mut &[u8]) -> Option<[u8; N]> {
    let rest = bytes.strip_prefix(&[kind])?;
    let (taken, rest) = rest.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// Puts the letter of a kind in front of bytes.
pub(super) fn put(kind: u8, value: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(kind);
    bytes.extend_from_slice(value);
}

/// The bytes of a signed number sort like it when negative ones come first.
fn signed(value: i64) -> [u8; 8] {
    (value ^ i64::MIN).to_be_bytes()
}

macro_rules! integers {
    ($kind:literal, $wide:ty, $to:expr, $from:expr; $($integer:ty)+) => { $(
        impl KeyBytes for $integer {
            fn write(&self, bytes: &mut Vec<u8>) {
                put($kind, &$to(<$wide>::from(*self)), bytes);
            }
        }

        impl MapKey for $integer {
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                let value: $wide = $from(take($kind, bytes)?);
                Self::try_from(value).ok()
            }
        }
    )+ };
}
integers!(b'i', i64, signed, |bytes| i64::from_be_bytes(bytes) ^ i64::MIN; i8 i16 i32 i64);
integers!(b'u', u64, u64::to_be_bytes, u64::from_be_bytes; u8 u16 u32 u64);

impl KeyBytes for bool {
    fn write(&self, bytes: &mut Vec<u8>) {
        put(b'b', &[u8::from(*self)], bytes);
    }
}

impl MapKey for bool {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take::<1>(b'b', bytes).map(|[value]| value != 0)
    }
}

impl KeyBytes for Timestamp {
    fn write(&self, bytes: &mut Vec<u8>) {
        put(b't', &signed(self.micros()), bytes);
    }
}

impl MapKey for Timestamp {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(b't', bytes).map(|micros| Self::from_micros(i64::from_be_bytes(micros) ^ i64::MIN))
    }
}

impl KeyBytes for str {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(b's');
        for byte in self.bytes() {
            bytes.push(byte);
            if byte == 0 {
                bytes.push(0xff);
            }
        }
        bytes.extend([0, 0]);
    }
}

impl KeyBytes for String {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.as_str().write(bytes);
    }
}

impl MapKey for String {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(b"s")?;
        let mut text = Vec::new();
        loop {
            let (byte, after) = rest.split_first()?;
            rest = after;
            if *byte != 0 {
                text.push(*byte);
                continue;
            }
            let (mark, after) = rest.split_first()?;
            rest = after;
            match mark {
                0 => break,
                0xff => text.push(0),
                _ => return None,
            }
        }
        *bytes = rest;
        Self::from_utf8(text).ok()
    }
}

macro_rules! tuples {
    ($(($($part:ident)+))+) => { $(
        impl<$($part: KeyBytes),+> KeyBytes for ($($part,)+) {
            #[allow(non_snake_case, reason = "the parts are called like their types")]
            fn write(&self, bytes: &mut Vec<u8>) {
                let ($($part,)+) = self;
                $($part.write(bytes);)+
            }
        }

        impl<$($part: MapKey),+> MapKey for ($($part,)+) {
            fn read(bytes: &mut &[u8]) -> Option<Self> {
                Some(($($part::read(bytes)?,)+))
            }
        }
    )+ };
}
tuples!((A B) (A B C));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// They are in checkpoints. If this fails, the code is wrong, not the test.
    #[test]
    fn the_bytes_are_a_disk_format() {
        assert_eq!(bytes_of(&-1i32), b"i\x7f\xff\xff\xff\xff\xff\xff\xff");
        assert_eq!(bytes_of(&7u8), b"u\0\0\0\0\0\0\0\x07");
        assert_eq!(bytes_of(&Timestamp::from_micros(0)), b"t\x80\0\0\0\0\0\0\0");
        assert_eq!(bytes_of(&(true, "a\0b".to_string())), b"b\x01sa\0\xffb\0\0");
    }

    #[test]
    fn bytes_of_another_kind_are_refused() {
        assert_eq!(key_of::<u64>(&bytes_of(&7i64)), None);
        assert_eq!(key_of::<i8>(&bytes_of(&300i64)), None);
        assert_eq!(key_of::<i64>(&bytes_of(&(7i64, 8i64))), None);
        assert_eq!(key_of::<String>(b"s\0\x01"), None);
        assert_eq!(key_of::<String>(b"sabc"), None);
        assert_eq!(key_of::<i64>(&bytes_of(&-3i8)), Some(-3));
    }

    proptest! {
        #[test]
        fn they_sort_like_the_values_and_come_back(
            mut keys in prop::collection::vec(("[\0a-b\u{ff}]{0,4}", any::<i64>(), any::<bool>()), 0..40),
        ) {
            let mut bytes: Vec<Vec<u8>> = keys.iter().map(bytes_of).collect();
            keys.sort();
            bytes.sort();
            let read: Vec<(String, i64, bool)> = bytes.iter().map(|bytes| key_of(bytes).unwrap()).collect();
            prop_assert_eq!(read, keys);
        }
    }
}
