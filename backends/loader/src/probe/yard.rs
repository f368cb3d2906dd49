//! Memory with a fence around it: what is written beyond what was given is told, and does no harm.

use keystead_backend::abi;

/// Before and behind each room, at least.
const FENCE_BYTES: usize = 4096;

/// A room for an output, with a fence before it and a longer one behind it: a plugin that writes as much as it describes,
/// whatever room it has, stays within.
pub(super) struct Yard {
    pub(super) name: &'static str,
    pub(super) capacity: usize,
    memory: Vec<u8>,
}

impl Yard {
    pub(super) fn new(name: &'static str, capacity: usize, described: usize) -> Self {
        let memory = (0..FENCE_BYTES + capacity + described + FENCE_BYTES).map(pattern);
        Self {
            name,
            capacity,
            memory: memory.collect(),
        }
    }

    /// Null when there is no room, as it may be.
    pub(super) fn output(&mut self) -> abi::Output {
        match self.capacity {
            0 => abi::Output::none(),
            capacity => abi::Output::of(&mut self.memory[FENCE_BYTES..][..capacity]),
        }
    }

    /// What was answered, as far as there is room.
    pub(super) fn bytes(&self, len: u64) -> Vec<u8> {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.capacity);
        self.memory[FENCE_BYTES..][..len].to_vec()
    }

    /// The name, if a fence was written to.
    pub(super) fn is_overrun(&self) -> Option<&'static str> {
        let is_as_it_was = |range: std::ops::Range<usize>| {
            range
                .clone()
                .zip(&self.memory[range])
                .all(|(at, byte)| *byte == pattern(at))
        };
        let whole =
            is_as_it_was(0..FENCE_BYTES) && is_as_it_was(FENCE_BYTES + self.capacity..self.memory.len());
        (!whole).then_some(self.name)
    }
}

/// No byte is zero, and no two neighbours are the same: neither a terminating zero nor a fill goes unnoticed.
fn pattern(at: usize) -> u8 {
    (0x81 + at * 37 % 101) as u8
}

/// What a later version of the interface may have at the end of a struct.
pub(super) const LATER_BYTES: usize = 64;

/// A struct with memory behind it, as a later version of the interface has it.
#[repr(C)]
pub(super) struct Longer<T> {
    inner: T,
    later: [u8; LATER_BYTES],
    name: &'static str,
}

impl<T> Longer<T> {
    pub(super) fn new(name: &'static str, inner: T) -> Self {
        Self {
            inner,
            later: std::array::from_fn(pattern),
            name,
        }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut T {
        &raw mut self.inner
    }

    pub(super) fn get(&self) -> &T {
        &self.inner
    }

    pub(super) fn is_overrun(&self) -> Option<&'static str> {
        let whole = self.later == std::array::from_fn::<u8, LATER_BYTES, _>(pattern);
        (!whole).then_some(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_before_or_behind_the_room_is_told_and_what_is_written_in_it_is_not() {
        let mut yard = Yard::new("blob", 8, 16);
        yard.memory[FENCE_BYTES..][..8].fill(0);
        assert_eq!((yard.is_overrun(), yard.bytes(u64::MAX)), (None, vec![0; 8]));
        for at in [
            0,
            FENCE_BYTES - 1,
            FENCE_BYTES + 8,
            FENCE_BYTES + 8 + 16 + FENCE_BYTES - 1,
        ] {
            let mut yard = Yard::new("blob", 8, 16);
            yard.memory[at] = 0;
            assert_eq!(yard.is_overrun(), Some("blob"), "{at}");
        }
    }
}
