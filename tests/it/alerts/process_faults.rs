//! Alerts about the process itself: it is gone, its log, its configuration.

use std::fs::{self, OpenOptions};

use futures_util::future::{LocalBoxFuture, join_all};
use rustix::process::Signal;

use super::server::{watch, watch_at};
use crate::harness::{
    Client, Proxy, SCORES, damoov, eventually, loopback, proxy, user, write_private,
};

#[tokio::test]
async fn alerts_fire_by_faults_of_the_process_and_end_with_them() {
    // Most of them wait most of the time.
    let scenes: Vec<LocalBoxFuture<'_, ()>> = vec![
        Box::pin(a_proxy_that_is_gone_fires_until_it_is_back()),
        Box::pin(lines_that_the_log_loses_fire_until_none_is_lost()),
        Box::pin(a_configuration_that_is_refused_fires_until_a_valid_one_is_read()),
        Box::pin(a_setting_that_needs_a_restart_fires_until_it_is_put_back()),
    ];
    join_all(scenes).await;
}

async fn a_proxy_that_is_gone_fires_until_it_is_back() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    // Nobody else listens there while it is gone.
    let status = format!("{}:9091", proxy.address().ip());
    proxy.reconfigure("status.listen", &status);
    proxy.crash().await;
    let watched = watch("gone", &proxy).await;
    proxy.kill();
    watched.fires("DamoovProxyDown").await;
    proxy.start().await;
    watched.ends("DamoovProxyDown").await;
}

async fn lines_that_the_log_loses_fire_until_none_is_lost() {
    let damoov = damoov().await;
    let [listen, status] = [(), ()].map(|()| {
        let free = std::net::TcpListener::bind(loopback(0)).unwrap();
        free.local_addr().unwrap()
    });
    let proxy = proxy(&damoov)
        .set("listen", &listen.to_string())
        .set("status.listen", &status.to_string())
        .stopped_here();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = proxy.command("run").stderr(full).spawn().unwrap();
    let ask = async || {
        let request = http::Request::get(format!("http://{listen}{SCORES}"))
            .header("DeviceToken", user(1).to_string());
        let answer = Client::new()
            .send(request.body(Default::default()).unwrap())
            .await;
        answer.is_ok_and(|answer| answer.status == 200)
    };
    eventually("it serves", ask).await;
    let watched = watch_at("full-log", status).await;
    ask().await;
    watched.fires("DamoovProxyLogLinesLost").await;
    watched.ends("DamoovProxyLogLinesLost").await;
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Replaces the configuration, and asks the proxy to read it.
fn reload(proxy: &Proxy, text: &str) {
    write_private(proxy.config(), text);
    proxy.signal(Signal::HUP);
}

async fn a_configuration_that_is_refused_fires_until_a_valid_one_is_read() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let watched = watch("refused", &proxy).await;
    let good = fs::read_to_string(proxy.config()).unwrap();
    reload(&proxy, "not a configuration");
    watched.fires("DamoovProxyConfigRefused").await;
    reload(&proxy, &good);
    watched.ends("DamoovProxyConfigRefused").await;
}

async fn a_setting_that_needs_a_restart_fires_until_it_is_put_back() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    let watched = watch("restart-needed", &proxy).await;
    let good = fs::read_to_string(proxy.config()).unwrap();
    reload(&proxy, &format!("max_connections = 100\n{good}"));
    watched.fires("DamoovProxyRestartNeeded").await;
    reload(&proxy, &good);
    watched.ends("DamoovProxyRestartNeeded").await;
}
