//! The one thread that writes the log. Every line waits in bounded memory until the thread has
//! written it: nothing that serves, and nothing that ends the process, ever waits for standard
//! error, which may be a pipe that nobody reads. Lines that cannot be written are counted. Knows
//! nothing of what a line says.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::line::{Level, Line, Value};
use super::lost::Lost;
use super::output::{Output, Taken};
use super::recent::Recent;
use super::{Format, Target};

/// How long an access line waits, so that many are written at once.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that may wait in one buffer; further lines are lost, not memory.
pub(super) const BUFFER_LIMIT: usize = 8 << 20;
/// A write that takes longer than this counts as stalled.
const STALLED: Duration = Duration::from_secs(1);
/// How often a log that cannot be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// How long the end of the process waits until the lines before it are written.
const AT_THE_END: Duration = Duration::from_secs(1);

/// Owns the thread. When it is dropped, the lines that were left until then have one second to be
/// written; a standard error that takes nothing keeps no process alive.
#[derive(Debug)]
pub struct Log {
    lines: Lines,
    ended: mpsc::Receiver<()>,
}

/// Where lines are left for the thread to write. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Shared>);

/// Says whether lines can be written. Cheap to clone and to ask.
#[derive(Clone, Debug)]
pub struct Health(Lines);

/// Why lines cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwritable {
    /// Since when.
    pub since: SystemTime,
    /// What standard error does.
    pub why: String,
}

#[derive(Debug)]
struct Shared {
    format: Format,
    messages: mpsc::Sender<Message>,
    /// The newest events, for whoever looks.
    recent: Recent,
    audit: Arc<Buffer>,
    other: Arc<Buffer>,
    /// Whether requests are recorded. The filter decides; read for each request.
    wants_access: AtomicBool,
    /// Set once the thread takes nothing more.
    ended: AtomicBool,
    state: Mutex<State>,
}

/// What the thread is told.
#[derive(Debug)]
enum Message {
    /// There are lines in this buffer, which was empty before.
    Lines(Arc<Buffer>),
    End,
}

/// Lines of one target that wait to be written. While there are any, the thread knows of it.
#[derive(Debug)]
pub(super) struct Buffer {
    target: Target,
    text: Mutex<String>,
}

/// Whether the thread can write. Written by the thread, except `lost` and `counters`, which the threads
/// that lose lines write too; read by `Health`.
#[derive(Debug, Default)]
struct State {
    /// When the write began that is under way.
    writing: Option<(Instant, SystemTime)>,
    failing: Option<Failing>,
    lost: u64,
    counters: Lost,
}

#[derive(Debug)]
struct Failing {
    began: (Instant, SystemTime),
    why: String,
    /// How many lines were lost before.
    lost_before: u64,
}

impl Log {
    /// Starts the thread, which writes to standard error.
    pub(super) fn start(format: Format) -> io::Result<Log> {
        Log::start_on(Output::standard_error(), format)
    }

    pub(super) fn start_on(to: Output, format: Format) -> io::Result<Log> {
        let (messages, received) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let lines = Lines(Arc::new(Shared {
            format,
            messages,
            recent: Recent::default(),
            audit: Buffer::of(Target::Audit),
            other: Buffer::of(Target::Other),
            wants_access: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            state: Mutex::default(),
        }));
        let mut writer = Writer {
            lines: lines.clone(),
            to,
            tried: Instant::now(),
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                writer.run(&received);
                writer.lines.0.ended.store(true, Ordering::Relaxed);
                drop(end);
            })?;
        Ok(Log { lines, ended })
    }

    /// Where lines are left for the thread.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Refused only if the thread has panicked, which the next line notices at once.
        let _ = self.lines.0.messages.send(Message::End);
        let _ = self.ended.recv_timeout(AT_THE_END);
    }
}

impl Lines {
    /// How lines are written.
    pub fn format(&self) -> Format {
        self.0.format
    }

    /// The newest events that a person must see.
    pub fn recent(&self) -> &Recent {
        &self.0.recent
    }

    /// Says whether lines can be written.
    pub fn health(&self) -> Health {
        Health(self.clone())
    }

    /// Whether requests are recorded.
    pub(super) fn wants_access(&self) -> bool {
        self.0.wants_access.load(Ordering::Relaxed)
    }

    /// From here on requests are recorded, or are not.
    pub(super) fn want_access(&self, wanted: bool) {
        self.0.wants_access.store(wanted, Ordering::Relaxed);
    }

    /// Counts lost lines here from now on, those of the past too.
    pub fn count_into(&self, counters: Lost) {
        let mut state = self.0.state();
        let past = mem::replace(&mut state.counters, counters);
        state.counters.add(&past);
    }

    /// Leaves a line, whatever the filter says. Never waits.
    pub(super) fn say(&self, level: Level, line: &Line<'_>) {
        self.0.recent.keep(level.into(), line.target, line.message);
        let text = line.write(self.0.format, level);
        self.leave(Target::Other, &text);
    }

    /// Leaves a finished line, its end included. Never waits.
    pub(super) fn leave(&self, target: Target, line: &str) {
        let buffer = match target {
            Target::Audit => &self.0.audit,
            Target::Access | Target::Other => &self.0.other,
        };
        self.write(buffer, |_, text| text.push_str(line));
    }

    /// Lets `write` add one line to the text of `buffer`, and tells it whether that is the first one.
    pub(super) fn write(&self, buffer: &Arc<Buffer>, write: impl FnOnce(bool, &mut String)) {
        let mut text = buffer.text();
        if text.len() >= BUFFER_LIMIT || self.0.ended.load(Ordering::Relaxed) {
            drop(text);
            self.lose(buffer.target, 1);
            return;
        }
        let is_first = text.is_empty();
        write(is_first, &mut text);
        drop(text);
        if is_first && let Err(refused) = self.0.messages.send(Message::Lines(buffer.clone())) {
            // The thread has ended.
            drop(refused);
            let lines = mem::take(&mut *buffer.text());
            self.lose(buffer.target, count(&lines));
        }
    }

    fn lose(&self, target: Target, lines: u64) {
        let mut state = self.0.state();
        state.lost += lines;
        state.counters.count(target, lines);
    }
}

impl Health {
    /// Since when lines cannot be written, and why; `None` if they can.
    pub fn unwritable(&self) -> Option<Unwritable> {
        let state = self.0.0.state();
        if let Some(failing) = &state.failing {
            return Some(Unwritable {
                since: failing.began.1,
                why: failing.why.clone(),
            });
        }
        let (began, since) = state.writing?;
        (began.elapsed() >= STALLED).then(|| Unwritable {
            since,
            why: "standard error takes no lines: its reader has stopped reading".to_owned(),
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    pub(super) fn of(target: Target) -> Arc<Buffer> {
        Arc::new(Buffer {
            target,
            text: Mutex::default(),
        })
    }

    /// A panic hook uses it as well, hence even after a panic under the lock.
    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.text().len()
    }
}

/// The thread.
struct Writer {
    lines: Lines,
    to: Output,
    /// When a failing log was last tried.
    tried: Instant,
}

impl Writer {
    /// Writes buffer after buffer until told to end.
    fn run(&mut self, received: &mpsc::Receiver<Message>) {
        let mut text = String::new();
        let mut ended = false;
        while !ended {
            let first = match self.is_failing() {
                true => received.recv_timeout(TRY_AGAIN),
                false => received.recv().map_err(RecvTimeoutError::from),
            };
            let first = match first {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.try_again();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Message::Lines(buffer) = &first
                && buffer.target == Target::Access
            {
                thread::sleep(GATHER);
            }
            // Everything that has come so far, and only that: the first line of an empty buffer sends a
            // message.
            let all: Vec<_> = std::iter::once(first).chain(received.try_iter()).collect();
            for message in all {
                let Message::Lines(buffer) = message else {
                    ended = true;
                    continue;
                };
                // Lines go on in the empty one.
                mem::swap(&mut text, &mut buffer.text());
                self.write(buffer.target, &text);
                text.clear();
            }
        }
    }

    fn is_failing(&self) -> bool {
        self.lines.0.state().failing.is_some()
    }

    /// Writes lines of one target; counts those that are lost.
    fn write(&mut self, target: Target, text: &str) {
        let is_due = self.tried.elapsed() >= TRY_AGAIN;
        if self.is_failing() && !(is_due && self.try_again()) {
            self.lines.lose(target, count(text));
            return;
        }
        let began = (Instant::now(), SystemTime::now());
        let lost_before = {
            let mut state = self.lines.0.state();
            state.writing = Some(began);
            state.lost
        };
        let written = self.to.write(text);
        let mut state = self.lines.0.state();
        state.writing = None;
        match written {
            Taken::All => {
                let lost = state.lost - lost_before;
                drop(state);
                if began.0.elapsed() >= STALLED {
                    let message = "standard error took no lines for a while";
                    self.recovered(message, began.0, lost);
                }
            }
            Taken::Part { left, error } => {
                let lost = count(left);
                let since = state.failing.take().map_or(began, |failing| failing.began);
                state.failing = Some(Failing {
                    began: since,
                    why: format!("standard error cannot be written: {error}"),
                    lost_before,
                });
                drop(state);
                self.tried = Instant::now();
                self.lines.lose(target, lost);
            }
        }
    }

    /// Tries a log that failed with the line that says so. Returns whether it works again.
    fn try_again(&mut self) -> bool {
        self.tried = Instant::now();
        let ended = {
            let state = self.lines.0.state();
            let failing = state.failing.as_ref();
            failing.map(|failing| (failing.began.0, state.lost - failing.lost_before))
        };
        let Some((began, lost)) = ended else {
            return true;
        };
        let works = self.recovered("the log can be written again", began, lost);
        if works {
            self.lines.0.state().failing = None;
        }
        works
    }

    /// Writes at once that an episode is over. Returns whether that worked.
    fn recovered(&mut self, message: &str, began: Instant, lost: u64) -> bool {
        let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let line = Line {
            target: "damoov_proxy::telemetry",
            message,
            fields: &[
                ("seconds", Value::Seconds(seconds)),
                ("lines_lost", Value::Count(lost)),
            ],
        };
        let text = line.write(self.lines.format(), Level::Warn);
        matches!(self.to.write(&text), Taken::All)
    }
}

/// Lines in a text, one that is cut short included.
fn count(text: &str) -> u64 {
    text.lines().count() as u64
}

#[cfg(test)]
pub(super) mod tests;
