//! JSON as programs write it, straight into columns: several times as fast as a parser that takes everything.
//!
//! ```text
//!   record ──► scan ──┬─► a row
//!                     └─► anything unusual: undone ──► serde_json ──┬─► a row
//!                                                                   └─► a reason
//! ```
//!
//! The scan refuses nothing: it gives a record up, and `serde_json` reads it from its beginning. So what is a record, and
//! what is said of one that is none, is decided there alone, and the scan must only never take what `serde_json` does not
//! take, nor read another value from it. What makes it fast: a name is compared with the one that is due by the records
//! before, the end of a text is searched with the machine's widest registers, and of a whole number eight digits are taken at
//! once. Text with escapes, and what is nested under unknown names, is read by `serde_json` in its place.

use memchr::memchr2;
use serde::{Deserialize, de::IgnoredAny};

use super::super::{
    columns::{Column, Columns, Values},
    keys::{Found, Keys},
    most_values,
};

/// Deeper values are left to `serde_json`, which has a limit of its own.
const DEPTH: usize = 64;

/// Reads a record into the next row. If it is unusual that is `None`, and a part of it may stand in an open row.
pub(super) fn row(bytes: &[u8], columns: &mut Columns) -> Option<()> {
    let is_plain = is_plain(bytes);
    if !is_plain {
        str::from_utf8(bytes).ok()?;
    }
    let has_controls = !is_plain && has_controls(bytes);
    let mut scan = Scan { bytes, at: 0, has_controls, depth: 0, values: most_values(bytes.len()) };
    scan.take(b'{')?;
    scan.object(columns)?;
    scan.peek().is_none().then_some(())
}

/// Whether all bytes are ASCII, from the space on.
fn is_plain(bytes: &[u8]) -> bool {
    // Without branches on a byte the compiler takes a block at once. The last one overlaps the one before.
    let is_plain = |block: &[u8]| block.iter().fold(true, |plain, byte| plain & (b' '..0x80).contains(byte));
    let (blocks, rest) = bytes.as_chunks::<32>();
    match bytes.last_chunk::<32>() {
        Some(last) => blocks.iter().all(|block| is_plain(block)) && is_plain(last),
        None => is_plain(rest),
    }
}

fn has_controls(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |has, byte| has | (*byte < b' '))
}

/// A look at a record, which has come to the byte `at`.
struct Scan<'a> {
    /// UTF-8, as is every part that begins and ends with ASCII.
    bytes: &'a [u8],
    at: usize,
    /// Whether there are bytes below the space, which may stand between values but not in text.
    has_controls: bool,
    depth: usize,
    /// How many values the lists of the record may hold yet.
    values: usize,
}

/// A number as it was written.
enum Number<'a> {
    Whole(u64),
    Negative(i64),
    /// With a fraction or an exponent, or -0.
    Float(&'a [u8]),
}

impl<'a> Scan<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.bytes.get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Passes this byte.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// What stands behind the brace, into the next row.
    fn object(&mut self, columns: &mut Columns) -> Option<()> {
        let row = columns.rows();
        let mut is_open = self.peek()? != b'}';
        if !is_open {
            self.at += 1;
        }
        let mut place = 0;
        while is_open {
            let found = self.name(&mut columns.keys, place)?;
            place = found.next;
            match found.column {
                Some(i) => {
                    let column = columns.columns.get_mut(i).filter(|column| column.len() == row)?;
                    self.value(column)?;
                }
                None => self.pass()?,
            }
            is_open = self.goes_on(b'}')?;
        }
        columns.end_row().ok()
    }

    /// What stands behind the bracket.
    fn list(&mut self, column: &mut Column) -> Option<()> {
        let Values::List { item, .. } = &mut column.values else { return None };
        let mut is_open = self.peek()? != b']';
        if !is_open {
            self.at += 1;
        }
        while is_open {
            self.value(item)?;
            self.values = self.values.checked_sub(item.width())?;
            is_open = self.goes_on(b']')?;
        }
        column.end_list().ok()
    }

    /// Behind a value: whether there is another before the `end`.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        match self.next()? {
            b',' => Some(true),
            byte if byte == end => Some(false),
            _ => None,
        }
    }

    /// A name and its colon.
    fn name(&mut self, keys: &mut Keys, place: usize) -> Option<Found> {
        if self.peek()? != b'"' {
            return None;
        }
        if let Some((length, found)) = keys.guess(place, self.bytes.get(self.at..)?) {
            self.at += length;
            return Some(found);
        }
        let found = match self.plain_text() {
            Some(name) => keys.find(place, str::from_utf8(name).ok()?),
            None => keys.find(place, &self.parse::<String>()?),
        };
        self.take(b':')?;
        Some(found)
    }

    fn value(&mut self, column: &mut Column) -> Option<()> {
        match self.peek()? {
            b'"' => match self.plain_text() {
                Some(text) => column.push_utf8(text).ok(),
                None => column.push_text(&self.parse::<String>()?).ok(),
            },
            b'-' | b'0'..=b'9' => match self.number()? {
                Number::Whole(value) => column.push_u64(value).ok(),
                Number::Negative(value) => column.push_i64(value).ok(),
                Number::Float(text) => {
                    let value: f64 = str::from_utf8(text).ok()?.parse().ok()?;
                    value.is_finite().then(|| super::push_float(column, value).ok())?
                }
            },
            b'{' => {
                self.deeper()?;
                let Values::Struct(columns) = &mut column.values else { return None };
                self.object(columns)?;
                self.depth -= 1;
                column.written();
                Some(())
            }
            b'[' => {
                self.deeper()?;
                self.list(column)?;
                self.depth -= 1;
                Some(())
            }
            b'n' => self.word("null").and_then(|()| column.push_null().ok()),
            b't' => self.word("true").and_then(|()| column.push_bool(true).ok()),
            b'f' => self.word("false").and_then(|()| column.push_bool(false).ok()),
            _ => None,
        }
    }

    /// Passes over a value, of any depth.
    fn pass(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' if self.plain_text().is_some() => Some(()),
            b'"' | b'{' | b'[' => self.parse::<IgnoredAny>().map(drop),
            b'n' => self.word("null"),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            _ => self.number().map(drop),
        }
    }

    fn deeper(&mut self) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        (self.depth < DEPTH).then_some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let is_there = self.bytes.get(self.at..)?.starts_with(word.as_bytes());
        self.at += word.len();
        is_there.then_some(())
    }

    /// A text without escapes. If it is another, it is still to be read.
    fn plain_text(&mut self) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let end = start + memchr2(b'"', b'\\', self.bytes.get(start..)?)?;
        let text = self.bytes.get(start..end)?;
        if self.bytes.get(end) != Some(&b'"') || self.has_controls && has_controls(text) {
            return None;
        }
        self.at = end + 1;
        Some(text)
    }

    /// A text, an object or a list, by `serde_json`.
    fn parse<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let mut values = serde_json::Deserializer::from_slice(self.bytes.get(self.at..)?).into_iter();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    fn number(&mut self) -> Option<Number<'a>> {
        let start = self.at;
        let is_negative = self.bytes.get(start) == Some(&b'-');
        let first = start + usize::from(is_negative);
        self.at = first;
        let whole = self.digits()?;
        // A zero stands alone, and any 19 digits fit.
        let digits = self.at - first;
        if digits > 1 && self.bytes.get(first) == Some(&b'0') {
            return None;
        }
        let whole =
            if digits > 19 { str::from_utf8(self.bytes.get(first..self.at)?).ok()?.parse().ok()? } else { whole };
        let is_whole = !matches!(self.bytes.get(self.at), Some(b'.' | b'e' | b'E'));
        match is_negative {
            false if is_whole => return Some(Number::Whole(whole)),
            true if is_whole && whole > 0 => return 0_i64.checked_sub_unsigned(whole).map(Number::Negative),
            _ => {}
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.bytes.get(start..self.at).map(Number::Float)
    }

    /// The whole number of some digits, at least one. Of more than 19 it is any number.
    fn digits(&mut self) -> Option<u64> {
        let start = self.at;
        let mut whole = 0_u64;
        loop {
            let (digits, value) = leading_digits(self.eight()?);
            whole = whole.wrapping_mul(POWERS_OF_TEN[digits]).wrapping_add(value);
            self.at += digits;
            if digits < 8 {
                return (self.at > start).then_some(whole);
            }
        }
    }

    /// The next eight bytes, with zeros behind the end.
    fn eight(&self) -> Option<[u8; 8]> {
        let rest = self.bytes.get(self.at..)?;
        Some(rest.first_chunk().copied().unwrap_or_else(|| {
            let mut eight = [0; 8];
            eight.iter_mut().zip(rest).for_each(|(byte, there)| *byte = *there);
            eight
        }))
    }
}

const POWERS_OF_TEN: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// How many of the bytes are digits, from the first on, and their value; all at once, each byte in a lane of one register.
fn leading_digits(bytes: [u8; 8]) -> (usize, u64) {
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // Digits become 0 to 9. The first that is none has its high bit set, by itself or by what makes 10 overflow.
    let values = u64::from_le_bytes(bytes) ^ u64::from_ne_bytes([b'0'; 8]);
    let others = (values | values.wrapping_add(u64::from_ne_bytes([0x76; 8]))) & HIGH;
    let digits = (others.trailing_zeros() / 8) as usize;
    if digits == 0 {
        return (0, 0);
    }
    // Zeros in front; then neighbours become numbers of two digits, of four, of eight.
    let ones = values << (64 - 8 * digits);
    let twos = (ones.wrapping_mul(1 + (10 << 8)) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos.wrapping_mul(1 + (100 << 16)) >> 16) & 0x0000_ffff_0000_ffff;
    (digits, fours.wrapping_mul(1 + (10_000 << 32)) >> 32)
}
