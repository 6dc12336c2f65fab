//! One line of what `warm` reads: whom it names.

use std::borrow::Cow;

use serde::Deserialize;

use crate::cli::who::principal;
use crate::directory::Directory;
use crate::principal::{InstanceId, Principal};

/// The longest line that names somebody, in bytes.
pub(super) const LONGEST: usize = 4096;

/// Whom a line names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) principal: Principal,
    /// `None`: the instance that the user is known under, or the default one.
    pub(super) instance: Option<InstanceId>,
}

/// A line that names an instance, too.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct WithInstance<'a> {
    #[serde(borrow)]
    device_token: Cow<'a, str>,
    #[serde(borrow, default)]
    instance_id: Option<Cow<'a, str>>,
}

/// Reads a line: a DeviceToken, `account:NAME`, or `{"DeviceToken": …, "InstanceId": …}`. The error is a
/// sentence that does not quote it.
pub(super) fn read(text: &str, directory: &Directory) -> Result<Named, String> {
    // Files of some systems begin with a byte order mark.
    let text = text.trim_start_matches('\u{feff}').trim();
    if !text.starts_with('{') {
        let principal = principal(text)?;
        return Ok(Named {
            principal,
            instance: None,
        });
    }
    let line: WithInstance<'_> = serde_json::from_str(text).map_err(|error| {
        let column = error.column();
        format!("not an object of DeviceToken and InstanceId (column {column})")
    })?;
    let principal = principal(&line.device_token).map_err(|why| format!("DeviceToken: {why}"))?;
    let Some(named) = line.instance_id else {
        return Ok(Named {
            principal,
            instance: None,
        });
    };
    let id = InstanceId::parse(&named).map_err(|error| format!("InstanceId: {error}"))?;
    match (directory.instance(id), &principal) {
        (Some(_), Principal::User(_)) => Ok(Named {
            principal,
            instance: Some(id),
        }),
        (None, _) => Err(format!("InstanceId {id} is not configured")),
        (_, Principal::Account(_)) => Err("an account has no InstanceId".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Instance;
    use crate::principal::DeviceToken;
    use crate::secret::Secret;

    #[test]
    fn a_line_names_a_user_an_account_or_a_user_of_an_instance() {
        let device = "6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11";
        let id = "11111111-1111-4111-8111-111111111111";
        let main = InstanceId::parse(id).unwrap();
        let directory = Directory::new(
            vec![Instance {
                name: "main".into(),
                id: main,
                key: Secret::from("key"),
                default: true,
            }],
            Vec::new(),
        );
        let user = Principal::User(DeviceToken::parse(device).unwrap());
        for (text, principal, instance) in [
            (device.to_owned(), &user, None),
            (format!("\u{feff} {}\r", device.to_uppercase()), &user, None),
            (
                "account:a".to_owned(),
                &Principal::Account("a".into()),
                None,
            ),
            (format!(r#"{{"DeviceToken":"{device}"}}"#), &user, None),
            (
                format!(r#"{{"InstanceId":"{id}","DeviceToken":"{device}"}}"#),
                &user,
                Some(main),
            ),
        ] {
            let named = read(&text, &directory).unwrap();
            assert_eq!((&named.principal, named.instance), (principal, instance));
        }
        for text in [
            "nobody",
            "{}",
            "[]",
            &format!("{device}, {device}"),
            &format!(r#"{{"DeviceToken":"{device}","AccessToken":"x"}}"#),
            &format!(r#"{{"DeviceToken":"{device}","InstanceId":"{device}"}}"#),
            &format!(r#"{{"DeviceToken":"account:a","InstanceId":"{id}"}}"#),
        ] {
            assert!(read(text, &directory).is_err(), "{text}");
        }
    }
}
