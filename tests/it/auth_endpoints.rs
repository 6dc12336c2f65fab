//! Callers that log in by themselves, through the proxy.

// Logins, registrations, requests and trouble at the same time.
mod at_once;
// Wrong passwords, as fast as one peer can send them, or several.
mod guesses;
// The tokens that callers are given: whom they name, where, how long, and what ends them.
mod handed_out;
// Callers, and answers to registrations, that are not what they should be.
mod hostile;
// Logins and refreshes that the proxy answers, and those that it refuses or forwards.
mod logins;
// Registrations, moves and deletions of users that pass through.
mod registrations;

use damoov_proxy::simulator::{ACCOUNT_EMAIL, ACCOUNT_PASSWORD, INSTANCE_ID, INSTANCE_KEY};
use http::Request;
use http::request::Builder;
use serde_json::{Value, json};

use crate::harness::{Answer, Proxy, user};

/// The path of a call that an account may make.
const ADMIN: &str = "/v1/companies/6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";

/// What a login or a refresh gave.
#[derive(Clone, Debug)]
pub struct Tokens {
    access: String,
    refresh: String,
    expires_in: Value,
}

impl Tokens {
    pub fn of(answer: &Answer) -> Tokens {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let envelope: Value = serde_json::from_slice(answer.content()).unwrap();
        assert_eq!(envelope["Status"], 200);
        Tokens::in_result(&envelope["Result"])
    }

    fn in_result(result: &Value) -> Tokens {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Tokens {
            access: text(&result["AccessToken"]["Token"]),
            refresh: text(&result["RefreshToken"]),
            expires_in: result["AccessToken"]["ExpiresIn"].clone(),
        }
    }

    /// `GET path` with the access token and nothing else that names anybody.
    pub fn get(&self, path: &str) -> Builder {
        Request::get(path).header("Authorization", format!("Bearer {}", self.access))
    }
}

/// A user's login as the documentation has it.
pub async fn log_in(proxy: &Proxy, number: usize) -> Answer {
    log_in_with(proxy, number, INSTANCE_KEY).await
}

async fn log_in_with(proxy: &Proxy, number: usize, key: &str) -> Answer {
    let fields = json!({"Devicetoken": user(number).to_string()}).to_string();
    let request = Request::post("/v1/Auth/Login").header("InstanceId", INSTANCE_ID);
    post(
        proxy,
        request,
        json!({"LoginFields": fields, "Password": key}),
    )
    .await
}

/// An account's login.
async fn log_in_account(proxy: &Proxy) -> Answer {
    let fields = json!({"email": ACCOUNT_EMAIL}).to_string();
    let content = json!({"LoginFields": fields, "Password": ACCOUNT_PASSWORD});
    post(proxy, Request::post("/v1/Auth/Login"), content).await
}

async fn refresh(proxy: &Proxy, access: &str, refresh: &str) -> Answer {
    let content = json!({"AccessToken": access, "RefreshToken": refresh});
    post(proxy, Request::post("/v1/Auth/RefreshToken"), content).await
}

async fn post(proxy: &Proxy, request: Builder, content: Value) -> Answer {
    let request = request.header("Content-Type", "application/json");
    proxy.send_with(request, content.to_string()).await
}

/// That the proxy refuses, in the API's envelope.
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status.as_u16(), &*answer.code()),
        (status, code),
        "{}",
        answer.text()
    );
}
