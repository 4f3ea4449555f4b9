//! A job in the terminal: one line that is rewritten, or a full view. Both are functions of [`JobStatus`] alone, so they show the same of
//! a job in this process and of one that is asked over HTTP.
//!
//! ```text
//!   JobStatus ──► facts ──┬──► line ──► Progress: one line on stderr, rewritten           Job::progress
//!                         ├──► summary: some lines, once                                  windrow status URL
//!                         └──► view ──► Watch: the whole terminal, and its keys           Job::watch, windrow status URL --watch
//!                                         └─► screen: raw mode, and back whatever happens
//! ```
//!
//! Nothing is shown unless it is asked for, and nothing where stderr is no terminal. What shows a job of this process is drawn by a thread of
//! its own (`show`): a terminal that is stopped stops no job.

mod facts;
mod keys;
mod line;
mod progress;
mod screen;
pub(crate) mod show;
mod summary;
#[cfg(test)]
mod tests;
mod view;
mod watch;

pub use facts::bytes;
pub use line::line;
pub use screen::line_mode;
pub use summary::summary;
pub use watch::{Asked, Watch};

#[cfg(doc)]
use crate::status::JobStatus;
