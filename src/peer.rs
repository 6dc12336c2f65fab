//! The other end of a caller's connection, as the operating system knows it; not what the caller says of
//! itself.

use std::fmt;
use std::net::IpAddr;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Of a TCP connection: the address, without its port.
    Address(IpAddr),
    /// Of a unix socket: the user that connected (`SO_PEERCRED`).
    Uid(u32),
}

impl Peer {
    /// Who connected from this address. An IPv4 address that is written as an IPv6 one is the same
    /// peer.
    pub fn at(address: IpAddr) -> Peer {
        Peer::Address(address.to_canonical())
    }
}

/// For the log: `192.0.2.7`, `uid 1000`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Address(address) => address.fmt(f),
            Peer::Uid(uid) => write!(f, "uid {uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_same_peer() {
        let at = |text: &str| Peer::at(text.parse().unwrap());
        assert_eq!(at("::ffff:192.0.2.7"), at("192.0.2.7"));
        assert_ne!(at("::1"), at("127.0.0.1"));
        assert_eq!(at("::ffff:192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(Peer::Uid(1000).to_string(), "uid 1000");
    }
}
