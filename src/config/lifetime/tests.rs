//! Every key is changed, one after the other: the table says of each what it does.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use super::super::report::Problems;
use super::super::secret_source::SecretSources;
use super::super::section::Section;
use super::super::{Environment, Secrets, settings, tree};
use super::*;

/// A configuration in which every key stands.
const ALL: &str = r#"
listen = "127.0.0.1:8080"
hosts = []
allowed_origins = []
max_connections = 4096
drain_delay = "5s"
drain_timeout = "25s"
hand_out = "own"
forward_unknown_logins = false
[workers]
threads = 2
[[instance]]
name = "main"
id = "11111111-1111-4111-8111-111111111111"
key = "key"
default = true
[[instance]]
name = "other"
id = "22222222-2222-4222-8222-222222222222"
key = "key"
default = false
[[account]]
name = "reporting"
email = "ops@example.com"
password = "password"
default = true
[[account]]
name = "other"
email = "other@example.com"
password = "password"
default = false
[store]
path = "/var/lib/damoov-proxy"
create = true
key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
old_keys = []
url = "postgres://proxy@db1,db2/damoov"
password = "password"
ca_file = "/etc/ssl/db-ca.pem"
connections = 4
[login_budget]
logins = 4
per = "1m"
more = [{ logins = 40, per = "1h" }]
reserve = 1
blocked_for = "1h"
group = "default"
[renewal]
ahead = 0.8
wait = "20s"
timeout = "10s"
keep_refresh_tokens = "60d"
renewals_per_second = 50
remember_rejected = "10m"
contested_backoff = "6h"
forget_unused = "off"
in_band_401 = true
replay_limit = "1MiB"
replay_memory = "256MiB"
max_cached = "256MiB"
[upstream]
connect_timeout = "5s"
response_timeout = "30s"
stall_timeout = "60s"
idle_timeout = "55s"
max_connections = 1024
ca_file = "/etc/ssl/extra.pem"
default_host = "api.telematicssdk.com"
all_hosts = "http://127.0.0.1:19090"
hosts = { "user.telematicssdk.com" = "http://127.0.0.1:19090" }
[[route]]
path = "/custom/*/data"
host = "api.telematicssdk.com"
credential = "user"
methods = ["GET"]
replay = "on-401"
response_timeout = "30s"
[admin]
listen = "127.0.0.1:9090"
[status]
listen = "127.0.0.1:9091"
[log]
format = "json"
level = "info"
"#;

/// Each key with another value than it has above.
const OTHERS: [(&str, &str); 64] = [
    ("listen", "127.0.0.1:8081"),
    ("hosts", "[\"proxy.example\"]"),
    ("allowed_origins", "[\"https://app.example\"]"),
    ("max_connections", "4097"),
    ("drain_delay", "6s"),
    ("drain_timeout", "26s"),
    ("hand_out", "real"),
    ("forward_unknown_logins", "true"),
    ("workers.threads", "3"),
    ("instance.name", "renamed"),
    ("instance.id", "33333333-3333-4333-8333-333333333333"),
    ("instance.key", "another"),
    ("instance.default", "false"),
    ("account.name", "renamed"),
    ("account.email", "new@example.com"),
    ("account.password", "another"),
    ("account.default", "false"),
    ("store.path", "/data"),
    ("store.create", "false"),
    ("store.key", "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA="),
    (
        "store.old_keys",
        "[\"BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=\"]",
    ),
    ("store.url", "postgres://proxy@db3/damoov"),
    ("store.password", "another"),
    ("store.ca_file", "/etc/ssl/other.pem"),
    ("store.connections", "5"),
    ("login_budget.logins", "5"),
    ("login_budget.per", "2m"),
    ("login_budget.more.logins", "41"),
    ("login_budget.more.per", "2h"),
    ("login_budget.reserve", "2"),
    ("login_budget.blocked_for", "2h"),
    ("login_budget.group", "another"),
    ("renewal.ahead", "0.7"),
    ("renewal.wait", "21s"),
    ("renewal.timeout", "11s"),
    ("renewal.keep_refresh_tokens", "off"),
    ("renewal.renewals_per_second", "51"),
    ("renewal.remember_rejected", "11m"),
    ("renewal.contested_backoff", "7h"),
    ("renewal.forget_unused", "180d"),
    ("renewal.in_band_401", "false"),
    ("renewal.replay_limit", "2MiB"),
    ("renewal.replay_memory", "257MiB"),
    ("renewal.max_cached", "257MiB"),
    ("upstream.connect_timeout", "6s"),
    ("upstream.response_timeout", "31s"),
    ("upstream.stall_timeout", "61s"),
    ("upstream.idle_timeout", "56s"),
    ("upstream.max_connections", "1025"),
    ("upstream.ca_file", "/etc/ssl/other.pem"),
    ("upstream.default_host", "user.telematicssdk.com"),
    ("upstream.all_hosts", "http://127.0.0.1:19091"),
    // The environment cannot name it: below it is changed in the file.
    ("upstream.hosts", ""),
    ("route.path", "/other"),
    ("route.host", "user.telematicssdk.com"),
    ("route.credential", "admin"),
    ("route.methods", "[]"),
    ("route.replay", "never"),
    ("route.response_timeout", "31s"),
    ("status.listen", "127.0.0.1:9092"),
    ("admin.listen", "127.0.0.1:9092"),
    ("log.format", "text"),
    ("log.level", "warn"),
    ("login_budget.more", "[]"),
];

/// What the text means with one variable set, and the keys that were asked for.
fn read(text: &str, variable: Option<(String, &str)>) -> (Settings, BTreeSet<String>) {
    let variables = variable.into_iter();
    let environment: Environment = variables
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let sources = SecretSources {
        folder: Path::new(""),
        environment: &environment,
        secrets: Secrets::Resolve,
        file_is_private: true,
        warnings: RefCell::default(),
        seen: RefCell::default(),
    };
    let mut root = tree::parse(text).unwrap();
    let problems = Problems::default();
    environment.override_file(&mut root, &problems);
    let settings = Section::read_root(root, &problems, |top| settings::read(top, &sources));
    let keys = problems.accepted_names();
    assert_eq!(problems.render("FILE", text, &[]), None);
    (settings, keys)
}

fn with(key: &str, value: &str) -> Settings {
    if key == "upstream.hosts" {
        let elsewhere = "{ \"user.telematicssdk.com\" = \"http://127.0.0.1:19091\" }";
        let (before, _) = ALL.split_once("hosts = {").unwrap();
        let (_, after) = ALL.split_once("19090\" }").unwrap();
        return read(&format!("{before}hosts = {elsewhere}{after}"), None).0;
    }
    let mut name = key.to_uppercase().replace('.', "__");
    for list in ["INSTANCE", "ACCOUNT", "ROUTE", "LOGIN_BUDGET__MORE"] {
        if let Some(rest) = name.strip_prefix(&format!("{list}__")) {
            name = format!("{list}__0__{rest}");
        }
    }
    read(ALL, Some((format!("DAMOOV_PROXY__{name}"), value))).0
}

#[test]
fn every_key_takes_effect_at_once_or_is_named_as_needing_a_restart() {
    let (start, keys) = read(ALL, None);
    let is_table = |key: &String| keys.iter().any(|k| k.starts_with(&format!("{key}.")));
    let keys: BTreeSet<_> = keys.iter().filter(|key| !is_table(key)).collect();
    let changed: BTreeSet<_> = OTHERS.iter().map(|(key, _)| (*key).to_owned()).collect();
    let forgotten: Vec<_> = keys.iter().filter(|key| !changed.contains(**key)).collect();
    assert!(
        forgotten.is_empty(),
        "give these another value: {forgotten:?}"
    );

    let mut named = BTreeSet::new();
    for (key, value) in OTHERS {
        let read = with(key, value);
        assert_ne!(read, start, "{key} means nothing");
        let needed = restart_needed(&start, &read);
        let in_force = in_force(&start, read.clone());
        match needed[..] {
            [] => assert_eq!(in_force, read, "{key}"),
            [one] => {
                assert_eq!(one, key);
                assert_eq!(in_force, start, "{key}");
                named.insert(one);
            }
            ref several => panic!("{key} changes {several:?}"),
        }
    }
    let all: BTreeSet<_> = RESTART.iter().map(|fixed| fixed.key).collect();
    assert_eq!(named, all);
    assert_eq!(restart_needed(&start, &start), Vec::<&str>::new());
}

#[test]
fn a_store_that_becomes_another_kind_is_named_and_the_rest_is_in_force() {
    let (start, _) = read(ALL, None);
    let (before, rest) = ALL.split_once("url =").unwrap();
    let (_, after) = rest.split_once("connections = 4").unwrap();
    let embedded = format!("{before}{after}").replace("wait = \"20s\"", "wait = \"1s\"");
    let (read, _) = read(&embedded, None);
    let needed = restart_needed(&start, &read);
    let keys = [
        "store.url",
        "store.password",
        "store.ca_file",
        "store.connections",
    ];
    assert_eq!(needed, keys);
    let in_force = in_force(&start, read.clone());
    assert_eq!(in_force.store, start.store);
    assert_eq!(in_force.credentials.wait, read.credentials.wait);
}
