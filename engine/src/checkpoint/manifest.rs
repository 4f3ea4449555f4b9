//! What a checkpoint consists of, and how it is written down.
//!
//! ```text
//!   Manifest ── operators ── tasks ── segments ──► ckpt/…/s/…     a segment may lie in the folder of an older
//!      │                       └───── numbers                     checkpoint: only new ones are uploaded
//!      ├────── sources ──── splits: position, event time
//!      ├────── sinks ────── receipts: what to make visible once the checkpoint is decided
//!      └────── parent: the committed checkpoint that this one follows
//! ```
//!
//! A manifest is written once and never changed. It names everything by length and checksum, so a restore either gets
//! the bytes that were saved or an error. What it says is checked before it is believed: above all, that it names files
//! of its own job only.

use std::collections::BTreeMap;

use arrow_schema::Schema;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use windrow_connectors::{Epoch, Incarnation, Marker, Receipt, SplitId};
use windrow_operators::{
    key::KEY_GROUPS,
    state::{Reading, StateForm},
};

use super::{
    frame::{self, Unreadable},
    names::{self, Folder},
};

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The name of the job.
    pub(crate) job: String,
    /// Eight hexadecimal digits that the first start of the job in this store drew.
    pub(crate) job_id: String,
    pub(crate) epoch: Epoch,
    /// The incarnation that wrote it.
    pub(crate) generation: u64,
    pub(crate) nonce: u32,
    /// The committed checkpoint that it follows; none for the first.
    pub(crate) parent: Option<Parent>,
    /// The savepoint to which the job once went back although there was newer output, if it did.
    pub(crate) origin: Option<Epoch>,
    pub(crate) kind: Kind,
    /// Who decides whether it counts, when it is not the store: the name of a [`Witness`](windrow_connectors::Witness).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) witness: Option<String>,
    /// Wall clock, for people only.
    pub(crate) created_ms: u64,
    /// By the stable id of the operator.
    pub(crate) operators: BTreeMap<String, OperatorState>,
    pub(crate) sources: BTreeMap<String, Vec<SplitState>>,
    pub(crate) sinks: BTreeMap<String, SinkState>,
}

/// Names a committed checkpoint, also if two incarnations have used its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parent {
    pub(crate) epoch: Epoch,
    pub(crate) nonce: u32,
}

/// Why the checkpoint was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Kind {
    /// Because it was time.
    Periodic,
    /// Because a user asked for a savepoint of this name.
    Savepoint(String),
    /// Because the job ended or was stopped.
    Final,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperatorState {
    /// None for an operator whose state is numbers only.
    pub(crate) form: Option<Form>,
    pub(crate) tasks: Vec<SavedTask>,
}

/// [`StateForm`], as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Form {
    pub(crate) meaning: String,
    pub(crate) columns: Schema,
    /// How many columns after the key group say which row it is.
    pub(crate) identity: usize,
    /// Which rows count. Not there in checkpoints of versions that did not say it.
    #[serde(default, skip_serializing_if = "Reading::is_default")]
    pub(crate) reading: Reading,
}

impl From<&StateForm> for Form {
    fn from(form: &StateForm) -> Self {
        let StateForm { columns, identity, meaning, reading } = form.clone();
        Self { meaning, columns: columns.as_ref().clone(), identity, reading }
    }
}

impl From<&Form> for StateForm {
    fn from(form: &Form) -> Self {
        let Form { columns, identity, meaning, reading } = form.clone();
        Self { meaning, columns: columns.into(), identity, reading }
    }
}

/// What one task of an operator left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedTask {
    pub(crate) first_phase: bool,
    /// From the first up to but without the last; empty for a task that owned none.
    pub(crate) key_groups: (u16, u16),
    pub(crate) numbers: BTreeMap<String, i64>,
    /// Oldest first.
    pub(crate) segments: Vec<SegmentFile>,
}

/// A segment in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentFile {
    /// Relative to the root of the job; may lie in the folder of an older checkpoint.
    pub(crate) path: String,
    pub(crate) length: u64,
    /// XXH3-128 in hexadecimal digits.
    pub(crate) checksum: String,
    pub(crate) rows: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitState {
    pub(crate) split: String,
    /// None before the first record.
    pub(crate) position: Option<u64>,
    pub(crate) ended: bool,
    /// Where it ends, if that was fixed when the job began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<u64>,
    /// The latest event time seen, less what was too far in the future.
    pub(crate) latest: Option<i64>,
    pub(crate) idle: bool,
    /// The watermark of the split when a generator of the user's says it, so that it does not follow from `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) promised: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SinkState {
    pub(crate) name: String,
    pub(crate) receipts: Vec<Receipt>,
}

impl SplitState {
    /// Whether it is the state of one of these splits.
    pub(crate) fn is_among(&self, splits: &[SplitId]) -> bool {
        splits.iter().any(|split| split.as_str() == self.split)
    }
}

impl Manifest {
    pub(crate) fn folder(&self) -> Folder {
        Folder { epoch: self.epoch, generation: self.generation }
    }

    /// What the next checkpoint names as its parent.
    pub(crate) fn as_parent(&self) -> Parent {
        Parent { epoch: self.epoch, nonce: self.nonce }
    }

    /// What a witness keeps of it.
    pub(crate) fn marker(&self) -> Marker {
        let incarnation = Incarnation { job: self.job_id.clone(), generation: self.generation, nonce: self.nonce };
        Marker { incarnation, epoch: self.epoch }
    }

    /// Every segment that a restore reads.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &SegmentFile> {
        self.operators.values().flat_map(|operator| &operator.tasks).flat_map(|task| &task.segments)
    }

    /// The bytes of its file. The reason of a failure is a mistake in the manifest, found before it is written.
    pub(crate) fn encode(&self) -> Result<Bytes, String> {
        self.check()?;
        frame::encode(self).map_err(|error| error.to_string())
    }

    /// Reads what [`Manifest::encode`] wrote. Never panics, and allocates in proportion to `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let manifest: Self = frame::decode(bytes)?;
        manifest.check().map_err(Unreadable::Damaged)?;
        Ok(manifest)
    }

    /// That it says nothing which cannot be, whoever wrote it.
    fn check(&self) -> Result<(), String> {
        if !(self.job_id.len() == 8 && self.job_id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(format!("its job id {:?} is not of eight hexadecimal digits", self.job_id));
        }
        if let Some(parent) = self.parent.filter(|parent| parent.epoch >= self.epoch) {
            return Err(format!("checkpoint {} cannot follow checkpoint {}", self.epoch, parent.epoch));
        }
        if let Kind::Savepoint(name) = &self.kind {
            names::check_savepoint(name).map_err(|error| error.to_string())?;
        }
        for (operator, state) in &self.operators {
            if let Some(form) = state.form.as_ref().filter(|form| !form.reading.fits(form.columns.fields().len())) {
                return Err(format!(
                    "the state of {operator:?} is read by columns that it does not have: {:?}",
                    form.reading
                ));
            }
            for task in &state.tasks {
                let (first, end) = task.key_groups;
                if first > end || usize::from(end) > KEY_GROUPS {
                    return Err(format!("operator {operator:?} has key groups {first}..{end}"));
                }
                for segment in &task.segments {
                    self.check_segment(segment).map_err(|reason| format!("segment {:?}: {reason}", segment.path))?;
                }
            }
        }
        Ok(())
    }

    fn check_segment(&self, segment: &SegmentFile) -> Result<(), &'static str> {
        let folder = names::segment_folder(&segment.path)?;
        if folder.epoch > self.epoch || folder.generation > self.generation {
            return Err("it would have been written after the checkpoint that names it");
        }
        if !(segment.checksum.len() == 32 && segment.checksum.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err("its checksum is not of 32 hexadecimal digits");
        }
        Ok(())
    }
}
