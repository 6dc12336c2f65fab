//! `[[instance]]` and `[[account]]`: who is configured, each once, and at most one default of a kind.

use std::collections::HashSet;

use http::HeaderValue;

use crate::config::secret_source::SecretSources;
use crate::config::section::Section;
use crate::config::shape;
use crate::config::tree::{Node, Value};
use crate::directory::{Account, Instance};
use crate::principal::InstanceId;
use crate::secret::Secret;

pub(super) fn instances(top: &mut Section<'_>, sources: &SecretSources<'_>) -> Vec<Instance> {
    let (mut names, mut ids, mut defaults) = (HashSet::new(), HashSet::new(), 0);
    top.tables("instance", |instance| {
        let name = instance.require("name", shape::name);
        let id = instance.require("id", |node| instance_id(sources, node));
        let key = instance.require_secret("key", |node| header_secret(sources, node));
        let default = read_default(instance, &mut defaults);
        if name.clone().is_some_and(|name| !names.insert(name)) {
            instance.refuse("name", "another instance has this name");
        }
        // Callers may name an instance by either.
        let named_as = name
            .as_deref()
            .and_then(|name| InstanceId::parse(name).ok());
        if named_as.is_some() && named_as != id {
            instance.refuse(
                "name",
                "the name is a UUID, but not the id of this instance",
            );
        }
        if id.is_some_and(|id| id != InstanceId::NIL && !ids.insert(id)) {
            instance.refuse("id", "another instance has this id");
        }
        Some(Instance {
            name: name?.into(),
            id: id?,
            key: key?,
            default,
        })
    })
}

pub(super) fn accounts(top: &mut Section<'_>, sources: &SecretSources<'_>) -> Vec<Account> {
    let (mut names, mut defaults) = (HashSet::new(), 0);
    top.tables("account", |account| {
        let name = account.require("name", shape::name);
        let email = account.require("email", |node| email(sources, node));
        let password = account.require_secret("password", |node| sources.read(node));
        let default = read_default(account, &mut defaults);
        if name.clone().is_some_and(|name| !names.insert(name)) {
            account.refuse("name", "another account has this name");
        }
        Some(Account {
            name: name?.into(),
            email: email?,
            password: password?,
            default,
        })
    })
}

/// An InstanceId; [`InstanceId::NIL`] if it is kept elsewhere and left alone.
fn instance_id(sources: &SecretSources<'_>, node: &Node) -> Result<InstanceId, String> {
    match sources.read_text(node)? {
        Some(text) => shape::instance_id(&text),
        None if matches!(node.value, Value::Table(_)) => Ok(InstanceId::NIL),
        None => shape::instance_id(""),
    }
}

/// An e-mail address; empty if it is kept elsewhere and left alone.
fn email(sources: &SecretSources<'_>, node: &Node) -> Result<String, String> {
    match sources.read_text(node)? {
        Some(text) => shape::email(&text),
        None if matches!(node.value, Value::Table(_)) => Ok(String::new()),
        None => shape::email(""),
    }
}

/// `default`, refused when another table of the list has it: `defaults` counts them.
fn read_default(table: &mut Section<'_>, defaults: &mut usize) -> bool {
    let default = table.get("default", shape::flag).unwrap_or(false);
    *defaults += usize::from(default);
    if default && *defaults > 1 {
        table.refuse("default", "another one is the default already");
    }
    default
}

/// A secret that also goes into a header.
fn header_secret(sources: &SecretSources<'_>, node: &Node) -> Result<Secret, String> {
    let secret = sources.read(node)?;
    match HeaderValue::from_str(secret.expose()) {
        Ok(_) => Ok(secret),
        Err(_) => Err("the key has characters that no header can carry".to_owned()),
    }
}
