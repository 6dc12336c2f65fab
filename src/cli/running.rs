//! What `[status]` and `[admin]` ask of the components that run: whether tokens can be stored, which hosts
//! cannot be reached, what stands in the way of logins, what is known of a principal. Only words what they
//! say.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde_json::Value;

use super::disk::Disk;
use super::{budget, tokens, who};
use crate::admin::{Code, Engine, Host, Listing, Logins, Renewed, Room, Tokens, Window};
use crate::config::Settings;
use crate::credentials::{MayLogIn, OnDemand, Provider};
use crate::error::Error;
use crate::proxy::Proxy;
use crate::server::Places;
use crate::store::{self, Cursor};

/// What serves requests, as far as probes ask.
pub(super) struct Running {
    /// Gives out credentials.
    pub(super) provider: Provider,
    /// Knows the hosts.
    pub(super) proxy: Arc<Proxy>,
    /// Of callers.
    pub(super) connections: Places,
    /// Of the store's folder.
    pub(super) disk: Disk,
    /// What is in force of the configuration.
    pub(super) in_force: Arc<ArcSwap<Settings>>,
}

impl Engine for Running {
    fn writable(&self) -> Result<(), store::Error> {
        self.provider.writable()
    }

    fn away(&self) -> Option<store::Away> {
        self.provider.condition().away
    }

    fn report(&self) -> impl Future<Output = ()> + Send {
        self.provider.report()
    }

    fn unreachable(&self) -> Option<(String, SystemTime)> {
        self.proxy.unreachable().or_else(|| {
            let (host, since) = self.provider.unreachable()?;
            Some((host.to_owned(), since))
        })
    }

    async fn logins(&self) -> Logins {
        let obstacles = self.provider.obstacles().await;
        let window = |state: &store::WindowState| Window {
            logins: state.limit,
            per: state.window.per,
            used: state.used,
        };
        let budget = obstacles.budget.as_ref();
        let windows: Vec<_> = budget.map_or_else(Vec::new, |budget| {
            budget.windows.iter().map(window).collect()
        });
        Logins {
            limit: windows.iter().map(|window| window.logins).min(),
            remaining: budget.map(|budget| budget.remaining),
            next: budget.map_or(Duration::ZERO, |budget| budget.next_known),
            next_new: match obstacles.new_are_refused {
                true => budget.map_or(Duration::ZERO, |budget| budget.next_new),
                false => Duration::ZERO,
            },
            blocked: budget.map_or(Duration::ZERO, |budget| budget.blocked),
            suspended: obstacles.suspended,
            contested: obstacles.contested,
            windows,
        }
    }

    fn conditions(&self, logins: &Logins) -> Vec<(Code, String)> {
        let mut conditions = Vec::new();
        if !logins.blocked.is_zero() {
            let message = format!(
                "Damoov allows no login for another {} s: it answered one with 429",
                logins.blocked.as_secs()
            );
            conditions.push((Code::LoginBlocked, message));
        } else if !logins.next.is_zero() {
            let message = format!(
                "every login of the budget is spent; the next one is free in {} s",
                logins.next.as_secs() + 1
            );
            conditions.push((Code::LoginBudgetExhausted, message));
        } else if !logins.next_new.is_zero() {
            let message = format!(
                "every login of the budget but the reserve is spent, and users never seen are \
                 refused; their next one is free in {} s",
                logins.next_new.as_secs() + 1
            );
            conditions.push((Code::LoginBudgetExhausted, message));
        }
        if logins.suspended {
            let message = "Damoov rejects the RefreshTokens of many users: logins of users that \
                           hold tokens are suspended until a refresh succeeds";
            conditions.push((Code::LoginsSuspended, message.to_owned()));
        }
        conditions
    }

    fn tokens(&self) -> Tokens {
        let census = self.provider.census();
        Tokens {
            fresh: census.fresh,
            stale: census.stale,
            expired: census.expired,
        }
    }

    fn hosts(&self) -> Vec<Host> {
        let host = |(name, connections)| Host { name, connections };
        self.proxy.hosts().into_iter().map(host).collect()
    }

    fn room(&self) -> Vec<Room> {
        let (replays, tokens) = (self.proxy.replay_memory(), self.provider.memory());
        let room = |what, (used, limit), unit| Room {
            what,
            used,
            limit,
            unit,
        };
        let (taken, limit) = (self.connections.taken(), self.connections.limit());
        let mut rooms = vec![
            room("connections of callers", (taken as u64, limit as u64), ""),
            room("memory for replays", replays, "bytes"),
            room("memory for tokens", tokens, "bytes"),
        ];
        if let Some(used) = self.disk.used() {
            rooms.push(room("disk of the store", used, "bytes"));
        }
        rooms
    }

    fn settings(&self) -> Value {
        self.in_force.load().shown()
    }

    async fn budget(&self) -> Result<Value, Error> {
        let state = self.provider.login_budget().await?;
        Ok(read(&budget::as_json(&self.in_force.load(), &state)))
    }

    async fn principals(&self, after: Option<String>, limit: usize) -> Result<Listing, Error> {
        let after = after.map(Cursor::told);
        let (page, now) = self.provider.list(after.as_ref(), limit).await?;
        let principals = page.entries.iter();
        let shown = principals.map(|(who, entry)| read(&tokens::listed(who, entry, now)));
        Ok(Listing {
            principals: shown.collect(),
            next: page.next.map(Cursor::into_text),
        })
    }

    async fn explain(&self, who: &str) -> Result<Option<Value>, Error> {
        let Ok(principal) = who::principal(who) else {
            return Ok(None);
        };
        let explanation = self.provider.explain(&principal).await?;
        let shown = serde_json::to_value(&explanation).expect("an explanation is JSON");
        Ok(explanation.known.then_some(shown))
    }

    async fn renew(&self, who: &str) -> Result<Option<Renewed>, Error> {
        let Ok(principal) = who::principal(who) else {
            return Ok(None);
        };
        if !self.provider.explain(&principal).await?.known {
            return Ok(None);
        }
        let renewing = self.provider.renew_on_demand(&principal, MayLogIn::No);
        let outcome = renewing.await?;
        Ok(Some(Renewed {
            outcome: outcome.as_str(),
            message: match outcome {
                OnDemand::Refreshed => "A refresh brought a new pair.",
                OnDemand::LoggedIn => "A login brought a new pair.",
                OnDemand::NeedsLogin => {
                    "Only a login would bring a new pair. The next request of this user logs in; \
                     `damoov-proxy tokens renew --allow-login` does it now."
                }
                OnDemand::Busy => "Another process renews it now.",
            },
        }))
    }

    async fn forget(&self, who: &str) -> Result<bool, Error> {
        let Ok(principal) = who::principal(who) else {
            return Ok(false);
        };
        let known = self.provider.explain(&principal).await?.known;
        if known {
            self.provider.forget(&principal).await?;
        }
        Ok(known)
    }
}

/// What a command prints, read back.
fn read(json: &str) -> Value {
    serde_json::from_str(json).expect("a command prints JSON")
}
