//! The backend `fault-shim`: it loads another plugin and passes calls on to it, and does to them what a script says: it
//! delays them, fails them, throttles them in bursts, and loses answers of calls that had their effect. For trying out how an
//! application behaves when a KMS does; **not for production**.
//!
//! # Settings
//!
//! | field | |
//! | --- | --- |
//! | `plugin` | absolute path of the plugin behind the shim; loaded by every step of `keystead-loader` |
//! | `digest` | its BLAKE3 digest, 64 hexadecimal digits |
//! | `settings` | the settings of that plugin; `{}` unless given |
//! | `script` | a list of steps, below; without steps everything is passed on as it is |
//!
//! The config of a registered key is that of the plugin behind it.
//!
//! # The script
//!
//! Calls are counted, each kind from 1, in the order in which they begin, over all instances with the same settings in one
//! process: so a script does the same each time. Each step is for some of them:
//!
//! | field | |
//! | --- | --- |
//! | `on` | `open`, `status`, `wrap`, `unwrap`; or `any` of the last three, which are then counted together |
//! | `from` | the first call that meets it; 1 unless given |
//! | `times` | how many do; without it, every one from there on |
//! | `every` | only each n-th of them, from the first on; 1 unless given |
//! | `delay_ms` | it waits so long before anything else is done. Not longer than its deadline, a cancellation or an interruption |
//! | `error` | it fails with this code, such as `throttled`, and the plugin behind is not asked |
//! | `retry_after_ms` | the wait that the error asks for |
//! | `lose_answer` | `true`: the plugin behind is asked, and its answer dropped; the call fails with `error`, or as `unavailable` |
//!
//! Of several steps that a call meets, all delay it, and the first one with an error or a lost answer counts.
//!
//! ```json
//! {
//!   "plugin": "/usr/lib/keystead/libkeystead_aws_kms.so",
//!   "digest": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
//!   "settings": { "allowed_key_arns": ["arn:aws:kms:eu-central-1:111122223333:*"] },
//!   "script": [
//!     { "on": "any", "delay_ms": 40 },
//!     { "on": "unwrap", "from": 10, "times": 5, "error": "throttled", "retry_after_ms": 200 },
//!     { "on": "wrap", "from": 3, "times": 1, "lose_answer": true }
//!   ]
//! }
//! ```
//!
//! Codes are those of the interface in small letters with dashes: `invalid-config`, `unauthenticated`, `access-denied`,
//! `key-disabled`, `key-pending-deletion`, `key-not-found`, `wrong-key`, `invalid-ciphertext`, `throttled`, `unavailable`,
//! `timeout`, `cancelled`, `unsupported`, `internal`.
//!
//! What a step does to a call is written to the host's log, at level info.
//!
//! # What it says about itself
//!
//! Its description is made before the plugin behind it is known. So it describes what holds for any: plaintexts of
//! 64 bytes (the least that every backend takes, and all that the engine needs), blobs up to 64 KiB, and that it does *not* bind
//! the context. The host frames the plaintext therefore; the context is passed on all the same, and bound by a plugin that does.
//! There is no rewrap. A plugin whose answers may be larger is refused when a key is opened.
//!
//! # Errors
//!
//! | what happened | code |
//! | --- | --- |
//! | settings: unknown field, wrong type, missing `plugin` or `digest`; a step that says nothing, or not when | `INVALID_CONFIG` |
//! | the plugin behind it does not load, or its answers may be too large | `INVALID_CONFIG` |
//! | the deadline passed during a delay | `TIMEOUT` |
//! | cancelled or interrupted during a delay | `CANCELLED` |
//! | what the script says, and what the plugin behind it says | that |

mod instance;
mod script;
mod settings;

use std::sync::{Arc, Mutex, PoisonError};

use keystead_backend::{
    BackendError, Capabilities, CredentialKind, Description, KeyBackend, KeyInstance, OpenRequest, SizeLimits,
};
use keystead_loader::{Plugin, PluginSource};

use instance::ShimmedKey;
use script::{Call, Script};
use settings::{Settings, wrong};

/// How many different settings one shim remembers.
const OPENED_MAX: usize = 16;

/// What holds for any plugin behind the shim: see the crate's front page.
const LIMITS: SizeLimits = SizeLimits {
    plaintext_max_bytes: 64,
    blob_max_bytes: 64 * 1024,
    key_id_max_bytes: 16 * 1024,
    metadata_max_bytes: 16 * 1024,
};

/// The backend. All keys that are opened with the same settings share one script and its counts.
///
/// # Examples
///
/// ```
/// use keystead_backend::KeyBackend;
/// use keystead_fault_shim::FaultShim;
///
/// assert_eq!(FaultShim::default().describe().name, "fault-shim");
/// ```
#[derive(Default)]
pub struct FaultShim {
    opened: Mutex<Vec<(String, Arc<Behind>)>>,
}

/// A plugin behind the shim, and what is done to its calls.
struct Behind {
    plugin: Plugin,
    settings: String,
    script: Script,
}

impl FaultShim {
    fn behind(&self, text: &str) -> Result<Arc<Behind>, BackendError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, behind)) = opened.iter().find(|(known, _)| known == text) {
            return Ok(Arc::clone(behind));
        }
        let settings = Settings::read(text)?;
        let source = PluginSource::new(&settings.plugin).digest(settings.digest);
        let plugin = Plugin::load(&source).map_err(|error| wrong("plugin", error.to_string()))?;
        let theirs = plugin.description().limits;
        for (what, theirs, ours) in [
            ("blobs", theirs.blob_max_bytes, LIMITS.blob_max_bytes),
            ("key ids", theirs.key_id_max_bytes, LIMITS.key_id_max_bytes),
            ("metadata", theirs.metadata_max_bytes, LIMITS.metadata_max_bytes),
        ] {
            if theirs > ours {
                let message = format!(
                    "names one that answers {what} of up to {theirs} bytes; the shim passes on {ours}"
                );
                return Err(wrong("plugin", message));
            }
        }
        let behind = Arc::new(Behind {
            plugin,
            settings: settings.settings,
            script: settings.script,
        });
        if opened.len() >= OPENED_MAX {
            opened.remove(0);
        }
        opened.push((text.to_owned(), Arc::clone(&behind)));
        Ok(behind)
    }
}

impl std::fmt::Debug for FaultShim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultShim").finish_non_exhaustive()
    }
}

impl KeyBackend for FaultShim {
    fn describe(&self) -> Description {
        Description {
            settings_schema: settings::schema(),
            limits: LIMITS,
            capabilities: Capabilities {
                binds_context: false,
                rewrap: false,
                interrupt: true,
            },
            credentials: vec![CredentialKind::Settings],
            ..Description::new("fault-shim", env!("CARGO_PKG_VERSION"))
        }
    }

    fn open(&self, request: OpenRequest<'_>) -> Result<Box<dyn KeyInstance>, BackendError> {
        let behind = self.behind(request.settings)?;
        let met = behind.script.meet(Call::Open);
        met.tell(&*request.host);
        if let Some(error) = met.refusal() {
            return Err(error);
        }
        let key = behind.plugin.open(OpenRequest {
            settings: &behind.settings,
            config: request.config,
            host: Arc::clone(&request.host),
        })?;
        Ok(Box::new(ShimmedKey::new(behind, key, request.host)))
    }
}
