//! What the data endpoints answer: a few realistic bodies, an echo for the rest. Users are
//! [`management`]'s.

use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

use crate::principal::{InstanceId, Principal};

use super::management;
use super::refused::Refused;
use super::requests::parameter;
use super::settings::Instance;
use super::world::World;

/// The `Result` of a call by the holder of a token of the right kind; `None` if the envelope has
/// no such field.
pub(super) fn result(
    world: &World,
    head: &Parts,
    principal: &Principal,
    content: &Value,
) -> Result<Option<Value>, Refused> {
    let query = head.uri.query().unwrap_or_default();
    check_dates(query)?;
    let path = head.uri.path().to_ascii_lowercase();
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Ok(Some(match segments[..] {
        ["v1", "management", "users", ref rest @ ..] => {
            return management::result(world, head, principal, rest, content);
        }
        ["indicators", ref rest @ ..] => indicators(rest),
        ["trips", "get", "v1"] => trips(&owner(principal)),
        ["trips", "get", "admin", "v1"] => trips(&content["Identifiers"]["UserId"]),
        ["trips", "get", .., trip] if trip != "v1" => find_trip(principal, trip)?,
        ["statistics", .., "daily"] => daily_statistics(),
        ["statistics", ..] => statistics(),
        ["v1", "instances" | "companies" | "applications", id, ..] if id.len() != 36 => {
            return Err(Refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The id is not a UUID",
            ));
        }
        ["v1", "applications", _, "instances"] => {
            world.users.instances().iter().map(instance).collect()
        }
        // That host answers 200 without a Result if it knows no such entity.
        ["v1", "instances", id] => world
            .users
            .instances()
            .iter()
            .find(|known| known.id.to_string() == id)
            .map_or(Value::Null, instance),
        ["v1", "companies" | "applications", _] => Value::Null,
        ["auth", "permissions"] | ["v1", "permissions", ..] => {
            json!({"Permissions": ["Users.Read", "Trips.Read", "Statistics.Read"]})
        }
        ["api", "rewarding", "missing"] => {
            return Err(Refused(StatusCode::NOT_FOUND, "There is no such reward"));
        }
        ["api", "rewarding", ..] => {
            json!({"TotalCoins": 1240, "AcquiredCoins": 1310, "TimeUnit": "Day"})
        }
        _ => json!({}),
    }))
}

/// Whether there is a user with this ClientId, email or phone: there never is. Any app may ask
/// that knows the key of an instance.
pub(super) fn user_exists(world: &World, head: &Parts) -> Result<Value, Refused> {
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    let instance = text("InstanceId").and_then(|id| InstanceId::parse(id).ok());
    let key = text("InstanceKey").unwrap_or_default();
    match instance.is_some_and(|id| world.users.opens(id, key)) {
        true => Ok(json!({"Exists": false})),
        false => Err(Refused(
            StatusCode::UNAUTHORIZED,
            "InstanceId and InstanceKey are not those of an instance",
        )),
    }
}

/// 422 for `StartDate` or `EndDate` that is no date, or for an end before the start.
fn check_dates(query: &str) -> Result<(), Refused> {
    let date = |wanted: &str| Some(parameter(query, wanted)?.get(..10).unwrap_or_default());
    let (start, end) = (date("StartDate"), date("EndDate"));
    for given in [start, end].into_iter().flatten() {
        if given.parse::<jiff::civil::Date>().is_err() {
            return Err(Refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "StartDate and EndDate are dates like 2026-06-30",
            ));
        }
    }
    match (start, end) {
        (Some(start), Some(end)) if end < start => Err(Refused(
            StatusCode::UNPROCESSABLE_ENTITY,
            "EndDate lies before StartDate",
        )),
        _ => Ok(()),
    }
}

/// Below `/indicators`. For accounts, what is asked of one user is a list, and what is asked of an
/// instance, an application or a company (`consolidated`) is not.
fn indicators(segments: &[&str]) -> Value {
    match segments {
        [.., "statistics", "dates"] => json!([{
            "LatestTripDate": "2026-06-30T07:41:48+00:00",
            "LatestScoringDate": "2026-06-30T00:00:00",
        }]),
        [.., "statistics", "uniquetags"] => {
            json!({"UniqueTagsCount": 1, "UniqueTagsList": ["Business"]})
        }
        ["admin", .., "daily"] => daily_statistics(),
        ["admin", .., "safety", "consolidated"] => safety_scores(),
        ["admin", .., "eco", "consolidated"] => eco_scores(),
        ["admin", .., "statistics", "consolidated"] => statistics(),
        ["admin", .., "safety"] => json!([safety_scores()]),
        ["admin", .., "eco"] => json!([eco_scores()]),
        ["admin", .., "statistics"] => json!([statistics()]),
        [_, "scores", "safety"] => safety_scores(),
        _ => json!({"DriverScore": 82, "UpdatedAt": "2026-06-30T21:14:00Z"}),
    }
}

fn eco_scores() -> Value {
    json!({
        "EcoScore": 71.0,
        "EcoScoreFuel": 96.8,
        "EcoScoreTyres": 100.0,
        "EcoScoreBrakes": 82.9,
        "EcoScoreDepreciation": 26.5,
    })
}

fn instance(instance: &Instance) -> Value {
    json!({
        "Id": instance.id.to_string(),
        "Name": "Simulated",
        "Description": "Default group",
        "Status": "Active",
    })
}

fn safety_scores() -> Value {
    json!({
        "SafetyScore": 82.4,
        "AccelerationScore": 88.0,
        "BrakingScore": 79.5,
        "SpeedingScore": 76.1,
        "PhoneUsageScore": 91.2,
        "CorneringScore": 84.7,
        "StartDate": "2026-06-01",
        "EndDate": "2026-06-30",
    })
}

const TRIP_IDS: [&str; 2] = [
    "2f0e9a64-6c1b-4b7e-8d35-1a9be2c1f001",
    "2f0e9a64-6c1b-4b7e-8d35-1a9be2c1f002",
];

fn owner(principal: &Principal) -> Value {
    match principal {
        Principal::User(device) => device.to_string().into(),
        Principal::Account(email) => email.to_string().into(),
    }
}

fn trip(owner: &Value, id: &str) -> Value {
    json!({
        "Id": id,
        "Identifiers": {"UserId": owner},
        "Data": {
            "StartDate": "2026-06-30T07:12:05+00:00",
            "EndDate": "2026-06-30T07:41:48+00:00",
            "UnitSystem": "Metric",
            "Addresses": {
                "Start": {"Full": "1 Harbour Road", "City": "Riga", "Country": "Latvia"},
                "Finish": {"Full": "22 Station Street", "City": "Riga", "Country": "Latvia"},
            },
            "TransportType": {"Current": "OriginalDriver", "ConfirmationNeeded": false},
        },
        "Scores": {"Safety": 84, "Eco": 71, "Braking": 80, "PhoneUsage": 95, "Speeding": 77},
        "Statistics": {"Mileage": 17.3, "DurationMinutes": 29.7, "AverageSpeed": 35.0},
    })
}

fn trips(owner: &Value) -> Value {
    json!({
        "Trips": TRIP_IDS.map(|id| trip(owner, id)),
        "PagingInfo": {
            "HasPreviousPage": false,
            "HasNextPage": false,
            "TotalItems": TRIP_IDS.len(),
            "TotalPages": 1,
            "CurrentPage": 1,
        },
    })
}

fn find_trip(principal: &Principal, id: &str) -> Result<Value, Refused> {
    if !TRIP_IDS.contains(&id) {
        return Err(Refused(StatusCode::NOT_FOUND, "There is no such trip"));
    }
    Ok(trip(&owner(principal), id))
}

fn statistics() -> Value {
    json!({
        "DriverTripsCount": 41,
        "MileageKm": 612.8,
        "DrivingTime": 1043.5,
        "AverageSpeedKmh": 35.2,
        "MaxSpeedKmh": 118.0,
        "NightDrivingTime": 61.0,
        "PhoneUsageDurationMin": 12.3,
    })
}

fn daily_statistics() -> Value {
    ["2026-06-28", "2026-06-29", "2026-06-30"]
        .map(|day| json!({"ReportDate": day, "DriverTripsCount": 2, "MileageKm": 31.9}))
        .to_vec()
        .into()
}
