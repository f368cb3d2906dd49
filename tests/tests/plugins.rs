//! A store beside a plugin that goes wrong: every fault is a typed error to who asked, costs nobody else anything, and what is in the
//! store stays readable as soon as the plugin is right again. The plugin is `backends/loader/tests/plugins/faulty.c`.

mod common;

use keystead::{Backend, Error, Store, StoreOptions};
use keystead_loader::{Plugin, PluginSource, digest_file};
use keystead_tests::kms::SimulatedKms;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The deadline of a call. Of this a call may wait half for a thread, however busy the machine.
const TIMEOUT: Duration = Duration::from_secs(8);

struct Place {
    directory: tempfile::TempDir,
    plugin: PathBuf,
}

impl Place {
    /// A plugin of its own for each test: one that was stopped is stopped in the whole process.
    fn new(variant: u32) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("keystead-plugins-")
            .tempdir_in("/tmp")
            .unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let plugin = directory.path().join("libfaulty.so");
        build(&plugin, variant);
        Self { directory, plugin }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store.keystead")
    }

    /// The file that makes the fault begin.
    fn now(&self) -> PathBuf {
        self.directory.path().join("now")
    }

    fn begin_fault(&self) {
        std::fs::write(self.now(), "").unwrap();
    }

    fn config(&self, fault: &str) -> serde_json::Value {
        serde_json::json!({ "fault": format!("{fault}@{}", self.now().display()) })
    }

    fn options(&self, kms: &SimulatedKms) -> StoreOptions {
        let source = PluginSource::new(&self.plugin).digest(digest_file(&self.plugin).unwrap());
        Store::options()
            .backend(Backend::new(kms.clone()).named("managed"))
            .backend(Backend::new(Plugin::load(&source).unwrap()).named("faulty"))
            .kms_timeout(TIMEOUT)
            .kms_attempts_max(1)
    }
}

/// Builds the plugin, other bytes for each variant.
fn build(plugin: &Path, variant: u32) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args([
            "-std=c11",
            "-shared",
            "-fPIC",
            &format!("-DVARIANT={variant}"),
            "-I",
        ])
        .arg(here.join("../backends/api/include"))
        .arg("-o")
        .args([plugin, &here.join("../backends/loader/tests/plugins/faulty.c")])
        .status()
        .unwrap();
    assert!(built.success());
    std::fs::set_permissions(plugin, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn whatever_a_plugin_answers_a_store_gives_the_right_value_or_a_typed_error_and_nobody_else_is_concerned() {
    for (variant, fault) in [
        "unwrap answers half",
        "unwrap answers nothing",
        "unwrap answers another key",
        "unwrap answers twice as much",
        "unwrap claims too much",
        "unwrap overruns",
    ]
    .into_iter()
    .enumerate()
    {
        let (place, kms) = (Place::new(300 + variant as u32), SimulatedKms::new());
        let store = place.options(&kms).create(place.store()).unwrap();
        let (acme, other) = (
            store.create_organization("acme").unwrap(),
            store.create_organization("other").unwrap(),
        );
        other.put("theirs", "unconcerned").unwrap();
        acme.put("ours", "before").unwrap();
        acme.keys()
            .add("cmk", "faulty", place.config(fault))
            .unwrap()
            .wait()
            .unwrap();

        place.begin_fault();
        store.forget_epoch_keys();
        for outcome in [
            acme.get("ours").map(drop),
            acme.put("ours", "not written").map(drop),
        ] {
            let error = outcome.expect_err(fault);
            assert!(matches!(error, Error::Kms { .. }), "{fault}: {error:?}");
        }
        assert_eq!(other.get("theirs").unwrap().value, b"unconcerned");
        other.put("theirs", "still").unwrap();
        assert_eq!(
            acme.list("", None, 10).unwrap().items.len(),
            1,
            "what needs no key goes on"
        );
        drop((acme, other, store));
        if fault == "unwrap overruns" {
            continue; // stopped for the rest of this process
        }
        std::fs::remove_file(place.now()).unwrap();
        let store = place.options(&kms).open(place.store()).unwrap();
        assert_eq!(
            store.organization("acme").unwrap().get("ours").unwrap().value,
            b"before"
        );
        common::assert_sound(&store);
    }
}

#[test]
fn a_plugin_that_blocks_for_ever_costs_its_caller_the_deadline_and_nobody_else_anything() {
    let (place, kms) = (Place::new(320), SimulatedKms::new());
    let store = place.options(&kms).create(place.store()).unwrap();
    let (acme, other) = (
        store.create_organization("acme").unwrap(),
        store.create_organization("other").unwrap(),
    );
    acme.put("ours", "before").unwrap();
    acme.keys()
        .add("cmk", "faulty", place.config("blocks for ever"))
        .unwrap()
        .wait()
        .unwrap();
    place.begin_fault();
    std::thread::scope(|threads| {
        let blocked = threads.spawn(|| acme.keys().rotate("cmk").map(drop));
        while !blocked.is_finished() {
            other.put("theirs", "meanwhile").unwrap();
            assert_eq!(acme.get("ours").unwrap().value, b"before", "its key is cached");
        }
        let error = blocked.join().unwrap().expect_err("it never answers");
        assert!(matches!(error, Error::Kms { .. }), "{error:?}");
        assert!(error.to_string().contains("no answer within 8000 ms"), "{error}");
    });
    common::assert_sound(&store);
    store.close().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn of_six_plugins_that_wait_for_their_first_use_the_one_that_is_used_is_mapped_into_the_process() {
    let (place, kms) = (Place::new(340), SimulatedKms::new());
    let sources: Vec<(String, PluginSource)> = (0..6)
        .map(|number| {
            let name = format!("keystead-waits-{number}");
            let plugin = place.directory.path().join(&name);
            build(&plugin, 341 + number);
            let source = PluginSource::new(&plugin).digest(digest_file(&plugin).unwrap());
            (name, source)
        })
        .collect();
    let options = || {
        let managed = Backend::new(kms.clone()).named("managed");
        sources
            .iter()
            .fold(Store::options().backend(managed), |options, (name, source)| {
                let source = source.clone();
                options.backend(Backend::deferred(name, move || Ok(Plugin::load(&source)?)))
            })
    };
    let mapped = || -> Vec<&str> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let names = sources.iter().map(|(name, _)| name.as_str());
        names.filter(|name| maps.contains(name)).collect()
    };
    let store = options().create(place.store()).unwrap();
    let acme = store.create_organization("acme").unwrap();
    acme.put("ours", "a value").unwrap();
    assert_eq!(mapped(), [""; 0], "no key needs one yet");
    acme.keys()
        .add("cmk", "keystead-waits-4", serde_json::json!({}))
        .unwrap()
        .wait()
        .unwrap();
    assert_eq!(mapped(), ["keystead-waits-4"]);
    drop((acme, store));
    let store = options().open(place.store()).unwrap();
    assert_eq!(
        store.organization("acme").unwrap().get("ours").unwrap().value,
        b"a value"
    );
    assert_eq!(mapped(), ["keystead-waits-4"]);

    // What is at a path by then is another plugin than the one that was meant: the use of its key says so, and changes nothing.
    let (name, source) = &sources[2];
    build(source.path(), 350);
    let acme = store.organization("acme").unwrap();
    let error = acme.keys().add("other", name, serde_json::json!({})).unwrap_err();
    assert!(error.to_string().contains("step 4, digest"), "{error}");
    std::fs::remove_file(source.path()).unwrap();
    let error = acme.keys().add("other", name, serde_json::json!({})).unwrap_err();
    assert!(error.to_string().contains("step 2, permissions"), "{error}");
    assert_eq!(
        (mapped(), acme.keys().list().unwrap().len()),
        (vec!["keystead-waits-4"], 2)
    );
}

/// Says to this test binary that it is the process in which a plugin exits.
const DIES_IN: &str = "KEYSTEAD_PLUGINS_DIES_IN";

#[test]
fn what_was_acknowledged_survives_a_plugin_that_exits_in_the_middle_of_a_rotation() {
    const NAME: &str = "what_was_acknowledged_survives_a_plugin_that_exits_in_the_middle_of_a_rotation";
    let work = |place: &Place, kms: &SimulatedKms| {
        let store = place.options(kms).create(place.store()).unwrap();
        let acme = store.create_organization("acme").unwrap();
        acme.keys()
            .add("cmk", "faulty", place.config("exits"))
            .unwrap()
            .wait()
            .unwrap();
        acme.put("ours", "acknowledged").unwrap();
        place.begin_fault();
        acme.keys().rotate("cmk").map(drop)
    };
    let kms = SimulatedKms::new();
    if let Ok(directory) = std::env::var(DIES_IN) {
        let place = Place::new(330);
        std::fs::write(
            Path::new(&directory).join("place"),
            place.directory.path().display().to_string(),
        )
        .unwrap();
        let outcome = work(&place, &kms);
        panic!("it returned: {outcome:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let died = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(DIES_IN, directory.path())
        .output()
        .unwrap();
    assert_eq!(
        died.status.code(),
        Some(42),
        "{}",
        String::from_utf8_lossy(&died.stdout)
    );
    let left = std::fs::read_to_string(directory.path().join("place")).unwrap();

    let place = Place::new(330);
    std::fs::rename(Path::new(&left).join("store.keystead"), place.store()).unwrap();
    std::fs::remove_dir_all(left).unwrap();
    let store = place.options(&kms).open(place.store()).unwrap();
    let acme = store.organization("acme").unwrap();
    assert_eq!(acme.get("ours").unwrap().value, b"acknowledged");
    assert_eq!(acme.epochs().unwrap().len(), 2, "the rotation did not happen");
    common::assert_sound(&store);
}
