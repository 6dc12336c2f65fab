//! The data endpoints of every host in damoov/API.md's table: which credential each wants, what
//! else can be wrong, and whose token came.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::principal::{DeviceToken, Principal};

use super::answer::{self, Answer, Cut, Names};
use super::content::{self, Received};
use super::doors::Visitor;
use super::fault::On;
use super::journal::{DataCall, Verdict};
use super::refused::Refused;
use super::requests::{self, target};
use super::results;
use super::tokens::Presented;
use super::world::World;

/// What an endpoint wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// A user's JWT.
    User,
    /// An account's.
    Admin,
    /// Either.
    Any,
    /// InstanceId and InstanceKey.
    Key,
}

/// A prefix of whole segments; `*` matches one. Without regard to case, but on the accounts host.
struct Endpoint(&'static str, Wants, Host);

/// What the host changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Host {
    Accounts,
    Portal,
    Other,
}

/// The first that matches counts.
const ENDPOINTS: &[Endpoint] = &[
    Endpoint("/v1/Check/UserExists", Wants::Key, Host::Other),
    Endpoint(
        "/v1/Management/users/images/upload",
        Wants::Any,
        Host::Other,
    ),
    Endpoint(
        "/v1/Management/users/instances/change/*",
        Wants::Any,
        Host::Other,
    ),
    Endpoint("/v1/Management/users", Wants::Admin, Host::Other),
    Endpoint("/indicators/admin", Wants::Admin, Host::Other),
    Endpoint("/indicators", Wants::User, Host::Other),
    Endpoint("/trips/get/admin/v1", Wants::Admin, Host::Other),
    Endpoint("/trips/get/v1", Wants::User, Host::Other),
    Endpoint("/statistics/v1/*/consolidated", Wants::Admin, Host::Other),
    Endpoint("/statistics/v1/*/individual", Wants::User, Host::Other),
    Endpoint("/v1/Applications", Wants::Admin, Host::Accounts),
    Endpoint("/v1/applications", Wants::Admin, Host::Accounts),
    Endpoint("/v1/companies", Wants::Admin, Host::Accounts),
    Endpoint("/v1/Instances", Wants::Admin, Host::Accounts),
    Endpoint("/auth/permissions", Wants::Admin, Host::Portal),
    Endpoint("/v1/Permissions", Wants::Admin, Host::Portal),
    Endpoint("/realtime/api/v1", Wants::Any, Host::Portal),
    Endpoint("/mobilesdk/stage", Wants::User, Host::Other),
    Endpoint("/api/rewarding", Wants::User, Host::Other),
    Endpoint("/v1/Leaderboard", Wants::Any, Host::Other),
];

impl Endpoint {
    fn of(head: &Parts) -> Option<&'static Endpoint> {
        let path = head.uri.path();
        ENDPOINTS.iter().find(|endpoint| endpoint.matches(path))
    }

    fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/');
        self.0.split('/').all(|wanted| {
            segments.next().is_some_and(|segment| match self.2 {
                Host::Accounts => wanted == segment,
                Host::Portal | Host::Other => wanted == "*" || wanted.eq_ignore_ascii_case(segment),
            })
        })
    }

    fn names(&self) -> Names {
        match self.2 {
            Host::Portal => Names::Lower,
            Host::Accounts | Host::Other => Names::Upper,
        }
    }

    /// A user's own profile is the one exception in the table.
    fn wants(&self, head: &Parts) -> Wants {
        let own_profile = matches!(head.method, Method::GET | Method::PUT)
            && head
                .uri
                .path()
                .trim_end_matches('/')
                .eq_ignore_ascii_case("/v1/Management/users");
        if own_profile { Wants::Any } else { self.1 }
    }
}

/// Answers one call.
pub(super) async fn answer(
    world: &World,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Answer, Cut> {
    let (head, body) = request.into_parts();
    let presented =
        bearer(&head.headers).map_or(Presented::Unknown, |token| world.tokens.present(token));
    let principal = presented.principal().cloned();
    let path = head.uri.path();
    let struck = world.faults.strike(&On::Data, path, principal.as_ref());
    struck.half_delay().await;

    let keep = match requests::wanted(&head) {
        true => content::KEPT,
        false => content::READ,
    };
    let received = struck.receive(body, keep).await?;
    let instead = struck.instead();
    let faulted = instead.is_some() || struck.is_early();
    let answer = match instead {
        Some(answer) => answer,
        None if struck.is_early() => {
            Ok(refuse(&head, StatusCode::UNAUTHORIZED, "Token is expired"))
        }
        None => Ok(usual(world, &head, &presented, &received)),
    };
    let status = answer.as_ref().ok().map(Answer::status);
    let unauthorized = status == Some(StatusCode::UNAUTHORIZED) || struck.is_in_band_401();
    let wrong_token = names_another_user(&head.headers, principal.as_ref());
    world.counter.count(principal.as_ref(), |count| {
        count.data_calls += 1;
        count.unauthorized += u64::from(unauthorized);
        count.wrong_tokens += u64::from(wrong_token);
    });
    world.journal.data(|| DataCall {
        door: visitor.door.as_ref(),
        owner: principal.as_ref(),
        named: named(&head.headers),
        presented: bearer(&head.headers).and_then(|token| world.tokens.serial_of(token)),
        verdict: match (faulted, unauthorized) {
            (true, _) => Verdict::Faulted,
            (false, true) => Verdict::Rejected,
            (false, false) => Verdict::Granted,
        },
        status,
    });
    if requests::wanted(&head) {
        world
            .requests
            .record(head, received, principal.as_ref(), status);
    }
    struck.half_delay().await;
    struck.afterwards(answer?).await
}

/// The answer when no fault stands in for it.
fn usual(world: &World, head: &Parts, presented: &Presented, received: &Received) -> Answer {
    let Some(endpoint) = Endpoint::of(head) else {
        return refuse(head, StatusCode::NOT_FOUND, "There is no such endpoint");
    };
    if endpoint.wants(head) == Wants::Key {
        return match results::user_exists(world, head) {
            Ok(result) => answer::enveloped(answer::success(result), endpoint.names()),
            Err(Refused(status, message)) => refuse(head, status, message),
        };
    }
    let principal = match presented {
        Presented::Valid(principal) => principal,
        Presented::Dead(_) => return refuse(head, StatusCode::UNAUTHORIZED, "Token is expired"),
        Presented::Unknown => return refuse(head, StatusCode::UNAUTHORIZED, "Token is not valid"),
    };
    match (endpoint.wants(head), principal) {
        (Wants::User, Principal::Account(_)) | (Wants::Admin, Principal::User(_)) => {
            return refuse(head, StatusCode::FORBIDDEN, "The wrong kind of token");
        }
        (Wants::User | Wants::Admin | Wants::Any | Wants::Key, _) => {}
    }
    let mut answer = match large(head.uri.path()) {
        Some(answer) => answer,
        None => match results::result(world, head, principal, &received.json()) {
            Ok(Some(result)) => answer::enveloped(
                answer::success(with_receipt(result, head, principal, received)),
                endpoint.names(),
            ),
            Ok(None) => answer::enveloped(answer::done(), endpoint.names()),
            Err(Refused(status, message)) => refuse(head, status, message),
        },
    };
    receipt_headers(answer.headers_mut(), head, principal, received);
    answer
}

/// `/mobilesdk/stage/bytes/<n>` and `/mobilesdk/stage/chunked/<n>`.
fn large(path: &str) -> Option<Answer> {
    if let Some(length) = path.strip_prefix("/mobilesdk/stage/bytes/") {
        return length.parse().ok().map(content::sized);
    }
    let length = path.strip_prefix("/mobilesdk/stage/chunked/")?;
    length.parse().ok().map(content::chunked)
}

fn refuse(head: &Parts, status: StatusCode, message: &str) -> Answer {
    let names = Endpoint::of(head).map_or(Names::Upper, Endpoint::names);
    answer::enveloped(answer::failure(status, "Request", message), names)
}

/// Adds to a `Result` that is an object what arrived and whose token came with it.
fn with_receipt(
    mut result: Value,
    head: &Parts,
    principal: &Principal,
    received: &Received,
) -> Value {
    if let Some(fields) = result.as_object_mut() {
        let receipt = json!({
            "Principal": principal.to_string(),
            "DeviceToken": device_of(principal).map(|device| device.to_string()),
            "Method": head.method.as_str(),
            "Target": target(head),
            "ContentLength": received.length,
            "ContentSha256": received.sha256,
        });
        fields.insert("Sim".to_owned(), receipt);
    }
    result
}

/// The same in headers, which every data answer has.
fn receipt_headers(
    headers: &mut HeaderMap,
    head: &Parts,
    principal: &Principal,
    received: &Received,
) {
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-sim-principal", &principal.to_string());
    if let Some(device) = device_of(principal) {
        put("x-sim-device-token", &device.to_string());
    }
    put("x-sim-method", head.method.as_str());
    put("x-sim-target", target(head));
    put("x-sim-content-length", &received.length.to_string());
    put("x-sim-content-sha256", &received.sha256);
}

fn device_of(principal: &Principal) -> Option<DeviceToken> {
    match principal {
        Principal::User(device) => Some(*device),
        Principal::Account(_) => None,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ")
}

/// Whom the `DeviceToken` header names.
fn named(headers: &HeaderMap) -> Option<DeviceToken> {
    DeviceToken::parse(headers.get("DeviceToken")?.to_str().ok()?).ok()
}

/// Whether a user's token came with the `DeviceToken` header of another.
fn names_another_user(headers: &HeaderMap, principal: Option<&Principal>) -> bool {
    match (named(headers), principal.and_then(device_of)) {
        (Some(named), Some(owner)) => named != owner,
        _ => false,
    }
}
