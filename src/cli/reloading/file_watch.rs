//! Notices that a file has changed from which the configuration was read. Each is looked at once a second,
//! because nothing else works everywhere: the volume of a ConfigMap is swapped behind a link, editors rename,
//! network file systems tell of nothing. A file is read only after two looks that are the same, so that one
//! that is being written is not read in the middle, as a rule.

use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::readings::PATIENCE;
use crate::config::Seen;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at files.
#[derive(Debug)]
pub(super) struct FileWatch {
    looks: Interval,
    /// A look may hang, as reading may: there is one at a time.
    looking: Option<JoinHandle<Vec<Seen>>>,
    files: Files,
}

/// The files that the last attempt has read, or would have.
#[derive(Debug)]
struct Files {
    /// In the states in which they were read.
    read: Vec<Seen>,
    /// In those of the last look.
    last: Vec<Seen>,
}

impl FileWatch {
    /// Of files that have just been read.
    pub(super) fn new(read: Vec<Seen>) -> FileWatch {
        let mut looks = interval(EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        FileWatch {
            looks,
            looking: None,
            files: Files::new(read),
        }
    }

    /// The files have been read again; perhaps they are others now.
    pub(super) fn read(&mut self, read: Vec<Seen>) {
        self.files = Files::new(read);
    }

    /// Returns once a file is another one than was read, and has stood still for a look; or if they cannot be
    /// looked at, which reading them will tell of.
    pub(super) async fn changed(&mut self) {
        loop {
            if self.looking.is_none() {
                self.looks.tick().await;
            }
            let looking = self
                .looking
                .get_or_insert_with(|| look_at(&self.files.read));
            let Ok(looked) = timeout(PATIENCE, looking).await else {
                return;
            };
            self.looking = None;
            // It fails only if the runtime ends.
            if let Ok(now) = looked
                && self.files.are_due(now)
            {
                return;
            }
        }
    }
}

/// These files as they are now.
fn look_at(files: &[Seen]) -> JoinHandle<Vec<Seen>> {
    let paths: Vec<_> = files.iter().map(|seen| seen.path.clone()).collect();
    spawn_blocking(move || paths.iter().map(|path| Seen::now(path)).collect())
}

impl Files {
    fn new(read: Vec<Seen>) -> Files {
        let last = read.clone();
        Files { read, last }
    }

    /// Whether they are to be read, as they are at this look.
    fn are_due(&mut self, now: Vec<Seen>) -> bool {
        let differ = self.read != now;
        let stand_still = self.last == now;
        self.last = now;
        differ && stand_still
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config::FileState;

    #[test]
    fn a_file_is_read_once_two_looks_are_the_same_and_it_is_not_as_it_was() {
        let gone = FileState::Gone;
        let (old, half, new) = (
            gone(io::ErrorKind::NotFound),
            gone(io::ErrorKind::InvalidInput),
            gone(io::ErrorKind::PermissionDenied),
        );
        let seen = |[one, other]: [FileState; 2]| {
            [("one", one), ("other", other)].map(|(path, state)| Seen {
                path: path.into(),
                state,
            })
        };
        let mut files = Files::new(seen([old, old]).into());
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
            assert_eq!(files.are_due(seen(now).into()), is_due, "{now:?}");
        }
    }
}
