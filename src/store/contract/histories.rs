//! Random concurrent histories: several processes do what they like with a few users, and [`checker`] looks
//! whether one store could have answered like that.

mod checker;

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use self::checker::{Call, Event, findings};
use super::{LONG, Medium, at, record, rounds, run, user};
use crate::store::{
    Commit, Entry, Generation, Lease, LeaseId, Note, Notes, Record, Restored, Store, Version,
};

/// Few users, so that the processes meet.
const USERS: u64 = 3;
const PROCESSES: usize = 4;
/// Tasks of one process, which share its handle.
const TASKS: usize = 2;
/// What each task does.
const STEPS: usize = 50;

/// `SEED=…` repeats the choices of one history; what the processes' calls meet is up to the machine.
pub(crate) async fn random_histories_are_those_of_one_store<M: Medium>(medium: &M) {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let histories = seed.map_or(rounds(3, 50), |_| 1);
    for number in 0..histories {
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        // Users of its own: a lease that one history leaves behind holds nobody up in the next.
        let users: Vec<u64> = (0..USERS).map(|n| number * 100 + n + 1).collect();
        let events = history(medium, seed, &users).await;
        let findings = findings(&events);
        assert!(
            findings.is_empty(),
            "SEED={seed} (history {number}):\n{}",
            findings[..findings.len().min(5)].join("\n")
        );
    }
}

/// What happened while all processes were busy, and what stood at the end.
async fn history<M: Medium>(medium: &M, seed: u64, users: &[u64]) -> Vec<Event> {
    let mut stores = Vec::new();
    for _process in 0..PROCESSES {
        stores.push(medium.open(run()).await);
    }
    let began = Instant::now();
    let tasks = stores.iter().enumerate().flat_map(|(process, store)| {
        (0..TASKS).map(move |task| {
            let number = u64::try_from(process * TASKS + task).unwrap();
            Task::new(store, users, began, number, seed)
        })
    });
    let done = tasks.map(|task| task.work(M::TTL));
    let mut events = futures_util::future::join_all(done).await.concat();
    let last = medium.open(run()).await;
    let mut last = Task::new(&last, users, began, 99, seed);
    for of in users {
        last.load(*of).await;
    }
    events.append(&mut last.events);
    events
}

/// One that calls a store, one call after the other.
struct Task<'a, S> {
    store: &'a S,
    users: &'a [u64],
    /// When the history began.
    began: Instant,
    /// Makes what it writes differ from what others write.
    number: u64,
    rng: Rng,
    events: Vec<Event>,
    /// What it read last of each user.
    known: Vec<Entry>,
    /// Every lease that it ever took.
    leases: Vec<(u64, LeaseId)>,
    /// How many values it has made up.
    made_up: u64,
}

impl<'a, S: Store> Task<'a, S> {
    fn new(store: &'a S, users: &'a [u64], began: Instant, number: u64, seed: u64) -> Task<'a, S> {
        Task {
            store,
            users,
            began,
            number,
            rng: Rng::with_seed(seed.wrapping_add(number)),
            events: Vec::new(),
            known: vec![Entry::default(); users.len()],
            leases: Vec::new(),
            made_up: 0,
        }
    }

    async fn work(mut self, ttl: Duration) -> Vec<Event> {
        for _step in 0..STEPS {
            let of = self.users[self.rng.usize(..self.users.len())];
            let earlier = self.rng.choice(self.leases.clone());
            match (self.rng.u8(..100), earlier) {
                (..40, _) => self.renew(of, ttl).await,
                (..50, _) => self.commit(of, self.known(of).version(), None).await,
                (..60, _) => self.note(of).await,
                (..65, _) => self.forget(of).await,
                (..72, _) => self.restore(of).await,
                (..80, _) => self.claim(ttl).await,
                (..84, Some((of, id))) => self.release(of, id),
                (..88, Some((of, id))) => drop(self.extend(of, id, LONG).await),
                _ => self.load(of).await,
            }
        }
        self.events
    }

    /// As a renewal goes, or as one that is killed.
    async fn renew(&mut self, of: u64, ttl: Duration) {
        let ends_well = self.rng.u8(..10) < 9;
        let ttl = if ends_well { LONG } else { ttl };
        let id = LeaseId::fresh();
        let Some(read) = self.lease(of, id, ttl).await else {
            return;
        };
        if !ends_well {
            return;
        }
        if self.rng.bool() && !self.extend(of, id, LONG).await {
            return;
        }
        match self.rng.u8(..10) {
            0 => self.release(of, id),
            _ => {
                self.commit(of, read.version(), Some(id)).await;
                self.release(of, id);
            }
        }
    }

    async fn lease(&mut self, of: u64, id: LeaseId, ttl: Duration) -> Option<Entry> {
        let called = self.now();
        let (lease, read) = self.store.lease(&user(of), id, ttl).await.unwrap();
        let read = read.unwrap();
        self.leases.push((of, id));
        let granted = matches!(lease, Lease::Granted { .. });
        let call = Call::Leased {
            id,
            ttl,
            granted,
            read: read.clone(),
        };
        self.heard(of, called, call);
        self.learn(of, &read);
        granted.then_some(read)
    }

    async fn extend(&mut self, of: u64, id: LeaseId, ttl: Duration) -> bool {
        let called = self.now();
        let held = self.store.extend(&user(of), id, ttl).await.unwrap();
        self.heard(of, called, Call::Extended { id, ttl, held });
        held
    }

    fn release(&mut self, of: u64, id: LeaseId) {
        let called = self.now();
        self.store.release(&user(of), id);
        self.heard(of, called, Call::Released { id });
    }

    async fn commit(&mut self, of: u64, over: Version, lease: Option<LeaseId>) {
        let record = self.pair();
        let called = self.now();
        let commit = self
            .store
            .commit(&user(of), record.clone(), over, lease)
            .await;
        let superseded_by = match commit.unwrap() {
            Commit::Committed(generation) => {
                assert_eq!(generation, over.generation.next());
                None
            }
            Commit::Superseded(stands) => {
                self.learn(of, &stands);
                Some(stands)
            }
        };
        let call = Call::Committed {
            record,
            over,
            lease,
            superseded_by,
        };
        self.heard(of, called, call);
    }

    async fn note(&mut self, of: u64) {
        let displaced = at(self.unique());
        let called = self.now();
        let note = Note::Displaced(displaced);
        self.store.note(&user(of), note).await.unwrap();
        self.heard(of, called, Call::Noted { displaced });
    }

    async fn forget(&mut self, of: u64) {
        let called = self.now();
        let was_there = self.store.forget(&user(of)).await.unwrap();
        self.heard(of, called, Call::Forgotten { was_there });
    }

    async fn restore(&mut self, of: u64) {
        let stands = self.known(of).version();
        // A pair has a generation from 1 on.
        let generation = (stands.generation.0 + self.rng.u64(..3)).max(2) - 1;
        let record = (self.rng.u8(..4) > 0).then(|| self.pair());
        // What has no pair was forgotten once.
        let epoch = (stands.epoch + self.rng.u64(..2)).max(u64::from(record.is_none()));
        let entry = Entry {
            generation: Generation(generation),
            epoch,
            record,
            notes: Notes {
                displaced: self.rng.bool().then(|| at(self.unique())),
                ..Notes::default()
            },
        };
        let called = self.now();
        let restored = self.store.restore(vec![(user(of), entry.clone())]).await;
        let written = restored.unwrap() == [Restored::Written];
        self.heard(of, called, Call::Restored { entry, written });
    }

    async fn load(&mut self, of: u64) {
        let called = self.now();
        let read = self.store.load(&user(of)).await.unwrap();
        self.learn(of, &read);
        self.heard(of, called, Call::Loaded { read });
    }

    async fn claim(&mut self, ttl: Duration) {
        let hold = if self.rng.bool() { ttl } else { LONG };
        let called = self.now();
        let claimed = self.store.claim_due(at(i64::MAX / 1_000), 2, hold).await;
        for principal in claimed.unwrap() {
            let of = self.users.iter().find(|of| user(**of) == principal);
            // A pair of an earlier history is nobody's here.
            if let Some(of) = of {
                self.heard(*of, called, Call::Claimed { hold });
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn heard(&mut self, of: u64, called: Duration, call: Call) {
        self.events.push(Event {
            of,
            called,
            answered: self.now(),
            call,
        });
    }

    fn place(&self, of: u64) -> usize {
        self.users.iter().position(|user| *user == of).unwrap()
    }

    fn known(&self, of: u64) -> &Entry {
        &self.known[self.place(of)]
    }

    fn learn(&mut self, of: u64, entry: &Entry) {
        let place = self.place(of);
        self.known[place] = entry.clone();
    }

    fn unique(&mut self) -> i64 {
        self.made_up += 1;
        i64::try_from(self.number * 1_000_000 + self.made_up).unwrap()
    }

    /// One that nobody else makes up. When it was received is random: later ones outrank it in a restore.
    fn pair(&mut self) -> Record {
        Record {
            sealed: self.unique().to_string().into_bytes(),
            received: at(self.rng.i64(0..1_000)),
            ..record(1)
        }
    }
}
