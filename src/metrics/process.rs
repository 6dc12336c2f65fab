//! What the system knows of this process: the `process_*` metrics that every Prometheus client has.
//! Read at each scrape; what the system does not tell is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads `/proc`.
#[derive(Debug)]
pub(super) struct Process;

/// What `/proc/self/stat` says, in the units of Prometheus.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    /// After the start of the system.
    started_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut show = |name, help, unit: Option<Unit>, metric: &dyn EncodeMetric| {
            let metric_type = metric.metric_type();
            let described = encoder.encode_descriptor(name, help, unit.as_ref(), metric_type)?;
            metric.encode(described)
        };
        if let Some(open) = open_descriptors() {
            let help = "Number of open file descriptors.";
            show("process_open_fds", help, None, &ConstGauge::new(open))?;
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let help = "Maximum number of open file descriptors.";
            show("process_max_fds", help, None, &ConstGauge::new(most))?;
        }
        let Some(stat) = fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|text| Stat::read(&text, clock_ticks_per_second(), page_size()))
        else {
            return Ok(());
        };
        show(
            "process_cpu",
            "Total user and system CPU time spent in seconds.",
            Some(Unit::Seconds),
            &ConstCounter::new(stat.cpu_seconds),
        )?;
        show(
            "process_virtual_memory",
            "Virtual memory size in bytes.",
            Some(Unit::Bytes),
            &ConstGauge::new(stat.virtual_bytes),
        )?;
        show(
            "process_resident_memory",
            "Resident memory size in bytes.",
            Some(Unit::Bytes),
            &ConstGauge::new(stat.resident_bytes),
        )?;
        show(
            "process_threads",
            "Number of OS threads in the process.",
            None,
            &ConstGauge::new(stat.threads),
        )?;
        if let Some(booted) = boot_time() {
            show(
                "process_start_time",
                "Start time of the process since unix epoch in seconds.",
                Some(Unit::Seconds),
                &ConstGauge::new(booted + stat.started_seconds),
            )?;
        }
        Ok(())
    }
}

impl Stat {
    /// `text` as proc(5) describes it. The command in parentheses may hold anything.
    fn read(text: &str, ticks_per_second: u64, page_size: usize) -> Option<Stat> {
        let (_, behind_the_command) = text.rsplit_once(')')?;
        let fields: Vec<&str> = behind_the_command.split_ascii_whitespace().collect();
        // proc(5) counts from 1, with the pid and the command before these.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second as f64;
        Some(Stat {
            cpu_seconds: seconds(field(14)? + field(15)?),
            threads: field(20)?,
            started_seconds: seconds(field(22)?),
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_size as u64,
        })
    }
}

/// How many descriptors are open, without the one that looks.
fn open_descriptors() -> Option<u64> {
    let seen = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(seen.saturating_sub(1))
}

/// When the system started, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_proc_5_whatever_the_command_is_called() {
        let text = "4242 (a) b) S 1 4242 4242 0 -1 4194560 900 0 3 0 150 50 0 0 20 0 7 0 12345 \
                    99328000 2048 18446744073709551615 1 1 0";
        let read = Stat {
            cpu_seconds: 2.0,
            threads: 7,
            started_seconds: 123.45,
            virtual_bytes: 99_328_000,
            resident_bytes: 2048 * 4096,
        };
        assert_eq!(Stat::read(text, 100, 4096), Some(read));
        assert_eq!(Stat::read("4242 (short) S 1", 100, 4096), None);
    }

    #[test]
    fn the_system_tells_about_this_process() {
        assert!(boot_time().is_some_and(|booted| booted > 1e9));
        assert!(open_descriptors().is_some_and(|open| open >= 3));
        let text = fs::read_to_string("/proc/self/stat").unwrap();
        let stat = Stat::read(&text, clock_ticks_per_second(), page_size()).unwrap();
        assert!(stat.resident_bytes > 0 && stat.resident_bytes < stat.virtual_bytes);
    }
}
