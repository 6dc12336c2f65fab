//! What callers hold: whether a token of the proxy's own is still valid, and whose a real JWT is. Looks
//! into memory first, and into the store only if that is not enough.

use super::vault::Vault;
use super::vault::pair::is_either;
use super::{Error, Provider};
use crate::damoov::jwt::Claims;
use crate::principal::Principal;

impl Provider {
    /// Whether a token that was handed out under `epoch` is still valid: the principal was not forgotten
    /// since, and an account is still configured. A forget by another process is known within a second.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], if the store had to be asked.
    pub async fn is_current(&self, principal: &Principal, epoch: u64) -> Result<bool, Error> {
        if let Principal::Account(name) = principal
            && self.engine.current.now().directory.account(name).is_none()
        {
            return Ok(false);
        }
        let cached = self.engine.vault.cache.peek(principal);
        if cached.is_some_and(|cached| cached.epoch() == epoch) {
            return Ok(true);
        }
        Ok(self.engine.vault.load(principal).await?.epoch == epoch)
    }

    /// Whose current or previous JWT this is. Its claims only say where to look.
    ///
    /// # Errors
    ///
    /// [`Error::StoreUnavailable`], if the store had to be asked.
    pub async fn holder_of(&self, jwt: &str) -> Result<Option<Principal>, Error> {
        let engine = &self.engine;
        let user = Claims::read(jwt).device_token.map(Principal::User);
        // An admin's JWT names no user.
        let current = engine.current.now();
        let accounts = match user {
            Some(_) => &[],
            None => current.directory.accounts(),
        };
        let accounts = accounts.iter().map(|a| Principal::Account(a.name.clone()));
        for candidate in user.into_iter().chain(accounts) {
            if engine.vault.holds(&candidate, jwt).await? {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }
}

impl Vault {
    /// Whether `jwt` is the principal's current one or the one before.
    async fn holds(&self, principal: &Principal, jwt: &str) -> Result<bool, Error> {
        let cached = self.cache.peek(principal);
        if let Some(cached) = &cached
            && is_either(jwt, cached.token(), cached.previous.get().map(|p| &**p))
        {
            return Ok(true);
        }
        let entry = self.load(principal).await?;
        let Some(stored) = self.open(principal, &entry)? else {
            return Ok(false);
        };
        let previous = stored.previous;
        let holds = is_either(jwt, stored.access_token.expose(), previous.as_ref());
        // A caller that shows an old JWT once shows it again: from now on memory is enough.
        if holds
            && let (Some(cached), Some(previous)) = (cached, previous)
            && cached.generation == entry.generation
        {
            cached.previous.get_or_init(|| Box::new(previous));
        }
        Ok(holds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credentials::fixture::{Medium, Process, account, grant, jwt, user};

    async fn adopt(process: &Process, principal: &Principal, serial: u32) -> u64 {
        let grant = grant(principal, serial);
        let provider = &process.provider;
        let expected = provider.expect_tokens().unwrap();
        let adopted = provider.adopt(expected, principal, None, grant).await;
        adopted.unwrap().epoch()
    }

    #[tokio::test]
    async fn a_token_counts_until_its_principal_is_forgotten_wherever_that_is() {
        let medium = Medium::new();
        let (one, other) = (medium.start(), medium.start());
        let epoch = adopt(&one, &user(1), 1).await;
        let loads = one.loads();
        for _ in 0..3 {
            assert_eq!(one.provider.is_current(&user(1), epoch).await, Ok(true));
        }
        assert_eq!(one.loads(), loads, "memory was enough");
        assert_eq!(other.provider.is_current(&user(1), epoch).await, Ok(true));
        let future = one.provider.is_current(&user(1), epoch + 1).await;
        assert_eq!(future, Ok(false));

        other.provider.forget(&user(1)).await.unwrap();
        assert_eq!(other.provider.is_current(&user(1), epoch).await, Ok(false));
        let followed = async {
            while one.provider.is_current(&user(1), epoch).await != Ok(false) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let followed = tokio::time::timeout(Duration::from_secs(10), followed).await;
        assert!(followed.is_ok());
        let anew = adopt(&one, &user(1), 2).await;
        assert_eq!(one.provider.is_current(&user(1), epoch).await, Ok(false));
        assert_eq!(one.provider.is_current(&user(1), anew).await, Ok(true));
    }

    #[tokio::test]
    async fn only_the_current_jwt_and_the_one_before_it_name_their_holder() {
        let medium = Medium::new();
        let (one, other) = (medium.start(), medium.start());
        for principal in [user(1), account()] {
            for serial in 1..=3 {
                adopt(&one, &principal, serial).await;
            }
            for (serial, holder) in [(3, Some(&principal)), (2, Some(&principal)), (1, None)] {
                for process in [&one, &other] {
                    let held = process.provider.holder_of(&jwt(&principal, serial)).await;
                    assert_eq!(held.unwrap().as_ref(), holder, "{principal} {serial}");
                }
            }
        }
        for stranger in [&*jwt(&user(2), 3), "", "a.b.c"] {
            assert_eq!(one.provider.holder_of(stranger).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn a_holder_is_found_in_memory_and_gone_once_forgotten() {
        let process = Medium::new().start();
        adopt(&process, &user(1), 1).await;
        adopt(&process, &user(1), 2).await;
        let loads = process.loads();
        for (serial, more) in [(2, 0), (1, 1), (1, 1), (2, 1), (1, 1)] {
            let held = process.provider.holder_of(&jwt(&user(1), serial)).await;
            assert_eq!(held, Ok(Some(user(1))));
            assert_eq!(
                process.loads(),
                loads + more,
                "the one before is looked up once"
            );
        }
        process.provider.forget(&user(1)).await.unwrap();
        let held = process.provider.holder_of(&jwt(&user(1), 2)).await;
        assert_eq!(held, Ok(None));
    }
}
