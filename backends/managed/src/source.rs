//! Where a secret of the settings comes from: an environment variable, a file descriptor, a file. Never the settings
//! themselves: those are logged, committed and shown.

use crate::error::{Result, invalid_config};
use crate::sealing::PASSPHRASE_MAX_BYTES;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest secret, and one byte for the end of its line.
const READ_MAX_BYTES: usize = PASSPHRASE_MAX_BYTES + 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    Environment { field: &'static str, name: String },
    Descriptor { field: &'static str, number: u32 },
    File { field: &'static str, path: PathBuf },
}

impl SecretSource {
    /// The field of the settings that named this source.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Environment { field, .. } | Self::Descriptor { field, .. } | Self::File { field, .. } => {
                field
            }
        }
    }

    /// The secret: an environment variable whole, a descriptor or a file up to its first newline or its end.
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Environment { field, name } => {
                let value = std::env::var_os(name).ok_or_else(|| {
                    invalid_config(format!(
                        "`{field}` names the environment variable {name}, which is not set; set it"
                    ))
                })?;
                let secret = Zeroizing::new(value.into_vec());
                not_empty(secret, || {
                    format!("the environment variable {name} (`{field}`) is empty")
                })
            }
            Self::Descriptor { field, number } => {
                // The one way to a descriptor by its number without taking it from whoever owns it.
                let secret = first_line(Path::new(&format!("/dev/fd/{number}"))).map_err(|reason| {
                    invalid_config(format!("reading descriptor {number} (`{field}`): {reason}"))
                })?;
                not_empty(secret, || {
                    format!(
                        "descriptor {number} (`{field}`) has nothing to read; a pipe gives its secret once, to the first \
                         backend that reads it"
                    )
                })
            }
            Self::File { field, path } => {
                let secret = first_line(path).map_err(|reason| {
                    invalid_config(format!("reading {} (`{field}`): {reason}", path.display()))
                })?;
                not_empty(secret, || {
                    format!("the first line of {} (`{field}`) is empty", path.display())
                })
            }
        }
    }
}

fn not_empty(secret: Zeroizing<Vec<u8>>, problem: impl FnOnce() -> String) -> Result<Zeroizing<Vec<u8>>> {
    if secret.is_empty() {
        Err(invalid_config(problem()))
    } else {
        Ok(secret)
    }
}

fn first_line(path: &Path) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    // Full size at once: growing would leave copies of the secret behind.
    let mut buffer = Zeroizing::new(vec![0; READ_MAX_BYTES]);
    let mut filled = 0;
    let end = loop {
        match file.read(&mut buffer[filled..]) {
            Ok(0) if filled == READ_MAX_BYTES => return Err(too_long()),
            Ok(0) => break filled,
            Ok(count) => {
                let newline = buffer[filled..filled + count]
                    .iter()
                    .position(|&byte| byte == b'\n');
                if let Some(position) = newline {
                    break filled + position;
                }
                filled += count;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    };
    let line = buffer[..end].strip_suffix(b"\r").unwrap_or(&buffer[..end]);
    if line.len() > PASSPHRASE_MAX_BYTES {
        return Err(too_long());
    }
    Ok(Zeroizing::new(line.to_vec()))
}

fn too_long() -> String {
    format!("its first line is longer than {PASSPHRASE_MAX_BYTES} bytes")
}
