//! How far a long command is: a bar on a terminal, a line every ten seconds elsewhere; both on standard
//! error, and without colours (`NO_COLOR` changes nothing).

use std::cell::Cell;
use std::fmt;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::output::{rough, say};

/// How often a line is written if there is no terminal.
const EVERY: Duration = Duration::from_secs(10);
/// Redraws a second.
const REDRAWS: u8 = 5;
/// How often work that tells nothing of itself is looked at.
const SHOWN: Duration = Duration::from_millis(500);

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

/// Does `work`, and shows meanwhile how far it is.
pub async fn while_shown<T>(work: impl Future<Output = T>, show: impl Fn()) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(SHOWN) => show(),
        }
    }
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As a bar if standard error is a terminal.
    AsBar,
    /// As lines even there: what reads this command's output may draw a bar of its own.
    AsLines,
}

/// A bar, or a line every ten seconds. Dropped, it removes its bar.
pub struct Meter {
    total: Total,
    /// `None`: lines.
    bar: Option<ProgressBar>,
    last_line: Cell<Instant>,
}

/// How a bar says how much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// By the pace so far.
    ByPace,
    /// It is told.
    Told,
}

/// One run over many entries, each of which takes about as long as another.
pub struct Progress {
    /// What happens to the entries: "exported".
    verb: &'static str,
    meter: Meter,
    began: Instant,
    entries: Cell<u64>,
    bytes: Cell<u64>,
}

impl Meter {
    /// For a command that says itself how much is left.
    pub fn new(total: Total, shown: Shown) -> Meter {
        Meter::with(total, shown, Left::Told)
    }

    fn with(total: Total, shown: Shown, left: Left) -> Meter {
        let is_bar = shown == Shown::AsBar && io::stderr().is_terminal();
        Meter {
            total,
            bar: is_bar.then(|| bar(total, left)),
            last_line: Cell::new(Instant::now()),
        }
    }

    /// Moves the bar to this part of the total, with the `text` beside it; without a terminal, writes a line
    /// with both if one is due.
    pub fn show(&self, done: u64, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(text());
        } else if self.last_line.get().elapsed() >= EVERY {
            self.last_line.set(Instant::now());
            say(&format!("{}{}", text(), self.share(done)));
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
    fn share(&self, done: u64) -> String {
        let Some(all) = self.total.number() else {
            return String::new();
        };
        // The total may be a minute old.
        let done = done.min(all);
        let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
        format!(", {percent} %")
    }
}

impl Progress {
    /// Begins now.
    pub fn new(verb: &'static str, total: Total, shown: Shown) -> Progress {
        Progress {
            verb,
            meter: Meter::with(total, shown, Left::ByPace),
            began: Instant::now(),
            entries: Cell::new(0),
            bytes: Cell::new(0),
        }
    }

    /// Counts further entries and bytes as done.
    pub fn advance(&self, entries: u64, bytes: u64) {
        self.entries.set(self.entries.get() + entries);
        self.bytes.set(self.bytes.get() + bytes);
        self.meter.show(self.done(), || match self.meter.bar {
            Some(_) => self.to_string(),
            None => format!("{self}{}", self.left()),
        });
    }

    /// Prints a message as [`say`] does, above the bar.
    pub fn say(&self, text: &str) {
        self.meter.say(text);
    }

    fn done(&self) -> u64 {
        match self.meter.total {
            Total::Entries(_) | Total::Unknown => self.entries.get(),
            Total::Bytes(_) => self.bytes.get(),
        }
    }

    /// How long the rest takes, for a line; a bar shows it by itself.
    fn left(&self) -> String {
        let (done, Some(all)) = (self.done(), self.meter.total.number()) else {
            return String::new();
        };
        if done == 0 {
            return String::new();
        }
        let share = all.saturating_sub(done) as f64 / done as f64;
        let left = self.began.elapsed().mul_f64(share.min(1e6));
        format!(", about {} left", rough(left))
    }
}

impl Total {
    /// `None` if it is not known.
    fn number(self) -> Option<u64> {
        match self {
            Total::Entries(all) | Total::Bytes(all) => Some(all),
            Total::Unknown => None,
        }
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

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Total, left: Left) -> ProgressBar {
    let template = match (total, left) {
        (Total::Unknown, _) => "{spinner} {msg}",
        (_, Left::ByPace) => "{bar:30} {percent:>3} %  {msg}, about {eta} left",
        (_, Left::Told) => "{bar:30} {percent:>3} %  {msg}",
    };
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS);
    let style = ProgressStyle::with_template(template).expect("the template is a valid one");
    ProgressBar::with_draw_target(total.number(), target).with_style(style.progress_chars("=> "))
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
        for (progress, left, share) in [
            (&of_entries, ", about 30s left", ", 25 %"),
            (&of_bytes, ", about 10s left", ", 50 %"),
            (&of_a_pipe, "", ""),
        ] {
            assert_eq!(progress.left(), left);
            assert_eq!(progress.meter.share(progress.done()), share);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_total_that_is_too_small_ends_at_all_of_it() {
        for all in [0, 5] {
            let progress = Progress::new("exported", Total::Entries(all), Shown::AsLines);
            progress.advance(7, 0);
            assert_eq!(progress.meter.share(progress.done()), ", 100 %");
            assert_eq!(progress.left(), ", about 0s left");
        }
    }
}
