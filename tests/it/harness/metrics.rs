//! What a proxy's listeners for probes and for operators say.

use std::net::SocketAddr;

use http::Request;
use http_body_util::Full;
use serde_json::Value;

use super::caller::Answer;
use super::process::Proxy;

impl Proxy {
    /// `GET path` on the status listener.
    pub async fn status(&self, path: &str) -> Answer {
        self.ask_at(self.status, path).await
    }

    /// `GET path` on the listener for operators.
    pub async fn admin(&self, path: &str) -> Answer {
        self.ask_at(self.admin_address(), path).await
    }

    /// What `/api/state` says.
    pub async fn state(&self) -> Value {
        let answer = self.admin("/api/state").await;
        serde_json::from_slice(answer.content()).unwrap()
    }

    async fn ask_at(&self, address: SocketAddr, path: &str) -> Answer {
        let uri = format!("http://{address}{path}");
        self.client
            .send(Request::get(uri).body(Full::default()).unwrap())
            .await
            .expect("an answer")
    }

    /// The sum of a metric over all label sets that contain `labels`; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.status("/metrics").await.text();
        text.lines()
            .filter(|line| {
                line.strip_prefix("damoov_proxy_")
                    .is_some_and(|l| l.starts_with(name))
            })
            .filter(|line| line.contains(labels))
            .filter(|line| matches!(line[13 + name.len()..].chars().next(), Some('{' | ' ')))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}
