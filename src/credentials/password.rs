//! Whether a caller that logs in by itself knows the password: the key of its instance, or its
//! account's. Wrong ones are limited, so that nobody guesses. Damoov is not asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Provider, Wanted};
use crate::clock::{Clock, Moment};
use crate::principal::{DeviceToken, InstanceId, Principal};
use crate::telemetry::episode::Episode;

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login<'a> {
    /// An app user, whose password is the InstanceKey.
    User {
        /// Whose tokens are wanted.
        user: DeviceToken,
        /// The instance that the caller named; none: the one that the user is known under, if it is
        /// that one's key, else the default one.
        instance: Option<InstanceId>,
        /// The instance that the user is known under.
        known: Option<InstanceId>,
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
    /// Nor was it the five times before, all within a minute.
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
            Login::User {
                user,
                instance: named,
                known,
            } => {
                let known = known.and_then(|known| engine.instance(known));
                let instance = match (named, known) {
                    (None, Some(known)) if known.key.matches(password) => Ok(known),
                    _ => self.instance(named),
                }
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
        let guesses = &engine.wrong_passwords;
        if secret.matches(password) {
            guesses.right();
            return Ok(wanted);
        }
        let error = guesses.count(caller, opened);
        if let PasswordError::TooManyWrong { .. } = error {
            guesses.too_many();
        }
        Err(error)
    }
}

/// Who guesses, and what.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Guess {
    caller: Box<str>,
    opened: Opened,
}

/// What a password opens.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Opened {
    Instance(InstanceId),
    Account(Arc<str>),
}

/// The wrong passwords of the last minute. Bounded: callers, instances and accounts are those of the
/// configuration.
#[derive(Debug)]
pub(super) struct WrongPasswords {
    /// When they came, oldest first; [`MOST_WRONG`] at most.
    counted: Mutex<HashMap<Guess, Vec<Moment>>>,
    /// Wrong ones come too often.
    guessing: Episode,
    clock: Clock,
}

impl WrongPasswords {
    pub(super) fn new(clock: Clock) -> WrongPasswords {
        WrongPasswords {
            counted: Mutex::default(),
            guessing: Episode::ending_after(REMEMBERED),
            clock,
        }
    }

    /// A caller knew the password.
    fn right(&self) {
        if let Some(over) = self.guessing.worked() {
            let (seconds, hurt) = (over.seconds(), over.hurt);
            tracing::warn!(seconds, hurt, "wrong passwords no longer come too often");
        }
    }

    /// A wrong one is not even listened to.
    fn too_many(&self) {
        if self.guessing.failed() {
            tracing::warn!(
                "callers log in with wrong passwords, too often for an instance or account: further \
                 ones are refused for a while"
            );
        }
    }

    /// One more; how it is to be answered.
    fn count(&self, caller: &str, opened: Opened) -> PasswordError {
        let now = self.clock.now();
        let caller = caller.into();
        let mut counted = self.counted.lock().expect("no code panics under this lock");
        let wrong = counted.entry(Guess { caller, opened }).or_default();
        wrong.retain(|at| at.plus(REMEMBERED) > now);
        match wrong.first() {
            Some(oldest) if wrong.len() >= MOST_WRONG => PasswordError::TooManyWrong {
                retry_after: self.clock.to_real(oldest.plus(REMEMBERED).since(now)),
            },
            _ => {
                wrong.push(now);
                PasswordError::Wrong
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{
        EMAIL, MAIN_KEY, Medium, OTHER_KEY, PASSWORD, account, device, main, other, user,
    };
    use super::*;

    fn of_user(instance: Option<InstanceId>) -> Login<'static> {
        Login::User {
            user: device(1),
            instance,
            known: None,
        }
    }

    #[tokio::test]
    async fn the_password_is_that_of_the_named_instance_the_default_one_or_the_account() {
        let process = Medium::new().start();
        let check = |login, password| process.provider.check_password("", &login, password);
        let of = |principal, instance| {
            Ok(Wanted {
                principal,
                instance,
            })
        };
        for (login, password, expected) in [
            (of_user(None), MAIN_KEY, of(user(1), Some(main()))),
            (of_user(Some(main())), MAIN_KEY, of(user(1), Some(main()))),
            (
                of_user(Some(other())),
                OTHER_KEY,
                of(user(1), Some(other())),
            ),
            (of_user(None), OTHER_KEY, Err(PasswordError::Wrong)),
            (of_user(Some(other())), MAIN_KEY, Err(PasswordError::Wrong)),
            (of_user(None), "", Err(PasswordError::Wrong)),
            (
                Login::Account { email: EMAIL },
                PASSWORD,
                of(account(), None),
            ),
            (
                Login::Account { email: EMAIL },
                MAIN_KEY,
                Err(PasswordError::Wrong),
            ),
        ] {
            assert_eq!(check(login, password), expected, "{login:?} {password}");
        }
    }

    #[tokio::test]
    async fn what_is_not_configured_is_said_so_however_often_it_is_tried() {
        let process = Medium::new().start();
        let nobodys = InstanceId::parse("33333333-3333-4333-8333-333333333333").unwrap();
        for _ in 0..2 * MOST_WRONG {
            for login in [
                of_user(Some(nobodys)),
                Login::Account {
                    email: "Ops@example.com",
                },
            ] {
                let checked = process.provider.check_password("", &login, MAIN_KEY);
                assert_eq!(checked, Err(PasswordError::NotConfigured), "{login:?}");
            }
        }
        let remembered = &process.provider.engine.wrong_passwords.counted;
        assert!(remembered.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn after_five_wrong_ones_a_right_one_passes_and_others_are_not_concerned() {
        let process = Medium::new().start();
        let check = |caller: &str, login, password| {
            process.provider.check_password(caller, &login, password)
        };
        for _ in 0..MOST_WRONG {
            let wrong = check("a", of_user(None), "guess");
            assert_eq!(wrong, Err(PasswordError::Wrong));
        }
        let refused = check("a", of_user(Some(main())), "guess");
        assert!(matches!(refused, Err(PasswordError::TooManyWrong { .. })));
        assert!(check("a", of_user(None), MAIN_KEY).is_ok());
        for (caller, login) in [
            ("b", of_user(None)),
            ("a", of_user(Some(other()))),
            ("a", Login::Account { email: EMAIL }),
        ] {
            assert_eq!(check(caller, login, "guess"), Err(PasswordError::Wrong));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_password_is_listened_to_again_when_the_oldest_is_a_minute_old() {
        let clock = Clock::scaled(60);
        let wrong = WrongPasswords::new(clock);
        let count = || wrong.count("", Opened::Instance(main()));
        assert_eq!(count(), PasswordError::Wrong);
        clock.sleep(Duration::from_secs(30)).await;
        for _ in 1..MOST_WRONG {
            assert_eq!(count(), PasswordError::Wrong);
        }
        // In real time: half a minute of this clock.
        for _ in 0..2 {
            let PasswordError::TooManyWrong { retry_after } = count() else {
                panic!("five were wrong within the minute")
            };
            assert_eq!(retry_after.as_millis().div_ceil(100), 5, "{retry_after:?}");
        }
        clock.sleep(Duration::from_secs(31)).await;
        assert_eq!(count(), PasswordError::Wrong);
        assert!(matches!(count(), PasswordError::TooManyWrong { .. }));
    }
}
