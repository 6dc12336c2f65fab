//! What is promised at scale, each promise with a test named for it.

// Ten thousand callers at once; a thousand users in every kind of trouble.
mod crowd;
// Two proxies on one store.
mod fleet;
// Contents of a gigabyte.
mod gigabyte;
// Pairs brought along from elsewhere.
mod import;
// SIGKILL at any instant.
mod kills;
// DeviceTokens that nobody knows.
mod strangers;
// Seven days in a minute and a half.
mod week;
