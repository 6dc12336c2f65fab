//! What `/api/state` tells: everything that the dashboard shows but the events, in one look.

use serde::Serialize;

use super::Status;
use super::engine::{Engine, Host, Logins, Room, Tokens};
use super::history::Shown;
use super::readiness::Report;
use super::sentence::Sentence;
use super::stream;
use super::time::{at, seconds};
use crate::metrics::Metrics;
use crate::reload;
use crate::server::Stage;

/// One look at everything.
#[derive(Debug, Serialize)]
pub(super) struct State {
    version: &'static str,
    now: String,
    started: String,
    stage: &'static str,
    sentence: Sentence,
    ready: Report,
    logins: ShownLogins,
    tokens: ShownTokens,
    upstreams: Vec<Upstream>,
    room: Vec<ShownRoom>,
    config: Config,
    history: Shown,
}

/// What a state is made of beside the process's own numbers.
pub(super) struct Parts {
    pub(super) now: u64,
    pub(super) sentence: Sentence,
    pub(super) ready: Report,
    pub(super) logins: Logins,
    pub(super) history: Shown,
    /// Event streams that are open.
    pub(super) streams: usize,
}

#[derive(Debug, Serialize)]
struct ShownLogins {
    limit: Option<u32>,
    remaining: Option<u32>,
    next_seconds: f64,
    blocked_seconds: f64,
    block_ends: Option<String>,
    suspended: bool,
    contested: u64,
    windows: Vec<ShownWindow>,
}

#[derive(Debug, Serialize)]
struct ShownWindow {
    logins: u32,
    per_seconds: f64,
    used: u32,
}

#[derive(Debug, Serialize)]
struct ShownTokens {
    fresh: usize,
    stale: usize,
    expired: usize,
    cached: i64,
    stored: i64,
}

#[derive(Debug, Serialize)]
struct Upstream {
    host: String,
    requests: u64,
    p50_seconds: Option<f64>,
    p99_seconds: Option<f64>,
    connections: u64,
}

/// What is in force, and what of the file is not.
#[derive(Debug, Serialize)]
struct Config {
    file: String,
    loaded: String,
    last_reload: Option<&'static str>,
    report: Option<String>,
    restart_needed: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct ShownRoom {
    what: &'static str,
    used: u64,
    limit: u64,
    unit: &'static str,
}

impl State {
    /// Of a process that tells `parts`.
    pub(super) fn new<E: Engine>(status: &Status<E>, parts: Parts) -> State {
        let Parts {
            now,
            sentence,
            ready,
            logins,
            history,
            streams,
        } = parts;
        let engine = status.engine.get();
        let metrics = &status.metrics;
        State {
            version: env!("CARGO_PKG_VERSION"),
            now: at(now),
            started: at(seconds(status.started)),
            stage: match (engine, *status.stage.borrow()) {
                (_, Stage::Leaving | Stage::Draining | Stage::Stopping) => "draining",
                (None, Stage::Serving) => "starting",
                (Some(_), Stage::Serving) => "serving",
            },
            sentence,
            ready,
            tokens: ShownTokens::of(engine.map_or_else(Tokens::default, Engine::tokens), metrics),
            logins: ShownLogins::of(logins, now),
            upstreams: engine
                .map(Engine::hosts)
                .unwrap_or_default()
                .into_iter()
                .map(|host| Upstream::of(host, metrics))
                .collect(),
            room: engine
                .map(Engine::room)
                .unwrap_or_default()
                .into_iter()
                .chain([Room {
                    what: "event streams",
                    used: streams as u64,
                    limit: stream::MOST as u64,
                    unit: "",
                }])
                .map(ShownRoom::of)
                .collect(),
            config: Config::of(&status.reloads.state()),
            history,
        }
    }
}

impl Config {
    fn of(state: &reload::State) -> Config {
        Config {
            file: state.file.display().to_string(),
            loaded: at(seconds(state.loaded)),
            last_reload: state.last.map(|result| result.as_str()),
            report: state
                .refused
                .as_ref()
                .map(|refused| refused.report.to_string()),
            restart_needed: state
                .restart
                .as_ref()
                .map_or_else(Vec::new, |restart| restart.keys.to_vec()),
        }
    }
}

impl ShownLogins {
    fn of(logins: Logins, now: u64) -> ShownLogins {
        let blocked = !logins.blocked.is_zero();
        let window = |window: &super::Window| ShownWindow {
            logins: window.logins,
            per_seconds: window.per.as_secs_f64(),
            used: window.used,
        };
        ShownLogins {
            limit: logins.limit,
            remaining: logins.remaining,
            next_seconds: logins.next.as_secs_f64(),
            blocked_seconds: logins.blocked.as_secs_f64(),
            block_ends: blocked.then(|| at(now + logins.blocked.as_secs() + 1)),
            suspended: logins.suspended,
            contested: logins.contested,
            windows: logins.windows.iter().map(window).collect(),
        }
    }
}

impl ShownTokens {
    fn of(tokens: Tokens, metrics: &Metrics) -> ShownTokens {
        ShownTokens {
            fresh: tokens.fresh,
            stale: tokens.stale,
            expired: tokens.expired,
            cached: metrics.tokens_cached.get(),
            stored: metrics.tokens_stored.get(),
        }
    }
}

impl Upstream {
    fn of(host: Host, metrics: &Metrics) -> Upstream {
        let counted = metrics.upstream_duration_of(&host.name).counted();
        let quantile = |of| counted.quantile(of).map(|found| found.as_secs_f64());
        Upstream {
            requests: counted.count(),
            p50_seconds: quantile(0.5),
            p99_seconds: quantile(0.99),
            connections: host.connections,
            host: host.name,
        }
    }
}

impl ShownRoom {
    fn of(room: Room) -> ShownRoom {
        let Room {
            what,
            used,
            limit,
            unit,
        } = room;
        ShownRoom {
            what,
            used,
            limit,
            unit,
        }
    }
}
