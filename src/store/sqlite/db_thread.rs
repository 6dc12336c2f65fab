//! A thread with a queue. SQLite blocks, so each of its connections lives on a thread of its own
//! and is asked by channel. Knows nothing of SQL.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use crate::store::Error;

/// A thread that works through a queue of `J`.
pub(in crate::store) struct DbThread<J> {
    /// The queue and the thread; `None` once closed. Under a lock because closing takes both, while
    /// others may still send.
    open: Mutex<Option<(Sender<J>, JoinHandle<()>)>>,
}

/// A job for a thread that owns a `T`.
pub(in crate::store) type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

impl<J: Send + 'static> DbThread<J> {
    /// Starts the thread. `work` is to return when the queue is closed and empty.
    pub(in crate::store) fn start(
        name: &str,
        work: impl FnOnce(Receiver<J>) + Send + 'static,
    ) -> io::Result<DbThread<J>> {
        let (queue, jobs) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(jobs))?;
        Ok(DbThread {
            open: Mutex::new(Some((queue, thread))),
        })
    }

    /// Queues a job.
    pub(in crate::store) fn send(&self, job: J) -> Result<(), Error> {
        let open = self.open.lock().expect("no code panics under this lock");
        let (queue, _) = open.as_ref().ok_or(Error::Closed)?;
        queue.send(job).map_err(|_| Error::Closed)
    }

    /// Lets the thread finish what is queued and waits for it. Does nothing the second time.
    pub(in crate::store) fn close(&self) {
        let open = self
            .open
            .lock()
            .expect("no code panics under this lock")
            .take();
        if let Some((queue, thread)) = open {
            drop(queue);
            // The panic hook has reported a panic of the thread; its callers see a closed channel.
            let _ = thread.join();
        }
    }
}

impl<T: Send + 'static> DbThread<Job<T>> {
    /// A thread that owns `state` and does jobs on it, in order.
    pub(in crate::store) fn owning(name: &str, mut state: T) -> io::Result<DbThread<Job<T>>> {
        DbThread::start(name, move |jobs: Receiver<Job<T>>| {
            for job in jobs {
                job(&mut state);
            }
        })
    }

    /// Does `work` on the thread and returns its result.
    pub(in crate::store) async fn ask<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.send(Box::new(move |state| {
            // The caller may have gone; the work is done all the same.
            let _ = answer.send(work(state));
        }))?;
        answered.await.map_err(|_| Error::Closed)
    }
}
