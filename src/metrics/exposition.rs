//! The two text formats of `/metrics`. Prometheus' client writes OpenMetrics; what is older than that
//! reads the classic format, which says the same in other words.

use std::borrow::Cow;
use std::fmt::Write;

use http::HeaderMap;
use http::header::ACCEPT;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, which every tool reads.
    Classic,
    /// OpenMetrics 1.0.0, for those that ask for it.
    OpenMetrics,
}

impl Format {
    /// What the `Accept` fields of a request ask for: OpenMetrics if they name it, and do not prefer
    /// plain text; else the classic format.
    pub fn asked_for(headers: &HeaderMap) -> Format {
        let (mut open_metrics, mut plain) = (0, 0);
        for line in headers.get_all(ACCEPT) {
            for range in line.to_str().unwrap_or_default().split(',') {
                let (kind, quality) = media_range(range);
                match &*kind.to_ascii_lowercase() {
                    "application/openmetrics-text" => open_metrics = quality.max(open_metrics),
                    "text/plain" => plain = quality.max(plain),
                    _ => {}
                }
            }
        }
        match open_metrics > 0 && open_metrics >= plain {
            true => Format::OpenMetrics,
            false => Format::Classic,
        }
    }

    /// The content's type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The type of a media range and its weight in thousandths (RFC 9110 §12.5.1). A version that is not
/// written here weighs nothing.
fn media_range(range: &str) -> (&str, u16) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let mut quality = 1000;
    for parameter in parts {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        match &*name.trim().to_ascii_lowercase() {
            "q" => quality = thousandths(value),
            "version"
                if kind.eq_ignore_ascii_case("application/openmetrics-text")
                    && !matches!(value, "1.0.0" | "0.0.1") =>
            {
                return (kind, 0);
            }
            _ => {}
        }
    }
    (kind, quality)
}

/// A weight between 0 and 1; what is none of them counts as 0.
fn thousandths(weight: &str) -> u16 {
    let weight: f64 = weight.parse().unwrap_or(0.0);
    match (0.0..=1.0).contains(&weight) {
        true => (weight * 1000.0) as u16,
        false => 0,
    }
}

/// The classic form of `open_metrics`. There, a counter's description bears the full name of its
/// samples; an `info` is a gauge; units and the end are not written.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut classic = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(described) = line.strip_prefix("# ") else {
            writeln!(classic, "{line}").expect("writing into a String cannot fail");
            continue;
        };
        // A description always begins with the help, and the type follows.
        let Some((name, help)) = described
            .strip_prefix("HELP ")
            .and_then(|described| described.split_once(' '))
        else {
            continue;
        };
        let kind = lines
            .next_if(|next| next.starts_with("# TYPE "))
            .and_then(|line| line.rsplit(' ').next())
            .unwrap_or("unknown");
        let (name, kind) = described_as(name, kind);
        writeln!(classic, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing into a String cannot fail");
    }
    classic
}

/// The classic name and type of a metric.
fn described_as<'m>(name: &'m str, kind: &'m str) -> (Cow<'m, str>, &'m str) {
    match kind {
        "counter" => (format!("{name}_total").into(), kind),
        "info" => (format!("{name}_info").into(), "gauge"),
        "unknown" => (name.into(), "untyped"),
        _ => (name.into(), kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn asked_for(accept: &[&'static str]) -> Format {
        let accept = accept.iter().map(|a| HeaderValue::from_static(a));
        Format::asked_for(&accept.map(|accept| (ACCEPT, accept)).collect())
    }

    #[test]
    fn open_metrics_is_for_those_that_prefer_it_to_plain_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in [
            &[prometheus][..],
            &["application/openmetrics-text"],
            &[
                "text/html",
                "Application/OpenMetrics-Text; Version=\"1.0.0\"",
            ],
            &["text/plain;q=0.3, application/openmetrics-text;q=0.3"],
        ] {
            assert_eq!(asked_for(accept), Format::OpenMetrics, "{accept:?}");
        }
        for accept in [
            &[][..],
            &["*/*"],
            &["text/plain"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=0.2, text/plain"],
            &["application/openmetrics-text;version=2.0.0"],
            &["application/openmetrics-text;q=nonsense"],
            &["application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily"],
        ] {
            assert_eq!(asked_for(accept), Format::Classic, "{accept:?}");
        }
    }

    #[test]
    fn descriptions_bear_the_name_of_their_samples() {
        let open_metrics = "\
# HELP made Things made.
# TYPE made counter
made_total 3
# HELP took_seconds Time.
# TYPE took_seconds histogram
# UNIT took_seconds seconds
took_seconds_sum 0.5
took_seconds_count 1
took_seconds_bucket{le=\"+Inf\"} 1
# HELP build Version.
# TYPE build info
build_info{version=\"1\"} 1
# HELP odd Odd.
# TYPE odd unknown
odd 1
# EOF
";
        let expected = "\
# HELP made_total Things made.
# TYPE made_total counter
made_total 3
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_sum 0.5
took_seconds_count 1
took_seconds_bucket{le=\"+Inf\"} 1
# HELP build_info Version.
# TYPE build_info gauge
build_info{version=\"1\"} 1
# HELP odd Odd.
# TYPE odd untyped
odd 1
";
        assert_eq!(classic(open_metrics), expected);
    }
}
