//! Which keys take effect while the process runs, and which only at a restart. Every key that is not in
//! [`RESTART`] takes effect at its next use: nothing but this table, and the test that walks every key
//! through it, says so.

use super::Settings;

/// A key that takes effect only at a restart.
struct Fixed {
    /// Its dotted name.
    key: &'static str,
    /// Whether two configurations say different things of it.
    differs: fn(&Settings, &Settings) -> bool,
    /// Makes the first configuration say what the second one says.
    keep: fn(&mut Settings, &Settings),
}

/// A row for a key that is one field of [`Settings`]; behind `by`, for one that is a part of it.
macro_rules! fixed {
    ($key:literal, $($field:ident).+) => {
        Fixed {
            key: $key,
            differs: |one, other| one.$($field).+ != other.$($field).+,
            keep: |new, start| new.$($field).+.clone_from(&start.$($field).+),
        }
    };
    ($key:literal, $($field:ident).+ by $part:ident) => {
        Fixed {
            key: $key,
            differs: |one, other| {
                let part = |of: &Settings| of.$($field).+.as_ref().map(|of| of.$part.clone());
                part(one) != part(other)
            },
            keep: |new, start| new.$($field).+.clone_from(&start.$($field).+),
        }
    };
}

/// The keys that take effect only at a restart: what is bound, started or opened once.
const RESTART: [Fixed; 17] = [
    fixed!("listen", server.listeners),
    fixed!("max_connections", server.max_connections),
    fixed!("workers.threads", server.threads),
    fixed!("store.path", store.path),
    fixed!("store.create", store.create),
    fixed!("store.key", store.key),
    fixed!("store.old_keys", store.old_keys),
    fixed!("store.url", store.postgres by address),
    fixed!("store.password", store.postgres by password),
    fixed!("store.ca_file", store.postgres by ca_file),
    fixed!("store.connections", store.postgres by connections),
    fixed!("login_budget.group", credentials.budget.group),
    fixed!("renewal.replay_memory", replay.memory),
    fixed!("renewal.max_cached", credentials.max_cached),
    fixed!("status.listen", status),
    fixed!("admin.listen", admin),
    fixed!("log.format", log.format),
];

/// The keys by which `read` differs from what the process was started with, and which take effect only at a
/// restart.
pub fn restart_needed(start: &Settings, read: &Settings) -> Vec<&'static str> {
    let differing = RESTART.iter().filter(|fixed| (fixed.differs)(start, read));
    differing.map(|fixed| fixed.key).collect()
}

/// What is in force if a process that was started with `start` reads `read`: all of it but the keys that
/// need a restart.
pub fn in_force(start: &Settings, read: Settings) -> Settings {
    let mut settings = read;
    for fixed in &RESTART {
        (fixed.keep)(&mut settings, start);
    }
    settings
}

#[cfg(test)]
mod tests;
