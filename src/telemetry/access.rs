//! The access log: one line a request. A worker appends it to a buffer of its own, without `tracing`,
//! which costs more; the thread of the log writes it with many others.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::LogName;
use super::writer::{Buffer, Lines};
use super::{Format, Target};

/// What is recorded of one request. Never a path, a query or a token.
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
    /// The code word of the error that the proxy answered with, if it did.
    pub code: Option<&'static str>,
    /// What stands for whose credentials were asked for.
    pub principal: Option<LogName>,
}

/// Gives every worker its buffer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// `None` if the filter wants no access events.
    lines: Option<Lines>,
}

/// Where one worker records its requests.
#[derive(Debug)]
pub struct AccessWriter {
    lines: Option<Lines>,
    buffer: Arc<Buffer>,
    timestamp: RefCell<Timestamp>,
}

impl AccessLog {
    /// Writes to `lines`, if the filter wants access events.
    pub fn new(lines: &Lines) -> AccessLog {
        AccessLog::wanted(
            tracing::enabled!(target: "access", tracing::Level::INFO),
            lines,
        )
    }

    fn wanted(wanted: bool, lines: &Lines) -> AccessLog {
        AccessLog {
            lines: wanted.then(|| lines.clone()),
        }
    }

    /// For one worker.
    pub fn writer(&self) -> AccessWriter {
        AccessWriter {
            lines: self.lines.clone(),
            buffer: Buffer::of(Target::Access),
            timestamp: RefCell::default(),
        }
    }
}

impl AccessWriter {
    /// Records a request. Never waits.
    pub fn record(&self, access: &Access<'_>) {
        let Some(lines) = &self.lines else {
            return;
        };
        lines.write(&self.buffer, |is_first, text| {
            let timestamp = &mut *self.timestamp.borrow_mut();
            if is_first {
                timestamp.set(access.at, SystemTime::now());
            }
            line(lines.format(), timestamp, access, text);
        });
    }
}

/// Every text is one of ours, and needs no escaping: routes are written plainly. Joined
/// rather than formatted: it is done for every request.
fn line(format: Format, timestamp: &mut Timestamp, access: &Access<'_>, lines: &mut String) {
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
        code,
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
    timestamp.write(*at, lines);
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
    let (code_before, before, after, end) = match format {
        Format::Json => (
            r#","code":""#,
            r#","principal":""#,
            "\"",
            ",\"target\":\"access\"}\n",
        ),
        Format::Text => (" code=\"", " principal=\"", "\"", "\n"),
    };
    if let Some(code) = code {
        lines.extend([code_before, code, after]);
    }
    if let Some(principal) = principal {
        lines.extend([before, principal.as_str(), after]);
    }
    lines.push_str(end);
}

/// Writes when something happened. For each request the monotonic clock alone is read; what the wall
/// clock says is found out once for many lines, and each second is written out once.
#[derive(Debug, Default)]
struct Timestamp {
    /// One moment, on both clocks.
    known: Option<(Instant, SystemTime)>,
    /// Seconds since 1970, and how they are written.
    second: (u64, String),
}

impl Timestamp {
    fn set(&mut self, monotonic: Instant, wall: SystemTime) {
        self.known = Some((monotonic, wall));
    }

    fn write(&mut self, at: Instant, lines: &mut String) {
        let (monotonic, wall) = self.known.expect("set before the first line of a buffer");
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
    use crate::telemetry::writer::tests::{Paper, log_on};
    use std::time::UNIX_EPOCH;

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
            code: None,
            principal: Some(LogName::of([
                0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
            ])),
        }
    }

    /// One line, of something that happened 1 µs into a second.
    fn line_of(format: Format, access: &Access<'_>) -> String {
        let wall = UNIX_EPOCH + Duration::from_micros(1_795_348_800_000_001);
        let before = Duration::from_millis(1_500);
        let mut timestamp = Timestamp::default();
        timestamp.set(access.at - before, wall - before);
        let mut lines = String::new();
        line(format, &mut timestamp, access, &mut lines);
        lines
    }

    fn written(wanted: bool, format: Format, events: &[Access<'_>]) -> Vec<String> {
        let paper = Paper::default();
        let log = log_on(paper.clone(), format);
        let writer = AccessLog::wanted(wanted, log.lines()).writer();
        events.iter().for_each(|access| writer.record(access));
        drop(log);
        paper.pieces()
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
    fn an_error_of_the_proxy_is_told_with_its_code() {
        let refused = Access {
            status: 503,
            code: Some("login_blocked"),
            ..access()
        };
        let line = line_of(Format::Json, &refused);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["status"], &line["code"]),
            (&503.into(), &"login_blocked".into())
        );
        let line = line_of(Format::Text, &refused);
        assert!(
            line.contains(" code=\"login_blocked\" principal="),
            "{line}"
        );
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
        let mut timestamp = Timestamp::default();
        timestamp.set(now, wall);
        let mut stamped = |later| {
            let mut text = String::new();
            timestamp.write(now + Duration::from_millis(later), &mut text);
            text
        };
        assert_eq!(stamped(0), "2026-11-22T12:00:00.250000Z");
        assert_eq!(stamped(749), "2026-11-22T12:00:00.999000Z");
        assert_eq!(stamped(750), "2026-11-22T12:00:01.000000Z");
        assert_eq!(stamped(1), "2026-11-22T12:00:00.251000Z");
        // The wall clock was set back.
        timestamp.set(now, UNIX_EPOCH + Duration::from_millis(250));
        let mut text = String::new();
        timestamp.write(now, &mut text);
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
    fn no_line_is_torn_or_lost_while_workers_record_and_the_thread_writes() {
        let paper = Paper::default();
        let log = log_on(paper.clone(), Format::Json);
        let access_log = AccessLog::wanted(true, log.lines());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let writer = access_log.writer();
                scope.spawn(move || {
                    for told in 0..5_000 {
                        writer.record(&access());
                        if told % 1_000 == 0 {
                            std::thread::sleep(Duration::from_millis(20));
                        }
                    }
                });
            }
        });
        drop(log);
        let text = paper.pieces().concat();
        let is_whole = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert_eq!(text.lines().filter(|line| is_whole(line)).count(), 20_000);
        assert_eq!(text.lines().count(), 20_000);
    }
}
