//! How full a disk is. Looks at it aside: it may be on a network that does not answer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::task::{JoinHandle, spawn_blocking};

/// A disk, for those that must not wait for it.
pub(super) struct Disk {
    look: Arc<Look>,
    /// What the last look found.
    found: Arc<Mutex<Option<Used>>>,
    /// There is one look at a time.
    looking: Mutex<Option<JoinHandle<()>>>,
}

/// Bytes that are taken, and all that there are for this user.
pub(super) type Used = (u64, u64);

type Look = dyn Fn() -> Option<Used> + Send + Sync;

impl Disk {
    /// The one that this path is on. Waits for a first look.
    pub(super) async fn of(path: PathBuf) -> Disk {
        let disk = Disk::seen_by(move || {
            let disk = rustix::fs::statvfs(&path).ok()?;
            let limit = disk.f_blocks.saturating_mul(disk.f_frsize);
            let left = disk.f_bavail.saturating_mul(disk.f_frsize);
            Some((limit.saturating_sub(left), limit))
        });
        // Fails only if the runtime ends.
        let _ = disk.begin().await;
        disk
    }

    fn seen_by(look: impl Fn() -> Option<Used> + Send + Sync + 'static) -> Disk {
        Disk {
            look: Arc::new(look),
            found: Arc::default(),
            looking: Mutex::default(),
        }
    }

    /// What the last look found; begins the next one. `None` if the disk does not say.
    pub(super) fn used(&self) -> Option<Used> {
        let mut looking = self.looking.lock().expect("no code panics under this lock");
        if looking.as_ref().is_none_or(JoinHandle::is_finished) {
            *looking = Some(self.begin());
        }
        *self.found.lock().expect("no code panics under this lock")
    }

    fn begin(&self) -> JoinHandle<()> {
        let (look, found) = (self.look.clone(), self.found.clone());
        spawn_blocking(move || {
            let used = look();
            *found.lock().expect("no code panics under this lock") = used;
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_as_it_was_and_one_look_waits_for_it() {
        let (answer, answers) = channel();
        let answers = Mutex::new(answers);
        let looks = Arc::new(AtomicU64::new(0));
        let disk = Disk::seen_by({
            let looks = looks.clone();
            move || {
                let number = looks.fetch_add(1, Ordering::SeqCst);
                answers.lock().unwrap().recv().ok()?;
                Some((number, 10))
            }
        });
        answer.send(()).unwrap();
        disk.begin().await.unwrap();
        for _ in 0..3 {
            assert_eq!(disk.used(), Some((0, 10)));
        }
        // For more looks than there are.
        for _ in 0..3 {
            answer.send(()).unwrap();
        }
        let looking = disk.looking.lock().unwrap().take().unwrap();
        looking.await.unwrap();
        assert_eq!(*disk.found.lock().unwrap(), Some((1, 10)));
        let looks = looks.load(Ordering::SeqCst);
        assert_eq!(looks, 2, "the second one was for three questions");
    }

    #[tokio::test]
    async fn the_disk_of_a_folder_says_how_full_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (used, limit) = Disk::of(folder.path().to_owned()).await.used().unwrap();
        assert!(0 < limit && used <= limit, "{used} of {limit}");
        assert_eq!(Disk::of("/nowhere/at/all".into()).await.used(), None);
    }
}
