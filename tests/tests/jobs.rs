//! Re-wrap jobs where something goes wrong in them: they go on as far as they can, say what is in their way, and hold nobody else.

mod common;

use common::{Bench, assert_sound, check_filled, fill, key};
use keystead::{Env, RewrapState, SystemEnv};
use keystead_tests::env::SimulatedEnv;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A source of randomness that panics on the threads that re-wrap, for as long as it is told to.
#[derive(Debug, Default)]
struct Panicking {
    env: SystemEnv,
    panics: AtomicBool,
}

impl Env for Panicking {
    fn now(&self) -> Duration {
        self.env.now()
    }

    fn elapsed(&self) -> Duration {
        self.env.elapsed()
    }

    fn fill_random(&self, out: &mut [u8]) -> Result<(), std::io::Error> {
        let rewraps = std::thread::current().name() == Some("keystead-rewrap");
        // Not when the job decides how long it waits, which is one byte.
        if rewraps && out.len() > 1 && self.panics.load(Ordering::SeqCst) {
            panic!("planted by a test");
        }
        self.env.fill_random(out)
    }
}

/// The story: a panic on a thread that re-wraps ended the thread without counting it out, and closing the store waited for it for
/// ever.
#[test]
fn a_step_that_panics_blocks_its_job_and_keeps_no_store_from_closing() {
    let bench = Bench::new();
    let env = Arc::new(Panicking::default());
    let store = bench
        .options()
        .env(Arc::clone(&env) as Arc<dyn Env>)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 100);
    env.panics.store(true, Ordering::SeqCst);
    let job = acme.keys().add("one", "customer-kms", key("one")).unwrap();
    let (tell, told) = mpsc::channel();
    let waited = job.wait_for(PATIENCE, |status| {
        if let RewrapState::Blocked(reason) = &status.state {
            tell.send(reason.clone()).unwrap();
            env.panics.store(false, Ordering::SeqCst);
        }
    });
    // It tried again, and nothing panicked any more.
    assert_eq!(waited.unwrap().unwrap().done, 100);
    let reason = told.recv().unwrap();
    assert!(
        reason.contains("panicked") && !reason.contains("planted"),
        "{reason}"
    );
    check_filled(&acme, 100);
    assert_sound(&store);

    env.panics.store(true, Ordering::SeqCst);
    acme.keys().rotate("one").unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(store.close()).unwrap());
    told.recv_timeout(PATIENCE).expect("closing comes back").unwrap();
}

/// The story: a re-wrap takes further threads for its batches, and panicked where the system had none left.
#[test]
fn a_re_wrap_goes_on_where_no_thread_can_be_started() {
    const OWN_NAME: &str = "a_re_wrap_goes_on_where_no_thread_can_be_started";
    const STACK: &str = "RUST_MIN_STACK";
    if std::env::var_os(STACK).is_none() {
        // A stack as large as all that a process can address.
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", OWN_NAME, "--test-threads=1"])
            .env(STACK, (1_u64 << 47).to_string())
            .status()
            .unwrap();
        return assert!(child.success(), "{child}");
    }
    std::thread::Builder::new().spawn(|| ()).unwrap_err();
    let bench = Bench::new();
    let store = bench
        .options()
        .env(Arc::new(SimulatedEnv::new(1)))
        .background_rewrap(false)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 5_000);
    let job = acme.keys().rotate("managed").unwrap();
    let status = job.run_here(|_| {}).unwrap();
    assert_eq!((status.state, status.done), (RewrapState::Done, 5_000));
    assert_sound(&store);
}
