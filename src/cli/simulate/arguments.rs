//! The flags of `simulate`, and the settings and faults that they mean.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::clock::Clock;
use crate::principal::{DeviceToken, InstanceId};
use crate::simulator::{
    Account, Action, DeadRefreshToken, Delay, ExpiresIn, Fault, Instance, KnownUsers, Lifetimes,
    LoginLimit, On, PreviousToken, Refresh, Registration, RegistrationCredentials,
    RegistrationShape, RetryAfter, Settings,
};

/// Only the simulated Damoov, for your own tests. Durations are written like `90s`, `5m`, `1h 30m`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub(super) topic: Option<Topic>,
    /// Where to listen; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:19090")]
    pub(super) listen: SocketAddr,
    /// An instance; may be repeated. Default: the one of the manual.
    #[arg(long = "instance", value_name = "ID=KEY", value_parser = instance)]
    instances: Vec<Instance>,
    /// An API account; may be repeated. Default: the one of the manual.
    #[arg(long = "account", value_name = "EMAIL=PASSWORD", value_parser = account)]
    accounts: Vec<Account>,
    /// Only this DeviceToken (and those registered later) can log in; may be repeated.
    #[arg(long = "user", value_name = "DEVICE_TOKEN", value_parser = DeviceToken::parse)]
    users: Vec<DeviceToken>,
    /// Logins of DeviceTokens that begin like this are rejected; may be repeated.
    #[arg(long = "reject", value_name = "PREFIX")]
    rejected: Vec<String>,
    /// Logins allowed per client address and span; 0: no limit.
    #[arg(long, value_name = "CALLS", default_value_t = LoginLimit::default().calls)]
    login_limit: usize,
    /// The span of the login limit.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1m")]
    login_per: Duration,
    /// The block after too many logins.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    login_block: Duration,
    /// Answer 429 without Retry-After.
    #[arg(long)]
    no_retry_after: bool,
    /// The life of a JWT after a login or a refresh.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    jwt_lifetime: Duration,
    /// The life of a JWT after a registration.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "120h")]
    registration_jwt_lifetime: Duration,
    /// The life of a RefreshToken.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2160h")]
    refresh_token_lifetime: Duration,
    /// For how long a refresh that is sent again gets the same answer again.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    refresh_grace: Duration,
    /// A refresh revokes the JWT before.
    #[arg(long)]
    refresh_revokes: bool,
    /// How a dead RefreshToken is answered.
    #[arg(long, value_enum, default_value = "401")]
    dead_refresh_token: DeadStatus,
    /// Write ExpiresIn as a string.
    #[arg(long)]
    expires_in_text: bool,
    /// Every registration is answered with credentials.
    #[arg(long)]
    registration_credentials: bool,
    /// Registrations are answered without the envelope.
    #[arg(long)]
    registration_bare: bool,
    /// Answers take up to this many milliseconds longer.
    #[arg(long, value_name = "MILLIS")]
    latency: Option<u64>,
    /// A fault as JSON, like those of POST /_control/faults; may be repeated.
    #[arg(long = "fault", value_name = "JSON", value_parser = fault)]
    faults: Vec<Fault>,
}

/// What there is besides serving.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub(super) enum Topic {
    /// Print what it answers, and how faults are made
    Manual,
}

/// As [`DeadRefreshToken`].
#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeadStatus {
    #[value(name = "400")]
    BadRequest,
    #[value(name = "401")]
    Unauthorized,
}

impl Args {
    /// The faults from the start, the one of `--latency` first.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let latency = self.latency.map(Delay::UpToMillis);
        let latency = latency.map(|delay| Fault::new(On::All, Action::Delay(delay)));
        latency.into_iter().chain(self.faults.clone()).collect()
    }

    /// What the simulator is told.
    pub(super) fn settings(self) -> Settings {
        let defaults = Settings::default();
        Settings {
            listen: self.listen,
            doors: defaults.doors,
            tls: None,
            clock: Clock::from_environment(),
            instances: given(self.instances).unwrap_or(defaults.instances),
            accounts: given(self.accounts).unwrap_or(defaults.accounts),
            known_users: given(self.users).map_or(KnownUsers::Any, KnownUsers::Only),
            rejected_users: self.rejected,
            login_limit: (self.login_limit > 0).then_some(LoginLimit {
                calls: self.login_limit,
                per: self.login_per,
                block: self.login_block,
                retry_after: match self.no_retry_after {
                    true => RetryAfter::Silent,
                    false => RetryAfter::Told,
                },
            }),
            lifetimes: Lifetimes {
                after_login: self.jwt_lifetime,
                after_registration: self.registration_jwt_lifetime,
                refresh_token: self.refresh_token_lifetime,
            },
            refresh: Refresh {
                grace: self.refresh_grace,
                previous_token: match self.refresh_revokes {
                    true => PreviousToken::Revoked,
                    false => PreviousToken::Kept,
                },
                dead: match self.dead_refresh_token {
                    DeadStatus::BadRequest => DeadRefreshToken::BadRequest,
                    DeadStatus::Unauthorized => DeadRefreshToken::Unauthorized,
                },
            },
            registration: Registration {
                credentials: match self.registration_credentials {
                    true => RegistrationCredentials::Always,
                    false => RegistrationCredentials::Asked,
                },
                shape: match self.registration_bare {
                    true => RegistrationShape::Bare,
                    false => RegistrationShape::Enveloped,
                },
            },
            expires_in: match self.expires_in_text {
                true => ExpiresIn::Text,
                false => ExpiresIn::Number,
            },
            live: defaults.live,
        }
    }
}

/// A flag that was not given leaves the default.
fn given<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

fn instance(text: &str) -> Result<Instance, String> {
    let (id, key) = text.split_once('=').ok_or("write ID=KEY")?;
    Ok(Instance {
        id: InstanceId::parse(id).map_err(|error| error.to_string())?,
        key: key.to_owned(),
    })
}

fn account(text: &str) -> Result<Account, String> {
    let (email, password) = text.split_once('=').ok_or("write EMAIL=PASSWORD")?;
    Ok(Account {
        email: email.to_owned(),
        password: password.to_owned(),
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(span).map_err(|_| "a duration is not negative".to_owned())
}

fn fault(text: &str) -> Result<Fault, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::simulate::printed::{configuration, configured};
    use crate::simulator::Garbage;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(flags: &[&str]) -> Args {
        let line = std::iter::once("simulate").chain(flags.iter().copied());
        Command::try_parse_from(line).unwrap().args
    }

    #[test]
    fn without_flags_the_settings_are_the_defaults() {
        let (settings, defaults) = (parsed(&[]).settings(), Settings::default());
        assert_eq!(settings.instances, defaults.instances);
        assert_eq!(settings.accounts, defaults.accounts);
        assert_eq!(settings.known_users, defaults.known_users);
        assert_eq!(settings.login_limit, defaults.login_limit);
        assert_eq!(settings.lifetimes, defaults.lifetimes);
        assert_eq!(settings.refresh, defaults.refresh);
        assert_eq!(settings.registration, defaults.registration);
    }

    #[test]
    fn the_manual_shows_the_file_that_is_printed() {
        let args = parsed(&[]);
        let url = format!("http://{}", args.listen);
        let file = configuration(&configured(&args.settings()), &url);
        let manual = crate::simulator::MANUAL;
        assert!(manual.contains(&format!("```toml\n{file}\n```")), "{file}");
    }

    #[test]
    fn flags_reach_the_settings_and_the_faults() {
        let args = parsed(&[
            "--login-limit=0",
            "--jwt-lifetime=90s",
            "--dead-refresh-token=400",
            "--refresh-grace=1m 30s",
            "--instance=22222222222242228222222222222222=a=b",
            "--latency=40",
            r#"--fault={"on":"auth","action":{"garbage":{"expires_in":"86400"}},"times":2}"#,
        ]);
        let garbage = Action::Garbage(Garbage::ExpiresIn("86400".into()));
        assert_eq!(
            args.faults(),
            [
                Fault::new(On::All, Action::Delay(Delay::UpToMillis(40))),
                Fault::new(On::Auth, garbage).times(2),
            ]
        );
        let settings = args.settings();
        assert_eq!(settings.login_limit, None);
        assert_eq!(settings.lifetimes.after_login, Duration::from_secs(90));
        assert_eq!(settings.refresh.dead, DeadRefreshToken::BadRequest);
        assert_eq!(settings.refresh.grace, Duration::from_secs(90));
        assert_eq!(settings.instances[0].key, "a=b");
    }
}
