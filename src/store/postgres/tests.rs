//! The contract on real servers, and what only this engine can promise.

mod durability;
mod media;
mod races;
mod tables;

use self::media::{AfterFailOver, Direct, Pooled};
use super::*;
use crate::clock::Clock;
use crate::store::contract::{Medium, contract, record, run, user};

mod direct {
    use super::*;

    contract!(Direct);
}

mod through_a_pooler {
    use super::*;

    contract!(Pooled);
}

mod after_a_fail_over {
    use super::*;

    contract!(AfterFailOver);
}
