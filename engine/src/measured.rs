//! Parts of the engine that can be left out to tell what they cost: `cargo xtask bench --checks`.
//!
//! They can be left out only in a build with `--cfg keystead_measured`, and there by [`leave_out`]. In every other build
//! [`is_left_out`] is the constant `false`, and nothing is left of this.

/// A part that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(keystead_measured),
    allow(unreachable_pub, reason = "the benchmark alone names them")
)]
pub enum Part {
    /// The tag of each block: neither written nor read nor compared.
    BlockTags = 1,
    /// The mark of each journal record at the journal's end.
    JournalMarks,
}

/// Whether a part is left out: never, save in the build that measures what it costs.
#[cfg(not(keystead_measured))]
pub(crate) const fn is_left_out(_: Part) -> bool {
    false
}

#[cfg(keystead_measured)]
static LEFT_OUT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether a part is left out.
#[cfg(keystead_measured)]
pub(crate) fn is_left_out(part: Part) -> bool {
    LEFT_OUT.load(std::sync::atomic::Ordering::Relaxed) == part as u8
}

/// From now on leaves out this part, or none, in every store of the process. A store that was written without tags is read only
/// without them.
#[cfg(keystead_measured)]
pub fn leave_out(part: Option<Part>) {
    let part = part.map_or(0, |part| part as u8);
    LEFT_OUT.store(part, std::sync::atomic::Ordering::Relaxed);
}
