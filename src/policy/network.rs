//! Networks, and the addresses that are reached by an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network as CIDR writes it. What is mapped into IPv6 is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    pub(super) const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    pub(super) const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix }
    }

    /// The network of this address and so many bits, all of them by default; `None` if it hasn't as many.
    pub(super) fn new(address: IpAddr, prefix: Option<u8>) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        match address.to_canonical() {
            canonical if canonical.is_ipv4() && bits == 128 => {
                Some(Self { address: canonical, prefix: prefix.checked_sub(96).filter(|prefix| *prefix <= 32)? })
            }
            _ => (prefix <= bits).then_some(Self { address, prefix }),
        }
    }

    /// Whether an address is in it. No IPv6 network has IPv4 addresses.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let prefix = u32::from(self.prefix);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Whether it is a part of another one.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.prefix >= other.prefix && other.contains(self.address)
    }
}

/// What only this machine, or its network, reaches.
const INSIDE: [Network; 11] = [
    Network::v4([0, 0, 0, 0], 8),
    Network::v4([10, 0, 0, 0], 8),
    // Shared by a provider's customers, and by overlay networks (RFC 6598).
    Network::v4([100, 64, 0, 0], 10),
    Network::v4([127, 0, 0, 0], 8),
    Network::v4([169, 254, 0, 0], 16),
    Network::v4([172, 16, 0, 0], 12),
    Network::v4([192, 168, 0, 0], 16),
    Network::v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    Network::v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    Network::v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    Network::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
];

/// Whether a connection to an address may reach what is only for this machine, or for its network.
pub fn is_inside(address: IpAddr) -> bool {
    reached(address).any(|address| INSIDE.iter().any(|network| network.contains(address)))
}

/// The addresses that a connection to an address may reach: itself, the IPv4 address that is within an IPv6 one, and loopback for
/// those that stand for the machine itself.
pub(super) fn reached(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let canonical = address.to_canonical();
    let inner = match canonical {
        IpAddr::V6(address) => within(address).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    let loopback = |address: IpAddr| match address {
        IpAddr::V4(address) if address.is_unspecified() => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(address) if address.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
        _ => None,
    };
    let all = [Some(canonical), inner, loopback(canonical), inner.and_then(loopback)];
    all.into_iter().flatten()
}

/// The IPv4 address that a gateway, or an old system, takes out of an IPv6 one.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let joined = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        // The old compatible form; `::` and `::1` are IPv6's own.
        [0, 0, 0, 0, 0, 0] => (g != 0 || h > 1).then(|| joined(g, h)),
        // IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0] => Some(joined(g, h)),
        // NAT64, with the well-known prefix and those of a network's own (RFC 6052, RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => Some(joined(g, h)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(joined(high, low)),
        _ => None,
    }
}
