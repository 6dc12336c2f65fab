//! Who is configured: the instances whose users are served, and the API accounts. One immutable
//! list, made when the configuration is read, and the only place that knows which of several is the
//! default. Holds no numbers: how often and how fast users log in is part of the engine's settings.

use std::sync::Arc;

use crate::principal::InstanceId;
use crate::secret::Secret;

/// All instances and accounts of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    instances: Vec<Instance>,
    accounts: Vec<Account>,
}

/// A configured instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// The InstanceId.
    pub id: InstanceId,
    /// The InstanceKey.
    pub key: Secret,
    /// Whether it is the one for users that name none; at most one is. In a directory, a single
    /// instance always is.
    pub default: bool,
}

/// A configured API account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// The login.
    pub email: String,
    /// Its password.
    pub password: Secret,
    /// Whether it is the one for requests that name none; at most one is. In a directory, a single
    /// account always is.
    pub default: bool,
}

impl Directory {
    /// Ids and names are unique among instances, and names among accounts.
    pub fn new(mut instances: Vec<Instance>, mut accounts: Vec<Account>) -> Directory {
        if let [single] = &mut instances[..] {
            single.default = true;
        }
        if let [single] = &mut accounts[..] {
            single.default = true;
        }
        Directory {
            instances,
            accounts,
        }
    }

    /// Every instance, in the order of the configuration.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// The instance with this id.
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// The instance that the configuration gives this name.
    pub fn instance_named(&self, name: &str) -> Option<&Instance> {
        let mut instances = self.instances.iter();
        instances.find(|instance| &*instance.name == name)
    }

    /// The instance for users that name none.
    pub fn default_instance(&self) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.default)
    }

    /// Every account, in the order of the configuration.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// The account that the configuration gives this name.
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| &*account.name == name)
    }

    /// The account with this login, compared as it is written.
    pub fn account_by_email(&self, email: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.email == email)
    }

    /// The account for requests that name none.
    pub fn default_account(&self) -> Option<&Account> {
        self.accounts.iter().find(|account| account.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(number: u8, default: bool) -> Instance {
        let id = format!("{number:08x}-0000-4000-8000-000000000000");
        Instance {
            name: format!("instance {number}").into(),
            id: InstanceId::parse(&id).unwrap(),
            key: Secret::from("key"),
            default,
        }
    }

    fn account(number: u8, default: bool) -> Account {
        Account {
            name: format!("account {number}").into(),
            email: format!("{number}@example.com"),
            password: Secret::from("password"),
            default,
        }
    }

    #[test]
    fn a_single_one_is_the_default_and_of_several_the_one_that_is_marked() {
        for (marks, expected) in [
            (&[][..], None),
            (&[false], Some(0)),
            (&[true], Some(0)),
            (&[false, false], None),
            (&[false, true, false], Some(1)),
        ] {
            let numbered = || (0u8..).zip(marks.iter().copied());
            let directory = Directory::new(
                numbered()
                    .map(|(number, mark)| instance(number, mark))
                    .collect(),
                numbered()
                    .map(|(number, mark)| account(number, mark))
                    .collect(),
            );
            let instance = directory.default_instance().map(|i| i.name.to_string());
            assert_eq!(
                instance,
                expected.map(|number| format!("instance {number}"))
            );
            let account = directory.default_account().map(|a| a.name.to_string());
            assert_eq!(account, expected.map(|number| format!("account {number}")));
        }
    }

    #[test]
    fn instances_and_accounts_are_found_by_all_that_names_them() {
        let directory = Directory::new(
            vec![instance(1, false), instance(2, false)],
            vec![account(1, false), account(2, false)],
        );
        let second = &directory.instances()[1];
        let id = |found: Option<&Instance>| found.map(|instance| instance.id);
        assert_eq!(id(directory.instance(second.id)), Some(second.id));
        assert_eq!(id(directory.instance_named("instance 2")), Some(second.id));
        assert_eq!(id(directory.instance(InstanceId::NIL)), None);
        assert_eq!(id(directory.instance_named("account 2")), None);
        let email = |found: Option<&Account>| found.map(|account| account.email.clone());
        let second = Some("2@example.com".to_owned());
        assert_eq!(email(directory.account("account 2")), second);
        assert_eq!(email(directory.account_by_email("2@example.com")), second);
        assert_eq!(email(directory.account("instance 2")), None);
        assert_eq!(email(directory.account_by_email("account 2")), None);
    }
}
