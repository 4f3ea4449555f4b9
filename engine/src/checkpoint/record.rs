//! The small files beside the checkpoints: who started the job, what was decided, what is to be kept.
//!
//! Each says what it is and which number or name it has, so that a file that was moved to another name is noticed.

use serde::{Deserialize, Serialize};
use windrow_connectors::sink::Epoch;

use super::{manifest::Parent, names::Folder};

/// `gen/{g}`: one start of the job. Whoever wrote the highest one may go on, all others must stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Generation {
    pub(crate) generation: u64,
    pub(crate) nonce: u32,
    pub(crate) job: String,
    pub(crate) job_id: String,
    /// For people: who that was.
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) started_ms: u64,
}

/// `epoch/{e}`: what became of the number `e`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decision {
    pub(crate) epoch: Epoch,
    pub(crate) outcome: Outcome,
    /// The generation that wrote it down: not always the one that wrote the checkpoint.
    pub(crate) by: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Outcome {
    /// The checkpoint counts.
    Commit {
        /// The nonce of the incarnation that wrote the checkpoint.
        nonce: u32,
        folder: Folder,
    },
    /// The incarnation that held the number gave the checkpoint up.
    Abort { nonce: u32 },
    /// A start of the job took the number, so that no earlier incarnation can decide anything with it.
    Fence { nonce: u32 },
}

/// `done/{e}`: what checkpoint `e` made visible is visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    pub(crate) done: Epoch,
}

/// `savepoint/{name}`: a committed checkpoint that is kept until a user removes this file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Savepoint {
    pub(crate) savepoint: String,
    pub(crate) folder: Folder,
    pub(crate) checkpoint: Parent,
}
