//! `tokens export`: writes the stored pairs in clear, as `tokens import` reads them.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use super::line::Line;
use crate::cli::opening::StoreView;
use crate::cli::output::write;
use crate::cli::{Failure, exit, interrupted, print, say};
use crate::credentials::Pair;
use crate::credentials::seal::Unopened;
use crate::principal::Principal;
use crate::store::{Entry, Listed};

/// Entries read at once.
const PAGE: usize = 1000;

/// Where to export to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A new file, which only its owner can read; - for standard output, if that is no terminal
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// What became of the stored entries.
#[derive(Debug, Default)]
struct Counts {
    users: u64,
    accounts: u64,
    /// Without a RefreshToken that can still be used: importing these would not save a login.
    left_out: u64,
    /// The record is damaged, or its key is not configured.
    unopened: u64,
}

/// Where the lines go.
enum Output {
    Stdout,
    File(BufWriter<File>),
}

/// Exports every pair that saves a login.
pub(super) async fn export(open: &StoreView, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let to = &arguments.to;
    let mut output = match to.as_os_str() == "-" {
        true if io::stdout().is_terminal() => {
            say(
                "error: this would show every token on the terminal; name a file with --to, or \
                 pipe standard output into another command",
            );
            return Ok(ExitCode::from(exit::USAGE));
        }
        true => Output::Stdout,
        false => Output::File(BufWriter::new(create(to)?)),
    };
    let is_file = matches!(output, Output::File(_));
    let exported = tokio::select! {
        exported = write_all(open, &mut output, to) => exported,
        // There is nothing to clean up on standard output: there the signal ends the process by itself.
        () = interrupted(), if is_file => {
            remove(&output, to);
            say("interrupted: nothing was exported");
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
    };
    // Half of an export would look like a complete one.
    let counts = exported.inspect_err(|_| remove(&output, to))?;
    let Counts {
        users,
        accounts,
        left_out,
        unopened,
    } = counts;
    let summary = format!(
        "exported {users} users and {accounts} accounts, left out {left_out} without a good \
         RefreshToken, failed {unopened}"
    );
    match output {
        Output::Stdout => say(&summary),
        Output::File(_) => print(&summary)?,
    }
    Ok(match unopened {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

async fn write_all(open: &StoreView, output: &mut Output, to: &Path) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    let mut after = None;
    loop {
        let page = open.store.list(Listed::Known, after.as_ref(), PAGE).await?;
        let mut text = Zeroizing::new(Vec::new());
        for (principal, entry) in &page.entries {
            append(open, principal, entry, &mut counts, &mut text);
        }
        match output {
            Output::Stdout => write(&text)?,
            Output::File(file) => file.write_all(&text).map_err(|error| failed(to, error))?,
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if let Output::File(file) = output {
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .map_err(|error| failed(to, error))?;
    }
    Ok(counts)
}

fn append(
    open: &StoreView,
    principal: &Principal,
    entry: &Entry,
    counts: &mut Counts,
    text: &mut Vec<u8>,
) {
    let Some(record) = &entry.record else {
        return;
    };
    let pair = match Pair::of_record(&open.ring, principal, record) {
        Ok(pair) => pair,
        Err(unopened) => {
            counts.unopened += 1;
            say(&match unopened {
                Unopened::UnknownKey => format!(
                    "{principal}: its record is sealed with the key {}, which is not configured",
                    record.key
                ),
                Unopened::Malformed | Unopened::Forged => {
                    format!("{principal}: its record is damaged")
                }
            });
            return;
        }
    };
    let is_dead = entry.notes.refresh_dead == Some(entry.generation);
    let Some(refresh_token) = pair.refresh_token.as_ref().filter(|_| !is_dead) else {
        counts.left_out += 1;
        return;
    };
    let mut line = Line {
        access_token: Some(pair.access_token.expose().into()),
        refresh_token: Some(refresh_token.expose().into()),
        ..Line::default()
    };
    match principal {
        Principal::User(user) => {
            counts.users += 1;
            line.device_token = Some(user.to_string().into());
            line.instance_id = record
                .instance
                .map(|instance| Cow::Owned(instance.to_string()));
        }
        Principal::Account(name) => {
            counts.accounts += 1;
            line.account = Some(Cow::Borrowed(name));
        }
    }
    serde_json::to_writer(&mut *text, &line).expect("strings always serialise into memory");
    text.push(b'\n');
}

/// A new file that only its owner can read.
fn create(path: &Path) -> Result<File, Failure> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    created.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::other(anyhow::anyhow!(
            "{} exists; name a file that does not, or remove it",
            path.display()
        )),
        _ => failed(path, error),
    })
}

fn remove(output: &Output, path: &Path) {
    if let Output::File(_) = output
        && let Err(error) = fs::remove_file(path)
    {
        say(&format!(
            "{} is not whole, and cannot be removed: {error}",
            path.display()
        ));
    }
}

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::other(anyhow::Error::new(error).context(format!("cannot write {}", path.display())))
}
