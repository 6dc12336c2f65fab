//! Live tracking over WebSocket: who is named how, what the first message becomes, and that
//! everything else passes untouched.

use std::time::Duration;

use damoov_proxy::simulator::{
    Action, Count, Fault, INSTANCE_KEY, On, Recorded, Settings, Simulator,
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::tungstenite::{Error, handshake::client::generate_key};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{Proxy, SCORES, Scene, damoov_with, principal, user};

// The first message: tokens put in, renewed, refused; its limits.
mod first_message;
// The handshake: names, refusals, renewals, odd upstreams.
mod handshake;
// What passes by: bytes, back pressure, the end.
mod relay;

pub const LIVE: &str = "/realtime/api/v1/ws/realtime";
/// What a fault calls an `authenticate` message.
const AUTHENTICATE: &str = "/live";
/// Longer than any deadline of a session that is not about silence.
const PATIENCE: Duration = Duration::from_secs(20);

async fn scene() -> Scene {
    scene_with(|_| {}).await
}

/// With user 1 logged in, and counts at zero.
async fn scene_with(change: impl FnOnce(&mut Settings)) -> Scene {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        change(settings);
    })
    .await;
    let scene = Scene::before(damoov, |proxy| proxy.env("DAMOOV_PROXY_LOG", "trace")).await;
    assert_eq!(scene.proxy.get(1, SCORES).await.status, 200);
    scene.damoov.handle().reset();
    scene
}

impl Scene {
    /// User 1's session, named by the header.
    async fn session(&self) -> Session {
        self.connect(LIVE, &[("DeviceToken", &user(1).to_string())])
            .await
    }

    async fn connect(&self, target: &str, fields: &[(&str, &str)]) -> Session {
        let connected = Session::open(&self.proxy, target, fields).await;
        connected.unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    /// The answer to a handshake that is refused: its status and its code word.
    async fn refused(&self, target: &str, fields: &[(&str, &str)]) -> (u16, String) {
        match Session::open(&self.proxy, target, fields).await {
            Ok(_) => panic!("it was not refused"),
            Err(answer) => {
                let content = answer.body().clone().unwrap_or_default();
                let content: Value = serde_json::from_slice(&content).unwrap_or_default();
                let code = content["Errors"][0]["Key"].as_str().unwrap_or_default();
                (answer.status().as_u16(), code.to_owned())
            }
        }
    }

    /// The access token that the proxy hands out to this user.
    async fn handed_out(&self, number: usize) -> String {
        let fields = json!({"Devicetoken": user(number).to_string()}).to_string();
        let login = json!({"LoginFields": fields, "Password": INSTANCE_KEY}).to_string();
        let answer = self
            .proxy
            .send_with(Request::post("/v1/Auth/Login"), login)
            .await;
        let answer: Value = serde_json::from_slice(answer.content()).unwrap();
        let token = answer["Result"]["AccessToken"]["Token"].as_str().unwrap();
        self.damoov.handle().reset();
        token.to_owned()
    }

    fn count(&self, number: usize) -> Count {
        self.damoov.handle().counts_of(&principal(number))
    }

    /// What the API heard as `authenticate`, with the status it answered.
    fn authenticates(&self) -> Vec<(Value, u16)> {
        let heard = self.heard_at("/live/authenticate").into_iter();
        heard
            .map(|message| {
                let content = message.content.unwrap();
                (serde_json::from_slice(&content).unwrap(), message.status)
            })
            .collect()
    }

    /// The handshakes that the API heard.
    fn handshakes(&self) -> Vec<Recorded> {
        self.heard_at(LIVE)
    }

    fn heard_at(&self, path: &str) -> Vec<Recorded> {
        let mut requests = self.damoov.handle().requests();
        requests.retain(|request| request.target.starts_with(path));
        requests
    }

    /// Every real token that crossed the wire, and ours, must not be in the log.
    fn logs_none_of(&self, tokens: &[&str]) {
        let log = self.proxy.log();
        for token in tokens {
            assert!(token.len() > 40, "{token} is no token");
            assert!(!log.contains(token), "a token is in the log");
        }
    }
}

/// A client's end of a session.
pub struct Session {
    socket: WebSocketStream<TcpStream>,
    /// Of the 101.
    headers: HeaderMap,
}

pub type Refused = Box<Response<Option<Vec<u8>>>>;

impl Session {
    pub async fn open(
        proxy: &Proxy,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<Session, Refused> {
        let host = proxy.address().to_string();
        let mut request = Request::get(format!("ws://{host}{target}"))
            .header("Host", host)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key());
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        match client_async(request.body(()).unwrap(), stream).await {
            Ok((socket, answer)) => Ok(Session {
                socket,
                headers: answer.into_parts().0.headers,
            }),
            Err(Error::Http(answer)) => Err(answer),
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn say(&mut self, message: Value) {
        self.send(Message::text(message.to_string())).await;
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    async fn authenticate(&mut self) {
        self.say(json!({"type": "authenticate"})).await;
    }

    /// Sends an `authenticate` that the API accepts.
    pub async fn is_authenticated(&mut self) {
        self.authenticate().await;
        self.hears(&["authenticated", "welcome", "subscribed"])
            .await;
    }

    /// The next message but updates and pings of the API.
    pub async fn message(&mut self) -> Option<Message> {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await;
            let message = next.expect("nothing is said")?.ok()?;
            match message.to_text().unwrap_or_default() {
                text if text.contains("device_update") || text.contains("\"ping\"") => {}
                _ => return Some(message),
            }
        }
    }

    /// The next message, which is JSON.
    async fn json(&mut self) -> Value {
        let message = self.message().await.expect("a message");
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    /// The types of the next messages.
    async fn hears(&mut self, types: &[&str]) {
        for expected in types {
            assert_eq!(self.json().await["type"], *expected);
        }
    }

    /// The code of the Close that comes next, and then the end.
    async fn close_code(&mut self) -> u16 {
        let code = match self.message().await {
            Some(Message::Close(Some(close))) => close.code.into(),
            other => panic!("{other:?}"),
        };
        assert!(self.message().await.is_none());
        code
    }
}
