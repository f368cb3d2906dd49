//! The suite against the planted bug that `KEYSTEAD_MUTANT` names; against none when it names none. For `cargo xtask mutants`,
//! which builds it with the bugs in it.
//!
//! `planted-bugs --list` prints every planted bug, `name<tab>what it does`. Given names of parts it runs those, without any
//! it runs all; its last line is then
//! `clean<tab>steps of each part`, or `caught<tab>checker<tab>part<tab>steps<tab>story`.
#![allow(clippy::print_stdout, reason = "its lines are what it is for")]

use keystead_tests::env::seed;
use keystead_tests::suite::{PARTS, Part};

#[cfg(keystead_mutants)]
use keystead::MUTANTS;
/// Without them in the build, there are none.
#[cfg(not(keystead_mutants))]
const MUTANTS: &[(&str, &str)] = &[];

/// Letters of a story: the beginning says what was done, and the rest can be long.
const STORY_MAX: usize = 600;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--list") {
        for (name, story) in MUTANTS {
            println!("{name}\t{story}");
        }
        return;
    }
    // What a planted bug makes panic is a finding, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let seed = seed(1);
    let mut clean = Vec::new();
    let is_chosen = |part: &&Part| arguments.is_empty() || arguments.iter().any(|name| name == part.name);
    for part in PARTS.iter().filter(is_chosen) {
        let outcome = part.run(seed);
        let steps = format!("{} {}", outcome.steps, part.unit);
        if let Some(failure) = outcome.failure {
            let story: String = failure
                .story
                .replace(['\n', '\t'], " ")
                .chars()
                .take(STORY_MAX)
                .collect();
            println!("caught\t{}\t{}\t{steps}\t{story}", failure.checker, part.name);
            return;
        }
        clean.push(steps);
    }
    println!("clean\t{}", clean.join(", "));
}
