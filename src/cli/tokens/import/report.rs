//! What an import says: of single lines while it runs, of all of them at its end.

use serde::Serialize;

use super::Arguments;
use crate::cli::output::user_id;
use crate::cli::progress::{Progress, Shown, Total};
use crate::cli::{Failure, print};

/// Counts the lines, and says what became of those that need a word.
pub(super) struct Report<'a> {
    arguments: &'a Arguments,
    counts: Counts,
    /// `None`: each line is printed, which is progress enough.
    progress: Option<Progress>,
}

/// What became of the lines.
#[derive(Debug, Default, Serialize)]
struct Counts {
    imported: u64,
    kept_newer: u64,
    without_refresh_token: u64,
    failed: u64,
}

/// What became of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// It is in the store now.
    Imported,
    /// What is stored stays.
    KeptNewer,
    /// It would not save a login.
    WithoutRefreshToken,
    /// It is no good.
    Failed,
}

impl<'a> Report<'a> {
    /// An import begins.
    pub(super) fn new(arguments: &'a Arguments, total: Total) -> Report<'a> {
        let verb = "imported";
        Report {
            arguments,
            counts: Counts::default(),
            progress: (!arguments.dry_run).then(|| Progress::new(verb, total, Shown::AsBar)),
        }
    }

    /// What was asked for.
    pub(super) fn arguments(&self) -> &'a Arguments {
        self.arguments
    }

    /// Counts one line.
    pub(super) fn count(&mut self, count: Count) {
        let counts = &mut self.counts;
        *match count {
            Count::Imported => &mut counts.imported,
            Count::KeptNewer => &mut counts.kept_newer,
            Count::WithoutRefreshToken => &mut counts.without_refresh_token,
            Count::Failed => &mut counts.failed,
        } += 1;
    }

    /// Says what became of a line: of each if it is only tried, else of those that are not `usual`.
    pub(super) fn tell(&self, number: usize, told: &str, usual: bool) -> Result<(), Failure> {
        let Some(progress) = &self.progress else {
            return print(&match self.arguments.json {
                true => serde_json::json!({ "line": number, "outcome": told }).to_string(),
                false => format!("line {number}: {told}"),
            });
        };
        if !usual {
            progress.say(&format!("line {number}: {told}"));
        }
        Ok(())
    }

    /// Counts further lines and bytes as read.
    pub(super) fn advance(&self, lines: u64, bytes: u64) {
        if let Some(progress) = &self.progress {
            progress.advance(lines, bytes);
        }
    }

    /// Whether all lines were good.
    pub(super) fn is_good(&self) -> bool {
        self.counts.failed + self.counts.without_refresh_token == 0
    }

    /// Prints the last line.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Report {
            arguments,
            counts,
            progress,
        } = self;
        drop(progress);
        if !arguments.dry_run && counts.imported > 0 {
            tracing::info!(
                target: "audit",
                imported = counts.imported,
                kept_newer = counts.kept_newer,
                without_refresh_token = counts.without_refresh_token,
                failed = counts.failed,
                overwrite = arguments.overwrite,
                uid = user_id(),
                "import"
            );
        }
        if arguments.json {
            return print(&serde_json::to_string(&counts).expect("numbers always serialise"));
        }
        let Counts {
            imported,
            kept_newer,
            without_refresh_token,
            failed,
        } = counts;
        let would_be = if arguments.dry_run { "would be " } else { "" };
        print(&format!(
            "{would_be}imported {imported}, kept newer {kept_newer}, without RefreshToken \
             {without_refresh_token}, failed {failed}"
        ))
    }
}
