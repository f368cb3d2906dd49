//! What every engine is given: the same paths, the same values, in the same order.

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 1024;

/// A path and its value.
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) value: Vec<u8>,
}

/// In which order paths arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As names of people and services do: anywhere between those that are there.
    Scattered,
    /// Each behind the one before it.
    Ascending,
}

/// The path of the secret of this number.
pub(crate) fn path(order: Order, number: u64) -> String {
    match order {
        Order::Scattered => {
            let name = mix(number);
            format!("prod/service-{:03}/{name:016x}", name % 1000)
        }
        Order::Ascending => format!("prod/service-000/{number:016x}"),
    }
}

/// The row of the secret of this number: nothing in its value can be compressed.
pub(crate) fn row(order: Order, number: u64) -> Row {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    value.extend_from_slice(&number.to_le_bytes());
    let mut state = mix(number ^ 0x5eed);
    while value.len() < VALUE_BYTES {
        state = mix(state);
        value.extend_from_slice(&state.to_le_bytes());
    }
    Row {
        path: path(order, number),
        value,
    }
}

/// Rows of these numbers.
pub(crate) fn rows(order: Order, numbers: std::ops::Range<u64>) -> Vec<Row> {
    numbers.map(|number| row(order, number)).collect()
}

/// Whether a value is the one of this number.
pub(crate) fn belongs(value: &[u8], number: u64) -> bool {
    value.len() == VALUE_BYTES && value[..8] == number.to_le_bytes()
}

/// Numbers below `below` in an order that no cache can foresee, the same in every run.
pub(crate) struct Picks {
    state: u64,
    below: u64,
}

impl Picks {
    pub(crate) fn new(seed: u64, below: u64) -> Self {
        Self {
            state: mix(seed),
            below,
        }
    }
}

impl Iterator for Picks {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        Some(mix(self.state) % self.below)
    }
}

/// One to one, and without a visible order.
fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
