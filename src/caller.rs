//! Who calls, and what it may have. [`authorize`] alone makes an [`Authorized`], without which
//! nobody is given credentials: a check that is added there is made for every way to name a user.
//! Knows no requests and no upstreams.

use crate::directory::{Directory, Instance};
use crate::peer::Peer;
use crate::principal::{InstanceId, Principal};

/// Who calls. Callers cannot be told apart yet, so that each is anybody; where its connection comes
/// from is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    peer: Peer,
}

/// A caller that may have the credentials of a principal. Fields are private, so that nothing but
/// [`authorize`] can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    principal: Principal,
    /// The instance that the caller named, if it did: one that is configured.
    instance: Option<InstanceId>,
    caller: Caller,
}

/// Why a caller gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The named instance is not configured, or none is named and there is no default.
    #[error("name a configured InstanceId; there is no default one")]
    InstanceUnknown,
}

impl Caller {
    /// A caller that has said nothing of itself, on a connection of `peer`.
    pub fn anybody(peer: Peer) -> Caller {
        Caller { peer }
    }

    /// The other end of its connection.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What tokens that it is handed are bound to; empty for anybody.
    pub fn name(&self) -> &str {
        ""
    }
}

/// Whether `caller` may have the credentials of `principal`. For a user, `instance` is the one that
/// it named, if it did.
///
/// # Errors
///
/// [`Error::InstanceUnknown`] if that is not configured.
pub fn authorize(
    caller: Caller,
    directory: &Directory,
    principal: Principal,
    instance: Option<InstanceId>,
) -> Result<Authorized, Error> {
    if instance.is_some_and(|named| directory.instance(named).is_none()) {
        return Err(Error::InstanceUnknown);
    }
    Ok(Authorized {
        principal,
        instance,
        caller,
    })
}

/// The instance whose InstanceKey a request of a caller goes out with: the one that it named, or the
/// default one. Every caller may use each.
///
/// # Errors
///
/// [`Error::InstanceUnknown`]
pub fn authorize_instance(
    directory: &Directory,
    named: Option<InstanceId>,
) -> Result<&Instance, Error> {
    match named {
        Some(id) => directory.instance(id),
        None => directory.default_instance(),
    }
    .ok_or(Error::InstanceUnknown)
}

impl Authorized {
    /// Whose credentials.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The instance that the caller named, if it did.
    pub fn instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// Who gets them.
    pub fn caller(&self) -> Caller {
        self.caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::DeviceToken;
    use crate::secret::Secret;

    #[test]
    fn a_named_instance_gives_credentials_only_if_it_is_configured() {
        let id = |text: &str| InstanceId::parse(text).unwrap();
        let main = id("11111111-1111-4111-8111-111111111111");
        let foreign = id("33333333-3333-4333-8333-333333333333");
        let of_several = |default| Instance {
            name: "main".into(),
            id: main,
            key: Secret::from("key"),
            default,
        };
        let other = Instance {
            name: "other".into(),
            id: id("22222222-2222-4222-8222-222222222222"),
            ..of_several(false)
        };
        let caller = Caller::anybody(Peer::Uid(1000));
        let user = DeviceToken::parse("6f1c0c1e-5a0e-4c1e-9f53-0d3c2f8a7b11").unwrap();
        for default in [true, false] {
            let instances = vec![of_several(default), other.clone()];
            let directory = Directory::new(instances, Vec::new());
            let may = |named| authorize(caller, &directory, Principal::User(user), named);
            assert_eq!(may(Some(main)).unwrap().instance(), Some(main));
            // It may be known under one, so that none has to be the default.
            assert_eq!(may(None).unwrap().instance(), None);
            assert_eq!(may(Some(foreign)), Err(Error::InstanceUnknown));

            let used = |named| authorize_instance(&directory, named).map(|found| found.id);
            assert_eq!(used(Some(main)), Ok(main));
            assert_eq!(used(Some(foreign)), Err(Error::InstanceUnknown));
            let by_default = default.then_some(main).ok_or(Error::InstanceUnknown);
            assert_eq!(used(None), by_default);
        }
    }
}
