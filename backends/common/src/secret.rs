//! Where a secret of the settings comes from: an environment variable, a file descriptor, a file. Never the settings
//! themselves: those are logged, committed and shown.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use keystead_backend::{BackendError, ErrorCode, LockedBytes};
use serde_json::Value;

use crate::strict::Object;

/// The longest secret, in bytes.
const SECRET_MAX_BYTES: usize = 4096;

/// A place that a secret is read from.
///
/// # Examples
///
/// ```
/// use keystead_backend_common::{Object, SecretSource};
/// use serde_json::json;
///
/// let file = Some(json!("/run/secrets/pin"));
/// let source = SecretSource::parse(Object::Settings("a-kms"), "pin", None, None, file).unwrap().unwrap();
/// assert_eq!(source.field(), "pin_file");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    field: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Environment(String),
    Descriptor(u32),
    File(PathBuf),
}

impl SecretSource {
    /// Reads the fields `<name>_env`, `<name>_fd` and `<name>_file` of the settings, of which at most one may be given.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidConfig`] names the field; no value is repeated, since it could be the secret itself.
    pub fn parse(
        object: Object,
        name: &str,
        env: Option<Value>,
        fd: Option<Value>,
        file: Option<Value>,
    ) -> Result<Option<Self>, BackendError> {
        let fields = [
            format!("{name}_env"),
            format!("{name}_fd"),
            format!("{name}_file"),
        ];
        let [env_field, fd_field, file_field] = &fields;
        let mut sources = Vec::new();
        if let Some(variable) = object.text(env_field, env, 256)? {
            if variable.contains('=') {
                return Err(object.wrong_field(
                    env_field,
                    "is not the name of an environment variable; give the name, not the secret",
                ));
            }
            sources.push((env_field, Place::Environment(variable)));
        }
        if fd.as_ref().is_some_and(|fd| !fd.is_null()) {
            let number = object.number(fd_field, fd, 0..=i32::MAX as u64, 0)?;
            let number = u32::try_from(number).expect("the range ends at the largest i32");
            sources.push((fd_field, Place::Descriptor(number)));
        }
        if let Some(path) = object.text(file_field, file, 4096)? {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(object.wrong_field(
                    file_field,
                    "is not the absolute path of a file; give one that begins with /",
                ));
            }
            sources.push((file_field, Place::File(path)));
        }
        if sources.len() > 1 {
            return Err(object.wrong_field(
                sources[1].0,
                format!("cannot stand beside {}: say one of the two", sources[0].0),
            ));
        }
        Ok(sources.pop().map(|(field, place)| Self {
            field: field.clone(),
            place,
        }))
    }

    /// The field of the settings that names this source.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The secret as it is now: an environment variable whole, a file or a descriptor up to its first newline or its end. A
    /// file may be replaced between two reads; a pipe gives its secret once. `doing` leads the error's message.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Unavailable`]: it cannot be read, is empty, or is longer than 4096 bytes.
    pub fn read(&self, doing: &str) -> Result<LockedBytes, BackendError> {
        let wrong = |place: String, what: &str| {
            BackendError::new(
                ErrorCode::Unavailable,
                format!(
                    "{doing}: {place} ({} of the backend's settings) {what}; put the secret there",
                    self.field
                ),
            )
        };
        let (place, secret) = match &self.place {
            Place::Environment(name) => (
                format!("the environment variable {name}"),
                std::env::var_os(name)
                    .map(|value| LockedBytes::copy_from(&zeroize::Zeroizing::new(value.into_vec())))
                    .ok_or_else(|| "it is not set".to_owned()),
            ),
            // The one way to a descriptor by its number without taking it from whoever owns it.
            Place::Descriptor(number) => (
                format!("descriptor {number}"),
                first_line(Path::new(&format!("/dev/fd/{number}"))),
            ),
            Place::File(path) => (format!("the file {}", path.display()), first_line(path)),
        };
        match secret {
            Ok(secret) if secret.as_slice().is_empty() => match self.place {
                Place::Descriptor(_) => Err(wrong(
                    place,
                    "is empty; a pipe gives its secret once, to the first that reads it",
                )),
                _ => Err(wrong(place, "is empty")),
            },
            Ok(secret) if secret.as_slice().len() > SECRET_MAX_BYTES => {
                Err(wrong(place, "has more than 4096 bytes on its first line"))
            }
            Ok(secret) => Ok(secret),
            Err(reason) => Err(wrong(place, &format!("cannot be read: {reason}"))),
        }
    }
}

fn first_line(path: &Path) -> Result<LockedBytes, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let mut length = 0;
    // Room for one byte too many, and the end of the line.
    let buffer = LockedBytes::fill_with(SECRET_MAX_BYTES + 3, |buffer| {
        while length < buffer.len() && !buffer[..length].contains(&b'\n') {
            match file.read(&mut buffer[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    })?;
    let read = &buffer.as_slice()[..length];
    let line = read.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(LockedBytes::copy_from(line.strip_suffix(b"\r").unwrap_or(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SETTINGS: Object = Object::Settings("a-kms");

    fn source(env: Value, fd: Value, file: Value) -> Result<Option<SecretSource>, BackendError> {
        SecretSource::parse(SETTINGS, "pin", Some(env), Some(fd), Some(file))
    }

    #[test]
    fn a_secret_is_the_first_line_of_its_file_and_is_read_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        let source = source(json!(null), json!(null), json!(path)).unwrap().unwrap();
        for (text, secret) in [("1234", "1234"), ("12 34\r\nnotes\n", "12 34"), ("5\n", "5")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(source.read("logging in").unwrap().as_slice(), secret.as_bytes());
        }
        for text in ["", "\n1234", &"x".repeat(4097)] {
            std::fs::write(&path, text).unwrap();
            let error = source.read("logging in").unwrap_err();
            assert_eq!(error.code, ErrorCode::Unavailable);
            assert!(
                error.message.contains("pin_file") && !error.message.contains("1234"),
                "{error}"
            );
        }
        std::fs::write(&path, "x".repeat(4096)).unwrap();
        assert_eq!(source.read("logging in").unwrap().as_slice().len(), 4096);
        std::fs::remove_file(&path).unwrap();
        assert!(
            source
                .read("logging in")
                .unwrap_err()
                .message
                .contains("No such file")
        );
    }

    #[test]
    fn a_secret_comes_from_the_environment() {
        let of = |name: &str| source(json!(name), json!(null), json!(null)).unwrap().unwrap();
        let path = std::env::var("PATH").unwrap();
        assert_eq!(of("PATH").read("logging in").unwrap().as_slice(), path.as_bytes());
        let error = of("KEYSTEAD_NO_SUCH_VARIABLE").read("logging in").unwrap_err();
        assert!(error.message.contains("KEYSTEAD_NO_SUCH_VARIABLE"), "{error}");
    }

    #[test]
    fn a_secret_comes_from_a_descriptor() {
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let (reads, mut writes) = std::io::pipe().unwrap();
        writes.write_all(b"1234\n").unwrap();
        let source = source(json!(null), json!(reads.as_raw_fd()), json!(null))
            .unwrap()
            .unwrap();
        assert_eq!(source.read("logging in").unwrap().as_slice(), b"1234");
    }

    #[test]
    fn a_wrong_source_is_refused_and_its_value_not_repeated() {
        let none = || json!(null);
        assert_eq!(source(none(), none(), none()).unwrap(), None);
        for wrong in [
            source(json!("A"), none(), json!("/b")),
            source(json!("A"), json!(3), none()),
            source(json!("PIN=hunter2"), none(), none()),
            source(none(), json!("hunter2"), none()),
            source(none(), none(), json!("hunter2")),
            source(json!(["hunter2"]), none(), none()),
        ] {
            let error = wrong.unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidConfig);
            assert!(
                error.message.starts_with("pin_") && !error.message.contains("hunter2"),
                "{error}"
            );
        }
    }
}
