//! Whether a caller that logs in by itself knows the password: the key of its instance, or its
//! account's. Wrong ones are limited, so that nobody guesses. Damoov is not asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Provider, Wanted};
use crate::clock::{Clock, Moment};
use crate::principal::{DeviceToken, InstanceId, Principal};

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login<'a> {
    /// An app user, whose password is the InstanceKey.
    User {
        /// Whose tokens are wanted.
        user: DeviceToken,
        /// The instance that the caller named; none: the default one.
        instance: Option<InstanceId>,
    },
    /// An API account.
    Account {
        /// Its login, compared as it is written.
        email: &'a str,
    },
}

/// Why a password opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// There is no such instance or account in the configuration, or no default instance.
    #[error("this InstanceId, or account, is not configured")]
    NotConfigured,
    /// It is not the password.
    #[error("the password is wrong")]
    Wrong,
    /// Nor was it those [`MOST_WRONG`] times before.
    #[error("the password was wrong too often; come back after Retry-After")]
    TooManyWrong {
        /// When the next wrong one is listened to, in real time.
        retry_after: Duration,
    },
}

/// So many wrong passwords of one caller for one instance or account within [`REMEMBERED`].
const MOST_WRONG: usize = 5;
/// How long a wrong password counts.
const REMEMBERED: Duration = Duration::from_secs(60);

impl Provider {
    /// Whom the login is for, if `password` is right. For a user, always under the instance whose
    /// key it was: a user that is known under another one is an error later on.
    ///
    /// `caller` is the configured name of who asks; empty where no callers are configured.
    ///
    /// # Errors
    ///
    /// [`PasswordError`]. A right password is never refused.
    pub fn check_password(
        &self,
        caller: &str,
        login: &Login<'_>,
        password: &str,
    ) -> Result<Wanted, PasswordError> {
        let engine = &self.engine;
        let (wanted, secret, opened) = match *login {
            Login::User { user, instance } => {
                let instance = self
                    .instance(instance)
                    .map_err(|_| PasswordError::NotConfigured)?;
                let wanted = Wanted {
                    principal: Principal::User(user),
                    instance: Some(instance.id),
                };
                (wanted, &instance.key, Opened::Instance(instance.id))
            }
            Login::Account { email } => {
                let mut accounts = engine.settings.accounts.iter();
                let account = accounts
                    .find(|account| account.email == email)
                    .ok_or(PasswordError::NotConfigured)?;
                let wanted = Wanted {
                    principal: Principal::Account(account.name.clone()),
                    instance: None,
                };
                let opened = Opened::Account(account.name.clone());
                (wanted, &account.password, opened)
            }
        };
        if secret.matches(password) {
            return Ok(wanted);
        }
        Err(engine.wrong_passwords.count(caller, opened))
    }
}

/// What a password opens.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Opened {
    Instance(InstanceId),
    Account(Arc<str>),
}

/// The wrong passwords of the last minute. Bounded: both halves of a key are of the configuration.
#[derive(Debug)]
pub(super) struct WrongPasswords {
    /// When they came, oldest first; [`MOST_WRONG`] at most.
    counted: Mutex<HashMap<(Box<str>, Opened), VecDeque<Moment>>>,
    clock: Clock,
}

impl WrongPasswords {
    pub(super) fn new(clock: Clock) -> WrongPasswords {
        WrongPasswords {
            counted: Mutex::default(),
            clock,
        }
    }

    /// One more; how it is to be answered.
    fn count(&self, caller: &str, opened: Opened) -> PasswordError {
        let now = self.clock.now();
        let mut counted = self.counted.lock().expect("no code panics under this lock");
        let wrong = counted.entry((caller.into(), opened)).or_default();
        while wrong
            .pop_front_if(|at| at.plus(REMEMBERED) <= now)
            .is_some()
        {}
        if let (MOST_WRONG.., Some(oldest)) = (wrong.len(), wrong.front()) {
            let frees = oldest.plus(REMEMBERED).since(now);
            return PasswordError::TooManyWrong {
                retry_after: self.clock.to_real(frees),
            };
        }
        wrong.push_back(now);
        PasswordError::Wrong
    }
}
