//! What a server must be to hold a store, and what an operator should know of it. Asked at the start, after
//! each absence, and each minute. Needs no more than a role that may connect.

use super::link::Link;
use crate::store::Error;

/// Why a server cannot hold a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::store) enum Unfit {
    /// The statements that are used came with version 13.
    #[error("the server is PostgreSQL {}, and a store needs 13 or newer", .0 / 10_000)]
    TooOld(i32),
    /// A power cut would lose or break what was acknowledged.
    #[error(
        "`fsync` is off on the server: a power cut would lose RefreshTokens, which cannot be issued \
         again, and perhaps the whole database; set `fsync = on`"
    )]
    NoFsync,
}

/// What stands behind a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standby {
    /// Each commit waits for a synchronous standby: a fail-over loses nothing.
    Synchronous,
    /// Nobody: a fail-over may lose the last commits.
    None,
    /// It cannot be told: managed servers copy their disks, or their log, in ways of their own.
    Unknown,
}

impl Standby {
    /// Whether a fail-over loses nothing, if that is known.
    pub(super) fn known(self) -> Option<bool> {
        match self {
            Standby::Synchronous => Some(true),
            Standby::None => Some(false),
            Standby::Unknown => None,
        }
    }
}

/// The oldest version that is supported, as `server_version_num` counts.
const OLDEST: i32 = 130_000;

/// Settings that a server does not have are NULL. A commit waits for a standby as long as
/// `synchronous_standby_names` is not empty, since every transaction of ours asks for it.
const SETTINGS: &str = "SELECT \
     current_setting('server_version_num', true)::int4, \
     current_setting('fsync', true), \
     current_setting('synchronous_standby_names', true), \
     EXISTS (SELECT FROM pg_settings WHERE \
         name ~ '^(rds|aurora|apg|cloudsql|alloydb|azure|neon|yb|crdb)[._]')";

/// Refuses a server that cannot hold a store; returns what stands behind one that can.
pub(super) async fn check(link: &Link) -> Result<Result<Standby, Unfit>, Error> {
    let unreadable = |error: tokio_postgres::Error| Error::Unreadable(error.to_string());
    let rows = link.session().await?.query(SETTINGS, &[]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::Unreadable("the server has no settings".to_owned()))?;
    Ok(judge(Settings {
        version: row.try_get(0).map_err(unreadable)?,
        fsync: row.try_get(1).map_err(unreadable)?,
        standbys: row.try_get(2).map_err(unreadable)?,
        managed: row.try_get(3).map_err(unreadable)?,
    }))
}

/// A server's settings, as far as it says.
struct Settings<'a> {
    version: Option<i32>,
    fsync: Option<&'a str>,
    standbys: Option<&'a str>,
    managed: bool,
}

fn judge(settings: Settings<'_>) -> Result<Standby, Unfit> {
    match settings {
        Settings {
            version: Some(version),
            ..
        } if version < OLDEST => Err(Unfit::TooOld(version)),
        Settings {
            fsync: Some("off"),
            managed: false,
            ..
        } => Err(Unfit::NoFsync),
        Settings {
            standbys: Some(standbys),
            ..
        } if !standbys.trim().is_empty() => Ok(Standby::Synchronous),
        Settings { managed: true, .. } | Settings { standbys: None, .. } => Ok(Standby::Unknown),
        Settings { .. } => Ok(Standby::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Settings<'static> = Settings {
        version: Some(150_000),
        fsync: Some("on"),
        standbys: Some(""),
        managed: false,
    };

    #[test]
    fn a_server_that_is_too_old_or_does_not_sync_its_disk_is_refused() {
        let version = |version| judge(Settings { version, ..SERVER });
        assert_eq!(version(Some(129_999)), Err(Unfit::TooOld(129_999)));
        assert_eq!(version(Some(130_000)), Ok(Standby::None));
        assert_eq!(version(None), Ok(Standby::None));
        assert!(
            Unfit::TooOld(120_016)
                .to_string()
                .contains("PostgreSQL 12,")
        );
        let fsync = |fsync| judge(Settings { fsync, ..SERVER });
        assert_eq!(fsync(Some("off")), Err(Unfit::NoFsync));
        assert_eq!(fsync(None), Ok(Standby::None));
    }

    #[test]
    fn what_stands_behind_a_server_is_told_only_if_it_is_known() {
        let standbys = |standbys| judge(Settings { standbys, ..SERVER });
        assert_eq!(standbys(Some("")), Ok(Standby::None));
        assert_eq!(standbys(Some("FIRST 1 (s1, s2)")), Ok(Standby::Synchronous));
        assert_eq!(standbys(None), Ok(Standby::Unknown));
        let managed = |standbys| {
            judge(Settings {
                standbys: Some(standbys),
                managed: true,
                fsync: Some("off"),
                ..SERVER
            })
        };
        assert_eq!(managed(""), Ok(Standby::Unknown));
        assert_eq!(managed("*"), Ok(Standby::Synchronous));
    }
}
