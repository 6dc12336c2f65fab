//! damoov-admin 0.9.7: the vendor's Python package, with the host of its URLs changed.

use damoov_proxy::principal::Principal;
use damoov_proxy::simulator::{
    ACCOUNT_EMAIL, ACCOUNT_PASSWORD, INSTANCE_ID, INSTANCE_KEY, Simulator,
};
use http::Request;

use super::*;
use crate::harness::{SCORES, SECOND_ID, SECOND_KEY, damoov_of_two, eventually, programs, user};

fn proxy_of_two(damoov: &Simulator) -> Builder {
    troubled(damoov)
        .toml(&format!(
            "[[instance]]\nname = \"elsewhere\"\nid = \"{SECOND_ID}\"\nkey = \"{SECOND_KEY}\"\n"
        ))
        .set("instance.0.default", "true")
        .set("login_budget.logins", "100")
}

/// The package as installed, with a token database that is empty.
fn admin(base_url: &str) -> Script {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let arguments = [base_url, &path, ACCOUNT_EMAIL, ACCOUNT_PASSWORD];
    Script::start_in(folder, programs::python(), "admin.py", &arguments)
}

fn account() -> Principal {
    Principal::Account(ACCOUNT_EMAIL.into())
}

#[tokio::test]
async fn its_threads_work_through_expiry_revocation_and_restarts() {
    let damoov = damoov_of_two().await;
    let mut proxy = proxy_of_two(&damoov).start().await;
    let mut admin = admin(&proxy.url(""));
    assert_eq!(admin.step("crowd").await, 120, "8 threads, 15 calls each");
    assert_eq!(damoov.handle().counts().total.logins.all(), 1, "8 logins");

    for trouble in TROUBLES {
        // Calls under way meet it too, where it leaves them a proxy.
        if trouble.ends_tokens_alone() {
            let calls = damoov.handle().counts().total.data_calls;
            admin.tell("crowd");
            eventually("the crowd is at work", async || {
                damoov.handle().counts().total.data_calls > calls
            })
            .await;
            trouble.strike(&damoov, &mut proxy).await;
            assert_eq!(admin.line().await, 120, "during {trouble:?}");
        } else {
            trouble.strike(&damoov, &mut proxy).await;
            assert_eq!(admin.step("crowd").await, 120, "after {trouble:?}");
        }
        assert_eq!(admin.step("shared").await, 32, "after {trouble:?}");
        assert_eq!(admin.step("read").await, 15, "after {trouble:?}");
        let device = user(1).to_string();
        assert_eq!(admin.step("leaders").await, device, "after {trouble:?}");
    }
    admin.end().await;
    renewed_no_more_than_needed(&damoov, &account(), 1);
}

#[tokio::test]
async fn its_own_refresh_and_its_own_login_are_answered_by_the_proxy() {
    let damoov = damoov_of_two().await;
    let mut proxy = proxy_of_two(&damoov).start().await;
    let mut admin = admin(&proxy.url(""));
    admin.step("read").await;
    for trouble in TROUBLES {
        trouble.strike(&damoov, &mut proxy).await;
        admin.step("refresh").await;
        assert_eq!(admin.step("read").await, 15, "after {trouble:?}");
    }
    renewed_no_more_than_needed(&damoov, &account(), 1);

    // Its token ends: it meets a 401, tries its RefreshToken, which ended too, and logs in.
    let token = admin.step("token").await;
    let forget = proxy.command("tokens forget account:reporting").status();
    assert!(forget.unwrap().success());
    eventually("the token has ended", async || {
        let bearer = format!("Bearer {}", token.as_str().unwrap());
        let request = Request::get("/v1/companies/current").header("Authorization", bearer);
        proxy.send(request).await.status == 401
    })
    .await;
    assert_eq!(admin.step("read").await, 15);
    assert_ne!(admin.step("token").await, token);
    admin.end().await;
    let logins = damoov.handle().counts_of(&account()).logins;
    assert_eq!((logins.ok, logins.all()), (4, 4));
}

#[tokio::test]
async fn it_creates_changes_moves_and_deletes_users() {
    let damoov = damoov_of_two().await;
    let mut proxy = proxy_of_two(&damoov).start().await;
    let mut admin = admin(&proxy.url(""));
    for trouble in TROUBLES {
        trouble_for_users(trouble, &damoov, &mut proxy, &mut admin).await;
    }
    admin.end().await;
    assert_eq!(damoov.handle().counts().total.wrong_tokens, 0);
}

/// The life of one user, with trouble in the middle of it.
async fn trouble_for_users(
    trouble: Trouble,
    damoov: &Simulator,
    proxy: &mut Proxy,
    admin: &mut Script,
) {
    let step = format!("create {INSTANCE_ID} {INSTANCE_KEY}");
    let created = admin.step(&step).await;
    let device = created["device"].as_str().unwrap();
    let scores = async |proxy: &Proxy| {
        let bearer = format!("Bearer {}", created["access"].as_str().unwrap());
        let request = Request::get(SCORES).header("Authorization", bearer);
        proxy.send(request).await
    };
    let user = Principal::parse(&format!("user:{device}")).unwrap();
    assert_eq!(scores(proxy).await.served_as(), device);
    let logins = damoov.handle().counts_of(&user).logins.all();
    assert_eq!(logins, 0, "the registration is the login");

    assert_eq!(admin.step(&format!("change {device}")).await, device);
    trouble.strike(damoov, proxy).await;
    assert_eq!(admin.step(&format!("change {device}")).await, device);
    assert_eq!(scores(proxy).await.served_as(), device, "after {trouble:?}");

    let step = format!("move {device} {SECOND_ID} {SECOND_KEY}");
    assert_eq!(admin.step(&step).await, SECOND_ID);
    let request = Request::get(SCORES)
        .header("DeviceToken", device)
        .header("InstanceId", SECOND_ID);
    let moved = proxy.send(request).await;
    assert_eq!(moved.served_as(), device, "{}", moved.text());

    let found = admin.step(&format!("delete {device}")).await;
    assert_eq!(found, serde_json::json!([]));
    let deleted = proxy.send(Request::get(SCORES).header("DeviceToken", device));
    let deleted = deleted.await;
    assert_eq!(deleted.status, 403, "{}", deleted.text());
}

#[tokio::test]
async fn without_a_proxy_it_meets_the_expiry_itself() {
    let damoov = damoov_of_two().await;
    let mut admin = admin(&damoov.base_url());
    admin.step("read").await;
    damoov.handle().expire(None);
    assert_eq!(admin.step("read").await, 15);
    admin.end().await;
    let count = damoov.handle().counts_of(&account());
    assert!(count.unauthorized > 0);
    assert!(count.refreshes.ok > 0);
}
