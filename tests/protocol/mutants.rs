//! Seeded errors: what an implementation might leave out, or do in the wrong order. The check is worth something only if
//! every one of them makes it fail (row 7 of the fault matrix).
//!
//! Some omissions are none, because the rest of the protocol makes up for them. They are [`Defence`]s, and checked to stay
//! superfluous.

use super::model::Mode;

/// One error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The protocol as it was written before this check: R4 creates records without asking for newer generations.
    NoGenerationReadInRecovery,
    /// It asks, but before R3.
    GenerationReadFirst,
    /// It asks, but after the fence record. (Enough in mode S.)
    GenerationReadLast,
    /// The other half of the protocol as it was written: R3 refuses when the manifest of `c` is gone, without looking
    /// whether there is a newer `c`. It takes three incarnations at once.
    MissingManifestRefused,
    /// EndTxn, or the record `epoch/e`, before the MANIFEST.
    CommitBeforeManifest,
    MarkerOmitted,
    /// R4's marker before R2.
    MarkerReadBeforeFence,
    /// R2 fences one id; the other is initialised when it is needed.
    OneIdFenced,
    /// The fence record is written, the undecided manifest is ignored.
    UndecidedNotAnswered,
    /// Mode K answers as mode S does, without the marker.
    ClaimedInModeK,
    NoFenceRecord,
    /// R4 claims the newest manifest without a record, whatever its number and its parent.
    VoidManifestClaimed,
    TornManifestTrusted,
    /// GC deletes old `epoch/*` names, so that put-if-absent forgets them (slatedb#352).
    NamesDeletedByGc,
    GcDeletesNewest,
    GcDeletesUndecided,
    /// GC deletes the state file of an old epoch that a kept manifest refers to.
    GcIgnoresReferences,
    /// "It exists, so this is a repetition, so all is done" inside the loop (Arroyo).
    EarlyReturnInPublish,
    /// `stat(final)`, then `stat(tmp)`: absent both, although nothing is lost.
    LooksBeforeLink,
    DoneBeforePublish,
    PublishedBeforeDecision,
    /// e+1 is decided while files of e are not published.
    DecidedWhileUnpublished,
    /// R6 before R4.
    TmpDeletedBeforeFence,
    /// R6 takes everything that is not its own.
    CleanerTakesNewer,
    /// File names count from the start of the run.
    NamesNeitherEpochNorGeneration,
}

use Mutation::*;

impl Mutation {
    pub(crate) const ALL: [Mutation; 25] = [
        NoGenerationReadInRecovery,
        GenerationReadFirst,
        GenerationReadLast,
        MissingManifestRefused,
        CommitBeforeManifest,
        MarkerOmitted,
        MarkerReadBeforeFence,
        OneIdFenced,
        UndecidedNotAnswered,
        ClaimedInModeK,
        NoFenceRecord,
        VoidManifestClaimed,
        TornManifestTrusted,
        NamesDeletedByGc,
        GcDeletesNewest,
        GcDeletesUndecided,
        GcIgnoresReferences,
        EarlyReturnInPublish,
        LooksBeforeLink,
        DoneBeforePublish,
        PublishedBeforeDecision,
        DecidedWhileUnpublished,
        TmpDeletedBeforeFence,
        CleanerTakesNewer,
        NamesNeitherEpochNorGeneration,
    ];

    /// The modes in which it is an error.
    pub(crate) fn modes(self) -> &'static [Mode] {
        match self {
            GenerationReadLast
            | MarkerOmitted
            | MarkerReadBeforeFence
            | OneIdFenced
            | UndecidedNotAnswered
            | ClaimedInModeK => &[Mode::Kafka],
            MissingManifestRefused | VoidManifestClaimed | TornManifestTrusted | PublishedBeforeDecision => {
                &[Mode::Store]
            }
            _ => &[Mode::Store, Mode::Kafka],
        }
    }
}

/// What the protocol could do without, as far as this model sees: a second line of defence. It must stay one, or move up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defence {
    /// C9 re-reads `gen/*`. Whatever lies below the oldest kept epoch stays superfluous, however late it is deleted.
    GenerationReadInGc,
    /// C6 in mode S re-reads `gen/*` after its Create. Who goes on all the same publishes a committed epoch, and meets the
    /// fence at the next.
    GenerationReadAfterCreate,
    /// K = 2. With one kept epoch R3 meets more deleted manifests, and is repeated more often.
    TwoKept,
    /// Mode S claims an undecided manifest. A fence record in its number is an abort: work is lost, no output.
    ClaimInModeS,
    /// R4 compares the parent. The fence gives a number to one run, which has read its parent from below the fence.
    ParentCompared,
    /// Names of files hold generation and nonce. The fence makes the epoch in them unique.
    GenerationInNames,
    /// Mode K checks that an undecided manifest is whole. Kafka commits no epoch before that, so no marker names it.
    TornSeenInModeK,
}

impl Defence {
    pub(crate) const ALL: [(Defence, Mode); 11] = [
        (Defence::GenerationReadInGc, Mode::Store),
        (Defence::GenerationReadInGc, Mode::Kafka),
        (Defence::GenerationReadAfterCreate, Mode::Store),
        (Defence::TwoKept, Mode::Store),
        (Defence::TwoKept, Mode::Kafka),
        (Defence::ClaimInModeS, Mode::Store),
        (Defence::ParentCompared, Mode::Store),
        (Defence::ParentCompared, Mode::Kafka),
        (Defence::GenerationInNames, Mode::Store),
        (Defence::GenerationInNames, Mode::Kafka),
        (Defence::TornSeenInModeK, Mode::Kafka),
    ];
}
