//! What the server lost is there again soon after it was found again.

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::*;
use crate::clock::Timestamp;
use crate::store::contract::{record, user};
use crate::store::postgres::fake::{Fake, Writes};
use crate::store::{Generation, Notes, Record, Version};

/// A process that remembers, in front of a server in memory.
struct Process {
    server: Arc<Fake>,
    acknowledged: Arc<Acknowledged>,
    doubt: Arc<Doubt>,
    connected: watch::Sender<Option<Instant>>,
    _task: Reassertion,
}

impl Process {
    fn start(server: &Arc<Fake>) -> Process {
        let (connected, counted) = watch::channel(None);
        let acknowledged = Arc::default();
        let doubt = Arc::new(Doubt::new(counted.clone()));
        Process {
            server: Arc::clone(server),
            _task: Reassertion::start(
                Arc::clone(server),
                Arc::clone(&acknowledged),
                Arc::clone(&doubt),
                counted,
            ),
            acknowledged,
            doubt,
            connected,
        }
    }

    /// Commits, and remembers that.
    async fn commit(&self, of: u64, pair: Record, over: Version) {
        let committed = self.server.commit(&user(of), pair, over, None).await;
        committed.unwrap();
        let entry = self.server.stands(&user(of));
        self.acknowledged.remember(&user(of), entry);
    }

    async fn forget(&self, of: u64) {
        self.server.forget(&user(of), None).await.unwrap().unwrap();
        let entry = self.server.stands(&user(of));
        self.acknowledged.remember(&user(of), entry);
    }

    fn finds_the_server_again(&self) {
        self.connected.send_replace(Some(Instant::now()));
    }

    async fn has(&self, of: u64, expected: &Entry) {
        let there = async {
            while self.server.stands(&user(of)) != *expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(Duration::from_secs(10), there).await.is_err() {
            assert_eq!(self.server.stands(&user(of)), *expected, "user {of}");
        }
    }
}

fn over(generation: u64) -> Version {
    Version {
        generation: Generation(generation),
        epoch: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_lost_is_restored_with_generation_and_notes() {
    let server = Arc::new(Fake::new(Writes::Work));
    let process = Process::start(&server);
    let mut stands = Vec::new();
    for of in 1..=500 {
        process.commit(of, record(1), over(0)).await;
    }
    let contested_until = Some(Timestamp::from_millis(5));
    let mut noted = server.stands(&user(1));
    noted.notes.contested_until = contested_until;
    server.put(&user(1), noted);
    let standby = server.all();
    for of in 1..=500 {
        process.commit(of, record(2), over(1)).await;
        stands.push(server.stands(&user(of)));
    }
    server.go_back_to(standby);
    process.finds_the_server_again();
    for (of, stands) in (1..).zip(&stands) {
        process.has(of, stands).await;
        assert_eq!(stands.generation, Generation(2));
    }
    assert_eq!(stands[0].notes.contested_until, contested_until);
    assert_eq!(process.doubt.entries_restored(), 500);
    assert!(process.doubt.left().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_forget_that_was_lost_is_done_again() {
    let server = Arc::new(Fake::new(Writes::Work));
    let process = Process::start(&server);
    process.commit(1, record(1), over(0)).await;
    let standby = server.all();
    process.forget(1).await;
    server.go_back_to(standby);
    process.finds_the_server_again();
    let forgotten = Entry {
        // No cache takes it for the pair that it replaces.
        generation: Generation(2),
        epoch: 1,
        ..Entry::default()
    };
    process.has(1, &forgotten).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_that_restore_the_pair_received_later_wins() {
    for earlier_first in [true, false] {
        let server = Arc::new(Fake::new(Writes::Work));
        let (one, other) = (Process::start(&server), Process::start(&server));
        one.commit(1, record(1), over(0)).await;
        let standby = server.all();
        one.commit(1, record(2), over(1)).await;
        other.commit(1, record(3), over(2)).await;
        let last = server.stands(&user(1));
        server.go_back_to(standby);
        let order = match earlier_first {
            true => [&one, &other],
            false => [&other, &one],
        };
        for process in order {
            process.finds_the_server_again();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(server.stands(&user(1)), last);
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_wrote_since_is_left_alone() {
    let server = Arc::new(Fake::new(Writes::Work));
    let process = Process::start(&server);
    process.commit(1, record(1), over(0)).await;
    process.commit(2, record(1), over(0)).await;
    let on_top = Entry {
        generation: Generation(2),
        record: Some(Record {
            // By a clock that is behind.
            received: Timestamp::from_millis(0),
            ..record(2)
        }),
        ..Entry::default()
    };
    server.put(&user(1), on_top.clone());
    let forgotten = Entry {
        generation: Generation(1),
        epoch: 1,
        record: None,
        notes: Notes::default(),
    };
    server.put(&user(2), forgotten.clone());
    process.finds_the_server_again();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.stands(&user(1)), on_top);
    assert_eq!(server.stands(&user(2)), forgotten);
    assert_eq!(process.doubt.entries_restored(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_fails_is_repeated_until_it_works() {
    let server = Arc::new(Fake::new(Writes::Work));
    let process = Process::start(&server);
    process.commit(1, record(1), over(0)).await;
    let stands = server.stands(&user(1));
    server.go_back_to(HashMap::new());
    server.set(Writes::Nothing);
    process.finds_the_server_again();
    tokio::time::sleep(Duration::from_secs(20)).await;
    server.set(Writes::Fail);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(server.stands(&user(1)), Entry::default());
    server.set(Writes::Work);
    process.has(1, &stands).await;
}

#[tokio::test(start_paused = true)]
async fn an_entry_seen_to_be_older_starts_the_comparison_without_a_reconnect() {
    let server = Arc::new(Fake::new(Writes::Work));
    let process = Process::start(&server);
    process.commit(1, record(1), over(0)).await;
    process.commit(2, record(1), over(0)).await;
    let all = [1, 2].map(|of| server.stands(&user(of)));
    server.go_back_to(HashMap::new());
    process.doubt.went_back();
    process.has(1, &all[0]).await;
    process.has(2, &all[1]).await;
}
