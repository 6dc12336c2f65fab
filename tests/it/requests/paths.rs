//! Paths that two servers could read differently, and the spellings of routes.

use crate::harness::{Scene, user};
use crate::wire::{get, request};

#[tokio::test]
async fn a_path_that_is_not_plain_is_refused_before_any_route_is_chosen() {
    let scene = Scene::new().await;
    for path in [
        "/mobilesdk/../v1/Auth/Login",
        "/mobilesdk/stage/echo/..",
        "/mobilesdk/stage/./echo",
        "/mobilesdk/%2e%2e/v1/Auth/Login",
        "/mobilesdk/.%2E/v1/Auth/Login",
        "/mobilesdk/%2e/stage/echo",
        "/mobilesdk%2fstage/echo",
        "/mobilesdk%2Fstage/echo",
        "/mobilesdk%5cstage/echo",
        "/mobilesdk/stage/echo%00",
        "/mobilesdk/stage/echo%0d%0aHost:%20evil",
        "/mobilesdk/stage/echo%7f",
        "//mobilesdk/stage/echo",
        "/mobilesdk//stage/echo",
        "/mobilesdk/stage/echo;x=1",
        "/mobilesdk/stage/echo%",
        "/mobilesdk/stage/echo%2",
        "/mobilesdk/stage/echo%zz",
        "/nowhere/%zz",
    ] {
        scene.refuses(get(path, ""), 400, "path_invalid").await;
        let named = format!("/~{}{path}", user(1));
        scene.refuses(get(&named, ""), 400, "path_invalid").await;
    }
}

#[tokio::test]
async fn a_target_that_is_no_visible_ascii_is_refused() {
    let scene = Scene::new().await;
    for target in [
        &b"/mobilesdk\\stage/echo"[..],
        b"/mobilesdk/stage/\xc3\xa4",
        b"/mobilesdk/stage/\xff",
        b"/mobilesdk/stage/echo?q=\xc3\xa4",
        b"/mobilesdk/stage/\x01",
        b"/mobilesdk/stage/echo?\x7f",
        b"/mobilesdk/stage/\x00",
        b"mobilesdk/stage/echo",
        b"*",
        b"?",
    ] {
        let request = get("TARGET", "");
        let (before, after) = request.split_once("TARGET").unwrap();
        let request = [before.as_bytes(), target, after.as_bytes()].concat();
        let answer = scene.ask(request).await;
        // Some are refused by hyper, without content.
        assert_eq!(answer.status(), 400, "{}", target.escape_ascii());
        assert!(matches!(&*answer.code(), "path_invalid" | ""));
        scene.heard_nothing(&target.escape_ascii().to_string());
    }
}

#[tokio::test]
async fn other_spellings_of_a_route_are_the_same_route() {
    let scene = Scene::new().await;
    for path in [
        "/v1/Auth/Login",
        "/V1/AUTH/login",
        "/v1/Auth/Login/",
        "/v1/%41uth/Login",
        "/%76%31/%61%55%74%68/Login",
        "/v1/Auth/RefreshToken",
    ] {
        scene
            .refuses(request("POST", path, ""), 400, "bad_request")
            .await;
        scene
            .refuses(request("GET", path, ""), 405, "method_unknown")
            .await;
    }
    for path in ["/v1/auth/anything", "/v1/Auth"] {
        scene
            .refuses(request("POST", path, ""), 404, "route_unknown")
            .await;
    }
    for spelling in [
        "/MobileSDK/Stage/echo",
        "/mobilesdk/%73tage/echo",
        "/mobilesdk/stage/echo/",
    ] {
        let answer = scene.ask(get(spelling, "X-Test-Id: 1\r\n")).await;
        let status = answer.field("proxy-status").unwrap();
        assert!(status.starts_with("damoov-proxy"), "{spelling}: {status}");
        assert_eq!(scene.heard().target, spelling, "forwarded as written");
    }
}

#[tokio::test]
async fn a_path_that_no_route_has_is_unknown() {
    let scene = Scene::new().await;
    for path in [
        "/",
        "/nowhere",
        "/mobilesdkx/stage/echo",
        "/mobilesdk",
        "/livez",
        "/metrics",
    ] {
        scene.refuses(get(path, ""), 404, "route_unknown").await;
    }
}
