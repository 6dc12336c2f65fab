//! `tokens export --sealed`: whole entries, that an import with the same key puts into another store as
//! they are, without a login.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use damoov_proxy::simulator::Simulator;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{
    Builder, Proxy, SCORES, captured, damoov, eventually, proxy, user, write_private,
};

/// A proxy whose store has the first of three keys.
fn keyed(damoov: &Simulator) -> Builder {
    let key = |byte: u8| BASE64_STANDARD.encode([byte; 32]);
    proxy(damoov)
        .set("store.key.env", "FIRST_KEY")
        .env("FIRST_KEY", &key(1))
        .env("SECOND_KEY", &key(2))
}

/// Another one, which is not started and has no store yet.
fn second(damoov: &Simulator) -> Proxy {
    keyed(damoov).stopped_here()
}

/// What a store holds, whole: the lines of its sealed export between the first and the last.
async fn entries(proxy: &Proxy) -> Vec<String> {
    let output = captured(proxy.command("tokens export --sealed --to -")).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(
        lines.pop().unwrap(),
        json!({ "end": lines.len() - 1 }).to_string()
    );
    lines.remove(0);
    lines
}

/// A store with pairs, a note and a tombstone, exported to a file.
async fn exported(damoov: &Simulator) -> (Proxy, PathBuf) {
    let mut proxy = keyed(damoov).start().await;
    proxy.import(damoov, 1..=5);
    for number in [1, 2, 3] {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    damoov.handle().expire(None);
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    let (code, said) = proxy.run(&format!("tokens forget {}", user(2))).await;
    assert_eq!(code, Some(0), "{said}");
    proxy.terminate().await;
    let file = proxy.store().with_file_name("sealed.jsonl");
    let export = format!("tokens export --sealed --to {}", file.display());
    let (code, said) = proxy.run(&export).await;
    assert_eq!(code, Some(0), "{said}");
    let summary = "exported 4 principals with tokens and 1 without, sealed\n";
    assert_eq!(said, summary);
    (proxy, file)
}

async fn import(proxy: &Proxy, file: &Path, options: &str) -> (Option<i32>, String) {
    let import = format!("tokens import --from {}{options}", file.display());
    proxy.run(&import).await
}

#[tokio::test]
async fn a_sealed_export_makes_the_same_store_elsewhere_without_a_login() {
    let damoov = damoov().await;
    let (first, file) = exported(&damoov).await;
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    // The beginning of every JWT, and of the API's field for it.
    assert!(!text.contains("eyJ") && !text.contains("Token"), "{text}");

    let mut second = second(&damoov);
    let (code, said) = import(&second, &file, " --dry-run").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("would be imported 5, kept newer 0"), "{said}");
    assert!(!second.store().exists());
    for (imported, kept) in [(5, 0), (0, 5)] {
        let (code, said) = import(&second, &file, " --json").await;
        assert_eq!(code, Some(0), "{said}");
        // What follows is for the audit log.
        let counts: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        let expected = json!({
            "imported": imported, "kept_newer": kept, "without_refresh_token": 0, "failed": 0,
        });
        assert_eq!(counts, expected);
        assert_eq!(entries(&second).await, entries(&first).await);
    }
    second.start().await;
    damoov.handle().expire(None);
    for number in [1, 3, 4, 5] {
        let answer = second.get(number, SCORES).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.served_as(), user(number).to_string());
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 0);
    // The first store is behind now, and takes over what the second one has.
    second.terminate().await;
    let file = second.store().with_file_name("back.jsonl");
    let export = format!("tokens export --sealed --to {}", file.display());
    assert_eq!(second.run(&export).await.0, Some(0));
    let (code, said) = import(&first, &file, "").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("imported 4, kept newer 1"), "{said}");
    assert_eq!(entries(&first).await, entries(&second).await);
}

#[tokio::test]
async fn one_command_fills_a_store_from_another_through_a_pipe() {
    let damoov = damoov().await;
    let (first, _) = exported(&damoov).await;
    let second = second(&damoov);
    let mut export = first.command("tokens export --sealed --to -");
    export.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut export = export.spawn().unwrap();
    let mut import = second.command("tokens import --from -");
    import.stdin(export.stdout.take().unwrap());
    let imported = captured(import).await;
    assert_eq!(imported.status.code(), Some(0), "{imported:?}");
    assert!(imported.stdout.starts_with(b"imported 5, kept newer 0"));
    assert!(export.wait().unwrap().success());
    assert_eq!(entries(&second).await, entries(&first).await);
}

#[tokio::test]
async fn an_export_of_another_key_is_refused_before_anything_is_written() {
    let damoov = damoov().await;
    let (first, file) = exported(&damoov).await;
    let mut other = second(&damoov);
    other.reconfigure("store.key.env", "SECOND_KEY");
    let keyless = proxy(&damoov).stopped_here();
    for proxy in [&other, &keyless] {
        for options in ["", " --dry-run"] {
            let (code, said) = import(proxy, &file, options).await;
            assert_eq!(code, Some(78), "{said}");
            assert!(
                said.contains("nothing was imported") && said.contains("old_keys"),
                "{said}"
            );
            assert!(!proxy.store().exists());
        }
    }
    other.reconfigure("store.old_keys", "[{ env = \"FIRST_KEY\" }]");
    let (code, said) = import(&other, &file, "").await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(entries(&other).await, entries(&first).await);
    let (code, said) = other.run("tokens reseal").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("resealed 4"), "{said}");
}

#[tokio::test]
async fn what_is_newer_here_stays_and_a_forget_here_is_not_undone() {
    let damoov = damoov().await;
    let (mut first, file) = exported(&damoov).await;
    first.start().await;
    damoov.handle().expire(None);
    assert_eq!(first.get(3, SCORES).await.status, 200);
    first.run(&format!("tokens forget {}", user(4))).await;
    first.terminate().await;
    let before = entries(&first).await;
    let (code, said) = import(&first, &file, "").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("imported 0, kept newer 5"), "{said}");
    assert_eq!(entries(&first).await, before);
}

#[tokio::test]
async fn a_part_of_a_sealed_export_is_taken_and_told_as_one() {
    let damoov = damoov().await;
    let (first, file) = exported(&damoov).await;
    let whole = fs::read_to_string(&file).unwrap();
    let mut lines: Vec<_> = whole.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 7);
    let second = second(&damoov);
    write_private(&file, &lines[..3].join("\n"));
    let (code, said) = import(&second, &file, "").await;
    assert_eq!(code, Some(65), "{said}");
    assert!(
        said.contains("not whole") && said.contains("imported 2"),
        "{said}"
    );
    // One line changed on the way, another missing.
    let other = lines.remove(2);
    let sealed: Value = serde_json::from_str(&lines[3]).unwrap();
    let of_another: Value = serde_json::from_str(&other).unwrap();
    let mut forged = sealed;
    forged["record"]["sealed"] = of_another["record"]["sealed"].clone();
    if forged["record"]["sealed"].is_null() {
        forged["record"]["sealed"] = "AAAA".into();
    }
    lines[3] = forged.to_string();
    write_private(&file, &lines.join("\n"));
    let (code, said) = import(&second, &file, "").await;
    assert_eq!(code, Some(65), "{said}");
    assert!(
        said.contains("line 4: ") && said.contains("damaged"),
        "{said}"
    );
    assert!(said.contains("it had 5 entries, not 4"), "{said}");
    write_private(&file, &whole);
    let (code, said) = import(&second, &file, "").await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(entries(&second).await, entries(&first).await);
}

#[tokio::test]
async fn an_interrupted_sealed_import_goes_on_where_it_is_run_again() {
    let damoov = damoov().await;
    let (first, file) = exported(&damoov).await;
    let whole = fs::read_to_string(&file).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let second = second(&damoov);
        let mut import = second.command("tokens import --from -");
        import.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut import = import.spawn().unwrap();
        let mut lines = import.stdin.take().unwrap();
        let begun: String = whole
            .lines()
            .take(4)
            .map(|line| format!("{line}\n"))
            .collect();
        lines.write_all(begun.as_bytes()).unwrap();
        eventually("the first entries are stored", async || {
            let (_, list) = second.run("tokens list --count").await;
            list.trim() == "2" || list.trim() == "3"
        })
        .await;
        kill_process(Pid::from_child(&import), signal).unwrap();
        let status = import.wait().unwrap();
        let code = (signal != Signal::KILL).then_some(75);
        assert_eq!(status.code(), code);
        drop(lines);
        let (code, said) = self::import(&second, &file, "").await;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(entries(&second).await, entries(&first).await);
    }
}

#[tokio::test]
async fn what_cannot_be_meant_for_a_sealed_export_is_refused() {
    let damoov = damoov().await;
    let (first, file) = exported(&damoov).await;
    let (code, said) = import(&first, &file, " --overwrite").await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("in clear"), "{said}");
    let newer = fs::read_to_string(&file)
        .unwrap()
        .replace("\"sealed_export\":2", "\"sealed_export\":3");
    write_private(&file, &newer);
    let (code, said) = import(&first, &file, "").await;
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("newer version"), "{said}");
}

#[tokio::test]
async fn an_import_forgets_whom_the_store_of_the_export_forgot() {
    let damoov = damoov().await;
    let (_first, file) = exported(&damoov).await;
    let second = second(&damoov);
    second.import(&damoov, 1..=5);
    let held = async || {
        let (code, said) = second.run("tokens list --json").await;
        assert_eq!(code, Some(0), "{said}");
        let listed: Vec<_> = (1..=5)
            .filter(|number| said.contains(&user(*number).to_string()))
            .collect();
        listed
    };
    assert_eq!(held().await, [1, 2, 3, 4, 5]);
    let (code, said) = import(&second, &file, " --dry-run").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(": forgotten:"), "{said}");
    assert_eq!(held().await, [1, 2, 3, 4, 5]);
    for _ in 0..2 {
        let (code, said) = import(&second, &file, "").await;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(held().await, [1, 3, 4, 5]);
    }
    // An export of the version before names whom it forgot.
    let text = fs::read_to_string(&file).unwrap();
    let named = text
        .lines()
        .map(|line| match line.contains("\"forgotten\"") {
            false => line.replace("\"sealed_export\":2", "\"sealed_export\":1"),
            true => format!(
                r#"{{"principal":"user:{}","generation":7,"epoch":3,"notes":{{}}}}"#,
                user(3)
            ),
        });
    let lines: Vec<_> = named.collect();
    let earlier = file.with_file_name("earlier.jsonl");
    write_private(&earlier, &(lines.join("\n") + "\n"));
    let (code, said) = import(&second, &earlier, "").await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(held().await, [1, 4, 5]);
    assert!(
        entries(&second)
            .await
            .iter()
            .all(|line| !line.contains(&user(3).to_string()))
    );
}
