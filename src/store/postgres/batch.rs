//! Group commit: whatever is asked while one transaction is under way becomes the next one. The server
//! writes, and waits for its disk and its standby, once for all of them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::link::CALL_DEADLINE;
use crate::principal::Principal;
use crate::store::Error;

/// The most that one transaction does: all of it is answered when the last one is done.
const AT_ONCE: usize = 256;

/// What is done for many principals at once.
pub(super) trait Work: Send + Sync + 'static {
    /// What is asked for one principal.
    type Asked: Send + Sync + 'static;
    /// What that is answered.
    type Answer: Send + 'static;

    /// Does a batch. No principal is in it twice, and they are sorted as the server sorts them: rows are
    /// locked in this order, so that no two transactions wait for each other. Returns an answer for
    /// each, in the same order. An error concerns them all.
    fn work(
        &self,
        batch: &[Job<Self::Asked>],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, Error>> + Send;

    /// Whether this is not to be done any more if its caller has gone before it began.
    fn is_void_without_caller(_asked: &Self::Asked) -> bool {
        false
    }
}

/// One thing asked for one principal.
pub(super) struct Job<A> {
    pub(super) principal: Principal,
    /// The principal as it stands in rows.
    pub(super) key: String,
    pub(super) asked: A,
}

/// What waits to be done, and the task that does it.
pub(super) struct Queue<W: Work> {
    /// `None` once closed.
    open: Mutex<Option<Open<W>>>,
}

struct Open<W: Work> {
    queue: mpsc::UnboundedSender<Waiting<W>>,
    task: JoinHandle<()>,
}

/// A job, and who waits for its answer.
struct Waiting<W: Work> {
    job: Job<W::Asked>,
    answer: oneshot::Sender<Result<W::Answer, Error>>,
}

impl<W: Work> Queue<W> {
    /// Starts the task on the runtime that this is called on.
    pub(super) fn start(work: Arc<W>) -> Queue<W> {
        let (queue, jobs) = mpsc::unbounded_channel();
        let task = tokio::spawn(work_off(work, jobs));
        Queue {
            open: Mutex::new(Some(Open { queue, task })),
        }
    }

    /// Asks, and waits for the answer; not longer than a call may take.
    pub(super) async fn ask(
        &self,
        principal: &Principal,
        asked: W::Asked,
    ) -> Result<W::Answer, Error> {
        let answer = self.send(principal, asked)?;
        match timeout(CALL_DEADLINE, answer).await {
            Ok(answer) => answer.map_err(|_| Error::Closed)?,
            Err(_) => Err(Error::Away("the server did not answer in time".to_owned())),
        }
    }

    /// Asks, and leaves it at that. Does nothing once closed.
    pub(super) fn tell(&self, principal: &Principal, asked: W::Asked) {
        // Nobody waits for the answer.
        let _ = self.send(principal, asked);
    }

    fn send(
        &self,
        principal: &Principal,
        asked: W::Asked,
    ) -> Result<oneshot::Receiver<Result<W::Answer, Error>>, Error> {
        let (answer, answered) = oneshot::channel();
        let key = principal.to_string();
        let principal = principal.clone();
        let job = Job {
            principal,
            key,
            asked,
        };
        let open = self.open.lock().expect("no code panics under this lock");
        let open = open.as_ref().ok_or(Error::Closed)?;
        let sent = open.queue.send(Waiting { job, answer });
        sent.map_err(|_| Error::Closed)?;
        Ok(answered)
    }

    /// Lets the task finish what was asked. Returns when it has.
    pub(super) async fn close(&self) {
        let open = self
            .open
            .lock()
            .expect("no code panics under this lock")
            .take();
        if let Some(Open { queue, task }) = open {
            drop(queue);
            // A panic of the task was reported; its callers see a closed channel.
            let _ = task.await;
        }
    }
}

/// The task.
async fn work_off<W: Work>(work: Arc<W>, mut queue: mpsc::UnboundedReceiver<Waiting<W>>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match queue.recv().await {
                Some(first) => waiting.push_back(first),
                None => return,
            }
        }
        while let Ok(next) = queue.try_recv() {
            waiting.push_back(next);
        }
        let (batch, answers) = next_batch::<W>(&mut waiting);
        if batch.is_empty() {
            continue;
        }
        for (answer, done) in answers.into_iter().zip(done_by(&*work, &batch).await) {
            // Its caller may have gone.
            let _ = answer.send(done);
        }
    }
}

type Answers<W> = Vec<oneshot::Sender<Result<<W as Work>::Answer, Error>>>;

/// Takes what becomes one transaction: the first of each principal. The others stay, in their order.
fn next_batch<W: Work>(waiting: &mut VecDeque<Waiting<W>>) -> (Vec<Job<W::Asked>>, Answers<W>) {
    let mut batch: Vec<Waiting<W>> = Vec::new();
    let mut principals = HashSet::new();
    let mut later = VecDeque::new();
    for next in waiting.drain(..) {
        if next.answer.is_closed() && W::is_void_without_caller(&next.job.asked) {
            continue;
        }
        if batch.len() < AT_ONCE && principals.insert(next.job.key.clone()) {
            batch.push(next);
        } else {
            later.push_back(next);
        }
    }
    *waiting = later;
    batch.sort_unstable_by(|one, other| one.job.key.cmp(&other.job.key));
    batch
        .into_iter()
        .map(|next| (next.job, next.answer))
        .unzip()
}

/// Does a batch. What fails for a reason that may lie in one of its rows is done again by itself, so
/// that it fails nobody else.
async fn done_by<W: Work>(work: &W, batch: &[Job<W::Asked>]) -> Vec<Result<W::Answer, Error>> {
    match work.work(batch).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(Error::Unwritable(_) | Error::Refused(_)) if batch.len() > 1 => {
            let mut done = Vec::with_capacity(batch.len());
            for job in batch {
                let alone = work.work(std::slice::from_ref(job)).await;
                done.push(alone.map(|mut answers| answers.remove(0)));
            }
            done
        }
        Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
    }
}
