//! The libraries of the tokens' vendors: each loaded once, and initialized when it is not.
//!
//! Never unloaded and never finalized: the application, or another backend in this process, may use the same library,
//! and PKCS#11 has one state for all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use crate::failure::Failure;
use crate::wait::Wait;

static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// The library at this path, ready for use.
pub(crate) fn ready(path: &Path, wait: &Wait<'_>) -> Result<Pkcs11, Failure> {
    let mut loaded = wait.lock(&LOADED, "the PKCS#11 module was loaded")?;
    let module = match loaded.get(path) {
        Some(module) => module.clone(),
        None => {
            let module = Pkcs11::new(path)?;
            loaded.insert(path.to_owned(), module.clone());
            module
        }
    };
    // Under the lock, as two at once may be too much for a library.
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
        Err(error) => Err(error.into()),
    }
}
