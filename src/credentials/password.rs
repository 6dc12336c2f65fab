//! Whether a caller that logs in by itself knows the password: the key of its instance, or the password of
//! its account. Damoov is not asked.

use super::Provider;
use super::guards::password_limit::{Opened, Refused};
use crate::caller::authorize_instance;
use crate::directory::Directory;
use crate::peer::Peer;
use crate::principal::{DeviceToken, InstanceId, Principal};

/// Who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login<'a> {
    /// An app user, whose password is the InstanceKey.
    User {
        /// Whose tokens are wanted.
        user: DeviceToken,
        /// The instance that the caller named. `None`: the password may be the key of the instance that
        /// the user is known under, or of the default one.
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
    #[error("this instance or account is not configured on this proxy")]
    NotConfigured,
    /// It is the wrong password.
    #[error("the password is not the one that is configured on this proxy")]
    Wrong,
    /// Wrong passwords came too often, and this one was not compared.
    #[error("too many wrong passwords; try again after Retry-After")]
    TooManyWrong,
}

impl From<Refused> for PasswordError {
    fn from(_: Refused) -> PasswordError {
        PasswordError::TooManyWrong
    }
}

impl Provider {
    /// Whom of the directory the login is for, if `password` is right; for a user, with the instance whose
    /// key it was. That the user is known under another one is found out later.
    ///
    /// If wrong passwords came too often it waits, at most 10 s; `peer` is the other end of the caller's
    /// connection.
    ///
    /// # Errors
    ///
    /// [`PasswordError`].
    pub async fn check_password(
        &self,
        directory: &Directory,
        peer: Peer,
        login: &Login<'_>,
        password: &str,
    ) -> Result<(Principal, Option<InstanceId>), PasswordError> {
        let engine = &self.engine;
        let limit = &engine.guards.password_limit;
        match *login {
            Login::User {
                user,
                instance: named,
                known,
            } => {
                let known = known.and_then(|known| directory.instance(known));
                let other = authorize_instance(directory, named).ok();
                let candidates = match named {
                    Some(_) => [None, other],
                    None => [
                        known,
                        other.filter(|one| known.is_none_or(|known| known.id != one.id)),
                    ],
                };
                let candidates: Vec<_> = candidates.into_iter().flatten().collect();
                if candidates.is_empty() {
                    return Err(PasswordError::NotConfigured);
                }
                let opened: Vec<_> = candidates
                    .iter()
                    .map(|instance| Opened::Instance(instance.id))
                    .collect();
                let find = || candidates.iter().find(|one| one.key.matches(password));
                let instance = limit.compare(peer, &opened, find).await?;
                let instance = instance.ok_or(PasswordError::Wrong)?;
                Ok((Principal::User(user), Some(instance.id)))
            }
            Login::Account { email } => {
                let account = directory.account_by_email(email);
                let account = account.ok_or(PasswordError::NotConfigured)?;
                let opened = [Opened::Account(account.name.clone())];
                let is_right = || account.password.matches(password).then_some(());
                let right = limit.compare(peer, &opened, is_right).await?;
                right.ok_or(PasswordError::Wrong)?;
                Ok((Principal::Account(account.name.clone()), None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::fixture::{
        EMAIL, MAIN_KEY, Medium, OTHER_KEY, PASSWORD, account, device, directory, main, other, user,
    };

    const PEER: Peer = Peer::Uid(1000);

    fn of_user(instance: Option<InstanceId>) -> Login<'static> {
        Login::User {
            user: device(1),
            instance,
            known: None,
        }
    }

    #[tokio::test]
    async fn the_password_is_the_named_instances_the_defaults_or_the_accounts() {
        let directory = directory();
        let of = |principal, instance| Ok((principal, instance));
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
            // Another process each time: what is wrong too often waits.
            let process = Medium::new().start();
            let checked = process
                .provider
                .check_password(&directory, PEER, &login, password);
            assert_eq!(checked.await, expected, "{login:?} {password}");
        }
    }

    #[tokio::test]
    async fn what_is_not_configured_is_said_so_however_often_it_is_tried() {
        let directory = directory();
        let process = Medium::new().start();
        let nobodys = InstanceId::parse("33333333-3333-4333-8333-333333333333").unwrap();
        for _ in 0..20 {
            for login in [
                of_user(Some(nobodys)),
                Login::Account {
                    email: "Ops@example.com",
                },
            ] {
                let checked = process
                    .provider
                    .check_password(&directory, PEER, &login, MAIN_KEY);
                assert_eq!(
                    checked.await,
                    Err(PasswordError::NotConfigured),
                    "{login:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_user_without_an_instance_opens_its_known_one_or_the_default() {
        let directory = directory();
        let process = Medium::new().start();
        let login = Login::User {
            user: device(1),
            instance: None,
            known: Some(other()),
        };
        for (password, instance) in [(OTHER_KEY, other()), (MAIN_KEY, main())] {
            let checked = process
                .provider
                .check_password(&directory, PEER, &login, password);
            assert_eq!(checked.await.unwrap().1, Some(instance));
        }
        for _ in 0..5 {
            let checked = process
                .provider
                .check_password(&directory, PEER, &login, "guess");
            assert_eq!(checked.await, Err(PasswordError::Wrong));
        }
        // They count for both.
        for (instance, key) in [(main(), MAIN_KEY), (other(), OTHER_KEY)] {
            let named = of_user(Some(instance));
            let checked = process
                .provider
                .check_password(&directory, PEER, &named, key);
            let at_once = std::time::Duration::from_millis(100);
            assert!(tokio::time::timeout(at_once, checked).await.is_err());
        }
    }
}
