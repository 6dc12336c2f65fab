//! What the listeners answer: one table of paths, and what each tells.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::MissedTickBehavior;

use super::asked::Asked;
use super::code::Code;
use super::connections::Answering;
use super::content::Content;
use super::dashboard;
use super::engine::{Engine, Logins};
use super::history::{History, STEPS};
use super::page::Page;
use super::readiness::{Readiness, Report};
use super::reply::{json, whole};
use super::request::{self, Source};
use super::sentence::{Facts, sentence};
use super::state::{self, State};
use super::stream::Streams;
use super::time::seconds;
use super::{Serves, Status};
use crate::error::Error;
use crate::head::{self, Rejection, Seen};
use crate::metrics::Format;
use crate::reload;
use crate::server::Stage;

/// How often it is looked whether a step of the history is over, and the streams are told the state.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The numbers that only the store knows are left as they were if it does not tell them in this time.
const REPORT_WITHIN: Duration = Duration::from_millis(500);
/// How long a reload is waited for: its file may lie on a mount that hangs.
const RELOAD_WITHIN: Duration = Duration::from_secs(30);

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
    streams: Streams,
    status: Status<E>,
}

impl<E: Engine> Answers<E> {
    /// Answers that tell of `status`.
    pub fn new(status: Status<E>) -> Arc<Answers<E>> {
        Arc::new(Answers {
            readiness: Readiness::default(),
            history: Mutex::new(History::new(now())),
            streams: Streams::new(),
            status,
        })
    }

    /// Everything that is wrong with this process now; why it is not ready comes first.
    pub async fn codes(&self) -> Vec<Code> {
        let logins = self.logins().await;
        self.readiness.look(&self.status, &logins).codes().collect()
    }

    /// Answers a request on a listener that `serves` this. `answering` ends with the answer.
    pub(super) async fn answer(
        &self,
        serves: Serves,
        request: Request<Incoming>,
        answering: Answering,
    ) -> Response<Content> {
        let (head, content) = request.into_parts();
        let answered = async {
            let asked = self.asked(serves, &head)?;
            request::discard(content).await?;
            self.tell(asked, &head, answering).await
        };
        let answered: Result<_, Refused> = answered.await;
        answered.unwrap_or_else(|refused| refused.answer().map(Content::from))
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
        if asked.as_ref().is_some_and(Asked::is_write) {
            request::check_mark(&head.headers)?;
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

    /// Tells what is asked, or does it.
    async fn tell(
        &self,
        asked: Asked,
        head: &Parts,
        answering: Answering,
    ) -> Result<Response<Content>, Refused> {
        let told = match asked {
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
            Asked::Events => return self.events(answering),
            Asked::Budget => json(&self.engine()?.budget().await?),
            Asked::Config => json(&self.config()?),
            Asked::Principals => {
                let Page { after, limit } = Page::of(head.uri.query().unwrap_or_default())?;
                json(&self.engine()?.principals(after, limit).await?)
            }
            Asked::Principal { who } => json(&known(self.engine()?.explain(&who).await?)?),
            Asked::Renew { who } => json(&known(self.engine()?.renew(&who).await?)?),
            Asked::Forget { who } => match self.engine()?.forget(&who).await? {
                true => json(&serde_json::json!({ "forgotten": true })),
                false => return Err(Error::PrincipalUnknown.into()),
            },
            Asked::Reload => json(&self.reload().await),
        };
        Ok(told.map(Content::from))
    }

    /// What runs, once the store is open.
    fn engine(&self) -> Result<&E, Error> {
        self.status.engine.get().ok_or(Error::Starting)
    }

    /// The settings in force, and what of the file needs a restart.
    fn config(&self) -> Result<serde_json::Value, Error> {
        let state = self.status.reloads.state();
        let restart = state.restart.as_ref();
        Ok(serde_json::json!({
            "file": state.file.display().to_string(),
            "settings": self.engine()?.settings(),
            "restart_needed": restart.map_or(&[][..], |restart| &restart.keys),
        }))
    }

    /// Reads the configuration again.
    async fn reload(&self) -> serde_json::Value {
        let asking = self.status.reloads.ask(reload::Trigger::Api);
        match tokio::time::timeout(RELOAD_WITHIN, asking).await {
            Ok(outcome) => serde_json::json!({
                "result": outcome.result.as_str(),
                "report": outcome.report.as_deref(),
                "restart_needed": &outcome.restart_needed[..],
            }),
            Err(_) => serde_json::json!({
                "result": "pending",
                "report": "the file is still being read; the log will say what comes of it",
                "restart_needed": [],
            }),
        }
    }

    /// How many event streams are open.
    #[cfg(test)]
    pub(super) fn streams_open(&self) -> usize {
        self.streams.open()
    }

    /// One more event stream.
    fn events(&self, answering: Answering) -> Result<Response<Content>, Refused> {
        if *self.status.stage.borrow() >= Stage::Draining {
            return Err(Error::Draining.into());
        }
        let place = self.streams.place().ok_or(Error::StreamsExhausted)?;
        let (events, stage) = (self.status.recent.reader(), self.status.stage.clone());
        let pieces = self.streams.start(place, answering, events, stage);
        let told = whole(StatusCode::OK, "text/event-stream", Bytes::new());
        Ok(told.map(|_| Content::Stream(pieces)))
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
            // A store that does not answer holds nobody up who looks why.
            let _ = tokio::time::timeout(REPORT_WITHIN, engine.report()).await;
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
            streams: self.streams.open(),
        };
        State::new(&self.status, parts)
    }

    /// Keeps the history, and tells the streams the state, until it is dropped.
    pub(super) async fn keep_watch(&self) {
        let mut seconds = tokio::time::interval(LOOK_EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            let totals = self.status.metrics.totals();
            self.history().note(now(), totals);
            if self.streams.open() > 0 {
                self.streams.tell(&self.state(1).await);
            }
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no code panics under this lock")
    }
}

/// What is told of a principal, if anything is known of it.
fn known<T>(told: Option<T>) -> Result<T, Error> {
    told.ok_or(Error::PrincipalUnknown)
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
