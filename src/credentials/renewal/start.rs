//! Starts a renewal in its own task, or joins the one that runs.

use std::sync::Arc;

use super::renewals::{Ask, Renewal, Running, Waiter};
use crate::clock::Moment;
use crate::credentials::engine::Engine;
use crate::principal::Principal;

impl Engine {
    /// Joins the running renewal of `principal`, or starts one for `ask` in its own task. No caller waits
    /// for it; if `patience` is given, it is patient until then all the same.
    pub(crate) fn join_or_start(
        self: &Arc<Self>,
        principal: &Principal,
        ask: Ask,
        patience: Option<Moment>,
    ) -> Arc<Renewal> {
        self.join_or_start_then(principal, ask, |renewal| {
            if let Some(until) = patience {
                renewal.extend(until);
            }
            renewal.clone()
        })
    }

    /// The same, for a caller that waits until `deadline` unless it hangs up before.
    pub(crate) fn join_or_start_for_caller(
        self: &Arc<Self>,
        principal: &Principal,
        ask: Ask,
        deadline: Moment,
    ) -> Waiter {
        self.join_or_start_then(principal, ask, |renewal| {
            Waiter::of(renewal.clone(), deadline)
        })
    }

    /// `joins` runs before the renewal does, which would give up if no caller waited for it.
    fn join_or_start_then<T>(
        self: &Arc<Self>,
        principal: &Principal,
        ask: Ask,
        joins: impl FnOnce(&Arc<Renewal>) -> T,
    ) -> T {
        let (renewal, completion) = match self.renewals.join_or_start(principal, ask) {
            Running::Joined(renewal) => {
                self.metrics.renewals_joined.inc();
                (renewal, None)
            }
            Running::Started(renewal, completion) => (renewal, Some(completion)),
        };
        let joined = joins(&renewal);
        if let Some(completion) = completion {
            let engine = self.clone();
            self.runtime.spawn(async move {
                let outcome = engine.run(&renewal).await;
                // A failure from before any caller waited is not given to a caller that joins at the very
                // end: it starts another renewal.
                completion.with(match outcome {
                    Err(_) if !renewal.needed.is_raised() => Ok(None),
                    outcome => outcome,
                });
            });
        }
        joined
    }
}
