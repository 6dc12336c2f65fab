//! The lines that a command reads from a file or a pipe. A thread reads them: a pipe may keep it waiting for
//! ever, and that must not keep an interrupt waiting. A line that is too long is dropped while it is read,
//! so that memory stays flat.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;

use super::Failure;

/// Lines that are read ahead.
pub(super) const AHEAD: usize = 512;
/// What a file is read by.
const PIECE: usize = 64 * 1024;

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
    /// An error of the kind `InvalidData` is of this line alone, and says what is wrong with it.
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
            reader: Box::new(BufReader::with_capacity(PIECE, file)),
            size: about.is_file().then_some(about.len()),
        })
    }

    /// Its lines; those of more than `longest` bytes are errors.
    pub(super) fn lines(
        self,
        longest: usize,
    ) -> Result<impl Stream<Item = InputLine> + use<>, Failure> {
        let (sender, mut receiver) = mpsc::channel(AHEAD);
        let mut reader = self.reader;
        let read = move || {
            for number in 1.. {
                let (bytes, text) = match read_line(&mut *reader, longest) {
                    Ok(None) => return,
                    Ok(Some((bytes, line))) => (bytes, line),
                    Err(error) => (0, Err(error)),
                };
                let is_empty = text.as_ref().is_ok_and(|text| text.trim().is_empty());
                let is_last = text
                    .as_ref()
                    .is_err_and(|error| error.kind() != ErrorKind::InvalidData);
                let line = InputLine {
                    number,
                    bytes,
                    text,
                };
                // A command that ended early reads no further.
                if !is_empty && sender.blocking_send(line).is_err() || is_last {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("input-lines".into())
            .spawn(read)
            .map_err(Failure::other)?;
        Ok(stream::poll_fn(move |context| receiver.poll_recv(context)))
    }
}

/// How many lines a file has, empty ones too; `None` if it is no file that can be read twice.
pub(super) fn count(from: &Path) -> Result<Option<u64>, Failure> {
    let counted = || -> io::Result<Option<u64>> {
        if from.as_os_str() == "-" || !from.metadata()?.is_file() {
            return Ok(None);
        }
        let (mut file, mut piece) = (File::open(from)?, vec![0; PIECE]);
        let (mut lines, mut last) = (0, b'\n');
        loop {
            let read = match file.read(&mut piece)? {
                0 => break,
                read => &piece[..read],
            };
            lines += read.iter().filter(|byte| **byte == b'\n').count() as u64;
            last = read[read.len() - 1];
        }
        Ok(Some(lines + u64::from(last != b'\n')))
    };
    counted().map_err(|error| unreadable(from, error))
}

/// The next line without its line break, and how many bytes of the input it is; `None` at the end. What is
/// wrong with this line alone is an error inside.
fn read_line(
    reader: &mut dyn BufRead,
    longest: usize,
) -> io::Result<Option<(u64, io::Result<String>)>> {
    let (mut line, mut bytes) = (Vec::new(), 0);
    loop {
        let piece = match reader.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            piece => piece?,
        };
        let end = piece.iter().position(|byte| *byte == b'\n');
        let text = &piece[..end.unwrap_or(piece.len())];
        // One more shows that it is too long.
        let room = (longest + 1).saturating_sub(line.len());
        line.extend_from_slice(&text[..text.len().min(room)]);
        let used = text.len() + usize::from(end.is_some());
        reader.consume(used);
        bytes += used as u64;
        if end.is_some() || used == 0 {
            break;
        }
    }
    let bad = |why| Err(io::Error::new(ErrorKind::InvalidData, why));
    let text = match String::from_utf8(line) {
        _ if bytes == 0 => return Ok(None),
        Ok(line) if line.len() <= longest => Ok(line),
        Err(error) if error.as_bytes().len() <= longest => bad("not UTF-8".to_owned()),
        _ => bad(format!("longer than {longest} bytes")),
    };
    Ok(Some((bytes, text)))
}

/// The file cannot be read.
pub(super) fn unreadable(from: &Path, error: io::Error) -> Failure {
    Failure::other(anyhow::Error::new(error).context(format!("cannot read {}", from.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line, or what is wrong with it.
    fn lines(mut input: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some((_, line)) = read_line(&mut input, 8).unwrap() {
            lines.push(line.unwrap_or_else(|error| format!("<{error}>")));
        }
        lines
    }

    #[test]
    fn a_line_that_is_too_long_or_not_text_is_alone_bad() {
        let input = b"one\n12345678\n123456789\n\nt\xffo\n\xff23456789abc\nend";
        let long = "<longer than 8 bytes>";
        assert_eq!(
            lines(input),
            ["one", "12345678", long, "", "<not UTF-8>", long, "end"]
        );
        assert_eq!(lines(b""), [""; 0]);
        assert_eq!(lines(b"\n"), [""]);
    }

    #[test]
    fn the_last_line_of_a_file_counts_without_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lines");
        for (text, number) in [("", 0), ("a", 1), ("a\n", 1), ("a\n\nb", 3)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(count(&file).unwrap(), Some(number), "{text:?}");
        }
        assert_eq!(count(folder.path()).unwrap(), None);
    }
}
