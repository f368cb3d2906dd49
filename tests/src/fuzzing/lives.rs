//! Whole lives: operations, faults of the disk and the KMS, losses of power. After each of them: nothing that was
//! acknowledged is lost, what was in flight is there wholly or not at all.

use crate::checkers::{self, Depth, Given};
use crate::disk::{Fault, SimulatedDisk};
use crate::env::Dice;
use crate::faults;
use crate::life::Life;
use crate::power::{self, Budget};
use arbitrary::{Arbitrary, Unstructured};

/// Actions of one life, at most; losses of power that are looked at.
const ACTIONS_MAX: usize = 24;
const CUTS_MAX: usize = 3;

#[derive(Debug, Arbitrary)]
struct Input {
    seed: u16,
    /// Each action: the dice that choose among what can be done.
    actions: Vec<u16>,
    /// What is wrong with the disk.
    fault: Option<DiskFault>,
    /// At which moments power goes, and the dice that choose what it leaves.
    cuts: Vec<(u16, u16)>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum DiskFault {
    ChangeOnce(u16),
    ChangeForGood(u16),
    ShortWrite(u16),
    ReadOnce(u16),
}

impl From<DiskFault> for Fault {
    fn from(fault: DiskFault) -> Self {
        match fault {
            DiskFault::ChangeOnce(at) => Self::ChangeOnce(at.into()),
            DiskFault::ChangeForGood(at) => Self::ChangeForGood(at.into()),
            DiskFault::ShortWrite(at) => Self::ShortWrite(at.into()),
            DiskFault::ReadOnce(at) => Self::ReadOnce(at.into()),
        }
    }
}

pub(super) fn run(input: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    let seed = u64::from(input.seed);
    let mut life = Life::begin(seed, SimulatedDisk::new()).expect("a disk without faults");
    let mut actions = Vec::new();
    for dice in input.actions.iter().take(ACTIONS_MAX) {
        let action = life.model.next(&mut Dice::new(u64::from(*dice)));
        actions.push(action.clone());
        if let Err(error) = life.act(action.clone()) {
            panic!("{action:?} on a disk without faults: {error}");
        }
    }
    life.drop_store();
    cut_power(&life, &input.cuts);
    if let Some(fault) = input.fault
        && let Err(failure) = faults::survives(seed, fault.into(), &actions)
    {
        panic!("{fault:?}: {failure}");
    }
}

fn cut_power(life: &Life, cuts: &[(u16, u16)]) {
    let moments = life.moments();
    if moments.is_empty() {
        return;
    }
    let recording = life.disk.recording();
    let budget = Budget {
        exhaustive_operations: 1,
        subsets: 2,
        torn: 2,
    };
    for (moment, dice) in cuts.iter().take(CUTS_MAX) {
        let moment = moments[usize::from(*moment) % moments.len()];
        let Some(expected) = life.expected_at(moment) else {
            continue;
        };
        let cut = recording.cut_at(moment);
        let mut dice = Dice::new(u64::from(*dice));
        for image in power::images(&cut, budget, &mut dice) {
            let disk = SimulatedDisk::holding(image.contents.clone());
            let given = Given {
                expected: &expected,
                kms: &life.kms,
                wraps: &life.wraps,
            };
            let depth = Depth::by(&mut dice);
            if let Err(failure) = checkers::check(&disk, given, dice.roll(), depth) {
                let (doing, kept) = (&expected.doing, image.story(&cut));
                panic!("power went after {moment} operations, {doing}; kept: {kept}\n{failure}");
            }
        }
    }
}
