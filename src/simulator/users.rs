//! Who may log in: instances with their keys, API accounts, and the users of instances.

use std::collections::HashMap;
use std::sync::Mutex;

use serde_json::{Map, Value};

use crate::principal::{DeviceToken, InstanceId};

use super::settings::{Account, Instance, KnownUsers};

/// Everybody who may log in.
#[derive(Debug)]
pub(super) struct Users {
    instances: Vec<Instance>,
    accounts: Vec<Account>,
    accepts_any: bool,
    /// Prefixes of canonical DeviceTokens that never log in.
    rejected: Vec<String>,
    /// Everybody known by name, the deleted ones too.
    known: Mutex<HashMap<DeviceToken, User>>,
}

/// One user.
#[derive(Debug, Default)]
pub(super) struct User {
    home: Home,
    /// What updates wrote: `FirstName`, `Email`, … and the object `UserFields`.
    pub(super) written: Map<String, Value>,
}

/// Where a user is registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Home {
    /// Known from the settings; the first login decides.
    #[default]
    Undecided,
    In(InstanceId),
    Deleted,
}

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotRegistered {
    /// No such instance, or not its key.
    Instance,
    /// The DeviceToken is registered already.
    Taken,
}

impl Users {
    pub(super) fn new(
        instances: Vec<Instance>,
        accounts: Vec<Account>,
        known: KnownUsers,
        rejected: Vec<String>,
    ) -> Users {
        let (accepts_any, listed) = match known {
            KnownUsers::Any => (true, Vec::new()),
            KnownUsers::Only(listed) => (false, listed),
        };
        Users {
            instances,
            accounts,
            accepts_any,
            rejected,
            known: Mutex::new(
                listed
                    .into_iter()
                    .map(|device| (device, User::default()))
                    .collect(),
            ),
        }
    }

    /// Whether `key` opens `instance` and `device` belongs to it. A user's first login decides
    /// the instance if no registration did.
    pub(super) fn user_may_log_in(
        &self,
        device: DeviceToken,
        instance: InstanceId,
        key: &str,
    ) -> bool {
        let name = device.to_string();
        if !self.opens(instance, key) || self.rejected.iter().any(|no| name.starts_with(no)) {
            return false;
        }
        self.user(device, |user| {
            if user.home == Home::Undecided {
                user.home = Home::In(instance);
            }
            user.home == Home::In(instance)
        })
        .unwrap_or(false)
    }

    /// Whether this is an account's email and password.
    pub(super) fn account_may_log_in(&self, email: &str, password: &str) -> bool {
        self.accounts
            .iter()
            .any(|account| account.email == email && account.password == password)
    }

    /// Registers `device` with `instance`.
    pub(super) fn register(
        &self,
        device: DeviceToken,
        instance: InstanceId,
        key: &str,
    ) -> Result<(), NotRegistered> {
        if !self.opens(instance, key) {
            return Err(NotRegistered::Instance);
        }
        let mut known = self.known.lock().expect("no holder panics");
        let user = known.entry(device).or_insert(User {
            home: Home::Deleted,
            ..User::default()
        });
        if user.home != Home::Deleted {
            return Err(NotRegistered::Taken);
        }
        user.home = Home::In(instance);
        Ok(())
    }

    /// Makes `device` known without a registration.
    pub(super) fn add(&self, device: DeviceToken) {
        let mut known = self.known.lock().expect("no holder panics");
        let user = known.entry(device).or_default();
        if user.home == Home::Deleted {
            user.home = Home::Undecided;
        }
    }

    /// The instance of `device`; the first one if none is decided yet.
    pub(super) fn instance_of(&self, device: DeviceToken) -> Option<InstanceId> {
        match self.user(device, |user| user.home) {
            Some(Home::In(instance)) => Some(instance),
            Some(Home::Undecided | Home::Deleted) | None => {
                self.instances.first().map(|instance| instance.id)
            }
        }
    }

    /// Registers `device` with another instance. `None` if there is no such user.
    pub(super) fn move_to(&self, device: DeviceToken, instance: InstanceId) -> Option<()> {
        self.user(device, |user| user.home = Home::In(instance))
    }

    /// Ends `device` until it is registered again. `None` if there is no such user.
    pub(super) fn delete(&self, device: DeviceToken) -> Option<()> {
        self.user(device, |user| {
            *user = User {
                home: Home::Deleted,
                ..User::default()
            }
        })
    }

    /// Looks at or changes what was written about `device`. `None` if there is no such user.
    pub(super) fn user<T>(
        &self,
        device: DeviceToken,
        change: impl FnOnce(&mut User) -> T,
    ) -> Option<T> {
        let mut known = self.known.lock().expect("no holder panics");
        if self.accepts_any {
            known.entry(device).or_default();
        }
        let user = known.get_mut(&device)?;
        (user.home != Home::Deleted).then(|| change(user))
    }

    /// All instances.
    pub(super) fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instance `id`, if there is one.
    pub(super) fn known_instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// Whether `key` is the key of the instance `id`.
    pub(super) fn opens(&self, id: InstanceId, key: &str) -> bool {
        self.known_instance(id)
            .is_some_and(|instance| instance.key == key)
    }
}
