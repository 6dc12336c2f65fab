//! The lines that an import reads. A thread reads them: a pipe may keep it waiting for ever, and that must
//! not keep an interrupt waiting.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;

use crate::cli::Failure;

/// Lines that were read ahead; as many are imported at once.
pub(super) const AHEAD: usize = 512;

/// A file, or standard input.
pub(super) struct Source {
    reader: Box<dyn BufRead + Send>,
    /// In bytes; `None` of a pipe.
    pub(super) size: Option<u64>,
}

/// One line that is not empty.
pub(super) struct InputLine {
    /// Counted from 1, empty ones too.
    pub(super) number: usize,
    /// How many bytes of the input this is.
    pub(super) bytes: u64,
    /// An error of the kind `InvalidData` is of this line alone: it is not UTF-8.
    pub(super) text: io::Result<String>,
}

impl Source {
    /// Opens it.
    pub(super) fn open(from: &Path) -> Result<Source, Failure> {
        if from.as_os_str() == "-" {
            return Ok(Source {
                reader: Box::new(BufReader::new(io::stdin())),
                size: None,
            });
        }
        let file = File::open(from).map_err(|error| unreadable(from, error))?;
        let about = file.metadata().map_err(|error| unreadable(from, error))?;
        Ok(Source {
            reader: Box::new(BufReader::new(file)),
            size: about.is_file().then_some(about.len()),
        })
    }

    /// Its lines.
    pub(super) fn lines(self) -> Result<impl Stream<Item = InputLine> + use<>, Failure> {
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let read = move || {
            for (index, text) in self.reader.lines().enumerate() {
                let is_empty = text.as_ref().is_ok_and(|text| text.trim().is_empty());
                let bytes = text.as_ref().map_or(0, |text| text.len() as u64 + 1);
                let line = InputLine {
                    number: index + 1,
                    bytes,
                    text,
                };
                // An import that ended early reads no further.
                if !is_empty && sender.blocking_send(line).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("import-lines".into())
            .spawn(read)
            .map_err(Failure::other)?;
        Ok(stream::poll_fn(move |context| receiver.poll_recv(context)))
    }
}

/// The file cannot be read.
pub(super) fn unreadable(from: &Path, error: io::Error) -> Failure {
    Failure::other(anyhow::Error::new(error).context(format!("cannot read {}", from.display())))
}
