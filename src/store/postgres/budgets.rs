//! The login budgets: one row for each group, a [`History`] that is written only if nobody else wrote it
//! meanwhile. The server tells the time; a request that is refused writes nothing.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_postgres::types::Type;

use super::columns::now;
use super::link::{CALL_DEADLINE, Link};
use super::session::Statement;
use crate::clock::{Boot, Stamp, Timestamp};
use crate::store::windows::History;
use crate::store::{Class, Error, LoginBudget, LoginWindows, Slot, SlotId};

/// The clock of the same row: no process's own counts.
const READ: &str = concat!(
    "SELECT ",
    now!(),
    ", version, history FROM (SELECT 1) AS always
    LEFT JOIN budgets ON login_group = $1"
);
const WRITE: &str = "UPDATE budgets SET version = version + 1, history = $3
    WHERE login_group = $1 AND version = $2 RETURNING version";
/// Of several processes that write the first one of a group, one does.
const FIRST: &str = "INSERT INTO budgets (login_group, version, history) VALUES ($1, $2 + 1, $3)
    ON CONFLICT (login_group) DO NOTHING RETURNING version";
/// Before a row is read again that another process has written: at most.
const PAUSE: Duration = Duration::from_millis(20);

/// The budgets of all groups.
pub(super) struct LoginBudgets {
    link: Link,
    /// Held by the only call of this process that writes: they would only overtake each other.
    writing: Mutex<()>,
}

/// What stands in a row.
struct Standing {
    history: History,
    /// `None` if there is no row.
    version: Option<i64>,
    /// When it was read.
    now: Stamp,
}

impl LoginBudgets {
    pub(super) fn new(link: Link) -> LoginBudgets {
        LoginBudgets {
            link,
            writing: Mutex::default(),
        }
    }

    /// As [`crate::store::Budgets::take_login`].
    pub(super) async fn take(
        &self,
        id: SlotId,
        class: Class,
        windows: &LoginWindows,
    ) -> Result<Slot, Error> {
        // A refusal changes nothing, not even slots that have passed: it is to cost no write.
        let take = |history: &mut History, now| {
            let mut taken = history.clone();
            let slot = taken.take(id, class, windows, now);
            if slot == Slot::Taken {
                *history = taken;
            }
            slot
        };
        // Most refusals are found here, all at the same time.
        let mut standing = self.read(&windows.group).await?;
        match take(&mut standing.history, standing.now) {
            Slot::Taken => self.change(&windows.group, take).await,
            refused => Ok(refused),
        }
    }

    /// As [`crate::store::Budgets::end_login`].
    pub(super) async fn end(&self, group: &str, id: SlotId) -> Result<(), Error> {
        self.change(group, |history, now| history.end(id, now))
            .await
    }

    /// As [`crate::store::Budgets::give_login_back`].
    pub(super) async fn give_back(&self, group: &str, id: SlotId) -> Result<(), Error> {
        self.change(group, |history, _| history.give_back(id)).await
    }

    /// As [`crate::store::Budgets::block_logins`].
    pub(super) async fn block(
        &self,
        group: &str,
        blocked: Duration,
        halved: Option<Duration>,
    ) -> Result<(), Error> {
        self.change(group, |history, now| history.block(blocked, halved, now))
            .await
    }

    /// As [`crate::store::Budgets::unblock_logins`].
    pub(super) async fn unblock(&self, group: &str) -> Result<bool, Error> {
        self.change(group, |history, now| history.unblock(now))
            .await
    }

    /// As [`crate::store::Budgets::login_budget`].
    pub(super) async fn state(&self, windows: &LoginWindows) -> Result<LoginBudget, Error> {
        let Standing { history, now, .. } = self.read(&windows.group).await?;
        Ok(history.budget(windows, now))
    }

    /// Changes what stands for `group` by `change`, which is done again if another process was first. The
    /// call's deadline holds for all of it, for the turns of other calls as well.
    async fn change<T>(
        &self,
        group: &str,
        change: impl Fn(&mut History, Stamp) -> T,
    ) -> Result<T, Error> {
        let changed = async {
            let _writing = self.writing.lock().await;
            loop {
                let mut standing = self.read(group).await?;
                let before = standing.history.clone();
                let answer = change(&mut standing.history, standing.now);
                if standing.history == before || self.write(group, &standing).await? {
                    return Ok(answer);
                }
                sleep(PAUSE.mul_f64(fastrand::f64())).await;
            }
        };
        timeout(CALL_DEADLINE, changed).await.unwrap_or_else(|_| {
            let why = "the login budget could not be written in time";
            Err(Error::Away(why.to_owned()))
        })
    }

    async fn read(&self, group: &str) -> Result<Standing, Error> {
        let rows = self.link.read(READ, [(&group, Type::TEXT)]).await?;
        let row = rows
            .first()
            .ok_or_else(|| Error::Unreadable("no row".to_owned()))?;
        let now: i64 = row.get(0);
        let history = match row.get::<_, Option<&str>>(2) {
            Some(text) => serde_json::from_str(text).map_err(|error| {
                Error::Unreadable(format!("the login budget of {group} is damaged: {error}"))
            })?,
            None => History::default(),
        };
        Ok(Standing {
            history,
            version: row.get(1),
            now: Stamp {
                boot: Boot(0),
                since_boot: now,
                wall: Timestamp::from_millis(now),
            },
        })
    }

    /// Returns false if another process wrote first.
    async fn write(&self, group: &str, standing: &Standing) -> Result<bool, Error> {
        let history =
            serde_json::to_string(&standing.history).expect("numbers and ids always serialise");
        let sql = match standing.version {
            Some(_) => WRITE,
            None => FIRST,
        };
        let version = standing.version.unwrap_or(0);
        let parameters = [
            (&group as _, Type::TEXT),
            (&version as _, Type::INT8),
            (&history as _, Type::TEXT),
        ];
        let written = self.link.write([Statement {
            sql,
            parameters: &parameters,
        }]);
        let [written] = written.await?;
        Ok(!written.is_empty())
    }
}
