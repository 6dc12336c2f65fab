//! Addresses on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

/// An address of one proxy alone: nobody else is given the port that it gives up and takes again
/// when it restarts.
pub fn address_apart() -> Ipv4Addr {
    static TAKEN: AtomicU16 = AtomicU16::new(1);
    let [.., process] = std::process::id().to_be_bytes();
    let [high, low] = TAKEN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, process | 1, high, low)
}

/// An address on loopback.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
