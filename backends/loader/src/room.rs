//! Room for a plugin's answer, with a canary behind it.

use keystead_backend::abi;

/// Bytes behind the room that a plugin must leave as they are. An overrun by a loop or a copy meets them first.
pub(crate) const CANARY_BYTES: usize = 32;

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The canary was written over.
    Overrun,
    /// The length is beyond the capacity.
    TooLong,
}

/// A room of its own, for what is not secret.
pub(crate) struct Room(Vec<u8>);

impl Room {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(vec![0; capacity + CANARY_BYTES])
    }

    pub(crate) fn output(&mut self) -> abi::Output {
        arm(&mut self.0)
    }

    /// An error whose message goes into this room.
    pub(crate) fn error(&mut self) -> abi::Error {
        abi::Error {
            struct_size: abi::struct_size::<abi::Error>(),
            code: abi::OK,
            retry_after_ms: 0,
            message: self.output(),
        }
    }

    /// What was answered into [`output`](Self::output), whose `len` the plugin set.
    pub(crate) fn answer(&self, len: u64) -> Result<&[u8], Fault> {
        answer(&self.0, len)
    }
}

/// Makes a room of memory that is longer than it by the canary.
pub(crate) fn arm(memory: &mut [u8]) -> abi::Output {
    let (room, canary) = memory.split_at_mut(memory.len() - CANARY_BYTES);
    canary
        .iter_mut()
        .zip(pattern())
        .for_each(|(byte, value)| *byte = value);
    abi::Output::of(room)
}

/// What was answered into an armed room.
pub(crate) fn answer(memory: &[u8], len: u64) -> Result<&[u8], Fault> {
    let (room, canary) = memory.split_at(memory.len() - CANARY_BYTES);
    if !canary.iter().copied().eq(pattern()) {
        return Err(Fault::Overrun);
    }
    usize::try_from(len)
        .ok()
        .and_then(|len| room.get(..len))
        .ok_or(Fault::TooLong)
}

/// No byte is zero, and no two neighbours are the same: neither a terminating zero nor a fill goes unnoticed.
fn pattern() -> impl Iterator<Item = u8> {
    (0..CANARY_BYTES).map(|index| (0x81 + index * 37 % 101) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_canary_lets_the_answer_through_and_a_touched_one_does_not() {
        for touched in 0..CANARY_BYTES {
            let mut memory = vec![0; 8 + CANARY_BYTES];
            assert_eq!(arm(&mut memory).capacity, 8);
            assert_eq!(answer(&memory, 8), Ok(&[0; 8][..]));
            assert_eq!(answer(&memory, 9), Err(Fault::TooLong));
            assert_eq!(answer(&memory, u64::MAX), Err(Fault::TooLong));
            memory[8 + touched] = 0;
            assert_eq!(answer(&memory, 8), Err(Fault::Overrun));
        }
    }
}
