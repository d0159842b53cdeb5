//! Declared secrets: an endpoint that names one instead of holding a password, `"auth": {"secret": "NAME"}`.
//!
//! A secret is given out for a caller whom it was declared for, and for a server that it was declared for; both are asked each
//! time. Whoever names it needn't know it, and must not get to know it: so it goes neither through a proxy nor past a certificate
//! of the replication's own choice. That no redirect takes it to another host is true of all credentials, and a secret goes to its
//! database alone, and to the server's `_session` (`peer/remote/send.rs`).
//!
//! On a CouchDB everybody who may write a design document somewhere has URLs that run his code, and could read there what is sent.
//! So the server is declared with its path, and nothing but a database's name may follow it. For the same reason what a peer says
//! with 401 or 403 isn't shown ([`Endpoint::names_secret`]).
//!
//! From then on the endpoint is as if it had held the secret as `auth.basic` or `auth.bearer`, also where ids of replications are
//! made: whoever moves a password out of a document keeps the checkpoints.

use percent_encoding::percent_decode_str;
use url::Url;

use super::auth::Auth;
use super::{Credentials, Endpoint, RemoteEndpoint};
use crate::access::Caller;
use crate::config::secrets::{DeclaredSecret, DeclaredSecrets, SecretValue};

/// Why a secret isn't given out. Never with its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefused {
    /// It isn't declared, or not for this user: which of both he isn't told.
    #[error("there is no secret `{name}` that {} may use", user.as_deref().unwrap_or("nobody in particular"))]
    NotForUser {
        /// The secret's name.
        name: String,
        /// The user's.
        user: Option<String>,
    },
    /// It isn't declared for this server.
    #[error("the secret `{name}` may not be sent to {origin}")]
    NotForServer {
        /// The secret's name.
        name: String,
        /// Scheme, host and port.
        origin: String,
    },
    /// It is the server, but what is named there may be anybody's code.
    #[error(
        "the secret `{name}` may not be sent to {url}: it isn't one of the secret's `origins` and a database's name after it"
    )]
    NotADatabase {
        /// The secret's name.
        name: String,
        /// The endpoint's URL, without credentials and query.
        url: String,
    },
    /// Somebody on the way could read it.
    #[error("the secret `{name}` may not be sent through a proxy, or trusting other certificates than the server does")]
    NotThisWay {
        /// The secret's name.
        name: String,
    },
}

impl Endpoint {
    /// Whether it names a secret: what is sent there, its user needn't know.
    pub fn names_secret(&self) -> bool {
        matches!(self, Self::Remote(remote) if remote.secret.is_some())
    }

    /// The endpoint with the secret that it names, for a caller.
    pub fn with_secret(&self, declared: &DeclaredSecrets, caller: &Caller) -> Result<Self, SecretRefused> {
        Ok(match self {
            Self::Local(name) => Self::Local(name.clone()),
            Self::Remote(remote) => Self::Remote(Box::new(remote.with_secret(declared, caller)?)),
        })
    }
}

impl RemoteEndpoint {
    /// The same of a database over HTTP.
    pub fn with_secret(&self, declared: &DeclaredSecrets, caller: &Caller) -> Result<Self, SecretRefused> {
        let mut endpoint = self.clone();
        let Some(name) = &self.secret else { return Ok(endpoint) };
        let name = || name.to_string();
        let secret = declared.get(&name()).filter(|secret| may_use(secret, caller));
        let secret = secret.ok_or_else(|| SecretRefused::NotForUser { name: name(), user: caller.name.clone() })?;
        let origin = self.url.origin();
        let mut servers = secret.origins.iter().filter(|server| server.origin() == origin).peekable();
        if servers.peek().is_none() {
            return Err(SecretRefused::NotForServer { name: name(), origin: origin.ascii_serialization() });
        }
        if !servers.any(|server| is_database(&self.url, server)) {
            return Err(SecretRefused::NotADatabase { name: name(), url: self.name() });
        }
        if self.is_read_on_the_way() {
            return Err(SecretRefused::NotThisWay { name: name() });
        }
        (endpoint.credentials, endpoint.auth) = match &secret.value {
            SecretValue::Password { username, password } => {
                let (name, password) = (username.clone(), password.clone());
                (Some(Credentials { written_name: name.clone(), name, password }), None)
            }
            SecretValue::Token(token) => (None, Some(Auth::Bearer(token.clone()))),
        };
        Ok(endpoint)
    }

    /// Whether the replication says that somebody else than the server may read what is sent there.
    fn is_read_on_the_way(&self) -> bool {
        let tls = &self.connection.tls;
        let trusts_others = tls.verify_ssl_certificates == Some(false) || tls.ssl_trusted_certificates_file.is_some();
        self.connection.proxy.is_some() || trusts_others
    }
}

/// Whether a URL is a server's and a database's name after it, and nothing else. Whatever stands between may decode the name once more,
/// so it can't be a path to something else either.
fn is_database(url: &Url, server: &Url) -> bool {
    let below = url.path().strip_prefix(server.path()).filter(|_| url.query().is_none());
    let segment = below.map(|below| below.strip_suffix('/').unwrap_or(below)).filter(|segment| !segment.contains('/'));
    let name = segment.and_then(|segment| percent_decode_str(segment).decode_utf8().ok());
    let is_name = |name: &str| !name.contains(['%', '\\', '?', '#', ';']) && !name.contains(char::is_control);
    let is_plain = |part: &str| !matches!(part, "" | "." | ".." | "_design");
    name.is_some_and(|name| is_name(&name) && name.split('/').all(is_plain))
}

/// Whether a caller may name a secret: by his name alone, whatever his roles are. A server without admins knows no names: whoever
/// calls may name all that somebody may.
fn may_use(secret: &DeclaredSecret, caller: &Caller) -> bool {
    match &caller.name {
        Some(name) => secret.users.contains(name),
        None => caller.is_server_admin() && !secret.users.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::secrets::server_url;

    /// Password and token, for ann, at one server; and one for nobody.
    fn declared() -> DeclaredSecrets {
        let password = SecretValue::Password { username: "reader".into(), password: "s3cret".into() };
        let token = SecretValue::Token("s3cret".into());
        let secret = |value: &SecretValue, users: &[&str]| DeclaredSecret {
            value: value.clone(),
            origins: vec![server_url("https://h").unwrap(), server_url("https://g/couch").unwrap()],
            users: users.iter().map(|name| (*name).to_owned()).collect(),
        };
        let secrets = [
            ("pw", secret(&password, &["ann", "root"])),
            ("token", secret(&token, &["ann"])),
            ("off", secret(&token, &[])),
        ];
        secrets.into_iter().map(|(name, secret)| (name.to_owned(), secret)).collect()
    }

    fn with(caller: &Caller, mut fields: Value) -> Result<RemoteEndpoint, SecretRefused> {
        if fields["url"].is_null() {
            fields["url"] = "https://h/d".into();
        }
        let body = json!({ "source": fields, "target": "http://g/d", "source_proxy": fields["proxy"] });
        let (source, _) = Endpoint::both(body.as_object().unwrap()).unwrap();
        assert!(source.names_secret());
        match source.with_secret(&declared(), caller)? {
            Endpoint::Remote(remote) => Ok(*remote),
            Endpoint::Local(name) => panic!("{name} is local"),
        }
    }

    fn user(name: &str) -> Caller {
        Caller { name: Some(name.into()), ..Caller::default() }
    }

    #[test]
    fn a_secret_takes_the_place_of_all_other_credentials() {
        let endpoint = json!({"url": "https://bob:1@h:443/d", "auth": {"secret": "pw"}, "headers": {"authorization": "Basic Yzoz"}});
        let found = with(&user("ann"), endpoint).unwrap();
        let credentials = found.credentials.unwrap();
        assert_eq!((credentials.name.as_str(), credentials.written_name.as_str()), ("reader", "reader"));
        assert_eq!(credentials.password.expose_secret(), "s3cret");
        assert!(found.auth.is_none() && found.headers.is_empty());
        let found = with(&user("ann"), json!({"url": "https://bob:1@h/d", "auth": {"secret": "token"}})).unwrap();
        assert!(matches!(found.auth, Some(Auth::Bearer(token)) if token.expose_secret() == "s3cret"));
        assert!(found.credentials.is_none());
    }

    #[test]
    fn who_may_use_it_says_the_list_of_names_and_no_role() {
        let admin = |name: Option<&str>| Caller { name: name.map(Into::into), ..Caller::server_admin() };
        let may = |caller: &Caller, name: &str| with(caller, json!({ "auth": { "secret": name } })).map(drop);
        assert_eq!(may(&user("ann"), "pw"), Ok(()));
        assert_eq!(may(&admin(Some("root")), "pw"), Ok(()));
        assert_eq!(may(&admin(None), "pw"), Ok(()), "there are no admins");
        for (caller, name) in [
            (user("bob"), "pw"),
            (admin(Some("bob")), "pw"),
            (admin(Some("root")), "token"),
            (user("ann"), "off"),
            (admin(None), "off"),
            (user("ann"), "unknown"),
            (Caller::default(), "pw"),
        ] {
            let refused = SecretRefused::NotForUser { name: name.into(), user: caller.name.clone() };
            assert_eq!(may(&caller, name), Err(refused));
        }
        let words = |caller: &Caller, name: &str| may(caller, name).unwrap_err().to_string();
        assert_eq!(words(&user("bob"), "pw"), "there is no secret `pw` that bob may use");
        assert_eq!(words(&Caller::default(), "pw"), "there is no secret `pw` that nobody in particular may use");
    }

    #[test]
    fn it_is_for_one_scheme_host_and_port() {
        for url in ["https://h:5984/d", "http://h/d", "https://f/d", "https://h.g/d", "https://h@f/d"] {
            let refused = with(&user("ann"), json!({ "url": url, "auth": { "secret": "pw" } })).unwrap_err();
            assert!(matches!(&refused, SecretRefused::NotForServer { .. }), "{url}");
        }
        let refused = with(&user("ann"), json!({ "url": "http://h:81/d", "auth": { "secret": "pw" } })).unwrap_err();
        assert_eq!(refused.to_string(), "the secret `pw` may not be sent to http://h:81");
        // Whom it isn't for learns nothing of its servers.
        let refused = with(&user("bob"), json!({ "url": "https://f/d", "auth": { "secret": "pw" } })).unwrap_err();
        assert!(matches!(refused, SecretRefused::NotForUser { .. }));
    }

    /// An update function at such a URL was sent name and password, by whoever could write it but didn't know them.
    #[test]
    fn it_is_sent_to_a_database_alone_and_not_to_what_is_in_one() {
        let found = |url: &str| with(&user("ann"), json!({ "url": url, "auth": { "secret": "pw" } }));
        for url in
            ["https://h/d", "https://h/d/", "https://h/a%2Fb", "https://h/%64", "https://g/couch/d", "https://h/_users"]
        {
            let root = found(url).unwrap().root();
            assert_eq!(root.as_str(), if url.contains("couch") { "https://g/couch/" } else { "https://h/" }, "{url}");
        }
        for url in [
            "https://h",
            "https://h//",
            "https://h/anns/_design/d/_update/x",
            "https://h/d//",
            "https://h/d?x",
            "https://h/d?",
            "https://h/d/../e/f",
            "https://h/..%2Fd",
            "https://h/a%2F%2e%2E%2Fd",
            "https://h/a%2f.%2fd",
            "https://h/a%2F%2Fd",
            "https://h/%252e%252e%252fd",
            "https://h/anns%2F_design%2Fd%2F_update%2Fx",
            "https://h/d%5C..%5Ce",
            "https://h/d%3Fx",
            "https://h/%FF",
            "https://g/d",
            "https://g/couch",
            "https://g/couch/../d",
            "https://g/couch/%2e%2e/d",
            "https://g/couches/d",
            "https://g/couch/a/d",
        ] {
            assert!(matches!(found(url), Err(SecretRefused::NotADatabase { .. })), "{url}");
        }
        let words = "the secret `pw` may not be sent to https://h/d/e/: it isn't one of the secret's `origins` and a database's name after it";
        assert_eq!(found("https://h/d/e").unwrap_err().to_string(), words);
    }

    #[test]
    fn nobody_on_the_way_may_read_it() {
        for (name, value) in [
            ("proxy", json!("http://p:3128")),
            ("tls", json!({ "verify_ssl_certificates": false })),
            ("tls", json!({ "ssl_trusted_certificates_file": "mine.pem" })),
        ] {
            let refused = with(&user("ann"), json!({ "auth": { "secret": "pw" }, name: value })).unwrap_err();
            assert_eq!(refused, SecretRefused::NotThisWay { name: "pw".into() }, "{value}");
        }
        let shown = json!({ "auth": { "secret": "pw" }, "tls": { "cert_file": "mine.pem" } });
        with(&user("ann"), shown).unwrap();
    }
}
