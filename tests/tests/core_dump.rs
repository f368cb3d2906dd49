//! A real process with a cached epoch key, its memory, and its real core dump.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "a test says how it went about it")]

use keystead::Env;
use keystead_tests::env::SimulatedEnv;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const KEY_BYTES: usize = 32;

struct Idle {
    child: Child,
    place: tempfile::TempDir,
    seed: u64,
    store_id: [u8; 16],
    /// What stands in its heap in clear.
    copy: Vec<u8>,
}

impl Idle {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let seed = keystead_tests::env::seed(77);
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -c unlimited && exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_idle-child"))
            .args([
                &place.path().join("store.keystead").display().to_string(),
                &seed.to_string(),
            ])
            .current_dir(place.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words.len(), words.first()), (3, Some(&"idle")), "{line:?}");
        Self {
            child,
            place,
            seed,
            store_id: unhex(words[1]).try_into().unwrap(),
            copy: unhex(words[2]),
        }
    }

    /// The epoch key, and the key derived from it, which is what is cached: the child's randomness follows from its seed.
    /// Which of what it drew was the epoch key is known by the commitment that stands in its store.
    fn epoch_keys(&self) -> [[u8; KEY_BYTES]; 2] {
        let store = fs::read(self.place.path().join("store.keystead")).unwrap();
        let env = SimulatedEnv::new(self.seed);
        for _ in 0..100 {
            let mut key = [0; KEY_BYTES];
            env.fill_random(&mut key).unwrap();
            let mut hasher = blake3::Hasher::new_derive_key("keystead 1 epoch wrapping key");
            hasher.update(&key).update(&self.store_id);
            hasher.update(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
            let mut derived = [0; 2 * KEY_BYTES];
            hasher.finalize_xof().fill(&mut derived);
            if !places(&store, &derived[KEY_BYTES..]).is_empty() {
                return [key, derived[..KEY_BYTES].try_into().unwrap()];
            }
        }
        panic!("no key that was drawn has its commitment in the store");
    }

    /// Every place in its memory where these bytes stand, with the kernel's flags of the mapping.
    fn find(&self, bytes: &[u8]) -> Vec<(u64, Vec<String>)> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let mut memory = fs::File::open(process.join("mem")).unwrap();
        let smaps = fs::read_to_string(process.join("smaps")).unwrap();
        let mut found = Vec::new();
        let mut range = 0..0;
        for line in smaps.lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            let address = |text| u64::from_str_radix(text, 16).ok();
            if let Some((from, to)) = first
                .split_once('-')
                .and_then(|(from, to)| Some((address(from)?, address(to)?)))
            {
                range = from..to;
            } else if first == "VmFlags:" {
                let flags: Vec<String> = line.split_whitespace().skip(1).map(str::to_owned).collect();
                let mut content = vec![0; (range.end - range.start) as usize];
                // What cannot be read (guard pages, the kernel's own) holds nothing of ours.
                if memory.seek(SeekFrom::Start(range.start)).is_ok()
                    && memory.read_exact(&mut content).is_ok()
                {
                    let places = places(&content, bytes);
                    found.extend(
                        places
                            .into_iter()
                            .map(|at| (range.start + at as u64, flags.clone())),
                    );
                }
            }
        }
        found
    }

    /// Makes it dump its core: the kernel on its abort, where it writes core files; else gdb.
    fn dump(mut self) -> Vec<u8> {
        let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let by_the_kernel = !pattern.contains(['|', '/']);
        if !by_the_kernel {
            let prefix = self.place.path().join("core").display().to_string();
            let made = Command::new("gcore")
                .args(["-o", &prefix, &self.child.id().to_string()])
                .output();
            let made =
                made.expect("the kernel writes no core file here, and there is no gcore (of gdb), either");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(!status.success());
        let core = core_file(self.place.path()).unwrap_or_else(|| {
            panic!("no core file by pattern {pattern:?}, {status}: is the hard limit of core files 0?")
        });
        println!("dumped by {}", if by_the_kernel { "the kernel" } else { "gdb" });
        fs::read(core).unwrap()
    }
}

fn core_file(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("core"))
}

fn places(haystack: &[u8], needle: &[u8]) -> Vec<usize> {
    let begins = haystack
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == needle[0]);
    begins
        .map(|(at, _)| at)
        .filter(|at| haystack[*at..].starts_with(needle))
        .collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    let hex: String = hex.chars().filter(char::is_ascii_hexdigit).collect();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn a_cached_epoch_key_is_in_memory_that_is_never_dumped_and_in_no_other_and_not_in_the_core_file() {
    let idle = Idle::start();
    let [epoch_key, wrapping_key] = idle.epoch_keys();
    let cached = idle.find(&wrapping_key);
    assert!(
        !cached.is_empty(),
        "the key is cached, and yet nowhere in the process's memory"
    );
    for (address, flags) in cached.iter().chain(&idle.find(&epoch_key)) {
        let undumpable = flags.iter().any(|flag| flag == "dd");
        assert!(
            undumpable,
            "{address:#x} is in a mapping that is dumped: {flags:?}"
        );
    }
    let copy = idle.copy.clone();
    assert!(!idle.find(&copy).is_empty());

    let core = idle.dump();
    assert!(
        !places(&core, &copy).is_empty(),
        "not even what stands in the heap is in the dump"
    );
    for (key, name) in [(epoch_key, "epoch key"), (wrapping_key, "wrapping key")] {
        // Half of it would be too much.
        for half in key.chunks(KEY_BYTES / 2) {
            assert!(places(&core, half).is_empty(), "the {name} is in the core dump");
        }
    }
    println!(
        "{} MiB of core; the key was {} times in memory",
        core.len() >> 20,
        cached.len()
    );
}
