//! The table of all knobs: their names in the file, and with them in the environment, what they may be, and what they do.
//!
//! ```text
//!                ┌──► the file, and what it refuses     ┌──► WINDROW_CHECKPOINT_EVERY
//!   KNOBS ───────┼──────────────────────────────────────┤
//!                └──► windrow config, the book's table  └──► what a job is told: Chosen
//! ```

use super::{
    chosen::Chosen,
    value::{Kind, Value},
};

/// A knob of a job.
pub(super) struct Knob {
    /// Its name in the file: `checkpoint.every` stands in the table `[checkpoint]`.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// As one would write it in the file.
    pub(super) example: &'static str,
    /// What holds unless told, in words.
    pub(super) default: &'static str,
    /// What says the same in code.
    pub(super) code: &'static str,
    pub(super) meaning: &'static str,
    pub(super) set: fn(&mut Chosen, &Value),
}

impl Knob {
    /// Its name in the environment.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }

    /// What may stand there, with an example.
    pub(super) fn expected(&self) -> String {
        match self.kind {
            Kind::Flag => self.kind.words(),
            kind => format!("{}, such as {}", kind.words(), self.example),
        }
    }
}

/// What the names of variables begin with.
pub(super) const PREFIX: &str = "WINDROW_";

const MOST: u64 = u32::MAX as u64;

/// Every knob, in the order in which they are shown.
pub(super) const KNOBS: &[Knob] = &[
    Knob {
        key: "parallelism",
        kind: Kind::Count(1, 256),
        example: "4",
        default: "1",
        code: "Job::parallelism",
        meaning: "how many tasks a keyed operator has, and a source at the most",
        set: |chosen, value| chosen.parallelism = value.count(),
    },
    Knob {
        key: "channel_bytes",
        kind: Kind::Bytes,
        example: "\"8MiB\"",
        default: "\"2MiB\"",
        code: "Job::channel_bytes",
        meaning: "how much may wait in the channel between two tasks",
        set: |chosen, value| chosen.channel_bytes = value.bytes(),
    },
    Knob {
        key: "memory_budget",
        kind: Kind::Bytes,
        example: "\"1GiB\"",
        default: "no limit",
        code: "Job::memory_budget",
        meaning: "how much state the job may hold in memory",
        set: |chosen, value| chosen.memory_budget = value.bytes(),
    },
    Knob {
        key: "spill_to",
        kind: Kind::Text,
        example: "\"/mnt/fast-disk\"",
        default: "the system's directory for temporary files",
        code: "Job::spill_to",
        meaning: "below which directory state goes that is more than the memory budget",
        set: |chosen, value| chosen.spill_to = value.text().map(Into::into),
    },
    Knob {
        key: "checkpoint.url",
        kind: Kind::Text,
        example: "\"/var/lib/jobs\"",
        default: "no checkpoints",
        code: "Job::checkpoint",
        meaning: "where checkpoints go: a directory, or `s3://bucket/path`",
        set: |chosen, value| chosen.checkpoint_url = value.text(),
    },
    Knob {
        key: "checkpoint.every",
        kind: Kind::Span,
        example: "\"10s\"",
        default: "no checkpoints",
        code: "Job::checkpoint",
        meaning: "how often a checkpoint is taken",
        set: |chosen, value| chosen.checkpoint_every = value.span(),
    },
    Knob {
        key: "checkpoint.timeout",
        kind: Kind::Span,
        example: "\"1min\"",
        default: "\"10m\", or less with a transactional sink",
        code: "Job::checkpoint_timeout",
        meaning: "how long a checkpoint may take",
        set: |chosen, value| chosen.checkpoint_timeout = value.span(),
    },
    Knob {
        key: "checkpoint.keep",
        kind: Kind::Count(2, 1_000),
        example: "10",
        default: "2",
        code: "Job::keep_checkpoints",
        meaning: "how many checkpoints are kept besides savepoints",
        set: |chosen, value| chosen.checkpoint_keep = value.count(),
    },
    Knob {
        key: "restarts.at_most",
        kind: Kind::Count(0, MOST),
        example: "10",
        default: "5",
        code: "Job::restarts",
        meaning: "how often a job that failed is started again without progress; 0: never",
        set: |chosen, value| chosen.restarts_at_most = value.count().and_then(|count| count.try_into().ok()),
    },
    Knob {
        key: "restarts.first_wait",
        kind: Kind::Span,
        example: "\"500ms\"",
        default: "\"1s\"",
        code: "Job::restarts",
        meaning: "how long to wait before the first restart; twice as long before each further one",
        set: |chosen, value| chosen.restarts_first_wait = value.span(),
    },
    Knob {
        key: "restarts.longest_wait",
        kind: Kind::Span,
        example: "\"30s\"",
        default: "\"1m\"",
        code: "Job::restarts",
        meaning: "how long to wait before any restart, at the most",
        set: |chosen, value| chosen.restarts_longest_wait = value.span(),
    },
    Knob {
        key: "restore.savepoint",
        kind: Kind::Text,
        example: "\"before-upgrade\"",
        default: "the newest checkpoint",
        code: "Job::restore",
        meaning: "the savepoint that the job begins from",
        set: |chosen, value| chosen.savepoint = value.text(),
    },
    Knob {
        key: "restore.repeat_output",
        kind: Kind::Flag,
        example: "true",
        default: "false",
        code: "Restore::repeat_output",
        meaning: "go back even though newer output is visible, and write it again",
        set: |chosen, value| chosen.repeat_output = value.flag(),
    },
    Knob {
        key: "restore.drop_state",
        kind: Kind::Flag,
        example: "true",
        default: "false",
        code: "Job::drop_state",
        meaning: "give up the state of operators that the job does not have any more",
        set: |chosen, value| chosen.drop_state = value.flag(),
    },
    Knob {
        key: "serve.address",
        kind: Kind::Text,
        example: "\"127.0.0.1:8080\"",
        default: "not served",
        code: "Job::serve",
        meaning: "where the job is served over HTTP (feature `serve`): an address of this machine and a port",
        set: |chosen, value| chosen.serve_address = value.text(),
    },
    Knob {
        key: "serve.token_file",
        kind: Kind::Text,
        example: "\"/run/secrets/windrow\"",
        default: "a random token, on loopback only",
        code: "Serve::token",
        meaning: "the file with the token of who may ask and change the job",
        set: |chosen, value| chosen.serve_token_file = value.text().map(Into::into),
    },
    Knob {
        key: "serve.token_env",
        kind: Kind::Name,
        example: "\"JOB_TOKEN\"",
        default: "a random token, on loopback only",
        code: "Serve::token",
        meaning: "the variable with that token",
        set: |chosen, value| chosen.serve_token_env = value.text(),
    },
    Knob {
        key: "serve.host_name",
        kind: Kind::Text,
        example: "\"jobs.example.com\"",
        default: "none but IP addresses and localhost",
        code: "Serve::host",
        meaning: "the name by which others know this machine, or the proxy in front; with a token only",
        set: |chosen, value| chosen.serve_host = value.text(),
    },
];

/// The knob of this name in the file.
pub(super) fn knob(key: &str) -> Option<&'static Knob> {
    KNOBS.iter().find(|knob| knob.key == key)
}

/// The names of tables of the file: `checkpoint`, `restarts`, …
pub(super) fn tables() -> impl Iterator<Item = &'static str> {
    let tables = KNOBS.iter().filter_map(|knob| Some(knob.key.split_once('.')?.0));
    let mut last = "";
    tables.filter(move |table| std::mem::replace(&mut last, table) != *table)
}
