//! The book of Windrow, as far as it is Rust: the programs of its chapters are tests.
//!
//! ```text
//!   src/SUMMARY.md ──► chapters ──► text                        read with mdbook, or as it is
//!                          └──────► blocks of Rust ──► tests    merged into one program, because this is edition 2024
//! ```
//!
//! A chapter that is not in the list here would not be tested, and one that is not in the summary would not be read. The tests say
//! so; and that what chapters point to is there.

/// The chapters: a name for the tests, and the file below `src`.
macro_rules! chapters {
    ($($name:ident: $file:literal,)+) => {
        $(
            #[cfg(doctest)]
            #[doc = include_str!(concat!("src/", $file))]
            mod $name {}
        )+

        #[cfg(test)]
        const CHAPTERS: &[&str] = &[$($file),+];
    };
}

chapters! {
    introduction: "introduction.md",
    first_job: "first-job.md",
    concepts: "concepts.md",
    rows: "rows.md",
    event_time: "event-time.md",
    windows: "windows.md",
    joins: "joins.md",
    functions: "functions.md",
    patterns: "patterns.md",
    tables: "tables.md",
    calls: "calls.md",
    late_and_rejected: "late-and-rejected.md",
    not_there: "not-there.md",
    connectors: "connectors.md",
    files: "files.md",
    kafka: "kafka.md",
    operating: "operating.md",
    http: "http.md",
    page: "page.md",
    configuration: "configuration.md",
    command: "command.md",
    upgrades: "upgrades.md",
    exactly_once: "exactly-once.md",
    memory: "memory.md",
    testing: "testing.md",
    own_operator: "own-operator.md",
    own_source: "own-source.md",
    own_sink: "own-sink.md",
    from_flink: "from-flink.md",
    from_kafka_streams: "from-kafka-streams.md",
}

#[cfg(test)]
mod tests;
