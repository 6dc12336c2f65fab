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
        let (proxy, rules) = (&*self.proxy, record.rules);
        let hand_out = rules.auth_endpoints.hand_out;
        let bearer = self
            .bearer(rules, &caller, route.credential, &head.headers)
            .await?;
        let bearer = proxy
            .live
            .bearer(hand_out, &caller, bearer, head.target.query())
            .await?;
        let name = |credential, prefix, bearer| {
            naming::name(credential, prefix, bearer, &head.headers, &rules.directory)
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
            .map(|principal| authorize(caller, &rules.directory, principal, named.instance));
        let authorized = authorized.transpose()?;
        headers::clean_request(&mut head.headers, Authorization::Dropped);
        let handshake = live::Handshake {
            target: rules.target(route),
            head,
            caller,
            authorized,
            instance: named.instance,
            directory: rules.directory.clone(),
            hand_out,
            limits: rules.websockets(route),
        };
        let opened = proxy.live.open(handshake).await?;
        record.renewal = opened.renewal;
        Ok(Received::handshake(
            opened.answer,
            opened.session.map(Box::new),
        ))
    }
}
