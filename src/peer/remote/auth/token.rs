//! Bearer tokens that are fetched: OAuth 2 client credentials (RFC 6749 4.4) and IBM Cloud's IAM.
//!
//! A form is posted to the token URL; the answer holds `access_token` and, in seconds, `expires_in`.

use std::fmt;
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{Desk, Pass, basic_header, header};
use crate::peer::remote::call::Failed;
use crate::peer::remote::retry::Trouble;

/// How long a token is taken to last where nobody says.
const LIFETIME: Duration = Duration::from_secs(300);
/// A longer life than this is renewed early, which does no harm.
const MAX_LIFETIME_SECONDS: u64 = 24 * 3600;

/// What a token is given for, and where.
#[derive(Clone)]
pub struct Grant {
    /// `None`: the server's setting for the kind.
    url: Option<Url>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Iam { api_key: SecretString },
    ClientCredentials { id: String, secret: SecretString, scope: Option<String> },
}

/// `auth.iam` of an endpoint.
#[derive(Deserialize)]
pub(super) struct Iam {
    api_key: SecretString,
    token_url: Option<String>,
}

/// `auth.oauth2` of an endpoint.
#[derive(Deserialize)]
pub(super) struct OAuth2 {
    token_url: String,
    client_id: String,
    client_secret: SecretString,
    scope: Option<String>,
}

impl Grant {
    pub(super) fn iam(fields: Iam) -> Result<Self, String> {
        let url = fields.token_url.map(|url| token_url("iam", &url)).transpose()?;
        Ok(Self { url, kind: Kind::Iam { api_key: fields.api_key } })
    }

    pub(super) fn oauth2(fields: OAuth2) -> Result<Self, String> {
        let url = Some(token_url("oauth2", &fields.token_url)?);
        let (id, secret, scope) = (fields.client_id, fields.client_secret, fields.scope);
        Ok(Self { url, kind: Kind::ClientCredentials { id, secret, scope } })
    }

    /// The same, at this URL where it names none.
    pub(super) fn or_at(&self, url: &Url) -> Self {
        Self { url: self.url.clone().or_else(|| Some(url.clone())), kind: self.kind.clone() }
    }

    /// Fetches a token.
    pub(super) async fn pass(&self, desk: &Desk<'_>) -> Result<Pass, Failed> {
        #[derive(Deserialize)]
        struct Token {
            access_token: SecretString,
            expires_in: Option<u64>,
        }
        let no_url = || desk.failed(Trouble::Unsendable, "there is no token URL".into());
        let url = self.url.as_ref().ok_or_else(no_url)?;
        let (mut form, basic) = match &self.kind {
            Kind::Iam { api_key } => {
                let grant = ("grant_type", "urn:ibm:params:oauth:grant-type:apikey");
                (vec![grant, ("apikey", api_key.expose_secret()), ("response_type", "cloud_iam")], None)
            }
            Kind::ClientCredentials { id, secret, .. } => {
                // RFC 6749 2.3.1: both are form-encoded before they become Basic credentials.
                let [id, secret] = [id.as_str(), secret.expose_secret()]
                    .map(|text| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
                (vec![("grant_type", "client_credentials")], basic_header(&id, &secret))
            }
        };
        if let Kind::ClientCredentials { scope: Some(scope), .. } = &self.kind {
            form.push(("scope", scope));
        }
        let reply = desk.post(desk.elsewhere, url, &form, basic).await?;
        if !reply.is_success() {
            let error = reply.why().error;
            let at = super::shown(url);
            tracing::warn!(database = desk.database, token.url = %at, status = reply.status, error, "no token was given");
            return Err(desk.unauthorized());
        }
        let no_token = || desk.failed(Trouble::Unsendable, format!("{} gave no usable token", super::shown(url)));
        // The answer's own words stay out of the error: they may hold the token.
        let token: Token = serde_json::from_slice(&reply.body).map_err(|_| no_token())?;
        let value = header(&format!("Bearer {}", token.access_token.expose_secret())).ok_or_else(no_token)?;
        let seconds = token.expires_in.map(|seconds| seconds.min(MAX_LIFETIME_SECONDS));
        Ok(Pass::new(AUTHORIZATION, value, seconds.map_or(LIFETIME, Duration::from_secs)))
    }
}

fn token_url(kind: &str, text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
    url.ok_or_else(|| format!(".{kind}.token_url` must be an http or https URL without credentials"))
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Iam { .. } => "iam",
            Kind::ClientCredentials { .. } => "oauth2",
        };
        f.debug_struct("Grant")
            .field("kind", &kind)
            .field("url", &self.url.as_ref().map(|url| super::shown(url).to_string()))
            .finish()
    }
}
