//! Engines for the tests of this room: processes on one store. No Damoov answers them, unless a test
//! starts its [Auth endpoints](api); the store works, unless it is a [faulty](faulty) one.

mod api;
mod faulty;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use tempfile::TempDir;
use tokio::runtime::Handle;

pub(super) use self::api::{Api, Says};
pub(super) use self::faulty::Faulty;
use super::vault::seal::Ring;
use super::{Background, Credentials, Error, LEASE, Need, Parts, Provider, Renewer, Settings};
use crate::caller::{Authorized, Caller, authorize};
use crate::clock::Clock;
use crate::damoov::auth::{self, ExpiresInForm, Grant};
use crate::directory::{Account, Directory, Instance};
use crate::metrics::{Metrics, StoreLabels, StoreOperation, StoreResult};
use crate::peer::Peer;
use crate::principal::{DeviceToken, InstanceId, Principal};
use crate::secret::Secret;
use crate::store::contract::{open_in, run};
use crate::store::{Generation, LoginWindow, LoginWindows, RunId, Store};
use crate::upstream::{self, Hosts, Redirect, Scheme};

/// The instances' keys and the account's password.
pub(super) const MAIN_KEY: &str = "the key of main";
pub(super) const OTHER_KEY: &str = "the key of other";
pub(super) const PASSWORD: &str = "the password of ops";
pub(super) const EMAIL: &str = "ops@example.com";

/// Where a store lives; gone when its last process is.
pub(super) struct Medium(Arc<TempDir>);

/// One process on it.
pub(super) struct Process {
    pub(super) provider: Provider,
    pub(super) background: Background,
    pub(super) store: Arc<dyn Store>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    _medium: Arc<TempDir>,
}

impl Medium {
    pub(super) fn new() -> Medium {
        Medium(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// One more process. Two instances, of which [`main`] is the default one, and one account; one
    /// login an hour, for which a request waits a second.
    pub(super) fn start(&self) -> Process {
        self.start_with(settings(), "127.0.0.1:9", |store| store)
    }

    /// The same with these Auth endpoints, on a store that does what the test tells it.
    pub(super) fn start_faulty(&self, api: &Api, settings: Settings) -> (Process, Arc<Faulty>) {
        let mut faulty = None;
        let process = self.start_with(settings, &api.authority, |store| {
            let made = Faulty::new(store);
            faulty = Some(made.clone());
            made
        });
        (process, faulty.expect("it was made"))
    }

    /// A command beside it, with these Auth endpoints and on a store that does what the test tells it.
    pub(super) fn renew_faulty(&self, api: &Api, settings: Settings) -> (Renewer, Arc<Faulty>) {
        let (run, clock) = (run(), Clock::real());
        let store = Faulty::new(open_in(self.0.path(), ring().pseudonyms(), run, clock));
        let upstream = upstream(&api.authority);
        let hosts = Hosts::new(&upstream).unwrap();
        let renewer = Renewer::new(parts(
            settings,
            store.clone(),
            (run, clock),
            (&upstream, &hosts),
        ));
        (renewer, store)
    }

    fn start_with(
        &self,
        settings: Settings,
        authority: &str,
        over: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Process {
        let (run, clock) = (run(), Clock::real());
        let store = over(open_in(self.0.path(), ring().pseudonyms(), run, clock));
        let upstream = upstream(authority);
        let hosts = Hosts::new(&upstream).unwrap();
        let parts = parts(settings, store.clone(), (run, clock), (&upstream, &hosts));
        let metrics = parts.metrics.clone();
        let (provider, background) = Provider::start(parts);
        Process {
            provider,
            background,
            store,
            metrics,
            clock,
            _medium: self.0.clone(),
        }
    }
}

/// Where the Auth endpoints are.
fn upstream(authority: &str) -> upstream::Settings {
    let there = Redirect {
        scheme: Scheme::Http,
        authority: authority.to_owned(),
    };
    upstream::Settings {
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
        stall_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        max_connections: 1,
        ca_file: None,
        redirects: [(auth::HOST.to_owned(), there)].into(),
    }
}

fn ring() -> Ring {
    let key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    Ring::new(&Secret::from(key), &[]).unwrap()
}

fn parts<'p>(
    settings: Settings,
    store: Arc<dyn Store>,
    (run, clock): (RunId, Clock),
    (upstream, hosts): (&'p upstream::Settings, &'p Hosts),
) -> Parts<'p> {
    Parts {
        settings,
        directory: Arc::new(directory()),
        store,
        run,
        ring: ring(),
        upstream,
        hosts,
        clock,
        metrics: Arc::new(Metrics::new()),
        runtime: Handle::current(),
    }
}

impl Process {
    /// What a request of `principal` is served with.
    pub(super) async fn get(&self, principal: Principal) -> Result<Arc<Credentials>, Error> {
        let caller = authorized(principal);
        let got = self.provider.get(&caller, Need::Usable).await?;
        Ok(got.credentials)
    }

    /// A registration of `principal` brings this JWT.
    pub(super) async fn adopt(&self, principal: &Principal, serial: u32) -> Arc<Credentials> {
        let (provider, grant) = (&self.provider, grant(principal, serial));
        let expected = provider.expect_tokens().unwrap();
        let adopted = provider.adopt(expected, principal, Some(main()), grant);
        adopted.await.unwrap()
    }

    /// How often it read an entry from the store.
    pub(super) fn loads(&self) -> u64 {
        let loads = self.metrics.store_operations.get_or_create(&StoreLabels {
            operation: StoreOperation::Load,
            result: StoreResult::Ok,
        });
        loads.get()
    }
}

/// Looks again and again until it is so.
pub(super) async fn until(mut is_so: impl FnMut() -> bool) {
    let looks = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let looked = tokio::time::timeout(Duration::from_secs(20), looks).await;
    looked.expect("it becomes so");
}

/// Credentials of that generation, which have expired. The token is the generation's number.
pub(super) fn credentials_of(principal: Principal, generation: u64) -> Arc<Credentials> {
    let authorization = HeaderValue::try_from(format!("Bearer {generation}")).unwrap();
    Arc::new(Credentials::new(
        principal,
        authorization,
        Generation(generation),
    ))
}

/// Somebody who may have the credentials of `principal`.
pub(super) fn authorized(principal: Principal) -> Authorized {
    let caller = Caller::anybody(Peer::Uid(1000));
    authorize(caller, &directory(), principal, None).unwrap()
}

pub(super) fn directory() -> Directory {
    let instance = |name: &str, id, key, default| Instance {
        name: name.into(),
        id,
        key: Secret::from(key),
        default,
    };
    let account = Account {
        name: "ops".into(),
        email: EMAIL.to_owned(),
        password: Secret::from(PASSWORD),
        default: true,
    };
    Directory::new(
        vec![
            instance("main", main(), MAIN_KEY, true),
            instance("other", other(), OTHER_KEY, false),
        ],
        vec![account],
    )
}

pub(super) fn settings() -> Settings {
    Settings {
        budget: windows(),
        blocked_for: Duration::from_secs(3600),
        ahead: 0.8,
        wait: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        lease: LEASE,
        keep_refresh_tokens: None,
        renewals_per_second: 50,
        remember_rejected: Duration::from_secs(600),
        contested_backoff: Duration::from_secs(600),
        forget_unused: None,
        max_cached: 1 << 20,
    }
}

/// One login an hour.
pub(super) fn windows() -> LoginWindows {
    LoginWindows {
        group: "default".into(),
        windows: vec![LoginWindow {
            logins: 1,
            per: Duration::from_secs(3600),
        }],
        reserve: 0,
    }
}

pub(super) fn main() -> InstanceId {
    InstanceId::parse("11111111-1111-4111-8111-111111111111").unwrap()
}

pub(super) fn other() -> InstanceId {
    InstanceId::parse("22222222-2222-4222-8222-222222222222").unwrap()
}

/// The DeviceToken number `number`.
pub(super) fn device(number: u32) -> DeviceToken {
    DeviceToken::parse(&format!("{number:08x}-0000-4000-8000-000000000000")).unwrap()
}

pub(super) fn user(number: u32) -> Principal {
    Principal::User(device(number))
}

pub(super) fn account() -> Principal {
    Principal::Account("ops".into())
}

/// A JWT of `principal`, one of many.
pub(super) fn jwt(principal: &Principal, serial: u32) -> String {
    let claims = match principal {
        Principal::User(user) => format!(r#"{{"DeviceToken":"{user}","jti":{serial}}}"#),
        Principal::Account(_) => format!(r#"{{"jti":{serial}}}"#),
    };
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// What Damoov gives `principal` with [`jwt`].
pub(super) fn grant(principal: &Principal, serial: u32) -> Grant {
    Grant {
        device_token: None,
        access_token: Some(Secret::new(jwt(principal, serial))),
        refresh_token: Some(Secret::from("refresh")),
        expires_in: Some(86_400),
        expires_in_form: ExpiresInForm::Text,
    }
}
