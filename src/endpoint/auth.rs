//! What an endpoint's `auth` object says: credentials other than a name and a password.
//!
//! They are read and checked here; that a token is fetched, and what is done when it ends, is the remote peer's part.
//! Nothing here prints a secret: `Debug` shows kinds and URLs without their queries.

use std::fmt;
use std::sync::Arc;

use reqwest::header::HeaderValue;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::oauth1::OAuth1;
use crate::beside::LastingSession;

/// What an endpoint's `auth` object names, `basic` and `secret` excepted; or what no request can name.
#[derive(Debug, Clone)]
pub enum Auth {
    /// `oauth`: OAuth 1.0a.
    OAuth1(OAuth1),
    /// `bearer`: a token as it is.
    Bearer(SecretString),
    /// `iam` or `oauth2`: a token that is fetched.
    Token(Grant),
    /// A session of the caller's own at the CouchDB beside which this server stands, which is renewed here.
    Session(Arc<LastingSession>),
}

/// What a token is given for, and where.
#[derive(Clone)]
pub struct Grant {
    /// `None`: the server's setting for the kind.
    pub url: Option<Url>,
    /// For what.
    pub kind: GrantKind,
}

/// What a token is given for.
#[derive(Clone)]
pub enum GrantKind {
    /// An API key of IBM Cloud.
    Iam {
        /// The key.
        api_key: SecretString,
    },
    /// OAuth 2 client credentials.
    ClientCredentials {
        /// The client's id.
        id: String,
        /// Its secret.
        secret: SecretString,
        /// What the token is to be good for.
        scope: Option<String>,
    },
}

/// `auth.iam` of an endpoint.
#[derive(Deserialize)]
struct Iam {
    api_key: SecretString,
    token_url: Option<String>,
}

/// `auth.oauth2` of an endpoint.
#[derive(Deserialize)]
struct OAuth2 {
    token_url: String,
    client_id: String,
    client_secret: SecretString,
    scope: Option<String>,
}

const KINDS: &str = "basic, secret, oauth, bearer, iam and oauth2";

impl Auth {
    /// Reads an `auth` object; `None` if it names `basic`, `secret`, or nothing.
    ///
    /// # Errors
    /// What is wrong, to be put after the name of the endpoint's field and `auth`, as in `` `source.auth ``.
    pub(super) fn parse(auth: &Value) -> Result<Option<Self>, String> {
        let Value::Object(auth) = auth else { return Err("` must be an object".into()) };
        let mut kinds = auth.iter().filter(|(_, value)| !value.is_null());
        let (Some((kind, value)), None) = (kinds.next(), kinds.next()) else {
            return if auth.values().all(Value::is_null) {
                Ok(None)
            } else {
                Err("` must have one member only".into())
            };
        };
        let auth = match kind.as_str() {
            "basic" | "secret" => return Ok(None),
            "oauth" => Self::OAuth1(OAuth1::new(fields(kind, value)?).map_err(|problem| format!(".{problem}"))?),
            "bearer" => {
                match value.as_str().filter(|token| !token.is_empty() && HeaderValue::from_str(token).is_ok()) {
                    Some(token) => Self::Bearer(token.into()),
                    None => return Err(".bearer` must be a token".into()),
                }
            }
            "iam" => Self::Token(Grant::iam(fields(kind, value)?)?),
            "oauth2" => Self::Token(Grant::oauth2(fields(kind, value)?)?),
            _ => return Err(format!(".{kind}` is not known: there are {KINDS}")),
        };
        Ok(Some(auth))
    }
}

/// Reads an object's members. A problem names the member, never its value.
fn fields<T: DeserializeOwned>(kind: &str, value: &Value) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|error| match error.to_string() {
        missing if missing.starts_with("missing field") => format!(".{kind}` has a {missing}"),
        _ => format!(".{kind}` must be an object of strings"),
    })
}

impl Grant {
    fn iam(fields: Iam) -> Result<Self, String> {
        let url = fields.token_url.map(|url| token_url("iam", &url)).transpose()?;
        Ok(Self { url, kind: GrantKind::Iam { api_key: fields.api_key } })
    }

    fn oauth2(fields: OAuth2) -> Result<Self, String> {
        let url = Some(token_url("oauth2", &fields.token_url)?);
        let (id, secret, scope) = (fields.client_id, fields.client_secret, fields.scope);
        Ok(Self { url, kind: GrantKind::ClientCredentials { id, secret, scope } })
    }

    /// The same, at this URL where it names none.
    pub fn or_at(&self, url: &Url) -> Self {
        Self { url: self.url.clone().or_else(|| Some(url.clone())), kind: self.kind.clone() }
    }
}

/// A URL without its query, which may hold secrets.
pub fn without_query(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_query(None);
    url
}

fn token_url(kind: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
    url.ok_or_else(|| format!(".{kind}.token_url` must be an http or https URL without credentials"))
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            GrantKind::Iam { .. } => "iam",
            GrantKind::ClientCredentials { .. } => "oauth2",
        };
        f.debug_struct("Grant")
            .field("kind", &kind)
            .field("url", &self.url.as_ref().map(|url| without_query(url).to_string()))
            .finish()
    }
}
