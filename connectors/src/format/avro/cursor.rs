//! The bytes of one record, read with care: every length is compared with what is left before anything is done with it.

use std::fmt;

use crate::format::most_values;

/// How deep values may be nested.
const DEEPEST: u32 = 64;

/// Why a record is rejected, and where in it.
#[derive(Debug)]
pub(super) struct Bad {
    /// Where; `None` if the reason says it.
    path: Option<String>,
    what: String,
}

pub(super) type Read<T = ()> = Result<T, Box<Bad>>;

#[cold]
pub(super) fn bad(what: impl Into<String>) -> Box<Bad> {
    Box::new(Bad { path: Some(String::new()), what: what.into() })
}

impl Bad {
    /// A reason that names the column.
    #[cold]
    pub(super) fn named(what: &str) -> Box<Self> {
        Box::new(Self { path: None, what: what.to_string() })
    }

    #[cold]
    pub(super) fn within(mut self: Box<Self>, name: &str) -> Box<Self> {
        if let Some(path) = &mut self.path {
            let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
            *path = format!("{name}{dot}{path}");
        }
        self
    }

    /// It is in the field `name`, which no column is for.
    #[cold]
    pub(super) fn passed_over(self: Box<Self>, name: &str) -> Box<Self> {
        let Self { path, what } = *self.within(name);
        let path = path.unwrap_or_default();
        Box::new(Self { path: None, what: format!("field {path:?}, which is passed over: {what}") })
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.path.as_ref().filter(|path| !path.is_empty()) {
            write!(f, "column {path:?}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// What is left of a record.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    left: &'a [u8],
    /// How many values it may hold yet. Values can be empty, so its length alone does not bound them: a thousand bytes could
    /// ask for a billion nulls.
    values: usize,
    depth: u32,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self { left: record, values: most_values(record.len()), depth: 0 }
    }

    pub(super) fn left(&self) -> usize {
        self.left.len()
    }

    /// Accounts for `values` more.
    pub(super) fn spend(&mut self, values: usize) -> Read {
        self.values = self.values.checked_sub(values).ok_or_else(|| bad("too many values for a record of its size"))?;
        Ok(())
    }

    /// Goes one deeper; [`Cursor::up`] comes back.
    pub(super) fn down(&mut self) -> Read {
        self.depth += 1;
        if self.depth > DEEPEST { Err(bad(format!("values are nested more than {DEEPEST} deep"))) } else { Ok(()) }
    }

    pub(super) fn up(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    pub(super) fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let Some((taken, left)) = self.left.split_at_checked(len) else {
            return Err(bad(format!("{len} bytes are said to follow, and {} are left", self.left.len())));
        };
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| bad("a length that is none"))
    }

    pub(super) fn boolean(&mut self) -> Read<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(bad(format!("{other} is not a boolean, which is 0 or 1"))),
        }
    }

    /// A number of 64 bits in its short form, seven bits a byte, the sign in the lowest.
    pub(super) fn long(&mut self) -> Read<i64> {
        let mut number = 0_u64;
        for (i, byte) in self.left.iter().enumerate().take(10) {
            if i == 9 && *byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 == 0 {
                self.left = &self.left[i + 1..];
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err(bad(if self.left.len() < 10 { "the record ends within a number" } else { "a number of more than 64 bits" }))
    }

    pub(super) fn int(&mut self) -> Read<i32> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| bad(format!("{number} is not an int, which has 32 bits")))
    }

    pub(super) fn float(&mut self) -> Read<f32> {
        self.array().map(f32::from_le_bytes)
    }

    pub(super) fn double(&mut self) -> Read<f64> {
        self.array().map(f64::from_le_bytes)
    }

    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.long()?;
        let len = usize::try_from(len).map_err(|_| bad(format!("{len} is not a length")))?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|error| bad(format!("not UTF-8: {error}")))
    }

    /// The number of something of which there are `of`: a symbol, a branch.
    pub(super) fn choice(&mut self, what: &str, of: usize) -> Read<usize> {
        let number = self.long()?;
        let choice = usize::try_from(number).ok().filter(|choice| *choice < of);
        choice.ok_or_else(|| bad(format!("{what} {number} is chosen, and there are {of}")))
    }

    /// The blocks of an array or map: calls `item` for each.
    pub(super) fn items(&mut self, mut item: impl FnMut(&mut Self) -> Read) -> Read {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            // A negative count is followed by the size of the block.
            let size = if count < 0 { Some(self.long()?) } else { None };
            let before = self.left.len();
            for _ in 0..count.unsigned_abs() {
                self.spend(1)?;
                item(self)?;
            }
            let taken = before - self.left.len();
            if size.is_some_and(|size| usize::try_from(size) != Ok(taken)) {
                return Err(bad(format!("a block of items takes {taken} bytes, and says otherwise")));
            }
        }
    }
}
