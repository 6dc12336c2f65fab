//! Reading the claims of a JWT. The signing key is not public, so claims can be read but not
//! verified (damoov/API.md, "Claims of a JWT"). Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::principal::{DeviceToken, InstanceId};

/// The claims that matter here. Each may be missing or of another type; then it is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Whose token it is; `None` in an admin's.
    pub device_token: Option<DeviceToken>,
    /// The group that its user is in.
    pub instance: Option<InstanceId>,
    /// Seconds since the Unix epoch.
    pub issued: Option<i64>,
    /// Seconds since the Unix epoch.
    pub expires: Option<i64>,
}

impl Claims {
    /// Reads the payload of `token`; the claims are empty if it is not a JWT.
    pub fn read(token: &str) -> Claims {
        #[derive(Default, Deserialize)]
        struct Payload {
            #[serde(rename = "DeviceToken", default)]
            device_token: serde_json::Value,
            #[serde(rename = "InstanceId", default)]
            instance: serde_json::Value,
            #[serde(default)]
            iat: serde_json::Value,
            #[serde(default)]
            exp: serde_json::Value,
        }
        let payload: Payload = payload(token).unwrap_or_default();
        Claims {
            device_token: payload
                .device_token
                .as_str()
                .and_then(|t| DeviceToken::parse(t).ok()),
            instance: payload
                .instance
                .as_str()
                .and_then(|id| InstanceId::parse(id).ok()),
            issued: payload.iat.as_i64(),
            expires: payload.exp.as_i64(),
        }
    }

    /// `exp − iat`, in seconds.
    pub fn lifetime(&self) -> Option<i64> {
        Some(self.expires?.saturating_sub(self.issued?))
    }
}

/// The payload of `token` read as `T`; `None` if it is not a JWT, or has other claims.
pub fn payload<T: DeserializeOwned>(token: &str) -> Option<T> {
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn claims_are_read() {
        let claims = Claims::read(&jwt(
            r#"{"DeviceToken":"6F1C0C1E5A0E4C1E9F530D3C2F8A7B11","InstanceId":"11111111111141118111111111111111","iat":100,"exp":43300,"x":[1]}"#,
        ));
        assert_eq!(
            claims.device_token.unwrap().to_string(),
            "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11"
        );
        let instance = InstanceId::parse("11111111-1111-4111-8111-111111111111");
        assert_eq!(claims.instance, instance.ok());
        assert_eq!(claims.lifetime(), Some(43200));
    }

    #[test]
    fn what_is_no_jwt_has_no_claims() {
        for token in [
            "",
            "a",
            "a.b.c",
            "..",
            "e30.bm8.x",
            &jwt("[1]"),
            &jwt(r#"{"iat":"x"}"#),
        ] {
            assert_eq!(Claims::read(token), Claims::default(), "{token}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_token_makes_reading_panic(token in ".*") {
            Claims::read(&token);
        }
    }
}
