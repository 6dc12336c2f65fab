//! The lease of one renewal, and for how long this process may rely on it without asking the store.
//!
//! ```text
//!   the store grants it: asked for at t ──▶ held until t + ttl ──▶ over: a commit ended it
//!                                             │ ▲ │
//!                 extended: asked for at t' ──┼─┘ │ the store does not know it any more
//!                                             ▼   ▼
//!          it is not relied upon until extended   lost: another process may renew
//! ```
//!
//! The ttl counts from *before* the store was asked, on the clock since the machine booted, which runs
//! while the process is stopped and while the machine sleeps. A process that wakes up after that finds that
//! its lease has run out, before it does anything in its name.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use super::Vault;
use super::repeated::repeated;
use crate::clock::since_boot;
use crate::credentials::Error;
use crate::metrics::StoreOperation;
use crate::principal::Principal;
use crate::store::{self, Entry, Lease, LeaseId};

/// A lease that this process was granted.
#[derive(Debug)]
pub(crate) struct Hold {
    id: LeaseId,
    /// Changed by the heartbeat, by the renewal itself, and by the commit that ends it.
    term: Mutex<Term>,
}

/// How far a lease carries, in time since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    /// At least until then.
    Held { until: Duration },
    /// The store does not know it any more.
    Lost,
    /// It was ended by a commit.
    Over,
}

impl Term {
    /// A lease of `ttl` that was asked for at `asked`.
    fn of(asked: Duration, ttl: Duration) -> Term {
        Term::Held {
            until: asked.saturating_add(ttl),
        }
    }

    /// Whether more of it is left at `now` than `span`.
    fn outlasts(self, span: Duration, now: Duration) -> bool {
        match self {
            Term::Held { until } => until > now.saturating_add(span),
            Term::Lost | Term::Over => false,
        }
    }
}

impl Hold {
    fn of(id: LeaseId, term: Term) -> Hold {
        Hold {
            id,
            term: Mutex::new(term),
        }
    }

    /// The lease, as the store knows it.
    pub(crate) fn id(&self) -> LeaseId {
        self.id
    }

    /// Whether it surely lasts for longer than `span` from now on, in real time.
    pub(crate) fn outlasts(&self, span: Duration) -> bool {
        self.lock().outlasts(span, since_boot())
    }

    /// Whether the store has not said that it is gone.
    fn is_held(&self) -> bool {
        matches!(*self.lock(), Term::Held { .. })
    }

    /// A commit ended it.
    pub(crate) fn end(&self) {
        *self.lock() = Term::Over;
    }

    fn note(&self, now: Term) {
        let mut term = self.lock();
        if matches!(*term, Term::Held { .. }) {
            *term = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Term> {
        self.term.lock().expect("no code panics under this lock")
    }
}

/// What came of asking for a lease.
pub(crate) enum Leasing {
    /// This process has it.
    Ours {
        hold: Hold,
        /// A former holder died without releasing it, and a refresh may have been under way.
        orphaned: bool,
        /// The entry, read under the lease.
        entry: Result<Entry, store::Error>,
    },
    /// Another one has it.
    Theirs {
        /// Not free before, in real time.
        left: Duration,
        /// The entry as it stands.
        entry: Entry,
    },
}

impl Vault {
    /// Asks for the lease `id` on `principal`, for `ttl` of real time.
    pub(crate) async fn lease(
        &self,
        principal: &Principal,
        id: LeaseId,
        ttl: Duration,
    ) -> Result<Leasing, Error> {
        let mut asked = since_boot();
        let leased = repeated(|| {
            asked = since_boot();
            self.store.lease(principal, id, ttl)
        });
        let leased = leased.await;
        if let Err(store::Error::Away(_)) = leased {
            // It may have been granted.
            self.store.release(principal, id);
        }
        let (lease, entry) = self.counted(StoreOperation::Lease, leased)?;
        let entry = self.counted(StoreOperation::Load, entry);
        Ok(match lease {
            Lease::Granted { orphaned } => Leasing::Ours {
                hold: Hold::of(id, Term::of(asked, ttl)),
                orphaned,
                entry,
            },
            Lease::Held { left } => Leasing::Theirs {
                left,
                entry: entry?,
            },
        })
    }

    /// Whether anybody holds the lease on `principal`. One that only adopted what it found, or whose
    /// renewal failed, ends its lease without a trace in the entry.
    pub(crate) async fn is_leased(&self, principal: &Principal) -> Result<bool, Error> {
        let holder = repeated(|| self.store.lease_holder(principal)).await?;
        Ok(holder.is_some())
    }

    /// Prolongs the lease: it lasts `ttl` from now. Returns false if it is lost.
    pub(crate) async fn extend(
        &self,
        principal: &Principal,
        hold: &Hold,
        ttl: Duration,
    ) -> Result<bool, Error> {
        if !hold.is_held() {
            return Ok(false);
        }
        let asked = since_boot();
        let extended = self.store.extend(principal, hold.id, ttl).await;
        let extended = self.counted(StoreOperation::Lease, extended)?;
        hold.note(match extended {
            true => Term::of(asked, ttl),
            false => Term::Lost,
        });
        Ok(extended)
    }

    /// Ends the lease, unless it has ended.
    pub(crate) fn release(&self, principal: &Principal, hold: &Hold) {
        if hold.is_held() {
            self.store.release(principal, hold.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_relied_upon_only_while_more_of_it_is_left() {
        let term = Term::of(SECOND * 100, SECOND * 15);
        assert!(term.outlasts(SECOND * 10, SECOND * 104));
        assert!(!term.outlasts(SECOND * 10, SECOND * 105));
        assert!(!term.outlasts(Duration::ZERO, SECOND * 115));
        assert!(!term.outlasts(Duration::ZERO, SECOND * 86_400), "it slept");
        for gone in [Term::Lost, Term::Over] {
            assert!(!gone.outlasts(Duration::ZERO, Duration::ZERO));
        }
    }

    #[test]
    fn a_lease_that_is_gone_does_not_come_back() {
        let held = Term::of(since_boot(), SECOND * 15);
        let lost = Hold::of(LeaseId::fresh(), held);
        lost.note(Term::Lost);
        lost.note(held);
        assert!(!lost.outlasts(Duration::ZERO));
        let over = Hold::of(LeaseId::fresh(), held);
        assert!(over.outlasts(SECOND));
        over.end();
        over.note(held);
        assert!(!over.is_held());
    }
}
