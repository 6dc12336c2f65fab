//! What the data endpoints answer: a few realistic bodies, an echo for the rest. Pure, but for the
//! look-up of a user's instance.

use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::principal::Principal;

use super::world::World;

/// Why there is no result.
pub(super) struct Refused(pub(super) StatusCode, pub(super) &'static str);

/// The `Result` of a call by the holder of a token of the right kind.
pub(super) fn result(world: &World, head: &Parts, principal: &Principal) -> Result<Value, Refused> {
    let query = head.uri.query().unwrap_or_default();
    check_dates(query)?;
    let path = head.uri.path().to_ascii_lowercase();
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Ok(match segments[..] {
        ["indicators", _, "scores", "safety"] => safety_scores(),
        ["indicators", "admin", _, "scores", "safety"] => safety_scores(),
        ["indicators", ..] => json!({"DriverScore": 82, "UpdatedAt": "2026-06-30T21:14:00Z"}),
        ["trips", "get", "v1"] | ["trips", "get", "admin", "v1"] => trips(principal),
        ["trips", "get", .., trip] if trip != "v1" => find_trip(principal, trip)?,
        ["statistics", .., "daily"] => daily_statistics(),
        ["statistics", ..] => statistics(),
        ["v1", "management", "users"] if head.method == Method::GET => match principal {
            Principal::User(device) => user(world, &device.to_string(), principal),
            Principal::Account(_) => users_page(world, principal),
        },
        ["v1", "management", "users", "getfilteredpage"] => users_page(world, principal),
        ["v1", "instances" | "companies" | "applications", id] if id.len() != 36 => {
            return Err(Refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The id is not a UUID",
            ));
        }
        // That host answers 200 without a Result where it knows no such entity.
        ["v1", "instances" | "companies" | "applications", _] => Value::Null,
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
    })
}

/// 422 for `StartDate` or `EndDate` that is no date, or for an end before the start.
fn check_dates(query: &str) -> Result<(), Refused> {
    let date = |wanted: &str| {
        query.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.eq_ignore_ascii_case(wanted)
                .then(|| value.get(..10).unwrap_or_default())
        })
    };
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

fn trip(principal: &Principal, id: &str) -> Value {
    let owner = match principal {
        Principal::User(device) => device.to_string(),
        Principal::Account(email) => email.to_string(),
    };
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

fn trips(principal: &Principal) -> Value {
    json!({
        "Trips": TRIP_IDS.map(|id| trip(principal, id)),
        "Paging": {"Total": TRIP_IDS.len(), "Count": TRIP_IDS.len(), "IncludedTotal": true},
    })
}

fn find_trip(principal: &Principal, id: &str) -> Result<Value, Refused> {
    if !TRIP_IDS.contains(&id) {
        return Err(Refused(StatusCode::NOT_FOUND, "There is no such trip"));
    }
    Ok(trip(principal, id))
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

fn user(world: &World, device: &str, principal: &Principal) -> Value {
    let instance = match principal {
        Principal::User(device) => world.users.instance_of(*device),
        Principal::Account(_) => None,
    };
    json!({
        "DeviceToken": device,
        "InstanceId": instance.map(|instance| instance.to_string()),
        "UserFields": {"ClientId": "simulated", "FirstName": "Ada", "LastName": "Driver"},
        "Enabled": true,
    })
}

fn users_page(world: &World, principal: &Principal) -> Value {
    json!({
        "Items": [user(world, "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11", principal)],
        "PageNumber": 1,
        "PageSize": 10,
        "TotalItems": 1,
    })
}
