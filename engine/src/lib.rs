//! Keystead: an embedded database for secrets whose owners bring their own keys.
//!
//! An application opens one store file in its own process. The file holds the secrets of many organizations. Each
//! organization's data keys are wrapped under a key epoch, and each epoch's key by a KMS key: at first the managed key, then
//! one that the organization brings.
//!
//! The map, from what an application holds down to the bytes; a file imports only from lines below its own:
//!
//! | module | what it is |
//! | --- | --- |
//! | `store`, `options`, `organization` | [`Store`], [`StoreOptions`], [`Organization`]: what an application holds |
//! | `verify` | everything that can be checked about a store |
//! | `salvage` | what is whole in a damaged file, copied into a new store |
//! | `secret`, `keyring`, `rewrap` | versioned values; registered keys and epochs; moving data keys between epochs |
//! | `scope` | what those three share: the open store's parts, one organization's place in it |
//! | `audit` | the record of every change |
//! | `storage` | tables, transactions, group commit; the only user of redb |
//! | `crypto` | seal, open, derive, erase; the only user of the AEAD and hash crates |
//! | `env`, `names`, `error` | clock and randomness; the field's words as types; the one error |
//!
//! # Examples
//!
//! ```no_run
//! # fn backends() -> (keystead::Backend, keystead::Backend) { unimplemented!() }
//! use keystead::{Expect, Store};
//!
//! # fn main() -> keystead::Result<()> {
//! # let (managed, aws_plugin) = backends();
//! let store = Store::options().backend(managed).backend(aws_plugin).create("app.keystead")?;
//! let acme = store.create_organization("acme")?;
//!
//! let v1 = acme.put("prod/db/password", b"correct horse")?; // durable when it returns
//! let secret = acme.get("prod/db/password")?; // erased from memory when dropped
//! acme.put_if("prod/db/password", Expect::Version(v1), b"battery staple")?;
//!
//! let arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
//! let job = acme.keys().add("acme-cmk", "aws-kms", serde_json::json!({ "key_arn": arn }))?; // probed, handed over
//! job.wait_with(|progress| println!("{} of {}", progress.done, progress.total))?; // or let it run
//! for epoch in acme.epochs()? {
//!     println!("{epoch}"); // 1 managed retired, 0 data keys; 2 acme-cmk active, 2 data keys
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod audit;
mod checkpoint;
mod crypto;
mod env;
mod error;
mod keyring;
mod measured;
mod mutant;
mod names;
mod options;
mod organization;
mod rewrap;
mod salvage;
mod scope;
mod secret;
mod storage;
mod store;
mod verify;

pub use audit::{Attribution, AuditEvent, AuditRecord, CarriedEvent};
pub use checkpoint::Checkpoint;
pub use crypto::SecretBytes;
pub use env::{Env, SystemEnv};
pub use error::{Error, Result};
pub use keyring::epoch::{Epoch, EpochState, WrappedBy};
pub use keyring::registry::{Backend, IdentityProvider, IdentityRequest};
pub use keyring::second::{SecondKey, StandingIn};
pub use keystead_backend as backend;
#[cfg(keystead_measured)]
pub use measured::{Part, leave_out};
#[cfg(keystead_mutants)]
pub use mutant::MUTANTS;
pub use names::{
    EpochNumber, KeyName, NAME_MAX_BYTES, OrganizationId, OrganizationName, PATH_MAX_BYTES,
    PATH_SEGMENT_MAX_BYTES, SecretPath, StoreId, Version,
};
pub use options::StoreOptions;
pub use organization::{AuditHead, KeyInfo, Keys, Organization};
pub use rewrap::{RewrapJob, RewrapPhase, RewrapSource, RewrapState, RewrapStatus};
pub use salvage::{Loss, LossKind, SalvageOptions, SalvageProgress, SalvageReport};
pub use secret::stream::{SecretReader, SecretWriter};
pub use secret::{
    BATCH_MAX, BATCH_MAX_BYTES, Batch, Expect, LABEL_NAME_MAX_BYTES, LABEL_VALUE_MAX_BYTES, LABELS_MAX, Page,
    PutOptions, Secret, SecretInfo, VALUE_MAX_BYTES, VersionInfo, VersionState,
};
pub use storage::records::{EpochCause, KeyState};
pub use store::{OrganizationInfo, Store};
pub use verify::{Problem, VerifyOptions, VerifyPhase, VerifyProgress, VerifyReport};

#[cfg(feature = "simulation")]
pub mod simulation;
