//! How fast renewals may start. Those that a request waits for start at once: what paces them are the
//! calls that may be under way (the token endpoint's) and the disk. The others start evenly,
//! `renewals_per_second` of them in all processes on the store together, and let a crowd of awaited ones go
//! first.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex as Line, Notify};

use crate::clock::{Clock, Moment};
use crate::credentials::settings::Current;

/// This many awaited renewals are a crowd: renewals that no request waits for let it go first, and its
/// members start a little apart, so that many sidecars do not call at the same moment.
const CROWD: usize = 64;
/// A member of a crowd starts at a random time within this much for each other member.
const APART: Duration = Duration::from_micros(250);

/// Gives renewals their turn.
pub(crate) struct Pace {
    current: Current,
    /// How many processes share the pace now, this one included.
    processes: Box<dyn Fn() -> u32 + Send + Sync>,
    /// How many awaited renewals have started and are yet to end.
    awaited: AtomicUsize,
    /// The line of renewals that no request waits for: the holder of the lock is the first, and waits for
    /// its turn. Inside: when the next turn comes.
    line: Line<Moment>,
    clock: Clock,
}

/// Whether a request waits for a renewal; may become true while the renewal is in the line.
#[derive(Debug, Default)]
pub(crate) struct Urgency {
    raised: AtomicBool,
    notify: Notify,
}

impl Urgency {
    /// From now on a request waits.
    pub(crate) fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Whether a request waits.
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    async fn raised(&self) {
        while !self.is_raised() {
            self.notify.notified().await;
        }
    }
}

/// The turn of one renewal. An awaited renewal is counted until this is dropped.
#[derive(Debug)]
#[must_use = "an awaited renewal counts for as long as this lives"]
pub(crate) struct Turn<'a>(Option<&'a AtomicUsize>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(awaited) = self.0 {
            awaited.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Pace {
    /// `processes` says how many processes share the pace.
    pub(crate) fn new(
        current: Current,
        processes: impl Fn() -> u32 + Send + Sync + 'static,
        clock: Clock,
    ) -> Pace {
        Pace {
            current,
            processes: Box::new(processes),
            awaited: AtomicUsize::new(0),
            line: Line::new(clock.now()),
            clock,
        }
    }

    /// Returns when it is this renewal's turn.
    pub(crate) async fn turn(&self, urgency: &Urgency) -> Turn<'_> {
        tokio::select! {
            biased;
            () = urgency.raised() => self.awaited_turn().await,
            () = self.patient_turn() => Turn(None),
        }
    }

    async fn awaited_turn(&self) -> Turn<'_> {
        let others = self.awaited.fetch_add(1, Ordering::AcqRel);
        let turn = Turn(Some(&self.awaited));
        if others >= CROWD {
            let most = APART.saturating_mul(others.try_into().unwrap_or(u32::MAX));
            tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
        }
        turn
    }

    async fn patient_turn(&self) {
        let mut next = self.line.lock().await;
        self.clock.sleep_until(*next).await;
        while self.awaited.load(Ordering::Acquire) >= CROWD {
            self.clock.sleep(self.spacing()).await;
        }
        // Up to a tenth later, so that many sidecars do not call at the same moment.
        let late = 1.0 + fastrand::f64() / 10.0;
        *next = self.clock.now().plus(self.spacing().mul_f64(late));
    }

    /// The time from one renewal that no request waits for to the next one of this process.
    fn spacing(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.per_second())
    }

    /// How many renewals that no request waits for this process starts in a second: its share.
    pub(crate) fn per_second(&self) -> f64 {
        let all = self.current.now().settings.renewals_per_second.max(1);
        f64::from(all) / f64::from((self.processes)().max(1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::credentials::Settings;
    use crate::credentials::fixture::{directory, settings};

    /// This many a second, and what changes that.
    fn pace(per_second: u32) -> (Pace, Current) {
        let current = Current::new(at(per_second), Arc::new(directory()));
        (Pace::new(current.clone(), || 1, Clock::real()), current)
    }

    fn at(renewals_per_second: u32) -> Settings {
        Settings {
            renewals_per_second,
            ..settings()
        }
    }

    /// How long it takes until this many have their turn; none ends before.
    async fn turns(pace: &Pace, urgent: bool, count: usize) -> Duration {
        let before = tokio::time::Instant::now();
        let turns = (0..count).map(|_| async {
            let urgency = Urgency::default();
            if urgent {
                urgency.raise();
            }
            pace.turn(&urgency).await
        });
        let all = futures_util::future::join_all(turns).await;
        assert_eq!(all.len(), count);
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn awaited_renewals_start_at_once_and_a_crowd_of_them_a_little_apart() {
        let pace = Arc::new(pace(1).0);
        assert_eq!(turns(&pace, true, CROWD).await, Duration::ZERO);
        let took = turns(&pace, true, 4_000).await;
        assert!((0.3..1.1).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_that_nobody_awaits_let_a_crowd_go_first() {
        let pace = Arc::new(pace(50).0);
        let urgent = Urgency::default();
        urgent.raise();
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(pace.turn(&urgent).await);
        }
        let patient = turns(&pace, false, 1);
        let patient = tokio::time::timeout(Duration::from_secs(60), patient).await;
        assert!(patient.is_err());
        crowd.pop();
        assert!(turns(&pace, false, 1).await < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_that_nobody_awaits_never_burst() {
        let pace = Arc::new(pace(50).0);
        let took = turns(&pace, false, 100).await;
        assert!((1.9..2.4).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_process_takes_its_share_of_the_pace() {
        let current = Current::new(at(50), Arc::new(directory()));
        let processes = Arc::new(AtomicUsize::new(5));
        let living = processes.clone();
        let shared = move || living.load(Ordering::Relaxed).try_into().unwrap();
        let pace = Pace::new(current, shared, Clock::real());
        let took = turns(&pace, false, 20).await;
        assert!((1.8..2.4).contains(&took.as_secs_f64()), "{took:?}");
        processes.store(1, Ordering::Relaxed);
        let took = turns(&pace, false, 100).await;
        assert!((1.9..2.4).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_that_is_published_holds_from_the_next_renewal_on() {
        let (pace, current) = pace(50);
        assert!(turns(&pace, false, 50).await < Duration::from_secs(2));
        current.publish(at(1), Arc::new(directory()));
        let took = turns(&pace, false, 10).await;
        assert!((8.0..12.0).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_becomes_awaited_leaves_the_patient_line() {
        let pace = Arc::new(pace(1).0);
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let pace = pace.clone();
                tokio::spawn(async move { drop(pace.turn(&Urgency::default()).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        let urgency = Arc::new(Urgency::default());
        let late = tokio::spawn({
            let (pace, urgency) = (pace.clone(), urgency.clone());
            async move { drop(pace.turn(&urgency).await) }
        });
        tokio::task::yield_now().await;
        let before = tokio::time::Instant::now();
        urgency.raise();
        late.await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
