//! One token: found, logged in once, its sessions shared; connected anew after it was lost.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use keystead_backend::{BackendError, ErrorCode, LockedBytes};
use keystead_backend_common::{SecretSource, quote, words};
use subtle::ConstantTimeEq;

use crate::cipher::Cipher;
use crate::classify::Aftermath;
use crate::failure::{Doing, Failure, refuses_the_pin};
use crate::module;
use crate::settings::Settings;
use crate::wait::Wait;

/// What tells two uses of a token apart.
#[derive(Debug, PartialEq, Eq)]
struct Which {
    module: PathBuf,
    label: String,
    serial: Option<String>,
    pin: SecretSource,
    sessions_max: usize,
}

/// A token as the settings name it, connected or not.
pub(crate) struct Token {
    which: Which,
    /// It comes from a descriptor.
    is_pin_given_once: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    /// A PIN that came from a descriptor: it gives it once.
    pin: Option<LockedBytes>,
    refused: Option<RefusedPin>,
}

/// A PIN that the token did not take. Trying it again and again would lock the token.
struct RefusedPin {
    pin: LockedBytes,
    /// The token showed the failure in its flags: so it will show when somebody has set it right.
    was_flagged: bool,
}

/// Log-ins are the process's: so are these.
static TOKENS: Mutex<Vec<Arc<Token>>> = Mutex::new(Vec::new());

impl Token {
    /// The token with this label, which the settings have. Nothing is loaded or asked yet.
    pub(crate) fn of(settings: &Settings, label: &str) -> Option<Arc<Self>> {
        let token = settings.tokens.get(label)?;
        let which = Which {
            module: settings.module.clone(),
            label: label.to_owned(),
            serial: token.serial.clone(),
            pin: token.pin.clone(),
            sessions_max: settings.sessions_max,
        };
        let mut tokens = TOKENS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tokens.iter().find(|token| token.which == which) {
            return Some(Arc::clone(known));
        }
        let token = Arc::new(Self {
            which,
            is_pin_given_once: token.pin.field().ends_with("_fd"),
            state: Mutex::default(),
        });
        tokens.push(Arc::clone(&token));
        Some(token)
    }

    /// The connection, made if there is none.
    pub(crate) fn connection(&self, wait: &Wait<'_>) -> Result<Arc<Connection>, Failure> {
        let mut state = wait.lock(&self.state, "another call had logged in to the token")?;
        if let Some(connection) = &state.connection {
            return Ok(Arc::clone(connection));
        }
        wait.check("the token was asked")?;
        let connection = Arc::new(self.connect(&mut state, wait)?);
        state.connection = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Gives up this connection, unless somebody else already did.
    pub(crate) fn disconnect(
        &self,
        connection: &Arc<Connection>,
        aftermath: Aftermath,
        wait: &Wait<'_>,
    ) -> Result<(), Failure> {
        let mut state = wait.lock(&self.state, "another call had logged in to the token")?;
        if state
            .connection
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, connection))
        {
            state.connection = None;
            connection
                .is_lost
                .store(aftermath == Aftermath::Lost, Ordering::Release);
        }
        Ok(())
    }

    fn connect(&self, state: &mut State, wait: &Wait<'_>) -> Result<Connection, Failure> {
        let module = module::ready(&self.which.module, wait)?;
        let (slot, info) = self.find(&module, wait.doing)?;
        let mechanisms = module.get_mechanism_list(slot)?;
        let login = module.open_ro_session_no_drop(slot)?;
        if let Err(failure) = self.log_in(state, &module, slot, &info, &login, wait.doing) {
            // Whatever comes of closing it, the failure is what is told.
            let _ = login.close();
            return Err(failure);
        }
        Ok(Connection {
            ciphers: [Cipher::Gcm, Cipher::KeyWrap]
                .into_iter()
                .filter(|cipher| mechanisms.contains(&cipher.mechanism()))
                .collect(),
            about: format!(
                "{} {}, serial {}",
                words(info.manufacturer_id().trim()),
                words(info.model().trim()),
                words(info.serial_number().trim())
            ),
            module,
            slot,
            idle: Mutex::default(),
            open: AtomicUsize::new(0),
            sessions_max: self.which.sessions_max,
            login: Mutex::new(Some(login)),
            is_lost: AtomicBool::new(false),
        })
    }

    /// The slot with the token in it.
    fn find(&self, module: &Pkcs11, doing: Doing<'_>) -> Result<(Slot, TokenInfo), Failure> {
        let mut found = Vec::new();
        for slot in module.get_slots_with_token()? {
            // A slot whose token goes at this moment, or is another one's and ill, is not ours.
            let Ok(info) = module.get_token_info(slot) else {
                continue;
            };
            let is_ours = info.label().trim_end() == self.which.label
                && self
                    .which
                    .serial
                    .as_ref()
                    .is_none_or(|serial| info.serial_number().trim() == serial);
            if is_ours {
                found.push((slot, info));
            }
        }
        let label = quote(&self.which.label);
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Failure::Ours(doing.failed(
                ErrorCode::Unavailable,
                format!("no token with the label {label} is in any slot (and the serial number of the settings, if they say one)"),
            ))),
            count => Err(Failure::Ours(doing.failed(
                ErrorCode::InvalidConfig,
                format!("{count} tokens have the label {label}: say the serial number in the settings (tokens)"),
            ))),
        }
    }

    fn log_in(
        &self,
        state: &mut State,
        module: &Pkcs11,
        slot: Slot,
        info: &TokenInfo,
        session: &Session,
        doing: Doing<'_>,
    ) -> Result<(), Failure> {
        // Log-ins are the process's: the application, or another backend, may have done it.
        if is_logged_in(session)? {
            return Ok(());
        }
        let refuse = |wrong: &str| Failure::Ours(doing.failed(ErrorCode::Unauthenticated, wrong));
        if info.user_pin_locked() {
            return Err(refuse("the token has locked its user PIN"));
        }
        let pin = self.pin(state, doing)?;
        if let Some(refused) = &state.refused {
            let is_the_same = bool::from(refused.pin.as_slice().ct_eq(pin.as_slice()));
            let was_set_right =
                refused.was_flagged && !info.user_pin_count_low() && !info.user_pin_final_try();
            if is_the_same && !was_set_right {
                return Err(refuse("the token refused this user PIN before"));
            }
        }
        let given = RawAuthPin::new(Box::new(pin.as_slice().to_vec()));
        match session.login_with_raw(UserType::User, &given) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                state.refused = None;
                Ok(())
            }
            Err(error) => {
                if refuses_the_pin(&error) {
                    state.refused = Some(RefusedPin {
                        pin,
                        was_flagged: module
                            .get_token_info(slot)
                            .is_ok_and(|info| info.user_pin_count_low() || info.user_pin_final_try()),
                    });
                }
                Err(error.into())
            }
        }
    }

    fn pin(&self, state: &mut State, doing: Doing<'_>) -> Result<LockedBytes, BackendError> {
        if let Some(pin) = &state.pin {
            return Ok(LockedBytes::copy_from(pin.as_slice()));
        }
        let pin = self.which.pin.read(&doing.what())?;
        if self.is_pin_given_once {
            state.pin = Some(LockedBytes::copy_from(pin.as_slice()));
        }
        Ok(pin)
    }
}

/// Whether the user is logged in: without, the token shows no private object, and does not say so.
pub(crate) fn is_logged_in(session: &Session) -> Result<bool, Error> {
    let state = session.get_session_info()?.session_state();
    Ok(matches!(state, SessionState::RoUser | SessionState::RwUser))
}

/// A token that is there and logged in to. Its last user closes its sessions, unless they were lost: then their numbers
/// may be somebody else's.
pub(crate) struct Connection {
    module: Pkcs11,
    slot: Slot,
    /// What the token offers, best first.
    ciphers: Vec<Cipher>,
    about: String,
    idle: Mutex<Vec<Session>>,
    /// How many sessions there are, idle or in use, the one of the log-in left out.
    open: AtomicUsize,
    sessions_max: usize,
    /// Stays open: a process whose last session is closed is logged out.
    login: Mutex<Option<Session>>,
    is_lost: AtomicBool,
}

impl Connection {
    pub(crate) fn ciphers(&self) -> &[Cipher] {
        &self.ciphers
    }

    /// Who made the token, for people.
    pub(crate) fn about(&self) -> &str {
        &self.about
    }

    /// A session for one call: one that is idle, else a new one, else the next that gets idle.
    pub(crate) fn session(&self, wait: &Wait<'_>) -> Result<Session, Failure> {
        loop {
            if let Some(session) = self.pool().pop() {
                return Ok(session);
            }
            let has_room = self
                .open
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                    (open < self.sessions_max).then_some(open + 1)
                })
                .is_ok();
            if has_room {
                let session = self.module.open_ro_session_no_drop(self.slot);
                if session.is_err() {
                    self.open.fetch_sub(1, Ordering::AcqRel);
                }
                return Ok(session?);
            }
            wait.pause("one of the token's sessions (sessions_max) was free")?;
        }
    }

    /// Gives a session back whose last operation is over.
    pub(crate) fn give_back(&self, session: Session) {
        self.pool().push(session);
    }

    /// Ends a session in which an operation failed: whatever was left in it goes with it.
    pub(crate) fn end(&self, session: Session, aftermath: Aftermath) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        if aftermath != Aftermath::Lost {
            // A session that does not close is no session.
            let _ = session.close();
        }
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is_lost.load(Ordering::Acquire) {
            return;
        }
        let idle = std::mem::take(&mut *self.pool());
        let login = self.login.lock().unwrap_or_else(PoisonError::into_inner).take();
        for session in idle.into_iter().chain(login) {
            // A session that does not close is no session.
            let _ = session.close();
        }
    }
}
