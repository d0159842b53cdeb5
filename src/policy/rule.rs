//! One rule: how it is written, and what it fits.
//!
//! `[SCHEME://]PLACE[:PORT[-PORT]]`. A place is a name, in which `*` stands for any part (`db.example`, `*.example`), an address or a
//! network (`10.0.0.0/8`, `[fd00::]/8`, `fd00::/8`), or `*`; it may be left out before a port. A name is that of the URL, and a network
//! is asked of addresses, whether they stand in the URL or a name stands for them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserialize;
use url::Host;

use super::destination::Destination;
use super::network::{Network, reached};

/// A rule of a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rule {
    /// As it was written.
    text: String,
    scheme: Option<String>,
    place: Place,
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Any,
    /// In lower case, without a dot at the end.
    Name(String),
    Network(Network),
}

/// A text that is no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// It is none at all.
    #[error(
        "must be rules such as db.example, *.example:5984, 10.0.0.0/8, [fd00::]/8, :22, https://*, separated by commas"
    )]
    Form,
    /// Connections are made for others only.
    #[error("has a rule with another scheme than http, https and socks5")]
    Scheme,
    /// A pattern is of names, and no name looks so.
    #[error("has a pattern of addresses: a network is written as 10.0.0.0/8")]
    Pattern,
    /// It has more bits than its addresses.
    #[error("has a network that is none")]
    Network,
}

/// What is known of the address that will be connected to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Address {
    /// It is this one.
    Known(IpAddr),
    /// It will be known.
    Unknown,
    /// It won't.
    Hidden,
}

/// Whether a rule fits a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    /// That depends on the address, which isn't known yet.
    Depends,
}

impl Address {
    /// The same, IPv4 as such.
    pub(super) fn canonical(self) -> Self {
        match self {
            Self::Known(address) => Self::Known(address.to_canonical()),
            other => other,
        }
    }
}

impl Rule {
    /// Whether it fits a connection.
    pub(super) fn fit(&self, to: &Destination, address: Address) -> Fit {
        let is_scheme = self.scheme.as_ref().is_none_or(|scheme| *scheme == to.scheme);
        let is_port = self.ports.as_ref().is_none_or(|ports| ports.contains(&to.port));
        let fits = match (&self.place, address) {
            _ if !is_scheme || !is_port => false,
            (Place::Any, _) => true,
            (Place::Name(pattern), _) => to.name().is_some_and(|name| matches(pattern, name)),
            (Place::Network(network), Address::Known(address)) => network.contains(address),
            (Place::Network(_), Address::Unknown) => return Fit::Depends,
            (Place::Network(_), Address::Hidden) => false,
        };
        if fits { Fit::Yes } else { Fit::No }
    }

    /// Whether it fits whatever such a connection may reach.
    pub(super) fn fits_any(&self, to: &Destination, address: Address) -> bool {
        match address {
            Address::Known(address) => {
                reached(address).any(|address| self.fit(to, Address::Known(address)) == Fit::Yes)
            }
            other => self.fit(to, other) == Fit::Yes,
        }
    }

    /// Whether it is of a network that is a part of this one.
    pub(super) fn is_within(&self, network: &Network) -> bool {
        matches!(&self.place, Place::Network(own) if own.is_within(network))
    }

    /// Whether it is of this name, and not of a pattern.
    pub(super) fn is_of_name(&self, name: &str) -> bool {
        matches!(&self.place, Place::Name(own) if own == name)
    }

    /// Reads rules that are separated by commas or white space.
    pub fn list(text: &str) -> Result<Vec<Self>, BadRule> {
        let rules = text.split(|char: char| char == ',' || char.is_whitespace()).filter(|rule| !rule.is_empty());
        rules.map(str::parse).collect()
    }
}

/// Whether a name is as a pattern says.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(first) else { return false };
    // Whatever stands between two stars is best found as early as it can be.
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    let mut left = name;
    for part in parts {
        let Some(found) = left.find(part) else { return false };
        left = &left[found + part.len()..];
    }
    left.ends_with(last)
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        if scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https" | "socks5")) {
            return Err(BadRule::Scheme);
        }
        let (place, ports) = parts(rest)?;
        let ports = ports.map(|text| port_range(text).ok_or(BadRule::Form)).transpose()?;
        Ok(Self { text: text.to_owned(), scheme, place: Place::parse(place)?, ports })
    }
}

/// Place and ports.
fn parts(text: &str) -> Result<(&str, Option<&str>), BadRule> {
    let address = text.split('/').next().unwrap_or_default();
    if address.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    let bracket = text.rfind(']').unwrap_or(0);
    match text[bracket..].rfind(':').map(|colon| text.split_at(bracket + colon)) {
        Some((place, ports)) => Ok((place, Some(&ports[1..]))),
        None if text.is_empty() => Err(BadRule::Form),
        None => Ok((text, None)),
    }
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

impl Place {
    fn parse(text: &str) -> Result<Self, BadRule> {
        if text.is_empty() || text == "*" {
            return Ok(Self::Any);
        }
        let (host, prefix) = match text.split_once('/') {
            Some((host, prefix)) => (host, Some(prefix.parse().map_err(|_| BadRule::Form)?)),
            None => (text, None),
        };
        let address = host.parse::<Ipv6Addr>().map(Host::Ipv6).or_else(|_| Host::parse(host));
        let network = |address: IpAddr| Network::new(address, prefix).map(Self::Network).ok_or(BadRule::Network);
        match address.map_err(|_| BadRule::Form)? {
            Host::Ipv4(address) => network(address.into()),
            Host::Ipv6(address) => network(address.into()),
            Host::Domain(_) if prefix.is_some() => Err(BadRule::Form),
            Host::Domain(name) if name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'*')) => {
                Err(BadRule::Pattern)
            }
            Host::Domain(name) => Ok(Self::Name(name.strip_suffix('.').unwrap_or(&name).to_owned())),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = BadRule;

    fn try_from(text: String) -> Result<Self, BadRule> {
        text.trim().parse()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
