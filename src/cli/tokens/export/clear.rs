//! An export of pairs in clear.

use std::borrow::Cow;

use super::super::line::Line;
use super::super::unopened;
use super::Lines;
use crate::credentials::Pair;
use crate::credentials::seal::Ring;
use crate::principal::Principal;
use crate::store::{Entry, Listed};

/// Every pair that saves a login.
pub(super) struct Clear<'a> {
    ring: &'a Ring,
    users: u64,
    accounts: u64,
    /// Without a RefreshToken that can still be used: importing these would not save a login.
    left_out: u64,
    /// The record is damaged, or its key is not configured.
    unopened: u64,
}

impl Clear<'_> {
    /// An export of pairs that this ring opens.
    pub(super) fn new(ring: &Ring) -> Clear<'_> {
        Clear {
            ring,
            users: 0,
            accounts: 0,
            left_out: 0,
            unopened: 0,
        }
    }
}

impl Lines for Clear<'_> {
    fn listed(&self) -> Listed {
        Listed::Known
    }

    fn append(
        &mut self,
        principal: &Principal,
        entry: &Entry,
        text: &mut Vec<u8>,
    ) -> Option<String> {
        let record = entry.record.as_ref()?;
        let pair = match Pair::of_record(self.ring, principal, record) {
            Ok(pair) => pair,
            Err(why) => {
                self.unopened += 1;
                return Some(unopened(principal, record, why));
            }
        };
        let is_dead = entry.notes.refresh_dead == Some(entry.generation);
        let Some(refresh_token) = pair.refresh_token.as_ref().filter(|_| !is_dead) else {
            self.left_out += 1;
            return None;
        };
        let mut line = Line {
            access_token: Some(pair.access_token.expose().into()),
            refresh_token: Some(refresh_token.expose().into()),
            ..Line::default()
        };
        match principal {
            Principal::User(user) => {
                self.users += 1;
                line.device_token = Some(user.to_string().into());
                line.instance_id = record
                    .instance
                    .map(|instance| Cow::Owned(instance.to_string()));
            }
            Principal::Account(name) => {
                self.accounts += 1;
                line.account = Some(Cow::Borrowed(name));
            }
        }
        serde_json::to_writer(&mut *text, &line).expect("strings always serialise into memory");
        text.push(b'\n');
        None
    }

    fn summary(&self) -> String {
        let Clear {
            users,
            accounts,
            left_out,
            unopened,
            ..
        } = self;
        format!(
            "exported {users} users and {accounts} accounts, left out {left_out} without a good \
             RefreshToken, failed {unopened}"
        )
    }

    fn failed(&self) -> u64 {
        self.unopened
    }
}
