//! `tokens backup`: a copy of the store, made beside whatever uses it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::cli::opening::{StoreError, StoreView};
use crate::cli::progress::{Meter, Shown, Total, while_shown};
use crate::cli::{Failure, print};
use crate::config::Settings;
use crate::credentials::{canary, key_file};

const MB: u64 = 1_000_000;

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

/// Shows how much of the store is copied, until it is.
async fn while_copied<T>(copying: impl Future<Output = T>, settings: &Settings, to: &Path) -> T {
    let length = |file: &Path| file.metadata().map_or(0, |about| about.len());
    let all = length(&settings.store.path.join("tokens.db"));
    let meter = Meter::new(Total::Bytes(all), Shown::AsBar);
    let show = || {
        let done = length(to);
        meter.show(done, || match done < all {
            true => format!("copied {} of {} MB", done / MB, all / MB),
            false => "reading the copy back".to_owned(),
        });
    };
    while_shown(copying, show).await
}

/// Copies the store, and says what the copy holds and what it needs.
pub(super) async fn backup(
    view: &StoreView,
    settings: &Settings,
    arguments: &Arguments,
) -> Result<ExitCode, Failure> {
    let to = &arguments.to;
    let copied = while_copied(view.store.backup(to), settings, to).await;
    let copied = copied.map_err(Failure::other)?;
    if let Some(canary) = &copied.canary {
        canary::check(&view.ring, canary).map_err(StoreError::from)?;
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
