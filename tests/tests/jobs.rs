//! Re-wrap jobs where something goes wrong in them: they go on as far as they can, say what is in their way, and hold nobody else.

mod common;

use common::{Bench, assert_sound, check_filled, fill, key};
use keystead::backend::{
    BackendError, Call, Context, Description, ErrorCode, KeyBackend, KeyInstance, LockedBytes, OpenRequest,
    Status, Wrapped,
};
use keystead::simulation::rewrap_step;
use keystead::{Backend, Env, Organization, RewrapState, Store, SystemEnv};
use keystead_tests::env::SimulatedEnv;
use keystead_tests::forge::{Forge, Table};
use keystead_tests::kms::SimulatedKms;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
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

type Hook = dyn Fn() -> Result<(), BackendError> + Send + Sync;

/// A KMS that does something else first when its key `old` is to unwrap.
#[derive(Clone)]
struct HookedKms {
    kms: SimulatedKms,
    hook: Arc<Mutex<Arc<Hook>>>,
}

impl HookedKms {
    fn before(bench: &Bench) -> Self {
        Self {
            kms: bench.kms.clone(),
            hook: Arc::new(Mutex::new(Arc::new(|| Ok(())))),
        }
    }

    fn set(&self, hook: impl Fn() -> Result<(), BackendError> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Arc::new(hook);
    }
}

impl KeyBackend for HookedKms {
    fn describe(&self) -> Description {
        self.kms.describe()
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let hooked = request.config.contains("\"old\"").then(|| Arc::clone(&self.hook));
        let inner = self.kms.open(request)?;
        Ok(Box::new(HookedKey { inner, hooked }))
    }
}

struct HookedKey {
    inner: Box<dyn KeyInstance>,
    hooked: Option<Arc<Mutex<Arc<Hook>>>>,
}

impl KeyInstance for HookedKey {
    fn status(&self, call: &Call) -> Result<Status, BackendError> {
        self.inner.status(call)
    }

    fn wrap(&self, call: &Call, context: &Context, plaintext: &[u8]) -> Result<Wrapped, BackendError> {
        self.inner.wrap(call, context, plaintext)
    }

    fn unwrap(&self, call: &Call, context: &Context, wrapped: &Wrapped) -> Result<LockedBytes, BackendError> {
        if let Some(hook) = &self.hooked {
            let hook = Arc::clone(&hook.lock().unwrap());
            hook()?;
        }
        self.inner.unwrap(call, context, wrapped)
    }
}

const EPOCHS: u32 = 20;

/// An organization with a secret in each of many epochs under its key `old`, none of them in memory, and keys to go to.
fn with_many_epochs(bench: &Bench, kms: &HookedKms, env: &Arc<SimulatedEnv>) -> (Store, Organization) {
    let store = Store::options()
        .backend(Backend::new(bench.kms.clone()).named("managed"))
        .backend(Backend::new(kms.clone()).named("customer-kms"))
        .kms_timeout(DEADLINE)
        .background_rewrap(false)
        .env(Arc::clone(env) as Arc<dyn Env>)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    let job = acme.keys().add("old", "customer-kms", key("old")).unwrap();
    job.run_here(|_| {}).unwrap();
    acme.put("s/1", "x").unwrap();
    for epoch in 2..=EPOCHS {
        acme.keys().set_default("old", false).unwrap();
        acme.put(&format!("s/{epoch}"), "x").unwrap();
    }
    for name in ["new", "newer"] {
        acme.keys().add(name, "customer-kms", key(name)).unwrap();
    }
    store.forget_epoch_keys();
    (store, acme)
}

const DEADLINE: Duration = Duration::from_secs(10);

/// The story: what hands epochs over asked the same dead KMS for each of them, and waited for each of its deadlines. It had the
/// organization's turn for key changes meanwhile, so that the way out, another target, waited for all of them as well.
#[test]
fn many_epochs_under_a_kms_that_swallows_calls_cost_one_deadline() {
    let bench = Bench::new();
    let (kms, env) = (HookedKms::before(&bench), Arc::new(SimulatedEnv::new(1)));
    let (store, acme) = with_many_epochs(&bench, &kms, &env);
    let clock = Arc::clone(&env);
    kms.set(move || {
        clock.advance(DEADLINE);
        Err(BackendError::new(ErrorCode::Timeout, "no answer"))
    });
    let deadlines = |act: &dyn Fn()| {
        let began = env.elapsed();
        act();
        (env.elapsed() - began).as_secs() / DEADLINE.as_secs()
    };
    let changed = deadlines(&|| drop(acme.keys().set_default("new", true).unwrap()));
    let stepped = deadlines(&|| assert!(!rewrap_step(&acme).unwrap()));
    let status = acme.rewrap_status().unwrap().unwrap();
    assert!(matches!(status.state, RewrapState::Blocked(_)), "{status:?}");
    let retargeted = deadlines(&|| drop(acme.keys().retarget("newer").unwrap()));
    let second = deadlines(&|| drop(acme.keys().set_second("new", false).unwrap_err()));
    assert_eq!((changed, stepped, retargeted, second), (1, 1, 1, 0));

    kms.set(|| Ok(()));
    let done = acme.rewrap_job().unwrap().run_here(|_| {}).unwrap();
    assert_eq!((done.state, done.done), (RewrapState::Done, u64::from(EPOCHS)));
    assert_sound(&store);
}

/// The same story with a KMS that answers, and takes its time: a change of keys comes between two hand-overs.
#[test]
fn a_change_of_keys_comes_between_the_hand_overs_of_a_job() {
    let bench = Bench::new();
    let (kms, env) = (HookedKms::before(&bench), Arc::new(SimulatedEnv::new(1)));
    let (store, acme) = with_many_epochs(&bench, &kms, &env);
    let unavailable = || Err(BackendError::new(ErrorCode::Unavailable, "away"));
    kms.set(unavailable);
    acme.keys().set_default("new", true).unwrap();

    let (by_the_job, retargeted) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, done, job) = (
        Arc::clone(&by_the_job),
        Arc::clone(&retargeted),
        std::thread::current().id(),
    );
    let (tell, told) = mpsc::channel();
    kms.set(move || {
        if std::thread::current().id() == job {
            count.fetch_add(1, Ordering::SeqCst);
            tell.send(()).ok();
            for _ in 0..100 {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    });
    let organization = &acme;
    std::thread::scope(|scope| {
        let (acme, retargeted) = (acme.clone(), Arc::clone(&retargeted));
        scope.spawn(move || {
            told.recv().unwrap();
            acme.keys().retarget("newer").unwrap();
            retargeted.store(true, Ordering::SeqCst);
        });
        rewrap_step(organization).unwrap();
        let handed_over = by_the_job.load(Ordering::SeqCst);
        assert!(handed_over < EPOCHS as usize, "all of {handed_over} came first");
    });
    while rewrap_step(&acme).unwrap() {}
    let done = acme.rewrap_status().unwrap().unwrap();
    assert_eq!((done.state, done.done), (RewrapState::Done, u64::from(EPOCHS)));
    assert_eq!(acme.epochs().unwrap().last().unwrap().key, "newer");
    assert_sound(&store);
}

/// The story: a count that somebody had raised in the file made the job scan and commit, at full speed, for ever.
#[test]
fn a_count_that_is_larger_than_its_rows_is_damage_that_the_job_names() {
    let bench = Bench::new();
    let store = bench.create();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 10);
    store.close().unwrap();
    drop((store, acme));
    Forge::of(&bench.path()).edit(&bench.path(), |rows| {
        let organization = 1_u32.to_be_bytes();
        let [(_, row)] = rows.all(Table::HEADS, &organization).try_into().unwrap();
        let mut head = row[..row.len() - 16].to_vec();
        // Its last two bytes are the counts of its one live epoch: data keys now, and ever.
        let count = head.len() - 2;
        assert_eq!(head[count..], [10, 10]);
        head[count] = 11;
        rows.put_record(Table::HEADS, &organization, &head);
    });
    let store = bench
        .options()
        .background_rewrap(false)
        .open(bench.path())
        .unwrap();
    let acme = store.organization("acme").unwrap();
    acme.keys().rotate("managed").unwrap();
    let refused = (0..10).find_map(|_| rewrap_step(&acme).err()).expect("it ends");
    assert!(refused.is_damaged(), "{refused}");
    let status = acme.rewrap_status().unwrap().unwrap();
    let RewrapState::Blocked(reason) = &status.state else {
        panic!("{status:?}")
    };
    assert!(
        reason.contains("count is 1") && reason.contains("epoch 1"),
        "{reason}"
    );
    check_filled(&acme, 10);
}

/// The story: only what is usual, such as a KMS that is away, was written down as the reason why a job waits. After anything else it
/// failed again and again, and its status said that it runs.
#[test]
fn a_job_whose_target_is_exhausted_says_so_and_goes_on_with_another() {
    let bench = Bench::new();
    let store = bench.create();
    fill(&store.create_organization("acme").unwrap(), 150);
    drop(store);
    let store = bench
        .options()
        .wraps_per_epoch_max(100)
        .rewrap_batch(20)
        .open(bench.path())
        .unwrap();
    let acme = store.organization("acme").unwrap();
    let job = acme.keys().rotate("managed").unwrap();
    let (tell, told) = mpsc::channel();
    let done = job.wait_for(PATIENCE, |status| {
        if let RewrapState::Blocked(reason) = &status.state
            && tell.send((reason.clone(), status.remaining)).is_ok()
        {
            acme.keys().retarget("managed").unwrap();
        }
    });
    let (reason, remaining) = told.recv().unwrap();
    assert!(
        reason.contains("limit of wraps") && reason.contains("target"),
        "{reason}"
    );
    assert_eq!(remaining, 50);
    assert_eq!(done.unwrap().expect("it goes on").done, 150);
    check_filled(&acme, 150);
    assert_sound(&store);
}

/// The story: the rate of an organization's second job was counted from where its first one ended, and read 0.
#[test]
fn the_rate_of_a_job_is_its_own() {
    let bench = Bench::new();
    let env = Arc::new(SimulatedEnv::new(1));
    let store = bench
        .options()
        .env(Arc::clone(&env) as Arc<dyn Env>)
        .background_rewrap(false)
        .rewrap_batch(10)
        .rewrap_batches_per_step(1)
        .create(bench.path())
        .unwrap();
    let acme = store.create_organization("acme").unwrap();
    fill(&acme, 100);
    for _ in 0..2 {
        let job = acme.keys().rotate("managed").unwrap();
        assert!(job.status().unwrap().rate.abs() < 0.001);
        env.advance(Duration::from_secs(10));
        for _ in 0..3 {
            rewrap_step(&acme).unwrap();
        }
        let status = job.status().unwrap();
        assert!((status.rate - 3.0).abs() < 0.001, "{status:?}");
        job.run_here(|_| {}).unwrap();
        assert!(job.status().unwrap().rate.abs() < 0.001);
    }
}
