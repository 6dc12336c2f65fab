//! The configuration, read again while the process runs: when a signal or the admin API asks for it, and when
//! a file that it was read from has changed. Reads aside, because a file may lie on a mount that hangs; puts
//! in force all at once what is valid, and else nothing.

mod file_watch;
mod readings;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use self::file_watch::FileWatch;
use self::readings::Readings;
use super::{Source, wiring};
use crate::config::{self, Seen, Settings};
use crate::credentials::Provider;
use crate::head;
use crate::metrics::{Metrics, ReloadLabels, ReloadResult};
use crate::proxy::{Proxy, Rules};
use crate::reload::{self, Outcome, Reloads, Report, Requests, Trigger};
use crate::server::Times;
use crate::supervisor::Supervisor;
use crate::telemetry::LogLevel;
use crate::telemetry::episode::Chain;
use crate::upstream::Hosts;

/// After a reload the next one waits for this long: those that are asked for meanwhile are one.
const PAUSE: Duration = Duration::from_millis(100);

/// What a process keeps of its start so that it can read its configuration again.
pub struct Start {
    source: Source,
    /// The files as they were when they were read.
    seen: Vec<Seen>,
    level: LogLevel,
    requests: Requests,
    /// Told of each reload.
    pub(super) supervisor: Supervisor,
    /// Where reloads are asked for: before the first one can be done, too.
    pub(super) reloads: Reloads,
    /// How long callers are waited for.
    pub(super) times: watch::Sender<Times>,
}

/// What a reload puts other settings into.
pub(super) struct Components {
    pub(super) provider: Provider,
    pub(super) proxy: Arc<Proxy>,
    /// What heads of probes are checked by.
    pub(super) head: Arc<ArcSwap<head::Settings>>,
    /// What is in force, for those that show it.
    pub(super) in_force: Arc<ArcSwap<Settings>>,
    pub(super) hosts: Hosts,
    pub(super) metrics: Arc<Metrics>,
}

/// The task that reloads. Dropping it ends it.
pub(super) struct Reloading(JoinHandle<()>);

impl Drop for Reloading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Start {
    /// Of a process that has just read its configuration, `settings`, from `source`.
    pub(super) fn new(
        source: Source,
        seen: Vec<Seen>,
        settings: &Settings,
        level: LogLevel,
    ) -> Start {
        let (reloads, requests) = reload::channel(source.path.clone(), SystemTime::now());
        Start {
            source,
            seen,
            level,
            requests,
            supervisor: Supervisor::none(),
            reloads,
            times: watch::Sender::new(settings.server.times),
        }
    }
}

impl Reloading {
    /// Starts the task, on the current runtime, in a process that was started with `settings`.
    pub(super) fn start(start: Start, settings: Settings, components: Components) -> Reloading {
        let Start {
            source,
            seen,
            level,
            requests,
            supervisor,
            times,
            ..
        } = start;
        let reader = Reader {
            source,
            hosts: components.hosts.clone(),
            start: Arc::new(settings.clone()),
        };
        let reloader = Reloader {
            reader,
            readings: Readings::new(),
            read: settings,
            files: FileWatch::new(seen),
            requests,
            supervisor,
            level,
            times,
            components,
        };
        show(&reloader.components.metrics, &reloader.requests);
        Reloading(tokio::spawn(reloader.run()))
    }
}

/// What is made of the file, or all that is wrong with it; and the files that were read.
type Read = (Result<Prepared, String>, Vec<Seen>);

/// Reads configurations.
#[derive(Clone)]
struct Reader {
    source: Source,
    /// As they are in force: targets that stay the same keep their connections.
    hosts: Hosts,
    /// What the process was started with. What needs a restart stays as it is here.
    start: Arc<Settings>,
}

/// A configuration that is valid, and what is made of it.
struct Prepared {
    /// As the file says.
    read: Settings,
    /// The same, but for what needs a restart.
    in_force: Settings,
    hosts: Hosts,
    rules: Rules,
    restart_needed: reload::Keys,
    warnings: Vec<String>,
}

impl Reader {
    /// Reads the file and all that it names. Blocks its thread on I/O.
    fn prepare(&self) -> Read {
        let (loaded, seen) = self.source.read();
        let loaded = loaded.map_err(|error| error.report());
        (loaded.and_then(|loaded| self.make(loaded)), seen)
    }

    fn make(&self, loaded: config::Loaded) -> Result<Prepared, String> {
        let config::Loaded {
            settings: read,
            warnings,
        } = loaded;
        let invalid = |error| format!("error: {}", Chain(&error));
        let restart_needed = config::restart_needed(&self.start, &read).into();
        let in_force = config::in_force(&self.start, read.clone());
        let hosts = self.hosts.updated(&in_force.upstream).map_err(invalid)?;
        let rules = wiring::rules(&in_force, &hosts).map_err(invalid)?;
        Ok(Prepared {
            read,
            in_force,
            hosts,
            rules,
            restart_needed,
            warnings,
        })
    }
}

/// Reloads, one after the other.
struct Reloader {
    reader: Reader,
    readings: Readings<Read>,
    /// What the file said when it was valid last.
    read: Settings,
    files: FileWatch,
    requests: Requests,
    supervisor: Supervisor,
    level: LogLevel,
    times: watch::Sender<Times>,
    components: Components,
}

impl Reloader {
    async fn run(mut self) {
        loop {
            let trigger = tokio::select! {
                trigger = self.requests.next() => trigger,
                () = self.files.changed(), if !self.readings.hang() => Trigger::File,
                () = self.readings.returned() => Trigger::File,
            };
            let supervisor = self.supervisor.clone();
            supervisor.reloading(self.reload(trigger)).await;
            sleep(PAUSE).await;
        }
    }

    async fn reload(&mut self, trigger: Trigger) {
        self.requests.begin();
        let (at, reader) = (SystemTime::now(), self.reader.clone());
        let prepared = match self.readings.read(move || reader.prepare()).await {
            Ok((prepared, seen)) => {
                self.files.read(seen);
                prepared
            }
            Err(unread) => Err(format!("error: the configuration cannot be read: {unread}")),
        };
        let outcome = match prepared {
            Ok(prepared) => self.follow(prepared),
            Err(report) => Outcome {
                result: ReloadResult::Refused,
                report: Some(report.into()),
                restart_needed: self.requests.restart_needed(),
            },
        };
        self.finish(at, trigger, outcome);
    }

    /// Puts in force what was read, unless it is what is in force.
    fn follow(&mut self, prepared: Prepared) -> Outcome {
        let restart_needed = prepared.restart_needed.clone();
        let is_same = prepared.read == self.read && prepared.hosts.trust_as(&self.components.hosts);
        let result = match is_same {
            true => ReloadResult::Unchanged,
            false => {
                self.apply(prepared);
                ReloadResult::Applied
            }
        };
        Outcome {
            result,
            report: None,
            restart_needed,
        }
    }

    fn apply(&mut self, prepared: Prepared) {
        let Prepared {
            read,
            in_force,
            hosts,
            rules,
            warnings,
            ..
        } = prepared;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let Components {
            provider,
            proxy,
            head,
            in_force: shown,
            hosts: known,
            ..
        } = &mut self.components;
        // Before the rules: a request that they let through finds its instance in the engine.
        provider.publish(
            in_force.credentials.clone(),
            in_force.directory.clone(),
            &in_force.upstream,
            &hosts,
        );
        proxy.publish(rules);
        head.store(Arc::new(wiring::head(&in_force)));
        self.times.send_replace(in_force.server.times);
        if let Err(error) = self.level.set(in_force.log.level) {
            tracing::warn!(%error, "the log's level stays as it is");
        }
        shown.store(Arc::new(in_force));
        self.reader.hosts = hosts.clone();
        *known = hosts;
        self.read = read;
    }

    /// Answers those that asked; counts and logs what came of it.
    fn finish(&self, at: SystemTime, trigger: Trigger, outcome: Outcome) {
        let Outcome {
            result,
            report,
            restart_needed,
        } = outcome.clone();
        let news = self.requests.end(at, outcome);
        let metrics = &self.components.metrics;
        let labels = ReloadLabels { result };
        metrics.config_reloads.get_or_create(&labels).inc();
        show(metrics, &self.requests);
        let restart_needed = restart_needed.join(", ");
        tracing::info!(
            target: "audit",
            trigger = trigger.as_str(),
            result = result.as_str(),
            restart_needed,
            "reload"
        );
        if let (Some(report), Report::New) = (report, news) {
            let report = &*report;
            tracing::error!(
                report,
                "the configuration is refused: what was in force before stays"
            );
        }
        if !restart_needed.is_empty() && result == ReloadResult::Applied {
            tracing::warn!(
                keys = restart_needed,
                "these keys take effect at a restart only: restart, or put them back"
            );
        }
    }
}

/// Lets the metrics show what reloads have led to.
fn show(metrics: &Metrics, requests: &Requests) {
    let state = requests.state();
    let refused = state.refused.is_some();
    metrics.config_last_reload_successful.set((!refused).into());
    let loaded = state.loaded.duration_since(SystemTime::UNIX_EPOCH);
    let loaded = loaded.unwrap_or_default().as_millis() as f64 / 1000.0;
    metrics.config_last_reload_success_timestamp.set(loaded);
    let keys = requests.restart_needed().len();
    let keys = keys.try_into().unwrap_or(i64::MAX);
    metrics.config_restart_needed.set(keys);
}
