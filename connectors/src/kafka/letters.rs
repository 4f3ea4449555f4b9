//! The headers of dead letters: sinks write them, and sources look at them.
//!
//! ```text
//!   a record that fits       value: {"price": "x"}   windrow.error, windrow.topic, windrow.offset …
//!   one that had to be cut   no value                the same, windrow.truncated: 5000000, windrow.excerpt: {"price": "xxx
//! ```
//!
//! A letter that was cut has no value, so a source looks for what it is only where there is none: of a record with a payload it
//! need not read the headers.

use rdkafka::message::Header;

/// What is wrong with the record.
pub(super) const ERROR: &str = "windrow.error";

/// Its time, where that cannot be the time of the letter.
pub(super) const TIMESTAMP: &str = "windrow.timestamp";

/// Where it came from, and beside it its time.
pub(super) const FIRST_PLACE: [&str; 8] = [
    "windrow.source",
    "windrow.split",
    "windrow.position",
    "windrow.line",
    "windrow.topic",
    "windrow.partition",
    "windrow.offset",
    TIMESTAMP,
];

/// Of a letter that was cut: how many bytes the record has.
pub(super) const TRUNCATED: &str = "windrow.truncated";

/// The beginning of the payload of such a record.
pub(super) const EXCERPT: &str = "windrow.excerpt";

/// So much is kept of each part of a record that is cut.
pub(super) const EXCERPT_BYTES: usize = 1 << 10;

/// So many headers has a letter for itself.
pub(super) const OWN: usize = FIRST_PLACE.len() + 3;

/// Whether it is one of the headers that a letter has for itself, and its record had not.
pub(super) fn is_own(name: &str) -> bool {
    FIRST_PLACE.contains(&name) || [ERROR, TRUNCATED, EXCERPT].contains(&name)
}

/// Why something without a payload that has these headers is no record, nor a tombstone, if it is a letter that was cut.
pub(super) fn cut(headers: &[Header<'_, &[u8]>]) -> Option<String> {
    let whole = headers.iter().find(|header| header.key == TRUNCATED)?.value;
    let whole = whole.and_then(|whole| std::str::from_utf8(whole).ok()?.parse::<u64>().ok());
    let whole = whole.map_or("too many".to_owned(), |whole| whole.to_string());
    Some(format!("is only the beginning of a record of {whole} bytes, as the header {TRUNCATED} says"))
}
