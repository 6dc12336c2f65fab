//! The engine's face to the path: get credentials, renew rejected ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::closing::Closing;
use super::engine::{Engine, Parts};
use super::following;
use super::renewal::renewals::{Ask, Probing, Reserve};
use super::renewal::{burial, keeper, probes, unused};
use super::settings::Settings;
use super::vault::cache::Lookup;
use super::vault::credentials::Credentials;
use super::{Error, Need};
use crate::caller::Authorized;
use crate::clock::Timestamp;
use crate::directory::Directory;
use crate::metrics::{Freshness, LookupLabels, Metrics, Trigger};
use crate::principal::Principal;
use crate::store::{self, Generation, LoginBudget};
use crate::telemetry::LogName;
use crate::upstream::{self, Hosts};

/// Gives out credentials and renews them: one renewal per principal at a time, in a task that no
/// caller's hang-up cancels. Cheap to clone.
#[derive(Clone)]
pub struct Provider {
    pub(super) engine: Arc<Engine>,
    /// Looked up once: this is how nearly every request finds its credentials.
    fresh_lookups: Counter,
}

/// What [`Provider::get`] gives out.
#[derive(Debug)]
pub struct Obtained {
    /// To be attached.
    pub credentials: Arc<Credentials>,
    /// Whether the request waited for a renewal; false if it only waited for the store, or not at all.
    pub renewed: bool,
}

/// A probe is answered although the store does not tell the state of the budget within this time.
const STATE_WITHIN: Duration = Duration::from_millis(500);

/// What stands in the way of logins.
#[derive(Clone, Debug, Default)]
pub struct Obstacles {
    /// The state of the budget, in real time; `None` if the store does not tell it now.
    pub budget: Option<LoginBudget>,
    /// Users never seen are refused for want of a slot.
    pub new_are_refused: bool,
    /// A mass rejection suspends logins of users that hold tokens.
    pub suspended: bool,
    /// Users that another program logs in as well.
    pub contested: u64,
}

impl Obtained {
    fn at_once(credentials: Arc<Credentials>) -> Obtained {
        Obtained {
            credentials,
            renewed: false,
        }
    }
}

/// The tasks that a provider runs besides renewals; ended by [`Background::finish`].
pub struct Background {
    engine: Arc<Engine>,
    tasks: [JoinHandle<()>; 6],
}

impl Background {
    /// Ends the background work: renewals that wait for something give up; those whose call is under
    /// way run to their end and are committed. A pair that the store does not take is tried again for
    /// `patience`, and one last time at its end. Returns how many pairs were lost.
    pub async fn finish(self, patience: Duration) -> u64 {
        let engine = &self.engine;
        engine.closer.advance(Closing::Begun);
        engine.endpoint.close();
        self.tasks.iter().for_each(JoinHandle::abort);
        if timeout(patience, engine.renewals.all_ended())
            .await
            .is_err()
        {
            engine.closer.advance(Closing::LastAttempt);
            engine.renewals.all_ended().await;
        }
        if let Err(error) = engine.guards.budget.write_once().await {
            tracing::warn!(%error, "what is known of the login budget could not be stored before the end");
        }
        unused::write_at_the_end(engine).await;
        engine.vault.pairs_lost.load(Ordering::Relaxed)
    }
}

impl Provider {
    /// Starts the engine.
    pub fn start(parts: Parts<'_>) -> (Provider, Background) {
        let engine = Engine::new(parts);
        let spawn = &engine.runtime;
        let tasks = [
            spawn.spawn(keeper::keep(engine.clone())),
            spawn.spawn(following::follow(engine.clone())),
            spawn.spawn(probes::try_the_api(engine.clone())),
            spawn.spawn({
                let engine = engine.clone();
                async move { engine.guards.budget.write_what_is_left().await }
            }),
            spawn.spawn(unused::look_after(engine.clone())),
            spawn.spawn(burial::bury_the_named(engine.clone())),
        ];
        (
            Provider {
                fresh_lookups: lookups(&engine.metrics, Freshness::Fresh),
                engine: engine.clone(),
            },
            Background { engine, tasks },
        )
    }

    /// Puts new numbers and a new directory in force, both at once: whatever is looked at from now on
    /// follows them. The budget's group and `max_cached` stay what they were at the start. Calls to the
    /// Auth endpoints that begin from now on are made as `upstream` and `hosts` say.
    pub fn publish(
        &self,
        settings: Settings,
        directory: Arc<Directory>,
        upstream: &upstream::Settings,
        hosts: &Hosts,
    ) {
        self.engine.endpoint.follow(upstream, hosts);
        self.engine.current.publish(settings, directory);
    }

    /// Credentials from memory or the store, or from a renewal, waiting at most `wait`.
    pub async fn get(&self, authorized: &Authorized, need: Need) -> Result<Obtained, Error> {
        let engine = &self.engine;
        let found = engine.vault.cache.look_up(authorized.principal());
        match freshness(&found) {
            Freshness::Fresh => self.fresh_lookups.inc(),
            other => lookups(&engine.metrics, other).inc(),
        };
        match found {
            Lookup::Fresh(found) => engine
                .found_for(authorized.instance(), found)
                .map(Obtained::at_once),
            Lookup::Stale(found) if need == Need::Usable => {
                if found.claim_ahead(engine.clock.now()) {
                    let ask = ask(authorized, Some(found.generation), Trigger::Ahead);
                    engine.join_or_start(authorized.principal(), ask, None);
                }
                engine
                    .found_for(authorized.instance(), found)
                    .map(Obtained::at_once)
            }
            Lookup::Stale(found) => Box::pin(self.newer(authorized, found)).await,
            Lookup::Unusable | Lookup::Absent => {
                let missing = ask(authorized, None, Trigger::Missing);
                Box::pin(self.wait_from_now(authorized, missing)).await
            }
        }
    }

    /// Newer credentials than `than`, or `than` if there are none within `wait`.
    ///
    /// # Errors
    ///
    /// [`Error::InstanceMismatch`].
    pub async fn newer(
        &self,
        authorized: &Authorized,
        than: Arc<Credentials>,
    ) -> Result<Obtained, Error> {
        let ask = ask(authorized, Some(than.generation), Trigger::Ahead);
        match self.wait_from_now(authorized, ask).await {
            Ok(newer) => Ok(newer),
            Err(_) => self
                .engine
                .found_for(authorized.instance(), than)
                .map(Obtained::at_once),
        }
    }

    /// A keyed hash of the principal, for logs.
    pub fn log_name(&self, principal: &Principal) -> LogName {
        self.engine.vault.log_name(principal)
    }

    /// Whether the store can make renewals durable: [`writable`](crate::store::Store::writable).
    pub fn writable(&self) -> Result<(), store::Error> {
        self.engine.vault.store.writable()
    }

    /// How the store is.
    pub fn condition(&self) -> store::Condition {
        self.engine.vault.store.condition()
    }

    /// Now by the store's clock, which all processes on it share: for the times of what is handed out.
    pub fn now(&self) -> Timestamp {
        self.engine.vault.wall()
    }

    /// What stands in the way of logins now.
    pub async fn obstacles(&self) -> Obstacles {
        let engine = &self.engine;
        let suspended = engine.metrics.logins_suspended.get() > 0;
        // A probe does not wait for a store that is away.
        let state = async {
            match engine.vault.store.condition().away {
                None => engine.guards.budget.real_state().await.ok(),
                Some(_) => None,
            }
        };
        Obstacles {
            // If it is `None`, the store's own condition says why.
            budget: timeout(STATE_WITHIN, state).await.ok().flatten(),
            new_are_refused: engine.guards.budget.is_exhausted(),
            suspended,
            contested: engine.guards.contested.count().try_into().unwrap_or(0),
        }
    }

    /// The host of the Auth endpoints and since when, if no connection to it comes about.
    pub fn unreachable(&self) -> Option<(&'static str, SystemTime)> {
        self.engine.endpoint.unreachable()
    }

    /// Brings the gauges up to date.
    pub async fn report(&self) {
        let engine = &self.engine;
        engine
            .metrics
            .tokens_cached
            .set(engine.vault.cache.count().try_into().unwrap_or(i64::MAX));
        engine
            .metrics
            .principals_contested
            .set(engine.guards.contested.count());
        self.report_store();
        if self.condition().away.is_some() {
            return;
        }
        let vault = &engine.vault;
        vault
            .stored_count
            .report(&vault.store, &engine.metrics)
            .await;
        if let Err(error) = engine.guards.budget.report().await {
            tracing::debug!(%error, "the login budget cannot be read");
        }
    }

    fn report_store(&self) {
        let (metrics, condition) = (&self.engine.metrics, self.condition());
        metrics.store_away.set(condition.away.is_some().into());
        let outbox = i64::try_from(condition.outbox);
        metrics.store_outbox_pairs.set(outbox.unwrap_or(i64::MAX));
        metrics.store_clock_offset.set(condition.clock_offset);
        metrics.store_processes.set(condition.processes.into());
        let restored = condition.reasserted;
        let counted = metrics.store_restored.get();
        metrics
            .store_restored
            .inc_by(restored.saturating_sub(counted));
        metrics
            .store_standby
            .set(condition.standby.map_or(-1, i64::from));
    }

    /// As [`Provider::wait`], and says whether the credentials were renewed meanwhile, or only found in
    /// the store.
    async fn wait_from_now(&self, authorized: &Authorized, ask: Ask) -> Result<Obtained, Error> {
        let asked = self.engine.clock.now();
        let credentials = self.wait(authorized, ask).await?;
        let renewed = credentials.renewed.is_some_and(|at| at >= asked);
        Ok(Obtained {
            credentials,
            renewed,
        })
    }

    /// Waits for a renewal of the principal, at most `wait`.
    pub(super) async fn wait(
        &self,
        authorized: &Authorized,
        ask: Ask,
    ) -> Result<Arc<Credentials>, Error> {
        self.engine.wait_for(authorized.principal(), ask).await
    }
}

pub(super) fn ask(
    authorized: &Authorized,
    newer_than: Option<Generation>,
    trigger: Trigger,
) -> Ask {
    Ask {
        instance: authorized.instance(),
        newer_than,
        trigger,
        probing: Probing::No,
        reserve: Reserve::Open,
    }
}

fn lookups(metrics: &Metrics, freshness: Freshness) -> Counter {
    let labels = LookupLabels { freshness };
    metrics.token_lookups.get_or_create(&labels).clone()
}

fn freshness(found: &Lookup) -> Freshness {
    match found {
        Lookup::Fresh(_) => Freshness::Fresh,
        Lookup::Stale(_) => Freshness::Stale,
        Lookup::Unusable => Freshness::Expired,
        Lookup::Absent => Freshness::Absent,
    }
}
