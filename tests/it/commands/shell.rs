//! What shells, terminals and readers of manual pages get.

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::{captured, damoov, proxy, said, write_private};

fn bare(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
    command.args(arguments.split(' ')).stdin(Stdio::null());
    command
}

async fn printed(command: Command) -> String {
    let output = captured(command).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_version_says_for_what_it_was_built_and_with_what() {
    for flag in ["-V", "--version"] {
        let version = printed(bare(flag)).await;
        let lines: Vec<_> = version.lines().collect();
        assert_eq!(
            lines[0],
            concat!("damoov-proxy ", env!("CARGO_PKG_VERSION"))
        );
        let target = lines[1].strip_prefix("target    ").unwrap();
        assert!(target.starts_with(std::env::consts::ARCH), "{target}");
        assert!(target.contains("linux"), "{target}");
        assert_eq!(lines[2..], ["features  simulator"]);
    }
}

/// Every command of the help, with those below it.
async fn commands() -> Vec<String> {
    let mut found = Vec::new();
    let mut parents = vec![String::new()];
    while let Some(parent) = parents.pop() {
        let help = printed(bare(format!("{parent} --help").trim())).await;
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in listed.take_while(|line| !line.is_empty()) {
            let name = line.split_whitespace().next().unwrap();
            let is_one = line.starts_with("  ") && !line.starts_with("   ");
            if is_one && name != "help" {
                let command = format!("{parent} {name}").trim().to_owned();
                parents.push(command.clone());
                found.push(command);
            }
        }
    }
    assert!(found.len() > 15, "{found:?}");
    found
}

#[tokio::test]
async fn the_manual_page_has_every_command_and_mandoc_finds_no_fault_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let page = printed(bare("man")).await;
    let file = folder.path().join("damoov-proxy.1");
    fs::write(&file, &page).unwrap();
    let mut lint = Command::new("mandoc");
    lint.arg("-Tlint").arg(&file);
    assert_eq!(said(lint).await, (Some(0), String::new()));
    let mut shown = Command::new("mandoc");
    shown.args(["-Tutf8", "-O", "width=200"]).arg(&file);
    let shown = printed(shown).await;
    // A letter that is printed twice is a bold one.
    let mut plain = String::new();
    for c in shown.chars() {
        match c {
            '\u{8}' => drop(plain.pop()),
            c => plain.push(c),
        }
    }
    for command in commands().await {
        assert!(
            plain.contains(&format!("damoov-proxy {command}")),
            "{command}:\n{plain}"
        );
    }
    for expected in ["EXIT STATUS", "NOTIFY_SOCKET", "--offline", "78"] {
        assert!(plain.contains(expected), "{expected}:\n{plain}");
    }
}

#[tokio::test]
async fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("damoov-proxy");
    fs::write(&script, printed(bare("completions bash")).await).unwrap();
    let mut syntax = Command::new("bash");
    syntax.arg("-n").arg(&script);
    assert_eq!(said(syntax).await, (Some(0), String::new()));
    for (words, expected) in [
        ("damoov-proxy he", "healthcheck"),
        ("damoov-proxy tokens li", "list"),
        ("damoov-proxy check --off", "--offline"),
        ("damoov-proxy --config x tokens sho", "show"),
        ("damoov-proxy completions z", "zsh"),
    ] {
        let complete = r#"
            . "$1"; shift
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
            how=$(complete -p damoov-proxy)
            [[ $how =~ -F\ ([^ ]+) ]] && "${BASH_REMATCH[1]}" damoov-proxy "${@: -1}" "${@: -2:1}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", complete, "bash"])
            .arg(&script)
            .args(words.split(' '));
        let said = printed(bash).await;
        assert!(said.lines().any(|line| line == expected), "{words}: {said}");
    }
}

#[tokio::test]
async fn zsh_and_fish_get_completions_of_every_command() {
    let commands = commands().await;
    for shell in ["zsh", "fish"] {
        let script = printed(bare(&format!("completions {shell}"))).await;
        for command in &commands {
            let name = command.split(' ').next_back().unwrap();
            assert!(script.contains(name), "{shell}: {command}");
        }
    }
    let (code, _) = said(bare("completions tcsh")).await;
    assert_eq!(code, Some(2));
}

/// What a terminal of its own shows of this command, with these variables set.
async fn on_a_terminal(command: &Command, variables: &str) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.display())).collect();
    let line = format!("env -u NO_COLOR TERM=xterm {variables} {}", words.join(" "));
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::null());
    said(script).await.1
}

#[tokio::test]
async fn colours_are_for_terminals_and_not_with_no_color() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("damoov-proxy.toml");
    write_private(&config, "nonsense = 1\n");
    let refused = bare(&format!("check --config {}", config.display()));
    for (command, first) in [
        (refused, "error"),
        (bare("--help"), "Usage:"),
        (bare("--nonsense"), "error:"),
    ] {
        let coloured = on_a_terminal(&command, "").await;
        assert!(coloured.contains("\x1b["), "{coloured}");
        assert!(coloured.contains(first), "{coloured}");
        for variables in ["NO_COLOR=1", "TERM=dumb"] {
            let plain = on_a_terminal(&command, variables).await;
            assert!(!plain.contains('\x1b'), "{variables}: {plain}");
            assert!(plain.contains(first), "{plain}");
        }
        let mut elsewhere = Command::new(command.get_program());
        elsewhere.args(command.get_args()).env("TERM", "xterm");
        let (_, plain) = said(elsewhere).await;
        assert!(!plain.contains('\x1b'), "{plain}");
    }
}

#[tokio::test]
async fn check_prints_json_lines_with_warnings_summary_and_errors() {
    let damoov = damoov().await;
    let good = proxy(&damoov).stopped_here();
    let lines = |text: &str| -> Vec<serde_json::Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let found = lines(&printed(good.command("check --json")).await);
    let (summary, warnings) = found.split_last().unwrap();
    assert_eq!(summary["kind"], "summary");
    assert_eq!(summary["instances"][0], "main");
    assert_eq!(summary["accounts"][0], "reporting");
    assert_eq!(summary["upstream"]["real"].as_array().unwrap().len(), 0);
    assert_eq!(summary["store"]["key_is_configured"], false);
    assert!(!warnings.is_empty(), "that no key is configured");
    assert!(
        warnings.iter().all(|line| line["kind"] == "warning"),
        "{warnings:?}"
    );
    assert!(!good.store().exists(), "nothing was made");

    let bad = proxy(&damoov).set("listen", "0.0.0.0:8080").stopped_here();
    let text = fs::read_to_string(bad.config()).unwrap();
    write_private(bad.config(), &format!("nonsense = 1\n{text}"));
    let output = captured(bad.command("check --json")).await;
    assert_eq!(output.status.code(), Some(64));
    let found = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(found.len(), 2, "one line for each problem: {found:?}");
    assert!(
        found.iter().all(|line| line["kind"] == "error"),
        "{found:?}"
    );
    let (file, line, column) = (&found[0]["file"], &found[0]["line"], &found[0]["column"]);
    assert_eq!((line, column), (&1.into(), &1.into()));
    assert_eq!(file, bad.config().to_str().unwrap());
    assert!(
        found[0]["message"]
            .as_str()
            .unwrap()
            .contains("unknown key `nonsense`")
    );
    assert_eq!(found[1]["variable"], "DAMOOV_PROXY__LISTEN");
    let message = found[1]["message"].as_str().unwrap();
    assert!(message.contains("loopback"), "{message}");
}

#[tokio::test]
async fn check_prints_other_errors_as_one_json_line() {
    let mut check = Command::new(env!("CARGO_BIN_EXE_damoov-proxy"));
    check.args(["check", "--json", "--config", "/nowhere/config.toml"]);
    let output = captured(check).await;
    assert_eq!(output.status.code(), Some(64));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = line["message"].as_str().unwrap();
    assert!(
        message.starts_with("/nowhere/config.toml cannot be read: "),
        "{message}"
    );
}
