//! How far a long command is: a bar on a terminal, a line every ten seconds elsewhere; both on standard
//! error, and without colours (`NO_COLOR` changes nothing).

use std::cell::Cell;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::output::{rough, say};

/// How often a line is written if there is no terminal.
const EVERY: Duration = Duration::from_secs(10);
/// Redraws a second.
const REDRAWS: u8 = 5;

/// What the whole way is, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// About this many entries.
    Entries(u64),
    /// A file of this many bytes.
    Bytes(u64),
    /// A pipe.
    Unknown,
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As a bar if standard error is a terminal.
    AsBar,
    /// As lines even there: what reads this command's output may draw a bar of its own.
    AsLines,
}

/// One run over many entries. Dropped, it removes its bar.
pub struct Progress {
    /// What happens to the entries: "exported".
    verb: &'static str,
    total: Total,
    began: Instant,
    /// `None`: lines.
    bar: Option<ProgressBar>,
    entries: Cell<u64>,
    bytes: Cell<u64>,
    last_line: Cell<Instant>,
}

impl Progress {
    /// Begins now.
    pub fn new(verb: &'static str, total: Total, shown: Shown) -> Progress {
        let is_bar = shown == Shown::AsBar && io::stderr().is_terminal();
        let began = Instant::now();
        Progress {
            verb,
            total,
            began,
            bar: is_bar.then(|| bar(total)),
            entries: Cell::new(0),
            bytes: Cell::new(0),
            last_line: Cell::new(began),
        }
    }

    /// Counts further entries and bytes as done.
    pub fn advance(&self, entries: u64, bytes: u64) {
        self.entries.set(self.entries.get() + entries);
        self.bytes.set(self.bytes.get() + bytes);
        if let Some(bar) = &self.bar {
            bar.set_position(match self.total {
                Total::Entries(_) | Total::Unknown => self.entries.get(),
                Total::Bytes(_) => self.bytes.get(),
            });
            bar.set_message(self.to_string());
        } else if self.last_line.get().elapsed() >= EVERY {
            self.last_line.set(Instant::now());
            say(&format!("{self}{}", self.share()));
        }
    }

    /// Prints a message as [`say`] does, above the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// The part that is done, for a line; a bar shows it by itself.
    fn share(&self) -> String {
        let (done, all) = match self.total {
            Total::Entries(all) => (self.entries.get(), all),
            Total::Bytes(all) => (self.bytes.get(), all),
            Total::Unknown => return String::new(),
        };
        // The total may be a minute old.
        let done = done.min(all);
        let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
        let left = match done {
            0 => String::new(),
            done => {
                let share = (all - done) as f64 / done as f64;
                let left = self.began.elapsed().mul_f64(share.min(1e6));
                format!(", about {} left", rough(left))
            }
        };
        format!(", {percent} %{left}")
    }
}

/// As `exported 12000 entries, 5100 a second`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.get();
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let rate = (entries as f64 / seconds).round();
        write!(f, "{} {entries} entries, {rate} a second", self.verb)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Total) -> ProgressBar {
    let (length, template) = match total {
        Total::Entries(all) | Total::Bytes(all) => (
            Some(all),
            "{bar:30} {percent:>3} %  {msg}, about {eta} left",
        ),
        Total::Unknown => (None, "{spinner} {msg}"),
    };
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS);
    let style = ProgressStyle::with_template(template).expect("the template is a valid one");
    ProgressBar::with_draw_target(length, target).with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_says_how_much_is_done_how_fast_and_how_long_still() {
        let lines = |total| Progress::new("exported", total, Shown::AsLines);
        let of_entries = lines(Total::Entries(4_000));
        let of_bytes = lines(Total::Bytes(2_000_000));
        let of_a_pipe = lines(Total::Unknown);
        tokio::time::advance(Duration::from_secs(10)).await;
        for progress in [&of_entries, &of_bytes, &of_a_pipe] {
            progress.advance(1_000, 1_000_000);
            assert_eq!(progress.to_string(), "exported 1000 entries, 100 a second");
        }
        assert_eq!(of_entries.share(), ", 25 %, about 30s left");
        assert_eq!(of_bytes.share(), ", 50 %, about 10s left");
        assert_eq!(of_a_pipe.share(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_total_that_is_too_small_ends_at_all_of_it() {
        for all in [0, 5] {
            let progress = Progress::new("exported", Total::Entries(all), Shown::AsLines);
            progress.advance(7, 0);
            assert!(
                progress.share().starts_with(", 100 %"),
                "{}",
                progress.share()
            );
        }
    }
}
