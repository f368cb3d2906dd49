//! The log, through the C interface. Each test has the process's log to itself.

use keystead_ffi::error::KEYSTEAD_LOG_TAKEN;
use keystead_ffi_calls::client::{Opening, Store};
use keystead_ffi_calls::log::{DEBUG, Log, WARN};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_process_has_one_log_and_after_it_another_one() {
    let _alone = alone();
    let log = Log::open(WARN).unwrap();
    let refused = Log::open(WARN).unwrap_err();
    assert_eq!(refused.code, KEYSTEAD_LOG_TAKEN);
    assert!(refused.message.contains("one log"), "{}", refused.message);
    tracing::warn!(target: "keystead::test", "for the first");
    assert_eq!(log.end().len(), 1);
    tracing::warn!(target: "keystead::test", "for nobody");
    let log = Log::open(WARN).unwrap();
    tracing::warn!(target: "keystead::test", "for the second");
    assert_eq!(log.end(), ["2 keystead::test: for the second {}"]);
}

#[test]
fn what_is_told_is_up_to_the_level_and_of_this_library_with_its_fields() {
    let _alone = alone();
    let log = Log::open(DEBUG).unwrap();
    let (organization, error) = ("acme", std::io::Error::other("a \"reason\"\0"));
    tracing::error!(target: "keystead::test", organization, epoch = 3_u32, lasting = true, %error, "it has\0failed");
    tracing::trace!(target: "keystead::test", "too fine");
    tracing::error!(target: "another_library", "not ours");
    assert_eq!(
        log.end(),
        ["1 keystead::test: it has\u{fffd}failed \
             {\"epoch\":3,\"error\":\"a \\\"reason\\\"\\u0000\",\"lasting\":true,\"organization\":\"acme\"}"]
    );
    let log = Log::open(WARN).unwrap();
    tracing::info!(target: "keystead::test", "too fine for this one");
    tracing::warn!(target: "keystead::test", "{}", "long ".repeat(10_000));
    let told = log.end();
    assert!(told.len() == 1 && told[0].len() < 5000, "{told:?}");
}

#[test]
fn a_slow_callback_holds_nobody_up_and_what_it_missed_is_counted() {
    static GO_ON: AtomicBool = AtomicBool::new(false);
    let _alone = alone();
    let slow = |_: &str| {
        while !GO_ON.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    let log = Log::open_and(WARN, Some(slow)).unwrap();
    (0..3000).for_each(|number| tracing::warn!(target: "keystead::test", number, "quick"));
    GO_ON.store(true, Ordering::SeqCst);
    let told = log.end();
    let (last, quick) = told.split_last().unwrap();
    // One may be with the callback already, beyond those that wait.
    assert!((1024..=1025).contains(&quick.len()), "{} were told", quick.len());
    assert!(last.contains("found no room"), "{last}");
    assert!(
        last.contains(&format!("{{\"missed\":{}}}", 3000 - quick.len())),
        "{last}"
    );
}

#[test]
fn a_callback_may_call_the_library_and_what_that_logs_does_not_go_round() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let _alone = alone();
    let calls = |_: &str| {
        tracing::error!(target: "keystead::test", "by the callback");
        let directory = tempfile::tempdir().unwrap();
        let store = Store::at(&directory.path().join("store"), Opening::Create).unwrap();
        store.create_organization("acme").unwrap();
        CALLS.fetch_add(1, Ordering::SeqCst);
    };
    let log = Log::open_and(WARN, Some(calls)).unwrap();
    tracing::warn!(target: "keystead::test", "once");
    assert_eq!(log.end(), ["2 keystead::test: once {}"]);
    assert_eq!(CALLS.load(Ordering::SeqCst), 1);
}

#[test]
fn logs_come_and_go_while_threads_log() {
    let _alone = alone();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    tracing::warn!(target: "keystead::test", "again");
                    thread::yield_now();
                }
            });
        }
        let mut told = 0;
        let mut logs = 0;
        while logs < 50 || (told == 0 && logs < 5000) {
            let log = Log::open(WARN).unwrap();
            thread::yield_now();
            told += log.end().len();
            logs += 1;
        }
        over.store(true, Ordering::SeqCst);
        assert!(told > 0, "{logs} logs were told nothing");
    });
}
