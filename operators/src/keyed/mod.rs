//! Rust code with state and timers per key.
//!
//! ```text
//!                       ┌──────────── what the key holds: State, maps, lists, timers ────────┐
//!   rows by key ──row──►│ your Process: state_mut, set_timer, emit, emit_side, clear         │──► MAIN, side output
//!   watermark ──timer──►│                                                                    │
//!   processing time ───►└────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! * [`Process`] is what you write; [`Keyed`] is what it sees of its key; [`ProcessPlan`] makes an operator of it.
//! * [`reduce`] and [`fold`] are processes made of a closure.
//! * [`BroadcastProcess`] is a process with rules that every task gets; [`BroadcastPlan`] makes an operator of it.
//! * [`DedupPlan`] keeps the first row of a key in a stretch of time.
//! * [`State`] is any serde type, saved as MessagePack with its version, all of it when it changes.
//! * [`MapState`] and [`ListState`] are maps and lists of a key that are saved entry by entry.
//!
//! A process has no closed windows, so no row is late for it: a row behind the watermark is processed like any other. What
//! it emits for such a row carries the event time of the row, or the watermark if that is later (law 3).
//!
//! # The disk format
//!
//! `__key_group`, the key columns, `handle`, `entry`, `version` (`UInt32`), `state` (`LargeBinary`: MessagePack, structs as maps
//! from names), `time` (event time of the last row of the key), `timers` and `processing_timers` (lists of instants). There is one
//! row per key, without a `handle`, and one for each entry of its maps and lists, with the name of the map or list (`Utf8`), the
//! bytes of its key (`LargeBinary`; those of [`MapKey`], of a list `#` and a place of eight bytes), the `version` and, as `state`,
//! the value. Of several rows the newest counts. A row without a `state` says that the key or entry was removed. A segment has rows
//! of keys or rows of entries. If the key has a column of one of these names, the other gets an underscore in front. The number
//! `promised` is the watermark.

mod broadcast;
mod closures;
mod context;
mod dedup;
mod entries;
mod handles;
mod kept;
mod key_reader;
mod map_key;
mod operator;
mod outputs;
mod process;
mod state;
pub(crate) mod store;
mod timers;

pub use broadcast::{Broadcast, BroadcastPlan, BroadcastProcess, ByRules, KeyedBy};
pub use closures::{Emit, Fold, Reduce, fold, reduce};
pub use context::Keyed;
pub use dedup::{Dedup, DedupPlan};
pub use handles::{KeyedList, KeyedMap, ListState, MapState};
pub use key_reader::{FromKey, KeyColumn};
pub use map_key::{KeyBytes, MapKey};
pub use operator::ProcessOperator;
pub use outputs::{NoSide, Side};
pub use process::{Process, ProcessPlan, Timer};
pub use state::{Saved, State};
