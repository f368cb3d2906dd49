//! Two calls, interleaved: the first one is stopped at each moment at which it asks for the time or for random bytes, and
//! there the second one runs, on a thread of its own, to its end or as far as the first one's locks let it.
//!
//! An engine that is correct does not care: both are done, in one order or the other, and nothing is wrong afterwards.

use crate::checkers::{Failure, Harm};
use crate::disk::SimulatedDisk;
use crate::env::SimulatedEnv;
use crate::gate::GatedKms;
use crate::kms::SimulatedKms;
use crate::life;
use crate::model::{self, Action, Model};
use crate::observe::{observe, verify};
use keystead::{Env, Store};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::ThreadId;
use std::time::Duration;

/// How long the second call may take before it is taken to wait for the first one.
const PATIENCE: Duration = Duration::from_millis(40);

/// A simulated clock and randomness at which one thread can be stopped.
struct Stops {
    env: SimulatedEnv,
    armed: Mutex<Option<Armed>>,
}

struct Armed {
    thread: ThreadId,
    calls: u64,
    stop_at: u64,
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stops")
    }
}

impl Stops {
    /// Does `first` on this thread, and `meanwhile` at its call number `stop_at`; says how many calls there were.
    fn during<T>(
        &self,
        stop_at: u64,
        meanwhile: impl FnOnce() + Send + 'static,
        first: impl FnOnce() -> T,
    ) -> (T, u64) {
        *self.lock() = Some(Armed {
            thread: std::thread::current().id(),
            calls: 0,
            stop_at,
            meanwhile: Some(Box::new(meanwhile)),
        });
        let outcome = first();
        let calls = self.lock().take().map_or(0, |armed| armed.calls);
        (outcome, calls)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut armed = self.lock();
        let meanwhile = armed.as_mut().and_then(|armed| {
            if armed.thread != std::thread::current().id() {
                return None;
            }
            armed.calls += 1;
            (armed.calls == armed.stop_at + 1)
                .then(|| armed.meanwhile.take())
                .flatten()
        });
        drop(armed);
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }
}

impl Env for Stops {
    fn now(&self) -> Duration {
        self.stop();
        self.env.now()
    }

    fn elapsed(&self) -> Duration {
        self.stop();
        self.env.elapsed()
    }

    fn fill_random(&self, out: &mut [u8]) -> io::Result<()> {
        self.stop();
        self.env.fill_random(out)
    }

    fn is_simulation(&self) -> bool {
        true
    }

    fn sleep(&self, duration: Duration) {
        self.env.sleep(duration);
    }
}

/// What is done one after the other, by one thread.
type Doing = Vec<Action>;

fn put(path: &str) -> Action {
    Action::Put {
        org: "acme".into(),
        put: (path.into(), 300),
    }
}

/// What was there before: two own keys, a job that waits with data keys of two epochs in it.
pub(crate) fn before() -> Doing {
    let org = || "acme".to_owned();
    let mut doing = vec![Action::CreateOrganization { org: org() }];
    doing.extend((0..5).map(|n| put(&format!("s/{n}"))));
    for key in ["k0", "k1"] {
        doing.push(Action::AddKey {
            org: org(),
            key: key.into(),
        });
    }
    doing.extend((5..8).map(|n| put(&format!("s/{n}"))));
    doing.push(Action::Rotate {
        org: org(),
        key: "k0".into(),
    });
    doing
}

/// The pairs. What they do to secrets, they do to different ones: then either order comes to the same.
fn pairs() -> Vec<(Doing, Doing)> {
    let org = || "acme".to_owned();
    let rewrap = || Action::Rewrap { org: org() };
    let rotate = || Action::Rotate {
        org: org(),
        key: "k0".into(),
    };
    let destroy = || Action::Destroy {
        org: org(),
        path: "s/2".into(),
        version: 1,
    };
    let disable_all = || Action::DisableAll { org: org() };
    let batch = || Action::Batch {
        org: org(),
        puts: (0..4).map(|n| (format!("b/{n}"), 100)).collect(),
    };
    vec![
        (vec![put("s/1")], vec![disable_all(), rewrap()]),
        (vec![batch()], vec![rotate(), rewrap()]),
        (vec![rewrap()], vec![destroy()]),
        (vec![rewrap()], vec![put("s/1"), rotate()]),
        (vec![rewrap()], vec![disable_all()]),
        (vec![disable_all()], vec![put("s/1"), destroy()]),
        (vec![rotate()], vec![batch()]),
    ]
}

fn perform_all(store: &Store, mut model: Model, doing: &[Action]) -> Result<Model, String> {
    for action in doing {
        model::perform(store, &model, action).map_err(|error| format!("{action:?}: {error}"))?;
        model = model.after(action);
    }
    Ok(model)
}

/// Interleaves every pair at every moment. `steps` counts the interleavings.
///
/// # Errors
///
/// The first promise that was broken.
pub fn every_pair_at_every_moment(seed: u64, steps: &AtomicU64) -> Result<(), Failure> {
    for (first, second) in pairs() {
        let mut stop_at = 0;
        loop {
            let story = format!(
                "KEYSTEAD_SEED={seed}, {first:?} was stopped at its call {stop_at} of clock or randomness, and {second:?} was done there"
            );
            steps.fetch_add(1, Ordering::Relaxed);
            let calls =
                interleave(seed, &first, &second, stop_at).map_err(|failure| failure.after(&story))?;
            stop_at += 1;
            if stop_at >= calls {
                break;
            }
        }
    }
    Ok(())
}

/// One interleaving, of actions in the organization `acme` as `before` left it; says at how many calls the first can be
/// stopped.
///
/// # Errors
///
/// The promise that was broken.
pub fn interleave(seed: u64, first: &[Action], second: &[Action], stop_at: u64) -> Result<u64, Failure> {
    let failed = |checker, story: String| Failure {
        checker,
        harm: Harm::Other,
        story,
    };
    let stops = Arc::new(Stops {
        env: SimulatedEnv::new(seed),
        armed: Mutex::default(),
    });
    let gate = GatedKms::new(SimulatedKms::new());
    let store = life::options(&gate, Arc::new(SimulatedEnv::new(seed)))
        .env(Arc::clone(&stops) as Arc<dyn Env>)
        .create_on_disk(SimulatedDisk::new())
        .map_err(|error| failed("acknowledged", error.to_string()))?;
    let base =
        perform_all(&store, Model::default(), &before()).map_err(|story| failed("acknowledged", story))?;

    let (tell, told) = mpsc::channel();
    let meanwhile = {
        let (store, base, second) = (store.clone(), base.clone(), second.to_vec());
        move || {
            let (tell_end, ended) = mpsc::channel();
            std::thread::spawn(move || {
                let outcome = perform_all(&store, base, &second);
                // The store must be let go before anybody waits for its end.
                drop(store);
                let _ = (tell.send(outcome), tell_end.send(()));
            });
            let _ = ended.recv_timeout(PATIENCE);
        }
    };
    let (outcome, calls) = stops.during(stop_at, meanwhile, || perform_all(&store, base.clone(), first));
    outcome.map_err(|story| failed("acknowledged", story))?;
    if stop_at >= calls {
        return Ok(calls);
    }
    told.recv()
        .unwrap_or_else(|_| Err("the second call panicked".into()))
        .map_err(|story| failed("acknowledged", story))?;

    let after =
        |model: &Model, doing: &[Action]| doing.iter().fold(model.clone(), |m, action| m.after(action));
    let orders = [
        after(&after(&base, first), second).view,
        after(&after(&base, second), first).view,
    ];
    let check = |doing: &str| {
        let seen = observe(&store).map_err(|story| failed("acknowledged", format!("{doing}: {story}")))?;
        if !orders.contains(&seen.view) {
            return Err(failed(
                "acknowledged",
                format!("{doing}: neither order comes to what is there"),
            ));
        }
        verify(&store).map_err(|story| failed("one_wrap", format!("{doing}: {story}")))
    };
    check("after both")?;
    let acme = store
        .organization("acme")
        .map_err(|error| failed("acknowledged", error.to_string()))?;
    model::run_job(&acme).map_err(|error| failed("job_finishes", error.to_string()))?;
    check("after the job")?;
    Ok(calls)
}
