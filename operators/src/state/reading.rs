//! What a row of the state means to those who read a checkpoint without the job: which rows still count.
//!
//! ```text
//!   segments of a task, oldest first:  (ann, 3) (bob, 4) │ (ann, gone) (cid, 5)
//!     identity: the newest row of each    (bob, 4) (ann, gone) (cid, 5)
//!     rules:    no tombstone              (bob, 4) (cid, 5)
//! ```
//!
//! Segments never change, so they have rows that have been replaced, that have gone since, or that say that another is gone. The
//! operator knows which; here it says so once, in rules that need none of its code, and they are saved with the state.

use serde::{Deserialize, Serialize};

/// How the rows of a state are read without its operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reading {
    /// Every row is one of its own, also beside one that is equal: none takes the place of another, whatever
    /// [`identity`](super::StateForm::identity) says.
    pub each: bool,
    /// Rows with a value in this column are the same in every task and key group, such as rules: one of them counts.
    pub shared: Option<usize>,
    /// What a row must meet to count, one after the other: each looks at the rows that the one before has left.
    pub rules: Vec<Rule>,
    /// Columns of bytes that are MessagePack.
    pub packed: Vec<usize>,
}

/// What a row must meet to count. Columns are places in [`StateForm::columns`](super::StateForm::columns); numbers are those of
/// the row's task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// It has a value here: a null says that it is gone.
    Value(usize),
    /// It does not say here that it is gone.
    NotGone(usize),
    /// Its time is not before a number. There may be another number for its key group: `open_from_7`.
    From {
        /// Only rows that have this in the first column are asked.
        side: Option<u8>,
        /// The column of its time.
        time: usize,
        /// The number.
        number: String,
    },
    /// There is no newer one of its key.
    Newest {
        /// Only rows that have this in the first column are asked.
        side: Option<u8>,
        /// The columns of its key.
        key: Vec<usize>,
        /// The column of its time.
        time: usize,
    },
    /// The session that it is a part of ends after a number: parts of one key that overlap are one session.
    Session {
        /// The columns of its key.
        key: Vec<usize>,
        /// The columns of where it starts and ends.
        span: (usize, usize),
        /// The number: the first of these that is there.
        after: Vec<String>,
    },
    /// It is no mark, and no mark of its key says that it is over.
    Marked {
        /// The columns of its key.
        key: Vec<usize>,
        /// The column of its place in the order of rows.
        row: usize,
        /// Has a value in a mark: from where rows of the key count.
        from: usize,
    },
}

impl Reading {
    /// Of rows of one identity the newest counts, if it meets these rules.
    pub fn newest(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { rules: rules.into_iter().collect(), ..Self::default() }
    }

    /// Every row counts that meets these rules.
    pub fn each(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { each: true, ..Self::newest(rules) }
    }

    /// Whether all columns that it names are among so many.
    pub fn fits(&self, columns: usize) -> bool {
        let of_rule = |rule: &Rule| match rule {
            Rule::Value(column) | Rule::NotGone(column) | Rule::From { time: column, .. } => vec![*column],
            Rule::Newest { key, time, .. } => key.iter().chain([time]).copied().collect(),
            Rule::Session { key, span: (start, end), .. } => key.iter().chain([start, end]).copied().collect(),
            Rule::Marked { key, row, from } => key.iter().chain([row, from]).copied().collect(),
        };
        let named = self.rules.iter().flat_map(of_rule).chain(self.shared).chain(self.packed.iter().copied());
        named.max().is_none_or(|last| last < columns)
    }

    /// Whether nothing is said but what [`identity`](super::StateForm::identity) says.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
