//! What the listeners answer: one table of paths, and what each tells.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::connections::Answering;
use super::content::Content;
use super::dashboard;
use super::engine::{Engine, Logins};
use super::history::{History, STEPS};
use super::readiness::{Readiness, Report};
use super::reply::{json, whole};
use super::request::{self, Source};
use super::sentence::{Facts, sentence};
use super::state::{self, State};
use super::time::seconds;
use super::{Serves, Status};
use crate::error::Error;
use crate::head::{self, Rejection, Seen};
use crate::metrics::Format;

/// How often it is looked whether a step of the history is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    Livez,
    Startupz,
    Readyz,
    Metrics,
    Dashboard,
    State,
}

/// Why a request is not answered.
enum Refused {
    /// As the path of a request would be.
    As(Box<Error>),
    /// The path has none but these methods.
    Method { allows: &'static str },
}

/// What the listeners answer.
pub struct Answers<E> {
    readiness: Readiness,
    history: Mutex<History>,
    status: Status<E>,
}

impl Asked {
    /// What `path` names on a listener that `serves` this; `None` if nothing.
    fn of(path: &str, serves: Serves) -> Option<Asked> {
        match (path, serves) {
            ("/livez", _) => Some(Asked::Livez),
            ("/startupz", _) => Some(Asked::Startupz),
            ("/readyz", _) => Some(Asked::Readyz),
            ("/metrics", _) => Some(Asked::Metrics),
            ("/dashboard", Serves::Everything) => Some(Asked::Dashboard),
            ("/api/state", Serves::Everything) => Some(Asked::State),
            _ => None,
        }
    }

    /// The methods that it has.
    fn allows(&self) -> &'static str {
        match self {
            Asked::Livez
            | Asked::Startupz
            | Asked::Readyz
            | Asked::Metrics
            | Asked::Dashboard
            | Asked::State => "GET, HEAD",
        }
    }

    /// Whether probes may come under any name: of a pod, of a service, of a load balancer's choice.
    fn is_health(&self) -> bool {
        matches!(self, Asked::Livez | Asked::Startupz | Asked::Readyz)
    }
}

impl<E: Engine> Answers<E> {
    /// Answers that tell of `status`.
    pub fn new(status: Status<E>) -> Arc<Answers<E>> {
        Arc::new(Answers {
            readiness: Readiness::default(),
            history: Mutex::new(History::new(now())),
            status,
        })
    }

    /// Answers a request on a listener that `serves` this. `answering` ends with the answer.
    pub(super) async fn answer(
        &self,
        serves: Serves,
        request: Request<Incoming>,
        answering: Answering,
    ) -> Response<Content> {
        let (head, content) = request.into_parts();
        let answer = match self.asked(serves, &head) {
            Ok(asked) => match request::discard(content).await {
                Ok(()) => self.tell(asked, &head).await,
                Err(error) => error.answer(),
            },
            Err(refused) => refused.answer(),
        };
        drop(answering);
        answer.map(Content::from)
    }

    /// What the head of a request asks for, if that is told to whom it comes from.
    fn asked(&self, serves: Serves, head: &Parts) -> Result<Asked, Refused> {
        let asked = Asked::of(head.uri.path(), serves);
        if let Some(asked) = &asked {
            let allows = asked.allows();
            if !allows.split(", ").any(|method| head.method == method) {
                return Err(Refused::Method { allows });
            }
        }
        if !asked.as_ref().is_some_and(Asked::is_health) {
            self.check(serves, head, asked.as_ref())?;
        }
        asked.ok_or_else(|| Error::RouteUnknown(None).into())
    }

    /// Whether what is not for everybody may be told.
    fn check(&self, serves: Serves, head: &Parts, asked: Option<&Asked>) -> Result<(), Error> {
        let settings = &**self.status.head.load();
        match (serves, asked) {
            (Serves::Everything, Some(Asked::Dashboard)) => {
                request::check(head, Source::Links, settings)
            }
            (Serves::Everything, _) => request::check(head, Source::SameOrigin, settings),
            (Serves::Health, Some(_)) => {
                head::check(head, Seen::of(&head.headers), settings)?;
                Ok(())
            }
            (Serves::Health, None) => Ok(()),
        }
    }

    async fn tell(&self, asked: Asked, head: &Parts) -> Response<Bytes> {
        match asked {
            Asked::Livez => Report::of(Vec::new(), Vec::new()).answer(),
            Asked::Startupz => self.readiness.started(&self.status).answer(),
            Asked::Readyz => {
                let logins = self.logins().await;
                self.readiness.look(&self.status, &logins).answer()
            }
            Asked::Metrics => {
                if let Some(engine) = self.status.engine.get() {
                    engine.report().await;
                }
                let is_ready = self.readiness.reasons(&self.status).is_empty();
                self.status.metrics.ready.set(i64::from(is_ready));
                let format = Format::asked_for(&head.headers);
                let content = self.status.metrics.encode(format);
                whole(StatusCode::OK, format.content_type(), content.into())
            }
            Asked::Dashboard => dashboard::answer(),
            Asked::State => json(&self.state(STEPS).await),
        }
    }

    /// What stands in the way of logins; the default before there is an engine.
    async fn logins(&self) -> Logins {
        match self.status.engine.get() {
            Some(engine) => engine.logins().await,
            None => Logins::default(),
        }
    }

    /// Everything, with this many steps of the history.
    async fn state(&self, steps: usize) -> State {
        if let Some(engine) = self.status.engine.get() {
            engine.report().await;
        }
        let logins = self.logins().await;
        let ready = self.readiness.look(&self.status, &logins);
        let (now, totals) = (now(), self.status.metrics.totals());
        let (failed_lately, history) = {
            let history = self.history();
            (history.failed_lately(totals), history.newest(steps))
        };
        let facts = Facts {
            conditions: &ready.conditions(),
            logins: &logins,
            failed_lately,
            now,
        };
        let sentence = sentence(&facts);
        let parts = state::Parts {
            now,
            sentence,
            ready,
            logins,
            history,
        };
        State::new(&self.status, parts)
    }

    /// Keeps the history, until it is dropped.
    pub(super) async fn keep_history(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let totals = self.status.metrics.totals();
            self.history().note(now(), totals);
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no code panics under this lock")
    }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::As(Box::new(error))
    }
}

impl Refused {
    fn answer(self) -> Response<Bytes> {
        match self {
            Refused::As(error) => error.answer(),
            Refused::Method { allows } => {
                let mut answer = Error::from(Rejection::Method).answer();
                let allows = HeaderValue::from_static(allows);
                answer.headers_mut().insert(header::ALLOW, allows);
                answer
            }
        }
    }
}
