//! Users that are found, changed, moved and deleted by an account.

use super::*;

const ELSEWHERE: &str = "22222222-2222-4222-8222-222222222222";
const ELSEWHERE_KEY: &str = "another-key";

/// A simulator with two instances, and an account's client of it.
async fn start_managed() -> (Simulator, Client, Admin) {
    let mut settings = unlimited();
    settings.instances.push(Instance {
        id: InstanceId::parse(ELSEWHERE).unwrap(),
        key: ELSEWHERE_KEY.to_owned(),
    });
    let (simulator, client) = start(settings).await;
    let admin = Admin {
        token: client.log_in_account().await.access(),
        client: Client::of(simulator.addr()),
    };
    (simulator, client, admin)
}

struct Admin {
    client: Client,
    token: String,
}

impl Admin {
    async fn call(&self, method: Method, path: &str, target: &str, body: &Value) -> Answered {
        let request = client::request(method, &format!("/v1/Management/users{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("userdevicetoken", target)
            .body(client::content(body.to_string()))
            .unwrap();
        self.client.send(request).await.unwrap()
    }

    async fn find(&self, device: &str) -> Value {
        let path = format!("/find?DeviceToken={device}");
        let found = self.call(Method::GET, &path, "", &Value::Null).await;
        found.json()["Result"].clone()
    }
}

#[tokio::test]
async fn an_update_is_found_again_and_leaves_the_rest_alone() {
    let (simulator, _, admin) = start_managed().await;
    for body in [
        json!({"FirstName": "Tim", "UserFields": {"ClientId": "12-34"}}),
        json!({"UserFields": {"EnableTracking": false}}),
    ] {
        let updated = admin.call(Method::PUT, "", USER, &body).await;
        let done = json!({"Status": 200, "Title": "", "Errors": []});
        assert_eq!(updated.json(), done, "no Result");
    }
    let found = admin.find(USER).await;
    assert_eq!(found[0]["UserProfile"]["FirstName"], "Tim");
    assert_eq!(found[0]["UserProfile"]["LastName"], "Driver");
    let fields = json!([{"ClientId": "12-34", "EnableTracking": false}]);
    assert_eq!(found[0]["UserFields"], fields);
    let nobody = admin.call(Method::PUT, "", "{x}", &json!({})).await;
    assert_eq!(nobody.status, 422);
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_deleted_user_is_gone_with_its_tokens_until_it_is_registered_again() {
    let (simulator, client, admin) = start_managed().await;
    let pair = client.log_in(USER).await;
    let other = client.log_in(OTHER).await;
    let path = format!("/{}", USER.to_uppercase());
    let deleted = admin.call(Method::DELETE, &path, "", &Value::Null).await;
    assert_eq!(deleted.status, 200);

    let scores = "/indicators/v3/Scores/safety";
    assert_eq!(client.get(scores, &pair.access()).await.status, 401);
    assert_eq!(client.refresh(&pair).await.unwrap().status, 401);
    let login = client::login_body(USER);
    let again = client.login(&login, Some(INSTANCE_ID)).await.unwrap();
    assert_eq!(again.status, 401);
    assert_eq!(admin.find(USER).await, json!([]));
    let twice = admin.call(Method::DELETE, &path, "", &Value::Null).await;
    assert_eq!(twice.status, 404);
    assert_eq!(client.get(scores, &other.access()).await.status, 200);

    let body = json!({"CustomToken": USER});
    assert_eq!(client.register(&body, INSTANCE_KEY).await.status, 200);
    client.log_in(USER).await;
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_moved_user_logs_in_to_its_new_instance_alone() {
    let (simulator, client, admin) = start_managed().await;
    let pair = client.log_in(USER).await;
    let mut body = json!({"DeviceToken": USER, "ToInstanceId": ELSEWHERE, "ToInstanceKey": "x"});
    let path = "/instances/change";
    let wrong_key = admin.call(Method::POST, path, "", &body).await;
    assert_eq!(wrong_key.status, 422);
    let scores = "/indicators/v3/Scores/safety";
    assert_eq!(client.get(scores, &pair.access()).await.status, 200);

    body["ToInstanceKey"] = ELSEWHERE_KEY.into();
    assert_eq!(admin.call(Method::POST, path, "", &body).await.status, 200);
    assert_eq!(client.get(scores, &pair.access()).await.status, 401);
    assert_eq!(client.refresh(&pair).await.unwrap().status, 401);
    let found = admin.find(USER).await;
    assert_eq!(found[0]["AccountInfo"]["InstanceId"], ELSEWHERE);

    let mut login = client::login_body(USER);
    let old = client.login(&login, Some(INSTANCE_ID)).await.unwrap();
    assert_eq!(old.status, 401);
    login["Password"] = ELSEWHERE_KEY.into();
    let new = client.login(&login, Some(ELSEWHERE)).await.unwrap();
    assert_eq!(new.status, 200);
    simulator.shutdown().await;
}

#[tokio::test]
async fn an_account_asks_for_the_trips_of_the_user_it_names() {
    let (simulator, _, admin) = start_managed().await;
    let request = client::request(Method::POST, "/trips/get/admin/v1")
        .header("authorization", format!("Bearer {}", admin.token))
        .body(client::content(
            json!({"Identifiers": {"UserId": USER}}).to_string(),
        ))
        .unwrap();
    let trips = admin.client.send(request).await.unwrap().json();
    assert_eq!(trips["Result"]["Trips"][0]["Identifiers"]["UserId"], USER);
    assert_eq!(trips["Result"]["PagingInfo"]["TotalPages"], 1);
    simulator.shutdown().await;
}
