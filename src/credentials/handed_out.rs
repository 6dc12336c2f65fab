//! What callers hold: whether a token of the proxy's own still counts, and whose a real JWT is. Tells
//! by what is in memory where that is enough, else by what is in the store.

use super::engine::Engine;
use super::pair::is_either;
use super::{Error, Provider};
use crate::damoov::jwt::Claims;
use crate::principal::Principal;

impl Provider {
    /// Whether a token that was handed out under `epoch` still counts: nobody forgot the principal
    /// since. A forget by another process is known within a second.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], where the store had to be asked.
    pub async fn is_current(&self, principal: &Principal, epoch: u64) -> Result<bool, Error> {
        let cached = self.engine.cache.peek(principal);
        if cached.is_some_and(|cached| cached.epoch() == epoch) {
            return Ok(true);
        }
        Ok(self.engine.load(principal).await?.epoch == epoch)
    }

    /// Whose current or previous JWT this is. Its claims only say where to look.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], where the store had to be asked.
    pub async fn holder_of(&self, jwt: &str) -> Result<Option<Principal>, Error> {
        let engine = &self.engine;
        let user = Claims::read(jwt).device_token.map(Principal::User);
        // An admin's JWT names nobody.
        let accounts = match user {
            Some(_) => &[],
            None => engine.settings.accounts.as_slice(),
        };
        let accounts = accounts.iter().map(|a| Principal::Account(a.name.clone()));
        for candidate in user.into_iter().chain(accounts) {
            if engine.holds(&candidate, jwt).await? {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }
}

impl Engine {
    /// Whether `jwt` is the principal's current one or the one before.
    async fn holds(&self, principal: &Principal, jwt: &str) -> Result<bool, Error> {
        let cached = self.cache.peek(principal);
        if cached.is_some_and(|cached| is_either(jwt, cached.token(), cached.previous.as_ref())) {
            return Ok(true);
        }
        let entry = self.load(principal).await?;
        let stored = self.open(principal, &entry);
        Ok(stored
            .is_some_and(|pair| is_either(jwt, pair.access_token.expose(), pair.previous.as_ref())))
    }
}
