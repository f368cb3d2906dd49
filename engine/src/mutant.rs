//! Planted bugs: the test suite must notice each of them, and `cargo xtask mutants` shows that it does.
//!
//! They are there only in a build with `--cfg keystead_mutants`, and then the one that `KEYSTEAD_MUTANT` names is done. In every
//! other build [`planted`] is the constant `false`, and nothing is left of any of them; a build without debug assertions, or
//! without the feature `simulation`, refuses that `cfg`.

#[cfg(all(keystead_mutants, not(all(debug_assertions, feature = "simulation"))))]
compile_error!("planted bugs are for the test suite alone: they are never released");

macro_rules! mutants {
    ($($mutant:ident = $name:literal, $story:literal;)+) => {
        /// A planted bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $(#[doc = $story] $mutant,)+
        }

        /// Every planted bug: its name, and what it does.
        #[cfg(keystead_mutants)]
        pub const MUTANTS: &[(&str, &str)] = &[$(($name, $story),)+];

        #[cfg(keystead_mutants)]
        const ALL: &[Mutant] = &[$(Mutant::$mutant,)+];
    };
}

mutants! {
    JournalUnsynced = "journal-unsynced", "a change is acknowledged before the journal's sync";
    JournalUnchecked = "journal-unchecked", "a journal record is replayed without a look at its tag";
    GenerationUnchecked = "generation-unchecked", "records of the journal's generation before are replayed";
    CommitErrorSwallowed = "commit-error-swallowed", "a journal record that was not written is acknowledged";
    CheckpointInOnePhase = "checkpoint-in-one-phase", "a checkpoint writes redb's root along with the pages below it";
    HeaderCopiesTogether = "header-copies-together", "no sync stands between the header's two copies";
    CellUnsynced = "cell-unsynced", "a shred cell is not synced before the commit that refers to it";
    CellErasedEarly = "cell-erased-early", "a shred cell is erased before the commit that drops its wrap";
    CellNotErased = "cell-not-erased", "a dropped shred cell is not overwritten";
    CellReusedEarly = "cell-reused-early", "a dropped shred cell is free before it was overwritten";
    CursorBeforeRows = "cursor-before-rows", "a batch's cursor, counters and record are committed before its rows";
    RowOverwritten = "row-overwritten", "a re-wrap batch replaces a row without looking whether it changed";
    RetiredUnscanned = "retired-unscanned", "an epoch is retired without a look at what refers to it";
    PutOnRetiringEpoch = "put-on-retiring-epoch", "a put lands on the epoch that was active when it was prepared";
    WrapKeptAtHandOver = "wrap-kept-at-hand-over", "the old KMS's wrap stays beside the new one";
    AuditForgotten = "audit-forgotten", "a deletion has no audit record";
    CountKeptAtDestroy = "count-kept-at-destroy", "a destroyed version is counted on";
    SnapshotReused = "snapshot-reused", "readers keep the snapshot from before a commit that drops wraps";
    CacheUnending = "cache-unending", "a cached epoch key serves beyond its lifetime";
    CacheExtendedByUse = "cache-extended-by-use", "a cached epoch key's lifetime begins again with each use";
    RevocationAsOutage = "revocation-as-outage", "a key that was taken away is treated as one out of reach";
    RevocationOfOneEpoch = "revocation-of-one-epoch", "a revoked key's other epochs serve on";
    OutageAsRevocation = "outage-as-revocation", "an outage drops the cached epoch key";
    SecondNotAsked = "second-not-asked", "the second key is not asked in an outage of the first";
    SecondOpensRevoked = "second-opens-revoked", "the second key opens what the first one's owner took away";
    SecondWrapForgotten = "second-wrap-forgotten", "an epoch that the second key could not wrap is not missed";
    SecondWrapKept = "second-wrap-kept", "a removed second key's wraps stay";
}

/// Whether this bug is to be done: never, save in the build for `cargo xtask mutants`.
#[cfg(not(keystead_mutants))]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

/// Whether this bug is to be done: the one that `KEYSTEAD_MUTANT` names, read once.
#[cfg(keystead_mutants)]
pub(crate) fn planted(mutant: Mutant) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("KEYSTEAD_MUTANT").ok()?;
        let known = MUTANTS.iter().position(|(known, _)| *known == name);
        Some(ALL[known.unwrap_or_else(|| panic!("KEYSTEAD_MUTANT={name:?} is no planted bug"))])
    });
    *chosen == Some(mutant)
}
