//! What `[status]` asks of the components that run: whether tokens can be stored, which hosts cannot
//! be reached, what stands in the way of logins. Only words what they say.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use crate::admin::{Code, Engine};
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

    async fn conditions(&self) -> Vec<(Code, String)> {
        let obstacles = self.provider.obstacles().await;
        let mut conditions = Vec::new();
        if let Some(left) = obstacles.blocked_for {
            let message = format!(
                "Damoov allows no login for another {} s: it answered one with 429",
                left.as_secs()
            );
            conditions.push((Code::LoginBlocked, message));
        } else if let Some(next) = obstacles.next_login_in {
            let message = format!(
                "every login of the budget is spent; the next one is free in {} s",
                next.as_secs() + 1
            );
            conditions.push((Code::LoginBudgetExhausted, message));
        } else if let Some(next) = obstacles.next_new_login_in {
            let message = format!(
                "every login of the budget but the reserve is spent, and users never seen are \
                 refused; their next one is free in {} s",
                next.as_secs() + 1
            );
            conditions.push((Code::LoginBudgetExhausted, message));
        }
        if obstacles.suspended {
            let message = "Damoov rejects the RefreshTokens of many users: logins of users that \
                           hold tokens are suspended until a refresh succeeds";
            conditions.push((Code::LoginsSuspended, message.to_owned()));
        }
        conditions
    }
}
