//! A PostgreSQL store that is only looked at.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::budgets::LoginBudgets;
use super::driver::Driver;
use super::link::Link;
use super::server_checks::Standby;
use super::{guards, leases, listings, loads, tombstones};
use crate::clock::Stamp;
use crate::principal::Principal;
use crate::store::{
    Backup, BackupError, Condition, Cursor, Entry, Error, Guard, KeyId, LeaseHolder, Listed,
    LoginBudget, LoginWindows, OpenError, Page, Pseudonyms, ReadOnly, StoreClock, Tombstones,
};

/// Reads the tables; never writes.
pub(in crate::store) struct View {
    /// What the connections live on.
    driver: Driver,
    link: Link,
    pseudonyms: Pseudonyms,
    /// What stands behind the server, seen when this was opened.
    standby: Standby,
    /// How many pairs waited in this machine's outbox then.
    outbox: u64,
}

impl View {
    pub(super) fn new(
        driver: Driver,
        link: Link,
        pseudonyms: Pseudonyms,
        standby: Standby,
        outbox: u64,
    ) -> View {
        View {
            driver,
            link,
            pseudonyms,
            standby,
            outbox,
        }
    }

    /// Runs a call where the connections live.
    async fn call<T, F>(&self, call: impl FnOnce(Link) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.driver.run(call(self.link.clone())).await
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let link = self.link.clone();
        self.driver
            .close(async move { link.close() }, Duration::from_secs(1));
    }
}

impl StoreClock for View {
    fn stamp(&self) -> Stamp {
        self.link.time.stamp()
    }
}

#[async_trait]
impl ReadOnly for View {
    async fn load(&self, principal: &Principal) -> Result<Entry, Error> {
        let (principal, pseudonyms) = (principal.clone(), self.pseudonyms.clone());
        self.call(|link| async move { loads::load_one(&link, &pseudonyms, &principal).await })
            .await
    }

    async fn list(
        &self,
        listed: Listed,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page, Error> {
        let (after, pseudonyms) = (after.cloned(), self.pseudonyms.clone());
        self.call(move |link| async move {
            listings::list(&link, &pseudonyms, listed, after.as_ref(), limit).await
        })
        .await
    }

    async fn tombstones(&self, after: Option<&Cursor>, limit: usize) -> Result<Tombstones, Error> {
        let after = after.cloned();
        self.call(move |link| async move { tombstones::list(&link, after.as_ref(), limit).await })
            .await
    }

    async fn lease_holder(&self, principal: &Principal) -> Result<Option<LeaseHolder>, Error> {
        let principal = principal.clone();
        self.call(|link| async move { leases::holder(&link, &principal).await })
            .await
    }

    fn condition(&self) -> Condition {
        Condition {
            shared: true,
            clock_offset: self.link.time.offset(),
            standby: self.standby.known(),
            outbox: self.outbox,
            ..Condition::default()
        }
    }

    async fn count(&self) -> Result<u64, Error> {
        self.call(|link| async move { listings::count(&link).await })
            .await
    }

    async fn keys(&self) -> Result<Vec<(KeyId, u64)>, Error> {
        self.call(|link| async move { listings::keys(&link).await })
            .await
    }

    async fn canary(&self) -> Result<Option<Vec<u8>>, Error> {
        self.call(|link| async move { guards::canary(&link).await })
            .await
    }

    async fn login_budget(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        let windows = windows.clone();
        self.call(|link| async move { LoginBudgets::new(link).state(&windows).await })
            .await
    }

    async fn guard(&self, name: &str) -> Result<Guard, Error> {
        let name = name.to_owned();
        self.call(|link| async move { guards::guard(&link, &name).await })
            .await
    }

    /// The server checks its pages itself; what can be told from here is whether each entry is one.
    async fn check_whole(&self) -> Result<(), OpenError> {
        self.call(|link| async move { listings::check(&link).await })
            .await
            .map_err(|error| match error {
                Error::Away(why) => OpenError::Away(why),
                error => OpenError::Refused(Box::new(error)),
            })
    }

    async fn backup(&self, _: &Path) -> Result<Backup, BackupError> {
        Err(BackupError::Elsewhere)
    }
}
