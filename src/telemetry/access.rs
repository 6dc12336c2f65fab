//! The access log: one line a request. A worker appends it to a page of its own; a thread takes the
//! pages and writes them, many lines at once, so that no caller waits for a disk.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::Format;
use crate::principal::LogName;

/// What a line may wait for others to be written with.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that may wait on a worker's page; where the log cannot be written, further lines are lost,
/// not memory.
const PAGE_LIMIT: usize = 8 << 20;

/// What is told of one request. Never a path, a query or a token.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// When its answer's head was known, or its caller left.
    pub at: Instant,
    /// The route's label.
    pub route: &'a str,
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

/// Gives every worker its page. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// None where the filter wants no access events.
    told: Option<mpsc::Sender<Told>>,
    format: Format,
    /// Counts those that found no room.
    lost: Counter,
}

/// Where one worker tells of its requests.
#[derive(Debug)]
pub struct Teller {
    page: Arc<Page>,
    log: AccessLog,
}

/// Lines that wait to be written. While there are any, the writer has been told.
#[derive(Debug, Default)]
struct Page(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    text: String,
    stamp: Stamp,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer {
    told: mpsc::Sender<Told>,
    thread: thread::JoinHandle<()>,
}

#[derive(Debug)]
enum Told {
    Lines(Arc<Page>),
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
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&heard, to))?;
        let log = AccessLog {
            told: wanted.then(|| told.clone()),
            format,
            lost,
        };
        Ok((log, Writer { told, thread }))
    }

    /// For one worker.
    pub fn teller(&self) -> Teller {
        Teller {
            page: Arc::default(),
            log: self.clone(),
        }
    }
}

impl Teller {
    /// Tells of a request. Never waits.
    pub fn tell(&self, access: &Access<'_>) {
        let Some(told) = &self.log.told else {
            return;
        };
        let mut lines = self.page.lines();
        if lines.text.len() >= PAGE_LIMIT {
            self.log.lost.inc();
            return;
        }
        let is_first = lines.text.is_empty();
        if is_first {
            lines.stamp.set(access.at, SystemTime::now());
        }
        let Lines { text, stamp } = &mut *lines;
        line(self.log.format, stamp, access, text);
        drop(lines);
        if is_first {
            // Fails only where the thread has panicked: what is told then waits, and is lost.
            let _ = told.send(Told::Lines(self.page.clone()));
        }
    }
}

impl Page {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().expect("no code panics under this lock")
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

/// Writes page after page until told to end.
fn write(heard: &mpsc::Receiver<Told>, mut to: impl Write) {
    let mut text = String::new();
    let mut ended = false;
    while !ended {
        let Ok(first) = heard.recv() else {
            return;
        };
        if let Told::Lines(_) = first {
            thread::sleep(GATHER);
        }
        // All that is told by now, and only that: a worker tells again as soon as its page was taken.
        let told: Vec<_> = std::iter::once(first).chain(heard.try_iter()).collect();
        for told in told {
            let Told::Lines(page) = told else {
                ended = true;
                continue;
            };
            // Its worker goes on with the empty one.
            mem::swap(&mut text, &mut page.lines().text);
            // Where the log cannot be written, nobody can be told.
            let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
            text.clear();
        }
    }
}

/// Every text is one of ours, and needs no escaping: routes are written plainly. Joined
/// rather than formatted: it is done for every request.
fn line(format: Format, stamp: &mut Stamp, access: &Access<'_>, lines: &mut String) {
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

/// Writes when something happened. For each request the monotonic clock alone is read; what the wall
/// clock says is found out once for many lines, and each second is written out once.
#[derive(Debug, Default)]
struct Stamp {
    /// One moment, on both clocks.
    known: Option<(Instant, SystemTime)>,
    /// Seconds since 1970, and how they are written.
    second: (u64, String),
}

impl Stamp {
    fn set(&mut self, monotonic: Instant, wall: SystemTime) {
        self.known = Some((monotonic, wall));
    }

    fn write(&mut self, at: Instant, lines: &mut String) {
        let (monotonic, wall) = self.known.expect("set before the first line of a page");
        let since = wall.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default() + at.saturating_duration_since(monotonic);
        if self.second.0 != since.as_secs() || self.second.1.is_empty() {
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
    struct Paper(Arc<Mutex<Vec<String>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.lock().unwrap().push(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn access() -> Access<'static> {
        Access {
            at: Instant::now(),
            route: "/indicators/v3",
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
    fn line_of(format: Format, access: &Access<'_>) -> String {
        let wall = UNIX_EPOCH + Duration::from_micros(1_795_348_800_000_001);
        let before = Duration::from_millis(1_500);
        let mut stamp = Stamp::default();
        stamp.set(access.at - before, wall - before);
        let mut lines = String::new();
        line(format, &mut stamp, access, &mut lines);
        lines
    }

    fn written(wanted: bool, format: Format, told: &[Access<'_>]) -> Vec<String> {
        let paper = Paper::default();
        let (log, writer) =
            AccessLog::start_on(paper.clone(), wanted, format, Counter::default()).unwrap();
        let teller = log.teller();
        told.iter().for_each(|access| teller.tell(access));
        writer.finish();
        paper.0.lock().unwrap().clone()
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
        let mut stamp = Stamp::default();
        stamp.set(now, wall);
        let mut stamped = |later| {
            let mut text = String::new();
            stamp.write(now + Duration::from_millis(later), &mut text);
            text
        };
        assert_eq!(stamped(0), "2026-11-22T12:00:00.250000Z");
        assert_eq!(stamped(749), "2026-11-22T12:00:00.999000Z");
        assert_eq!(stamped(750), "2026-11-22T12:00:01.000000Z");
        assert_eq!(stamped(1), "2026-11-22T12:00:00.251000Z");
        // The wall clock was set back.
        stamp.set(now, UNIX_EPOCH + Duration::from_millis(250));
        let mut text = String::new();
        stamp.write(now, &mut text);
        assert_eq!(text, "1970-01-01T00:00:00.250000Z");
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
        let teller = log.teller();
        let line = line_of(Format::Json, &access()).len();
        for _ in 0..3 * PAGE_LIMIT / line {
            teller.tell(&access());
        }
        assert!(teller.page.lines().text.len() < PAGE_LIMIT + line);
        assert!(log.lost.get() >= (PAGE_LIMIT / line) as u64 - 1);
        drop(free);
        writer.finish();
        assert_eq!(teller.page.lines().text.len(), 0);
    }

    #[test]
    fn lines_are_gathered_while_they_keep_coming() {
        let paper = Paper::default();
        let started = AccessLog::start_on(paper.clone(), true, Format::Json, Counter::default());
        let (log, writer) = started.unwrap();
        let teller = log.teller();
        let began = Instant::now();
        while began.elapsed() < 10 * GATHER {
            teller.tell(&access());
        }
        writer.finish();
        let most = began.elapsed().as_millis() / GATHER.as_millis() + 2;
        let pieces = paper.0.lock().unwrap().len();
        assert!(pieces as u128 <= most, "{pieces} writes, {most} are enough");
    }

    #[test]
    fn no_line_is_torn_or_lost_while_workers_tell_and_the_thread_writes() {
        let paper = Paper::default();
        let started = AccessLog::start_on(paper.clone(), true, Format::Json, Counter::default());
        let (log, writer) = started.unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                let teller = log.teller();
                scope.spawn(move || {
                    for told in 0..5_000 {
                        teller.tell(&access());
                        if told % 1_000 == 0 {
                            thread::sleep(GATHER);
                        }
                    }
                });
            }
        });
        writer.finish();
        let text = paper.0.lock().unwrap().concat();
        let is_whole = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert_eq!(text.lines().filter(|line| is_whole(line)).count(), 20_000);
        assert_eq!(text.lines().count(), 20_000);
    }
}
