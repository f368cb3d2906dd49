//! The command line.

use crate::exit::EXIT_CODES;
use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use std::path::PathBuf;

/// Keystead: an embedded database for secrets whose owners bring their own keys.
///
/// One store file holds the secrets of many organizations; each organization's data is encrypted under keys that a KMS of
/// its own choice wraps. This command creates and opens such a store. One process at a time has a store open: while an
/// application has it, this command ends with exit code 8.
#[derive(Debug, Parser)]
#[command(name = "keystead", version, after_long_help = EXIT_CODES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The store file; else `store` of the config file.
    #[arg(long, global = true, env = "KEYSTEAD_STORE", hide_env_values = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) store: Option<PathBuf>,
    /// The organization.
    #[arg(
        long,
        global = true,
        env = "KEYSTEAD_ORG",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub(crate) org: Option<String>,
    /// The config file (TOML): the store's path, and which backends there are.
    #[arg(long, global = true, env = "KEYSTEAD_CONFIG", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The managed key's keyring file, instead of a backend `managed` in the config file.
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) keyring: Option<PathBuf>,
    /// Opens the store only if it has come as far as this checkpoint (`keystead checkpoint`), which was kept apart from it.
    #[arg(long, global = true, env = "KEYSTEAD_CHECKPOINT", hide_env_values = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) checkpoint: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) passphrase: Passphrase,
    /// Who acts, for the audit trail: such as alice@acme.
    #[arg(long, global = true, value_name = "WHO")]
    pub(crate) actor: Option<String>,
    /// Why, for the audit trail: such as "ticket 4711".
    #[arg(long, global = true, value_name = "WHY")]
    pub(crate) reason: Option<String>,
    /// Writes one JSON document to standard output; errors as JSON to standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Logs to standard error; twice or three times for more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Where the passphrase of a sealed keyring is. Never on the command line, which others can read.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Passphrase {
    /// The keyring is sealed; the passphrase is in this environment variable.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) keyring_passphrase_env: Option<String>,
    /// The keyring is sealed; the passphrase is the first line of this file.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) keyring_passphrase_file: Option<PathBuf>,
    /// The keyring is sealed; the passphrase is the first line that this descriptor gives.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) keyring_passphrase_fd: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates a store; with --keyring the keyring, too, if it is not there.
    #[command(after_long_help = "JSON: {store, store_id, keyring, keyring_created}")]
    Init,
    /// Creates and lists organizations.
    #[command(subcommand)]
    Org(OrgCommand),
    /// Writes a new version of a secret, from standard input or a file.
    #[command(after_long_help = "JSON: {path, version}")]
    Put(PutArgs),
    /// Reads a secret, raw, to standard output or into a file.
    #[command(
        after_long_help = "JSON: {path, version, created_at_ms, size_bytes, content_type, labels, value_base64}; \
                           with --output, {…, output} without the value"
    )]
    Get(GetArgs),
    /// Lists secrets by path; opens nothing.
    #[command(
        after_long_help = "JSON: {items: [{path, latest, deleted, retention, created_at_ms, updated_at_ms}], next}"
    )]
    List(ListArgs),
    /// Lists the versions of a secret; opens nothing.
    #[command(
        after_long_help = "JSON: {path, versions: [{version, state, created_at_ms, deleted_at_ms, destroyed_at_ms, \
                           size_bytes, content_type, labels}], next}; state: live, deleted, destroyed"
    )]
    History(HistoryArgs),
    /// Deletes a version: kept, but not read, until it is undeleted.
    #[command(after_long_help = "JSON: {path, version}")]
    Delete(DeleteArgs),
    /// Brings a deleted version back.
    #[command(after_long_help = "JSON: {path, version}")]
    Undelete(VersionArgs),
    /// Destroys a version: its data key and its value are gone for good.
    ///
    /// Nothing brings it back. Old pages of the file hold its sealed bytes until its epoch is retired: rotate the key to have
    /// that done now.
    #[command(after_long_help = "JSON: {path, version}")]
    Destroy(DestroyArgs),
    /// Shows or sets how many versions of a secret are kept.
    ///
    /// Every further put destroys the oldest versions beyond that, at most 64 at a time.
    #[command(after_long_help = "JSON: {path, keep}; keep is null when all are kept")]
    Retention(RetentionArgs),
    /// An organization's registered keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// An organization's re-wrap job.
    #[command(subcommand)]
    Rewrap(RewrapCommand),
    /// Lists every key epoch since the first: which key protects what.
    #[command(
        after_long_help = "JSON: {epochs: [{number, key, kms_key_id, wrapped_by: [{key, kms_key_id}], opened_at_ms, actor, \
                           reason, cause, references, state, retired_at_ms, hash}]}; state: active, live, retired"
    )]
    Epochs,
    /// Reads the audit trail, checking that each record chains to the one before.
    #[command(
        after_long_help = "JSON: {records: [{sequence, at_ms, actor, reason, event, details, hash}], next}; \
                           with --head {sequence, hash}"
    )]
    Audit(AuditArgs),
    /// Checks the whole store, every block and every row, in a process of its own; changes nothing.
    #[command(
        after_long_help = "JSON: {clean, complete, blocks, stale_blocks, organizations, secrets, versions, chunks, \
                           values_opened, epochs, wraps, audit_records, \
                           problems: [{organization, path, version, what}], unopened: […]}.\n\
                           Ends with exit code 9 when there are problems, when the file made the process crash or take more \
                           memory than it may, or when there are values that could not be opened."
    )]
    Verify(VerifyArgs),
    /// Copies what is whole in a damaged file into a new store, and names what is lost.
    ///
    /// The damaged file is read and never written; the new one must not exist. Values are opened where their keys can be had. Both files
    /// hold the same store: put the new one in the place of the old one, which is to be destroyed when it is no longer needed.
    #[command(
        after_long_help = "JSON: {store_id, organizations, secrets, versions, opened, tagged, unproven, destroyed, audit_kept, \
                           audit_carried, journal_records_lost,\n\
                           lost: [{kind, organization, organization_id, path, secret_id, version, what}], unopened: […]}; kind: \
                           version, undecided, key, epoch, audit-records, organization, journal.\n\
                           Ends with exit code 11 when anything was lost."
    )]
    Salvage(SalvageArgs),
    /// Notes how far each organization has come: kept elsewhere, it shows later that the store was not rolled back.
    ///
    /// With --org, of that organization alone. Give the file to other commands as --checkpoint: a store that is behind it, or has
    /// another history, is not opened.
    #[command(
        after_long_help = "JSON: {store, organizations: {NAME: {sequence, hash}}}; with --output, {output, organizations}"
    )]
    Checkpoint(CheckpointArgs),
    /// Describes the backends of the config file; computes a plugin's digest.
    #[command(
        after_long_help = "JSON: {backends: [{registered_as, source, plugin, digest, name, version, limits, capabilities, \
                           credentials, config_schema, settings_schema}]}"
    )]
    Backends(BackendsArgs),
    /// Looks after the managed key's keyring file: --keyring says which.
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// Checks the surroundings: config, permissions, plugins, memory, the store, its keys and jobs.
    #[command(
        after_long_help = "JSON: {result, checks: [{check, result, detail, advice}]}; result: ok, warn, fail.\n\
                           Ends with exit code 9 when a check failed."
    )]
    Doctor(DoctorArgs),
    /// Prints a completion script for a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Prints the manual, or writes a page for each command into a directory.
    Man {
        /// Where to write keystead.1, keystead-put.1 and so on.
        #[arg(long = "dir", value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrgCommand {
    /// Creates an organization, under the managed key. One KMS call.
    #[command(after_long_help = "JSON: {id, name}")]
    Create {
        /// Its name, for good: it cannot be renamed.
        name: String,
    },
    /// Lists the organizations.
    #[command(after_long_help = "JSON: {items: [{id, name, created_at_ms, secrets}], next}")]
    List {
        /// Go on behind this name.
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
}

/// How much of a list is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Paging {
    /// At most so many (1 to 10,000).
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// To the end, whatever the limit.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// Where: segments divided by '/', such as prod/db/password.
    pub(crate) path: String,
    /// Reads the value from this file instead of standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// A label beside the value, kept in clear; may be given more than once.
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// What kind of content it is, kept in clear: such as text/plain.
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Only if the latest version is this one; 0: only if the secret is new.
    #[arg(long, value_name = "N")]
    pub(crate) expect: Option<u32>,
    /// Leaves out one newline at the value's end (up to 1 MiB).
    #[arg(long)]
    pub(crate) strip_newline: bool,
    /// Taken so that it can be refused without being repeated in a message.
    #[arg(hide = true)]
    pub(crate) value_in_argument: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Which secret.
    pub(crate) path: String,
    /// This version instead of the latest one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: Option<u32>,
    /// Writes the value into this file, of mode 0600, instead of standard output. It is there whole or not at all.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
    /// Overwrites the output file; prints a binary value to a terminal.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only paths that begin so.
    #[arg(default_value = "")]
    pub(crate) prefix: String,
    /// Go on behind this path.
    #[arg(long, value_name = "PATH")]
    pub(crate) after: Option<String>,
    #[command(flatten)]
    pub(crate) paging: Paging,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Which secret.
    pub(crate) path: String,
    /// Go on behind this version.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u32,
    #[command(flatten)]
    pub(crate) paging: Paging,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Which secret.
    pub(crate) path: String,
    /// This version instead of the latest one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Which secret.
    pub(crate) path: String,
    /// Which version.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) version: u32,
}

#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    #[command(flatten)]
    pub(crate) which: VersionArgs,
    /// Does not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RetentionArgs {
    /// Which secret.
    pub(crate) path: String,
    /// Keep at most so many versions: every further put destroys the oldest ones.
    #[arg(long, value_name = "N", conflicts_with = "keep_all", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: Option<u32>,
    /// Keep all versions.
    #[arg(long)]
    pub(crate) keep_all: bool,
}

const JOB_JSON: &str = "JSON: {key, rewrap}; rewrap is null when nothing was to be moved, else as `rewrap status` has it.\n\
    Ends with exit code 10 when the job is blocked.";

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Registers a key after a probe; the first one takes everything over.
    ///
    /// Random bytes are wrapped and unwrapped, and must not unwrap under another context; a probe that fails changes
    /// nothing. The organization's first own key becomes the default: everything is handed over to it at once (from then on
    /// the old key is not needed), and every data key is re-wrapped.
    #[command(after_long_help = JOB_JSON)]
    Add(KeyAddArgs),
    /// Lists the registered keys.
    #[command(after_long_help = "JSON: {keys: [{name, backend, config, state, default, created_at_ms}]}")]
    List,
    /// Opens a new epoch under a key: from now on it takes the new data keys.
    #[command(after_long_help = JOB_JSON)]
    SetDefault {
        /// Which key.
        name: String,
        /// Re-wraps what there is, too.
        #[arg(long)]
        rewrap: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Moves everything from a key to another one, then disables it for good.
    #[command(after_long_help = JOB_JSON)]
    Disable {
        /// Which key; not the default one.
        name: String,
        /// The key that takes what it held.
        #[arg(long, value_name = "KEY")]
        target: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Moves everything back to the managed key, then disables all others for good.
    #[command(after_long_help = JOB_JSON)]
    DisableAll {
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Opens a new epoch under the same key, re-wraps to it what the key held, retires the older epochs.
    #[command(after_long_help = JOB_JSON)]
    Rotate {
        /// Which key; the default one unless given.
        name: Option<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Gives the running re-wrap job another target.
    #[command(after_long_help = JOB_JSON)]
    Retarget {
        /// The key that takes what is moved.
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// The second key, which wraps every epoch beside the key that it belongs to.
    #[command(subcommand)]
    Second(SecondCommand),
    /// Asks a key's KMS now whether the key can be used. Three KMS calls.
    #[command(after_long_help = "JSON: {key, usable: true}; a key that is not usable is an error")]
    Probe {
        /// Which key; the default one unless given.
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KeyAddArgs {
    /// The key's name in its organization: letters, digits, '.', '_', '-'.
    pub(crate) name: String,
    /// The backend, by the name that the config file gives it.
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: String,
    /// A text field of the key's config, such as key_arn=arn:…; may be given more than once. Kept in clear.
    #[arg(long = "set", value_name = "FIELD=TEXT")]
    pub(crate) fields: Vec<String>,
    /// The key's config as a JSON object, or @FILE to read it from a file. Kept in clear.
    #[arg(long, value_name = "JSON", conflicts_with = "fields")]
    pub(crate) key_config: Option<String>,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecondCommand {
    /// Makes a registered key the second key: it wraps every live epoch too, and opens them while the other KMS is out of reach.
    #[command(after_long_help = JOB_JSON)]
    Set {
        /// A registered key, neither the default nor the managed one.
        name: String,
        /// While either key opens an epoch it is readable: to take the data away, both must be revoked. Without this, a key that
        /// is found revoked is the answer.
        #[arg(long)]
        either_opens: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Erases its wraps; it is a key like the others again. Calls no KMS.
    #[command(after_long_help = "JSON: {removed: true}")]
    Remove,
    /// How it stands. Calls no KMS.
    #[command(
        after_long_help = "JSON: {second: {key, either_opens, wrapped, missing, blocked, standing_in: {key, since_ms, because}}}; second \
        is null where there is none, standing_in where no key stands in for another"
    )]
    Status,
}

/// Whether a command stays until the data keys are re-wrapped.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Waiting {
    /// Returns after the hand-over. The re-wrap goes on when an application next opens the store, or by `rewrap run`.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

const STATUS_JSON: &str = "JSON: {job, phase, state, blocked_reason, total, done, failed, remaining, rate, batches, \
    sources: [{epoch, target, handed_over, retired}]}; phase: hand-over, re-wrap; state: running, blocked, done, or none \
    when there never was a job.\nEnds with exit code 10 when the job is blocked.";

#[derive(Debug, Subcommand)]
pub(crate) enum RewrapCommand {
    /// Says how the running job stands, or the last one.
    #[command(after_long_help = STATUS_JSON)]
    Status,
    /// Does the running job's work until it is done or blocked.
    #[command(after_long_help = STATUS_JSON)]
    Run,
    /// Does the running job's work until it is done, trying again while it is blocked.
    #[command(after_long_help = STATUS_JSON)]
    Watch,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only records behind this number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    #[command(flatten)]
    pub(crate) paging: Paging,
    /// Number and hash of the newest record: noted elsewhere, they show later that nothing before was changed.
    #[arg(long)]
    pub(crate) head: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Opens every data key and every value, too: asks the KMS of every live epoch.
    #[arg(long)]
    pub(crate) open_values: bool,
    /// Memory that the verification may take, in MiB of address space. What needs more is reported as a finding.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) memory_mib: u64,
    /// This is the process that verifies.
    #[arg(long, hide = true)]
    pub(crate) in_this_process: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Writes it into this file, whole or not at all, instead of standard output.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SalvageArgs {
    /// The damaged file.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) damaged: PathBuf,
    /// The new store's file.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) new: PathBuf,
    /// Opens no value, and so asks no KMS: what has all its tags is taken for right.
    #[arg(long)]
    pub(crate) without_opening: bool,
    /// Keeps values of which nothing that is left says whether they were destroyed.
    #[arg(long)]
    pub(crate) keep_undecided: bool,
    /// The store's id (32 hexadecimal digits), for a file whose header is destroyed.
    #[arg(long, value_name = "ID")]
    pub(crate) store_id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BackendsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<BackendsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendsCommand {
    /// Prints the BLAKE3 digest of a plugin's file, as the config file wants it.
    ///
    /// Nothing of the file is run. Be sure that it is the file you mean.
    #[command(after_long_help = "JSON: {file, digest}")]
    Digest {
        /// The plugin.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

const KEYRING_JSON: &str =
    "JSON: {keyring, id, state, sealed, versions: [{number, created_unix_s}]}; state: enabled, disabled";

#[derive(Debug, Subcommand)]
pub(crate) enum KeyringCommand {
    /// Makes a keyring file with one master key; sealed if a passphrase is given.
    #[command(after_long_help = KEYRING_JSON)]
    Create,
    /// Shows a keyring's state and its versions.
    #[command(after_long_help = KEYRING_JSON)]
    Status,
    /// Adds a master key: what is wrapped from now on is wrapped by it. Then rotate the keys of the organizations.
    #[command(after_long_help = KEYRING_JSON)]
    Rotate,
    /// Disables the keyring: everything under it is revoked until it is enabled again.
    #[command(after_long_help = KEYRING_JSON)]
    Disable,
    /// Enables a disabled keyring.
    #[command(after_long_help = KEYRING_JSON)]
    Enable,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Asks the KMS of each organization's default key, too. Three KMS calls for each.
    #[arg(long)]
    pub(crate) probe: bool,
}
