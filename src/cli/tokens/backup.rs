//! `tokens backup`: a copy of the store, made beside whatever uses it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::opening::{StoreError, StoreView};
use crate::cli::{Failure, print};
use crate::config::Settings;
use crate::credentials::{key_file, seal};

/// Where to copy to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A new file, which only the owner of the store can read
    #[arg(long, value_name = "FILE", value_parser = new_file)]
    to: PathBuf,
}

/// `-` would be standard output elsewhere, and a file of that name here.
fn new_file(text: &str) -> Result<PathBuf, String> {
    match text {
        "-" => Err("a backup is a file, not standard output: name a new file".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

/// Copies the store, and says what the copy holds and what it needs.
pub(super) async fn backup(
    view: &StoreView,
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let to = &arguments.to;
    let copied = view.store.backup(to).await.map_err(Failure::other)?;
    if let Some(canary) = &copied.canary {
        seal::check(&view.ring, canary).map_err(StoreError::from)?;
    }
    let folder = settings.store.path.display();
    let key = match &settings.store.key {
        Some(_) => "the configured [store] key".to_owned(),
        None => format!(
            "{}, which is not in it",
            settings.store.path.join(key_file::KEY_FILE).display()
        ),
    };
    print(&format!(
        "backed up {} principals with tokens to {}; it was read back and is whole\n\
         it is useless without its key: also back up {key}\n\
         to restore it: stop every process on the store, remove tokens.db-wal and tokens.db-shm in \
         {folder}, copy it to {folder}/tokens.db with the same owner, start again",
        copied.pairs,
        to.display(),
    ))?;
    Ok(ExitCode::SUCCESS)
}
