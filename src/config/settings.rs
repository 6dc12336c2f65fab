//! What each table of the file means: its keys, their defaults and ranges. One function for each
//! table. A new key is a line here, or in one of the files beside this; see README, "Contributing".

mod directory;
mod store;
mod tokens;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::Settings;
use super::quantity::{HOUR, MILLISECOND, MINUTE, SECOND, duration, integer};
use super::secret_source::SecretSources;
use super::section::Section;
use super::shape;
use super::tree::Node;
use crate::damoov::routes::{Credential, Replay, Route};
use crate::directory::Directory;
use crate::handed_out::HandOut;
use crate::server::Listener;
use crate::telemetry::{self, Format};
use crate::upstream::Redirects;
use crate::{auth_endpoints, credentials, server, upstream};

/// The whole file.
pub(super) fn read(top: &mut Section<'_>, sources: &SecretSources<'_>) -> Settings {
    top.refuse_later(&["caller", "tls"]);
    let mut server = server(top, sources);
    if top.count("instance") + top.count("account") == 0 {
        top.refuse_missing(
            "an [[instance]] or [[account]]",
            "without one there is nobody to log in",
        );
    }
    let instances = directory::instances(top, sources);
    let accounts = directory::accounts(top, sources);
    let budget = top.table("login_budget", tokens::login_budget);
    let renewal = top.table("renewal", tokens::renewal);
    let status = top.optional_table("status", |table| aside(table, sources, anywhere));
    let admin = top.optional_table("admin", |table| aside(table, sources, for_admin));
    let (status, admin) = (status.flatten(), admin.flatten());
    refuse_clashes(top, &server.listeners, status.as_ref(), admin.as_ref());
    let upstream = top.table("upstream", |upstream| {
        self::upstream(upstream, sources, server.threads)
    });
    if let Some(path) = &upstream.settings.ca_file {
        sources.sees(path);
    }
    server.times.stall_timeout = upstream.settings.stall_timeout;
    Settings {
        hosts: top.list("hosts", shape::host),
        allowed_origins: top.list("allowed_origins", shape::web_origin),
        auth_endpoints: auth_endpoints(top),
        directory: Arc::new(Directory::new(instances, accounts)),
        credentials: credentials::Settings {
            budget: budget.windows,
            blocked_for: budget.blocked_for,
            ahead: renewal.ahead,
            wait: renewal.wait,
            timeout: renewal.timeout,
            lease: credentials::LEASE,
            keep_refresh_tokens: renewal.keep_refresh_tokens,
            renewals_per_second: renewal.renewals_per_second,
            remember_rejected: renewal.remember_rejected,
            contested_backoff: renewal.contested_backoff,
            forget_unused: renewal.forget_unused,
            max_cached: renewal.max_cached,
        },
        in_band_401: renewal.in_band_401,
        replay: renewal.replay,
        store: top.table("store", |store| store::store(store, sources)),
        default_host: upstream.default_host,
        upstream: upstream.settings,
        routes: routes(top),
        status,
        admin,
        log: top.table("log", log),
        server,
    }
}

/// Two listeners on one address: the second one could not be bound.
fn refuse_clashes(
    top: &Section<'_>,
    listeners: &[Listener],
    status: Option<&Listener>,
    admin: Option<&Listener>,
) {
    for (number, listener) in listeners.iter().enumerate() {
        let earlier = listeners.iter().take(number);
        if let Some(earlier) = earlier.clone().find(|earlier| earlier.clashes(listener)) {
            let label = format!("{listener} is listened on already, by {earlier}");
            top.refuse("listen", label);
        }
    }
    for (key, aside) in [("status", status), ("admin", admin)] {
        if let Some(aside) = aside
            && let Some(listener) = listeners.iter().find(|listener| listener.clashes(aside))
        {
            let label = format!("{aside} is listened on already, by `listen` ({listener})");
            top.refuse(key, label);
        }
    }
    if let (Some(status), Some(admin)) = (status, admin)
        && status.clashes(admin)
    {
        let label = format!(
            "{admin} is listened on already, by [status] ({status}); [admin] serves all that \
             [status] does"
        );
        top.refuse("admin", label);
    }
}

fn server(top: &mut Section<'_>, sources: &SecretSources<'_>) -> server::Settings {
    let unix_socket = |socket: &mut Section<'_>| unix_socket(socket, sources);
    let listeners = top.one_or_many("listen", unix_socket, loopback);
    server::Settings {
        listeners: listeners.unwrap_or_else(|| vec![Listener::Tcp(([127, 0, 0, 1], 8080).into())]),
        max_connections: top
            .get("max_connections", integer(1..=1_000_000))
            .unwrap_or(4096),
        threads: top.table("workers", |workers| {
            let cores = || thread::available_parallelism().map_or(1, usize::from);
            workers
                .get("threads", integer(1..=1024))
                .unwrap_or_else(cores)
        }),
        times: server::Times {
            drain_delay: top
                .get("drain_delay", duration(Duration::ZERO..=HOUR))
                .unwrap_or(5 * SECOND),
            drain_timeout: top
                .get("drain_timeout", duration(Duration::ZERO..=HOUR))
                .unwrap_or(25 * SECOND),
            // `[upstream]` says it for both sides.
            stall_timeout: MINUTE,
        },
    }
}

fn log(log: &mut Section<'_>) -> telemetry::Settings {
    let formats = [("json", Format::Json), ("text", Format::Text)];
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    telemetry::Settings {
        format: log
            .get("format", shape::word(&formats))
            .unwrap_or(Format::Json),
        level: log.get("level", shape::word(&levels)),
    }
}

fn auth_endpoints(top: &mut Section<'_>) -> auth_endpoints::Settings {
    let words = [("own", HandOut::Own), ("real", HandOut::Real)];
    auth_endpoints::Settings {
        hand_out: top
            .get("hand_out", shape::word(&words))
            .unwrap_or(HandOut::Own),
        forward_unknown_logins: top
            .get("forward_unknown_logins", shape::flag)
            .unwrap_or(false),
    }
}

/// Where anybody who can connect may call.
fn loopback(node: &Node) -> Result<Listener, String> {
    match shape::address(node)? {
        address if address.ip().is_loopback() => Ok(Listener::Tcp(address)),
        _ => Err(
            "expected a loopback address or a unix socket: this version cannot tell callers apart"
                .to_owned(),
        ),
    }
}

fn unix_socket(socket: &mut Section<'_>, sources: &SecretSources<'_>) -> Option<Listener> {
    let path = socket.require("unix", |node| file_path(sources, node));
    let mode = socket.get("mode", shape::mode).unwrap_or(0o660);
    let group = socket.get("group", shape::text);
    Some(Listener::Unix {
        path: path?,
        mode,
        group,
    })
}

/// `[status]`, `[admin]`: one place to listen, which `address` reads if it is no unix socket.
fn aside(
    table: &mut Section<'_>,
    sources: &SecretSources<'_>,
    address: impl Fn(&Node) -> Result<Listener, String>,
) -> Option<Listener> {
    table.require_either("listen", |socket| unix_socket(socket, sources), address)
}

/// Where nothing is told that others must not know.
fn anywhere(node: &Node) -> Result<Listener, String> {
    let address = shape::address(node).map_err(|_| {
        "expected one address with its port, such as \"127.0.0.1:9091\", or { unix = \"PATH\" }"
            .to_owned()
    });
    address.map(Listener::Tcp)
}

/// Where everybody who can connect may renew, forget and reload.
fn for_admin(node: &Node) -> Result<Listener, String> {
    match anywhere(node)? {
        Listener::Tcp(address) if !address.ip().is_loopback() => Err(
            "expected a loopback address or a unix socket: whoever can connect to [admin] can make \
             users log in anew; [status] serves health and metrics on any address"
                .to_owned(),
        ),
        listener => Ok(listener),
    }
}

/// A path of the file system, relative to the file's folder.
fn file_path(sources: &SecretSources<'_>, node: &Node) -> Result<PathBuf, String> {
    Ok(sources.folder.join(shape::text(node)?))
}

/// A wait: how long something may take.
fn timeout() -> impl Fn(&Node) -> Result<Duration, String> {
    duration(MILLISECOND..=HOUR)
}

/// `[upstream]`
struct Upstream {
    settings: upstream::Settings,
    default_host: Option<String>,
}

fn upstream(upstream: &mut Section<'_>, sources: &SecretSources<'_>, threads: usize) -> Upstream {
    Upstream {
        settings: upstream::Settings {
            connect_timeout: upstream
                .get("connect_timeout", timeout())
                .unwrap_or(5 * SECOND),
            response_timeout: upstream
                .get("response_timeout", timeout())
                .unwrap_or(30 * SECOND),
            stall_timeout: upstream.get("stall_timeout", timeout()).unwrap_or(MINUTE),
            idle_timeout: upstream
                .get("idle_timeout", timeout())
                .unwrap_or(55 * SECOND),
            // Every worker needs a connection of its own.
            max_connections: upstream
                .get("max_connections", integer(threads..=65_536))
                .unwrap_or(1024.max(threads)),
            ca_file: upstream.get("ca_file", |node| file_path(sources, node)),
            redirects: Redirects {
                all_others: upstream.get("all_hosts", shape::redirect),
                hosts: upstream.table("hosts", |hosts| {
                    hosts
                        .rest(shape::host_name, shape::redirect)
                        .into_iter()
                        .collect()
                }),
            },
        },
        default_host: upstream.get("default_host", shape::host),
    }
}

fn routes(top: &mut Section<'_>) -> Vec<Route> {
    let mut seen = HashSet::new();
    top.tables("route", |table| {
        let route = route(table)?;
        if !seen.insert((route.path.to_ascii_lowercase(), route.methods.clone())) {
            table.refuse("path", "another route has this path and these methods");
        }
        Some(route)
    })
}

fn route(route: &mut Section<'_>) -> Option<Route> {
    let credentials = [
        ("user", Credential::User),
        ("admin", Credential::Admin),
        ("user_or_admin", Credential::UserOrAdmin),
        ("instance", Credential::Instance),
        ("passthrough", Credential::Passthrough),
        ("answer", Credential::Answer),
    ];
    let replays = [("on-401", Replay::On401), ("never", Replay::Never)];
    let path = route.require("path", shape::route_path);
    let host = route.require("host", shape::host);
    let credential = route.require("credential", shape::word(&credentials));
    let methods = route.list("methods", shape::method);
    let replay = route
        .get("replay", shape::word(&replays))
        .unwrap_or(Replay::On401);
    let response_timeout = route.get("response_timeout", timeout());
    Some(Route {
        path: path?.into(),
        host: host?,
        credential: credential?,
        methods,
        replay,
        response_timeout,
    })
}
