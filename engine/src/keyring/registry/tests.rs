//! Instances that take their time to close.

use super::{Backend, INSTANCES_MAX, RegisteredKey, Registry};
use crate::names::{KeyName, OrganizationId, OrganizationName};
use keystead_backend::{
    BackendError, Call, Context, Description, KeyBackend, KeyInstance, LockedBytes, OpenRequest, Status,
    Wrapped,
};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A gate that is shut until it is opened, and how many wait at it.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while !state.0 {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn until_somebody_comes(&self) {
        let mut state = self.state.lock().unwrap();
        while state.1 == 0 {
            let (woken, waited) = self.changed.wait_timeout(state, LONG).unwrap();
            assert!(!waited.timed_out(), "nobody comes");
            state = woken;
        }
    }
}

/// A backend whose instances are closed at the gate.
struct SlowToClose(Arc<Gate>);

struct Open(Arc<Gate>);

impl KeyBackend for SlowToClose {
    fn describe(&self) -> Description {
        Description::new("slow-to-close", "1")
    }

    fn open(&self, _: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        Ok(Box::new(Open(Arc::clone(&self.0))))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.pass();
    }
}

impl KeyInstance for Open {
    fn status(&self, _: &Call) -> Result<Status, BackendError> {
        Ok(Status::default())
    }

    fn wrap(&self, _: &Call, _: &Context, _: &[u8]) -> Result<Wrapped, BackendError> {
        unreachable!("nothing is wrapped here")
    }

    fn unwrap(&self, _: &Call, _: &Context, _: &Wrapped) -> Result<LockedBytes, BackendError> {
        unreachable!("nothing is unwrapped here")
    }
}

fn key(backend: &str, config: usize) -> RegisteredKey {
    RegisteredKey {
        org: OrganizationId(1),
        organization: OrganizationName::stored("acme"),
        name: KeyName::stored("cmk"),
        backend: backend.into(),
        config: config.to_string(),
    }
}

/// The last one to let go of an instance closed it, on its own thread and for as long as the backend took: once under the lock of
/// all instances, with which every key of every backend stood still.
#[test]
fn an_instance_that_takes_its_time_to_close_keeps_nobody_waiting() {
    let (gate, open_gate) = (Arc::<Gate>::default(), Arc::<Gate>::default());
    open_gate.open();
    let backends = vec![
        Backend::new(SlowToClose(Arc::clone(&gate))).named("slow"),
        Backend::new(SlowToClose(open_gate)).named("other"),
    ];
    let registry = Registry::new(Arc::new(crate::SystemEnv::default()), backends, None).unwrap();
    let (done, is_done) = mpsc::channel();
    std::thread::scope(|scope| {
        let (registry, gate) = (&registry, &gate);
        let works = scope.spawn(move || {
            // Some are evicted, others forgotten after a call that did not come back, or let go of by who used them last.
            for config in 0..INSTANCES_MAX + 8 {
                registry.instance(&key("slow", config), LONG).unwrap();
            }
            gate.until_somebody_comes();
            let held = registry.instance(&key("slow", INSTANCES_MAX), LONG).unwrap();
            registry.forget(&key("slow", INSTANCES_MAX));
            drop(held);
            registry.instance(&key("other", 0), LONG).unwrap();
            done.send(()).unwrap();
        });
        let ended = is_done.recv_timeout(LONG);
        gate.open();
        works.join().unwrap();
        ended.expect("it waited for an instance to close");
    });
}
