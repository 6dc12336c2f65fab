//! What wants a login slot, as far as the line must know it.

use crate::clock::Moment;
use crate::principal::Principal;

/// What wants a login slot: a renewal, or a caller whose login is to be forwarded.
pub(crate) trait Seeker {
    /// Who the slot is for.
    fn who(&self) -> Who;

    /// When it asked for the first time, if it had a slot and gave it back.
    fn asked(&self) -> Option<Moment> {
        None
    }

    /// It has asked for the first time at `asked`.
    fn note_asked(&self, _asked: Moment) {}

    /// When its patience ends; grows when others join.
    fn patience(&self) -> Moment;

    /// Whether no caller waits for it any more.
    fn is_deserted(&self) -> bool;

    /// Returns once no caller waits for it any more.
    fn deserted(&self) -> impl Future<Output = ()> + Send;
}

/// Who a slot is for: what is remembered of a seeker that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// A login that the proxy makes.
    Principal(Principal),
    /// A login to forward, by a hash of what it says.
    Forwarded(u64),
}
