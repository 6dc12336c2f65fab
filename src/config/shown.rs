//! Settings as they are shown to people: by the names of the file, with every default, and `"***"` where a
//! secret stands. What may be changed by hand is shown as the file would say it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Settings, Store, compact};
use crate::damoov::routes::{Replay, Route};
use crate::handed_out::HandOut;
use crate::server::Listener;
use crate::store::postgres::Password;
use crate::telemetry::Format;
use crate::{telemetry, upstream};

/// What stands for a secret.
const MASKED: &str = "***";

impl Settings {
    /// Every key, by its table. Shows no secret.
    pub fn shown(&self) -> Value {
        json!({
            "listen": self.server.listeners.iter().map(listener).collect::<Vec<_>>(),
            "hosts": self.hosts,
            "allowed_origins": self.allowed_origins,
            "max_connections": self.server.max_connections,
            "drain_delay": compact(self.server.times.drain_delay),
            "drain_timeout": compact(self.server.times.drain_timeout),
            "hand_out": match self.auth_endpoints.hand_out {
                HandOut::Own => "own",
                HandOut::Real => "real",
            },
            "forward_unknown_logins": self.auth_endpoints.forward_unknown_logins,
            "workers": { "threads": self.server.threads },
            "instance": self.instances(),
            "account": self.accounts(),
            "store": store(&self.store),
            "login_budget": self.login_budget(),
            "renewal": self.renewal(),
            "upstream": upstream(&self.upstream, self.default_host.as_deref()),
            "route": self.routes.iter().map(route).collect::<Vec<_>>(),
            "admin": self.admin.as_ref().map(|admin| json!({ "listen": listener(admin) })),
            "status": self.status.as_ref().map(|status| json!({ "listen": listener(status) })),
            "log": log(&self.log),
        })
    }

    fn instances(&self) -> Vec<Value> {
        let instances = self.directory.instances().iter();
        let shown = instances.map(|instance| {
            json!({
                "name": &*instance.name,
                "id": instance.id.to_string(),
                "key": MASKED,
                "default": instance.default,
            })
        });
        shown.collect()
    }

    fn accounts(&self) -> Vec<Value> {
        let accounts = self.directory.accounts().iter();
        let shown = accounts.map(|account| {
            json!({
                "name": &*account.name,
                "email": account.email,
                "password": MASKED,
                "default": account.default,
            })
        });
        shown.collect()
    }

    fn login_budget(&self) -> Value {
        let credentials = &self.credentials;
        let mut windows = credentials
            .budget
            .windows
            .iter()
            .map(|window| json!({ "logins": window.logins, "per": compact(window.per) }));
        let mut shown = windows.next().unwrap_or_else(|| json!({}));
        shown["more"] = windows.collect();
        shown["reserve"] = credentials.budget.reserve.into();
        shown["blocked_for"] = compact(credentials.blocked_for).into();
        shown["group"] = credentials.budget.group.as_str().into();
        shown
    }

    fn renewal(&self) -> Value {
        let credentials = &self.credentials;
        json!({
            "ahead": credentials.ahead,
            "wait": compact(credentials.wait),
            "timeout": compact(credentials.timeout),
            "keep_refresh_tokens": or_off(credentials.keep_refresh_tokens),
            "renewals_per_second": credentials.renewals_per_second,
            "remember_rejected": compact(credentials.remember_rejected),
            "contested_backoff": compact(credentials.contested_backoff),
            "forget_unused": or_off(credentials.forget_unused),
            "in_band_401": self.in_band_401,
            "replay_limit": self.replay.limit,
            "replay_memory": self.replay.memory,
            "max_cached": credentials.max_cached,
        })
    }
}

fn or_off(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "off".to_owned(), compact)
}

fn listener(listener: &Listener) -> Value {
    match listener {
        Listener::Tcp(address) => address.to_string().into(),
        Listener::Unix { path, mode, group } => {
            json!({ "unix": path, "mode": format!("{mode:04o}"), "group": group })
        }
    }
}

fn store(store: &Store) -> Value {
    let mut shown = json!({
        "path": store.path,
        "create": store.create,
        "key": store.key.as_ref().map(|_| MASKED),
        "old_keys": store.old_keys.iter().map(|_| MASKED).collect::<Vec<_>>(),
    });
    if let Some(postgres) = &store.postgres {
        shown["url"] = postgres.address.to_string().into();
        shown["password"] = match &postgres.password {
            Password::Absent => Value::Null,
            Password::Given(_) => MASKED.into(),
            Password::In(path) => json!({ "file": path }),
        };
        shown["ca_file"] = json!(postgres.ca_file);
        shown["connections"] = postgres.connections.into();
    }
    shown
}

fn upstream(upstream: &upstream::Settings, default_host: Option<&str>) -> Value {
    let url = |redirect: &upstream::Redirect| -> Value {
        format!("{}://{}", redirect.scheme, redirect.authority).into()
    };
    let redirects = &upstream.redirects;
    let hosts = redirects.hosts.iter();
    let hosts: Map<_, _> = hosts.map(|(host, to)| (host.clone(), url(to))).collect();
    json!({
        "connect_timeout": compact(upstream.connect_timeout),
        "response_timeout": compact(upstream.response_timeout),
        "stall_timeout": compact(upstream.stall_timeout),
        "idle_timeout": compact(upstream.idle_timeout),
        "max_connections": upstream.max_connections,
        "ca_file": upstream.ca_file,
        "default_host": default_host,
        "all_hosts": redirects.all_others.as_ref().map(url),
        "hosts": hosts,
    })
}

fn route(route: &Route) -> Value {
    let methods = route.methods.iter().map(|method| method.as_str());
    json!({
        "path": &*route.path,
        "host": route.host,
        "credential": route.credential.to_string(),
        "methods": methods.collect::<Vec<_>>(),
        "replay": match route.replay {
            Replay::On401 => "on-401",
            Replay::Never => "never",
        },
        "response_timeout": route.response_timeout.map(compact),
    })
}

fn log(log: &telemetry::Settings) -> Value {
    json!({
        "format": match log.format {
            Format::Json => "json",
            Format::Text => "text",
        },
        "level": log.level.map(|level| level.to_string()),
    })
}
