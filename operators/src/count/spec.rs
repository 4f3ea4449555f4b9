//! What a count window is.

use std::fmt;

/// Windows over so many rows of a key, in order of event time.
///
/// ```
/// use windrow_operators::count::Count;
/// assert_eq!(Count::of(100).to_string(), "count of 100 rows");
/// assert_eq!(Count::of(100).every(10).to_string(), "count of 100 rows every 10");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub(super) size: u64,
    pub(super) slide: u64,
}

impl Count {
    /// Windows of `rows` rows side by side.
    pub fn of(rows: u64) -> Self {
        Self { size: rows, slide: rows }
    }

    /// A window begins every `rows` rows, so that a row may be in several, or in none.
    #[must_use]
    pub fn every(self, rows: u64) -> Self {
        Self { slide: rows, ..self }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count of {} rows", self.size)?;
        if self.slide == self.size { Ok(()) } else { write!(f, " every {}", self.slide) }
    }
}
