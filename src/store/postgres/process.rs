//! What is one process's own: its name, and what it keeps on its machine.

use std::path::Path;
use std::time::Duration;

use super::committer::ACKNOWLEDGED_WITHIN;
use super::outbox::Outbox;
use super::refusals::Refusal;
use crate::store::RunId;

/// One process run.
pub(in crate::store) struct Process {
    pub(super) run: RunId,
    /// Where its pairs are until the server has them.
    pub(super) outbox: Outbox,
    /// How long a commit waits for the server before its pair goes there.
    pub(super) patience: Duration,
}

impl Process {
    /// Opens the outbox in the folder `path`; makes both if there are none. Blocks.
    pub(in crate::store) fn new(run: RunId, path: &Path) -> Result<Process, Refusal> {
        Ok(Process {
            run,
            outbox: Outbox::open(path)?,
            patience: ACKNOWLEDGED_WITHIN,
        })
    }

    /// One that waits for what the server says, however long that takes, with an outbox of its own.
    #[cfg(test)]
    pub(super) fn patient(run: RunId) -> Process {
        Process {
            patience: super::link::CALL_DEADLINE,
            ..Process::new(run, &servers::new_folder("outbox")).expect("it is empty")
        }
    }
}
