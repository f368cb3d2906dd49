//! What the process around it may do to the loader: its environment, its working directory, its being set-uid; what a plugin does
//! to the process. Each in a process of its own, which is this test binary again.
#![cfg(target_os = "linux")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output};

use common::{c_plugin, context, directory, install, load, open, set_mode};
use keystead_backend::{Call, KeyBackend};
use keystead_loader::{Plugin, PluginSource, Refusal};

/// Says to this binary that it is the other process, and what it is to do.
const PART: &str = "KEYSTEAD_LOADER_PART";
const PLUGIN: &str = "KEYSTEAD_LOADER_PLUGIN";

/// Has `program`, this binary or a copy of it, do a part.
fn part(program: &Path, part: &str, plugin: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--exact", "the_other_process", "--nocapture"]);
    command.env(PART, part).env(PLUGIN, plugin);
    command
}

fn own() -> std::path::PathBuf {
    std::env::current_exe().expect("known")
}

fn ran(command: &mut Command) -> Output {
    let output = command.output().expect("starts");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Not a claim by itself: what the others have done in a process of its own. Started without a part it has none.
#[test]
fn the_other_process() {
    let (Ok(part), Ok(plugin)) = (std::env::var(PART), std::env::var(PLUGIN)) else {
        return;
    };
    let plugin = Path::new(&plugin);
    match part.as_str() {
        "good alone" => {
            for name in ["libfaulty.so", "./libfaulty.so", "faulty"] {
                let error = Plugin::load(&PluginSource::new(name).dangerously_without_digest())
                    .expect_err("relative");
                assert!(matches!(error.refusal(), Refusal::RelativePath), "{error}");
            }
            assert_eq!(load(plugin).expect("in order").describe().name, "good");
        }
        "owned by who started us" => {
            let (real, effective) = (rustix::process::getuid(), rustix::process::geteuid());
            assert!(!real.is_root() && effective.is_root(), "{real:?} {effective:?}");
            let error = load(plugin).expect_err("another's");
            assert!(
                matches!(error.refusal(), Refusal::Owner { owner_uid, .. } if *owner_uid == real.as_raw()),
                "{error}"
            );
        }
        fault => {
            let key = open(&load(plugin).expect("in order"), fault).expect("opens");
            let wrapped = key.wrap(
                &Call::with_timeout(std::time::Duration::from_secs(5)),
                &context("1"),
                &[7; 32],
            );
            panic!("it returned: {wrapped:?}");
        }
    }
}

#[test]
fn the_environment_and_the_working_directory_lead_to_no_other_plugin() {
    let (good, evil) = (directory(), directory());
    let plugin = c_plugin("faulty", &["NAME=\"good\""], good.path());
    c_plugin("faulty", &["NAME=\"evil\""], evil.path());
    let mut command = part(&own(), "good alone", &plugin);
    for variable in [
        "LD_LIBRARY_PATH",
        "PATH",
        "KEYSTEAD_PLUGINS",
        "KEYSTEAD_PLUGIN_PATH",
    ] {
        command.env(variable, evil.path());
    }
    ran(command.current_dir(evil.path()));
}

/// Why there is no set-uid program of this user in this place; none when there can be one.
fn keeps_from_set_uid(place: &Path, user: u32) -> Option<String> {
    use rustix::fs::StatVfsMountFlags;
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    let mounted = rustix::fs::statvfs(place).expect("there").f_flag;
    if mounted.intersects(StatVfsMountFlags::NOSUID | StatVfsMountFlags::NOEXEC) {
        return Some(format!("{} is mounted {mounted:?}", place.display()));
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    if status.lines().any(|line| line == "NoNewPrivs:\t1") {
        return Some("this process may gain no privileges".to_owned());
    }
    let probe = place.join("probe");
    std::fs::write(&probe, "").expect("ours");
    match std::os::unix::fs::chown(&probe, Some(user), None) {
        Ok(()) => None,
        // In a user namespace.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            Some(format!("there is no user {user} here"))
        }
        Err(error) => panic!("root may: {error}"),
    }
}

/// Only root can make such a program, and not everywhere. Otherwise the same rule is shown by the policy's own test *what belongs to
/// another user is refused file or directory*, wherever there is another user.
#[test]
fn in_a_set_uid_program_a_plugin_of_who_started_it_is_refused_and_the_environment_ignored() {
    const STARTER: u32 = 12_345;
    let (place, evil) = (directory(), directory());
    let plugin = c_plugin("faulty", &["NAME=\"good\""], place.path());
    c_plugin("faulty", &["NAME=\"evil\""], evil.path());
    if let Some(reason) = keeps_from_set_uid(place.path(), STARTER) {
        println!("left out, see the policy's own test: {reason}");
        return;
    }
    let program = install(&own(), place.path(), "set-uid");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).expect("ours");
    let as_starter = |what: &str| {
        let mut command = part(&program, what, &plugin);
        command
            .uid(STARTER)
            .env("LD_LIBRARY_PATH", evil.path())
            .current_dir(evil.path());
        ran(&mut command);
    };
    as_starter("good alone");
    std::os::unix::fs::chown(&plugin, Some(STARTER), None).expect("root may");
    as_starter("owned by who started us");
}

/// What an in-process plugin cannot be stopped from. The loader says so; this shows that it is so.
#[test]
fn a_plugin_that_exits_aborts_or_crashes_takes_the_process_with_it() {
    let directory = directory();
    let plugin = c_plugin("faulty", &[], directory.path());
    let status = |fault: &str| part(&own(), fault, &plugin).output().expect("starts").status;
    assert_eq!(status("exits").code(), Some(42));
    assert_eq!(status("exits at once").code(), Some(43));
    assert_eq!(status("aborts").signal(), Some(6));
    assert_eq!(status("writes where nothing is").signal(), Some(11));
}

#[test]
fn a_plugin_can_keep_the_key_that_it_was_given() {
    let directory = directory();
    let plugin = load(&c_plugin("faulty", &["VARIANT=200"], directory.path())).expect("in order");
    let key = open(&plugin, "keeps the key").expect("opens");
    let call = Call::with_timeout(std::time::Duration::from_secs(5));
    key.wrap(&call, &context("1"), b"an epoch key of 32 bytes, in clear")
        .expect("wraps");
    key.wrap(&call, &context("1"), b"an epoch key of 32 bytes, clear!")
        .expect("wraps");
    let detail = key.status(&call).expect("answers").detail;
    assert_eq!(
        detail, "an epoch key of 32 bytes, clear!",
        "after the call that it was given for"
    );
}

#[test]
fn a_plugins_symbols_are_offered_to_nobody_else() {
    let directory = directory();
    let plugin = load(&c_plugin("faulty", &["VARIANT=201"], directory.path())).expect("in order");
    assert_eq!(plugin.describe().name, "faulty");
    let process = libloading::os::unix::Library::this();
    for symbol in ["keystead_test_variant", "keystead_backend_get_interface"] {
        // SAFETY: it is looked for and not used.
        #[allow(unsafe_code)]
        let found = unsafe { process.get::<*const u8>(symbol.as_bytes()) };
        assert!(found.is_err(), "{symbol} is visible in the whole process");
    }
}

#[test]
fn every_symbol_that_a_plugin_needs_is_resolved_when_it_is_loaded_not_when_it_is_called() {
    let directory = directory();
    let error =
        load(&c_plugin("faulty", &["NEEDS_WHAT_NOBODY_HAS"], directory.path())).expect_err("unresolved");
    assert!(
        matches!(error.refusal(), Refusal::Link { reason } if reason.contains("keystead_test_nowhere")),
        "{error}"
    );
}

#[test]
fn a_sparse_file_of_a_tebibyte_is_refused_without_being_read() {
    let directory = directory();
    let path = directory.path().join("giant.so");
    let file = std::fs::File::create(&path).expect("made");
    set_mode(&path, 0o644);
    if file.set_len(1 << 40).is_err() {
        file.set_len(1 << 32).expect("4 GiB fit everywhere");
    }
    let error = Plugin::load(&PluginSource::new(&path).dangerously_without_digest()).expect_err("too large");
    assert!(matches!(error.refusal(), Refusal::TooLarge { .. }), "{error}");
}
