//! How often passwords are compared. Until there were too many wrong passwords for an instance or an
//! account, a password is compared at once; from then on one a second is compared, right or wrong, so that
//! guessing fast is of no use. Each peer has one place among those that wait. Does not know what is
//! compared.
//!
//! ```text
//!           five wrong ones within a minute
//!   free ─────────────────────────────────────▶ limited: one comparison a second
//!    ▲                                            │
//!    └──── a minute without a wrong one ──────────┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{Clock, Moment};
use crate::peer::Peer;
use crate::principal::InstanceId;
use crate::telemetry::episode::Episode;

/// This many wrong passwords within [`REMEMBERED`] limit an instance or account.
const MOST_WRONG: usize = 5;
/// How long a wrong password counts.
const REMEMBERED: Duration = Duration::from_secs(60);
/// From one comparison to the next while they are limited.
const PACE: Duration = Duration::from_secs(1);
/// How many attempts may wait for one instance or account, each from another peer.
const PLACES: usize = 8;
/// How long an attempt waits at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What a password opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Opened {
    Instance(InstanceId),
    Account(Arc<str>),
}

/// For the log.
impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opened::Instance(id) => write!(f, "instance {id}"),
            Opened::Account(name) => write!(f, "account {name}"),
        }
    }
}

/// The attempt was not compared: its peer waits already, all places are taken, or it waited for
/// [`LONGEST_WAIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Limits how fast passwords are compared. Bounded, because only configured instances and accounts have
/// attempts.
#[derive(Debug)]
pub(crate) struct PasswordLimit {
    /// Changed by every comparison, which runs under the lock: of many at once no more may pass than are
    /// allowed.
    attempts: Mutex<HashMap<Opened, Attempts>>,
    /// Wrong passwords come too often, for the log.
    guessing: Episode,
    clock: Clock,
}

/// The attempts for one instance or account.
#[derive(Debug, Default)]
struct Attempts {
    state: State,
    /// When the last wrong passwords were compared, oldest first; [`MOST_WRONG`] at most.
    wrong: VecDeque<Moment>,
    /// When the next attempt may be compared, if they are limited.
    next: Moment,
    /// The attempts that wait; [`PLACES`] at most.
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Attempts are compared as they come.
    #[default]
    Free,
    /// One a second.
    Limited,
}

/// An attempt that waits. It has gone if its end of the channel is closed.
#[derive(Debug)]
struct Waiting {
    peer: Peer,
    turn: oneshot::Sender<()>,
}

impl Attempts {
    /// Ends the limit if the last wrong one is older than [`REMEMBERED`]; returns the state at this
    /// moment.
    fn state_at(&mut self, now: Moment) -> State {
        let last = self.wrong.back().copied();
        if last.is_none_or(|last| last.plus(REMEMBERED) <= now) {
            self.state = State::Free;
            self.wrong.clear();
        }
        self.state
    }

    /// One was wrong.
    fn count(&mut self, now: Moment) {
        if self.wrong.len() == MOST_WRONG {
            self.wrong.pop_front();
        }
        self.wrong.push_back(now);
        let oldest = self.wrong[0];
        if self.wrong.len() == MOST_WRONG && oldest.plus(REMEMBERED) > now {
            if self.state == State::Free {
                self.next = now.plus(PACE);
            }
            self.state = State::Limited;
        }
    }

    /// Takes a place.
    fn queue(&mut self, peer: Peer) -> Result<oneshot::Receiver<()>, Refused> {
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        let is_here = self.waiting.iter().any(|waiting| waiting.peer == peer);
        if is_here || self.waiting.len() == PLACES {
            return Err(Refused);
        }
        let (turn, its_turn) = oneshot::channel();
        self.waiting.push(Waiting { peer, turn });
        Ok(its_turn)
    }

    /// Gives the turn to one of the attempts that wait, drawn by lot, if it is time. Returns when the next
    /// turn comes.
    fn draw(&mut self, now: Moment) -> Moment {
        if self.state_at(now) == State::Free {
            for waiting in self.waiting.drain(..) {
                // It has gone.
                let _ = waiting.turn.send(());
            }
        }
        while self.next <= now && !self.waiting.is_empty() {
            let chosen = fastrand::usize(..self.waiting.len());
            if self.waiting.swap_remove(chosen).turn.send(()).is_ok() {
                self.next = now.plus(PACE);
            }
        }
        self.next
    }
}

impl PasswordLimit {
    pub(crate) fn new(clock: Clock) -> PasswordLimit {
        PasswordLimit {
            attempts: Mutex::default(),
            guessing: Episode::ending_after(REMEMBERED),
            clock,
        }
    }

    /// Compares once all of `opened` allow it; a wrong password counts for each of them. Returns what
    /// `compare` returns: `None` for a wrong password.
    pub(crate) async fn compare<T>(
        &self,
        peer: Peer,
        opened: &[Opened],
        compare: impl Fn() -> Option<T>,
    ) -> Result<Option<T>, Refused> {
        let until = self.clock.now().plus(LONGEST_WAIT);
        // The ones of `opened` whose turn has come.
        let mut allowed = Vec::new();
        loop {
            let (limited, its_turn) = {
                let now = self.clock.now();
                let mut attempts = self.lock();
                let limited = opened.iter().find(|one| {
                    let of_one = attempts.get_mut(*one);
                    of_one.is_some_and(|of_one| of_one.state_at(now) == State::Limited)
                        && !allowed.contains(one)
                });
                // Under the lock: of many attempts at once, no more are compared than are allowed.
                let Some(limited) = limited else {
                    let right = compare();
                    if right.is_none() {
                        for one in opened {
                            attempts.entry(one.clone()).or_default().count(now);
                        }
                    }
                    drop(attempts);
                    self.log_limit(peer, opened, right.is_some());
                    return Ok(right);
                };
                let of_one = attempts.entry(limited.clone()).or_default();
                (limited, of_one.queue(peer))
            };
            let waited = match its_turn {
                Ok(its_turn) => self.wait(limited, its_turn, until).await,
                Err(refused) => Err(refused),
            };
            if let Err(refused) = waited {
                self.too_many(peer, limited);
                return Err(refused);
            }
            allowed.push(limited);
        }
    }

    /// Returns when it is this attempt's turn. Each attempt that waits looks whether it is time, since the
    /// others may have gone.
    async fn wait(
        &self,
        opened: &Opened,
        mut its_turn: oneshot::Receiver<()>,
        until: Moment,
    ) -> Result<(), Refused> {
        loop {
            let next = {
                let mut attempts = self.lock();
                let of_one = attempts.entry(opened.clone()).or_default();
                of_one.draw(self.clock.now())
            };
            tokio::select! {
                biased;
                // The sender lives in the list, and leaves it by sending.
                _ = &mut its_turn => return Ok(()),
                () = self.clock.sleep_until(until) => return Err(Refused),
                () = self.clock.sleep_until(next) => {}
            }
        }
    }

    /// Logs when wrong passwords begin to come too often, and when that is over.
    fn log_limit(&self, peer: Peer, opened: &[Opened], was_right: bool) {
        if was_right {
            if let Some(over) = self.guessing.worked() {
                let (seconds, hurt) = (over.seconds(), over.hurt);
                tracing::warn!(seconds, hurt, "wrong passwords no longer come too often");
            }
            return;
        }
        let now = self.clock.now();
        let limited = {
            let mut attempts = self.lock();
            opened.iter().find(|one| {
                let of_one = attempts.get_mut(*one);
                of_one.is_some_and(|of_one| of_one.state_at(now) == State::Limited)
            })
        };
        if let Some(limited) = limited {
            self.too_many(peer, limited);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Opened, Attempts>> {
        self.attempts
            .lock()
            .expect("no code panics under this lock")
    }

    fn too_many(&self, peer: Peer, opened: &Opened) {
        if self.guessing.failed() {
            tracing::warn!(
                %peer,
                login = %opened,
                "wrong passwords come too often: logins of this instance or account are compared \
                 one a second until a minute passes without a wrong one"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(number: u8) -> Peer {
        Peer::at(Ipv4Addr::new(192, 0, 2, number).into())
    }

    fn account(name: &str) -> Opened {
        Opened::Account(name.into())
    }

    /// One attempt at account `a`.
    async fn tried(limit: &PasswordLimit, peer: Peer, right: bool) -> Result<bool, Refused> {
        let opened = [account("a")];
        let compared = limit.compare(peer, &opened, || right.then_some(()));
        Ok(compared.await?.is_some())
    }

    /// A limit that five wrong passwords have just made.
    async fn limited() -> PasswordLimit {
        let limit = PasswordLimit::new(Clock::real());
        for _ in 0..MOST_WRONG {
            assert_eq!(tried(&limit, peer(0), false).await, Ok(false));
        }
        limit
    }

    #[tokio::test(start_paused = true)]
    async fn five_wrong_ones_within_a_minute_limit_and_others_are_not_concerned() {
        let limit = PasswordLimit::new(Clock::real());
        let began = tokio::time::Instant::now();
        for number in 0..3 * MOST_WRONG {
            assert_eq!(tried(&limit, peer(0), false).await, Ok(false));
            // Each minute sees four of them.
            tokio::time::advance(15 * SECOND).await;
            assert_eq!(began.elapsed(), 15 * SECOND * (number as u32 + 1));
        }
        let limit = limited().await;
        let began = tokio::time::Instant::now();
        let other = [account("b")];
        let other = limit.compare(peer(0), &other, || Some(()));
        assert_eq!(other.await, Ok(Some(())));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(tried(&limit, peer(0), true).await, Ok(true));
        assert_eq!(began.elapsed(), SECOND, "a right one waits as well");
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_without_a_wrong_one_ends_the_limit_and_a_right_one_does_not() {
        let limit = limited().await;
        let took = async |right| {
            let began = tokio::time::Instant::now();
            assert_eq!(tried(&limit, peer(0), right).await, Ok(right));
            began.elapsed().as_secs()
        };
        tokio::time::advance(58 * SECOND).await;
        assert_eq!(took(false).await, 0);
        for _ in 0..59 {
            assert_eq!(took(true).await, 1);
        }
        assert_eq!(took(true).await, 1);
        for right in [true, false, false, false, false] {
            assert_eq!(took(right).await, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_at_once_one_a_peer_and_eight_in_all_wait() {
        for (peers, expected) in [(3, 3), (20, PLACES)] {
            let limit = limited().await;
            let attempts = (0..200u8).map(|number| tried(&limit, peer(number % peers), false));
            let all = futures_util::future::join_all(attempts).await;
            let compared = all.iter().filter(|one| one.is_ok()).count();
            assert_eq!(compared, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beside_a_guesser_who_is_always_there_an_honest_one_gets_its_turn() {
        let limit = limited().await;
        let guessing = async {
            loop {
                let _ = tried(&limit, peer(0), false).await;
                tokio::task::yield_now().await;
            }
        };
        let honest = async {
            let mut passed = 0;
            for _ in 0..100 {
                passed += usize::from(tried(&limit, peer(1), true).await == Ok(true));
            }
            passed
        };
        let passed = tokio::select! {
            () = guessing => unreachable!("it goes on for ever"),
            passed = honest => passed,
        };
        // Of ten draws it wins none once in a thousand times.
        assert!(passed > 95, "{passed} of 100");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_waited_ten_seconds_or_hung_up_leaves_its_place() {
        let limit = limited().await;
        let hung_up = tried(&limit, peer(1), true);
        assert!(tokio::time::timeout(SECOND / 2, hung_up).await.is_err());
        let again = tried(&limit, peer(1), true);
        assert_eq!(again.await, Ok(true));

        let one = account("a");
        let its_turn = limit
            .attempts
            .lock()
            .unwrap()
            .get_mut(&one)
            .unwrap()
            .queue(peer(2));
        let until = limit.clock.now().plus(LONGEST_WAIT);
        let began = tokio::time::Instant::now();
        // Others win each time.
        let losing = async {
            loop {
                limit.attempts.lock().unwrap().get_mut(&one).unwrap().next = until.plus(PACE);
                tokio::time::sleep(SECOND / 10).await;
            }
        };
        let refused = tokio::select! {
            waited = limit.wait(&one, its_turn.unwrap(), until) => waited,
            () = losing => unreachable!("it goes on for ever"),
        };
        assert_eq!((refused, began.elapsed()), (Err(Refused), LONGEST_WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_open_two_waits_for_both_and_counts_for_both() {
        let limit = limited().await;
        let both = [account("b"), account("a")];
        let began = tokio::time::Instant::now();
        for number in 1..=MOST_WRONG as u32 {
            let wrong = limit.compare(peer(0), &both, || None::<()>).await;
            assert_eq!((wrong, began.elapsed()), (Ok(None), number * SECOND));
        }
        let alone = limit.compare(peer(0), &both[..1], || Some(()));
        assert_eq!(alone.await, Ok(Some(())));
        assert_eq!(began.elapsed(), (MOST_WRONG as u32 + 1) * SECOND);
    }
}
