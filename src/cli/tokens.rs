//! `tokens`: looks at the store and changes it, also beside a running proxy, which follows within a
//! second. Never prints a token.

mod backup;
mod export;
mod forget;
mod import;
mod line;
mod list;
mod notes;
mod renew;
mod reseal;
mod sealed;
mod show;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use self::backup::backup;
use self::export::export;
use self::forget::forget;
use self::import::import;
pub(super) use self::list::as_json as listed;
use self::list::list;
use self::renew::renew;
use self::reseal::reseal;
use self::show::show;
use self::verify::verify;
use super::opening::{is_there, no_store, open_store, open_to_forget, view};
use super::who::Who;
use super::{ConfigFile, Failure, exit};
use crate::config::Secrets;
use crate::credentials::seal::Unopened;
use crate::principal::Principal;
use crate::store::{BackupError, Record};
use crate::telemetry;

/// What to do with the stored tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One line for each principal: instance, generation, age, what is left, notes
    List(list::Arguments),
    /// All that is known of one principal, and what stands in the way of its login
    Show(show::Arguments),
    /// Refresh a principal's pair now, whatever its age
    Renew(renew::Arguments),
    /// Drop a principal's tokens: its next request logs in anew
    Forget(Who),
    /// Adopt tokens that were issued elsewhere, without a login
    Import(import::Arguments),
    /// Write the tokens in clear, or with --sealed under their seal, for `tokens import` into another store
    Export(export::Arguments),
    /// Copy the store to a file, also beside a running proxy; never copy its files by hand
    Backup(backup::Arguments),
    /// Refresh some of the stored pairs, to see whether they are good; never logs in
    Verify(verify::Arguments),
    /// Seal every pair with the current store key, so that old ones can be dropped
    Reseal,
}

/// Why the record of a principal is of no use to whoever has these keys.
fn unopened(principal: &Principal, record: &Record, why: Unopened) -> String {
    match why {
        Unopened::UnknownKey => format!(
            "{principal}: its record is sealed with the key {}, which is not configured",
            record.key
        ),
        Unopened::Malformed | Unopened::Forged => format!("{principal}: its record is damaged"),
    }
}

/// Runs the command.
pub fn run(config: ConfigFile, command: Command) -> Result<ExitCode, Failure> {
    let (_, loaded) = config.load(Secrets::Resolve)?;
    let _audit = telemetry::audit_command(loaded.settings.log).map_err(Failure::other)?;
    super::background_runtime()?.block_on(async {
        let settings = &loaded.settings;
        let needs_a_store = matches!(
            command,
            Command::Forget(_) | Command::Verify(_) | Command::Reseal
        ) || matches!(&command, Command::Renew(renew) if !renew.may_log_in());
        if needs_a_store && !is_there(&settings.store).await? {
            return Ok(no_store(settings, exit::NOT_FOUND));
        }
        match &command {
            Command::Forget(one) => {
                let open = open_to_forget(&settings.store).await?;
                forget(&open, &one.principal).await
            }
            Command::Import(arguments) => import(settings, arguments).await,
            Command::Reseal => reseal(&open_store(&settings.store).await?).await,
            Command::Verify(arguments) => {
                let open = open_store(&settings.store).await?;
                verify(open, loaded.settings, arguments).await
            }
            Command::Renew(arguments) => {
                let open = open_store(&settings.store).await?;
                renew(open, loaded.settings, arguments).await
            }
            Command::List(arguments) => match view(&settings.store).await? {
                Some(view) => list(&*view.store, settings, arguments).await,
                None => Ok(no_store(settings, exit::DONE)),
            },
            Command::Show(arguments) => match view(&settings.store).await? {
                Some(view) => show(&view, settings, arguments).await,
                None => Ok(no_store(settings, exit::NOT_FOUND)),
            },
            Command::Export(arguments) => match view(&settings.store).await? {
                Some(view) => export(&view, arguments).await,
                None => Ok(no_store(settings, exit::NOT_FOUND)),
            },
            Command::Backup(_) if settings.store.postgres.is_some() => {
                Err(Failure::other(BackupError::Elsewhere))
            }
            Command::Backup(arguments) => match view(&settings.store).await? {
                Some(view) => backup(&view, settings, arguments).await,
                None => Ok(no_store(settings, exit::NOT_FOUND)),
            },
        }
    })
}
