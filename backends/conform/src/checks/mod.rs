//! The checks, in the order of the report.

mod answers;
mod config;
mod interface;
mod lives;
mod secrets;
mod time;
mod wrapping;

use crate::bench::Bench;
use crate::inside::Checked;

/// One check.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// What holds when it passes.
    pub(crate) claim: &'static str,
    pub(crate) run: fn(&Bench) -> Checked,
}

macro_rules! checks {
    ($($name:literal, $run:path, $claim:literal;)*) => {
        &[$(Check { name: $name, claim: $claim, run: $run },)*]
    };
}

/// All of them.
pub(crate) const ALL: &[Check] = checks! {
    "loads", interface::loads, "passes each step of the loader: path, owner, digest, symbol, table, description";
    "negotiation", interface::negotiation, "answers the same table for each range with its version, and refuses others";
    "describe", interface::describe, "describes itself the same each time, into any room that is large enough";
    "schema", interface::schema, "its schemas are JSON Schemas that know the fields of the config and the settings";
    "config-object", config::object, "refuses what is not a JSON object as INVALID_CONFIG";
    "config-unknown-field", config::unknown_field, "refuses an unknown field of config and settings by its name";
    "config-too-long", config::too_long, "refuses configs that are too long or nested too deeply, soon and unharmed";
    "status", answers::status, "its status is there, is cheap, and names the key as wrap does";
    "round-trips", wrapping::round_trips, "what it wraps it unwraps, in every size that it describes";
    "context", wrapping::context, "does not unwrap under another context";
    "damaged", wrapping::damaged, "refuses a damaged blob as INVALID_CIPHERTEXT or WRONG_KEY, wherever it is damaged";
    "wrong-key", wrapping::wrong_key, "refuses what another key wrapped as WRONG_KEY or INVALID_CIPHERTEXT";
    "key-id", wrapping::key_id, "says the same key id for the same key, and uses the one that was recorded";
    "restart", wrapping::restart, "what one process wrapped another one unwraps";
    "rewrap", wrapping::rewrap, "re-wraps to what opens under the same context only";
    "rooms", answers::rooms, "writes within every room, and says BUFFER_TOO_SMALL and how much it needs";
    "messages", answers::messages, "cuts a message to its room on a character's boundary";
    "errors", answers::errors, "fills in errors as it returns them: the same code, a reason, a wait that ends";
    "nulls", answers::nulls, "takes null where it may be: an error, a cancel callback, what is empty, no instance";
    "structs", answers::structs, "refuses structs that are too short, and takes those of a later version";
    "too-long", answers::too_long, "refuses a plaintext that is longer than described";
    "cancel-before", time::cancel_before, "a call that is cancelled before it begins is soon over";
    "cancel-during", time::cancel_during, "a call that is cancelled while it runs is soon over";
    "deadline", time::deadline, "a call is over when its time is";
    "interrupt", time::interrupt, "interrupt ends the calls in flight, and no later one";
    "threads", lives::threads, "many threads at once, on one instance and two, get their own answers";
    "instances", lives::instances, "instances come and go without a mark on their neighbours";
    "close", lives::close, "after close nothing runs: no host call, no thread";
    "host", lives::host, "asks its host as it may, and believes it when it fails";
    "store", lives::store, "a store lives on it: add, read, rotate, move away";
    "secrets", secrets::secrets, "no plaintext in blob, metadata, key id, message, log or output";
    "memory", secrets::memory, "no whole plaintext is left in memory after close, as it is or as a text";
};

/// What is made of a second process once a check has passed in the first: by the first one's name.
pub(crate) const AGAIN: &[(&str, Check)] = &[(
    "restart",
    Check {
        name: "restart-again",
        claim: "",
        run: wrapping::restart_again,
    },
)];
