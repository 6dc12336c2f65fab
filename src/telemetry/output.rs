//! Standard error as a descriptor: the standard library's own handle takes a closed one for one that
//! takes everything.

use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// How long to wait after a descriptor has said that it takes nothing at the moment.
const PAUSE: Duration = Duration::from_millis(10);

/// Where lines go.
pub(super) struct Output {
    to: To,
    /// Whether the last line was cut short.
    torn: bool,
}

enum To {
    StandardError,
    /// Standard error was closed when the process began.
    Nobody,
    #[cfg(test)]
    Test(Box<dyn io::Write + Send>),
}

/// How much of a text was written.
pub(super) enum Taken<'t> {
    All,
    Part {
        /// What was not, from the beginning of the first line that is not whole.
        left: &'t str,
        error: io::Error,
    },
}

impl Output {
    pub(super) fn standard_error() -> Output {
        let to = match is_closed() {
            true => To::Nobody,
            false => To::StandardError,
        };
        Output { to, torn: false }
    }

    #[cfg(test)]
    pub(super) fn test(to: impl io::Write + Send + 'static) -> Output {
        Output {
            to: To::Test(Box::new(to)),
            torn: false,
        }
    }

    /// Writes all of `text`, or as much as is taken before an error. Waits for as long as it takes.
    pub(super) fn write<'t>(&mut self, text: &'t str) -> Taken<'t> {
        if self.torn {
            match self.some(b"\n") {
                Ok(_) => self.torn = false,
                Err(error) => return Taken::Part { left: text, error },
            }
        }
        let mut written = 0;
        while written < text.len() {
            match self.some(&text.as_bytes()[written..]) {
                Ok(taken) => written += taken,
                Err(error) => {
                    let whole = memchr::memrchr(b'\n', &text.as_bytes()[..written]);
                    let whole = whole.map_or(0, |end| end + 1);
                    self.torn = whole < written;
                    let left = &text[whole..];
                    return Taken::Part { left, error };
                }
            }
        }
        Taken::All
    }

    fn some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let taken = match &mut self.to {
                To::StandardError => rustix::io::write(io::stderr().as_fd(), bytes),
                To::Nobody => return Err(Errno::BADF.into()),
                #[cfg(test)]
                To::Test(to) => return to.write(bytes),
            };
            match taken {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => return Ok(taken),
                Err(Errno::INTR) => {}
                // Some parent shares a descriptor that does not block.
                Err(Errno::AGAIN) => thread::sleep(PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether standard error was closed when the process began: the standard library puts `/dev/null`
/// in its place then, opened for reading and writing. A user who wants no log redirects it to
/// `/dev/null` for writing.
fn is_closed() -> bool {
    let stderr = io::stderr();
    let is_null = rustix::fs::fstat(stderr.as_fd())
        .is_ok_and(|found| found.st_rdev == rustix::fs::makedev(1, 3));
    let is_for_both = rustix::fs::fcntl_getfl(stderr.as_fd())
        .is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDWR);
    is_null && is_for_both
}
