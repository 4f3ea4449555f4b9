//! The state that a user's function keeps per key: any type that serde knows, with a version.
//!
//! ```text
//!   State ──serde──► MessagePack with the names of fields ──► a binary column, beside State::VERSION
//!
//!   restored:  same version  ──serde──► State            (new fields with #[serde(default)] need no new version)
//!              older version ──State::upcast──► State
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{OperatorError, Result, Timestamp};

/// State kept per key. `Default` is what a key begins with.
///
/// Numbers, text, [`Timestamp`]s, options, tuples and collections are states as they are: a `Vec` is a list, a `BTreeMap` a
/// map. A state is saved as a whole: what has many entries per key is better a [`MapState`](super::MapState) or
/// [`ListState`](super::ListState), whose entries are states. A struct of your own becomes one in a line:
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use windrow_operators::keyed::State;
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Running { count: u64, prices: Vec<i64> }
/// impl State for Running {}
/// ```
///
/// The names of fields are saved with their values. So a later version of the program may reorder fields, leave some out,
/// and add some that have `#[serde(default)]`. An option of an option comes back as one option: MessagePack has one nil.
///
/// Any other change needs a new [`State::VERSION`]. Reading does not write: a key that does not change keeps the form it was
/// saved in, so what reads an old version stays in the program for as long as keys live.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use windrow_operators::keyed::{Saved, State};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Running { cents: i64 }
///
/// impl State for Running {
///     const VERSION: u32 = 2;
///
///     fn upcast(version: u32, saved: Saved<'_>) -> windrow_operators::Result<Self> {
///         #[derive(Deserialize)]
///         struct InDollars { dollars: i64 }
///         match version {
///             1 => Ok(Self { cents: saved.read::<InDollars>()?.dollars * 100 }),
///             _ => Err(saved.unknown_version()),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state",
    note = "a type with `Default` and serde's `Serialize` and `Deserialize` becomes one by `impl State for {Self} {{}}`"
)]
pub trait State: Serialize + DeserializeOwned + Default + Send + 'static {
    /// Raise it when the form of the type changes in a way that serde cannot read by itself.
    const VERSION: u32 = 1;

    /// Reads the state that an older `version` of the program wrote. Without it such a state is refused, before the first
    /// row, by an error that says what to do.
    fn upcast(_version: u32, saved: Saved<'_>) -> Result<Self> {
        Err(saved.unknown_version())
    }
}

/// The state of one key as an older version of the program wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    bytes: &'a [u8],
    version: u32,
    now: u32,
}

impl Saved<'_> {
    /// Reads it as the type that it was written from, or one with the same fields.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        rmp_serde::from_slice(self.bytes).map_err(|error| {
            let version = self.version;
            OperatorError::Plan(format!(
                "the state that version {version} of the program saved is not a {}: {error}",
                crate::typed::short_name::<T>()
            ))
        })
    }

    /// The error of a version that [`State::upcast`] does not know.
    pub fn unknown_version(&self) -> OperatorError {
        let Self { version, now, .. } = self;
        OperatorError::Plan(format!(
            "it was saved by version {version} of the state and this program has version {now}: write State::upcast for \
             version {version}, or start the program that saved it"
        ))
    }
}

/// The bytes of a state.
pub(super) fn write<S: State>(state: &S) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(state).map_err(|error| {
        let name = crate::typed::short_name::<S>();
        OperatorError::Plan(format!("the state {name} cannot be saved: {error}; keep to types that MessagePack has"))
    })
}

/// The state of these bytes, which `version` of the program wrote.
pub(super) fn read<S: State>(version: u32, bytes: &[u8]) -> Result<S> {
    let saved = Saved { bytes, version, now: S::VERSION };
    match version {
        version if version == S::VERSION => saved.read().map_err(|error| {
            OperatorError::Plan(format!(
                "{error}; give new fields #[serde(default)], or raise State::VERSION and write State::upcast"
            ))
        }),
        version if version > S::VERSION => {
            let now = S::VERSION;
            Err(OperatorError::Plan(format!(
                "it was saved by version {version} of the state, which is newer than version {now} of this program: start \
                 the newer program, or restore an older checkpoint"
            )))
        }
        version => S::upcast(version, saved),
    }
}

macro_rules! states {
    ($($state:ty)+) => { $(impl State for $state {})+ };
}
states!(() bool char i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 String Timestamp);

macro_rules! states_of {
    ($([$($bounds:tt)+] $state:ty;)+) => { $(impl<$($bounds)+> State for $state {})+ };
}
states_of! {
    [T: Serialize + DeserializeOwned + Send + 'static] Option<T>;
    [T: Serialize + DeserializeOwned + Send + 'static] Vec<T>;
    [T: Serialize + DeserializeOwned + Send + 'static] VecDeque<T>;
    [T: Serialize + DeserializeOwned + Send + Ord + 'static] BTreeSet<T>;
    [T: Serialize + DeserializeOwned + Send + Eq + Hash + 'static] HashSet<T>;
    [K: Serialize + DeserializeOwned + Send + Ord + 'static, V: Serialize + DeserializeOwned + Send + 'static]
        BTreeMap<K, V>;
    [K: Serialize + DeserializeOwned + Send + Eq + Hash + 'static, V: Serialize + DeserializeOwned + Send + 'static]
        HashMap<K, V>;
    [A: State, B: State] (A, B);
    [A: State, B: State, C: State] (A, B, C);
}
