//! Access lines in both formats.

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
        trace_id: TraceId::of_traceparent(
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
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
    log.lines().want_access(wanted);
    let writer = AccessLog::new(log.lines()).writer();
    events.iter().for_each(|access| writer.record(access));
    drop(log);
    paper.pieces()
}

#[test]
fn a_line_is_an_object_with_every_field() {
    let nobody = Access {
        principal: None,
        trace_id: None,
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
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "target": "access",
    });
    assert_eq!(somebody, expected);
    for absent in ["principal", "trace_id"] {
        expected.as_object_mut().unwrap().remove(absent);
    }
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
         replayed=true principal=\"0123456789abcdef\" \
         trace_id=\"0af7651916cd43dd8448eb211c80319c\"\n"
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
    log.lines().want_access(true);
    let access_log = AccessLog::new(log.lines());
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
