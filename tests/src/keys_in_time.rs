//! What a KMS says, and when, decides what serves: a story of a lifetime, an outage and a revocation, by a simulated clock.

use crate::checkers::{Failure, Harm};
use crate::disk::SimulatedDisk;
use crate::env::SimulatedEnv;
use crate::gate::GatedKms;
use crate::kms::SimulatedKms;
use crate::life;
use keystead::backend::ErrorCode;
use keystead::{EpochState, Error, Organization, RewrapState, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LIFETIME: Duration = Duration::from_secs(600);
/// Longer than a failure is remembered.
const A_WHILE: Duration = Duration::from_secs(5);

/// A store, its KMS and its clock.
struct Scene<'s> {
    kms: SimulatedKms,
    env: Arc<SimulatedEnv>,
    store: Store,
    acme: Organization,
    steps: &'s AtomicU64,
}

type Told<T> = Result<T, Failure>;

fn failure(checker: &'static str, story: impl Into<String>) -> Failure {
    Failure {
        checker,
        harm: Harm::Other,
        story: story.into(),
    }
}

impl<'s> Scene<'s> {
    /// One secret under the managed key.
    fn open(seed: u64, steps: &'s AtomicU64) -> Told<Self> {
        let (kms, env) = (SimulatedKms::new(), Arc::new(SimulatedEnv::new(seed)));
        let begin = || -> keystead::Result<_> {
            let store = life::options(&GatedKms::new(kms.clone()), Arc::clone(&env))
                .key_lifetime(LIFETIME)
                .create_on_disk(SimulatedDisk::new())?;
            let acme = store.create_organization("acme")?;
            acme.put("old", "an old value")?;
            Ok((store, acme))
        };
        let (store, acme) = begin().map_err(|error| failure("acknowledged", error.to_string()))?;
        Ok(Self {
            kms,
            env,
            store,
            acme,
            steps,
        })
    }

    /// Does something that must go well.
    fn does<T>(&self, doing: &str, done: keystead::Result<T>) -> Told<T> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        done.map_err(|error| failure("acknowledged", format!("{doing}: {error}")))
    }

    fn reads(&self, checker: &'static str, path: &str, when: &str) -> Told<()> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        match self.acme.get(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(checker, format!("{when}, {path} does not read: {error}"))),
        }
    }

    fn refuses(
        &self,
        checker: &'static str,
        path: &str,
        when: &str,
        is_right: fn(&Error) -> bool,
    ) -> Told<()> {
        self.steps.fetch_add(1, Ordering::Relaxed);
        match self.acme.get(path) {
            Ok(_) => Err(failure(checker, format!("{when}, {path} reads"))),
            Err(error) if is_right(&error) => Ok(()),
            Err(error) => Err(failure(
                checker,
                format!("{when}, {path} is refused for: {error}"),
            )),
        }
    }

    fn add_own_key(&self) -> Told<()> {
        let config = serde_json::json!({ "key": "own" });
        let added = self.acme.keys().add("own", "customer-kms", config);
        let job = self.does("adding a key", added)?;
        self.does("its job", job.run_here(|_| {}))?;
        Ok(())
    }
}

/// An outage is served through for the rest of the lifetime and no longer, however often the key is used; and it takes nothing
/// away.
///
/// # Errors
///
/// The promise that was broken.
pub fn an_outage(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    let scene = Scene::open(seed, steps)?;
    scene.store.forget_epoch_keys();
    scene.reads("outage_is_no_revocation", "old", "before the outage")?;
    scene.kms.fail("managed", ErrorCode::Unavailable);
    for tenth in 1..10 {
        scene.env.advance(LIFETIME / 10);
        for _ in 0..3 {
            let when = format!("in an outage, at {tenth} tenths of the lifetime");
            scene.reads("outage_is_no_revocation", "old", &when)?;
        }
    }
    scene.env.advance(LIFETIME / 10);
    scene.refuses(
        "lifetime_ends",
        "old",
        "in an outage, at the lifetime's end",
        |error| error.is_retryable() && !error.is_revoked(),
    )?;
    // What needs no key goes on.
    scene.does("listing epochs", scene.acme.epochs())?;
    scene.does("reading the audit trail", scene.acme.audit(0, 100))?;
    scene.kms.restore("managed");
    scene.env.advance(A_WHILE);
    scene.reads("outage_is_no_revocation", "old", "after the outage")
}

/// A key that was taken away is dropped at once, with every epoch that it had opened, and nothing else happens to what it
/// protects.
///
/// # Errors
///
/// The promise that was broken.
pub fn a_revocation(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    let scene = Scene::open(seed, steps)?;
    scene.add_own_key()?;
    scene.does("rotating", scene.acme.keys().rotate("own"))?;
    scene.does("a put", scene.acme.put("new", "a new value"))?;
    scene.store.forget_epoch_keys();
    // Two epochs of one key; the second is asked for again when the first is still young.
    scene.reads("revocation_is_honoured", "new", "before it")?;
    scene.env.advance(LIFETIME * 2 / 5);
    scene.reads("revocation_is_honoured", "old", "before it")?;
    scene.env.advance(LIFETIME / 5);
    scene.kms.fail("own", ErrorCode::KeyDisabled);
    // This use finds out.
    drop(scene.acme.get("new"));
    for path in ["new", "old"] {
        let when = "once the KMS said that the key was taken away";
        scene.refuses("revocation_is_honoured", path, when, Error::is_revoked)?;
    }
    scene.does("listing keys", scene.acme.keys().list())?;
    scene.kms.restore("own");
    scene.env.advance(A_WHILE);
    scene.reads("revocation_is_honoured", "old", "when the key is given back")?;
    scene.reads("revocation_is_honoured", "new", "when the key is given back")
}

/// The old KMS is out of reach when the epoch is to be handed over: the job waits, the epoch stays with all that it has, and
/// everything goes on once the KMS answers.
///
/// # Errors
///
/// The promise that was broken.
pub fn an_outage_at_the_hand_over(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    let scene = Scene::open(seed, steps)?;
    scene.store.forget_epoch_keys();
    scene.kms.fail("managed", ErrorCode::Unavailable);
    let config = serde_json::json!({ "key": "own" });
    let added = scene.acme.keys().add("own", "customer-kms", config);
    let job = scene.does("adding a key", added)?;
    let status = scene.does("its job", job.run_here(|_| {}))?;
    if !matches!(status.state, RewrapState::Blocked(_)) {
        return Err(failure(
            "job_finishes",
            format!("it does not wait for the KMS: {status:?}"),
        ));
    }
    let epochs = scene.does("listing epochs", scene.acme.epochs())?;
    if epochs[0].state == EpochState::Retired {
        return Err(failure("one_wrap", "an epoch with a data key is retired"));
    }
    scene.kms.restore("managed");
    scene.env.advance(A_WHILE);
    let status = scene.does("its job", job.run_here(|_| {}))?;
    if status.state != RewrapState::Done {
        return Err(failure("job_finishes", format!("it does not go on: {status:?}")));
    }
    scene.kms.fail("managed", ErrorCode::KeyDisabled);
    scene.store.forget_epoch_keys();
    scene.reads("old_keys_open_nothing", "old", "without the old KMS")
}

/// Two keys wrap each epoch. An outage of either is served through, of both it is one; an epoch that the second could not wrap
/// is wrapped later; the first one's revocation holds although the second would open; a removed one opens nothing.
///
/// # Errors
///
/// The promise that was broken.
pub fn two_keys(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    let scene = Scene::open(seed, steps)?;
    scene.add_own_key()?;
    let config = serde_json::json!({ "key": "other" });
    scene.does(
        "adding a key",
        scene.acme.keys().add("other", "customer-kms", config),
    )?;
    scene.does(
        "setting the second key",
        scene.acme.keys().set_second("other", false),
    )?;
    let serves = |when: &str| {
        scene.store.forget_epoch_keys();
        scene.reads("either_key_opens", "old", when)
    };
    let gives_back = |key: &str| {
        scene.kms.restore(key);
        scene.env.advance(A_WHILE);
    };
    for down in ["own", "other"] {
        scene.kms.fail(down, ErrorCode::Unavailable);
        serves(&format!("while {down} is out of reach"))?;
        scene.does("a put", scene.acme.put("new", down))?;
        gives_back(down);
    }
    for key in ["own", "other"] {
        scene.kms.fail(key, ErrorCode::Unavailable);
    }
    scene.store.forget_epoch_keys();
    scene.refuses("lifetime_ends", "old", "while both are out of reach", |error| {
        error.is_retryable() && !error.is_revoked()
    })?;
    gives_back("own");
    serves("when the first is back")?;
    // An epoch that is opened while the second is away.
    let job = scene.does("rotating", scene.acme.keys().rotate("own"))?;
    gives_back("other");
    scene.does("its job", job.run_here(|_| {}))?;
    scene.steps.fetch_add(1, Ordering::Relaxed);
    let second = scene.does("the second key's status", scene.acme.keys().second())?;
    let missing = second.map(|second| second.missing);
    if missing != Some(0) {
        let story = format!("the second key does not wrap every epoch: {missing:?} are missing");
        return Err(failure("job_finishes", story));
    }
    scene.kms.fail("own", ErrorCode::KeyDisabled);
    scene.store.forget_epoch_keys();
    let when = "while the first key is revoked";
    scene.refuses("revocation_is_honoured", "old", when, Error::is_revoked)?;
    gives_back("own");
    scene.does("removing the second key", scene.acme.keys().remove_second())?;
    scene.kms.fail("own", ErrorCode::Unavailable);
    scene.store.forget_epoch_keys();
    let when = "in an outage, without a second key any more";
    scene.refuses("old_keys_open_nothing", "old", when, Error::is_retryable)
}
