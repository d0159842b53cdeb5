//! Options in the file's `[auth]`: sessions, tokens, and a proxy's word.
//!
//! In the file they may have CouchDB's names too, where those are shorter: `timeout`, `secret`, `iterations`.

use std::num::NonZeroU32;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::values::{self, Span};
use super::{ConfigError, lay_over};
use crate::config::auth::{Auth, JwtKey, RequiredClaims};

/// Options in the file's `[auth]`.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Logins, [auth] in the file", mut_args(super::sections::of_section))]
pub struct AuthOptions {
    /// From a login until its cookie expires; renewed while it is used [default: 10m]
    #[arg(long, value_name = "TIME")]
    #[serde(alias = "timeout")]
    pub session_timeout: Option<Span>,
    /// What cookies and a proxy's tokens are signed with [default: made once and kept]
    #[arg(long, value_name = "TEXT")]
    #[serde(alias = "secret", deserialize_with = "values::maybe_secret")]
    pub session_secret: Option<SecretString>,
    /// Rounds of a new password's hash [default: 600000]
    #[arg(long, value_name = "N")]
    #[serde(alias = "iterations")]
    pub password_iterations: Option<NonZeroU32>,
    /// Whether browsers keep the cookie when they are closed [default: true]
    #[arg(long, value_name = "BOOL")]
    pub allow_persistent_cookies: Option<bool>,
    /// The cookie's Domain [default: none]
    #[arg(long, value_name = "DOMAIN")]
    pub cookie_domain: Option<String>,
    /// The cookie's SameSite: none, lax or strict [default: not sent]
    #[arg(long, value_name = "WHEN")]
    pub same_site: Option<String>,
    /// Answer nothing to anonymous callers but POST /_session [default: false]
    #[arg(long, value_name = "BOOL")]
    pub require_valid_user: Option<bool>,
    /// The same, but answer /_up [default: false]
    #[arg(long, value_name = "BOOL")]
    pub require_valid_user_except_for_up: Option<bool>,
    /// A key of JSON web tokens; may be repeated: hmac:KID=BASE64, rsa:KID=PEM or ec:KID=PEM
    ///
    /// KID is _default for tokens that name no key. A PEM's line breaks are written \n. Whoever has a token of such a key is
    /// whom it says he is, an admin too.
    #[arg(long, value_name = "KIND:KID=KEY", value_delimiter = '\n')]
    #[serde(deserialize_with = "values::secrets")]
    pub jwt_key: Vec<SecretString>,
    /// Claims that a token must have, as CouchDB writes them: exp,{iss, "ISSUER"} [default: exp]
    #[arg(long, value_name = "CLAIMS")]
    #[serde(alias = "required_claims")]
    pub jwt_required_claims: Option<String>,
    /// Where a token says its user's roles [default: _couchdb.roles]
    #[arg(long, value_name = "NAME")]
    #[serde(alias = "roles_claim_name")]
    pub jwt_roles_claim_name: Option<String>,
    /// Believe a proxy that says who asks [default: false]
    #[arg(long, value_name = "BOOL")]
    pub proxy_auth: Option<bool>,
    /// Whether the proxy must sign that with the session secret [default: true]
    #[arg(long, value_name = "BOOL")]
    pub proxy_use_secret: Option<bool>,
    /// The proxy's header with the name [default: X-Auth-CouchDB-UserName]
    #[arg(long, value_name = "HEADER")]
    pub x_auth_username: Option<String>,
    /// The proxy's header with the roles [default: X-Auth-CouchDB-Roles]
    #[arg(long, value_name = "HEADER")]
    pub x_auth_roles: Option<String>,
    /// The proxy's header with the signature [default: X-Auth-CouchDB-Token]
    #[arg(long, value_name = "HEADER")]
    pub x_auth_token: Option<String>,
}

impl AuthOptions {
    pub(super) fn lay_over(self, to: &mut Auth) -> Result<(), ConfigError> {
        let wrong = |option| move |problem| ConfigError::Value { option, problem };
        lay_over! { self over to:
            allow_persistent_cookies, require_valid_user, require_valid_user_except_for_up;
            session_timeout, session_secret, password_iterations, cookie_domain, same_site, jwt_key,
            jwt_required_claims, jwt_roles_claim_name, proxy_auth, proxy_use_secret, x_auth_username, x_auth_roles,
            x_auth_token
        }
        if let Some(timeout) = session_timeout {
            to.timeout = timeout.into();
        }
        // An empty text is how a compose file says "none".
        to.secret = session_secret.filter(|secret| !secret.expose_secret().is_empty()).or(to.secret.take());
        to.iterations = password_iterations.unwrap_or(to.iterations);
        to.cookie_domain = cookie_domain.filter(|domain| !domain.is_empty()).or(to.cookie_domain.take());
        if let Some(when) = same_site.filter(|when| !when.is_empty()) {
            to.same_site = Some(when.parse().map_err(wrong("--same-site"))?);
        }
        let keys = jwt_key.iter().map(SecretString::expose_secret).filter(|key| !key.is_empty()).map(str::parse);
        let keys = keys.collect::<Result<Vec<JwtKey>, _>>().map_err(wrong("--jwt-key"))?;
        if !keys.is_empty() {
            to.jwt.keys = keys;
            to.handlers.jwt = true;
        }
        if let Some(claims) = jwt_required_claims {
            to.jwt.required_claims = claims.parse::<RequiredClaims>().map_err(wrong("--jwt-required-claims"))?;
        }
        to.handlers.proxy = proxy_auth.unwrap_or(to.handlers.proxy);
        let proxy = &mut to.proxy;
        proxy.use_secret = proxy_use_secret.unwrap_or(proxy.use_secret);
        for (name, to) in [
            (jwt_roles_claim_name, &mut to.jwt.roles_claim_name),
            (x_auth_username, &mut proxy.x_auth_username),
            (x_auth_roles, &mut proxy.x_auth_roles),
            (x_auth_token, &mut proxy.x_auth_token),
        ] {
            *to = name.unwrap_or(std::mem::take(to));
        }
        Ok(())
    }
}
