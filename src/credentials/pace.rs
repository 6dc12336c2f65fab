//! How fast renewals may start that a mass expiry or a mass rejection causes: a bucket that
//! `renewals_per_second` fills. Renewals that a request waits on go first and may use the burst.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex as Line, Notify};

use crate::clock::{Clock, Moment};

/// Renewals that requests wait on may start at once, up to so many.
const BURST: f64 = 1000.0;

/// Gives renewals their turn.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    bucket: Mutex<Bucket>,
    /// Those that a request waits on, first come first served.
    urgent: Line<()>,
    /// How many stand in the urgent line.
    urgent_waiting: AtomicUsize,
    /// The others; the lock is held while its holder waits for the urgent line to empty.
    patient: Line<()>,
    clock: Clock,
}

#[derive(Debug)]
struct Bucket {
    turns: f64,
    filled: Moment,
    /// Patient turns come evenly; they do not use the burst.
    next_patient: Moment,
}

/// Whether somebody waits on a renewal; may become true while it stands in line.
#[derive(Debug, Default)]
pub(super) struct Urgency {
    raised: AtomicBool,
    notify: Notify,
}

impl Urgency {
    /// From now on somebody waits.
    pub(super) fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }

    /// Whether somebody waits.
    pub(super) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    async fn raised(&self) {
        while !self.is_raised() {
            self.notify.notified().await;
        }
    }
}

impl Pace {
    /// `per_second`: at least 1.
    pub(super) fn new(per_second: u32, clock: Clock) -> Pace {
        let now = clock.now();
        Pace {
            per_second: f64::from(per_second.max(1)),
            bucket: Mutex::new(Bucket {
                turns: BURST,
                filled: now,
                next_patient: now,
            }),
            urgent: Line::new(()),
            urgent_waiting: AtomicUsize::new(0),
            patient: Line::new(()),
            clock,
        }
    }

    /// Returns when it is this renewal's turn.
    pub(super) async fn turn(&self, urgency: &Urgency) {
        tokio::select! {
            biased;
            () = urgency.raised() => self.urgent_turn().await,
            () = self.patient_turn() => {}
        }
    }

    async fn urgent_turn(&self) {
        let _counted = Counted::new(&self.urgent_waiting);
        let _front = self.urgent.lock().await;
        while let Some(wait) = self.take() {
            self.clock.sleep(wait).await;
        }
    }

    async fn patient_turn(&self) {
        let _front = self.patient.lock().await;
        while let Some(wait) = self.take_patiently() {
            self.clock.sleep(wait).await;
        }
    }

    /// Takes a turn, or says how long to wait for one.
    fn take(&self) -> Option<Duration> {
        self.bucket
            .lock()
            .expect("no code panics under this lock")
            .take(self.per_second, self.clock.now())
    }

    fn take_patiently(&self) -> Option<Duration> {
        let spacing = Duration::from_secs_f64(1.0 / self.per_second);
        if self.urgent_waiting.load(Ordering::Acquire) > 0 {
            return Some(spacing);
        }
        let now = self.clock.now();
        let mut bucket = self.bucket.lock().expect("no code panics under this lock");
        if now < bucket.next_patient {
            return Some(bucket.next_patient.since(now));
        }
        let wait = bucket.take(self.per_second, now);
        if wait.is_none() {
            // Up to a tenth later than even, so that many sidecars do not march in step.
            bucket.next_patient = now.plus(spacing.mul_f64(1.0 + fastrand::f64() / 10.0));
        }
        wait
    }
}

impl Bucket {
    fn take(&mut self, per_second: f64, now: Moment) -> Option<Duration> {
        self.turns = (self.turns + now.since(self.filled).as_secs_f64() * per_second).min(BURST);
        self.filled = now;
        if self.turns >= 1.0 {
            self.turns -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64((1.0 - self.turns) / per_second))
    }
}

/// Counts one for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn new(count: &AtomicUsize) -> Counted<'_> {
        count.fetch_add(1, Ordering::AcqRel);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn turns(pace: &Arc<Pace>, urgent: bool, count: usize) -> Duration {
        let before = tokio::time::Instant::now();
        let tasks: Vec<_> = (0..count)
            .map(|_| {
                let pace = pace.clone();
                tokio::spawn(async move {
                    let urgency = Urgency::default();
                    if urgent {
                        urgency.raise();
                    }
                    pace.turn(&urgency).await;
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn awaited_renewals_start_at_once_up_to_the_burst_and_then_at_the_rate() {
        let pace = Arc::new(Pace::new(50, Clock::real()));
        assert_eq!(turns(&pace, true, 1000).await, Duration::ZERO);
        let took = turns(&pace, true, 100).await;
        assert!((1.9..2.2).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_that_nobody_awaits_never_burst() {
        let pace = Arc::new(Pace::new(50, Clock::real()));
        let took = turns(&pace, false, 100).await;
        assert!((1.9..2.4).contains(&took.as_secs_f64()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_becomes_awaited_leaves_the_patient_line() {
        let pace = Arc::new(Pace::new(1, Clock::real()));
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let pace = pace.clone();
                tokio::spawn(async move { pace.turn(&Urgency::default()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let urgency = Arc::new(Urgency::default());
        let late = tokio::spawn({
            let (pace, urgency) = (pace.clone(), urgency.clone());
            async move { pace.turn(&urgency).await }
        });
        tokio::task::yield_now().await;
        let before = tokio::time::Instant::now();
        urgency.raise();
        late.await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
