//! The Auth endpoints and the registration: what is understood, who is let in, what is answered
//! (damoov/API.md, "Login", "Refresh", "Registration").

use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::principal::{DeviceToken, InstanceId, Principal};

use super::answer::{self, Answer, Cut, Names};
use super::content;
use super::counts::{Grant, LoginCall, Outcome};
use super::doors::Visitor;
use super::fault::{On, Struck};
use super::journal::{Called, Fate, Verdict};
use super::login_limit::Admission;
use super::random::random_device;
use super::settings::{DeadRefreshToken, ExpiresIn, RegistrationCredentials, RegistrationShape};
use super::tokens::{Birth, Issued, Serial};
use super::users::NotRegistered;
use super::world::World;

/// Which of these endpoints `path` is, if any.
pub(super) fn endpoint(path: &str) -> Option<Grant> {
    [
        ("/v1/Auth/Login", Grant::Login),
        ("/v1/Auth/RefreshToken", Grant::Refresh),
        ("/v1/Registration/create", Grant::Registration),
    ]
    .into_iter()
    .find(|(known, _)| path.eq_ignore_ascii_case(known))
    .map(|(_, grant)| grant)
}

/// Answers one call.
pub(super) async fn answer(
    world: &World,
    grant: Grant,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Answer, Cut> {
    let arrived = world.clock.wall();
    let line = world.journal.arrival(called(grant), visitor.door.as_ref());
    let (head, body) = request.into_parts();
    let received = content::receive(body, content::READ).await?;
    let call = Call::read(
        grant,
        &head,
        received.content.as_deref().unwrap_or_default(),
    );
    let principal = call.principal(world);
    line.says(principal.as_ref(), call.presented());
    let _under_way =
        (grant == Grant::Refresh).then(|| world.counter.refreshing(principal.as_ref()));

    let admission = match grant {
        Grant::Login => world.limiter.admit(visitor.address),
        Grant::Refresh | Grant::Registration => Admission::Admitted,
    };
    let path = head.uri.path();
    let struck = match admission {
        Admission::Admitted => world.faults.strike(&on(grant), path, principal.as_ref()),
        Admission::Limited { .. } => Struck::default(),
    };
    struck.half_delay().await;
    let mut issued = None;
    let (outcome, answer) = if let Admission::Limited { wait, tripped } = admission {
        if tripped {
            world.counter.block_tripped();
        }
        (Outcome::Limited, Ok(limited(world, wait)))
    } else if let Some(answer) = struck.instead() {
        (Outcome::Failed, answer)
    } else {
        match call.process(world) {
            Ok(granted) => {
                issued = granted.birth();
                (struck.outcome(), Ok(granted.answer(world, grant, &struck)))
            }
            Err(rejected) => (Outcome::Rejected, Ok(rejected.answer())),
        }
    };
    // Counted before anything can cut this call short: a client that hangs up drops it here.
    let status = answer.as_ref().ok().map(Answer::status);
    line.decided(verdict(outcome), issued, status);
    world.counter.granted(grant, principal.as_ref(), outcome);
    if grant == Grant::Login {
        world.counter.login_call(LoginCall {
            at: arrived,
            principal: principal.clone(),
            outcome,
        });
    }
    struck.half_delay().await;
    let answer = match answer {
        Ok(answer) => struck.afterwards(answer).await,
        Err(cut) => Err(cut),
    };
    let whole = answer.is_ok() && outcome != Outcome::Lost && !struck.loses_the_answer();
    line.end(if whole { Fate::Delivered } else { Fate::Lost });
    answer
}

/// What a call asks for.
enum Call {
    LogInUser {
        device: DeviceToken,
        instance: Option<InstanceId>,
        key: String,
    },
    LogInAccount {
        email: String,
        password: String,
    },
    Refresh {
        access: String,
        refresh: String,
    },
    Register {
        device: DeviceToken,
        instance: InstanceId,
        key: String,
        credentials: bool,
    },
    Refused(Rejected),
}

/// A call that was accepted.
struct Granted {
    principal: Principal,
    /// None: a registration that did not ask for them.
    pair: Option<Issued>,
}

/// A call that was not: the status and the message.
#[derive(Clone, Copy)]
struct Rejected(StatusCode, &'static str);

/// What the API says about wrong credentials: nothing useful.
const REJECTED: Rejected = Rejected(StatusCode::UNAUTHORIZED, "");

impl Call {
    fn read(grant: Grant, head: &Parts, content: &[u8]) -> Call {
        if head.method != Method::POST {
            return Call::Refused(Rejected(StatusCode::METHOD_NOT_ALLOWED, "use POST"));
        }
        let Ok(body) = serde_json::from_slice::<Value>(content) else {
            return Call::Refused(Rejected(StatusCode::BAD_REQUEST, "the content is not JSON"));
        };
        match grant {
            Grant::Login => read_login(&head.headers, &body).unwrap_or(Call::Refused(REJECTED)),
            Grant::Refresh => read_refresh(&body).unwrap_or(Call::Refused(Rejected(
                StatusCode::BAD_REQUEST,
                "AccessToken and RefreshToken are required",
            ))),
            Grant::Registration => read_registration(&head.headers, &body),
        }
    }

    fn principal(&self, world: &World) -> Option<Principal> {
        match self {
            Call::LogInUser { device, .. } | Call::Register { device, .. } => {
                Some(Principal::User(*device))
            }
            Call::LogInAccount { email, .. } => Some(Principal::Account(email.as_str().into())),
            Call::Refresh { access, .. } => world.tokens.present(access).principal().cloned(),
            Call::Refused(_) => None,
        }
    }

    /// The pair whose RefreshToken it presents.
    fn presented(&self) -> Option<Serial> {
        match self {
            Call::Refresh { refresh, .. } => Serial::of_refresh_token(refresh),
            Call::LogInUser { .. }
            | Call::LogInAccount { .. }
            | Call::Register { .. }
            | Call::Refused(_) => None,
        }
    }

    fn process(self, world: &World) -> Result<Granted, Rejected> {
        match self {
            Call::LogInUser {
                device,
                instance,
                key,
            } => {
                let instance = instance
                    .filter(|id| world.users.user_may_log_in(device, *id, &key))
                    .ok_or(REJECTED)?;
                let principal = Principal::User(device);
                let pair = Some(world.tokens.log_in(&principal, Some(instance)));
                Ok(Granted { principal, pair })
            }
            Call::LogInAccount { email, password } => {
                if !world.users.account_may_log_in(&email, &password) {
                    return Err(REJECTED);
                }
                let principal = Principal::Account(email.into());
                let pair = Some(world.tokens.log_in(&principal, None));
                Ok(Granted { principal, pair })
            }
            Call::Refresh { access, refresh } => {
                let (principal, pair) = world
                    .tokens
                    .refresh(&access, &refresh)
                    .ok_or(Rejected(dead(world), "Refresh token is not valid"))?;
                let pair = Some(pair);
                Ok(Granted { principal, pair })
            }
            Call::Register {
                device,
                instance,
                key,
                credentials,
            } => {
                world
                    .users
                    .register(device, instance, &key)
                    .map_err(|refused| match refused {
                        NotRegistered::Instance => REJECTED,
                        NotRegistered::Taken => Rejected(
                            StatusCode::UNPROCESSABLE_ENTITY,
                            "CustomToken is registered already",
                        ),
                    })?;
                let principal = Principal::User(device);
                let always = world.registration.credentials == RegistrationCredentials::Always;
                let pair = (credentials || always)
                    .then(|| world.tokens.register(&principal, Some(instance)));
                Ok(Granted { principal, pair })
            }
            Call::Refused(rejected) => Err(rejected),
        }
    }
}

/// Both body forms. The string form wants exactly `Devicetoken` or `email` inside, the object form
/// of older clients `DeviceToken` or `Email`; anything else is no login.
fn read_login(headers: &HeaderMap, body: &Value) -> Option<Call> {
    let fields = body.get("LoginFields").or(body.get("loginFields"))?;
    let password = body.get("Password").or(body.get("password"))?.as_str()?;
    let (fields, device_name, email_name) = match fields {
        Value::String(text) => (serde_json::from_str(text).ok()?, "Devicetoken", "email"),
        object => (object.clone(), "DeviceToken", "Email"),
    };
    if let Some(email) = fields.get(email_name) {
        return Some(Call::LogInAccount {
            email: email.as_str()?.to_owned(),
            password: password.to_owned(),
        });
    }
    Some(Call::LogInUser {
        device: DeviceToken::parse(fields.get(device_name)?.as_str()?).ok()?,
        instance: instance_of(headers),
        key: password.to_owned(),
    })
}

fn read_refresh(body: &Value) -> Option<Call> {
    Some(Call::Refresh {
        access: body.get("AccessToken")?.as_str()?.to_owned(),
        refresh: body.get("RefreshToken")?.as_str()?.to_owned(),
    })
}

fn read_registration(headers: &HeaderMap, body: &Value) -> Call {
    let key = headers.get("InstanceKey").and_then(|key| key.to_str().ok());
    let (Some(instance), Some(key)) = (instance_of(headers), key) else {
        return Call::Refused(REJECTED);
    };
    let device = match body.get("CustomToken") {
        None | Some(Value::Null) => Some(random_device()),
        Some(token) => token
            .as_str()
            .and_then(|token| DeviceToken::parse(token).ok()),
    };
    let Some(device) = device else {
        return Call::Refused(Rejected(
            StatusCode::UNPROCESSABLE_ENTITY,
            "CustomToken is not a UUID",
        ));
    };
    Call::Register {
        device,
        instance,
        key: key.to_owned(),
        credentials: body.get("CreateAccessToken") == Some(&Value::Bool(true)),
    }
}

fn instance_of(headers: &HeaderMap) -> Option<InstanceId> {
    InstanceId::parse(headers.get("InstanceId")?.to_str().ok()?).ok()
}

impl Granted {
    fn birth(&self) -> Option<Birth> {
        self.pair.as_ref().map(|issued| issued.birth)
    }

    fn answer(self, world: &World, grant: Grant, struck: &Struck) -> Answer {
        let mut result = json!({});
        if let Principal::User(device) = &self.principal {
            result["DeviceToken"] = device.to_string().into();
        }
        if let Some(Issued { pair, .. }) = self.pair {
            let expires_in = match world.expires_in {
                ExpiresIn::Number => pair.expires_in.into(),
                ExpiresIn::Text => Value::String(pair.expires_in.to_string()),
            };
            result["AccessToken"] = json!({"Token": pair.access_token, "ExpiresIn": expires_in});
            result["RefreshToken"] = pair.refresh_token.into();
        }
        let bare = world.registration.shape == RegistrationShape::Bare;
        let content = if grant == Grant::Registration && bare {
            result
        } else {
            answer::success(result)
        };
        let other_user = || world.tokens.stray(&Principal::User(random_device()));
        match struck.spoilt(content, other_user) {
            Ok(spoilt) => spoilt,
            Err(content) => answer::json_answer(StatusCode::OK, &content),
        }
    }
}

impl Rejected {
    fn answer(self) -> Answer {
        let Rejected(status, message) = self;
        answer::enveloped(answer::failure(status, "Auth", message), Names::Upper)
    }
}

fn dead(world: &World) -> StatusCode {
    match world.refresh.dead {
        DeadRefreshToken::BadRequest => StatusCode::BAD_REQUEST,
        DeadRefreshToken::Unauthorized => StatusCode::UNAUTHORIZED,
    }
}

fn limited(world: &World, wait: Duration) -> Answer {
    let rejected = Rejected(StatusCode::TOO_MANY_REQUESTS, "Too many requests");
    let mut answer = rejected.answer();
    if world.limiter.tells_when() {
        let seconds = wait.as_millis().div_ceil(1000).to_string();
        let seconds = HeaderValue::try_from(seconds).expect("digits");
        answer.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    answer
}

fn called(grant: Grant) -> Called {
    match grant {
        Grant::Login => Called::Login,
        Grant::Refresh => Called::Refresh,
        Grant::Registration => Called::Registration,
    }
}

fn verdict(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Ok | Outcome::Lost => Verdict::Granted,
        Outcome::Rejected => Verdict::Rejected,
        Outcome::Limited => Verdict::Limited,
        Outcome::Failed => Verdict::Faulted,
    }
}

fn on(grant: Grant) -> On {
    match grant {
        Grant::Login => On::Login,
        Grant::Refresh => On::Refresh,
        Grant::Registration => On::Registration,
    }
}
