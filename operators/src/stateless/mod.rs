//! Operators without state, over DataFusion expressions. Their twins over Rust closures are in [`typed`](crate::typed).

mod filter;
mod project;

pub use filter::Filter;
pub use project::Project;
