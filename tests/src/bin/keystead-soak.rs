//! What `cargo xtask soak` and `cargo xtask replay` run.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
#![allow(clippy::disallowed_methods, reason = "it works by the clock on the wall")]

use clap::{Parser, Subcommand, ValueEnum};
use keystead_tests::checkers::Harm;
use keystead_tests::explore::Seen;
use keystead_tests::soak::{Broken, Profile, Soak, Tally, live, replay};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

/// Simulated lives of stores, to find what breaks a promise.
#[derive(Parser)]
#[command(name = "keystead-soak")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lives lives from fresh seeds on all cores until the time is over.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 5.0)]
        minutes: f64,
        /// The first seed; a fresh one unless it is given.
        #[arg(long)]
        seed: Option<u64>,
        /// One profile alone.
        #[arg(long)]
        profile: Option<Word>,
    },
    /// Lives the life of one seed twice, compares the two, tells its story, and checks it.
    Replay {
        /// The seed.
        seed: u64,
        /// Its profile.
        #[arg(long, default_value = "power")]
        profile: Word,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Word {
    /// Power goes at every moment.
    Power,
    /// Operations of the disk fail.
    Io,
    /// Syncs that do nothing.
    Lie,
    /// Whole lives with faults of the KMS.
    Lives,
    /// Threads that take turns by dice.
    Threads,
}

impl From<Word> for Profile {
    fn from(word: Word) -> Self {
        match word {
            Word::Power => Self::Power,
            Word::Io => Self::Io,
            Word::Lie => Self::Lie,
            Word::Lives => Self::Lives,
            Word::Threads => Self::Threads,
        }
    }
}

fn main() -> ExitCode {
    // Panics are caught, and part of the story.
    std::panic::set_hook(Box::new(|_| {}));
    match Arguments::parse().command {
        Command::Soak {
            minutes,
            seed,
            profile,
        } => soak(minutes, seed, profile.map(Profile::from)),
        Command::Replay { seed, profile } => again(seed, profile.into()),
    }
}

fn soak(minutes: f64, seed: Option<u64>, profile: Option<Profile>) -> ExitCode {
    let first = seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(1, |since| since.as_secs()) * 1_000_000
    });
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    println!("seeds from {first} on, {threads} threads, {minutes} minutes");
    let (soak, began) = (Soak::default(), Instant::now());
    let until = Duration::from_secs_f64(minutes * 60.0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| soak.work(first, profile));
        }
        watch(&soak, began, until);
        soak.stop();
    });
    report(&soak.tally(), &soak.broken(), first, began.elapsed())
}

/// A line now and then, until the time is over.
fn watch(soak: &Soak, began: Instant, until: Duration) {
    let terminal = std::io::stderr().is_terminal();
    let pause = Duration::from_secs(if terminal { 1 } else { 30 });
    while began.elapsed() < until {
        std::thread::sleep(pause.min(until.saturating_sub(began.elapsed())));
        let (tally, broken) = (soak.tally(), soak.broken().len());
        let seconds = began.elapsed().as_secs();
        let line = format!(
            "{:>3}:{:02}  {} seeds, {} distinct crash states, {} states in all, {broken} broken",
            seconds / 60,
            seconds % 60,
            tally.seeds.values().sum::<u64>(),
            tally.power.states,
            states(&tally),
        );
        if terminal {
            eprint!("\r{line}");
        } else {
            eprintln!("{line}");
        }
    }
    if terminal {
        eprintln!();
    }
}

fn states(tally: &Tally) -> u64 {
    let lives = tally.lives.states + tally.threads.states;
    tally.power.states + tally.power.again + tally.io_states + tally.lied.images + lives
}

fn report(tally: &Tally, broken: &[Broken], first: u64, took: Duration) -> ExitCode {
    let minutes = took.as_secs_f64() / 60.0;
    let seeds = |profile| tally.seeds.get(&profile).copied().unwrap_or(0);
    let (power, lied, lives) = (&tally.power, &tally.lied, &tally.lives);
    println!("\n{:.1} minutes, seeds from {first} on", minutes);
    println!(
        "power cut    {} seeds, {} moments ({} of them with every subset of what was pending)",
        seeds(Profile::Power),
        power.moments,
        power.exhausted
    );
    println!(
        "             {} distinct crash states ({:.0} a minute), {} checked again under another expectation",
        power.states,
        power.states as f64 / minutes,
        power.again
    );
    println!(
        "             {} while recovering, {} while being created, {} with the change in flight there",
        power.in_recovery, power.in_creation, power.flown
    );
    println!(
        "             {} worked on and opened three times, {} re-wrap jobs finished, {} whole images searched",
        power.worked_on, power.jobs_finished, power.searched
    );
    let io: Vec<String> = tally
        .io_faults
        .iter()
        .map(|(kind, met)| format!("{kind} {met}"))
        .collect();
    println!(
        "I/O errors   {} seeds; faults met: {}; {} states checked",
        seeds(Profile::Io),
        io.join(", "),
        tally.io_states
    );
    println!(
        "lying disk   {} seeds, {} images, {} opened, {} values read, 0 wrong, {} refused, {} panics of redb caught",
        seeds(Profile::Lie),
        lied.images,
        lied.opened,
        lied.values,
        lied.refused,
        lied.panics_caught
    );
    println!("whole lives  {} seeds, {lives}", seeds(Profile::Lives));
    let threads = &tally.threads;
    println!(
        "threads      {} schedules, {} actions, another thread went on {} times; {} states, {} of them with changes in flight there",
        threads.schedules, threads.actions, threads.switches, threads.states, threads.flown
    );
    let count = |harm: Harm| broken.iter().filter(|broken| broken.failure.harm == harm).count();
    println!(
        "lost {}, torn {}, panicked {}, other {}",
        count(Harm::Lost),
        count(Harm::Torn),
        count(Harm::Panicked),
        count(Harm::Other)
    );
    for broken in broken {
        println!(
            "\ncargo xtask replay {} --profile {}\n{}",
            broken.seed,
            broken.profile.word(),
            broken.failure
        );
    }
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn again(seed: u64, profile: Profile) -> ExitCode {
    println!("KEYSTEAD_SEED={seed}, profile {}", profile.word());
    let mut failed = false;
    match (replay(seed, profile), replay(seed, profile)) {
        (Ok(once), Ok(twice)) => {
            for (number, line) in once.story.iter().enumerate() {
                println!("{:>4}  {line}", number + 1);
            }
            println!("trace {}\ntrace {}", once.trace, twice.trace);
            failed |= once != twice;
            println!(
                "{}",
                if once == twice {
                    "the same twice"
                } else {
                    "NOT the same twice"
                }
            );
        }
        (Err(failure), _) | (_, Err(failure)) => {
            println!("{failure}");
            failed = true;
        }
    }
    match live(seed, profile, &Seen::default(), &AtomicBool::new(false)) {
        Ok(tally) => println!("checked: {} states, nothing broken", states(&tally)),
        Err(failure) => {
            println!("{failure}");
            failed = true;
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
