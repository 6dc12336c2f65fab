//! The path of a request that asks for WebSocket on the route that has it. The caller's first
//! message may name somebody, too: nobody need be named yet.

use http::request::Parts as CallerHead;
use http::uri::PathAndQuery;

use super::Path;
use super::answer::Received;
use super::record::Record;
use crate::credentials::Wanted;
use crate::damoov::routes::{Credential, Route};
use crate::error::Error;
use crate::headers::{self, Authorization};
use crate::live;
use crate::naming::{self, Prefix};
use crate::upstream;

impl Path {
    /// Shakes hands with upstream for a caller that asked to switch; with a 101 comes the session.
    pub(super) async fn switch(
        &self,
        route: &Route,
        prefix: Option<Prefix<'_>>,
        caller: &mut CallerHead,
        target: PathAndQuery,
        record: &mut Record<'_>,
    ) -> Result<Received, Error> {
        let proxy = &*self.proxy;
        let bearer = self.bearer(route.credential, &caller.headers).await?;
        let bearer = proxy.live.bearer(bearer, target.query()).await?;
        let name = |credential, prefix, bearer| {
            naming::name(
                credential,
                prefix,
                bearer,
                &caller.headers,
                &proxy.directory,
            )
        };
        let named = match name(route.credential, prefix, bearer) {
            // The first message will name somebody; the instance is the header's all the same.
            Err(naming::Error::DeviceTokenMissing) => {
                name(Credential::Instance, None, naming::Bearer::Absent)
            }
            named => named,
        }?;
        record.principal = named.principal.clone();
        headers::clean_request(&mut caller.headers, Authorization::Dropped);
        let handshake = live::Handshake {
            target: &proxy.targets[&*route.host],
            head: upstream::Head {
                method: caller.method.clone(),
                target,
                headers: std::mem::take(&mut caller.headers),
            },
            wanted: named.principal.map(|principal| Wanted {
                principal,
                instance: named.instance,
            }),
            instance: named.instance,
            response_timeout: route.response_timeout,
        };
        let opened = proxy.live.open(handshake).await?;
        record.passed = opened.passed;
        Ok(Received::handshake(
            opened.answer,
            opened.session.map(Box::new),
        ))
    }
}
