//! What is looked for: each form of a secret, in every text and file.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

#[test]
fn a_secret_is_found_in_each_of_its_forms() {
    let secret = "canary \"with\" % and +";
    for hidden in [
        secret.to_owned(),
        format!("{secret:?}"),
        BASE64_STANDARD.encode(secret),
        BASE64_STANDARD.encode(format!("x{secret}yy")),
        BASE64_URL_SAFE.encode(format!("xx{secret}y")),
        "canary%20%22with%22%20%25%20and%20%2B".to_owned(),
        secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
    ] {
        let needles = forms(secret);
        let found = needles.iter().any(|needle| hidden.contains(needle));
        assert!(found, "{hidden}");
    }
}

/// How a secret could stand in a text: as it is, quoted, percent-encoded, in hex, in base64.
pub fn forms(secret: &str) -> Vec<String> {
    let quoted = format!("{secret:?}");
    let percent = |keep: &[u8]| -> String {
        let encoded = secret.bytes().map(|byte| match byte {
            b if b.is_ascii_alphanumeric() || keep.contains(&b) => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        });
        encoded.collect()
    };
    let mut forms = vec![
        secret.to_owned(),
        quoted[1..quoted.len() - 1].to_owned(),
        percent(b"-._~"),
        percent(b"-._~/"),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
    ];
    // In base64 of something longer the secret begins at one of three places in a group of four;
    // what its neighbours have a part in is cut off.
    for offset in 0..3 {
        let padded = [&vec![0; offset], secret.as_bytes()].concat();
        let whole = padded.len() / 3 * 4;
        for alphabet in [&BASE64_STANDARD, &BASE64_URL_SAFE] {
            let text = alphabet.encode(&padded);
            forms.push(text[if offset > 0 { 4 } else { 0 }..whole].to_owned());
        }
    }
    forms
}

pub fn absent(needles: &[String], haystack: &[u8], shown: &str) {
    let haystack = String::from_utf8_lossy(haystack);
    for needle in needles {
        if let Some(at) = haystack.find(needle) {
            let line = haystack[..at].rfind('\n').map_or(0, |end| end + 1);
            let shown: String = shown.chars().take(100).collect();
            let line: String = haystack[line..].chars().take(500).collect();
            panic!("{needle:?} stands in {shown}…: {line}");
        }
    }
}

pub fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files
        .into_iter()
        .chain(folders.iter().flat_map(|folder| files_below(folder)))
        .collect()
}
