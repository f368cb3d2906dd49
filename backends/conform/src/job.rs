//! What is to be checked: read by the tool, handed to the process of each check.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A plugin, and what it takes to use it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) plugin: PathBuf,
    /// Of the bytes that are at the path.
    pub(crate) digest: String,
    /// Which digests are allowed; any, when there is none.
    pub(crate) allowed: Vec<String>,
    pub(crate) config: String,
    pub(crate) settings: String,
    pub(crate) other_config: Option<String>,
    pub(crate) other_settings: Option<String>,
    pub(crate) silent_settings: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) thorough: bool,
}
