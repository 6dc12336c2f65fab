//! Whose tokens an answer brought: A's token is never attached to B.

use std::sync::Once;

use super::Vault;
use crate::damoov::auth;
use crate::damoov::jwt::Claims;
use crate::principal::Principal;

impl Vault {
    /// Whether the answer to a login, or to a registration, has everything that a pair needs: an access
    /// token, and no other user's.
    pub(crate) fn is_whole(&self, principal: &Principal, grant: &auth::Grant) -> bool {
        grant.access_token.is_some() && self.is_of(principal, grant)
    }

    /// Whether the tokens in an answer may be taken for `principal`'s: neither the answer nor the JWT
    /// names another user, and no user's JWT is an account's.
    ///
    /// An answer in which neither names anybody is taken for the answer to its request all the same:
    /// each request has a connection to itself while it is under way, and the connection of a request
    /// that was given up is closed. That is logged once.
    pub(crate) fn is_of(&self, principal: &Principal, grant: &auth::Grant) -> bool {
        let claimed = grant
            .access_token
            .as_ref()
            .and_then(|token| Claims::read(token.expose()).device_token);
        let is_foreign = match principal {
            Principal::User(user) => {
                let mut named = grant.device_token.into_iter().chain(claimed);
                named.any(|named| named != *user)
            }
            Principal::Account(_) => claimed.is_some(),
        };
        if is_foreign {
            tracing::error!(
                principal = self.log_name(principal).as_str(),
                "Damoov answered with another user's token; it is not used"
            );
        } else if principal.is_user() && grant.device_token.or(claimed).is_none() {
            warn_of_nobody();
        }
        !is_foreign
    }
}

/// Once a process: the API has answered like this from its first login on, or changed its dialect.
fn warn_of_nobody() {
    static WARNING: Once = Once::new();
    WARNING.call_once(|| {
        tracing::warn!(
            "Damoov's answer to a login or refresh names no user, neither beside its JWT nor \
             inside it; the tokens are assumed to belong to the user that they were requested for"
        );
    });
}
