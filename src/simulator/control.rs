//! `/_control/…`: what the handle can do, over HTTP. The manual is in [`simulator`](super).

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::principal::Principal;

use super::answer::{self, Answer, Cut};
use super::fault::{Fault, principal_named};
use super::requests::parameter;
use super::world::World;

/// What `GET /_control` answers.
const COMMANDS: &[&str] = &[
    "GET /_control/counts[?principal=P]",
    "GET /_control/requests[?test_id=ID]",
    "POST /_control/journal",
    "GET /_control/journal[?principal=P]",
    "POST /_control/expire[?principal=P]",
    "POST /_control/revoke[?principal=P]",
    "POST /_control/revoke-refresh-tokens[?principal=P]",
    "POST /_control/issue?principal=P",
    "POST /_control/register?principal=P",
    "GET, POST or DELETE /_control/faults",
    "POST /_control/reset",
];

/// Why a command was not carried out; the sentence says what to do.
struct BadCommand(StatusCode, String);

/// Carries out one command, the path below `/_control/`.
pub(super) async fn answer(
    world: &World,
    command: &str,
    request: Request<Incoming>,
) -> Result<Answer, Cut> {
    let (head, body) = request.into_parts();
    let content = Limited::new(body, 1 << 20).collect().await;
    let content = content.map_err(|_| Cut::Close)?.to_bytes();
    let query = head.uri.query().unwrap_or_default();
    Ok(match obey(world, &head.method, command, query, &content) {
        Ok(result) => answer::json_answer(StatusCode::OK, &result),
        Err(BadCommand(status, error)) => answer::json_answer(status, &json!({"error": error})),
    })
}

fn obey(
    world: &World,
    method: &Method,
    command: &str,
    query: &str,
    content: &[u8],
) -> Result<Value, BadCommand> {
    let whose = || whose(query);
    Ok(match (method, command) {
        (&Method::GET, "") => json!({"commands": COMMANDS}),
        (&Method::GET, "counts") => match whose()? {
            Some(principal) => json!(world.counter.of(&principal)),
            None => json!(world.counter.counts()),
        },
        (&Method::GET, "requests") => json!(world.requests.list(parameter(query, "test_id"))),
        (&Method::POST, "journal") => {
            world.journal.begin();
            json!({"journal": true})
        }
        (&Method::GET, "journal") => json!(world.journal.read(whose()?.as_ref())),
        (&Method::POST, "expire") => {
            json!({"expired": world.expire(whose()?.as_ref())})
        }
        (&Method::POST, "revoke") => {
            json!({"revoked": world.revoke(whose()?.as_ref())})
        }
        (&Method::POST, "revoke-refresh-tokens") => {
            json!({"revoked": world.revoke_refresh_tokens(whose()?.as_ref())})
        }
        (&Method::POST, "issue") => json!(world.issue(&named(query)?)),
        (&Method::POST, "register") => match named(query)? {
            Principal::User(device) => {
                world.users.add(device);
                json!({"registered": device.to_string()})
            }
            Principal::Account(_) => return Err(bad("`principal` is a DeviceToken here")),
        },
        (&Method::GET, "faults") => json!(world.faults.list()),
        (&Method::POST, "faults") => {
            let fault: Fault = serde_json::from_slice(content).map_err(|error| {
                bad(&format!(
                    "not a fault: {error}; try {{\"on\":\"/trips\",\"action\":{{\"status\":\
                     {{\"code\":500}}}},\"times\":2}}"
                ))
            })?;
            world.faults.add(fault);
            json!(world.faults.list())
        }
        (&Method::DELETE, "faults") => {
            world.faults.clear();
            json!([])
        }
        (&Method::POST, "reset") => {
            world.reset();
            json!({"reset": true})
        }
        _ => {
            let error = format!("no such command; there are: {}", COMMANDS.join(", "));
            return Err(BadCommand(StatusCode::NOT_FOUND, error));
        }
    })
}

fn bad(error: &str) -> BadCommand {
    BadCommand(StatusCode::BAD_REQUEST, error.to_owned())
}

fn whose(query: &str) -> Result<Option<Principal>, BadCommand> {
    match parameter(query, "principal") {
        None => Ok(None),
        Some(text) => match principal_named(&text.replace("%40", "@").replace("%3A", ":")) {
            Some(principal) => Ok(Some(principal)),
            None => Err(bad("`principal` is a DeviceToken or an email")),
        },
    }
}

fn named(query: &str) -> Result<Principal, BadCommand> {
    whose(query)?.ok_or_else(|| bad("say ?principal=<DeviceToken or email>"))
}
