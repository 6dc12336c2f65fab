//! The configuration, read again while the proxy runs: what takes effect at once, what needs a restart, what
//! is refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::{Method, Request};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Answer, ECHO, ECHO_HOST, Proxy, Scene, damoov, eventually, proxy, user, write_private,
};
use crate::wire::{GOOD, Upstream};

// Files that change: how soon that is noticed, in whatever way they are replaced.
mod files;
// Instances that go and return.
mod instances;
// Reloads under load.
mod load;
// Files that are refused.
mod refused;
// SIGHUP: a thousand of them, before the file is read, while draining.
mod signals;

impl Proxy {
    /// Puts this in the place of the file, as editors do: no reader sees a part of it.
    pub fn replace_config(&self, text: &str) {
        let new = self.config().with_extension("new");
        write_private(&new, text);
        fs::rename(new, self.config()).unwrap();
    }

    /// Changes the file.
    pub fn edit_config(&self, change: impl FnOnce(String) -> String) {
        let text = fs::read_to_string(self.config()).unwrap();
        self.replace_config(&change(text));
    }

    /// How many reloads have ended so.
    pub async fn reloads(&self, result: &str) -> f64 {
        let labels = format!("result=\"{result}\"");
        self.metric("config_reloads_total", &labels).await
    }

    /// Sends a SIGHUP, and returns once a reload has ended so that began after it.
    pub async fn reload(&self, result: &str) {
        let before = self.reloads(result).await;
        self.signal(Signal::HUP);
        eventually(result, async || self.reloads(result).await > before).await;
    }

    /// What lasts and is not good, by its code.
    pub async fn degraded(&self) -> Vec<(String, String)> {
        let answer = self.status("/readyz").await;
        assert_eq!(answer.status, 200);
        let said: Value = serde_json::from_slice(answer.content()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let degraded = said["degraded"].as_array().unwrap().iter();
        let degraded = degraded.map(|one| (text(&one["code"]), text(&one["message"])));
        degraded.collect()
    }

    /// How many lines of the log say this.
    pub fn lines_that_say(&self, text: &str) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }
}

/// A request of user 1.
async fn ask(proxy: &Proxy, method: Method, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("DeviceToken", user(1).to_string());
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    proxy.send(request).await
}

async fn get(proxy: &Proxy, path: &str, fields: &[(&str, &str)]) -> Answer {
    ask(proxy, Method::GET, path, fields).await
}

const PREFLIGHT: [(&str, &str); 2] = [
    ("Origin", "https://app.example"),
    ("Access-Control-Request-Method", "GET"),
];

#[tokio::test]
async fn what_a_request_is_answered_by_changes_at_the_next_request() {
    let Scene { damoov, proxy } = Scene::new().await;
    let other = Upstream::listen().await;
    let host = [("Host", "proxy.example")];
    assert_eq!(get(&proxy, "/custom", &[]).await.code(), "route_unknown");
    assert_eq!(get(&proxy, ECHO, &host).await.code(), "misdirected");
    let preflight = ask(&proxy, Method::OPTIONS, ECHO, &PREFLIGHT).await;
    assert_eq!(preflight.code(), "origin_forbidden");
    assert_eq!(get(&proxy, ECHO, &[]).await.status, 200);
    let login = async |password: &str| {
        let fields = serde_json::json!({"Devicetoken": user(1).to_string()}).to_string();
        let login = serde_json::json!({"LoginFields": fields, "Password": password});
        let request = Request::post("/v1/Auth/Login");
        let answer = proxy.send_with(request, login.to_string()).await;
        answer.status.as_u16()
    };
    let key = damoov_proxy::simulator::INSTANCE_KEY;
    assert_eq!((login(key).await, login("another").await), (200, 401));

    proxy.edit_config(|text| {
        let hosts = text.lines().find(|line| line.contains(ECHO_HOST)).unwrap();
        let text = text
            .replace(hosts, &format!("\"{ECHO_HOST}\" = \"{}\"", other.url()))
            .replace(&format!("key = \"{key}\""), "key = \"another\"");
        format!(
            "hosts = [\"proxy.example\"]\nallowed_origins = [\"https://app.example\"]\n{text}\n\
             [[route]]\npath = \"/custom\"\nhost = \"{ECHO_HOST}\"\ncredential = \"user\"\n"
        )
    });
    proxy.reload("applied").await;

    let heard = damoov.handle().requests().len();
    for (path, fields) in [("/custom", &[][..]), (ECHO, &host), (ECHO, &[])] {
        let (answer, ()) = tokio::join!(get(&proxy, path, fields), async {
            other.answer_once(GOOD).await.close().await;
        });
        assert_eq!(answer.text(), "good", "{path} {fields:?}");
    }
    assert_eq!(damoov.handle().requests().len(), heard, "it goes elsewhere");
    let preflight = ask(&proxy, Method::OPTIONS, ECHO, &PREFLIGHT).await;
    assert_eq!(preflight.status, 204);
    assert_eq!((login("another").await, login(key).await), (200, 401));
    // Probes are checked by the same hosts.
    let metrics = Request::get(format!("http://{}/metrics", proxy.status_address()))
        .header("Host", "proxy.example")
        .body(Default::default());
    let metrics = proxy.client().send(metrics.unwrap()).await.unwrap();
    assert_eq!(metrics.status, 200);
    proxy.reload("unchanged").await;
    assert_eq!(proxy.metric("config_last_reload_successful", "").await, 1.0);
    let audit: Value = serde_json::from_str(
        proxy
            .log()
            .lines()
            .find(|line| line.contains("\"target\":\"audit\"") && line.contains("applied"))
            .expect("it is in the audit log"),
    )
    .unwrap();
    assert_eq!(
        (&audit["message"], &audit["trigger"]),
        (&"reload".into(), &"signal".into())
    );
}

#[tokio::test]
async fn the_numbers_of_renewals_logins_and_the_end_change_at_their_next_use() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    assert_eq!(proxy.metric("login_budget_limit", "").await, 4.0);
    let log_lines = proxy.lines_that_say("\"target\":\"access\"");
    proxy.edit_config(|text| {
        let text = text.replace("drain_delay = \"0s\"", "drain_delay = \"1h\"");
        format!(
            "drain_timeout = \"1s\"\n{text}\n[login_budget]\nlogins = 1\nper = \"1h\"\n\
             [renewal]\nwait = \"100ms\"\n[log]\nlevel = \"warn\"\n"
        )
    });
    proxy.reload("applied").await;
    assert_eq!(proxy.metric("login_budget_limit", "").await, 1.0);
    assert_eq!(proxy.get(1, ECHO).await.status, 200);
    // The second one waits for 100 ms, not for 20 s.
    let asked = tokio::time::Instant::now();
    assert_eq!(proxy.get(2, ECHO).await.code(), "login_budget_exhausted");
    assert!(asked.elapsed() < Duration::from_secs(15));
    assert_eq!(proxy.lines_that_say("\"target\":\"access\""), log_lines);

    proxy.edit_config(|text| text.replace("level = \"warn\"", "level = \"info\""));
    proxy.reload("applied").await;
    assert_eq!(proxy.get(1, ECHO).await.status, 200);
    proxy.has_logged("\"target\":\"access\"").await;
    proxy.signal(Signal::TERM);
    eventually("it leaves", async || {
        proxy.status("/readyz").await.status == 503
    })
    .await;
    proxy.has_logged("\"drain_delay_seconds\":3600.0").await;
    assert_eq!(proxy.get(1, ECHO).await.status, 200, "it still accepts");
    proxy.kill();
}

#[tokio::test]
async fn what_needs_a_restart_is_named_until_put_back_the_rest_is_in_force() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    let before = fs::read_to_string(proxy.config()).unwrap();
    proxy.edit_config(|text| {
        let store = text
            .lines()
            .find(|line| line.starts_with("path = "))
            .unwrap();
        let text = text.replace(store, "path = \"elsewhere\"");
        format!(
            "max_connections = 7\nhosts = [\"proxy.example\"]\n{text}\n[workers]\nthreads = 1\n"
        )
    });
    proxy.reload("applied").await;
    let keys = "max_connections, workers.threads, store.path";
    assert_eq!(proxy.metric("config_restart_needed", "").await, 3.0);
    let degraded = proxy.degraded().await;
    assert_eq!(degraded.len(), 1, "{degraded:?}");
    assert_eq!(degraded[0].0, "restart_needed");
    assert!(degraded[0].1.contains(keys), "{}", degraded[0].1);
    proxy.has_logged(&format!("\"keys\":\"{keys}\"")).await;
    let host = [("Host", "proxy.example")];
    assert_eq!(get(&proxy, ECHO, &host).await.status, 200);

    proxy.replace_config(&before);
    proxy.reload("applied").await;
    assert_eq!(proxy.metric("config_restart_needed", "").await, 0.0);
    assert_eq!(proxy.degraded().await, []);
    assert_eq!(get(&proxy, ECHO, &host).await.code(), "misdirected");

    proxy.edit_config(|text| format!("max_connections = 7\n{text}"));
    proxy.reload("applied").await;
    assert_eq!(proxy.metric("config_restart_needed", "").await, 1.0);
    assert!(proxy.terminate().await.success());
    proxy.start().await;
    assert_eq!(proxy.metric("config_restart_needed", "").await, 0.0);
}

/// What `path` holds from now on; others may not read it.
fn put(path: &Path, text: &str) {
    write_private(path, text);
}
