//! A commit is durable soon whatever the server does, and what waits gets there.

mod lost;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::store::contract::{record, user};
use crate::store::postgres::fake::{Fake, Writes};
use crate::store::{Generation, Notes, Version};

/// Long for a machine that does nothing else.
const SOON: Duration = Duration::from_secs(10);

/// A process with its outbox, in front of a server in memory.
struct Process {
    committer: Committer<Fake>,
    server: Arc<Fake>,
    outbox: Arc<Outbox>,
    doubt: Arc<Doubt>,
    connected: watch::Sender<Option<Instant>>,
}

impl Process {
    fn start(folder: &TempDir, server: &Arc<Fake>) -> Process {
        let outbox = Arc::new(Outbox::open(folder.path()).unwrap());
        let (connected, counted) = watch::channel(None);
        let doubt = Arc::new(Doubt::new(counted.clone()));
        let beside = Beside {
            outbox: Arc::clone(&outbox),
            acknowledged: Arc::default(),
            doubt: Arc::clone(&doubt),
        };
        let committer = Committer::start(Arc::clone(server), beside, counted, ACKNOWLEDGED_WITHIN);
        Process {
            committer,
            server: Arc::clone(server),
            outbox,
            doubt,
            connected,
        }
    }

    /// A process of its own on a new server.
    fn alone(writes: Writes) -> (TempDir, Process) {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(&folder, &Arc::new(Fake::new(writes)));
        (folder, process)
    }

    fn waiting(&self) -> u64 {
        *self.outbox.waiting().borrow()
    }

    async fn has_sent_all(&self) {
        let mut waiting = self.outbox.waiting();
        let empty = waiting.wait_for(|waiting| *waiting == 0);
        tokio::time::timeout(SOON, empty)
            .await
            .expect("all is sent")
            .unwrap();
    }

    async fn lease(&self, of: u64) -> Result<Entry, Error> {
        let ttl = Duration::from_secs(15);
        let (_, entry) = self.committer.lease(&user(of), lease(), ttl).await?;
        entry
    }
}

fn lease() -> LeaseId {
    LeaseId(Uuid::from_u64_pair(3, 3))
}

fn over(generation: u64) -> Version {
    Version {
        generation: Generation(generation),
        epoch: 0,
    }
}

/// The pair number `n` of a user, committed over the generation `n - 1`.
fn pending(of: u64, n: u8) -> Pending {
    Pending {
        principal: user(of),
        record: record(n),
        over: over(u64::from(n) - 1),
        lease: Some(lease()),
    }
}

fn committed(generation: u64) -> Result<Commit, Error> {
    Ok(Commit::Committed(Generation(generation)))
}

#[tokio::test]
async fn a_commit_that_is_acknowledged_leaves_nothing_in_the_outbox() {
    let (_folder, process) = Process::alone(Writes::Work);
    assert_eq!(process.committer.commit(pending(1, 1)).await, committed(1));
    assert_eq!(process.waiting(), 0);
    assert_eq!(process.server.stands(&user(1)), pending(1, 1).entry());
}

#[tokio::test]
async fn a_commit_at_a_paused_server_returns_soon_and_arrives_later() {
    let (_folder, process) = Process::alone(Writes::Wait);
    let began = Instant::now();
    assert_eq!(process.committer.commit(pending(1, 1)).await, committed(1));
    let took = began.elapsed();
    assert!(took >= ACKNOWLEDGED_WITHIN, "{took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(process.waiting(), 1);
    assert_eq!(process.server.stands(&user(1)), Entry::default());
    process.server.set(Writes::Work);
    process.has_sent_all().await;
    assert_eq!(process.server.stands(&user(1)), pending(1, 1).entry());
}

#[tokio::test]
async fn a_pair_that_the_server_refuses_is_put_at_once() {
    let (_folder, process) = Process::alone(Writes::Fail);
    let began = Instant::now();
    assert_eq!(process.committer.commit(pending(1, 1)).await, committed(1));
    assert!(began.elapsed() < ACKNOWLEDGED_WITHIN);
    assert_eq!(process.waiting(), 1);
}

#[tokio::test]
async fn a_lost_answer_costs_no_generation() {
    let (_folder, process) = Process::alone(Writes::LoseAnswers);
    assert_eq!(process.committer.commit(pending(1, 1)).await, committed(1));
    process.server.set(Writes::Work);
    process.has_sent_all().await;
    assert_eq!(process.server.stands(&user(1)), pending(1, 1).entry());
}

#[tokio::test]
async fn what_waits_is_sent_at_once_when_the_server_is_found_again() {
    let (_folder, process) = Process::alone(Writes::Nothing);
    process.committer.commit(pending(1, 1)).await.unwrap();
    // The pauses between attempts have grown to their longest.
    process.server.commits(5).await;
    process.server.set(Writes::Work);
    let began = Instant::now();
    process.connected.send_replace(Some(Instant::now()));
    process.has_sent_all().await;
    assert!(
        began.elapsed() < LAST_PAUSE_AT_LEAST,
        "{:?}",
        began.elapsed()
    );
}

/// The shortest that the longest pause between two attempts is.
const LAST_PAUSE_AT_LEAST: Duration = Duration::from_millis(1_600);

#[tokio::test]
async fn a_server_that_fails_at_once_is_asked_less_and_less_often() {
    let (_folder, process) = Process::alone(Writes::Nothing);
    let began = Instant::now();
    process.committer.commit(pending(1, 1)).await.unwrap();
    // The caller's own, one at once from the outbox, and one after each of three pauses.
    process.server.commits(2 + 3).await;
    // A quarter, a half and a whole second, each a fifth less at most.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_400), "{took:?}");
}

#[tokio::test]
async fn the_next_process_sends_what_it_finds() {
    let (folder, process) = Process::alone(Writes::Nothing);
    for of in 1..=200 {
        let committed_all = process.committer.commit(pending(of, 1)).await;
        assert_eq!(committed_all, committed(1));
    }
    let server = Arc::clone(&process.server);
    drop(process);
    server.set(Writes::Work);
    let process = Process::start(&folder, &server);
    process.has_sent_all().await;
    for of in 1..=200 {
        assert_eq!(
            server.stands(&user(of)),
            pending(of, 1).entry(),
            "user {of}"
        );
    }
}

#[tokio::test]
async fn a_process_that_runs_sends_what_another_left() {
    let (folder, process) = Process::alone(Writes::Nothing);
    process.committer.commit(pending(1, 1)).await.unwrap();
    let next = Process::start(&folder, &process.server);
    // Killed before the server came back.
    process.committer.sending.abort();
    process.server.set(Writes::Work);
    next.has_sent_all().await;
    assert_eq!(next.server.stands(&user(1)), pending(1, 1).entry());
}

#[tokio::test]
async fn without_an_outbox_the_servers_answer_is_the_callers() {
    let (_folder, process) = Process::alone(Writes::Fail);
    process.outbox.close();
    let failed = process.committer.commit(pending(1, 1)).await;
    assert!(matches!(failed, Err(Error::Away(_))), "{failed:?}");
    process.server.set(Writes::Wait);
    let (answer, ()) = tokio::join!(process.committer.commit(pending(1, 1)), async {
        process.server.commits(2).await;
        tokio::time::sleep(ACKNOWLEDGED_WITHIN * 2).await;
        process.server.set(Writes::Work);
    });
    assert_eq!(answer, committed(1));
    assert_eq!(process.lease(1).await, Err(Error::Closed));
}

#[tokio::test]
async fn a_pair_that_was_overtaken_is_dropped() {
    let (_folder, process) = Process::alone(Writes::Nothing);
    process.committer.commit(pending(1, 1)).await.unwrap();
    let later = Entry {
        record: Some(record(9)),
        ..pending(1, 1).entry()
    };
    process.server.put(&user(1), later.clone());
    process.committer.commit(pending(2, 1)).await.unwrap();
    let forgotten = Entry {
        epoch: 1,
        ..Entry::default()
    };
    process.server.put(&user(2), forgotten.clone());
    process.server.set(Writes::Work);
    process.has_sent_all().await;
    assert_eq!(process.server.stands(&user(1)), later);
    assert_eq!(process.server.stands(&user(2)), forgotten);
}

#[tokio::test]
async fn a_pair_that_outranks_what_stands_is_not_thrown_away() {
    let (_folder, process) = Process::alone(Writes::Nothing);
    for of in 1..=2 {
        process.committer.commit(pending(of, 5)).await.unwrap();
    }
    // The server lost what the pair replaces, or has what was received earlier in its place.
    process.server.put(&user(1), pending(1, 3).entry());
    let earlier = Entry {
        record: Some(record(4)),
        ..pending(2, 5).entry()
    };
    process.server.put(&user(2), earlier);
    process.server.set(Writes::Work);
    process.has_sent_all().await;
    assert_eq!(process.server.stands(&user(1)), pending(1, 5).entry());
    let stands = process.server.stands(&user(2));
    assert_eq!(
        stands.generation,
        Generation(6),
        "no cache takes it for the other"
    );
    assert_eq!(stands.record, Some(record(5)));
}

#[tokio::test]
async fn no_lease_hands_out_what_stands_under_a_pair_that_waits() {
    let (_folder, process) = Process::alone(Writes::Work);
    process.committer.commit(pending(1, 1)).await.unwrap();
    // Reads and leases work, commits do not.
    process.server.set(Writes::Fail);
    assert_eq!(process.committer.commit(pending(1, 2)).await, committed(2));
    assert_eq!(process.lease(1).await, Ok(pending(1, 2).entry()));
    let loaded = process.committer.load(&user(1)).await;
    assert_eq!(loaded, Ok(pending(1, 2).entry()));
    assert_eq!(process.server.stands(&user(1)), pending(1, 1).entry());
    // It is sent before the lease where that is possible.
    process.server.set(Writes::Work);
    assert_eq!(process.lease(1).await, Ok(pending(1, 2).entry()));
    assert_eq!(process.server.stands(&user(1)), pending(1, 2).entry());
    assert_eq!(process.doubt.left(), None);
}

#[tokio::test]
async fn a_lease_finds_what_another_process_on_the_outbox_has_just_put() {
    let (folder, process) = Process::alone(Writes::Fail);
    let other = Process::start(&folder, &process.server);
    process.committer.commit(pending(1, 1)).await.unwrap();
    assert_eq!(other.lease(1).await, Ok(pending(1, 1).entry()));
}

#[tokio::test]
async fn a_pair_on_top_of_one_that_waits_gets_there_as_well() {
    let (_folder, process) = Process::alone(Writes::Fail);
    process.committer.commit(pending(1, 1)).await.unwrap();
    assert_eq!(process.lease(1).await, Ok(pending(1, 1).entry()));
    assert_eq!(process.committer.commit(pending(1, 2)).await, committed(2));
    assert_eq!(process.lease(1).await, Ok(pending(1, 2).entry()));
    process.server.set(Writes::Work);
    process.has_sent_all().await;
    assert_eq!(process.server.stands(&user(1)), pending(1, 2).entry());
}

#[tokio::test]
async fn nothing_is_noted_or_forgotten_under_a_pair_that_waits() {
    let (_folder, process) = Process::alone(Writes::Fail);
    process.committer.commit(pending(1, 1)).await.unwrap();
    let note = Note::RefreshDead(Generation(1));
    let noted = process.committer.note(&user(1), note).await;
    assert!(matches!(noted, Err(Error::Away(_))), "{noted:?}");
    let forgotten = process.committer.forget(&user(1)).await;
    assert!(matches!(forgotten, Err(Error::Away(_))), "{forgotten:?}");
    process.server.set(Writes::Work);
    process.committer.note(&user(1), note).await.unwrap();
    let stands = process.server.stands(&user(1));
    assert_eq!(stands.notes.refresh_dead, Some(Generation(1)));
    assert_eq!(process.committer.forget(&user(1)).await, Ok(true));
    process.has_sent_all().await;
    let stands = process.server.stands(&user(1));
    assert_eq!((stands.epoch, stands.record), (1, None));
    assert_eq!(process.committer.forget(&user(1)).await, Ok(false));
}

#[tokio::test]
async fn a_restore_that_was_kept_is_not_what_the_store_acknowledged() {
    let (_folder, process) = Process::alone(Writes::Work);
    let stands = |generation, received| Entry {
        generation: Generation(generation),
        ..pending(1, received).entry()
    };
    process.server.put(&user(1), stands(6, 9));
    let ours = vec![(user(1), stands(8, 8))];
    let kept = process.committer.restore(ours).await;
    assert_eq!(kept, Ok(vec![Restored::Kept]));
    // Another process committed on top of it, and its clock is slow.
    let newest = stands(7, 4);
    process.server.put(&user(1), newest.clone());
    let loaded = process.committer.load(&user(1)).await;
    assert_eq!(loaded.as_ref(), Ok(&newest));
    assert_eq!(process.lease(1).await, Ok(newest));
    assert_eq!(process.doubt.left(), None);
}
