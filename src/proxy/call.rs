//! A request on its way: what is sent, and where to. Knows nothing of credentials.

use std::sync::Arc;

use hyper::body::Incoming;

use super::Rules;
use crate::damoov::routes::{Replay, Route};
use crate::damoov::user_changes::Change;
use crate::replay::Recorder;
use crate::upstream;

/// A request that has a route.
pub(super) struct Call<'a> {
    /// What it is answered by.
    pub(super) rules: &'a Rules,
    /// Where it goes.
    pub(super) route: &'a Arc<Route>,
    /// As it is sent, but for what credentials add.
    pub(super) request: upstream::Head,
    /// What it changes about users, if it succeeds.
    pub(super) change: Option<Change>,
    /// The caller's content, which is recorded while it is sent.
    pub(super) content: &'a Recorder<Incoming>,
}

impl Call<'_> {
    /// Whether it can be sent once more after a 401.
    pub(super) fn can_be_replayed(&self) -> bool {
        self.route.replay == Replay::On401 && self.content.keeps()
    }
}
