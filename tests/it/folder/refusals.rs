//! Folders and keys that every command refuses, in the same words.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::harness::{SCORES, damoov, proxy, said};

#[tokio::test]
async fn a_linked_file_is_refused_and_a_linked_folder_is_not() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    proxy.terminate().await;
    let elsewhere = proxy.store().with_file_name("elsewhere");
    let backup = proxy.store().with_file_name("backup");
    let backup = format!("tokens backup --to {}", backup.display());
    for name in ["tokens.db", "leases.db"] {
        let file = proxy.store().join(name);
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        for command in ["run", "check", "tokens list", &backup] {
            let (code, said) = proxy.run(command).await;
            assert_eq!(code, Some(78), "{command}, {name}: {said}");
            let sentence = format!("{name} is a symbolic link: link the folder, not the file");
            assert!(said.contains(&sentence), "{command}: {said}");
        }
        fs::rename(&elsewhere, &file).unwrap();
    }
    fs::rename(proxy.store(), &elsewhere).unwrap();
    symlink(&elsewhere, proxy.store()).unwrap();
    proxy.start().await;
    assert_eq!(proxy.get(1, SCORES).await.status, 200);
    proxy.get(2, SCORES).await;
    let (code, said) = proxy.run(&backup).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("backed up 2 principals"), "{said}");
    assert_eq!(damoov.handle().counts().total.logins.all(), 2);
}

#[tokio::test]
async fn what_is_no_folder_is_called_that_by_every_command() {
    let damoov = damoov().await;
    let proxy = proxy(&damoov).stopped_here();
    let home = proxy.store().parent().unwrap();
    let inside = home.join("inside");
    fs::write(&inside, "a file").unwrap();
    let cases: [(&Path, &str); 2] = [
        (&inside, "is not a folder"),
        (Path::new("nowhere"), "is a symbolic link to nothing"),
    ];
    for (target, sentence) in cases {
        for nested in [false, true] {
            let _ = fs::remove_file(proxy.store());
            symlink(target, proxy.store()).unwrap();
            let path = match nested {
                true => proxy.store().join("nested"),
                false => proxy.store().to_owned(),
            };
            for command in ["run", "check", "tokens list"] {
                let mut command_of_it = proxy.command(command);
                command_of_it.env("DAMOOV_PROXY__STORE__PATH", &path);
                let (code, said) = said(command_of_it).await;
                assert_eq!(code, Some(78), "{command}, {sentence}: {said}");
                let named = format!("{} {sentence}", proxy.store().display());
                assert!(said.contains(&named), "{command}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn a_lost_key_is_called_that_by_every_command() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    proxy.terminate().await;
    let key = proxy.store().join("store.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    for command in ["run", "check", "tokens list"] {
        let (code, said) = proxy.run(command).await;
        assert_eq!(code, Some(78), "{command}: {said}");
        assert!(said.contains("store.key is lost"), "{said}");
        assert!(said.contains("Restore it from its backup"), "{said}");
        assert!(!key.exists(), "{command} made a new key");
    }
    fs::write(&key, kept).unwrap();
    proxy.start().await;
}

#[tokio::test]
async fn a_key_that_others_can_write_or_that_is_cut_is_refused() {
    let damoov = damoov().await;
    let mut proxy = proxy(&damoov).start().await;
    proxy.get(1, SCORES).await;
    proxy.terminate().await;
    let key = proxy.store().join("store.key");
    let kept = fs::read(&key).unwrap();
    let cases: [(u32, &[u8], &str); 4] = [
        (0o620, &kept, "store.key can be written by group or others"),
        (0o602, &kept, "store.key can be written by group or others"),
        (0o600, &kept[..20], "store.key is empty or cut"),
        (0o600, b"", "restore it from its backup"),
    ];
    for (mode, content, sentence) in cases {
        fs::write(&key, content).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        for command in ["run", "check", "tokens list"] {
            let (code, said) = proxy.run(command).await;
            assert_eq!(code, Some(78), "{command}, {mode:o}: {said}");
            assert!(said.contains(sentence), "{command}, {mode:o}: {said}");
        }
    }
    fs::write(&key, &kept).unwrap();
    for (mode, warned) in [(0o600, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let (code, said) = proxy.run("check").await;
        assert_eq!(code, Some(0), "{mode:o}: {said}");
        let warning = "store.key holds a secret and can be read by group or others";
        assert_eq!(said.contains(warning), warned, "{mode:o}: {said}");
    }
}
