//! Notices that a file has changed from which the configuration was read. Each is looked at once a second,
//! because nothing else works everywhere: the volume of a ConfigMap is swapped behind a link, editors rename,
//! network file systems tell of nothing. A file is read only after two looks that are the same, so that one
//! that is being written is not read in the middle, as a rule.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::{FileState, Seen};

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at files.
#[derive(Debug)]
pub(super) struct FileWatch {
    looks: Interval,
    files: Files,
}

/// The files that the last attempt has read, or would have.
#[derive(Debug)]
struct Files {
    /// In the states in which they were read.
    read: Vec<Seen>,
    /// Their states at the last look.
    last: Vec<FileState>,
}

impl FileWatch {
    /// Of files that have just been read.
    pub(super) fn new(read: Vec<Seen>) -> FileWatch {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        FileWatch {
            looks,
            files: Files::new(read),
        }
    }

    /// The files have been read again; perhaps they are others now.
    pub(super) fn read(&mut self, read: Vec<Seen>) {
        self.files = Files::new(read);
    }

    /// Returns once a file is another one than was read, and has stood still for a look.
    pub(super) async fn changed(&mut self) {
        loop {
            self.looks.tick().await;
            let paths: Vec<_> = self
                .files
                .read
                .iter()
                .map(|seen| seen.path.clone())
                .collect();
            // A look may hang, as reading may.
            let looking = spawn_blocking(move || {
                let states = paths.iter().map(|path| FileState::of(path));
                states.collect::<Vec<_>>()
            });
            // It fails only if the runtime ends.
            if let Ok(now) = looking.await
                && self.files.are_due(now)
            {
                return;
            }
        }
    }
}

impl Files {
    fn new(read: Vec<Seen>) -> Files {
        let last = read.iter().map(|seen| seen.state).collect();
        Files { read, last }
    }

    /// Whether they are to be read, as they are at this look.
    fn are_due(&mut self, now: Vec<FileState>) -> bool {
        let differ = self
            .read
            .iter()
            .map(|seen| seen.state)
            .ne(now.iter().copied());
        let stand_still = self.last == now;
        self.last = now;
        differ && stand_still
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_file_is_read_once_two_looks_are_the_same_and_it_is_not_as_it_was() {
        let gone = FileState::Gone;
        let (old, half, new) = (
            gone(io::ErrorKind::NotFound),
            gone(io::ErrorKind::InvalidInput),
            gone(io::ErrorKind::PermissionDenied),
        );
        let mut files = Files::new(vec![
            Seen {
                path: "one".into(),
                state: old,
            },
            Seen {
                path: "other".into(),
                state: old,
            },
        ]);
        for (now, is_due) in [
            ([old, old], false),
            ([old, old], false),
            ([old, half], false),
            ([old, new], false),
            ([half, new], false),
            ([half, new], true),
            // Whoever reads nothing is told again.
            ([half, new], true),
            // It is what was read after all.
            ([old, old], false),
            ([old, old], false),
        ] {
            assert_eq!(files.are_due(now.to_vec()), is_due, "{now:?}");
        }
    }
}
