//! Many sidecars that share one store. What they did is judged by the journal of the simulated Damoov.

// Judges a journal.
pub mod checker;
// What must hold once a test is over.
pub mod healing;
// Sidecars on one store.
mod scene;
// Callers without end.
mod load;

// Sidecars that start while the database is away, or with a key that is not the store's.
mod starting;
// Everybody's token expires under load.
mod rotations;
// Clocks that disagree, and DeviceTokens that nobody knows.
mod clocks;
// A broken deploy; a phone app.
mod rejections;
// The store's key, rotated in the wrong order.
mod keys;
// A user is forgotten while a sidecar hears nothing.
mod forgotten;
// Renewals that no request waits for.
mod keeper;
// A rolling restart under load.
mod rolling;
// The store as it was yesterday.
mod restored;
// The server is killed, paused, replaced by its standby.
mod server_faults;
// Sidecars are killed at each step, or stand still.
mod sidecar_faults;
// A store that is away, full, read-only, or has another password.
mod refusing_stores;
// Answers of the store that never arrive.
mod lost_answers;
// The commands, on a store that sidecars share.
mod commands;
// From one engine to the other and back.
mod migration;
