//! Live tracking over WebSocket (damoov/API.md): the handshake, the first message with its token,
//! and the stream that follows. Also what tests send through it: echoes and floods.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::headers::names_websocket;
use crate::principal::{InstanceId, Principal};

use super::answer::{self, Answer, Names};
use super::content::Received;
use super::fault::{Action, On, Status, StatusUntil};
use super::settings::LivePace;
use super::tokens::Presented;
use super::world::World;

/// Where it is.
const PATH: &str = "/realtime/api/v1/ws/realtime";
/// What faults and recorded requests call an `authenticate` message.
const AUTHENTICATE: &str = "/live/authenticate";

/// A connection that has switched.
#[derive(Debug)]
pub(super) struct Session {
    world: Arc<World>,
    /// Of its handshake.
    head: Parts,
    /// Who is tracking, once somebody has authenticated.
    tracking: Option<Principal>,
}

/// Whether a request is for this module.
pub(super) fn is_asked_for<C>(request: &Request<C>) -> bool {
    request.uri().path().eq_ignore_ascii_case(PATH) && names_websocket(request.headers())
}

/// Answers a handshake. The API looks for a token in its query and nowhere else.
pub(super) async fn shake_hands(world: &Arc<World>, head: Parts) -> (Answer, Option<Session>) {
    let token = head.uri.query().and_then(token);
    let presented = token.map(|token| world.tokens.present(token));
    let principal = presented.as_ref().and_then(Presented::principal).cloned();
    let struck = world.faults.strike(&On::Data, PATH, principal.as_ref());
    struck.half_delay().await;
    let answer = match (struck.instead(), presented) {
        (Some(Ok(answer)), _) => answer,
        (Some(Err(_)), _) => refuse(StatusCode::BAD_GATEWAY, "cut"),
        (None, Some(Presented::Dead(_) | Presented::Unknown)) => {
            refuse(StatusCode::UNAUTHORIZED, "Token is not valid")
        }
        (None, Some(Presented::Valid(_)) | None) => switching(&head),
    };
    let status = answer.status();
    world.requests.record(
        head.clone(),
        Received::nothing(),
        principal.as_ref(),
        Some(status),
    );
    let session = (status == StatusCode::SWITCHING_PROTOCOLS).then(|| Session {
        world: Arc::clone(world),
        head,
        tracking: principal,
    });
    (answer, session)
}

fn switching(head: &Parts) -> Answer {
    let Some(key) = head.headers.get(header::SEC_WEBSOCKET_KEY) else {
        return refuse(StatusCode::BAD_REQUEST, "There is no Sec-WebSocket-Key");
    };
    let content = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(content);
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    crate::headers::attach_upgrade(answer.headers_mut());
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    answer.headers_mut().insert(
        header::SEC_WEBSOCKET_ACCEPT,
        accept.expect("base64 is visible ASCII"),
    );
    if let Some(protocols) = head.headers.get(header::SEC_WEBSOCKET_PROTOCOL)
        && let Some(first) = protocols.to_str().ok().and_then(|p| p.split(',').next())
        && let Ok(first) = HeaderValue::from_str(first.trim())
    {
        let chosen = header::SEC_WEBSOCKET_PROTOCOL;
        answer.headers_mut().insert(chosen, first);
    }
    answer
}

fn refuse(status: StatusCode, message: &str) -> Answer {
    answer::enveloped(answer::failure(status, "Live", message), Names::Lower)
}

fn token(query: &str) -> Option<&str> {
    query
        .split('&')
        .find_map(|part| part.strip_prefix("token="))
}

impl Session {
    /// Speaks until the client leaves. `read` came behind its handshake.
    pub(super) async fn run(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, read: Bytes) {
        let mut socket =
            WebSocketStream::from_partially_read(stream, read.to_vec(), Role::Server, None).await;
        // How it ends is the client's affair.
        let _ = self.speak(&mut socket).await;
    }

    async fn speak<S>(&mut self, socket: &mut WebSocketStream<S>) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let LivePace { update, ping } = self.world.live;
        let (mut updates, mut pings) = (every(update), every(ping));
        let mut awaits_pong = false;
        if self.tracking.is_some() {
            self.welcome(socket).await?;
        }
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let message = serde_json::from_str(&text).unwrap_or_default();
                        awaits_pong &= message_type(&message) != "pong";
                        self.hear(socket, message, text.as_str()).await?;
                    }
                    Some(Ok(Message::Binary(content))) => socket.send(Message::Binary(content)).await?,
                    // Pings and closes are answered by the library, once the socket is flushed.
                    Some(Ok(_)) => socket.flush().await?,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                _ = updates.tick(), if self.tracking.is_some() => {
                    let update = json!({"type": "device_update", "data": {"speed": 42}});
                    send(socket, &update).await?;
                }
                _ = pings.tick(), if self.tracking.is_some() => {
                    if awaits_pong {
                        let reason = "no pong".into();
                        let close = CloseFrame { code: CloseCode::Policy, reason };
                        return socket.close(Some(close)).await;
                    }
                    awaits_pong = true;
                    send(socket, &json!({"type": "ping"})).await?;
                }
            }
        }
    }

    async fn hear<S>(
        &mut self,
        socket: &mut WebSocketStream<S>,
        message: Value,
        text: &str,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match message_type(&message) {
            "authenticate" => self.authenticate(socket, &message, text).await,
            "echo" => socket.send(Message::text(text)).await,
            "flood" => {
                let number = |field: &str| message[field].as_u64().unwrap_or(0);
                let piece = Bytes::from(vec![b'f'; number("size") as usize]);
                for _ in 0..number("count") {
                    socket.send(Message::Binary(piece.clone())).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn authenticate<S>(
        &mut self,
        socket: &mut WebSocketStream<S>,
        message: &Value,
        text: &str,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let token = message["access_token"].as_str().unwrap_or_default();
        let presented = self.world.tokens.present(token);
        let principal = presented.principal().cloned();
        let struck = self
            .world
            .faults
            .strike(&On::Data, AUTHENTICATE, principal.as_ref());
        struck.half_delay().await;
        let verdict = match (struck.action, &presented) {
            (Some(Action::Status(Status { code, .. })), _)
            | (Some(Action::StatusUntil(StatusUntil { code, .. })), _) => {
                Err((code, "a fault asked for this"))
            }
            (_, Presented::Dead(_) | Presented::Unknown) => Err((401, "Token is not valid")),
            (_, Presented::Valid(owner)) if !self.may_name(owner, &message["instance_id"]) => {
                Err((403, "Not the user's instance"))
            }
            (_, Presented::Valid(_)) => Ok(()),
        };
        self.record(
            principal.as_ref(),
            text,
            verdict.map_or_else(|(code, _)| code, |()| 200),
        );
        match verdict {
            Ok(()) => {
                self.tracking = principal;
                send(socket, &json!({"type": "authenticated"})).await?;
                self.welcome(socket).await
            }
            Err((code, message)) => {
                let error = json!({"type": "error", "code": code, "message": message});
                send(socket, &error).await
            }
        }
    }

    async fn welcome<S>(&self, socket: &mut WebSocketStream<S>) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        send(socket, &json!({"type": "welcome"})).await?;
        send(socket, &json!({"type": "subscribed"})).await
    }

    /// A user is of one instance; an account may look at all of them.
    fn may_name(&self, principal: &Principal, instance: &Value) -> bool {
        let named = instance.as_str().map(InstanceId::parse);
        match (principal, named) {
            (_, None) | (Principal::Account(_), _) => true,
            (Principal::User(user), Some(named)) => {
                named.ok() == self.world.users.instance_of(*user)
            }
        }
    }

    /// Counts an `authenticate` message and keeps it like a request.
    fn record(&self, principal: Option<&Principal>, text: &str, code: u16) {
        self.world.counter.count(principal, |count| {
            *match code {
                200 => &mut count.authenticated,
                _ => &mut count.not_authenticated,
            } += 1;
        });
        let mut head = self.head.clone();
        head.uri = AUTHENTICATE.parse().expect("a constant path");
        let received = Received::of(Bytes::copy_from_slice(text.as_bytes()));
        let status = StatusCode::from_u16(code).ok();
        self.world
            .requests
            .record(head, received, principal, status);
    }
}

async fn send<S>(socket: &mut WebSocketStream<S>, message: &Value) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    socket.send(Message::text(message.to_string())).await
}

fn message_type(message: &Value) -> &str {
    message["type"].as_str().unwrap_or_default()
}

/// The first one after `period`; a slow client misses some.
fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.reset();
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
