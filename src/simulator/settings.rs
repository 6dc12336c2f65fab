//! What a simulated Damoov can be told; the defaults are those of damoov/API.md.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::principal::{DeviceToken, InstanceId};

use super::login_limit::LoginLimit;

/// The InstanceId of the default instance.
pub const INSTANCE_ID: &str = "11111111-1111-4111-8111-111111111111";
/// The InstanceKey of the default instance.
pub const INSTANCE_KEY: &str = "simulated-instance-key";
/// The email of the default account.
pub const ACCOUNT_EMAIL: &str = "admin@example.com";
/// The password of the default account.
pub const ACCOUNT_PASSWORD: &str = "simulated-password";

/// All settings of a [`Simulator`](super::Simulator).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen. Default: any free port on 127.0.0.1.
    pub listen: SocketAddr,
    /// Further listeners, each on a free port of the same IP address and with a name that the journal
    /// tells. Default: none.
    pub doors: Vec<String>,
    /// TLS with ALPN `http/1.1` where given; else plain.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// For token lifetimes, the login limit and the grace period.
    pub clock: Clock,
    /// The groups that users log in to.
    pub instances: Vec<Instance>,
    /// The API accounts.
    pub accounts: Vec<Account>,
    /// Which DeviceTokens can log in.
    pub known_users: KnownUsers,
    /// DeviceTokens, or beginnings of them (lower case, dashes), whose logins are rejected.
    pub rejected_users: Vec<String>,
    /// None: logins are not limited.
    pub login_limit: Option<LoginLimit>,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
    /// How a refresh behaves.
    pub refresh: Refresh,
    /// How a registration behaves.
    pub registration: Registration,
    /// How `ExpiresIn` is written.
    pub expires_in: ExpiresIn,
    /// How often live tracking says what.
    pub live: LivePace,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            doors: Vec::new(),
            tls: None,
            clock: Clock::real(),
            instances: vec![Instance {
                id: InstanceId::parse(INSTANCE_ID).expect("a constant UUID"),
                key: INSTANCE_KEY.to_owned(),
            }],
            accounts: vec![Account {
                email: ACCOUNT_EMAIL.to_owned(),
                password: ACCOUNT_PASSWORD.to_owned(),
            }],
            known_users: KnownUsers::Any,
            rejected_users: Vec::new(),
            login_limit: Some(LoginLimit::default()),
            lifetimes: Lifetimes::default(),
            refresh: Refresh::default(),
            registration: Registration::default(),
            expires_in: ExpiresIn::Number,
            live: LivePace::default(),
        }
    }
}

/// An instance and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The header `InstanceId`.
    pub id: InstanceId,
    /// The password of its users' logins.
    pub key: String,
}

/// An API account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its login.
    pub email: String,
    /// Its password.
    pub password: String,
}

/// Which DeviceTokens can log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownUsers {
    /// Every one, as if it had been registered.
    Any,
    /// These, and those that a registration adds.
    Only(Vec<DeviceToken>),
}

/// How long tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// A JWT after a login or a refresh. Default: 86,400 s.
    pub after_login: Duration,
    /// A JWT after a registration. Default: 432,000 s.
    pub after_registration: Duration,
    /// A RefreshToken. Default: 90 days.
    pub refresh_token: Duration,
}

impl Default for Lifetimes {
    fn default() -> Lifetimes {
        Lifetimes {
            after_login: Duration::from_secs(86_400),
            after_registration: Duration::from_secs(432_000),
            refresh_token: Duration::from_secs(90 * 86_400),
        }
    }
}

/// How a refresh behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// For how long a replaced pair, sent again, gets the same new pair again. Default: zero.
    pub grace: Duration,
    /// What becomes of the JWT before. Default: it stays valid until its `exp`.
    pub previous_token: PreviousToken,
    /// How a dead RefreshToken is answered; the sources disagree. Default: 401.
    pub dead: DeadRefreshToken,
}

impl Default for Refresh {
    fn default() -> Refresh {
        Refresh {
            grace: Duration::ZERO,
            previous_token: PreviousToken::Kept,
            dead: DeadRefreshToken::Unauthorized,
        }
    }
}

/// What a refresh does to the JWT before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousToken {
    /// It stays valid until its `exp`.
    Kept,
    /// It is 401 from then on.
    Revoked,
}

/// How a dead RefreshToken is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadRefreshToken {
    /// 400, as the Android library expects.
    BadRequest,
    /// 401, as the vendor's notes say.
    Unauthorized,
}

/// How a registration behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// When its answer carries credentials.
    pub credentials: RegistrationCredentials,
    /// What stands around its answer.
    pub shape: RegistrationShape,
}

/// When the answer to a registration carries credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistrationCredentials {
    /// If the request says `"CreateAccessToken": true`.
    #[default]
    Asked,
    /// Always, as in older behaviour.
    Always,
}

/// What stands around the answer to a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistrationShape {
    /// The envelope.
    #[default]
    Enveloped,
    /// Nothing: the fields of `Result` themselves.
    Bare,
}

/// How often live tracking says what; real time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivePace {
    /// A `device_update`. Default: 1 s.
    pub update: Duration,
    /// A `ping`, which wants a `pong` before the next one. Default: 30 s.
    pub ping: Duration,
}

impl Default for LivePace {
    fn default() -> LivePace {
        LivePace {
            update: Duration::from_secs(1),
            ping: Duration::from_secs(30),
        }
    }
}

/// How `ExpiresIn` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiresIn {
    /// `86400`
    Number,
    /// `"86400"`
    Text,
}
