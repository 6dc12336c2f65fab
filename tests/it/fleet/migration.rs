//! A store that moves from one engine to the other and back, by `tokens export --sealed | tokens import`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{ChildStdin, ChildStdout, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use damoov_proxy::simulator::{INSTANCE_ID, Simulator};
use futures_util::future::join_all;
use serde_json::json;
use servers::Database;

use super::scene::{damoov_of_a_fleet, keyed, sidecar};
use crate::harness::{Proxy, SCORES, captured, heavy, principal, rounds, user};

/// Users that are served at the end; in a long run many others move along.
const SERVED: usize = 2_000;
/// Those of them that make requests wherever the store stands.
const EVERYWHERE: usize = 500;

/// Fills a store with pairs: those of the users that are served are good.
async fn fill(proxy: &Proxy, damoov: &Simulator, users: usize) {
    let mut import = proxy.command("tokens import --from -");
    let mut import = import.stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = import.stdin.take().unwrap();
    let claims = json!({ "iat": 1_700_000_000, "exp": 2_000_000_000 });
    let made_up = format!(
        "e30.{}.{}",
        URL_SAFE_NO_PAD.encode(claims.to_string()),
        "c".repeat(900)
    );
    let handle = damoov.handle().clone();
    let filling = tokio::task::spawn_blocking(move || {
        for number in 0..users {
            let (access_token, refresh_token) = match number < SERVED {
                true => {
                    let pair = handle.issue(&principal(number));
                    (pair.access_token, pair.refresh_token)
                }
                false => (made_up.clone(), format!("{number:064x}")),
            };
            let line = json!({
                "DeviceToken": user(number).to_string(),
                "InstanceId": INSTANCE_ID,
                "AccessToken": access_token,
                "RefreshToken": refresh_token,
            });
            writeln!(lines, "{line}").unwrap();
        }
        drop(lines);
        import.wait().unwrap()
    });
    assert!(filling.await.unwrap().success());
}

/// Each of these users needs a refresh, and is served.
async fn serve(proxy: &Proxy, damoov: &Simulator, users: Range<usize>) {
    damoov.handle().expire(None);
    let users: Vec<_> = users.collect();
    for some in users.chunks(200) {
        let answers = join_all(some.iter().map(|number| proxy.get(*number, SCORES))).await;
        for (number, answer) in some.iter().zip(answers) {
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.served_as(), user(*number).to_string());
        }
    }
}

async fn forget(proxy: &Proxy, number: usize) {
    let (code, said) = proxy.run(&format!("tokens forget {}", user(number))).await;
    assert_eq!(code, Some(0), "{said}");
}

/// Copies lines from an export to an import, at most so many.
fn pump(from: ChildStdout, mut to: ChildStdin, most: usize) -> ChildStdin {
    for line in BufReader::new(from).split(b'\n').take(most) {
        let mut line = line.unwrap();
        line.push(b'\n');
        to.write_all(&line).unwrap();
    }
    to
}

/// Moves everything, but kills the import half way and runs it again.
async fn relocate(from: &Proxy, to: &Proxy, users: usize) {
    let export = || {
        let mut export = from.command("tokens export --sealed --to -");
        export.stdout(Stdio::piped()).stderr(Stdio::null());
        export.spawn().unwrap()
    };
    let mut exporting = export();
    let mut import = to.command("tokens import --from -");
    let mut importing = import.stdin(Stdio::piped()).spawn().unwrap();
    let (out, into) = (exporting.stdout.take(), importing.stdin.take());
    let pumped = tokio::task::spawn_blocking(move || pump(out.unwrap(), into.unwrap(), users / 2));
    let _open = pumped.await.unwrap();
    importing.kill().unwrap();
    importing.wait().unwrap();
    exporting.wait().unwrap();

    let mut exporting = export();
    let mut import = to.command("tokens import --json --from -");
    import.stdin(exporting.stdout.take().unwrap());
    let imported = captured(import).await;
    assert_eq!(imported.status.code(), Some(0), "{imported:?}");
    assert!(exporting.wait().unwrap().success());
    let counts: serde_json::Value = serde_json::from_slice(&imported.stdout).unwrap();
    assert_eq!(counts["failed"], 0);
    assert_eq!(entries(to).await, entries(from).await);
}

/// How many entries a store holds, and what: the same of two stores only if each byte of each is.
async fn entries(proxy: &Proxy) -> (usize, u64) {
    let mut export = proxy.command("tokens export --sealed --to -");
    let mut export = export
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(export.stdout.take().unwrap()).lines();
    let reading = tokio::task::spawn_blocking(move || {
        let (mut hash, mut count) = (DefaultHasher::new(), 0);
        // The first line proves the key, anew each time.
        for line in lines.skip(1) {
            line.unwrap().hash(&mut hash);
            count += 1;
        }
        assert!(export.wait().unwrap().success());
        (count, hash.finish())
    });
    reading.await.unwrap()
}

#[tokio::test]
async fn a_store_moves_to_postgresql_and_back_without_a_login() {
    let _turn = heavy().await;
    let users = rounds(SERVED, 1_000_000);
    let damoov = damoov_of_a_fleet(|_| {}).await;
    let database = Database::new();
    let mut home = keyed(&damoov, 1).stopped_here();
    let mut away = sidecar(&damoov, 0, &database.url()).stopped_here();

    fill(&home, &damoov, users).await;
    home.start().await;
    serve(&home, &damoov, 0..EVERYWHERE).await;
    forget(&home, 0).await;
    home.terminate().await;
    relocate(&home, &away, users).await;

    away.start().await;
    serve(&away, &damoov, 1..EVERYWHERE).await;
    forget(&away, 1).await;
    away.terminate().await;
    relocate(&away, &home, users).await;

    home.start().await;
    serve(&home, &damoov, 2..SERVED).await;
    let total = damoov.handle().counts().total;
    let refreshes = EVERYWHERE + (EVERYWHERE - 1) + (SERVED - 2);
    assert_eq!(total.logins.all(), 0);
    assert_eq!(total.refreshes.all(), refreshes as u64);
}
