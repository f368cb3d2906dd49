//! Text on its way to C: bytes and their number, and a zero byte behind them for whoever likes that better.

use crate::error::Failure;
use crate::guard::Called;
use std::collections::BTreeMap;
use std::ffi::c_char;

/// A text: UTF-8, `len` bytes. What the library answers has a zero byte behind it, and belongs to the object that it was
/// asked of; `data` is null where there is no text. In what the caller gives, `len` may be KEYSTEAD_ZERO_TERMINATED.
/// This struct does not grow.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_text {
    /// The bytes.
    pub data: *const c_char,
    /// How many.
    pub len: usize,
}

/// A label beside a value: kept in clear. This struct does not grow.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct keystead_label {
    /// 1 to 128 bytes without control characters.
    pub name: keystead_text,
    /// At most 1024 bytes without zeros.
    pub value: keystead_text,
}

impl keystead_text {
    pub(crate) const NONE: Self = Self {
        data: std::ptr::null(),
        len: 0,
    };

    pub(crate) fn given<'a>(self, called: &Called<'a>, what: &'static str) -> Result<&'a str, Failure> {
        called.text(self.data, self.len, what)
    }
}

/// A text that an object owns.
#[derive(Debug)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.push('\0');
        Self(text)
    }

    pub(crate) fn view(&self) -> keystead_text {
        keystead_text {
            data: self.as_ptr(),
            len: self.0.len() - 1,
        }
    }

    pub(crate) fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

/// A text that may be missing.
pub(crate) fn view(text: &Option<Text>) -> keystead_text {
    text.as_ref().map_or(keystead_text::NONE, Text::view)
}

/// A text that may be missing.
pub(crate) fn optional(text: Option<String>) -> Option<Text> {
    text.map(Text::new)
}

/// Labels that an object owns.
#[derive(Debug)]
pub(crate) struct Labels {
    views: Vec<keystead_label>,
    _texts: Vec<(Text, Text)>,
}

impl Labels {
    pub(crate) fn new(labels: BTreeMap<String, String>) -> Self {
        let texts: Vec<(Text, Text)> = labels
            .into_iter()
            .map(|(name, value)| (Text::new(name), Text::new(value)))
            .collect();
        let views = texts
            .iter()
            .map(|(name, value)| keystead_label {
                name: name.view(),
                value: value.view(),
            })
            .collect();
        Self { views, _texts: texts }
    }

    pub(crate) fn as_ptr(&self) -> *const keystead_label {
        if self.views.is_empty() {
            std::ptr::null()
        } else {
            self.views.as_ptr()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.views.len()
    }
}

/// The pointer alone, to a text that may be missing.
pub(crate) fn pointer(text: &Option<Text>) -> *const c_char {
    text.as_ref().map_or(std::ptr::null(), Text::as_ptr)
}
