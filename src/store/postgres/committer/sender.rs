//! The task that sends what is in the outbox until nothing is: with back-off while the server does not
//! answer, at once after it was found again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::settler::{Sent, Settler};
use crate::principal::Principal;
use crate::store::postgres::database::Database;
use crate::store::postgres::pending::Pending;
use crate::store::postgres::presence::Arrival;
use crate::store::{Commit, Error};
use crate::telemetry::episode::Episode;

/// How many pairs are sent at a time.
const AT_ONCE: usize = 64;
/// The first pause after an attempt that failed; doubled with each, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// A pair that the server refuses is offered again this often: somebody may have changed its rules.
const OFFER_EVERY: Duration = Duration::from_secs(60);

/// A commit that is under way, of a pair that is in the outbox.
pub(super) struct Attempt {
    pub(super) pending: Pending,
    pub(super) direct: BoxFuture<'static, Result<Commit, Error>>,
}

/// What the task owns.
pub(super) struct Sender<D> {
    settler: Arc<Settler<D>>,
    /// Commits that were begun before their pairs were put into the outbox.
    handed_over: mpsc::UnboundedReceiver<Attempt>,
    connected: Arrival,
    /// How many pairs wait.
    waiting: watch::Receiver<u64>,
    /// Attempts under way. Each says whose pair it was, and what came of it.
    attempts: FuturesUnordered<BoxFuture<'static, (Principal, Sent)>>,
    /// Whose they are, so that no pair is sent twice at a time.
    under_way: HashSet<Principal>,
    /// Whose pairs the server refuses, and when they are offered again.
    refused: HashMap<Principal, Instant>,
    /// The place in the outbox up to which pairs were sent; 0 to begin anew.
    sent_up_to: i64,
    /// When the next pairs are sent.
    next: Instant,
    /// The pause after an attempt that fails.
    pause: Duration,
    /// How the attempts go that were begun since the last pause.
    round: Round,
    /// Lasts while pairs wait that the server does not answer.
    filled: Episode,
}

/// Attempts that are begun together. Those that fail together lengthen the pause once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// None has failed.
    Going,
    /// One has failed.
    Failed,
}

impl<D: Database> Sender<D> {
    pub(super) fn new(
        settler: Arc<Settler<D>>,
        handed_over: mpsc::UnboundedReceiver<Attempt>,
        connected: Arrival,
    ) -> Sender<D> {
        Sender {
            waiting: settler.outbox.waiting(),
            settler,
            handed_over,
            connected,
            attempts: FuturesUnordered::new(),
            under_way: HashSet::new(),
            refused: HashMap::new(),
            sent_up_to: 0,
            next: Instant::now(),
            pause: FIRST_PAUSE,
            round: Round::Going,
            filled: Episode::new(),
        }
    }

    /// Sends until the outbox, or what hands over attempts, is closed.
    pub(super) async fn run(mut self) {
        loop {
            let waiting = *self.waiting.borrow_and_update();
            self.tell_answered(waiting);
            let may_send = waiting > 0 && self.attempts.len() < AT_ONCE;
            tokio::select! {
                handed_over = self.handed_over.recv() => match handed_over {
                    Some(attempt) => self.continue_with(attempt),
                    None => return,
                },
                Some((principal, sent)) = self.attempts.next() => self.ended(principal, sent),
                found = self.connected.changed() => match found {
                    Ok(()) => self.send_at_once(),
                    Err(_) => return,
                },
                changed = self.waiting.changed() => if changed.is_err() { return },
                () = sleep_until(self.next), if may_send => self.send_more().await,
            }
        }
    }

    fn continue_with(&mut self, Attempt { pending, direct }: Attempt) {
        let settler = Arc::clone(&self.settler);
        let principal = pending.principal.clone();
        self.tell_unanswered();
        self.under_way.insert(principal.clone());
        self.attempts.push(Box::pin(async move {
            let answer = direct.await;
            (principal, settler.settle(pending, answer).await)
        }));
    }

    fn ended(&mut self, principal: Principal, sent: Sent) {
        self.under_way.remove(&principal);
        match sent {
            Sent::Settled => self.pause = FIRST_PAUSE,
            Sent::Refused => {
                self.refused.insert(principal, Instant::now() + OFFER_EVERY);
            }
            Sent::Unanswered => {
                self.tell_unanswered();
                if self.round == Round::Going {
                    self.round = Round::Failed;
                    // A fifth less or more, so that sidecars spread.
                    self.next = Instant::now() + self.pause.mul_f64(0.8 + fastrand::f64() * 0.4);
                    self.pause = (self.pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    fn send_at_once(&mut self) {
        self.next = Instant::now();
        self.pause = FIRST_PAUSE;
        self.sent_up_to = 0;
        self.refused.clear();
    }

    /// Sends the next pairs that wait, are not under way, and may be taken.
    async fn send_more(&mut self) {
        let limit = AT_ONCE - self.attempts.len();
        let page = self.settler.outbox.page(self.sent_up_to, limit).await;
        let now = Instant::now();
        let Ok(page) = page else {
            self.next = now + LAST_PAUSE;
            return;
        };
        self.refused.retain(|_, again| *again > now);
        let was_last = page.len() < limit;
        for (place, pending) in page {
            self.sent_up_to = place;
            let principal = pending.principal.clone();
            if self.refused.contains_key(&principal) || !self.under_way.insert(principal.clone()) {
                continue;
            }
            self.round = Round::Going;
            let settler = Arc::clone(&self.settler);
            self.attempts.push(Box::pin(
                async move { (principal, settler.send(pending).await) },
            ));
        }
        if was_last {
            // Those that stay are sent again, and those that are put meanwhile.
            self.sent_up_to = 0;
            self.next = match self.attempts.is_empty() {
                true => now + LAST_PAUSE,
                false => now + self.pause,
            };
        }
    }

    fn tell_unanswered(&self) {
        if self.filled.found_failing() {
            tracing::warn!(
                waiting = *self.waiting.borrow(),
                "the store does not acknowledge new pairs in time: they are kept in the outbox, and sent \
                 until it has them"
            );
        }
    }

    /// Those that are refused wait for no answer.
    fn tell_answered(&self, waiting: u64) {
        let refused = u64::try_from(self.refused.len()).unwrap_or(u64::MAX);
        if waiting <= refused
            && let Some(over) = self.filled.worked()
        {
            let seconds = over.seconds();
            tracing::warn!(seconds, refused, "the store acknowledges new pairs again");
        }
    }
}
