//! Callers of a proxy, by way of a client that nothing of the proxy is part of.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::damoov::user;
use super::process::Proxy;

/// How long a connection is kept idle: less than the proxy does, because a request that meets the close of
/// its connection fails.
const IDLE: Duration = Duration::from_secs(30);

impl Proxy {
    /// The absolute URL of a path on this proxy.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A client of this proxy, with its own connections.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// `GET path` as user number `number`.
    pub async fn get(&self, number: usize, path: &str) -> Answer {
        self.send(Request::get(path).header("DeviceToken", user(number).to_string()))
            .await
    }

    /// A request without content; its URI is a path on this proxy.
    pub async fn send(&self, request: http::request::Builder) -> Answer {
        self.send_with(request, Bytes::new()).await
    }

    /// A request with content; its URI is a path on this proxy.
    pub async fn send_with(
        &self,
        request: http::request::Builder,
        content: impl Into<Bytes>,
    ) -> Answer {
        self.try_send(request, content).await.expect("an answer")
    }

    /// The same, where no answer at all is possible.
    pub async fn try_send(
        &self,
        request: http::request::Builder,
        content: impl Into<Bytes>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let mut request = request.body(Full::new(content.into())).unwrap();
        *request.uri_mut() = self.url(&request.uri().to_string()).parse().unwrap();
        self.client.send(request).await
    }

    /// Starts `GET path` as user number `number`, in a task that can be waited for or aborted.
    pub fn calling(&self, number: usize, path: &str) -> tokio::task::JoinHandle<Answer> {
        let request = Request::get(self.url(path))
            .header("DeviceToken", user(number).to_string())
            .body(Full::default())
            .unwrap();
        let client = self.client();
        tokio::spawn(async move { client.send(request).await.expect("an answer") })
    }
}

/// A pooled HTTP/1.1 client that nothing of the proxy is part of.
#[derive(Clone)]
pub struct Client(HyperClient<HttpConnector, Full<Bytes>>);

impl Client {
    /// One with no connections yet.
    pub fn new() -> Client {
        let mut client = HyperClient::builder(TokioExecutor::new());
        Client(client.pool_idle_timeout(IDLE).build_http())
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let (head, body) = self.0.request(request).await?.into_parts();
        let content = body.collect().await.map(|content| content.to_bytes());
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            content: content.ok(),
        })
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `None` if the content was cut.
    content: Option<Bytes>,
}

impl Answer {
    /// The content, which must be whole.
    pub fn content(&self) -> &Bytes {
        self.content.as_ref().expect("whole content")
    }

    /// Whether the content came to its end.
    pub fn is_whole(&self) -> bool {
        self.content.is_some()
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.content().to_vec()).unwrap()
    }

    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// `Errors[0].Key` of the envelope: the proxy's code word.
    pub fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(self.content()).unwrap_or_default();
        json["Errors"][0]["Key"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Whose token reached Damoov, as it says itself.
    pub fn served_as(&self) -> &str {
        self.header("x-sim-device-token")
    }
}
