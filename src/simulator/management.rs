//! `/v1/Management/users/…`: the calls that find, change, move and delete users.

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::principal::{DeviceToken, InstanceId, Principal};

use super::refused::Refused;
use super::requests::parameter;
use super::world::World;

/// The user that a list shows.
const EXAMPLE: &str = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";

/// The `Result` of a call; `None` if it is answered with the status alone. `below` is the rest of
/// the path in lower case.
pub(super) fn result(
    world: &World,
    head: &Parts,
    principal: &Principal,
    below: &[&str],
    content: &Value,
) -> Result<Option<Value>, Refused> {
    let query = head.uri.query().unwrap_or_default();
    match (&head.method, below) {
        (&Method::GET, []) => match principal {
            Principal::User(device) => Ok(user(world, *device)),
            Principal::Account(_) => Ok(Some(page(world))),
        },
        (&Method::GET, ["find"]) => {
            let found = parameter(query, "DeviceToken").and_then(|text| {
                let device = DeviceToken::parse(text).ok()?;
                user(world, device)
            });
            Ok(Some(found.into_iter().collect()))
        }
        (_, ["getfilteredpage"]) => Ok(Some(page(world))),
        (&Method::PUT, []) => update(world, target(head, principal)?, content),
        (&Method::POST, ["instances", "change"]) => change_instance(world, content),
        (&Method::POST, ["instances", "change", code]) => {
            let device = own(principal)?;
            let instance = InstanceId::parse(code).map_err(|_| NO_SUCH_CODE)?;
            world.users.known_instance(instance).ok_or(NO_SUCH_CODE)?;
            move_user(world, device, instance)
        }
        (&Method::DELETE, [text]) => {
            let device = known_device(Some(text))?;
            world.users.delete(device).ok_or(NO_SUCH_USER)?;
            world.revoke(Some(&Principal::User(device)));
            Ok(None)
        }
        _ => Ok(Some(json!({}))),
    }
}

const NO_SUCH_USER: Refused = Refused(StatusCode::NOT_FOUND, "There is no such user");
const NO_SUCH_CODE: Refused = Refused(StatusCode::NOT_FOUND, "There is no such company");

/// The user itself, where only users may call.
fn own(principal: &Principal) -> Result<DeviceToken, Refused> {
    match principal {
        Principal::User(device) => Ok(*device),
        Principal::Account(_) => Err(Refused(StatusCode::FORBIDDEN, "The wrong kind of token")),
    }
}

/// Whose profile is written: a user's own, or the one that an account names.
fn target(head: &Parts, principal: &Principal) -> Result<DeviceToken, Refused> {
    let named = head.headers.get("UserDeviceToken");
    let named = named.map(|named| known_device(named.to_str().ok()));
    match principal {
        Principal::Account(_) => named.unwrap_or_else(|| known_device(None)),
        Principal::User(own) => match named.transpose()? {
            Some(other) if other != *own => Err(Refused(
                StatusCode::FORBIDDEN,
                "A user may change its own profile alone",
            )),
            _ => Ok(*own),
        },
    }
}

fn known_device(text: Option<&str>) -> Result<DeviceToken, Refused> {
    text.and_then(|text| DeviceToken::parse(text).ok())
        .ok_or(Refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "The DeviceToken is not a UUID",
        ))
}

/// Writes what `content` says over what was written before; `UserFields` field by field.
fn update(world: &World, device: DeviceToken, content: &Value) -> Result<Option<Value>, Refused> {
    let mut changes = content.as_object().cloned().unwrap_or_default();
    let changed = world.users.user(device, |user| {
        let mut fields = user_fields(&user.written);
        fields.extend(user_fields(&changes));
        changes.insert("UserFields".to_owned(), fields.into());
        user.written.extend(changes);
    });
    changed.map(|()| None).ok_or(NO_SUCH_USER)
}

fn change_instance(world: &World, content: &Value) -> Result<Option<Value>, Refused> {
    let text = |name: &str| content[name].as_str();
    let device = known_device(text("DeviceToken"))?;
    let instance = text("ToInstanceId")
        .and_then(|id| InstanceId::parse(id).ok())
        .filter(|id| {
            world
                .users
                .opens(*id, text("ToInstanceKey").unwrap_or_default())
        })
        .ok_or(Refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "ToInstanceId and ToInstanceKey are not those of an instance",
        ))?;
    move_user(world, device, instance)
}

/// Everything issued to the user under its old instance ends.
fn move_user(
    world: &World,
    device: DeviceToken,
    instance: InstanceId,
) -> Result<Option<Value>, Refused> {
    world.users.move_to(device, instance).ok_or(NO_SUCH_USER)?;
    world.revoke(Some(&Principal::User(device)));
    Ok(None)
}

/// What the API says about a user; `None` if there is no such user.
fn user(world: &World, device: DeviceToken) -> Option<Value> {
    let written = world.users.user(device, |user| user.written.clone())?;
    let mut fields = Map::from_iter([("ClientId".to_owned(), "simulated".into())]);
    fields.extend(user_fields(&written));
    let mut profile = Map::from_iter([
        ("FirstName".to_owned(), "Ada".into()),
        ("LastName".to_owned(), "Driver".into()),
        ("Email".to_owned(), Value::Null),
    ]);
    profile.extend(written.into_iter().filter(|(name, _)| name != "UserFields"));
    let instance = world.users.instance_of(device);
    Some(json!({
        "DeviceToken": device.to_string(),
        "Status": "Active",
        "UserProfile": profile,
        "AccountInfo": {"InstanceId": instance.map(|instance| instance.to_string())},
        "UserFields": [fields],
    }))
}

fn user_fields(written: &Map<String, Value>) -> Map<String, Value> {
    let fields = written.get("UserFields").and_then(Value::as_object);
    fields.cloned().unwrap_or_default()
}

fn page(world: &World) -> Value {
    let device = DeviceToken::parse(EXAMPLE).expect("a constant UUID");
    json!({
        "Items": [user(world, device)],
        "PageNumber": 1,
        "PageSize": 10,
        "TotalItems": 1,
    })
}
