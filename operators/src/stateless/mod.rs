//! Operators without state, over DataFusion expressions. Their twins over Rust closures are in [`typed`](crate::typed).

mod filter;
mod project;
mod union;

pub use filter::Filter;
pub(crate) use filter::emit_kept;
pub use project::Project;
pub use union::Union;
