//! Why a PostgreSQL store is not used: what will not change by itself, and what to do about it. What may
//! pass, such as a server that is away or a password that was replaced, refuses nothing.

use std::io;

use super::address::Address;
use super::outbox;
use super::schema;
use super::server_checks::Unfit;
use super::tls::UntrustedCa;
use crate::store::Error;

/// What stands in the way of a store.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Refusal {
    /// `ca_file` is no list of certificates.
    #[error(transparent)]
    CaFile(#[from] UntrustedCa),
    /// The server would lose what it acknowledges, or is too old.
    #[error("[store] url {address}: {why}")]
    Unfit {
        /// Where the server is.
        address: Address,
        /// Why.
        why: Unfit,
    },
    /// The tables are another version's.
    #[error("[store] url {address}: {why}")]
    Tables {
        /// Where they are.
        address: Address,
        /// Why.
        why: schema::Unusable,
    },
    /// There are no tables, and none are to be made.
    #[error(
        "there is no store in {0}, and `[store] create` is false: check the url, or set `create = true` \
         to start with an empty one, which costs every user a login"
    )]
    Absent(Address),
    /// The outbox cannot be opened.
    #[error(transparent)]
    Outbox(#[from] outbox::Refusal),
    /// A call failed.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The machine gives no thread.
    #[error("the store's thread cannot be started: {0}")]
    Thread(#[from] io::Error),
}

impl Refusal {
    pub(super) fn of_tables(address: Address, why: schema::Unusable) -> Refusal {
        match why {
            schema::Unusable::Failed(error) => Refusal::Failed(error),
            why => Refusal::Tables { address, why },
        }
    }
}
