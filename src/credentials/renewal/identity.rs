//! Who logs in, and with what.

use crate::credentials::Error;
use crate::credentials::guards::breaker::Fingerprint;
use crate::credentials::vault::seal::Ring;
use crate::damoov::auth::{self, Call};
use crate::directory::{Account, Directory, Instance};
use crate::principal::{InstanceId, Principal};
use crate::store::{Class, Entry};

/// What a login is made with.
pub(crate) struct Identity {
    pub(crate) call: Call,
    pub(crate) key: Key,
}

/// The credential that a login shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// `None` for an account.
    pub(crate) instance: Option<InstanceId>,
    /// Identifies instance and key, or account and password, without giving them away.
    pub(crate) fingerprint: Fingerprint,
}

impl Identity {
    /// What a login of `principal`, whose entry in the store is `entry`, is made with; `asked`: the
    /// instance that the caller named.
    ///
    /// # Errors
    ///
    /// [`Error::InstanceUnknown`], [`Error::InstanceGone`], [`Error::AccountUnknown`].
    pub(crate) fn of(
        directory: &Directory,
        ring: &Ring,
        principal: &Principal,
        asked: Option<InstanceId>,
        entry: &Entry,
    ) -> Result<Identity, Error> {
        match principal {
            Principal::Account(name) => {
                let account = directory.account(name).ok_or(Error::AccountUnknown)?;
                Ok(Identity {
                    call: auth::log_in_account(&account.email, &account.password),
                    key: Key {
                        instance: None,
                        fingerprint: of_account(account, ring),
                    },
                })
            }
            Principal::User(user) => {
                let instance = match (asked, entry.known_instance()) {
                    (Some(asked), _) => directory.instance(asked).ok_or(Error::InstanceUnknown),
                    (None, Some(known)) => directory.instance(known).ok_or(Error::InstanceGone),
                    (None, None) => directory.default_instance().ok_or(Error::InstanceUnknown),
                }?;
                Ok(Identity {
                    call: auth::log_in_user(*user, instance.id, &instance.key),
                    key: Key {
                        instance: Some(instance.id),
                        fingerprint: of_instance(instance, ring),
                    },
                })
            }
        }
    }
}

/// Recognises id and key without keeping them.
fn of_instance(instance: &Instance, ring: &Ring) -> Fingerprint {
    let id = instance.id.to_string();
    ring.fingerprint(&[id.as_bytes(), instance.key.expose().as_bytes()])
}

/// Recognises email and password without keeping them.
fn of_account(account: &Account, ring: &Ring) -> Fingerprint {
    ring.fingerprint(&[
        account.email.as_bytes(),
        account.password.expose().as_bytes(),
    ])
}

/// The class of the budget that a login takes its slot from, for `principal`, whose entry in the store is
/// `entry`. Principals that logged in before may use the reserve of the budget; accounts are configured, and therefore
/// known.
pub(crate) fn class(principal: &Principal, entry: &Entry) -> Class {
    match (principal, &entry.record) {
        (Principal::Account(_), _) => Class::Known,
        (Principal::User(_), Some(record)) if record.known => Class::Known,
        (Principal::User(_), _) => Class::New,
    }
}
