//! A client for one call a connection, so that what happens to the connection is seen.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::simulator::{ACCOUNT_EMAIL, ACCOUNT_PASSWORD, INSTANCE_ID, INSTANCE_KEY};

type Content = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Calls one simulator.
pub(super) struct Client(SocketAddr);

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) content: Bytes,
}

pub(super) fn content(content: impl Into<Bytes>) -> Content {
    Full::new(content.into()).boxed_unsync()
}

/// Content that does not come before the sender is dropped.
pub(super) fn slow_content() -> (oneshot::Sender<()>, Content) {
    let (sender, dropped) = oneshot::channel::<()>();
    let pieces = futures_util::stream::unfold(Some(dropped), |dropped| async move {
        dropped?.await.ok();
        Some((Ok(Frame::data(Bytes::from("late"))), None))
    });
    (sender, StreamBody::new(pieces).boxed_unsync())
}

pub(super) fn request(method: Method, target: &str) -> request::Builder {
    Request::builder()
        .method(method)
        .uri(target)
        .header("host", "simulated")
}

pub(super) fn login_body(device: &str) -> Value {
    json!({"LoginFields": json!({"Devicetoken": device}).to_string(), "Password": INSTANCE_KEY})
}

/// The status of an answer over TLS, or why there is none.
pub(super) async fn status_over_tls(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> Result<u16, std::io::Error> {
    let stream = TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let stream = connector.connect(name, stream).await?;
    let request = request(Method::GET, "/_control").body(content(""));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    Ok(answer.status().as_u16())
}

impl Client {
    pub(super) fn of(address: SocketAddr) -> Client {
        Client(address)
    }

    /// Sends one request on a connection of its own; the error names every cause.
    pub(super) async fn send(&self, request: Request<Content>) -> Result<Answered, String> {
        let stream = TcpStream::connect(self.0).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let answered = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let content = body.collect().await?.to_bytes();
            Ok(Answered {
                status: head.status.as_u16(),
                headers: head.headers,
                content,
            })
        };
        let answered = answered.await.map_err(|error: hyper::Error| {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}").to_lowercase()
        });
        connection.abort();
        answered
    }

    pub(super) async fn get(&self, target: &str, token: &str) -> Answered {
        let request = request(Method::GET, target)
            .header("authorization", format!("Bearer {token}"))
            .body(content(""))
            .unwrap();
        self.send(request).await.unwrap()
    }

    pub(super) async fn post(&self, target: &str, body: &Value) -> Result<Answered, String> {
        let request = request(Method::POST, target).body(content(body.to_string()));
        self.send(request.unwrap()).await
    }

    pub(super) async fn login(
        &self,
        body: &Value,
        instance: Option<&str>,
    ) -> Result<Answered, String> {
        let mut request = request(Method::POST, "/v1/Auth/Login");
        if let Some(instance) = instance {
            request = request.header("InstanceId", instance);
        }
        self.send(request.body(content(body.to_string())).unwrap())
            .await
    }

    /// A login that must succeed.
    pub(super) async fn log_in(&self, device: &str) -> Answered {
        let answered = self
            .login(&login_body(device), Some(INSTANCE_ID))
            .await
            .unwrap();
        assert_eq!(answered.status, 200, "{}", answered.text());
        answered
    }

    pub(super) async fn log_in_account(&self) -> Answered {
        let fields = json!({"email": ACCOUNT_EMAIL}).to_string();
        let body = json!({"LoginFields": fields, "Password": ACCOUNT_PASSWORD});
        self.login(&body, None).await.unwrap()
    }

    pub(super) async fn refresh(&self, pair: &Answered) -> Result<Answered, String> {
        let body = json!({"AccessToken": pair.access(), "RefreshToken": pair.refresh_token()});
        self.post("/v1/Auth/RefreshToken", &body).await
    }

    pub(super) async fn register(&self, body: &Value, key: &str) -> Answered {
        let request = request(Method::POST, "/v1/Registration/Create")
            .header("InstanceId", INSTANCE_ID)
            .header("InstanceKey", key)
            .body(content(body.to_string()))
            .unwrap();
        self.send(request).await.unwrap()
    }

    pub(super) async fn control(&self, method: Method, command: &str, body: &str) -> Answered {
        let request = request(method, &format!("/_control{command}"));
        self.send(request.body(content(body.to_owned())).unwrap())
            .await
            .unwrap()
    }
}

impl Answered {
    pub(super) fn try_json(&self) -> Option<Value> {
        serde_json::from_slice(&self.content).ok()
    }

    pub(super) fn json(&self) -> Value {
        self.try_json().unwrap()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }

    pub(super) fn access(&self) -> String {
        self.json()["Result"]["AccessToken"]["Token"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(super) fn refresh_token(&self) -> String {
        self.json()["Result"]["RefreshToken"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    pub(super) fn expires_in(&self) -> Value {
        self.json()["Result"]["AccessToken"]["ExpiresIn"].clone()
    }
}
