//! Whether the Auth endpoints renew: by one refresh of a pair that is stored; by a login only if that is
//! allowed.

use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;

use super::finding::Finding;
use crate::cli::opening::OpenStore;
use crate::cli::wiring::{finish, renewer};
use crate::cli::{Failure, interrupted};
use crate::config::Settings;
use crate::credentials::{Error, MayLogIn, OnDemand, Renewer, Stored};
use crate::principal::Principal;
use crate::store::{self, Listed};

/// So many entries are looked at for one whose pair can be refreshed.
const LOOKED_AT: usize = 1000;

const STEP: &str = "renewal";

/// Whom it can be tried with.
enum Subject {
    /// Its pair can be refreshed.
    Refreshable(Principal),
    /// It has logged in before, or is a configured account; only a login helps it.
    NeedsLogin(Principal),
    Nobody,
}

/// Renews one principal, if there is one to try it with.
pub(super) async fn look(
    open: OpenStore,
    settings: Settings,
    allow_login: bool,
) -> Result<Finding, Failure> {
    let account = settings.directory.accounts().first();
    let account = account.map(|account| Principal::Account(account.name.clone()));
    let renewer = renewer(open, settings)?;
    let subject = match subject(&renewer, account).await {
        Ok(subject) => subject,
        Err(error) => {
            let advice = super::STORE_ADVICE.to_owned();
            return Ok(Finding::failed(STEP, error.to_string(), advice));
        }
    };
    let (principal, may_log_in) = match (subject, allow_login) {
        (Subject::Refreshable(principal), false) => (principal, MayLogIn::No),
        (Subject::Refreshable(principal) | Subject::NeedsLogin(principal), true) => {
            (principal, MayLogIn::Yes)
        }
        (Subject::NeedsLogin(_), false) => {
            let told = "no stored pair can be refreshed; --allow-login tries a login";
            return Ok(Finding::skipped(STEP, told.to_owned()));
        }
        (Subject::Nobody, _) => {
            let told = "no user is known yet; `tokens renew WHO --allow-login` logs one in";
            return Ok(Finding::skipped(STEP, told.to_owned()));
        }
    };
    let began = Instant::now();
    // A signal does not lose the answer to a call that is under way.
    let mut renewal = pin!(async {
        let renewed = renewer.renew(&principal, may_log_in).await;
        let took = began.elapsed();
        finish(&renewer).await;
        (renewed, took)
    });
    let (renewed, took) = tokio::select! {
        renewed = &mut renewal => renewed,
        () = interrupted() => renewal.await,
    };
    Ok(finding(&principal, renewed, took))
}

async fn subject(renewer: &Renewer, account: Option<Principal>) -> Result<Subject, store::Error> {
    let page = renewer.store().list(Listed::Known, None, LOOKED_AT).await?;
    let mut needs_login = None;
    for (principal, entry) in page.entries {
        match renewer.stored(&principal, &entry) {
            Stored::Refreshable => return Ok(Subject::Refreshable(principal)),
            Stored::Dead | Stored::WithoutRefreshToken => {
                needs_login.get_or_insert(principal);
            }
            Stored::Absent | Stored::KeyMissing(_) | Stored::Damaged => {}
        }
    }
    Ok(match account.or(needs_login) {
        Some(principal) => Subject::NeedsLogin(principal),
        None => Subject::Nobody,
    })
}

fn finding(principal: &Principal, renewed: Result<OnDemand, Error>, took: Duration) -> Finding {
    let finding = match renewed {
        Ok(OnDemand::Refreshed) => Finding::good(STEP, format!("{principal} was refreshed")),
        Ok(OnDemand::LoggedIn) => Finding::good(
            STEP,
            format!("{principal} was logged in, which took a slot of the budget"),
        ),
        Ok(OnDemand::Busy) => Finding::good(STEP, format!("a running proxy renews {principal}")),
        Ok(OnDemand::NeedsLogin) => Finding::failed(
            STEP,
            format!("Damoov rejects the RefreshToken of {principal}"),
            "its next renewal costs a login. If others are rejected too (`tokens verify`), the store is \
             older than Damoov's tokens, or the API is broken"
                .to_owned(),
        ),
        Err(error) => Finding::failed(STEP, format!("{principal}: {error}"), advice(&error)),
    };
    finding.took(took)
}

fn advice(error: &Error) -> String {
    match error {
        Error::LoginRejected => "check the InstanceId and InstanceKey (or email and password)",
        Error::InstanceUnknown
        | Error::InstanceGone
        | Error::AccountUnknown
        | Error::InstanceMismatch => {
            "see `damoov-proxy explain`: its instance or account is configured no longer"
        }
        Error::BudgetExhausted { .. } | Error::LoginBlocked { .. } => {
            "see `damoov-proxy budget`; it passes by itself"
        }
        Error::Contested { .. } | Error::Suspended { .. } => {
            "see `damoov-proxy explain` of this user; it passes by itself"
        }
        Error::StoreUnavailable(_) => super::STORE_ADVICE,
        Error::Unreachable(_) | Error::BadResponse | Error::Timeout => {
            "the host answers but its Auth endpoints do not: ask Damoov"
        }
        Error::WaitedTooLong | Error::Closing => "run it again",
    }
    .to_owned()
}
