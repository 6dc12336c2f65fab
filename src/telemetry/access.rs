//! The access log: one line for each request. A worker appends it to a buffer of its own, without `tracing`,
//! which costs more; the thread of the log writes it with many others.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::writer::{Buffer, Lines};
use super::{Format, Target};
use super::{LogName, TraceId};

/// What is recorded of one request. Never a path, a query or a token.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// When its answer's head was known, or its caller left.
    pub at: Instant,
    /// The route's label.
    pub route: &'a str,
    /// The method.
    pub method: &'static str,
    /// The status of the answer; 499 if the caller left before it.
    pub status: u16,
    /// How it ended.
    pub outcome: &'static str,
    /// Who decided the answer.
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
    /// Which trace the request is part of.
    pub trace_id: Option<TraceId>,
}

/// Gives every worker its buffer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog(Lines);

/// Where one worker records its requests.
#[derive(Debug)]
pub struct AccessWriter {
    lines: Lines,
    buffer: Arc<Buffer>,
    timestamp: RefCell<Timestamp>,
}

impl AccessLog {
    /// Writes to `lines`, while the filter wants access events.
    pub fn new(lines: &Lines) -> AccessLog {
        AccessLog(lines.clone())
    }

    /// For one worker.
    pub fn writer(&self) -> AccessWriter {
        AccessWriter {
            lines: self.0.clone(),
            buffer: Buffer::of(Target::Access),
            timestamp: RefCell::default(),
        }
    }
}

impl AccessWriter {
    /// Records a request. Never waits.
    pub fn record(&self, access: &Access<'_>) {
        let lines = &self.lines;
        if !lines.wants_access() {
            return;
        }
        lines.write(&self.buffer, |is_first, text| {
            let timestamp = &mut *self.timestamp.borrow_mut();
            if is_first {
                timestamp.set(access.at, SystemTime::now());
            }
            line(lines.format(), timestamp, access, text);
        });
    }
}

/// Appends one line. No text comes from a caller, so that none needs escaping. The parts are appended
/// rather than formatted, because this happens for every request.
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
        ..
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
    end(format, access, lines);
}

/// Adds the fields that not every line has, and ends it.
fn end(format: Format, access: &Access<'_>, lines: &mut String) {
    let ([code, principal, trace_id], end) = match format {
        Format::Json => (
            [r#","code":""#, r#","principal":""#, r#","trace_id":""#],
            ",\"target\":\"access\"}\n",
        ),
        Format::Text => ([" code=\"", " principal=\"", " trace_id=\""], "\n"),
    };
    if let Some(word) = access.code {
        lines.extend([code, word, "\""]);
    }
    if let Some(name) = access.principal {
        lines.extend([principal, name.as_str(), "\""]);
    }
    if let Some(id) = access.trace_id {
        lines.push_str(trace_id);
        lines.extend(id.digits().map(char::from));
        lines.push('"');
    }
    lines.push_str(end);
}

/// Writes the time of a request. For each request only the monotonic clock is read; the wall clock is
/// read once for many lines, and each second is formatted once.
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
mod tests;
