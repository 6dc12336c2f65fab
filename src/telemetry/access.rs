//! The access log: one line a request. Workers only tell what happened; the lines are made and
//! written by a thread of its own, many at once, so that no caller waits for a disk.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::Format;
use crate::principal::LogName;

/// What a line may wait for others to be written with.
const GATHER: Duration = Duration::from_millis(20);
/// Lines that may wait; where the log cannot be written, further ones are lost, not memory.
const MOST_WAITING: usize = 65_536;

/// What is told of one request. Never a path, a query or a token.
#[derive(Clone, Debug)]
pub struct Access {
    /// When its answer's head was known, or its caller left.
    pub at: Instant,
    /// The route's label.
    pub route: Arc<str>,
    /// The method.
    pub method: &'static str,
    /// The status of the answer; 499 where the caller left before it.
    pub status: u16,
    /// How it ended.
    pub outcome: &'static str,
    /// Who answered.
    pub source: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// Whether the request saw a renewal.
    pub renewed: bool,
    /// Whether it was sent twice.
    pub replayed: bool,
    /// What stands for whose credentials were asked for.
    pub principal: Option<LogName>,
}

/// Where requests are told of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// None where the filter wants no access events.
    told: Option<mpsc::Sender<Told>>,
    waiting: Arc<AtomicUsize>,
    /// Counts those that found no room.
    lost: Counter,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer {
    told: mpsc::Sender<Told>,
    thread: thread::JoinHandle<()>,
}

#[derive(Debug)]
enum Told {
    Request(Access),
    End,
}

impl AccessLog {
    /// Starts the thread, which writes to standard error. `lost` counts what is dropped.
    pub fn start(format: Format, lost: Counter) -> io::Result<(AccessLog, Writer)> {
        let wanted = tracing::enabled!(target: "access", tracing::Level::INFO);
        AccessLog::start_on(io::stderr(), wanted, format, lost)
    }

    fn start_on(
        to: impl Write + Send + 'static,
        wanted: bool,
        format: Format,
        lost: Counter,
    ) -> io::Result<(AccessLog, Writer)> {
        let (told, heard) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let lines = Lines {
            heard,
            waiting: waiting.clone(),
            format,
        };
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || lines.write(to))?;
        let log = AccessLog {
            told: wanted.then(|| told.clone()),
            waiting,
            lost,
        };
        Ok((log, Writer { told, thread }))
    }

    /// Tells of a request. Never waits.
    pub fn tell(&self, access: Access) {
        let Some(told) = &self.told else {
            return;
        };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MOST_WAITING
            || told.send(Told::Request(access)).is_err()
        {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.lost.inc();
        }
    }
}

impl Writer {
    /// Returns once all that was told is written.
    pub fn finish(self) {
        let Writer { told, thread } = self;
        // Fails only where the thread has panicked, which the next line tells.
        let _ = told.send(Told::End);
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Lines {
    heard: mpsc::Receiver<Told>,
    waiting: Arc<AtomicUsize>,
    format: Format,
}

impl Lines {
    fn write(self, mut to: impl Write) {
        let mut lines = String::new();
        let mut ended = false;
        while !ended {
            let Ok(first) = self.heard.recv() else {
                return;
            };
            if let Told::Request(_) = first {
                thread::sleep(GATHER);
            }
            let mut stamp = Stamp::new(Instant::now(), SystemTime::now());
            for told in std::iter::once(first).chain(self.heard.try_iter()) {
                match told {
                    Told::Request(access) => {
                        self.waiting.fetch_sub(1, Ordering::Relaxed);
                        line(self.format, &mut stamp, &access, &mut lines);
                    }
                    Told::End => ended = true,
                }
            }
            // Where the log cannot be written, nobody can be told.
            let _ = to.write_all(lines.as_bytes()).and_then(|()| to.flush());
            lines.clear();
        }
    }
}

/// Every text is one of ours, and needs no escaping: routes are written plainly. Joined
/// rather than formatted: it is done for every request.
fn line(format: Format, stamp: &mut Stamp, access: &Access, lines: &mut String) {
    let Access {
        at,
        route,
        method,
        status,
        outcome,
        source,
        duration,
        renewed,
        replayed,
        principal,
    } = access;
    let micros = duration.as_micros();
    let (mut whole, mut parts, mut number) = (
        itoa::Buffer::new(),
        itoa::Buffer::new(),
        itoa::Buffer::new(),
    );
    let millis = whole.format(micros / 1000);
    // With its leading zeros.
    let thousandths = &parts.format(1000 + micros % 1000)[1..];
    let status = number.format(*status);
    let [renewed, replayed] = [*renewed, *replayed].map(|is| if is { "true" } else { "false" });
    if format == Format::Json {
        lines.push_str(r#"{"timestamp":""#);
    }
    stamp.write(*at, lines);
    match format {
        Format::Json => lines.extend([
            r#"","level":"INFO","route":""#,
            route,
            r#"","method":""#,
            method,
            r#"","status":"#,
            status,
            r#","outcome":""#,
            outcome,
            r#"","source":""#,
            source,
            r#"","duration_ms":"#,
            millis,
            ".",
            thousandths,
            r#","renewed":"#,
            renewed,
            r#","replayed":"#,
            replayed,
        ]),
        Format::Text => lines.extend([
            r#"  INFO access: route=""#,
            route,
            r#"" method=""#,
            method,
            r#"" status="#,
            status,
            r#" outcome=""#,
            outcome,
            r#"" source=""#,
            source,
            r#"" duration_ms="#,
            millis,
            ".",
            thousandths,
            " renewed=",
            renewed,
            " replayed=",
            replayed,
        ]),
    }
    let (before, after, end) = match format {
        Format::Json => (r#","principal":""#, "\"", ",\"target\":\"access\"}\n"),
        Format::Text => (" principal=\"", "\"", "\n"),
    };
    if let Some(principal) = principal {
        lines.extend([before, principal.as_str(), after]);
    }
    lines.push_str(end);
}

/// Writes when something happened. Workers read the monotonic clock alone; what the wall clock says
/// is found out once for many lines, and each second is written out once.
struct Stamp {
    monotonic: Instant,
    wall: SystemTime,
    /// Seconds since 1970, and how they are written.
    second: (u64, String),
}

impl Stamp {
    /// Both clocks, read at once.
    fn new(monotonic: Instant, wall: SystemTime) -> Stamp {
        Stamp {
            monotonic,
            wall,
            second: (u64::MAX, String::new()),
        }
    }

    fn write(&mut self, at: Instant, lines: &mut String) {
        let ago = self.monotonic.saturating_duration_since(at);
        let wall = self.wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        let since = wall.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default();
        if self.second.0 != since.as_secs() {
            let second = Duration::from_secs(since.as_secs());
            let second = jiff::Timestamp::try_from(SystemTime::UNIX_EPOCH + second);
            let text = second.unwrap_or_default().to_string();
            self.second = (since.as_secs(), text.trim_end_matches('Z').to_owned());
        }
        let (_, second) = &self.second;
        let mut number = itoa::Buffer::new();
        let micros = &number.format(1_000_000 + since.subsec_micros())[1..];
        lines.extend([second, ".", micros, "Z"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::UNIX_EPOCH;

    /// What was written, a call a piece.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<String>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.lock().unwrap().push(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn access() -> Access {
        Access {
            at: Instant::now(),
            route: "/indicators/v3".into(),
            method: "GET",
            status: 200,
            outcome: "forwarded",
            source: "upstream",
            duration: Duration::from_micros(1_234),
            renewed: false,
            replayed: true,
            principal: Some(LogName::of([
                0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
            ])),
        }
    }

    /// One line, of something that happened 1 µs into a second.
    fn line_of(format: Format, access: &Access) -> String {
        let wall = UNIX_EPOCH + Duration::from_micros(1_795_348_800_000_001);
        let later = Duration::from_millis(1_500);
        let mut stamp = Stamp::new(access.at + later, wall + later);
        let mut lines = String::new();
        line(format, &mut stamp, access, &mut lines);
        lines
    }

    fn written(wanted: bool, format: Format, told: &[Access]) -> Vec<String> {
        let page = Page::default();
        let (log, writer) =
            AccessLog::start_on(page.clone(), wanted, format, Counter::default()).unwrap();
        told.iter().for_each(|access| log.tell(access.clone()));
        writer.finish();
        page.0.lock().unwrap().clone()
    }

    #[test]
    fn a_line_is_an_object_with_every_field() {
        let nobody = Access {
            principal: None,
            ..access()
        };
        let [somebody, nobody] = [access(), nobody].map(|access| {
            let line = line_of(Format::Json, &access);
            assert!(line.ends_with('\n'));
            serde_json::from_str::<serde_json::Value>(&line).unwrap()
        });
        let mut expected = serde_json::json!({
            "timestamp": "2026-11-22T12:00:00.000001Z",
            "level": "INFO",
            "route": "/indicators/v3",
            "method": "GET",
            "status": 200,
            "outcome": "forwarded",
            "source": "upstream",
            "duration_ms": 1.234,
            "renewed": false,
            "replayed": true,
            "principal": "0123456789abcdef",
            "target": "access",
        });
        assert_eq!(somebody, expected);
        expected.as_object_mut().unwrap().remove("principal");
        assert_eq!(nobody, expected);
    }

    #[test]
    fn a_line_for_people_has_the_same() {
        assert_eq!(
            line_of(Format::Text, &access()),
            "2026-11-22T12:00:00.000001Z  INFO access: route=\"/indicators/v3\" method=\"GET\" \
             status=200 outcome=\"forwarded\" source=\"upstream\" duration_ms=1.234 renewed=false \
             replayed=true principal=\"0123456789abcdef\"\n"
        );
    }

    #[test]
    fn stamps_follow_the_clock_from_second_to_second() {
        let now = Instant::now();
        let wall = UNIX_EPOCH + Duration::from_millis(1_795_348_800_250);
        let mut stamp = Stamp::new(now, wall);
        let mut stamped = |ago| {
            let mut text = String::new();
            stamp.write(now - Duration::from_millis(ago), &mut text);
            text
        };
        assert_eq!(stamped(251), "2026-11-22T11:59:59.999000Z");
        assert_eq!(stamped(250), "2026-11-22T12:00:00.000000Z");
        assert_eq!(stamped(0), "2026-11-22T12:00:00.250000Z");
        assert_eq!(stamped(300), "2026-11-22T11:59:59.950000Z");
    }

    #[test]
    fn all_that_was_told_is_written_before_the_end_and_many_lines_at_once() {
        let pieces = written(true, Format::Json, &vec![access(); 10_000]);
        assert_eq!(pieces.concat().lines().count(), 10_000);
        assert!(pieces.len() < 1_000, "{} writes", pieces.len());
    }

    #[test]
    fn nothing_is_written_where_the_filter_wants_none() {
        assert_eq!(written(false, Format::Json, &[access()]).concat(), "");
    }

    #[test]
    fn where_the_log_cannot_be_written_lines_are_lost_rather_than_memory() {
        struct Stuck(mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (free, stuck) = mpsc::channel();
        let started = AccessLog::start_on(Stuck(stuck), true, Format::Json, Counter::default());
        let (log, writer) = started.unwrap();
        for _ in 0..3 * MOST_WAITING {
            log.tell(access());
        }
        assert!(log.waiting.load(Ordering::Relaxed) <= MOST_WAITING);
        assert!(log.lost.get() >= MOST_WAITING as u64);
        drop(free);
        writer.finish();
        assert_eq!(log.waiting.load(Ordering::Relaxed), 0);
    }
}
