//! Answers of many items: an object with its items, to be looked at one by one.

#![allow(unsafe_code)]

use crate::error::Failure;
use crate::guard::{Called, invalid};
use crate::structs::Struct;
use crate::text::Text;

/// The items of one answer, and where the next one begins.
#[derive(Debug)]
pub(crate) struct Items<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<Text>,
}

impl<T> Items<T> {
    pub(crate) fn whole(items: impl IntoIterator<Item = T>) -> Self {
        Self {
            items: items.into_iter().collect(),
            next: None,
        }
    }

    /// Writes what one item looks like.
    pub(crate) fn fill<V: Struct>(
        &self,
        called: &Called<'_>,
        index: usize,
        out: *mut V,
        view: impl FnOnce(&T) -> V,
    ) -> Result<(), Failure> {
        let item = self.items.get(index).ok_or_else(|| {
            let len = self.items.len();
            invalid(format!("there is no item {index}: there are {len}, from 0"))
        })?;
        called.fill(out, view(item))
    }
}
