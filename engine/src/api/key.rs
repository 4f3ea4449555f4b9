//! The columns a stream is keyed by.

/// One or more column names: `"auction"`, or `["auction", "bidder"]`.
///
/// ```
/// use windrow::api::Key;
/// assert_eq!(Key::from("auction"), Key::from(["auction"]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(pub(crate) Vec<String>);

impl Key {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }
}

impl From<&str> for Key {
    fn from(column: &str) -> Self {
        Self(vec![column.into()])
    }
}

impl From<String> for Key {
    fn from(column: String) -> Self {
        Self(vec![column])
    }
}

impl<S: Into<String>, const N: usize> From<[S; N]> for Key {
    fn from(columns: [S; N]) -> Self {
        Self(columns.into_iter().map(Into::into).collect())
    }
}

impl From<Vec<String>> for Key {
    fn from(columns: Vec<String>) -> Self {
        Self(columns)
    }
}
