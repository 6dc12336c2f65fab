//! `tokens export`, and that an import of it saves every login.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{Proxy, SCORES, captured, damoov, proxy, user};

async fn served(proxy: &Proxy) {
    for number in [1, 2, 3] {
        let answer = proxy.get(number, SCORES).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let accounts = http::Request::get("/v1/companies/current");
    // A question that the API does not understand, of an account that it knows.
    assert_eq!(proxy.send(accounts).await.status, 422);
}

#[tokio::test]
async fn an_export_imported_elsewhere_serves_everybody_without_a_login() {
    let damoov = damoov().await;
    let mut first = proxy(&damoov).start().await;
    served(&first).await;
    first.terminate().await;
    let file = first.store().with_file_name("export.jsonl");
    let export = format!("tokens export --to {}", file.display());
    let (code, said) = first.run(&export).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.starts_with("exported 3 users and 1 accounts"),
        "{said}"
    );
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(&file).unwrap();
    let (code, said) = first.run(&export).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("exists"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), before, "it is not written over");

    let logins = damoov.handle().counts().total.logins.all();
    let builder = proxy(&damoov);
    let store = builder.store();
    let mut second = builder.stopped(&store);
    let (code, said) = second
        .run(&format!("tokens import --from {}", file.display()))
        .await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("imported 4, kept newer 0"), "{said}");
    second.start().await;
    served(&second).await;
    damoov.handle().expire(None);
    served(&second).await;
    assert_eq!(damoov.handle().counts().total.logins.all(), logins);
}

#[tokio::test]
async fn an_export_to_standard_output_is_lines_alone() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let output = captured(proxy.command("tokens export --to -")).await;
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let [line] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("{} lines", text.lines().count());
    };
    let line: Value = serde_json::from_str(line).unwrap();
    let keys: Vec<_> = line.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["AccessToken", "DeviceToken", "InstanceId", "RefreshToken"]
    );
    assert_eq!(line["DeviceToken"], user(1).to_string());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .starts_with("exported 1 users")
    );
}

#[tokio::test]
async fn an_export_that_cannot_be_written_is_exit_code_1() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let (code, said) = proxy.run("tokens export --to /nowhere/export.jsonl").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("cannot write /nowhere/export.jsonl"),
        "{said}"
    );
}

#[tokio::test]
async fn an_export_is_never_shown_on_a_terminal() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    let line = format!(
        "{} tokens export --to - --config {}",
        env!("CARGO_BIN_EXE_damoov-proxy"),
        proxy.config().display()
    );
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]);
    let output = captured(terminal).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("terminal") && !shown.contains("eyJ"),
        "{shown}"
    );
}
