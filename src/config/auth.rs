//! How people prove who they are: sessions, JSON web tokens, and a proxy's word.
//!
//! Under the names of CouchDB's `[chttpd_auth]`, `[jwt_auth]` and `[jwt_keys]` where it has them.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

/// Settings of sessions, tokens and proxies.
#[derive(Debug, Clone)]
pub struct Auth {
    /// From a cookie's making until it expires; it is renewed while it is used.
    pub timeout: Duration,
    /// Cookies and a proxy's tokens are signed with it; made once and kept in the data dir if absent.
    pub secret: Option<SecretString>,
    /// Rounds of a new password's hash.
    pub iterations: NonZeroU32,
    /// Whether a browser keeps the cookie when it is closed.
    pub allow_persistent_cookies: bool,
    /// The cookie's `Domain`.
    pub cookie_domain: Option<String>,
    /// The cookie's `SameSite`.
    pub same_site: Option<SameSite>,
    /// Whether nothing is answered to anonymous callers but `POST /_session`.
    pub require_valid_user: bool,
    /// The same, but `/_up` is.
    pub require_valid_user_except_for_up: bool,
    /// What is believed besides cookies and passwords.
    pub handlers: Handlers,
    /// What checks JSON web tokens.
    pub jwt: Jwt,
    /// How a proxy says who asks.
    pub proxy: Proxy,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            secret: None,
            iterations: NonZeroU32::new(600_000).expect("more than nothing"),
            allow_persistent_cookies: true,
            cookie_domain: None,
            same_site: None,
            require_valid_user: false,
            require_valid_user_except_for_up: false,
            handlers: Handlers::default(),
            jwt: Jwt::default(),
            proxy: Proxy::default(),
        }
    }
}

/// What is believed besides cookies and passwords.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handlers {
    /// JSON web tokens.
    pub jwt: bool,
    /// A proxy's word. Without this every header of it is ignored.
    pub proxy: bool,
}

/// The cookie's `SameSite`: whether a browser sends it with what other sites ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Always; browsers ask for TLS then.
    None,
    /// With a link that is followed.
    Lax,
    /// Never.
    Strict,
}

impl FromStr for SameSite {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "lax" => Ok(Self::Lax),
            "strict" => Ok(Self::Strict),
            _ => Err("must be none, lax or strict"),
        }
    }
}

impl fmt::Display for SameSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Lax => "lax",
            Self::Strict => "strict",
        })
    }
}

/// What checks JSON web tokens.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// `[jwt_keys]`.
    pub keys: Vec<JwtKey>,
    /// Claims that a token must have.
    pub required_claims: RequiredClaims,
    /// Where a token says its user's roles.
    pub roles_claim_name: String,
}

impl Default for Jwt {
    fn default() -> Self {
        let required_claims = RequiredClaims { exp: true, ..RequiredClaims::default() };
        Self { keys: Vec::new(), required_claims, roles_claim_name: "_couchdb.roles".into() }
    }
}

/// A key that tokens are signed with.
#[derive(Debug, Clone)]
pub struct JwtKey {
    /// What it is for, which no token can change.
    pub kind: JwtKeyKind,
    /// Its name in `[jwt_keys]`: `hmac:KID`.
    pub name: String,
    /// Base64 of a secret, or a public key as PEM, whose line breaks may be written `\n`.
    pub key: SecretString,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JwtKeyKind {
    /// HS256, HS384, HS512.
    Hmac,
    /// RS256, RS384, RS512.
    Rsa,
    /// ES256, ES384.
    Ec,
}

impl JwtKey {
    /// Reads a line of `[jwt_keys]`: `hmac:kid` and the key. The error never shows it.
    pub fn new(name: &str, key: &str) -> Result<Self, &'static str> {
        let (kind, _) = name.split_once(':').ok_or("must be named hmac:KID, rsa:KID or ec:KID")?;
        let kind = match kind {
            "hmac" => JwtKeyKind::Hmac,
            "rsa" => JwtKeyKind::Rsa,
            "ec" => JwtKeyKind::Ec,
            _ => return Err("must be of the kind hmac, rsa or ec"),
        };
        if kind != JwtKeyKind::Hmac && key.contains("PRIVATE KEY") {
            return Err("must be a public key");
        }
        Ok(Self { kind, name: name.to_owned(), key: key.into() })
    }

    /// The `kid` of tokens; `_default` for those without one.
    pub fn kid(&self) -> &str {
        self.name.split_once(':').map_or("", |(_, kid)| kid)
    }

    /// The key, if everybody may know it.
    pub fn public(&self) -> Option<&str> {
        (self.kind != JwtKeyKind::Hmac).then(|| self.key.expose_secret())
    }
}

impl FromStr for JwtKey {
    type Err = &'static str;

    /// Reads `KIND:KID=KEY`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, key) = text.split_once('=').ok_or("must be KIND:KID=KEY")?;
        Self::new(name.trim(), key.trim())
    }
}

/// Claims that a token must have. `exp` and `nbf` hold wherever they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequiredClaims {
    /// When it expires.
    pub exp: bool,
    /// From when on it counts.
    pub nbf: bool,
    /// When it was made.
    pub iat: bool,
    /// Its key's name, in the header.
    pub kid: bool,
    /// That it is a `JWT`, in the header.
    pub typ: bool,
    /// Who made it.
    pub iss: Option<String>,
}

impl FromStr for RequiredClaims {
    type Err = &'static str;

    /// Reads CouchDB's way of writing it: `exp,iat,{iss, "Somebody"}`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = r#"may have exp, nbf, iat, kid, typ and {iss, "ISSUER"}, parted by commas"#;
        let mut required = Self::default();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let after = if let Some(pair) = rest.strip_prefix('{') {
                let (pair, after) = pair.split_once('}').ok_or(FORM)?;
                let (name, value) = pair.split_once(',').ok_or(FORM)?;
                let value = value.trim().strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or(FORM)?;
                required.iss = (name.trim() == "iss" && !value.is_empty()).then(|| value.to_owned());
                required.iss.as_ref().ok_or(FORM)?;
                after
            } else {
                let (name, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                match name.trim() {
                    "exp" => required.exp = true,
                    "nbf" => required.nbf = true,
                    "iat" => required.iat = true,
                    "kid" => required.kid = true,
                    "typ" => required.typ = true,
                    _ => return Err(FORM),
                }
                after
            };
            rest = match after.trim_start() {
                "" => "",
                after => after.strip_prefix(',').ok_or(FORM)?.trim_start(),
            };
        }
        Ok(required)
    }
}

impl fmt::Display for RequiredClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exp, nbf, iat, kid, typ, iss } = self;
        let flags = [(exp, "exp"), (nbf, "nbf"), (iat, "iat"), (kid, "kid"), (typ, "typ")];
        let names = flags.into_iter().filter_map(|(is, name)| is.then_some(name.to_owned()));
        let issuer = iss.iter().map(|iss| format!("{{iss, \"{iss}\"}}"));
        f.write_str(&names.chain(issuer).collect::<Vec<_>>().join(", "))
    }
}

/// How a proxy says who asks.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Whether the proxy must show that it has the secret. Without it, whoever reaches the server is whom he likes.
    pub use_secret: bool,
    /// The header of the name.
    pub x_auth_username: String,
    /// The header of the roles.
    pub x_auth_roles: String,
    /// The header of the token.
    pub x_auth_token: String,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            use_secret: true,
            x_auth_username: "X-Auth-CouchDB-UserName".into(),
            x_auth_roles: "X-Auth-CouchDB-Roles".into(),
            x_auth_token: "X-Auth-CouchDB-Token".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_claims_are_read_as_couchdb_writes_them() {
        let exp = RequiredClaims { exp: true, ..RequiredClaims::default() };
        assert_eq!("exp".parse(), Ok(exp.clone()));
        let iss = Some("A, B".to_owned());
        assert_eq!(r#"exp, iat,{iss, "A, B"}"#.parse(), Ok(RequiredClaims { iat: true, iss, ..exp }));
        assert_eq!("".parse(), Ok(RequiredClaims::default()));
        for broken in ["exp iat", "iss", "{iss}", "{iss, x}", "{aud, \"x\"}", "{iss, \"x\"", "{iss, \"x\"}exp", "sub"] {
            assert!(broken.parse::<RequiredClaims>().is_err(), "{broken}");
        }
    }

    #[test]
    fn a_key_says_what_it_is_for_and_is_never_shown() {
        let key: JwtKey = "hmac:_default=aGVsbG8=".parse().unwrap();
        assert_eq!((key.kind, key.kid()), (JwtKeyKind::Hmac, "_default"));
        assert!(!format!("{key:?}").contains("aGVs"));
        for broken in ["aGVsbG8=", "hmac=aGVsbG8=", "oct:a=aGVsbG8="] {
            assert!(!broken.parse::<JwtKey>().unwrap_err().contains("aGVs"));
        }
    }
}
