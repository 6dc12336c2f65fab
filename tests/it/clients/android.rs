//! Requests as the vendor's Android library 1.x builds them: Retrofit's methods, Gson's bodies,
//! OkHttp's fields, byte for byte; and what that library takes for an error.

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::{
    INSTANCE_ID, INSTANCE_KEY, Registration, RegistrationCredentials, RegistrationShape,
};
use serde_json::Value;

use super::*;
use crate::harness::damoov_with;
use crate::wire::Wire;

/// What one installation of an app keeps.
struct App {
    access: String,
    refresh: String,
    device: String,
}

/// A call of the library: gives `Result`, or panics where the library would throw.
async fn call(proxy: &Proxy, line: &str, fields: &[(&str, &str)], body: &str) -> Value {
    let mut head = format!("{line} HTTP/1.1\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += "Content-Type: application/json; charset=UTF-8\r\n";
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let host = proxy.address();
    head += &format!(
        "Host: {host}\r\nConnection: Keep-Alive\r\nAccept-Encoding: gzip\r\n\
         User-Agent: okhttp/4.11.0\r\n\r\n"
    );
    let answer = Wire::to(proxy).await.ask(head + body).await;
    let text = String::from_utf8(answer.content.clone()).unwrap();
    assert!(
        !(400..=500).contains(&answer.status()),
        "ResponseInterceptor: {line}: {text}"
    );
    let envelope: Value = serde_json::from_str(&text).expect("Gson wants JSON");
    assert_eq!(
        envelope["Status"], 200,
        "ResponseInterceptor: {line}: {text}"
    );
    assert!(
        envelope["Result"].is_object(),
        "EmptyResultException: {text}"
    );
    envelope["Result"].clone()
}

impl App {
    /// The mapper of all three answers that carry tokens: none of these may be null.
    fn of(result: &Value) -> App {
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        assert!(result["AccessToken"]["ExpiresIn"].is_i64());
        App {
            access: text(&result["AccessToken"]["Token"]),
            refresh: text(&result["RefreshToken"]),
            device: text(&result["DeviceToken"]),
        }
    }

    /// `createDeviceToken` with nothing but a `clientId`; an absent `maritalStatus` is "null".
    async fn register(proxy: &Proxy) -> App {
        let fields = [("InstanceId", INSTANCE_ID), ("InstanceKey", INSTANCE_KEY)];
        let body = r#"{"maritalStatus":"null","userFields":{"ClientId":"12-34"}}"#;
        App::of(&call(proxy, "POST /v1/Registration/Create", &fields, body).await)
    }

    /// `login`: the object form; Gson leaves out what is null.
    async fn log_in(&self, proxy: &Proxy) -> App {
        let fields = [("InstanceId", INSTANCE_ID)];
        let body = format!(
            r#"{{"loginFields":{{"DeviceToken":"{}"}},"password":"{INSTANCE_KEY}"}}"#,
            self.device
        );
        App::of(&call(proxy, "POST /v1/Auth/Login", &fields, &body).await)
    }

    /// `refreshToken`.
    async fn refresh(&self, proxy: &Proxy) -> App {
        let fields = [("InstanceId", INSTANCE_ID), ("InstanceKey", INSTANCE_KEY)];
        let body = format!(
            r#"{{"AccessToken":"{}","RefreshToken":"{}"}}"#,
            self.access, self.refresh
        );
        App::of(&call(proxy, "POST /v1/Auth/RefreshToken", &fields, &body).await)
    }

    /// `getUserProfile`: the user is the token's.
    async fn get_profile(&self, proxy: &Proxy) {
        let authorization = format!("Bearer {}", self.access);
        let fields = [
            ("InstanceId", INSTANCE_ID),
            ("InstanceKey", INSTANCE_KEY),
            ("Authorization", &authorization),
        ];
        let profile = call(proxy, "GET /v1/Management/users", &fields, "").await;
        assert_eq!(profile["DeviceToken"], self.device);
        assert!(profile["Status"].is_string(), "{profile}");
        assert!(profile["UserProfile"].is_object(), "{profile}");
        assert!(profile["UserFields"].is_array(), "{profile}");
    }
}

#[tokio::test]
async fn the_android_library_works_through_expiry_revocation_and_restarts() {
    // It never asks for the tokens that it expects of a registration.
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.registration = Registration {
            credentials: RegistrationCredentials::Always,
            shape: RegistrationShape::Enveloped,
        };
    })
    .await;
    let mut proxy = troubled(&damoov).start().await;
    let registered = App::register(&proxy).await;
    registered.get_profile(&proxy).await;
    let mut app = registered.log_in(&proxy).await;
    app.get_profile(&proxy).await;
    let principal = Principal::parse(&format!("user:{}", app.device)).unwrap();
    let logins = damoov.handle().counts_of(&principal).logins.all();
    assert_eq!(logins, 0, "the registration is the login");

    for trouble in TROUBLES {
        trouble.strike(&damoov, &mut proxy).await;
        app.get_profile(&proxy).await;
        app = app.refresh(&proxy).await;
        app.get_profile(&proxy).await;
        app = app.log_in(&proxy).await;
        app.get_profile(&proxy).await;
        registered.get_profile(&proxy).await;
    }
    renewed_no_more_than_needed(&damoov, &principal, 0);
}
