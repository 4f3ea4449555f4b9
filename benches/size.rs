//! How much a bench does: as much as its figures need, less when asked, and next to nothing when it is only asked whether it runs.

/// The amount for a bench of `full` rows: what the environment variable `WINDROW_BENCH_ROWS` says, if it is there. Without a
/// measurement, as in `cargo test --benches`, it is at most 20,000.
pub fn rows(full: u64) -> u64 {
    amount("WINDROW_BENCH_ROWS", full, 20_000)
}

/// What the environment variable `name` says; otherwise `full`, or `tried` where nothing is measured.
pub fn amount(name: &str, full: u64, tried: u64) -> u64 {
    let said = std::env::var(name).ok().and_then(|text| text.replace('_', "").parse().ok());
    said.unwrap_or(if measures() { full } else { full.min(tried) }).max(1)
}

/// Whether times are wanted: `cargo bench` says `--bench`, `cargo test --benches` does not, and `-- --test` and `-- --list` ask for
/// something else.
pub fn measures() -> bool {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    has("--bench") && !has("--test") && !has("--list")
}
