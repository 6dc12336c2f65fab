//! Several instances behind one proxy: which one a user is logged in to.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use damoov_proxy::principal::InstanceId;
use damoov_proxy::simulator::{
    Action, INSTANCE_ID, INSTANCE_KEY, Instance, KnownUsers, On, Simulator,
};
use http::Request;

use super::{calls, fault, refused, roomy};
use crate::harness::{
    Answer, Builder, ECHO, Proxy, SECOND_ID, SECOND_KEY, captured, damoov_of_two, damoov_with,
    principal, user,
};

/// A proxy that knows both; the first is not the default.
fn knowing_both(damoov: &Simulator, default: bool) -> Builder {
    roomy(damoov).toml(&format!(
        "[[instance]]\nname = \"second\"\nid = \"{SECOND_ID}\"\nkey = \"{SECOND_KEY}\"\n\
         default = {default}\n"
    ))
}

/// A call of user number `number`, who may name an instance.
async fn call(proxy: &Proxy, number: usize, instance: Option<&str>) -> Answer {
    let mut request = Request::get(ECHO).header("DeviceToken", user(number).to_string());
    if let Some(instance) = instance {
        request = request.header("InstanceId", instance);
    }
    proxy.send(request).await
}

/// The instance in the token of the last call that arrived.
fn arrived_for(damoov: &Simulator) -> String {
    let requests = damoov.handle().requests();
    let headers = &requests.last().unwrap().headers;
    assert!(!headers.contains_key("instanceid"));
    let token = headers["authorization"].to_str().unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    InstanceId::parse(claims["InstanceId"].as_str().unwrap())
        .unwrap()
        .to_string()
}

#[tokio::test]
async fn the_instance_header_picks_the_instance_and_else_the_default_one_counts() {
    let damoov = damoov_of_two().await;
    let proxy = knowing_both(&damoov, true).start().await;
    for (number, named, picked) in [
        (1, None, SECOND_ID),
        (2, Some(INSTANCE_ID), INSTANCE_ID),
        (3, Some(SECOND_ID), SECOND_ID),
    ] {
        assert_eq!(call(&proxy, number, named).await.status, 200);
        assert_eq!(arrived_for(&damoov), picked);
        assert_eq!(calls(&damoov, number), (1, 0));
    }
}

#[tokio::test]
async fn the_instance_that_a_user_is_known_under_comes_before_the_default() {
    let damoov = damoov_of_two().await;
    let mut proxy = knowing_both(&damoov, true).start().await;
    assert_eq!(call(&proxy, 1, Some(INSTANCE_ID)).await.status, 200);
    // Also where it costs a login, and after a restart.
    for _ in 0..2 {
        damoov.handle().revoke(Some(&principal(1)));
        assert_eq!(call(&proxy, 1, None).await.status, 200);
        assert_eq!(arrived_for(&damoov), INSTANCE_ID);
        proxy.crash().await;
    }
    assert_eq!(calls(&damoov, 1), (3, 2));
}

/// Registers user number `number` in the second instance, without tokens.
async fn register(proxy: &Proxy, number: usize, instance: &str) {
    let content = serde_json::json!({"CustomToken": user(number).to_string()});
    let request = Request::post("/v1/Registration/create")
        .header("InstanceId", instance)
        .header("Content-Type", "application/json");
    let answer = proxy.send_with(request, content.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_user_is_known_where_it_was_registered_and_where_it_was_moved_to() {
    let damoov = damoov_with(|settings| {
        settings.login_limit = None;
        settings.known_users = KnownUsers::Only(Vec::new());
        settings.instances.push(Instance {
            id: InstanceId::parse(SECOND_ID).unwrap(),
            key: SECOND_KEY.to_owned(),
        });
    })
    .await;
    let mut proxy = knowing_both(&damoov, false)
        .set("instance.0.default", "true")
        .start()
        .await;
    // By its id, and by the name that the configuration gives it.
    for (number, instance) in [(1, SECOND_ID), (2, "second"), (3, SECOND_ID)] {
        register(&proxy, number, instance).await;
    }
    assert_eq!(call(&proxy, 1, None).await.status, 200);
    assert_eq!(arrived_for(&damoov), SECOND_ID);
    let shown = captured(proxy.command(&format!("tokens show {}", user(2)))).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains(&format!("registered in  {SECOND_ID}")),
        "{shown}"
    );
    refused(
        &call(&proxy, 2, Some("main")).await,
        403,
        "instance_mismatch",
    );
    assert_eq!(calls(&damoov, 2), (0, 0));
    proxy.crash().await;
    assert_eq!(call(&proxy, 2, None).await.status, 200);
    // It logs in by itself, without InstanceId.
    let login = serde_json::json!({
        "LoginFields": format!(r#"{{"Devicetoken":"{}"}}"#, user(3)), "Password": SECOND_KEY,
    });
    let answer = proxy.send_with(Request::post("/v1/Auth/Login"), login.to_string());
    let answer = answer.await;
    assert_eq!(answer.status, 200, "{}", answer.text());

    // The default instance's key is good, too; but that is not where the user is.
    let others = login.to_string().replace(SECOND_KEY, INSTANCE_KEY);
    let answer = proxy.send_with(Request::post("/v1/Auth/Login"), others);
    refused(&answer.await, 403, "instance_mismatch");

    let to_the_first = serde_json::json!({
        "DeviceToken": user(3).to_string(), "ToInstanceId": INSTANCE_ID, "ToInstanceKey": INSTANCE_KEY,
    });
    for (content, arrives) in [
        (to_the_first.to_string(), INSTANCE_ID),
        (
            to_the_first
                .to_string()
                .replace(INSTANCE_ID, SECOND_ID)
                .replace(INSTANCE_KEY, SECOND_KEY),
            SECOND_ID,
        ),
    ] {
        let request = Request::post("/v1/Management/users/instances/change");
        let answer = proxy.send_with(request, content).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(call(&proxy, 3, None).await.status, 200);
        assert_eq!(arrived_for(&damoov), arrives);
    }
}

#[tokio::test]
async fn a_user_known_under_another_instance_is_refused_without_a_login() {
    let damoov = damoov_of_two().await;
    let mut proxy = knowing_both(&damoov, true).start().await;
    assert_eq!(call(&proxy, 1, Some(INSTANCE_ID)).await.status, 200);
    for _ in 0..2 {
        let answer = call(&proxy, 1, Some(SECOND_ID)).await;
        refused(&answer, 403, "instance_mismatch");
        proxy.crash().await;
    }
    // Nor is one renewed whose token is known to be no good.
    damoov.handle().expire(None);
    fault(&damoov, On::Refresh, Action::status(503));
    refused(&call(&proxy, 1, None).await, 502, "auth_unreachable");
    damoov.handle().clear_faults();
    let before = calls(&damoov, 1);
    let answer = call(&proxy, 1, Some(SECOND_ID)).await;
    refused(&answer, 403, "instance_mismatch");
    assert_eq!(calls(&damoov, 1), before);
    assert_eq!(before.0, 1);
}

#[tokio::test]
async fn an_instance_that_is_not_configured_is_unknown() {
    let damoov = damoov_of_two().await;
    let proxy = knowing_both(&damoov, false).start().await;
    let third = "33333333-3333-4333-8333-333333333333";
    for named in [None, Some(third), Some("third")] {
        refused(&call(&proxy, 1, named).await, 400, "instance_unknown");
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
    assert_eq!(call(&proxy, 1, Some(INSTANCE_ID)).await.status, 200);
}

#[tokio::test]
async fn a_rejected_login_ends_that_a_user_is_known() {
    let damoov = damoov_of_two().await;
    let mut proxy = knowing_both(&damoov, true).start().await;
    assert_eq!(call(&proxy, 1, Some(INSTANCE_ID)).await.status, 200);
    proxy.kill();
    proxy.reconfigure("instance.0.key", "wrong");
    proxy.start().await;
    damoov.handle().revoke(Some(&principal(1)));
    refused(&call(&proxy, 1, None).await, 403, "login_rejected");
    // Damoov is asked, though it does not let a user move either.
    let answer = call(&proxy, 1, Some(SECOND_ID)).await;
    refused(&answer, 403, "login_rejected");
    assert_eq!(calls(&damoov, 1).0, 3);
}
