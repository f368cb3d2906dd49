//! Finds, verifies and opens key backend plugins: the only place of Keystead that loads code.
//!
//! Nothing is loaded unless the application asks for it by an absolute path and says which bytes it expects there:
//!
//! ```no_run
//! use keystead_backend::KeyBackend;
//! use keystead_loader::{Plugin, PluginSource};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = PluginSource::new("/usr/lib/keystead/libkeystead_aws_kms.so")
//!     .digest("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262".parse::<keystead_loader::Digest>()?);
//! let plugin = Plugin::load(&source)?;
//! assert_eq!(plugin.describe().name, "aws-kms");
//! # Ok(()) }
//! ```
//!
//! [`Plugin`] is a [`KeyBackend`](keystead_backend::KeyBackend): from there on a plugin is used like any other backend.
//!
//! # The steps
//!
//! In this order; the first that fails is the [`LoadError`], and no code of the plugin has run before the sixth.
//!
//! | step | what must hold | why | file |
//! | --- | --- | --- | --- |
//! | 1 path | absolute; no `.`, `..`, `//`; a digest is given, or its absence is spelled out | a plugin is never found by search, nor by whatever the working directory is | `policy.rs` |
//! | 2 permissions | no component is a symbolic link; each is owned by root or by the effective user; none may be written by the group or by others | who could swap the file could run code as us | `policy.rs` |
//! | 3 read | a regular file, read once, no larger than the cap | a pipe would hang us, a huge file exhaust us | `image.rs` |
//! | 4 digest | the BLAKE3 digest of the bytes that were read is on the allow-list | right path, wrong build | `image.rs` |
//! | 5 image | *those bytes* in a sealed memory file, which is what the dynamic linker opens: every symbol resolved now, none offered to others | what was checked is what runs, whatever happens to the path meanwhile | `image.rs` |
//! | 6 interface | the one symbol; an ABI version that both speak; a table of full size; no required entry null | a wrong pointer is a crash | `negotiation.rs` |
//! | 7 description | JSON; a name; sizes within bounds; capabilities that agree with the table | the sizes decide how much memory each call takes | `negotiation.rs` |
//!
//! Which test tries to get past which step: `docs/threat-model.md`, section Plugins.
//!
//! A table that the application itself offers ([`OfferedTable`]) goes through the last two steps, and from there on the same way.
//!
//! Then, in each call (`guest.rs`, `loaded.rs`, `inputs.rs`, `room.rs`): the room for the largest answer has a canary behind it, lengths are checked against
//! capacities, text against UTF-8, unknown codes read as `INTERNAL`, and an unwrapped key goes into locked memory without
//! a stop elsewhere. A plugin that wrote beyond its room is not called again in this process.
//!
//! # What this does not do
//!
//! - A plugin runs in our process and can do whatever the process can. These checks decide *which* code runs, and catch
//!   mistakes; they do not contain malice.
//! - The digest covers the plugin's file, not the shared libraries that it depends on (`libc.so.6`, `libgcc_s.so.1`). The
//!   dynamic linker finds those by its own rules, to which `LD_LIBRARY_PATH` belongs except in set-uid programs.
//! - The loader itself reads no environment variable, in set-uid programs or any other. In those, "the effective user" of
//!   step 2 is the one that the program became, so a plugin owned by the one who started it is refused.
//! - **Outside of Linux** there are no sealed memory files: step 5 opens the path again. Between steps 4 and 5 whoever may
//!   write to the file or its directories (root and the effective user, after step 2) can swap it. Outside of Unix nothing is
//!   loaded at all.
//! - Access control lists count as far as the mode bits show them: on Linux a writing entry shows in the group bits.
//! - A plugin is never unloaded: threads and thread-local destructors of it may outlive its last instance. The same bytes
//!   are loaded once; they stay in memory (a stripped release build is a few megabytes) and keep one descriptor open.
//! - On Linux the sealed image is opened by way of `/proc/self/fd`: where `/proc` is not mounted, step 5 fails.
//! - Deadlines are passed on, not enforced: the engine runs calls on a pool of threads and abandons one that overruns. An
//!   instance with a call in it cannot be dropped, so its host table and buffers outlive the wedged call.

mod digest;
mod error;
#[cfg(unix)]
mod guest;
#[cfg(unix)]
mod image;
#[cfg(unix)]
mod inputs;
#[cfg(unix)]
mod loaded;
#[cfg(unix)]
mod negotiation;
#[cfg(unix)]
mod offered;
mod plugin;
#[cfg(unix)]
mod policy;
#[cfg(all(unix, feature = "probe"))]
pub mod probe;
#[cfg(unix)]
mod room;
#[cfg(all(unix, feature = "simulation"))]
pub mod simulation;
mod source;
#[cfg(unix)]
mod upcalls;

pub use digest::{Digest, InvalidDigest, digest_file};
pub use error::{LoadError, LoadStep, Refusal};
#[cfg(unix)]
pub use offered::OfferedTable;
pub use plugin::Plugin;
#[cfg(unix)]
pub use policy::open as open_trusted;
pub use source::PluginSource;
