//! Lines and names of fields.

use crate::harness::{ECHO, Scene};
use crate::wire::get;

#[tokio::test]
async fn malformed_field_lines_end_the_connection() {
    let scene = Scene::new().await;
    for fields in [
        &b"X-Folded: a\r\n b\r\n"[..],
        b"X-Folded: a\r\n\tb\r\n",
        b"X-Bare: a\rb\r\n",
        b"X-Bare: a\r\r\n",
        b"X-Nul: a\0b\r\n",
        b"X-Space : a\r\n",
        b"X Space: a\r\n",
        b" X-Space: a\r\n",
        b"X-Tab\t: a\r\n",
        b"X-\xc3\xa4: a\r\n",
        b"X-\xff: a\r\n",
        b": a\r\n",
        b"no colon\r\n",
        b"X-(: a\r\n",
    ] {
        let head = get(ECHO, "");
        let head = head.strip_suffix("\r\n").unwrap().as_bytes();
        let request = [head, fields, b"\r\n"].concat();
        scene.is_the_end(request, &[400]).await;
    }
}

#[tokio::test]
async fn a_first_field_line_cannot_continue_the_request_line() {
    let scene = Scene::new().await;
    let request = "GET /mobilesdk/stage/echo HTTP/1.1\r\n Host: localhost\r\n\r\n";
    scene.is_the_end(request, &[400]).await;
}

#[tokio::test]
async fn underscores_cannot_disguise_a_field_of_ours() {
    let scene = Scene::new().await;
    for name in [
        "Device_Token",
        "DeviceToken_",
        "device_token",
        "Instance_Id",
        "InstanceKey_",
        "Content_Length",
        "Transfer_Encoding",
        "Proxy_Authorization",
        "X_Forwarded_For",
        "X_Real_IP",
        "User_Device_Token",
        "X_Damoov_Proxy_Key",
    ] {
        let request = get(ECHO, &format!("{name}: 1\r\n"));
        scene.refuses(request, 400, "bad_request").await;
    }
    assert_eq!(scene.ask(get(ECHO, "x_own: 1\r\n")).await.status(), 200);
    assert_eq!(scene.heard().headers["x_own"], "1");
}
