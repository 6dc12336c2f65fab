//! Who may log in: instances with their keys, API accounts, and the users of instances.

use std::collections::HashMap;
use std::sync::Mutex;

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
    /// Each user's instance; none before the first login of a user known from the settings.
    registered: Mutex<HashMap<DeviceToken, Option<InstanceId>>>,
}

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
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
            registered: Mutex::new(listed.into_iter().map(|device| (device, None)).collect()),
        }
    }

    /// Whether `key` opens `instance` and `device` belongs to it. A user's first login decides
    /// the instance where no registration did.
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
        let mut registered = self.registered.lock().expect("no holder panics");
        if self.accepts_any {
            registered.entry(device).or_default();
        }
        registered
            .get_mut(&device)
            .is_some_and(|home| *home.get_or_insert(instance) == instance)
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
    ) -> Result<(), Refused> {
        if !self.opens(instance, key) {
            return Err(Refused::Instance);
        }
        let mut registered = self.registered.lock().expect("no holder panics");
        if registered.contains_key(&device) {
            return Err(Refused::Taken);
        }
        registered.insert(device, Some(instance));
        Ok(())
    }

    /// Makes `device` known without a registration.
    pub(super) fn add(&self, device: DeviceToken) {
        let mut registered = self.registered.lock().expect("no holder panics");
        registered.entry(device).or_default();
    }

    /// The instance of `device`; the first one where none is decided yet.
    pub(super) fn instance_of(&self, device: DeviceToken) -> Option<InstanceId> {
        let registered = self.registered.lock().expect("no holder panics");
        let home = registered.get(&device).copied().flatten();
        home.or_else(|| self.instances.first().map(|instance| instance.id))
    }

    fn opens(&self, id: InstanceId, key: &str) -> bool {
        self.instances
            .iter()
            .any(|instance| instance.id == id && instance.key == key)
    }
}
