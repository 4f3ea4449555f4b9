//! Scratch.
#[allow(dead_code, unreachable_pub)]
#[path = "../../examples/windows_over_files.rs"]
mod windows_over_files;
