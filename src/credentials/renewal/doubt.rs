//! Right after the store came back it may lack what it had acknowledged, until the processes that wrote it
//! restore that. Meanwhile a RefreshToken that is rejected may only be an old one.
//!
//! ```text
//!   rejected, or a login is due, in doubt ──▶ look again each second ── another pair stands ──▶ adopt it
//!                                                     │
//!                                                     ├── nobody is patient any more: end
//!                                                     └── the doubt is over: ask once more, and believe it
//! ```
//!
//! Nothing is noted or counted in doubt, and nobody who holds a pair is logged in.

use std::time::Duration;

use super::renewals::Renewal;
use crate::credentials::Error;
use crate::credentials::engine::Engine;
use crate::credentials::guards::seeker::Seeker;
use crate::store::{self, Entry};

/// How often it is looked, in real time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// However little is left of the doubt.
const AT_LEAST: Duration = Duration::from_millis(10);
/// Why a rejection is not believed.
const IN_DOUBT: &str = "it came back a moment ago, and what it lost may yet be restored";

impl Engine {
    /// Waits until the store is no longer in doubt. Returns false, perhaps earlier, if another entry than
    /// `entry` stands there, or if no caller waits for the renewal any more.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], besides those of reading: the doubt outlasts the callers' patience.
    pub(crate) async fn outlast_doubt(
        &self,
        renewal: &Renewal,
        entry: &Entry,
    ) -> Result<bool, Error> {
        while let Some(left) = self.vault.store.condition().doubted_for {
            let in_doubt = Error::from(store::Error::Away(IN_DOUBT.to_owned()));
            if self.clock.now() >= renewal.patience() && !renewal.is_deserted() {
                return Err(in_doubt);
            }
            // What the callers are told that leave meanwhile.
            renewal.set_last_error(in_doubt);
            let look_again = tokio::time::sleep(left.clamp(AT_LEAST, LOOK_AGAIN));
            let pause = async {
                tokio::select! {
                    () = look_again => {}
                    () = renewal.deserted() => {}
                }
            };
            self.closing().unless_closing(pause).await?;
            if renewal.is_deserted() {
                return Ok(false);
            }
            if self.read(renewal).await?.version() != entry.version() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same, for a login: a principal that holds no pair has none to lose, and does not wait.
    pub(crate) async fn outlast_doubt_of_a_pair(
        &self,
        renewal: &Renewal,
        entry: &Entry,
    ) -> Result<bool, Error> {
        match entry.record {
            Some(_) => self.outlast_doubt(renewal, entry).await,
            None => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests;
