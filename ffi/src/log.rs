//! What the engine and the plugins log, told to the application.
//!
//! They log by `tracing`, which has one receiver in a process, so there is one log in a process; that is the one thing of this
//! library which is global. An event happens where the engine happens to be, also under its locks. So it is written down there, and
//! a thread of the log's own tells it: whatever the application does in its callback, nothing of the engine waits for it.

#![allow(unsafe_code)]

use crate::error::{Failure, KEYSTEAD_FORKED, KEYSTEAD_LOG_TAKEN, KEYSTEAD_OTHER, keystead_error};
use crate::guard::{self, Handle, Life, invalid, null};
use crate::process;
use crate::text::{Text, keystead_text};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

/// Something failed that somebody must look at.
pub const KEYSTEAD_LOG_ERROR: i32 = 1;
/// Something is odd, or does not go on by itself for now: a KMS that does not answer, a second key that stands in.
pub const KEYSTEAD_LOG_WARN: i32 = 2;
/// Something happened.
pub const KEYSTEAD_LOG_INFO: i32 = 3;
/// For the one who looks for a fault.
pub const KEYSTEAD_LOG_DEBUG: i32 = 4;

/// So many records wait; those that find no room are counted, and the count is told.
const WAITING_MAX: usize = 1024;
/// A text of a record is cut behind so many bytes.
const TEXT_MAX_BYTES: usize = 4096;
/// All that is ours has a target that begins so.
const OUR_TARGETS: &str = "keystead";

/// The log that is open, and the process that has it open (0: none has). What forks has its child find the number of another process,
/// and the child does not touch the lock, which a thread may have held that is not there any more.
static OPEN: Mutex<Option<Arc<Queue>>> = Mutex::new(None);
static OWNER: AtomicU32 = AtomicU32::new(0);
/// What is asked for: nothing beyond this level. 0 while no log is open.
static LEVEL: AtomicI32 = AtomicI32::new(0);
/// True once `tracing` has us as its receiver, which stays so.
static RECEIVES: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// True on the thread that tells: what is logged there comes from the callback itself, and would go round and round.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

/// What was logged. Valid during the callback. Later versions add fields at the end.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_log_record {
    /// How large it is.
    pub struct_size: u32,
    /// KEYSTEAD_LOG_ERROR, _WARN, _INFO or _DEBUG.
    pub level: i32,
    /// Which part of the library says it: "keystead::rewrap::worker"; "keystead::plugin" for what a plugin says.
    pub target: keystead_text,
    /// What happened, in words: for people, and never with a secret in it.
    pub message: keystead_text,
    /// Of what: a JSON object, such as {"organization":"acme","error":"..."}.
    pub fields_json: keystead_text,
}

/// Is told what was logged, on a thread of the library that does nothing else, one record at a time. It may call the library, and
/// may block: then records wait, and what finds no room is counted and told as a record of its own. Throws nothing.
pub type keystead_log_callback =
    Option<unsafe extern "C" fn(context: *mut c_void, record: *const keystead_log_record)>;

/// The log of this process. Freed with keystead_log_free().
#[derive(Debug)]
pub struct keystead_log {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    life: Arc<Life>,
}

impl Handle for keystead_log {
    const WHAT: &'static str = "log";

    fn life(&self) -> &Arc<Life> {
        &self.life
    }
}

/// Has whatever the library logs up to level (KEYSTEAD_LOG_ERROR to KEYSTEAD_LOG_DEBUG) told to callback, for every store of this
/// process, until *out is freed. **There is one log in a process**: open it in the program, not in a library that others use.
///
/// Without it nothing is told, nor printed. What is told comes a moment later than it happened: the last records before a process is
/// killed are not told. Nothing of them is needed to know how things stand; for that, ask
/// (keystead_rewrap_status_read(), keystead_second_key_read(), the audit trail). Messages and fields are for people and may
/// change; none holds a secret, but names of organizations and keys, paths and what a KMS said stand in them.
///
/// In the child of a fork() nothing is told, and no log can be opened while its parent had one open: KEYSTEAD_FORKED.
///
/// Errors: KEYSTEAD_LOG_TAKEN when a log is open; KEYSTEAD_INVALID_ARGUMENT. Threads: any.
///
///     static void write_down(void *context, const keystead_log_record *record) {
///         fprintf((FILE *)context, "%d %s: %s %s\n", (int)record->level, record->target.data, record->message.data,
///                 record->fields_json.data);
///     }
///     code = keystead_log_open(KEYSTEAD_LOG_WARN, write_down, stderr, &events, &error);
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_log_open(
    level: i32,
    callback: keystead_log_callback,
    context: *mut c_void,
    out: *mut *mut keystead_log,
    error: *mut *mut keystead_error,
) -> i32 {
    // SAFETY: the caller keeps the rules of the header.
    unsafe {
        guard::call(error, |called| {
            let out = called.out_object(out, "out")?;
            if !(KEYSTEAD_LOG_ERROR..=KEYSTEAD_LOG_DEBUG).contains(&level) {
                return Err(invalid(format!("level is {level}; there are 1 to 4")));
            }
            let callback = callback.ok_or_else(|| null("callback"))?;
            out.give(keystead_log::open(level, Listener { callback, context })?);
            Ok(())
        })
    }
}

/// Ends the log. What waits is told first, and when this returns, the callback is not running and never called again; so hold
/// nothing meanwhile that it waits for. Called by the callback itself, it does not wait: what waits is not told. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keystead_log_free(log: *mut keystead_log) {
    // SAFETY: null or a log that is not used any more, as the header says.
    unsafe { guard::free_handle(log) }
}

impl keystead_log {
    fn open(level: i32, listener: Listener) -> Result<Self, Failure> {
        let life = Life::begin();
        if ![0, process::id()].contains(&OWNER.load(Ordering::SeqCst)) {
            return Err(Failure::new(
                KEYSTEAD_FORKED,
                "the log was opened by the process that forked this one: open it after forking",
            ));
        }
        let mut open = locked(&OPEN);
        if open.is_some() {
            return Err(taken("its log is open already: free that first"));
        }
        // It cannot be taken back, so it stays, and does nothing while no log is open.
        if !RECEIVES.load(Ordering::SeqCst) {
            tracing::subscriber::set_global_default(Receiver)
                .map_err(|_| taken("what is logged goes to another receiver of `tracing` in it"))?;
            RECEIVES.store(true, Ordering::SeqCst);
        }
        let queue = Arc::new(Queue::default());
        let thread = {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name("keystead-log".into())
                .spawn(move || queue.tell_all(&listener))
                .map_err(|error| Failure::new(KEYSTEAD_OTHER, format!("no thread for the log: {error}")))?
        };
        *open = Some(Arc::clone(&queue));
        OWNER.store(process::id(), Ordering::SeqCst);
        LEVEL.store(level, Ordering::SeqCst);
        Ok(Self {
            queue,
            thread: Some(thread),
            life,
        })
    }
}

fn taken(why: &str) -> Failure {
    Failure::new(
        KEYSTEAD_LOG_TAKEN,
        format!("a process has one log, and here {why}"),
    )
}

impl Drop for keystead_log {
    fn drop(&mut self) {
        LEVEL.store(0, Ordering::SeqCst);
        let mut open = locked(&OPEN);
        *open = None;
        OWNER.store(0, Ordering::SeqCst);
        drop(open);
        let of_the_callback = TELLS.get();
        let mut waiting = locked(&self.queue.waiting);
        waiting.ended = true;
        if of_the_callback {
            waiting.records.clear();
            waiting.missed = 0;
        }
        drop(waiting);
        self.queue.changed.notify_all();
        if let (Some(thread), false) = (self.thread.take(), of_the_callback) {
            // It ends by itself; that it panicked is not possible to tell anybody.
            let _ = thread.join();
        }
    }
}

/// What is written down and not told yet.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Record>,
    missed: u64,
    ended: bool,
}

impl Queue {
    fn add(&self, record: Record) {
        let mut waiting = locked(&self.waiting);
        if waiting.ended {
            return;
        }
        if waiting.records.len() < WAITING_MAX {
            waiting.records.push_back(record);
        } else {
            waiting.missed += 1;
        }
        drop(waiting);
        self.changed.notify_one();
    }

    fn tell_all(&self, listener: &Listener) {
        TELLS.set(true);
        while let Some(record) = self.next() {
            listener.tell(&record);
        }
    }

    /// Waits for the next record; nothing at the end.
    fn next(&self) -> Option<Record> {
        let mut waiting = locked(&self.waiting);
        loop {
            if let Some(record) = waiting.records.pop_front() {
                return Some(record);
            }
            match std::mem::take(&mut waiting.missed) {
                0 if waiting.ended => return None,
                0 => {}
                missed => return Some(Record::of_missed(missed)),
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A poisoned lock is taken all the same: no thread leaves what it guards half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The application's callback.
struct Listener {
    callback: unsafe extern "C" fn(*mut c_void, *const keystead_log_record),
    context: *mut c_void,
}

// SAFETY: the header says that the callback is called on a thread of the library, with its context.
unsafe impl Send for Listener {}

impl Listener {
    fn tell(&self, record: &Record) {
        let view = keystead_log_record {
            struct_size: u32::try_from(size_of::<keystead_log_record>()).expect("small"),
            level: record.level,
            target: record.target.view(),
            message: record.message.view(),
            fields_json: record.fields_json.view(),
        };
        // SAFETY: the callback of the application, with what the header says, all of which lives until it returns.
        unsafe { (self.callback)(self.context, &raw const view) };
    }
}

#[derive(Debug)]
struct Record {
    level: i32,
    target: Text,
    message: Text,
    fields_json: Text,
}

impl Record {
    fn new(level: i32, target: &str, said: Said) -> Self {
        Self {
            level,
            target: Text::new(target),
            // C reads it to its zero byte.
            message: Text::new(said.message.replace('\0', "\u{fffd}")),
            fields_json: Text::new(Value::Object(said.fields).to_string()),
        }
    }

    fn of_missed(missed: u64) -> Self {
        let message = "records of the log found no room, since its callback was slower than they came".into();
        let fields = Map::from_iter([("missed".to_owned(), Value::from(missed))]);
        Self::new(KEYSTEAD_LOG_WARN, "keystead::log", Said { message, fields })
    }
}

/// What `tracing` tells of every event in this process.
struct Receiver;

impl Receiver {
    fn is_asked_for(metadata: &Metadata<'_>) -> bool {
        level_of(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
            && metadata.target().starts_with(OUR_TARGETS)
            && metadata.is_event()
    }
}

fn level_of(level: Level) -> i32 {
    match level {
        Level::ERROR => KEYSTEAD_LOG_ERROR,
        Level::WARN => KEYSTEAD_LOG_WARN,
        Level::INFO => KEYSTEAD_LOG_INFO,
        Level::DEBUG => KEYSTEAD_LOG_DEBUG,
        _ => i32::MAX,
    }
}

impl Subscriber for Receiver {
    /// Asked at every event, since a log comes and goes.
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::is_asked_for(metadata)
    }

    fn event(&self, event: &Event<'_>) {
        if OWNER.load(Ordering::SeqCst) != process::id() || TELLS.get() {
            return;
        }
        let written = catch_unwind(AssertUnwindSafe(|| {
            let mut said = Said::default();
            event.record(&mut said);
            Record::new(
                level_of(*event.metadata().level()),
                event.metadata().target(),
                said,
            )
        }));
        match written {
            Ok(record) => {
                let open = locked(&OPEN).clone();
                if let Some(queue) = open {
                    queue.add(record);
                }
            }
            // What is logged shall not end what logs it.
            Err(payload) => std::mem::forget(payload),
        }
    }

    // The engine has no spans, and those of others are not asked for.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Values<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Map<String, Value>,
}

impl Said {
    fn say(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Cut::default();
        // What does not fit is cut, which ends the writing of it.
        let _ = write!(text, "{value:?}");
        self.say(field, text.0.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Cut::default();
        let _ = text.write_str(value);
        self.say(field, text.0.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.say(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.say(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.say(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.say(field, value.into());
    }
}

/// A text of at most [`TEXT_MAX_BYTES`], and a mark where more would follow.
#[derive(Default)]
struct Cut(String);

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = TEXT_MAX_BYTES - self.0.len().min(TEXT_MAX_BYTES);
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        let end = (0..=room)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        self.0.push_str(&text[..end]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let mut text = Cut::default();
        let long = "ü".repeat(TEXT_MAX_BYTES);
        assert!(text.write_str("a").is_ok() && text.write_str(&long).is_err());
        assert_eq!(text.0.len(), TEXT_MAX_BYTES - 1 + '…'.len_utf8());
        assert!(text.0.starts_with("aü") && text.0.ends_with("ü…"));
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_behind_what_did() {
        let queue = Queue::default();
        let record = || Record::new(KEYSTEAD_LOG_INFO, "keystead", Said::default());
        (0..WAITING_MAX + 3).for_each(|_| queue.add(record()));
        locked(&queue.waiting).ended = true;
        queue.add(record());
        let told: Vec<Record> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(told.len(), WAITING_MAX + 1);
        assert!(format!("{:?}", told.last().unwrap().fields_json).contains("{\\\"missed\\\":3}"));
    }
}
