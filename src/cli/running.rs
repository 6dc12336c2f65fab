//! What `[status]` asks of the components that run: whether tokens can be stored, which hosts cannot
//! be reached, what stands in the way of logins. Only words what they say.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::admin::{Code, Engine, Host, Logins, Room, Tokens, Window};
use crate::credentials::Provider;
use crate::proxy::Proxy;
use crate::store;

/// What serves requests, as far as probes ask.
pub(super) struct Running {
    /// Gives out credentials.
    pub(super) provider: Provider,
    /// Knows the hosts.
    pub(super) proxy: Arc<Proxy>,
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
        let (used, limit) = self.proxy.replay_memory();
        vec![Room {
            what: "memory for replays",
            used,
            limit,
            unit: "bytes",
        }]
    }
}
