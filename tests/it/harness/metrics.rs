//! What a proxy's status listener says.

use http::Request;
use http_body_util::Full;

use super::caller::Answer;
use super::process::Proxy;

impl Proxy {
    /// `GET path` on the status listener.
    pub async fn status(&self, path: &str) -> Answer {
        let uri = format!("http://{}{path}", self.status);
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
