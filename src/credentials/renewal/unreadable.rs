//! Answers of the Auth endpoints that cannot be read. A login or a refresh that was answered like this
//! has changed the tokens all the same: that is logged once an episode, and each answer is counted.
//! Never sees what the answer holds.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use crate::content_coding::Unreadable as Content;
use crate::damoov::auth::Unreadable;
use crate::metrics::{AuthEndpoint, Doubt, Metrics, UnreadableLabels};
use crate::telemetry::episode::Episode;

/// Logs that there are any, and counts them.
#[derive(Debug)]
pub(crate) struct UnreadableAnswers {
    counted: Family<UnreadableLabels, Counter>,
    /// In the order of [`AuthEndpoint::ALL`].
    episodes: [Episode; AuthEndpoint::ALL.len()],
}

impl UnreadableAnswers {
    pub(crate) fn new(metrics: &Metrics) -> UnreadableAnswers {
        UnreadableAnswers {
            counted: metrics.auth_answers_unreadable.clone(),
            episodes: Default::default(),
        }
    }

    /// An answer of `endpoint` with this status could not be read.
    pub(crate) fn note(&self, endpoint: AuthEndpoint, status: Option<u16>, why: Unreadable) {
        let labels = UnreadableLabels {
            endpoint,
            reason: reason(why),
        };
        self.counted.get_or_create(&labels).inc();
        if self.episodes[endpoint as usize].failed() {
            tracing::error!(
                endpoint = endpoint.as_str(),
                status,
                %why,
                "an answer of the Auth endpoints cannot be read, and the tokens in it are lost; \
                 does something between here and Damoov change answers?"
            );
        }
    }

    /// An answer of `endpoint` could be read.
    pub(crate) fn read(&self, endpoint: AuthEndpoint) {
        if let Some(over) = self.episodes[endpoint as usize].worked() {
            tracing::info!(
                endpoint = endpoint.as_str(),
                seconds = over.seconds(),
                lost = over.hurt,
                "answers of the Auth endpoints can be read again"
            );
        }
    }
}

fn reason(why: Unreadable) -> Doubt {
    match why {
        Unreadable::Framing => Doubt::Framing,
        Unreadable::Content(Content::CodingUnknown | Content::Damaged) => Doubt::Coding,
        Unreadable::Content(Content::TooLong) => Doubt::TooLong,
        Unreadable::NotJson => Doubt::NotJson,
        Unreadable::NameTwice => Doubt::NameTwice,
        Unreadable::Unexpected => Doubt::Unexpected,
    }
}
