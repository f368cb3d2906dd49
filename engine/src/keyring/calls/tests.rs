//! Calls that hang, overrun, never come back, and what they cost others.

use super::threads::{ABANDONED_MAX, Outcome, THREADS_MAX};
use super::{CallPool, Failed};
use crate::env::Env;
use crate::keyring::registry::InstanceId;
use keystead_backend::{BackendError, Call, ErrorCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn pool() -> CallPool {
    CallPool::new(Arc::new(crate::SystemEnv::default()))
}

fn instance(config: usize) -> Arc<InstanceId> {
    Arc::new(("kms".into(), config.to_string(), None))
}

fn ask<T: Send + 'static>(
    pool: &CallPool,
    config: usize,
    timeout: Duration,
    work: impl FnOnce(&Call) -> Result<T, BackendError> + Send + 'static,
) -> Result<T, Failed> {
    pool.run(&instance(config), Call::with_timeout(timeout), || {}, work)
}

fn refused<T>(code: ErrorCode) -> Result<T, BackendError> {
    Err(BackendError::new(code, "a test says so"))
}

fn until(what: impl Fn() -> bool) {
    let env = crate::SystemEnv::default();
    while !what() {
        assert!(env.elapsed() < LONG, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A KMS that hangs: who asks it waits until it is let go. Counts who waits, and how many waited at once.
#[derive(Default)]
struct Hanging {
    state: Mutex<(bool, usize, usize)>,
    changed: Condvar,
}

impl Hanging {
    fn hang(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        state.2 = state.2.max(state.1);
        while !state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn let_go(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn most(&self) -> usize {
        self.state.lock().unwrap().2
    }
}

/// Lets everything go when the test ends, however it ends: threads of a scope are waited for.
struct AtLast<'h>(&'h Hanging);

impl Drop for AtLast<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

#[test]
fn a_call_that_never_returns_costs_its_caller_the_deadline_and_nobody_else_anything() {
    let pool = pool();
    let (release, held) = mpsc::channel::<()>();
    let interrupted = Arc::new(AtomicBool::new(false));
    // Of which it may wait half for a thread.
    let call = Call::with_timeout(Duration::from_secs(3));
    let (cancel, seen) = (call.cancel.clone(), Arc::clone(&interrupted));
    let failed = pool
        .run(
            &instance(1),
            call,
            move || seen.store(true, Ordering::SeqCst),
            move |_| {
                held.recv().ok();
                Ok(())
            },
        )
        .unwrap_err();
    assert_eq!((failed.error.code, failed.begun), (ErrorCode::Timeout, true));
    assert!(cancel.is_cancelled());
    until(|| interrupted.load(Ordering::SeqCst));
    assert_eq!(ask(&pool, 1, LONG, |_| Ok(7)).unwrap(), 7);
    assert_eq!(
        pool.calls.counts(),
        (1, 1),
        "a thread, and one that was left behind"
    );
    drop(release);
    until(|| pool.calls.counts() == (1, 0));
}

/// The caller gave up at the moment at which its call ended. The call was counted as left behind for good, its thread later
/// counted out a second time, and the backend never served again.
#[test]
fn a_call_that_ends_while_its_caller_gives_up_is_not_counted_as_left_behind() {
    let pool = pool();
    let number = pool.calls.start(&instance(1), || Outcome::Answered).unwrap();
    until(|| pool.calls.is_done());
    pool.calls.leave_behind(number);
    assert_eq!(pool.calls.counts(), (1, 0));
    assert_eq!(ask(&pool, 1, LONG, |_| Ok(7)).unwrap(), 7);
    assert_eq!(pool.calls.counts().1, 0);
}

/// Idle threads used to stay for ten seconds after their store was gone; an application that opens and closes many had
/// thousands of them.
#[test]
fn the_threads_of_a_pool_that_is_gone_end() {
    let pool = pool();
    ask(&pool, 1, LONG, |_| Ok(())).unwrap();
    pool.errand(&instance(1), || {});
    let (calls, errands) = (Arc::clone(&pool.calls), Arc::clone(&pool.errands));
    drop(pool);
    until(|| calls.counts().0 + errands.counts().0 == 0);
}

#[test]
fn a_backend_that_panics_is_an_error_and_the_pool_goes_on() {
    let pool = pool();
    let failed = ask::<()>(&pool, 1, LONG, |_| panic!("a planted panic")).unwrap_err();
    assert_eq!(failed.error.code, ErrorCode::Internal);
    for n in 0..20 {
        assert_eq!(ask(&pool, 1, LONG, move |_| Ok(n)).unwrap(), n);
    }
}

/// What ended because the engine had cancelled it came back as cancelled, which is a fault: the key was dropped from memory and
/// a second key was not asked.
#[test]
fn a_call_that_ends_when_it_is_cancelled_has_timed_out() {
    let pool = pool();
    let failed = ask::<()>(&pool, 1, Duration::from_secs(3), |call| {
        while !call.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        refused(ErrorCode::Cancelled)
    })
    .unwrap_err();
    assert_eq!((failed.error.code, failed.begun), (ErrorCode::Timeout, true));
}

#[test]
fn a_call_that_is_interrupted_for_the_sake_of_another_one_met_an_outage() {
    let failed = ask::<()>(&pool(), 1, LONG, |_| refused(ErrorCode::Cancelled)).unwrap_err();
    assert_eq!(failed.error.code, ErrorCode::Unavailable);
}

/// A deadline was counted from the queue by the caller, and from its beginning by the call: one that had waited was cancelled
/// long before it was late by its own reckoning.
#[test]
fn a_call_that_waited_for_a_thread_is_given_the_time_that_is_left() {
    let pool = Arc::new(pool());
    let hanging = Hanging::default();
    std::thread::scope(|scope| {
        let _at_last = AtLast(&hanging);
        let hold = |config| {
            let hanging: Arc<Hanging> = Arc::default();
            let held = Arc::clone(&hanging);
            let pool = Arc::clone(&pool);
            scope.spawn(move || {
                ask(&pool, config, LONG, move |_| {
                    held.hang();
                    Ok(())
                })
            });
            hanging
        };
        let holding: Vec<_> = (0..THREADS_MAX).map(hold).collect();
        until(|| holding.iter().all(|hanging| hanging.waiting() == 1));
        let waits = scope.spawn(|| ask(&pool, THREADS_MAX, LONG, |call| Ok(call.timeout)));
        until(|| pool.calls.waiting() == 1);
        std::thread::sleep(Duration::from_millis(100));
        holding[0].let_go();
        let given = waits.join().unwrap().unwrap();
        let most = LONG - Duration::from_millis(100);
        assert!(given >= LONG / 2 && given <= most, "{given:?}");
        holding.iter().for_each(|hanging| hanging.let_go());
    });
}

#[test]
fn a_call_that_gets_no_thread_fails_after_half_of_its_time_and_says_nothing_of_its_instance() {
    let (pool, hanging) = (Arc::new(pool()), Arc::new(Hanging::default()));
    std::thread::scope(|scope| {
        let _at_last = AtLast(&hanging);
        for config in 0..THREADS_MAX {
            let (pool, hanging) = (&pool, Arc::clone(&hanging));
            scope.spawn(move || {
                ask(pool, config, LONG, move |_| {
                    hanging.hang();
                    Ok(())
                })
            });
        }
        until(|| hanging.waiting() == THREADS_MAX);
        let began = AtomicBool::new(false);
        let began = Arc::new(began);
        let begins = Arc::clone(&began);
        let failed = ask(&pool, THREADS_MAX, Duration::from_millis(100), move |_| {
            begins.store(true, Ordering::SeqCst);
            Ok(())
        })
        .unwrap_err();
        assert_eq!((failed.error.code, failed.begun), (ErrorCode::Timeout, false));
        assert!(
            failed.error.message.contains("no thread became free"),
            "{failed:?}"
        );
        hanging.let_go();
        assert_eq!(ask(&pool, THREADS_MAX, LONG, |_| Ok(7)).unwrap(), 7);
        assert!(!began.load(Ordering::SeqCst), "nobody waited for it any more");
    });
}

/// Eight threads for all instances of a backend, first come first served: eight calls to one KMS that hung kept everybody waiting.
#[test]
fn an_instance_holds_half_of_the_threads_at_most_however_many_calls_of_it_hang() {
    let (pool, hanging) = (Arc::new(pool()), Arc::new(Hanging::default()));
    std::thread::scope(|scope| {
        let _at_last = AtLast(&hanging);
        for _ in 0..2 * THREADS_MAX {
            let (pool, hanging) = (&pool, Arc::clone(&hanging));
            scope.spawn(move || {
                ask(pool, 1, LONG, move |_| {
                    hanging.hang();
                    Ok(())
                })
            });
        }
        // All are there, and the threads that they may hold have begun.
        until(|| {
            hanging.waiting() >= THREADS_MAX / 2
                && hanging.waiting() + pool.calls.waiting() == 2 * THREADS_MAX
        });
        for other in 2..20 {
            assert_eq!(ask(&pool, other, LONG, |_| Ok(7)).unwrap(), 7);
        }
        assert_eq!(hanging.most(), THREADS_MAX / 2);
        hanging.let_go();
    });
    assert!(hanging.most() <= THREADS_MAX / 2);
    until(|| pool.calls.is_done());
    assert_eq!(pool.calls.queues(), 0, "nothing is remembered of who answered");
}

#[test]
fn instances_that_were_late_hold_half_of_the_threads_together_and_each_one_call_until_one_is_answered() {
    let (pool, hanging) = (Arc::new(pool()), Arc::new(Hanging::default()));
    let late = 0..THREADS_MAX + 8;
    let mark_late = |config| {
        let failed = ask::<()>(&pool, config, LONG, |_| refused(ErrorCode::Timeout)).unwrap_err();
        assert!(failed.begun);
    };
    late.clone().for_each(mark_late);
    until(|| pool.calls.is_done());
    std::thread::scope(|scope| {
        let _at_last = AtLast(&hanging);
        for config in late.clone().chain(late.clone()) {
            let (pool, hanging) = (&pool, Arc::clone(&hanging));
            scope.spawn(move || {
                ask(pool, config, LONG, move |_| {
                    hanging.hang();
                    Ok(())
                })
            });
        }
        until(|| {
            hanging.waiting() >= THREADS_MAX / 2 && hanging.waiting() + pool.calls.waiting() == 2 * late.len()
        });
        assert_eq!(hanging.most(), THREADS_MAX / 2);
        for healthy in 100..120 {
            assert_eq!(ask(&pool, healthy, LONG, |_| Ok(7)).unwrap(), 7);
        }
        hanging.let_go();
    });
    until(|| pool.calls.is_done());
    assert_eq!(pool.calls.queues(), 0, "each was answered");

    mark_late(1);
    // A new instance is opened after a deadline has passed, which says nothing about the KMS.
    pool.open(&instance(1), LONG, || Ok(())).unwrap();
    until(|| pool.calls.is_done());
    let at_once = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (pool, at_once) = (&pool, Arc::clone(&at_once));
            scope.spawn(move || {
                ask::<()>(pool, 1, LONG, move |_| {
                    let now = at_once.0.fetch_add(1, Ordering::SeqCst) + 1;
                    at_once.1.fetch_max(now, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    at_once.0.fetch_sub(1, Ordering::SeqCst);
                    refused(ErrorCode::Timeout)
                })
            });
        }
    });
    assert_eq!(at_once.1.load(Ordering::SeqCst), 1);
}

/// Thirty-two calls that never came back gave up a backend for all who used it; one bad key was enough.
#[test]
fn a_key_whose_calls_never_come_back_is_given_up_before_its_backend_is() {
    let (pool, hanging) = (pool(), Arc::new(Hanging::default()));
    let _at_last = AtLast(&hanging);
    for _ in 0..ABANDONED_MAX / 2 {
        let held = Arc::clone(&hanging);
        let number = pool.calls.start(&instance(1), move || {
            held.hang();
            Outcome::Answered
        });
        let before = hanging.waiting();
        until(|| hanging.waiting() > before || pool.calls.waiting() == 0);
        pool.calls.leave_behind(number.unwrap());
    }
    until(|| hanging.waiting() == ABANDONED_MAX / 2);
    let failed = ask(&pool, 1, LONG, |_| Ok(())).unwrap_err();
    assert_eq!((failed.error.code, failed.begun), (ErrorCode::Unavailable, false));
    assert!(failed.error.message.contains("never came back"), "{failed:?}");
    assert_eq!(ask(&pool, 2, LONG, |_| Ok(7)).unwrap(), 7);
    hanging.let_go();
    until(|| pool.calls.counts().1 == 0);
    assert_eq!(ask(&pool, 1, LONG, |_| Ok(7)).unwrap(), 7);
}

/// It ran on the caller's thread, which then waited for it for ever.
#[test]
fn an_interrupt_that_blocks_costs_the_caller_nothing_and_other_errands_go_on() {
    let (pool, hanging) = (pool(), Arc::new(Hanging::default()));
    let _at_last = AtLast(&hanging);
    let (interrupt, call) = (Arc::clone(&hanging), Arc::clone(&hanging));
    let failed = pool
        .run(
            &instance(1),
            Call::with_timeout(Duration::from_millis(20)),
            move || interrupt.hang(),
            move |_| {
                call.hang();
                Ok(())
            },
        )
        .unwrap_err();
    assert_eq!(failed.error.code, ErrorCode::Timeout);
    let (done, is_done) = mpsc::channel();
    pool.errand(&instance(2), move || done.send(()).unwrap());
    is_done.recv_timeout(LONG).unwrap();
    hanging.let_go();
}

#[test]
fn the_end_of_a_pool_waits_for_its_errands() {
    let pool = pool();
    let ended = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&ended);
    pool.errand(&instance(1), move || {
        std::thread::sleep(Duration::from_millis(50));
        ends.store(true, Ordering::SeqCst);
    });
    drop(pool);
    assert!(ended.load(Ordering::SeqCst));
}

#[test]
fn a_call_without_any_deadline_is_a_call() {
    assert_eq!(ask(&pool(), 1, Duration::MAX, |_| Ok(7)).unwrap(), 7);
}
