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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_number_has_a_path_of_its_own_that_the_engine_takes() {
        for order in [Order::Scattered, Order::Ascending] {
            let paths: BTreeSet<String> = (0..10_000).map(|number| path(order, number)).collect();
            assert_eq!(paths.len(), 10_000);
            assert!(
                paths
                    .iter()
                    .all(|path| path.parse::<keystead::SecretPath>().is_ok())
            );
        }
    }

    #[test]
    fn ascending_paths_ascend_and_scattered_ones_do_not() {
        let paths = |order| (0..1_000).map(|number| path(order, number)).collect::<Vec<_>>();
        assert!(paths(Order::Ascending).is_sorted());
        assert!(!paths(Order::Scattered).is_sorted());
    }

    #[test]
    fn a_value_belongs_to_its_own_number_alone() {
        let row = row(Order::Scattered, 4711);
        assert!(belongs(&row.value, 4711));
        assert!(!belongs(&row.value, 4712));
        assert!(!belongs(&row.value[1..], 4711));
    }

    #[test]
    fn picks_are_the_same_in_every_run_and_stay_below_their_bound() {
        let picks = || Picks::new(3, 17).take(1_000).collect::<Vec<_>>();
        assert_eq!(picks(), picks());
        assert_eq!(picks().into_iter().collect::<BTreeSet<_>>().len(), 17);
    }
}
