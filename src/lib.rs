//! damoov-proxy stands in front of the Damoov telematics APIs. A caller names a user by
//! DeviceToken; the proxy attaches that user's token, notices the API's 401, refreshes the token,
//! replays the request, and logs in again only if there is no usable RefreshToken.
//!
//! # The idea
//!
//! A login at Damoov is scarce (a few a minute per IP address, then an hour's block) and revokes
//! the tokens before it. A refresh is free but rotates its token, so that a lost answer costs a
//! login. Every decision in here follows from that: **a user who was ever logged in never costs a
//! login again**, across crashes, restarts, several processes, and callers that hang up.
//!
//! # Life of a request
//!
//! ```text
//! accept ─ check head ─ route ─ name principal ─ get credentials ─ forward ─ answer
//!                                                      ▲              │ 401
//!                                                      └─── renew ◀───┘─ replay once ─ answer
//! ```
//!
//! [`proxy`] is that line in three functions (`proxy::forward`): one checks and routes, one gets
//! credentials and sends, one replays after a 401. Registrations and forwarded logins, which a hang-up must
//! not end, are sent by tasks of their own (`proxy::understood`). What is logged and counted of a request
//! is collected in `proxy::record`. All of it runs on a worker: a thread with a runtime and
//! upstream connections of its own ([`server`], [`upstream`]). Content is recorded while it streams
//! ([`replay`]). Callers that log in by themselves are answered by the proxy, and hold tokens of its
//! own ([`auth_endpoints`]). Credentials come from memory, or from a renewal: a task on the
//! background runtime that no caller's hang-up cancels ([`credentials`]). What a renewal learns is
//! durable before it is used ([`store`]).
//!
//! # Rooms
//!
//! | room | holds | must not |
//! | --- | --- | --- |
//! | [`cli`] | the command line: one file for each subcommand; `cli::wiring` wires the components | reach into the path of a request |
//! | [`config`] | TOML as written → settings as meant; errors with line and column | open sockets |
//! | [`server`] | listeners, workers, limits of connections; `server::stage`: from a signal to the end | know what it serves, or look inside a request |
//! | [`proxy`] | the path of a request: `proxy::forward`; what may change meanwhile: `proxy::rules`; what browsers are told: `proxy::cors` | word an error, open a socket |
//! | [`head`] | what the head of a request must be before anything is looked up | know routes |
//! | [`naming`] | whom the head of a request names | see tokens |
//! | [`caller`] | who calls; `caller::authorize`, without which no request gets credentials | know requests or upstreams |
//! | [`auth_endpoints`] | answers to logins and refreshes of callers; tokens from registrations | hold state of its own, send anything |
//! | [`handed_out`] | tokens of the proxy's own, which callers hold in the place of real ones | keep any of them |
//! | [`live`] | the WebSocket: the first message gets a token, everything else passes | look inside any other message, except for a token of the proxy's own |
//! | [`error`] | every error of the path and its answer, in one match | log |
//! | [`reload`] | asking for the configuration to be read again, and what came of it | know what a configuration says |
//! | [`replay`] | content that is recorded while it streams | know status codes or tokens |
//! | [`credentials`] | the life of tokens; `vault`: what is kept; `guards`: what holds a login back; `renewal`: how a pair is renewed | know requests or answers |
//! | [`store`] | the contract of a token store, its test suite, and the engines, which no other room names | call Damoov, see a token in clear text |
//! | [`upstream`] | hosts, TLS, deadlines; `connect`: the only way to dial; `stream`: an open connection; `pool`: a worker's own connections; `http1`: the protocol on them; `switch`: connections of WebSockets; `calls`: short calls from any thread | know tokens |
//! | [`damoov`] | the API's dialect as pure data: bodies, answers, routes, claims | do I/O |
//! | [`directory`] | who is configured: instances and accounts, and which is the default | hold numbers of the engine |
//! | [`principal`] | whose credentials: a user, or an account | see tokens |
//! | [`headers`] | pure edits of header maps | do I/O |
//! | [`content_coding`] | content without its coding and byte order mark, within bounds | know what it means |
//! | [`percent`] | percent-encoding | |
//! | [`peer`] | the other end of a connection: an address or a uid | |
//! | [`secret`] | a string that cannot be printed; `secret::file`: who may read or write its file | know HTTP |
//! | [`clock`] | monotonic moments, wall-clock timestamps, the time scale of tests | |
//! | [`timer`] | timers that are not moved for every request | |
//! | [`stalls`] | which side of an exchange has stalled, and since when | know callers or upstreams |
//! | [`signals`] | which signal arrived; caught from the first instruction of `main` | know what follows from one |
//! | [`supervisor`] | what systemd is told of this process: ready, reloading, stopping, alive | know what goes on in the proxy |
//! | [`admin`] | health, metrics, the dashboard and its API, on listeners of their own | share the callers' listener, know the components |
//! | [`metrics`] | every metric in one struct; labels as enums | see secrets |
//! | [`telemetry`] | the log: its thread, the access events, failures that last (`telemetry::episode`), events that are often (`telemetry::seldom`) | see secrets |
//! | `simulator` | a faithful Damoov with faults on demand (feature `simulator`) | be reachable from the path |
//!
//! An arrow means "may use", and leads down. The test `house::the_arrows_of_lib_rs_are_those_of_the_code`
//! holds these lines; where they are wrong, it prints the right ones.
//!
//! ```text
//! main           → cli, signals
//! cli            → admin, clock, config, credentials, damoov, directory, error, handed_out, head,
//!                  metrics, principal, proxy, reload, secret, server, signals, simulator, store,
//!                  supervisor, telemetry, upstream
//! config         → auth_endpoints, credentials, damoov, directory, handed_out, principal, replay,
//!                  secret, server, store, telemetry, upstream
//! proxy          → auth_endpoints, caller, content_coding, credentials, damoov, directory, error,
//!                  handed_out, head, headers, live, metrics, naming, peer, principal, replay,
//!                  server, stalls, telemetry, timer, upstream
//! admin          → error, head, metrics, percent, reload, replay, server, store, telemetry
//! auth_endpoints → caller, credentials, damoov, directory, error, handed_out, naming, principal
//! live           → caller, content_coding, credentials, directory, error, handed_out, head,
//!                  headers, metrics, naming, percent, principal, server, upstream
//! error          → caller, content_coding, credentials, damoov, head, naming, replay, upstream
//! handed_out     → caller, clock, credentials, damoov, naming, principal
//! credentials    → caller, clock, content_coding, damoov, directory, metrics, peer, principal,
//!                  secret, store, telemetry, upstream
//! naming         → damoov, directory, headers, principal
//! caller         → directory, peer, principal
//! damoov         → content_coding, percent, principal, secret
//! server         → headers, peer, reload, signals, stalls, telemetry, timer
//! content_coding → headers
//! directory      → principal, secret
//! head           → headers, percent
//! reload         → metrics
//! replay         → telemetry, timer
//! simulator      → clock, headers, principal
//! store          → clock, percent, principal, secret, telemetry
//! upstream       → headers, metrics, stalls, telemetry, timer
//! ground floor: clock, headers, metrics, peer, percent, principal, secret, signals, stalls,
//!               supervisor, telemetry, timer
//! ```
//!
//! # Glossary
//!
//! One word for each thing, in the order in which a reader meets them. Words of the API (DeviceToken,
//! instance, JWT, RefreshToken) are explained in [`damoov`].
//!
//! | word | meaning | where |
//! | --- | --- | --- |
//! | caller | the program that calls the proxy | `peer`: who it is |
//! | upstream | a host of the API that the proxy calls | `upstream` |
//! | content | the bytes of a request's or answer's body (RFC 9110) | `replay`, `content_coding` |
//! | principal | whose credentials a request needs: a user (a DeviceToken) or an API account | `principal` |
//! | pair | a JWT and the RefreshToken that was issued with it | `credentials::vault::pair` |
//! | credentials | the JWT of a principal as memory holds it, with its generation and the ready-made header value | `credentials::vault::credentials` |
//! | generation | counts the pairs of a principal: each commit raises it by one, and names the one that it replaces | `store` |
//! | epoch | counts how often a principal was forgotten; raising it ends its tokens that were handed out | `store` |
//! | commit | a new pair is written, durably, if generation and epoch are still those that were read | `store` |
//! | fresh, stale, expired | a token before, after the share `ahead` of its life, and after its end (RFC 9111's words) | `credentials::vault::credentials` |
//! | get | take credentials from memory or the store, or wait for a renewal | `credentials::provider` |
//! | renew | get a newer pair, by either grant | `credentials::renewal` |
//! | grant | one of the two ways to a new pair: refresh or log in | `credentials::renewal` |
//! | refresh | redeem a RefreshToken: free, and both tokens rotate | `credentials::renewal::refresh` |
//! | log in | redeem InstanceKey or password: scarce, and it revokes the pair before | `credentials::renewal::login` |
//! | authorized | a caller that may have the credentials of a principal; made by one function alone | `caller` |
//! | rules | what the configuration says of requests and may change while the proxy runs: one immutable value, which a request holds to its end | `proxy::rules` |
//! | replay | send the same request again, once, with newer credentials, after a 401 | `proxy::forward`, `credentials::rejection` |
//! | retry | send a request on another connection because a reused one turned out to be dead | `upstream::pool` |
//! | in-band 401 | a 2xx whose JSON says 401; it counts as a 401 | `damoov::in_band` |
//! | patience | until when a caller waits for a renewal; a renewal waits as long as the caller that waits longest | `credentials::renewal::renewals` |
//! | ahead of time | a renewal of a stale token that no request waits for | `credentials::renewal::keeper` |
//! | named, used, unused | a caller names a user, which uses its pair on that day; a pair that nobody used for as long as `forget_unused` says is forgotten | `credentials::renewal::unused`, `store::uses` |
//! | keeper | the task that renews ahead of time, and idle pairs before their RefreshToken dies | `credentials::renewal::keeper` |
//! | forgotten, tombstone, pseudonym | what is left of who was forgotten: generation and epoch, under a keyed hash of the name | `store::pseudonyms` |
//! | lease | the right to renew one principal, held for 15 s, or longer if `[renewal] timeout` demands it, and extended; one process has it at a time, and calls only while it outlasts the call | `store`, `credentials::vault::hold`, `credentials::renewal::lease` |
//! | outbox | pairs that a shared store has not acknowledged in time: durable on this machine's disk, and sent until the store has them | `store::postgres::outbox` |
//! | re-assertion | what this process committed lately, and a fail-over of a shared store lost, is restored | `store::postgres::reassertion` |
//! | doubt | right after a shared store came back other processes may restore what it lost: no rejection is believed | `credentials::renewal::doubt` |
//! | setback | the store is older than memory, as after a backup was restored: memory gives way, but for tokens that are good | `credentials::vault::setback` |
//! | lost answer | the answer to a call that may have been processed did not arrive: the pair may have rotated unseen | `credentials::renewal::refresh` |
//! | suppressed | a principal whose newest token got a 401, too: no 401 renews it for 60 s, because expiry is not the cause | `credentials::rejection` |
//! | guard | what holds a login back: budget, back-off, breaker, contested, suspended | `credentials::guards` |
//! | budget, window, slot, class | how many logins are allowed in any span of time; each takes a slot; principals never seen before are a class of their own, which leaves `reserve` slots to the others | `store::windows`, `credentials::guards::budget` |
//! | block | no login at all, after a 429 | `store::windows` |
//! | back-off | a pause after failures, of one principal or of the whole host | `credentials::guards::backoff` |
//! | breaker | holds back the logins of an instance whose key seems wrong | `credentials::guards::breaker` |
//! | contested | another program logs the same principal in, so each login ends the other's tokens | `credentials::guards::contested` |
//! | mass rejection, suspended | the RefreshTokens of five principals in a row are rejected: the API is taken to be broken, and logins of principals that hold a pair are suspended | `credentials::guards::mass_rejection` |
//! | probe | the one call that tries, during a suspension or an open breaker, whether it is over | `credentials::renewal::probes` |
//! | witness | a principal that received a new pair since the rejections began: if its refresh is rejected as well, the API is at fault and not the age of the pairs | `credentials::guards::mass_rejection::state` |
//! | seal, ring | how pairs are encrypted at rest; the current key and the old ones | `credentials::vault::seal` |
//! | canary | a known text, sealed with the store's key, that shows at the start whether the key is right | `credentials::vault::canary` |
//! | handed-out token | a token of the proxy's own, given to callers that log in by themselves | `handed_out` |
//! | mint | makes and checks handed-out tokens | `handed_out::mint` |
//! | stall | one side of an exchange sends or reads nothing | `stalls` |
//! | giving way | a stalled exchange is broken off because another request needs its connection | `upstream::pool` |
//! | drain | the time from a signal to the end: no longer ready, then closing | `server::stage` |
//! | episode | a failure that lasts; it is logged when it begins and when it is over | `telemetry::episode` |
//!
//! # Invariants
//!
//! Each with a test that holds it, in `tests/it`; beside them the rooms' own tests.
//!
//! - **I1** One renewal per principal at a time, in the process and among processes on one store.
//!   `promises::crowd::i1_…`, `promises::fleet::i1_…`, `fleet::rotations::*`, `fleet::keeper::*`,
//!   `credentials::vault::hold`
//! - **I2** No hang-up cancels a renewal, nor loses what a registration brought.
//!   `tokens::renewal_faults::a_caller_that_hangs_up_does_not_cancel_the_refresh`, `…_the_login`,
//!   `auth_endpoints::registrations::a_caller_that_hangs_up_while_registering_…`
//! - **I3** A token is durable before it is used.
//!   `tokens::renewal_faults::a_new_token_is_used_only_once_it_is_durable`,
//!   `promises::kills::i3_i10_…`, `fleet::server_faults::*`
//! - **I4** A rejected token is never sent again, except the newest one in the 60 s after a replay
//!   got a 401 too; that 401 is passed on.
//!   `tokens::damoov_misbehaves::an_api_that_always_says_401_costs_one_refresh_a_minute_and_no_login`,
//!   `…::a_late_401_for_an_older_token_costs_no_auth_call`
//! - **I5** At most one replay, byte for byte the same method, target, headers and content.
//!   `replays::whatever_is_kept_is_replayed_byte_for_byte`
//! - **I6** A's token never goes out for B.
//!   `promises::crowd::i6_…`, `tokens::damoov_misbehaves::another_users_token_is_never_attached`,
//!   `auth_endpoints::handed_out::forged_foreign_and_misused_tokens_are_invalid`; nor is an answer
//!   given to another request: `whose_answer::no_answer_of_a_hostile_api_is_given_to_another_request`
//! - **I7** No more logins than the budget, whatever fails, restarts or races.
//!   `promises::strangers::i7_…`, `tokens::budget_and_blocks::*`, `tokens::login_queue::*`,
//!   `tokens::back_off::*`, `tokens::mass_rejection::*`, `fleet::clocks::*`, `store::windows::tests`
//! - **I8** No real token, key or password in any log, answer, metric, error or panic.
//!   `secrets::no_secret_is_in_any_output_whatever_happens`, `secrets::on_postgres::*`
//! - **I9** Hop-by-hop headers never pass, nor the caller's Authorization except on `passthrough`
//!   routes, and there none that the proxy handed out. `requests::hygiene::*`,
//!   `requests::naming::a_token_that_the_proxy_handed_out_passes_on_no_route`,
//!   `live::first_message::a_token_of_ours_anywhere_else_ends_the_session_before_the_api_has_it`
//! - **I10** A known user never needs a login while its RefreshToken lives.
//!   `promises::kills::i3_i10_…`, `promises::week::*`, `promises::import::*`, `tokens::formats::*`,
//!   `tokens::keys::*`, `fleet::lost_answers::*`, `fleet::refusing_stores::*`, `fleet::rolling::*`

// To others the crate is its commands and the simulator. With the feature `internals` its own tests and
// benches see every room; without it the compiler sees what nothing uses.
#![cfg_attr(
    not(feature = "internals"),
    allow(
        unreachable_pub,
        reason = "what is public in a room is for the other rooms"
    )
)]

#[cfg(feature = "internals")]
pub mod admin;
#[cfg(not(feature = "internals"))]
mod admin;
#[cfg(feature = "internals")]
pub mod auth_endpoints;
#[cfg(not(feature = "internals"))]
mod auth_endpoints;
#[cfg(feature = "internals")]
pub mod caller;
#[cfg(not(feature = "internals"))]
mod caller;
pub mod cli;
pub mod clock;
#[cfg(feature = "internals")]
pub mod config;
#[cfg(not(feature = "internals"))]
mod config;
#[cfg(feature = "internals")]
pub mod content_coding;
#[cfg(not(feature = "internals"))]
mod content_coding;
#[cfg(feature = "internals")]
pub mod credentials;
#[cfg(not(feature = "internals"))]
mod credentials;
#[cfg(feature = "internals")]
pub mod damoov;
#[cfg(not(feature = "internals"))]
mod damoov;
#[cfg(feature = "internals")]
pub mod directory;
#[cfg(not(feature = "internals"))]
mod directory;
#[cfg(feature = "internals")]
pub mod error;
#[cfg(not(feature = "internals"))]
mod error;
#[cfg(feature = "internals")]
pub mod handed_out;
#[cfg(not(feature = "internals"))]
mod handed_out;
#[cfg(feature = "internals")]
pub mod head;
#[cfg(not(feature = "internals"))]
mod head;
#[cfg(feature = "internals")]
pub mod headers;
#[cfg(not(feature = "internals"))]
mod headers;
#[cfg(feature = "internals")]
pub mod live;
#[cfg(not(feature = "internals"))]
mod live;
#[cfg(feature = "internals")]
pub mod metrics;
#[cfg(not(feature = "internals"))]
mod metrics;
#[cfg(feature = "internals")]
pub mod naming;
#[cfg(not(feature = "internals"))]
mod naming;
#[cfg(feature = "internals")]
pub mod peer;
#[cfg(not(feature = "internals"))]
mod peer;
#[cfg(feature = "internals")]
pub mod percent;
#[cfg(not(feature = "internals"))]
mod percent;
pub mod principal;
#[cfg(feature = "internals")]
pub mod proxy;
#[cfg(not(feature = "internals"))]
mod proxy;
#[cfg(feature = "internals")]
pub mod reload;
#[cfg(not(feature = "internals"))]
mod reload;
#[cfg(feature = "internals")]
pub mod replay;
#[cfg(not(feature = "internals"))]
mod replay;
#[cfg(feature = "internals")]
pub mod secret;
#[cfg(not(feature = "internals"))]
mod secret;
#[cfg(feature = "internals")]
pub mod server;
#[cfg(not(feature = "internals"))]
mod server;
pub mod signals;
#[cfg(feature = "simulator")]
pub mod simulator;
#[cfg(feature = "internals")]
pub mod stalls;
#[cfg(not(feature = "internals"))]
mod stalls;
#[cfg(feature = "internals")]
pub mod store;
#[cfg(not(feature = "internals"))]
mod store;
#[cfg(feature = "internals")]
pub mod supervisor;
#[cfg(not(feature = "internals"))]
mod supervisor;
#[cfg(feature = "internals")]
pub mod telemetry;
#[cfg(not(feature = "internals"))]
mod telemetry;
#[cfg(feature = "internals")]
pub mod timer;
#[cfg(not(feature = "internals"))]
mod timer;
#[cfg(feature = "internals")]
pub mod upstream;
#[cfg(not(feature = "internals"))]
mod upstream;
