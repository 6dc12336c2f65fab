//! Many sidecars that share one store. What they did is judged by the journal of the simulated Damoov.

// Judges a journal.
pub mod checker;
// What must hold once a test is over.
pub mod healing;
// Sidecars that start while the database is away, or with a key that is not the store's.
mod starting;
