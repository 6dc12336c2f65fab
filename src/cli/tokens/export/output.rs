//! Where an export goes: a new private file that is removed unless it becomes whole, or standard output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cli::output::write;
use crate::cli::{Failure, say};

/// Where the lines go.
pub(super) enum Output<'a> {
    Stdout,
    File(&'a Path, BufWriter<File>),
}

impl Output<'_> {
    /// Opens standard output for `-`, and else a new file that only its owner can read. `None`: this is
    /// a terminal, which is shown nothing but sealed lines.
    pub(super) fn create(to: &Path, sealed: bool) -> Result<Option<Output<'_>>, Failure> {
        if to.as_os_str() == "-" {
            let is_shown = sealed || !io::stdout().is_terminal();
            return Ok(is_shown.then_some(Output::Stdout));
        }
        let created = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to);
        match created {
            Ok(file) => Ok(Some(Output::File(to, BufWriter::new(file)))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Failure::other(anyhow::anyhow!(
                    "{} exists; name a file that does not, or remove it",
                    to.display()
                )))
            }
            Err(error) => Err(failed(to, error)),
        }
    }

    /// Whether it is a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Output::File(..))
    }

    /// Writes these lines.
    pub(super) fn write(&mut self, text: &[u8]) -> Result<(), Failure> {
        match self {
            Output::Stdout => write(text),
            Output::File(path, file) => file.write_all(text).map_err(|error| failed(path, error)),
        }
    }

    /// After this a file is whole and on the disk.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        match self {
            Output::Stdout => Ok(()),
            Output::File(path, file) => file
                .flush()
                .and_then(|()| file.get_ref().sync_all())
                .map_err(|error| failed(path, error)),
        }
    }

    /// Removes a file that did not become whole.
    pub(super) fn remove(&self) {
        if let Output::File(path, _) = self
            && let Err(error) = fs::remove_file(path)
        {
            say(&format!(
                "{} is not whole, and cannot be removed: {error}",
                path.display()
            ));
        }
    }
}

fn failed(path: &Path, error: io::Error) -> Failure {
    Failure::other(anyhow::Error::new(error).context(format!("cannot write {}", path.display())))
}
