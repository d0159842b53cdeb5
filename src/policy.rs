//! Where replications may connect to: rules of the settings, and the verdict on a URL and on an address. Does no I/O.
//!
//! An operator's lists say which servers are allowed and which are denied. A [`Rule`] names a host, a pattern of names or a network,
//! and maybe a scheme and ports. The verdict on a connection:
//! 1. Whatever a rule of `deny` fits is forbidden.
//! 2. Link-local addresses and the clouds' metadata services are forbidden ([`BuiltIn`]), unless a rule of `allow` names that very
//!    address, or a network within them.
//! 3. If there are rules in `allow`, one of them must fit.
//!
//! Who isn't a server admin needs the same of `deny_users` and `allow_users` besides, so that these only narrow what he may reach.
//!
//! # What is promised, and how it could fail
//! Nothing is connected to that the rules forbid. The ways around such lists are known, and each has its answer:
//! - *Another spelling* (`http://2130706433`, `0x7f.1`, `017700000001`): a URL is parsed once, which makes an address of all of them.
//! - *An address within another one* (`[::ffff:127.0.0.1]`, NAT64, 6to4): a rule of `deny` is asked of each of them. So is what a
//!   system takes for its own: `0.0.0.0` and `[::]` reach what listens on `127.0.0.1` and `[::1]` ([`network::reached`]).
//! - *A name that stands for a forbidden address, now or at the second look*: rules are asked of the address that is connected to,
//!   when it has been looked up for this connection and not before ([`Policy::check_address`], `peer/remote/guard.rs`).
//! - *A redirect, a token's URL, a proxy*: whatever is sent anywhere passes the same check, each time.
//! - *A server outside that leads inside, by a name of its own that stands for an address there*: what follows its redirect is held to
//!   [`Policy::from_outside`] besides.
//! - *A proxy that looks names up itself*: what it connects to is seen by nobody here. It is itself held to the rules; of the server behind
//!   it the URL is. A network in `allow` never fits a name there; a network in `deny` can't be found out.
//!
//! What isn't known here: which addresses are this machine's own, beyond loopback. Whoever denies loopback to keep people from a service
//! that listens on all addresses must deny the machine's own addresses too.

mod destination;
mod network;
mod rule;

use std::net::IpAddr;
use std::sync::Arc;

pub use self::destination::Destination;
pub use self::network::is_inside;
use self::network::{Network, reached};
use self::rule::{Address, Fit};
pub use self::rule::{BadRule, Rule};

/// All rules of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointRules {
    /// If there are any, nothing else may be reached.
    pub allow: Vec<Rule>,
    /// What may not.
    pub deny: Vec<Rule>,
    /// As `allow`, for those who aren't server admins.
    pub allow_users: Vec<Rule>,
    /// As `deny`, for those who aren't server admins.
    pub deny_users: Vec<Rule>,
}

/// Where somebody may connect to. Cheap to clone; equal for those who may connect to the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Arc<EndpointRules>,
    /// Whether the rules for users count too.
    narrow: bool,
    /// What no rule is asked of.
    exempt: Option<Destination>,
    /// Whether a server outside says where to go.
    from_outside: bool,
}

/// A connection that isn't made, and the rule that forbids it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("replications may not connect to {to}: {why}")]
pub struct Forbidden {
    to: Destination,
    why: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    /// The list, and the rule as it was written.
    #[error("`{0}` has `{1}`")]
    Denied(&'static str, String),
    #[error("`{0}` is denied unless `allow` names it")]
    BuiltIn(&'static str),
    /// The list.
    #[error("`{0}` doesn't have it")]
    NotAllowed(&'static str),
    /// A server outside says that it is to be asked.
    #[error("it is inside this server's network, and a server outside has led there")]
    Inside,
    /// Whoever asks is no server admin.
    #[error("only server admins may name files of this server in `tls`")]
    NamesFiles,
}

impl Forbidden {
    /// With files of this server, for somebody who may not name any.
    pub fn with_files(to: Destination) -> Self {
        Self { to, why: Reason::NamesFiles }
    }
}

impl Policy {
    /// What a server admin, or somebody else, may connect to.
    pub fn new(rules: &Arc<EndpointRules>, is_admin: bool) -> Self {
        let same = rules.allow_users.is_empty() && rules.deny_users.is_empty();
        Self { rules: rules.clone(), narrow: !is_admin && !same, exempt: None, from_outside: false }
    }

    /// The same, and this server whatever the rules say.
    pub fn with_exempt(self, server: Destination) -> Self {
        Self { exempt: Some(server), ..self }
    }

    /// The same for where a server outside leads: not to addresses inside, whatever else the rules say.
    pub fn from_outside(&self) -> Self {
        Self { from_outside: true, ..self.clone() }
    }

    /// Whether it is that of users, and another one than that of admins.
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// Judges what is known before anything is looked up. A name that passes may still stand for an address that doesn't.
    pub fn check(&self, to: &Destination, proxy: Option<&Destination>) -> Result<(), Forbidden> {
        let mut looked_up = Address::Unknown;
        if let Some(proxy) = proxy {
            self.judge(proxy, Address::Unknown)?;
            // A SOCKS proxy is told an address.
            looked_up = if proxy.scheme == "socks5" { Address::Unknown } else { Address::Hidden };
        }
        self.judge(to, looked_up)
    }

    /// Judges an address that the destination's name stands for.
    pub fn check_address(&self, to: &Destination, address: IpAddr) -> Result<(), Forbidden> {
        self.judge(to, Address::Known(address))
    }

    fn judge(&self, to: &Destination, looked_up: Address) -> Result<(), Forbidden> {
        let address = to.address().map_or(looked_up, Address::Known);
        let rules = &*self.rules;
        let forbidden = |why| Forbidden { to: to.clone(), why };
        if self.from_outside && matches!(address, Address::Known(address) if is_inside(address)) {
            return Err(forbidden(Reason::Inside));
        }
        if self.exempt.as_ref() == Some(to) {
            return Ok(());
        }
        let mut lists = vec![("deny", &rules.deny, "allow", &rules.allow)];
        if self.narrow {
            lists.push(("deny_users", &rules.deny_users, "allow_users", &rules.allow_users));
        }
        for (name, deny, ..) in &lists {
            if let Some(rule) = deny.iter().find(|rule| rule.fits_any(to, address)) {
                return Err(forbidden(Reason::Denied(name, rule.to_string())));
            }
        }
        if let Some(built_in) = BUILT_IN.iter().find(|built_in| built_in.forbids(to, address, &rules.allow)) {
            return Err(forbidden(Reason::BuiltIn(built_in.name)));
        }
        for (.., name, allow) in &lists {
            if !allow.is_empty() && allow.iter().all(|rule| rule.fit(to, address.canonical()) == Fit::No) {
                return Err(forbidden(Reason::NotAllowed(name)));
            }
        }
        Ok(())
    }
}

/// What is forbidden unless it is allowed by name.
struct BuiltIn {
    name: &'static str,
    networks: &'static [Network],
    /// Names by which a proxy might look up the same.
    hosts: &'static [&'static str],
}

const BUILT_IN: [BuiltIn; 2] = [
    // Before the other: some of them are link-local.
    BuiltIn {
        name: "metadata",
        networks: &[
            // Amazon's, Google's, Azure's and most others'.
            Network::v4([169, 254, 169, 254], 32),
            // Amazon's for containers.
            Network::v4([169, 254, 170, 2], 32),
            Network::v4([169, 254, 170, 23], 32),
            // Scaleway's.
            Network::v4([169, 254, 42, 42], 32),
            // Alibaba's.
            Network::v4([100, 100, 100, 200], 32),
            // Oracle's first cloud.
            Network::v4([192, 0, 0, 192], 32),
            // Azure's, which gives certificates and settings of machines.
            Network::v4([168, 63, 129, 16], 32),
            // Amazon's: the same services over IPv6.
            Network::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 64),
            // Google's.
            Network::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
            // Scaleway's.
            Network::v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128),
        ],
        hosts: &["metadata.google.internal", "metadata.goog", "instance-data.ec2.internal", "metadata.tencentyun.com"],
    },
    BuiltIn {
        name: "link-local",
        networks: &[Network::v4([169, 254, 0, 0], 16), Network::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10)],
        hosts: &[],
    },
];

impl BuiltIn {
    fn forbids(&self, to: &Destination, address: Address, allow: &[Rule]) -> bool {
        // What a name stands for is judged all the same.
        if let Some(name) = to.name().filter(|name| self.hosts.contains(name))
            && !allow.iter().any(|rule| rule.is_of_name(name) && rule.fit(to, address) != Fit::No)
        {
            return true;
        }
        let Address::Known(address) = address else { return false };
        let within = |network: &&Network| reached(address).any(|address| network.contains(address));
        self.networks.iter().find(within).is_some_and(|network| {
            let canonical = Address::Known(address).canonical();
            !allow.iter().any(|rule| rule.is_within(network) && rule.fit(to, canonical) == Fit::Yes)
        })
    }
}

#[cfg(test)]
mod tests;
