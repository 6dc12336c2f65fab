//! Time that jumps, and time that is bought with an old token.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use damoov_proxy::clock::Clock;
use damoov_proxy::simulator::{Action, On};

use super::{calls, fault, log_in, refused, roomy, served};
use crate::harness::{Proxy, SCORES, damoov, damoov_with, eventually, proxy};

/// A stale token is good until it expires: nobody notices that it cannot be renewed.
#[tokio::test]
async fn a_stale_token_is_served_while_renewals_fail() {
    let scale = 60;
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.clock = Clock::scaled(scale);
        settings.lifetimes.after_login = std::time::Duration::from_secs(3600);
    })
    .await;
    let proxy = roomy(&damoov)
        .scaled(scale)
        .set("renewal.ahead", "0.02")
        .set("renewal.timeout", "10m")
        .set("renewal.wait", "20m")
        .start()
        .await;
    log_in(&damoov, &proxy, [1]).await;
    fault(&damoov, On::Refresh, Action::status(503));
    eventually("three renewals ahead of time failed", async || {
        served(&proxy.get(1, SCORES).await, 1);
        let failed = "grant=\"refresh\",trigger=\"ahead\",result=\"failed\"";
        proxy.metric("renewals_total", failed).await >= 3.0
    })
    .await;
    let stale = proxy.metric("token_lookups_total", "stale").await;
    assert!(stale >= 3.0, "{stale}");

    damoov.handle().clear_faults();
    eventually("a renewal ahead of time", async || {
        served(&proxy.get(1, SCORES).await, 1);
        damoov.handle().counts().total.refreshes.ok >= 1
    })
    .await;
    let total = damoov.handle().counts().total;
    assert_eq!((total.logins.all(), total.unauthorized), (0, 0));
}

#[tokio::test]
async fn a_wall_clock_that_jumps_renews_nobody() {
    let Some(shifted) = ShiftedClock::new() else {
        return;
    };
    let damoov = damoov().await;
    let proxy = roomy(&damoov)
        .set("login_budget.per", "1h")
        .set("renewal.keep_refresh_tokens", "1h");
    let proxy = shifted.apply(proxy.scaled(60)).start().await;
    log_in(&damoov, &proxy, 0..10).await;
    for days in [100, -100, 0] {
        shifted.set_days(days);
        let scans = || async { proxy.metric("store_operations_total", "scan").await };
        let before = scans().await;
        eventually("the keeper went two rounds", async || {
            scans().await >= before + 2.0
        })
        .await;
        for number in 0..10 {
            served(&proxy.get(number, SCORES).await, number);
            assert_eq!(calls(&damoov, number), (0, 0), "{days} days");
        }
    }
}

#[tokio::test]
async fn a_wall_clock_that_jumps_back_frees_no_login() {
    let Some(shifted) = ShiftedClock::new() else {
        return;
    };
    let damoov = damoov().await;
    let budget = proxy(&damoov)
        .set("login_budget.logins", "1")
        .set("login_budget.reserve", "0")
        .set("login_budget.per", "1h");
    let proxy: Proxy = shifted.apply(budget).start().await;
    served(&proxy.get(1, SCORES).await, 1);
    refused(&proxy.get(2, SCORES).await, 503, "login_budget_exhausted");
    shifted.set_days(-1);
    refused(&proxy.get(2, SCORES).await, 503, "login_budget_exhausted");
    shifted.set_days(1);
    served(&proxy.get(2, SCORES).await, 2);
}

/// A wall clock that a test shifts while the proxy runs: the C library's, with an offset that is
/// read from a file.
struct ShiftedClock {
    folder: tempfile::TempDir,
}

const SHIFTED_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    char text[32] = {0};
    if (clock == CLOCK_REALTIME) {
        int file = open(getenv("SHIFTED_CLOCK"), O_RDONLY);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) now->tv_sec += atol(text);
            close(file);
        }
    }
    return result;
}
"#;

impl ShiftedClock {
    /// None where the tests do not run on Linux.
    fn new() -> Option<ShiftedClock> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("clock.c");
        fs::write(&source, SHIFTED_CLOCK).unwrap();
        let clock = ShiftedClock { folder };
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(clock.library())
            .arg(&source)
            .status()
            .expect("the C compiler that builds SQLite");
        assert!(compiled.success());
        clock.set_days(0);
        Some(clock)
    }

    fn apply(&self, proxy: crate::harness::Builder) -> crate::harness::Builder {
        proxy
            .env("LD_PRELOAD", text(&self.library()))
            .env("SHIFTED_CLOCK", text(&self.offset()))
    }

    fn set_days(&self, days: i64) {
        let unfinished = self.folder.path().join("unfinished");
        fs::write(&unfinished, (days * 86_400).to_string()).unwrap();
        fs::rename(unfinished, self.offset()).unwrap();
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn offset(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
