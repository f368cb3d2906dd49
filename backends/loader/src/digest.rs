//! The BLAKE3 digest of a plugin's file.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// The BLAKE3 digest of a plugin's bytes, written as 64 hexadecimal digits. Comparing two takes constant time.
///
/// # Examples
///
/// ```
/// use keystead_loader::Digest;
///
/// let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
/// let digest: Digest = text.parse().expect("64 hexadecimal digits");
/// assert_eq!(digest.to_string(), text);
/// assert_eq!(Digest::from(*digest.as_bytes()), digest);
/// assert!("af13".parse::<Digest>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(blake3::Hash::from_bytes(bytes))
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash)
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        blake3::Hash::from_hex(text)
            .map(Self)
            .map_err(|_| InvalidDigest(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDigest(String);

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no BLAKE3 digest: 64 hexadecimal digits are expected (as `b3sum` prints them)",
            self.0
        )
    }
}

impl std::error::Error for InvalidDigest {}

/// The digest of a file, for tools that make an allow-list. It reads whatever is there and checks nothing: be sure that the
/// file is the one you mean.
///
/// # Errors
///
/// What the system says about opening and reading the file.
///
/// # Examples
///
/// ```no_run
/// println!("{}", keystead_loader::digest_file("/usr/lib/keystead/libkeystead_aws_kms.so".as_ref())?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn digest_file(path: &Path) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().into())
}
