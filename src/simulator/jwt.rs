//! Access tokens that look like the API's: RS256 in shape, about 1 kB, with the claims of
//! damoov/API.md ("Claims of a JWT"). The signature is noise; tokens are looked up, not verified.

use crate::clock::Timestamp;
use crate::principal::{InstanceId, Principal};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::random::random_id;

/// A new token of `principal`, valid from `issued` to `expires`. `instance` is a user's.
pub(super) fn mint(
    principal: &Principal,
    instance: Option<InstanceId>,
    issued: Timestamp,
    expires: Timestamp,
) -> String {
    let header = json!({
        "alg": "RS256",
        "kid": "5B1FA7C3D0E94A6F8B2C7D1E3F405162738495A6",
        "typ": "JWT",
    });
    let mut claims = json!({
        "jti": random_id().to_string(),
        "iat": issued.as_millis() / 1000,
        "nbf": issued.as_millis() / 1000,
        "exp": expires.as_millis() / 1000,
        "iss": "webApi",
        "aud": "https://user.telematicssdk.com",
        "CompanyId": "9a3f2d1c5b7e4f608192a3b4c5d6e7f8",
        "AppId": "0f1e2d3c4b5a49788796a5b4c3d2e1f0",
    });
    match principal {
        Principal::User(device) => {
            claims["sub"] = without_dashes(device);
            claims["DeviceToken"] = without_dashes(device);
            claims["IsAdmin"] = "False".into();
        }
        Principal::Account(email) => {
            claims["sub"] = (&**email).into();
            claims["IsAdmin"] = "True".into();
        }
    }
    if let Some(instance) = instance {
        claims["InstanceId"] = without_dashes(&instance);
    }
    let mut signature = [0; 256];
    fastrand::fill(&mut signature);
    let [header, claims] =
        [header, claims].map(|part| serde_json::to_vec(&part).expect("a Value always serialises"));
    [header.as_slice(), &claims, &signature]
        .map(|part| URL_SAFE_NO_PAD.encode(part))
        .join(".")
}

fn without_dashes(id: &impl ToString) -> Value {
    id.to_string().replace('-', "").into()
}
