//! Bytes that are a secret: erased when they are dropped, never printed, never copied unasked.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret's value, or other bytes that nobody else may see.
///
/// - Dropping it erases the whole allocation, also what lies between the length and the capacity.
/// - It cannot be printed: `Debug` shows the length alone, and there is no `Display`.
/// - It is not `Clone`, and derefs to nothing: a copy is made where the code says [`duplicate`](Self::duplicate) or
///   takes one from [`as_slice`](Self::as_slice), and nowhere by the way.
/// - Comparing takes the same time whatever the bytes are; only the lengths may show.
/// - It never grows. A buffer that grows is copied to a larger one, and the old one, freed as it was, keeps the secret;
///   so a value is first read into a buffer that is large enough, and then becomes a `SecretBytes`.
///
/// What it cannot do: erase copies that others made before, registers and stack frames that the bytes passed through,
/// and pages that the system swapped out or dumped meanwhile.
///
/// # Examples
///
/// ```
/// use keystead::SecretBytes;
///
/// let password = SecretBytes::from(b"correct horse".to_vec());
/// assert_eq!(password, b"correct horse");
/// assert_eq!(password.as_slice().len(), 13);
/// assert_eq!(format!("{password:?}"), "SecretBytes(13 bytes)");
/// ```
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// A secret copy of `bytes`, in an allocation of just their length. The caller erases the original.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        // `to_vec` allocates once, for the length it knows: no shorter buffer is left behind.
        Self::from(bytes.to_vec())
    }

    /// The bytes, for as long as they are borrowed. A copy made from here is not erased by anything.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all; an empty value is a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A second copy, erased by itself. What `clone` would be, under a name that is found by looking for it.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_slice(&self.0)
    }
}

/// Takes the buffer over, without a copy: it is erased, all of its capacity, when the `SecretBytes` is dropped. Earlier
/// buffers that the `Vec` outgrew are not: reserve the length before filling it.
impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl AsRef<[u8]> for SecretBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Compares in constant time with any bytes: another `SecretBytes`, a slice, an array, a string. Different lengths are
/// seen at once, so the time may show whether the lengths are equal.
impl<B: AsRef<[u8]> + ?Sized> PartialEq<B> for SecretBytes {
    fn eq(&self, other: &B) -> bool {
        self.0.as_slice().ct_eq(other.as_ref()).into()
    }
}

impl Eq for SecretBytes {}

/// The length, and nothing of the bytes.
impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_length_and_nothing_else() {
        let secret = SecretBytes::from_slice(b"hunter2");
        assert_eq!(
            format!("{secret:?} {secret:#?}"),
            "SecretBytes(7 bytes) SecretBytes(7 bytes)"
        );
    }

    #[test]
    fn a_vec_is_taken_over_without_a_copy() {
        let mut buffer = Vec::with_capacity(100);
        buffer.extend_from_slice(b"hunter2");
        let address = buffer.as_ptr();
        let secret = SecretBytes::from(buffer);
        assert_eq!(secret.as_slice().as_ptr(), address);
        assert_eq!(secret.0.capacity(), 100);
    }

    #[test]
    fn a_copy_of_a_slice_has_no_room_to_spare() {
        assert_eq!(SecretBytes::from_slice(&[7; 1000]).0.capacity(), 1000);
    }

    #[test]
    fn a_duplicate_is_equal_and_stands_by_itself() {
        let secret = SecretBytes::from_slice(b"hunter2");
        let duplicate = secret.duplicate();
        assert_ne!(secret.as_slice().as_ptr(), duplicate.as_slice().as_ptr());
        drop(secret);
        assert_eq!(duplicate, b"hunter2");
    }

    #[test]
    fn it_equals_the_same_bytes_in_any_form_and_no_others() {
        let secret = SecretBytes::from_slice(b"hunter2");
        assert_eq!(secret, SecretBytes::from_slice(b"hunter2"));
        assert_eq!(secret, b"hunter2");
        assert_eq!(secret, b"hunter2"[..]);
        assert_eq!(secret, "hunter2");
        for other in [&b"hunter3"[..], b"gunter2", b"hunter", b"hunter22", b""] {
            assert_ne!(secret, other);
        }
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let empty = SecretBytes::from(Vec::new());
        assert!(empty.is_empty());
        assert_eq!(empty.len(), 0);
        assert_eq!(empty, b"");
    }

    #[test]
    fn the_type_it_erases_by_erases_on_drop() {
        fn erases<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        erases(&SecretBytes::from_slice(b"hunter2").0);
    }
}
