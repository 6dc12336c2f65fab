//! A faithful Damoov with faults on demand: for the demo, for this crate's tests and benches, and
//! for your own integration tests. Not reachable from the path of a request.
//!
//! # Running it
//!
//! ```console
//! $ damoov-proxy simulate --listen 127.0.0.1:19090
//! simulated Damoov: http://127.0.0.1:19090
//! ```
//!
//! and in `damoov-proxy.toml`, so that the proxy takes it for Damoov:
//!
//! ```toml
//! [[instance]]
//! name = "main"
//! id   = "11111111-1111-4111-8111-111111111111"
//! key  = "simulated-instance-key"
//!
//! [upstream.hosts]
//! "user.telematicssdk.com" = "http://127.0.0.1:19090"
//! "api.telematicssdk.com"  = "http://127.0.0.1:19090"
//! ```
//!
//! One port serves the paths of all hosts. Without settings it knows the instance
//! [`INSTANCE_ID`] with the key [`INSTANCE_KEY`] and the account [`ACCOUNT_EMAIL`] with the
//! password [`ACCOUNT_PASSWORD`], and takes every DeviceToken for a registered user. A client
//! address may log in 5 times a minute; the next login starts a block of an hour. A login revokes
//! what was issued to its user before; a refresh rotates both tokens. Nothing is kept on disk.
//!
//! | flag | default | |
//! | --- | --- | --- |
//! | `--listen ADDRESS` | `127.0.0.1:19090` | port 0: any free one |
//! | `--instance ID=KEY`, `--account EMAIL=PASSWORD` | see above | repeatable |
//! | `--user DEVICE_TOKEN` | everybody | only these can log in; repeatable |
//! | `--reject PREFIX` | nobody | logins of these DeviceTokens are 401; repeatable |
//! | `--login-limit CALLS`, `--login-per`, `--login-block` | `5`, `1m`, `1h` | 0 calls: no limit |
//! | `--no-retry-after` | | 429 does not say how long |
//! | `--jwt-lifetime`, `--registration-jwt-lifetime` | `24h`, `120h` | |
//! | `--refresh-token-lifetime` | `2160h` | |
//! | `--refresh-grace` | `0s` | a replaced pair gets the same answer again for so long |
//! | `--refresh-revokes` | | a refresh ends the JWT before at once |
//! | `--dead-refresh-token 400\|401` | `401` | the status of a dead RefreshToken |
//! | `--expires-in-text` | | `"86400"` instead of `86400` |
//! | `--registration-credentials`, `--registration-bare` | | older behaviour |
//! | `--latency MILLIS` | | answers take up to so much longer |
//! | `--fault JSON` | | as below; repeatable |
//!
//! `DAMOOV_PROXY_TIME_SCALE=60` lets an hour pass in a minute.
//!
//! # What it answers
//!
//! - `POST /v1/Auth/Login`, `/v1/Auth/RefreshToken`, `/v1/Registration/create`.
//! - The data endpoints of every host: 401 without a valid token, 403 with the wrong kind, 404 for
//!   an unknown path, 422 for dates that are none.
//! - `/v1/Management/users`: `GET …/find`, `PUT` (the user is named by `UserDeviceToken`),
//!   `DELETE …/<DeviceToken>` and `POST …/instances/change` do what they say; the last two revoke
//!   the user's tokens.
//! - Every good answer says in headers whose token came with what: `X-Sim-Principal`,
//!   `X-Sim-Device-Token`, `X-Sim-Method`, `X-Sim-Target`, `X-Sim-Content-Length`,
//!   `X-Sim-Content-Sha256`. The same stands in `Result.Sim` where `Result` is an object.
//! - `/mobilesdk/stage/echo` (any method): recorded in full. So is any data call that has the
//!   header `X-Test-Id`.
//! - `POST /mobilesdk/stage/sink`: content of any length, counted and hashed, not kept.
//! - `GET /mobilesdk/stage/bytes/<n>` and `/mobilesdk/stage/chunked/<n>`: n bytes, with and without
//!   Content-Length.
//! - `GET /realtime/api/v1/ws/realtime` with an upgrade to WebSocket: waits for `authenticate`, or
//!   takes `?token=`; answers `authenticated`, `welcome`, `subscribed`, or an `error`; then
//!   `device_update` and `ping`. `{"type":"echo"}` and binary messages come back,
//!   `{"type":"flood","count":n,"size":n}` gives n binary messages. The handshake and each
//!   `authenticate` are recorded; to faults the latter is a call of `/live/authenticate`.
//!
//! # Steering it
//!
//! In the same process by [`Simulator::handle`], from elsewhere by HTTP. `principal` is a
//! DeviceToken or an account's email; without it everybody is meant.
//!
//! ```console
//! $ S=http://127.0.0.1:19090/_control
//! $ curl -X POST "$S/expire"                    # every access token is 401 from now on
//! $ curl -X POST "$S/expire?principal=6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11"
//! $ curl -X POST "$S/revoke"                    # access and RefreshTokens
//! $ curl -X POST "$S/revoke-refresh-tokens"
//! $ curl -X POST "$S/issue?principal=6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11"     # somebody else logs in
//! $ curl -X POST "$S/register?principal=6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11"
//! $ curl "$S/counts"                            # all; ?principal= for one
//! $ curl "$S/requests?test_id=7"                # what arrived with X-Test-Id: 7
//! $ curl -X POST "$S/reset"                     # counts, requests, faults, login limit
//! ```
//!
//! # Faults
//!
//! A [`Fault`] is a rule: `on` which calls (`login`, `refresh`, `registration`, `auth`, `data`,
//! `all`, or a path prefix), of which `principal`, what `action`, how many `times` (without it:
//! until cleared).
//!
//! ```console
//! $ curl "$S/faults" -d '{"on":"refresh","action":{"lose":"reset"},"times":2}'   # or half, hang
//! $ curl "$S/faults" -d '{"on":"refresh","action":{"status":{"code":400}}}'      # a broken deploy
//! $ curl "$S/faults" -d '{"on":"login","action":{"status":{"code":429,"retry_after":90}}}'
//! $ curl "$S/faults" -d '{"on":"login","action":{"status":{"code":401}}}'        # a changed key
//! $ curl "$S/faults" -d '{"on":"/trips","action":{"delay":{"up_to_millis":500}}}'  # or millis
//! $ curl "$S/faults" -d '{"on":"data","action":{"status":{"code":401}}}'         # always 401
//! $ curl "$S/faults" -d '{"on":"data","action":{"in_band":401},"times":1}'
//! $ curl "$S/faults" -d '{"on":"data","action":{"early":"close"},"times":1}'     # or keep_reading
//! $ curl "$S/faults" -d '{"on":"/indicators","action":"reset"}'
//! $ curl "$S/faults" -d '{"on":"auth","action":{"garbage":"html"},"times":1}'
//! $ curl "$S/faults"                            # the rules in force
//! $ curl -X DELETE "$S/faults"
//! ```
//!
//! `lose` processes the call first: tokens have rotated. `reset` and `status` process nothing.
//! Garbage comes as `html`, `empty`, `cut_json`, `result_null`, `{"other_status":500}`,
//! `no_refresh_token`, `huge`, `{"expires_in":-1}` (any JSON value) and `other_user`.
//!
//! # Counts
//!
//! [`Counts`], in total and by principal. Each login, refresh and registration is `ok`,
//! `rejected`, `limited` (429), `lost` (processed, then a fault lost or spoilt the answer) or
//! `failed` (a fault answered, nothing was processed). `login_calls` lists every Login with its
//! instant, so that a test can slide a window over it.
//!
//! # In your own tests
//!
//! ```no_run
//! use damoov_proxy::simulator::{Action, Fault, Lost, On, Settings, Simulator};
//!
//! # async fn test() -> std::io::Result<()> {
//! let damoov = Simulator::start(Settings::default()).await?;
//! let lost = Fault::new(On::Refresh, Action::Lose(Lost::Reset));
//! damoov.handle().add_fault(lost.times(1));
//! // … call what you test with damoov.base_url() as the API's address …
//! assert_eq!(damoov.handle().counts().total.logins.issued(), 1);
//! damoov.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod api;
mod auth;
mod content;
mod control;
mod counts;
mod fault;
mod handle;
mod jwt;
mod live;
mod login_limit;
mod management;
mod requests;
mod results;
mod server;
mod settings;
#[cfg(test)]
mod tests;
mod tokens;
mod users;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub use counts::{Count, Counts, Grants, LoginCall, Outcome};
pub use fault::{Action, Delay, Early, Fault, Garbage, Lost, On, Status};
pub use handle::Handle;
pub use login_limit::{LoginLimit, RetryAfter};
pub use requests::Recorded;
pub use settings::{
    ACCOUNT_EMAIL, ACCOUNT_PASSWORD, Account, DeadRefreshToken, ExpiresIn, INSTANCE_ID,
    INSTANCE_KEY, Instance, KnownUsers, Lifetimes, LivePace, PreviousToken, Refresh, Registration,
    RegistrationCredentials, RegistrationShape, Settings,
};
pub use tokens::Pair;

use world::World;

/// A simulated Damoov that is running. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    scheme: &'static str,
    handle: Handle,
    /// Sent or dropped, it ends `serving`.
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Simulator {
    /// Listens and serves on the current runtime. Fails when the address cannot be bound.
    pub async fn start(mut settings: Settings) -> io::Result<Simulator> {
        let listener = server::listen(settings.listen)?;
        let address = listener.local_addr()?;
        let tls = settings.tls.take().map(|config| {
            let mut config = Arc::unwrap_or_clone(config);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let world = Arc::new(World::new(settings));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(server::serve(listener, tls, Arc::clone(&world), stopped));
        Ok(Simulator {
            address,
            scheme,
            handle: Handle(world),
            stop,
            serving,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, or `https` with TLS; no slash at the end.
    pub fn base_url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Its controls.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Drops every connection and waits for the end. A panic inside the simulator comes out here.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.serving.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
