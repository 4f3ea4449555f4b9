//! What a setting may be, how people write it, and what to say when it is something else.

use std::{fmt, str::FromStr, time::Duration};

use bytesize::ByteSize;

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number between these.
    Count(u64, u64),
    /// `256MiB`.
    Bytes,
    /// `30s`.
    Span,
    /// `true` or `false`.
    Flag,
    /// Anything.
    Text,
    /// The name of a variable.
    Name,
}

/// What a setting is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Count(u64),
    Bytes(usize),
    Span(Duration),
    Flag(bool),
    Text(String),
}

/// A value as it was found, in a file or in the environment.
#[derive(Clone, Debug)]
pub(super) enum Found<'a> {
    /// In quotes, or a variable.
    Text(&'a str),
    Number(&'a str),
    Flag(bool),
    /// Something else of TOML, and what that is called.
    Other(&'static str),
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Number(number) => f.write_str(number),
            Self::Flag(flag) => flag.fmt(f),
            Self::Other(what) => f.write_str(what),
        }
    }
}

impl Kind {
    /// What was expected, in words.
    pub(super) fn words(self) -> String {
        match self {
            Self::Count(least, most) if most == u64::from(u32::MAX) => format!("a whole number, at least {least}"),
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::Bytes => "a size with its unit".into(),
            Self::Span => "a time with its unit".into(),
            Self::Flag => "true or false".into(),
            Self::Text => "a text in quotes".into(),
            Self::Name => "the name of a variable".into(),
        }
    }

    /// The value, if it is one of these. A variable has no quotes, so a number and a flag may be text there.
    pub(super) fn read(self, found: &Found<'_>) -> Option<Value> {
        match (self, found) {
            (Self::Count(least, most), Found::Number(text) | Found::Text(text)) => {
                let number = u64::from_str(&text.replace('_', "")).ok()?;
                (least..=most).contains(&number).then_some(Value::Count(number))
            }
            (Self::Bytes, Found::Number(text) | Found::Text(text)) => {
                let bytes = ByteSize::from_str(&text.replace('_', "")).ok()?;
                usize::try_from(bytes.as_u64()).ok().filter(|bytes| *bytes > 0).map(Value::Bytes)
            }
            (Self::Span, Found::Text(text)) => humantime::parse_duration(text).ok().map(Value::Span),
            (Self::Flag, Found::Flag(flag)) => Some(Value::Flag(*flag)),
            (Self::Flag, Found::Text(text)) => bool::from_str(text).ok().map(Value::Flag),
            (Self::Text, Found::Text(text)) => Some(Value::Text((*text).into())),
            (Self::Name, Found::Text(text)) => is_name(text).then(|| Value::Text((*text).into())),
            _ => None,
        }
    }
}

fn is_name(text: &str) -> bool {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plain && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

impl Value {
    pub(super) fn count(&self) -> Option<usize> {
        if let Self::Count(count) = self { usize::try_from(*count).ok() } else { None }
    }

    pub(super) fn bytes(&self) -> Option<usize> {
        if let Self::Bytes(bytes) = self { Some(*bytes) } else { None }
    }

    pub(super) fn span(&self) -> Option<Duration> {
        if let Self::Span(span) = self { Some(*span) } else { None }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(*flag) } else { None }
    }

    pub(super) fn text(&self) -> Option<String> {
        if let Self::Text(text) = self { Some(text.clone()) } else { None }
    }
}

/// As one would write it into the file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Bytes(bytes) => {
                // What is no round number of units stays exact.
                let units = [("GiB", 1_usize << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
                let (unit, size) = units.into_iter().find(|(_, size)| bytes.is_multiple_of(*size)).unwrap_or(("B", 1));
                write!(f, "\"{}{unit}\"", bytes / size)
            }
            Self::Span(span) => write!(f, "\"{}\"", humantime::format_duration(*span)),
            Self::Flag(flag) => flag.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}
