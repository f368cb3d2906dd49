//! Text that people are told, and the secrets in it, in whatever way they are written.

use super::{Values, WatchedWorld, read_everything};
use base64::Engine;

/// Opens and reads so many copies with one flipped bit each; what fails says so. Answers how many did.
pub(crate) fn read_damaged(world: &WatchedWorld, values: &Values, copies: usize) -> usize {
    let mut dice = keystead_tests::env::Dice::new(keystead_tests::env::seed(4));
    let mut noticed = 0;
    for _ in 0..copies {
        let (byte, bit) = (
            dice.below(world.disk_bytes() as u64) as usize,
            dice.below(8) as u32,
        );
        let sound = world.copy_disk();
        world.flip(byte, bit);
        let mut failures = 0;
        match world.options().open_on_disk(world.disk()) {
            Err(error) => {
                world.tell(&error);
                failures += 1;
            }
            Ok(store) => match store.organization("acme") {
                Err(error) => {
                    world.tell(&error);
                    failures += 1;
                }
                Ok(acme) => read_everything(&acme, values, |error| {
                    world.tell(error);
                    failures += 1;
                }),
            },
        }
        world.restore_disk(sound);
        noticed += usize::from(failures > 0);
    }
    noticed
}

/// The watched secrets in a text, in whatever way they are written.
pub(crate) fn secrets_in(text: &str) -> Vec<String> {
    let mut found = keystead_canary::search(text.as_bytes());
    for run in text
        .split(|char: char| !char.is_ascii_hexdigit())
        .filter(|run| run.len() >= 16)
    {
        for from in [0, 1] {
            let bytes: Vec<u8> = run.as_bytes()[from..]
                .as_chunks::<2>()
                .0
                .iter()
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            found.extend(keystead_canary::search(&bytes));
        }
    }
    let is_base64 = |char: char| char.is_ascii_alphanumeric() || "+/-_".contains(char);
    for run in text
        .split(|char: char| !is_base64(char))
        .filter(|run| run.len() >= 11)
    {
        for from in 0..4 {
            let whole = &run[from..from + (run.len() - from) / 4 * 4];
            let whole = whole.replace('-', "+").replace('_', "/");
            let bytes = base64::engine::general_purpose::STANDARD_NO_PAD
                .decode(whole)
                .unwrap_or_default();
            found.extend(keystead_canary::search(&bytes));
        }
    }
    let numbers: Vec<Option<u8>> = text
        .split(|char: char| char.is_whitespace() || "[],()".contains(char))
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_end_matches("u8").parse().ok())
        .collect();
    for run in numbers.split(Option::is_none).filter(|run| run.len() >= 8) {
        let bytes: Vec<u8> = run.iter().copied().flatten().collect();
        found.extend(keystead_canary::search(&bytes));
    }
    found
}
