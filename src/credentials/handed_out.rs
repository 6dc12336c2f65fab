//! What callers hold: whether a token of the proxy's own is still valid, and whose a real JWT is. Looks
//! into memory first, and into the store only if that is not enough. What was refused is refused again for a
//! second without that.

use super::vault::Vault;
use super::vault::pair::{JwtHash, is_either};
use super::vault::refused::Shown;
use super::{Error, Provider};
use crate::damoov::jwt::Claims;
use crate::principal::Principal;
use crate::store::Entry;

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
        let vault = &self.engine.vault;
        let cached = vault.cache.confirmed(principal);
        if cached.is_some_and(|cached| cached.epoch() == epoch) {
            return Ok(true);
        }
        let shown = Shown::Ours(principal.clone(), epoch);
        if vault.refused.holds(&shown) {
            return Ok(false);
        }
        let now = vault.load_and_confirm(principal).await?.epoch;
        // An epoch that is yet to come may come at once.
        if now > epoch {
            vault.refused.note(shown);
        }
        Ok(now == epoch)
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
    /// The entry of `principal`, freshly read. What is in memory of it is confirmed, or dropped.
    async fn load_and_confirm(&self, principal: &Principal) -> Result<Entry, Error> {
        let as_of = self.cache.moved();
        let entry = self.load(principal).await?;
        self.cache.confirm(principal, entry.version(), as_of);
        Ok(entry)
    }

    /// Whether `jwt` is the principal's current one or the one before.
    async fn holds(&self, principal: &Principal, jwt: &str) -> Result<bool, Error> {
        let cached = self.cache.confirmed(principal);
        if let Some(cached) = &cached
            && is_either(jwt, cached.token(), cached.previous.get().map(|p| &**p))
        {
            return Ok(true);
        }
        let shown = Shown::Real(principal.clone(), JwtHash::of(jwt));
        if self.refused.holds(&shown) {
            return Ok(false);
        }
        let entry = self.load_and_confirm(principal).await?;
        let stored = self.open(principal, &entry)?;
        let previous = stored.as_ref().and_then(|stored| stored.previous);
        let holds = stored
            .is_some_and(|stored| is_either(jwt, stored.access_token.expose(), previous.as_ref()));
        if !holds {
            self.refused.note(shown);
        }
        // A caller that shows an old JWT once shows it again: from now on memory is enough.
        if holds
            && let (Some(cached), Some(previous)) = (self.cache.peek(principal), previous)
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
    use crate::credentials::fixture::{Api, Faulty, Medium, Process, account, jwt, settings, user};
    use crate::store::Change;

    async fn adopt(process: &Process, principal: &Principal, serial: u32) -> u64 {
        process.adopt(principal, serial).await.epoch()
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

    /// Once the process has heard of it.
    async fn everything_moved(process: &Process, store: &Faulty) {
        let cache = &process.provider.engine.vault.cache;
        let before = cache.moved();
        store.tells(Change::Everything);
        let heard = async {
            while cache.moved() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(10), heard).await;
        assert!(heard.is_ok());
    }

    #[tokio::test]
    async fn once_changes_may_be_missed_memory_is_believed_after_one_look() {
        let (api, medium) = (Api::start().await, Medium::new());
        // It is not told of what others change.
        let (one, store) = medium.start_faulty(&api, settings());
        let other = medium.start();
        let (kept, gone) = (user(1), user(2));
        let epoch = adopt(&one, &kept, 1).await;
        adopt(&one, &gone, 1).await;
        let provider = &one.provider;
        other.provider.forget(&gone).await.unwrap();
        assert_eq!(provider.is_current(&gone, epoch).await, Ok(true));
        let held = provider.holder_of(&jwt(&gone, 1)).await;
        assert_eq!(held, Ok(Some(gone.clone())));

        everything_moved(&one, &store).await;
        let loads = one.loads();
        for _ in 0..3 {
            assert_eq!(provider.is_current(&kept, epoch).await, Ok(true));
            let held = provider.holder_of(&jwt(&kept, 1)).await;
            assert_eq!(held, Ok(Some(kept.clone())));
        }
        assert_eq!(one.loads(), loads + 1);
        assert_eq!(provider.is_current(&gone, epoch).await, Ok(false));
        assert_eq!(provider.holder_of(&jwt(&gone, 1)).await, Ok(None));
        assert!(provider.engine.vault.cache.peek(&gone).is_none());
    }

    #[tokio::test]
    async fn what_was_refused_is_not_looked_up_again_for_a_second() {
        let process = Medium::new().start();
        let epoch = adopt(&process, &user(1), 1).await;
        let provider = &process.provider;
        provider.forget(&user(1)).await.unwrap();
        let refused = async || {
            assert_eq!(provider.is_current(&user(1), epoch).await, Ok(false));
            assert_eq!(provider.holder_of(&jwt(&user(1), 1)).await, Ok(None));
        };
        refused().await;
        let loads = process.loads();
        for _ in 0..20 {
            refused().await;
        }
        assert!(process.loads() <= loads + 2, "a second may have passed");
        let anew = adopt(&process, &user(1), 2).await;
        assert_eq!(provider.is_current(&user(1), anew).await, Ok(true));
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
