//! The authenticated data of a wrap.

/// What a wrapped epoch key is bound to: names and values, ordered by name, in clear.
///
/// A KMS with authenticated data gets it as its encryption context (AWS: the pairs) or as additional authenticated
/// data ([`canonical_bytes`](Self::canonical_bytes)).
///
/// # Examples
///
/// ```
/// use keystead_backend::Context;
///
/// let a = Context::new([("store", "0f"), ("epoch", "1")]);
/// let b = Context::new([("epoch", "1"), ("store", "0f")]);
/// assert_eq!(a, b);
/// assert_eq!(a.canonical_bytes(), b.canonical_bytes());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    entries: Vec<(String, String)>,
}

impl Context {
    /// A context of these names and values. A name given twice keeps its last value.
    pub fn new<N: Into<String>, V: Into<String>>(entries: impl IntoIterator<Item = (N, V)>) -> Self {
        let map: std::collections::BTreeMap<String, String> = entries
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self {
            entries: map.into_iter().collect(),
        }
    }

    /// The pairs, ordered by name.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One unambiguous encoding: the number of pairs, then for each its name and value, each led by its length in
    /// bytes; numbers are 32 bits, little-endian.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        push_len(&mut out, self.entries.len());
        for (name, value) in &self.entries {
            push_len(&mut out, name.len());
            out.extend_from_slice(name.as_bytes());
            push_len(&mut out, value.len());
            out.extend_from_slice(value.as_bytes());
        }
        out
    }
}

fn push_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(
        &u32::try_from(len)
            .expect("a context is far below 4 GiB")
            .to_le_bytes(),
    );
}
