//! Instances that go and return: the pairs of their users stay, and are not renewed meanwhile.

use super::*;
use crate::harness::{SECOND_ID, SECOND_KEY, captured, damoov_of_two, principal};

#[tokio::test]
async fn an_instance_that_is_gone_is_unknown_its_pairs_serve_when_it_returns() {
    let damoov = damoov_of_two().await;
    let second =
        format!("[[instance]]\nname = \"second\"\nid = \"{SECOND_ID}\"\nkey = \"{SECOND_KEY}\"\n");
    let both = format!("{second}default = false\n");
    let proxy = proxy(&damoov)
        .toml(&both)
        .toml("[login_budget]\nlogins = 1000\n")
        .set("instance.0.default", "true")
        .start()
        .await;
    let call = async |number: usize, instance: Option<&str>| {
        let mut request = Request::get(ECHO).header("DeviceToken", user(number).to_string());
        if let Some(instance) = instance {
            request = request.header("InstanceId", instance);
        }
        proxy.send(request).await
    };
    for number in [1, 2] {
        assert_eq!(call(number, Some(SECOND_ID)).await.status, 200);
    }
    assert_eq!(call(3, None).await.status, 200);
    proxy.edit_config(|text| text.replace(&both, ""));
    proxy.reload("applied").await;

    // Its token is fresh, expired, or not even known: it is the instance that is not.
    damoov.handle().expire(Some(&principal(2)));
    let before = [1, 2].map(|number| damoov.handle().counts_of(&principal(number)));
    for number in [1, 2] {
        for named in [None, Some(SECOND_ID), Some("second")] {
            let answer = call(number, named).await;
            assert_eq!(
                (answer.status.as_u16(), &*answer.code()),
                (400, "instance_unknown")
            );
        }
    }
    assert_eq!(call(3, None).await.status, 200, "of the other instance");
    let shown = captured(proxy.command(&format!("tokens show {}", user(1)))).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("configured no longer"), "{shown}");
    let after = [1, 2].map(|number| damoov.handle().counts_of(&principal(number)));
    assert_eq!(before, after, "nothing was asked of Damoov");

    proxy.edit_config(|text| format!("{text}\n{both}"));
    proxy.reload("applied").await;
    for number in [1, 2] {
        assert_eq!(call(number, None).await.status, 200);
    }
    let logins = |number| damoov.handle().counts_of(&principal(number)).logins.all();
    assert_eq!([1, 2].map(logins), [1, 1], "its pairs were there");
}
