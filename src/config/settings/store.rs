//! `[store]`: where pairs are kept, and under which seal.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::file_path;
use crate::config::quantity::integer;
use crate::config::secret_source::SecretSources;
use crate::config::section::Section;
use crate::config::shape;
use crate::config::tree::Node;
use crate::config::{Secrets, Store};
use crate::secret::Secret;
use crate::store::postgres::{self, Password, Url};

/// `[store]`
pub(super) fn store(store: &mut Section<'_>, sources: &SecretSources<'_>) -> Store {
    let seal_key = |node: &Node| seal_key(sources, node);
    let postgres = postgres(store, sources);
    if store.has("url") && store.count("key") == 0 {
        let label = "with `url` every sidecar needs the same key: `key = { file = \"PATH\" }`";
        store.refuse_missing("`store.key`", label);
    }
    Store {
        path: store
            .get("path", |node| file_path(sources, node))
            .unwrap_or_else(|| PathBuf::from("/var/lib/damoov-proxy")),
        create: store.get("create", shape::flag).unwrap_or(true),
        key: store.secret("key", seal_key),
        old_keys: store.secrets("old_keys", seal_key),
        postgres,
    }
}

/// The keys that only a store with `url` has.
fn postgres(store: &mut Section<'_>, sources: &SecretSources<'_>) -> Option<postgres::Settings> {
    let read_url = |node: &Node| url(sources, node);
    let url = store.get_masked_if("url", Url::may_hold_password, read_url);
    let password = store.secret("password", |node| sources.read_again(node));
    let ca_file = store.get("ca_file", |node| file_path(sources, node));
    let connections = store.get("connections", integer(1..=1_000));
    if !store.has("url") {
        for key in ["password", "ca_file", "connections"] {
            if store.has(key) {
                store.refuse(key, "only a store with `url` has it");
            }
        }
    }
    let url = url?;
    let password = match (url.password, password) {
        (Some(_), Some(_)) => {
            store.refuse("password", "`url` holds a password already");
            return None;
        }
        (Some(password), None) => Password::Given(password),
        (None, Some(password)) => password,
        (None, None) => Password::Absent,
    };
    Some(postgres::Settings {
        address: url.address,
        password,
        ca_file,
        connections: connections.unwrap_or(4),
    })
}

fn url(sources: &SecretSources<'_>, node: &Node) -> Result<Url, String> {
    let url = Url::parse(&shape::text(node)?)?;
    match url.password.is_none() || sources.may_stand_at(node) {
        true => Ok(url),
        false => Err(
            "a password may stand here only in a file of mode 0600; set `password = { file = \"PATH\" }`"
                .to_owned(),
        ),
    }
}

fn seal_key(sources: &SecretSources<'_>, node: &Node) -> Result<Secret, String> {
    let key = sources.read(node)?;
    let is_key = STANDARD
        .decode(key.expose())
        .is_ok_and(|key| key.len() == 32);
    match sources.secrets {
        Secrets::Resolve if !is_key => Err(
            "expected 32 bytes in base64; make one with `head -c 32 /dev/urandom | base64`"
                .to_owned(),
        ),
        _ => Ok(key),
    }
}
