//! Why a plugin was not loaded.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::Digest;

/// A plugin was not loaded: which one, at which step, and why.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    refusal: Refusal,
}

impl LoadError {
    pub(crate) fn new(path: &Path, refusal: Refusal) -> Self {
        Self {
            path: path.to_owned(),
            refusal,
        }
    }

    /// The plugin that was asked for.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far it got.
    #[must_use]
    pub fn step(&self) -> LoadStep {
        self.refusal.step()
    }

    /// Why it was refused.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "plugin {} was not loaded ({}): {}",
            self.path.display(),
            self.step(),
            self.refusal
        )
    }
}

/// Where a backend is to be made and its plugin is refused: nothing that trying again would change.
impl From<LoadError> for keystead_backend::BackendError {
    fn from(refused: LoadError) -> Self {
        Self::new(keystead_backend::ErrorCode::InvalidConfig, refused.to_string())
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.refusal {
            Refusal::Open { error, .. } | Refusal::Read { error } | Refusal::Image { error } => Some(error),
            _ => None,
        }
    }
}

/// The steps of loading, in their order. No code of the plugin runs before [`Image`](Self::Image) is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LoadStep {
    /// The path itself.
    Path,
    /// Owners, modes and links along the path.
    Permissions,
    /// Reading the file.
    Read,
    /// Comparing its digest.
    Digest,
    /// Handing the bytes to the dynamic linker.
    Image,
    /// The symbol, the versions, the table.
    Interface,
    /// What the plugin says about itself.
    Description,
}

impl fmt::Display for LoadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "step 1, path",
            Self::Permissions => "step 2, permissions",
            Self::Read => "step 3, read",
            Self::Digest => "step 4, digest",
            Self::Image => "step 5, image",
            Self::Interface => "step 6, interface",
            Self::Description => "step 7, description",
        })
    }
}

/// Why a plugin was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// This platform has no way to load one that can be checked.
    UnsupportedPlatform,
    /// The path does not begin with `/`.
    RelativePath,
    /// The path has a `.`, a `..`, an empty component or a zero byte, or names a directory.
    IndirectPath,
    /// Neither a digest nor [`dangerously_without_digest`](crate::PluginSource::dangerously_without_digest) was given.
    NoDigest,
    /// A component of the path cannot be opened.
    Open {
        /// The path up to this component.
        component: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A component of the path is a symbolic link.
    SymbolicLink {
        /// The path up to this component.
        component: PathBuf,
    },
    /// The file or a directory above it belongs to neither root nor the effective user.
    Owner {
        /// The path up to this component.
        component: PathBuf,
        /// Whose it is.
        owner_uid: u32,
    },
    /// The file or a directory above it can be written by its group or by everybody.
    Writable {
        /// The path up to this component.
        component: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not a regular file.
    NotAFile,
    /// Larger than the cap.
    TooLarge {
        /// The cap.
        size_max_bytes: u64,
    },
    /// The file cannot be read.
    Read {
        /// What the system says.
        error: io::Error,
    },
    /// The digest is not on the allow-list.
    DigestMismatch {
        /// The digest of what is there.
        actual: Digest,
    },
    /// The sealed image cannot be made.
    Image {
        /// What the system says.
        error: io::Error,
    },
    /// The dynamic linker refused it.
    Link {
        /// What the dynamic linker says.
        reason: String,
    },
    /// It does not export the symbol.
    SymbolMissing,
    /// It speaks no version of the interface that this host speaks.
    AbiRange,
    /// It answered the question for its table with this code.
    InterfaceFailed {
        /// The code.
        code: i32,
    },
    /// The table is null or misaligned.
    NoTable,
    /// The table is shorter than version 1 has it.
    ShortTable {
        /// What the table says.
        struct_size: u32,
    },
    /// The table is of a version that was not asked for.
    TableAbi {
        /// What the table says.
        abi: u32,
    },
    /// A required entry of the table is null.
    NullEntry {
        /// Its name in the header.
        entry: &'static str,
    },
    /// `describe` failed.
    DescribeFailed {
        /// The code, and the plugin's message.
        reason: String,
    },
    /// What `describe` answered is not what the header says.
    InvalidDescription {
        /// What is wrong with it.
        reason: String,
    },
    /// A size limit in the description is out of bounds.
    LimitOutOfRange {
        /// Its name.
        limit: &'static str,
        /// What the plugin says.
        value: u32,
        /// The least allowed.
        least: u32,
        /// The most allowed.
        most: u32,
    },
    /// It wrote beyond the room that it was given. The process's memory may be damaged.
    Overrun,
}

impl Refusal {
    /// The step that found it.
    #[must_use]
    pub fn step(&self) -> LoadStep {
        match self {
            Self::UnsupportedPlatform | Self::RelativePath | Self::IndirectPath | Self::NoDigest => {
                LoadStep::Path
            }
            Self::Open { .. } | Self::SymbolicLink { .. } | Self::Owner { .. } | Self::Writable { .. } => {
                LoadStep::Permissions
            }
            Self::NotAFile | Self::TooLarge { .. } | Self::Read { .. } => LoadStep::Read,
            Self::DigestMismatch { .. } => LoadStep::Digest,
            Self::Image { .. } | Self::Link { .. } => LoadStep::Image,
            Self::SymbolMissing
            | Self::AbiRange
            | Self::InterfaceFailed { .. }
            | Self::NoTable
            | Self::ShortTable { .. }
            | Self::TableAbi { .. }
            | Self::NullEntry { .. } => LoadStep::Interface,
            Self::DescribeFailed { .. }
            | Self::InvalidDescription { .. }
            | Self::LimitOutOfRange { .. }
            | Self::Overrun => LoadStep::Description,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedPlatform => {
                f.write_str("plugins are loaded on Unix systems only; link the backend statically")
            }
            Self::RelativePath => f.write_str("the path is relative; give an absolute one"),
            Self::IndirectPath => {
                f.write_str("the path goes through `.`, `..` or an empty component; give the file's own path")
            }
            Self::NoDigest => f.write_str(
                "no digest was given; allow the file's BLAKE3 digest (`b3sum`), or say that any bytes may run",
            ),
            Self::Open { component, error } => write!(f, "{} cannot be opened: {error}", component.display()),
            Self::SymbolicLink { component } => {
                write!(f, "{} is a symbolic link; give the path that it leads to", component.display())
            }
            Self::Owner { component, owner_uid } => write!(
                f,
                "{} belongs to user {owner_uid}, who could swap the file; it must belong to root or to the user that \
                 this process runs as",
                component.display()
            ),
            Self::Writable { component, mode } => write!(
                f,
                "{} has mode {mode:04o}: others than its owner could swap the file; take their right to write away \
                 (`chmod go-w`), or move the file to a directory of its own",
                component.display()
            ),
            Self::NotAFile => f.write_str("it is not a regular file"),
            Self::TooLarge { size_max_bytes } => {
                write!(f, "it is larger than {size_max_bytes} bytes; raise the cap if that is meant to be so")
            }
            Self::Read { error } => write!(f, "it cannot be read: {error}"),
            Self::DigestMismatch { actual } => write!(
                f,
                "its BLAKE3 digest is {actual}, which is not allowed; if this is the build that you mean, allow it"
            ),
            Self::Image { error } if error.kind() == io::ErrorKind::ResourceBusy => write!(
                f,
                "the memory file that was made of it cannot be sealed, for something else uses its pages: {error}; try \
                 again, and see whether another process looks into this one"
            ),
            Self::Image { error } => write!(
                f,
                "no sealed memory file could be made of it: {error}; look at vm.memfd_noexec and the process's limits"
            ),
            Self::Link { reason } => write!(f, "the dynamic linker refuses it: {reason}"),
            Self::SymbolMissing => f.write_str(
                "it does not export `keystead_backend_get_interface`; it is not a key backend, or was linked without \
                 the symbol",
            ),
            Self::AbiRange => write!(
                f,
                "it does not speak version {} of the interface, the only one here; use a build for this version",
                keystead_backend::abi::ABI
            ),
            Self::InterfaceFailed { code } => write!(f, "asked for its table it answered code {code}; report it to its maker"),
            Self::NoTable => f.write_str("its table is null or misaligned; report it to its maker"),
            Self::ShortTable { struct_size } => {
                write!(f, "its table has {struct_size} bytes, fewer than version 1 has; report it to its maker")
            }
            Self::TableAbi { abi } => {
                write!(f, "its table is of version {abi}, which was not asked for; report it to its maker")
            }
            Self::NullEntry { entry } => {
                write!(f, "the entry `{entry}` of its table is null; report it to its maker")
            }
            Self::DescribeFailed { reason } => write!(f, "it does not describe itself: {reason}"),
            Self::InvalidDescription { reason } => write!(f, "its description is wrong: {reason}; report it to its maker"),
            Self::LimitOutOfRange { limit, value, least, most } => write!(
                f,
                "its description says {limit} = {value}, which must lie between {least} and {most}; report it to its maker"
            ),
            Self::Overrun => f.write_str(
                "it wrote beyond the room that it was given; memory of this process may be damaged: end it, and report \
                 this to the plugin's maker",
            ),
        }
    }
}
