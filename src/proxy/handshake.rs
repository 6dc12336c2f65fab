//! The path of a request that asks for WebSocket on the route that has it. The caller's first
//! message may name somebody, too: nobody need be named yet.

use super::Forwarder;
use super::answer::Received;
use super::record::Record;
use crate::caller::{Caller, authorize};
use crate::damoov::routes::{Credential, Route};
use crate::error::Error;
use crate::headers::{self, Authorization};
use crate::live;
use crate::naming::{self, Prefix};
use crate::upstream;

impl Forwarder {
    /// Shakes hands with upstream for a caller that asked to switch; with a 101 comes the session.
    pub(super) async fn switch(
        &self,
        caller: Caller,
        route: &Route,
        prefix: Option<Prefix<'_>>,
        mut head: upstream::Head,
        record: &mut Record<'_>,
    ) -> Result<Received, Error> {
        let proxy = &*self.proxy;
        let bearer = self
            .bearer(&caller, route.credential, &head.headers)
            .await?;
        let bearer = proxy
            .live
            .bearer(&caller, bearer, head.target.query())
            .await?;
        let name = |credential, prefix, bearer| {
            naming::name(credential, prefix, bearer, &head.headers, &proxy.directory)
        };
        let named = match name(route.credential, prefix, bearer) {
            // The first message will name somebody; the instance is the header's all the same.
            Err(naming::Error::DeviceTokenMissing) => {
                name(Credential::Instance, None, naming::Bearer::Absent)
            }
            named => named,
        }?;
        record.principal = named.principal.clone();
        let authorized = named
            .principal
            .map(|principal| authorize(caller, &proxy.directory, principal, named.instance));
        let authorized = authorized.transpose()?;
        headers::clean_request(&mut head.headers, Authorization::Dropped);
        let handshake = live::Handshake {
            target: &proxy.targets[&*route.host],
            head,
            caller,
            authorized,
            instance: named.instance,
            directory: proxy.directory.clone(),
            response_timeout: route.response_timeout,
        };
        let opened = proxy.live.open(handshake).await?;
        record.renewal = opened.renewal;
        Ok(Received::handshake(
            opened.answer,
            opened.session.map(Box::new),
        ))
    }
}
