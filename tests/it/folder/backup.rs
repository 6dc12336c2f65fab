//! `tokens backup`, which copies the store beside a proxy that runs.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::harness::{SCORES, damoov, proxy, said};

#[tokio::test]
async fn a_backup_beside_a_running_proxy_restores_every_user_without_a_login() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.import(&damoov, 0..50);
    let callers: Vec<_> = (0..50)
        .map(|number| proxy.calling(number, SCORES))
        .collect();
    let file = proxy.store().with_file_name("backup");
    let backup = format!("tokens backup --to {}", file.display());
    let (code, said) = proxy.run(&backup).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("backed up 50 principals"), "{said}");
    assert!(said.contains("store.key"), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    for caller in callers {
        assert_eq!(caller.await.unwrap().status, 200);
    }
    let kept = fs::read(&file).unwrap();
    let (code, said) = proxy.run(&backup).await;
    assert_eq!(
        (code, fs::read(&file).unwrap() == kept),
        (Some(1), true),
        "{said}"
    );

    // Beside the log of the crash it is told apart, and not spoilt.
    proxy.get(99, SCORES).await;
    proxy.kill();
    let tokens = proxy.store().join("tokens.db");
    fs::copy(&file, &tokens).unwrap();
    for command in ["check", "run"] {
        let (code, said) = proxy.run(command).await;
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(
            said.contains("Remove tokens.db-wal and tokens.db-shm"),
            "{said}"
        );
        assert!(fs::read(&tokens).unwrap() == kept, "{command} changed it");
    }
    for name in ["tokens.db-wal", "tokens.db-shm"] {
        let _ = fs::remove_file(proxy.store().join(name));
    }
    proxy.start().await;
    for number in 0..50 {
        assert_eq!(proxy.get(number, SCORES).await.status, 200);
    }
    assert_eq!(damoov.handle().counts().total.logins.all(), 1, "user 99");
}

#[tokio::test]
async fn a_backup_to_standard_output_is_refused_and_makes_no_file() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.terminate().await;
    let home = proxy.store().parent().unwrap();
    let mut command = proxy.command("tokens backup --to -");
    command.current_dir(home);
    let (code, said) = said(command).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("name a new file"), "{said}");
    assert!(!home.join("-").exists());
}
