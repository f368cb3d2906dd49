//! An event of a damaged file's trail, inside of the event that carries it over.

use super::AuditEvent;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An event that was carried over from a damaged file. It is kept as its bytes, so that an event in an event in an event costs
/// nobody's stack; serialized for people (JSON), it is the event itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedEvent(Vec<u8>);

impl CarriedEvent {
    pub(crate) fn new(event: &AuditEvent) -> Self {
        Self(postcard::to_allocvec(event).expect("events encode into memory"))
    }

    /// The event; `None` when this version does not know it, or it carries another one, which a salvage never does.
    #[must_use]
    pub fn event(&self) -> Option<AuditEvent> {
        match postcard::from_bytes(&self.0) {
            Ok(AuditEvent::Carried { .. }) | Err(_) => None,
            Ok(event) => Some(event),
        }
    }
}

impl Serialize for CarriedEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            self.event().serialize(serializer)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for CarriedEvent {
    /// From the bytes of a row. What is serialized for people does not come back.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}
