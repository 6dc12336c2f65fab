//! The integration tests: one binary, one module a subject.

#![allow(
    unreachable_pub,
    reason = "a binary has no outside; `pub` says what modules share"
)]
#![allow(
    clippy::unwrap_used,
    reason = "clippy exempts test functions, not what they call"
)]

// What all of them share: processes and clients; bytes on a socket.

mod harness;
mod wire;
// That the servers which tests start do what tests rely on.
mod real_servers;

// The configuration and `check`: example files, invalid files and their messages.
mod config;
// A configuration that changes while requests are under way, and one that is read again.
mod reload;
mod rules;
// The main job: a DeviceToken in, the API's answer out.
mod main_job;
// Callers that log in by themselves, through the proxy: logins, tokens, registrations.
mod auth_endpoints;
// The life of tokens: every fault of a renewal, of Damoov, of the store.
mod tokens;
// The store's folder: commands that look, commands of root, files that are moved, backups.
mod folder;
// Hostile and odd requests, byte by byte.
mod requests;
// Renewal and replay of one request: what the API receives the second time.
mod replays;
// What becomes of odd, broken and late answers of the API.
mod upstream_answers;
// That no answer of the API is another request's, whatever it says.
mod whose_answer;
// Waits that have an end: an API that stops, callers that do not read, who gives way.
mod stalls;
// What must be understood is understood however it is framed.
mod framed;
// Live tracking over WebSocket.
mod live;
// What the log says, what it loses, and that it holds nothing up.
mod log;
// No secret in any output.
mod secrets;
// A new user's first day: the examples as they stand, the simulator as it prints itself.
mod first_day;
// What the README lists is what there is.
mod readme;
// What lib.rs says of the code is so: rooms, arrows, the tests of its invariants.
mod house;
// The commands as processes, and the status listener.
mod commands;
// The `[admin]` listener: the dashboard's page and its API.
mod admin;
// `/metrics`, as the tools of others read it.
mod metrics;
// The dashboard, in a real browser.
mod dashboard;
// Alerts and dashboard, in the real Prometheus.
mod alerts;
// How the proxy ends.
mod signals;
// What supervisors see: systemd's notifications and sockets.
mod supervised;
// The files that deploy the proxy: image, cluster, packages.
mod deployment;
// Clients that others wrote: damoov-admin, websockets, ws, the Android library's requests.
mod clients;
// Many sidecars on one store, judged by Damoov's journal.
mod fleet;
// What is promised at scale: crowds, kills, strangers, gigabytes, a week, fleets.
mod promises;
