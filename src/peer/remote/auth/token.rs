//! Bearer tokens that are fetched: OAuth 2 client credentials (RFC 6749 4.4) and IBM Cloud's IAM.
//!
//! A form is posted to the token URL; the answer holds `access_token` and, in seconds, `expires_in`.

use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::access_token::{AccessToken, basic_header, header};
use super::login_client::LoginClient;
use crate::endpoint::auth::{Grant, GrantKind, without_query};
use crate::peer::remote::exchange::Failed;
use crate::peer::remote::retry::Trouble;

/// How long a token is taken to last if nobody says.
const LIFETIME: Duration = Duration::from_secs(300);
/// A longer life than this is renewed early, which does no harm.
const MAX_LIFETIME_SECONDS: u64 = 24 * 3600;

/// Fetches a token.
pub(super) async fn fetch(grant: &Grant, client: &LoginClient<'_>) -> Result<AccessToken, Failed> {
    #[derive(Deserialize)]
    struct Token {
        access_token: SecretString,
        expires_in: Option<u64>,
    }
    let no_url = || client.failed(Trouble::Unsendable, "there is no token URL".into());
    let url = grant.url.as_ref().ok_or_else(no_url)?;
    let (mut form, basic) = match &grant.kind {
        GrantKind::Iam { api_key } => {
            let grant = ("grant_type", "urn:ibm:params:oauth:grant-type:apikey");
            (vec![grant, ("apikey", api_key.expose_secret()), ("response_type", "cloud_iam")], None)
        }
        GrantKind::ClientCredentials { id, secret, .. } => {
            // RFC 6749 2.3.1: both are form-encoded before they become Basic credentials.
            let [id, secret] = [id.as_str(), secret.expose_secret()]
                .map(|text| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>());
            (vec![("grant_type", "client_credentials")], basic_header(&id, &secret))
        }
    };
    if let GrantKind::ClientCredentials { scope: Some(scope), .. } = &grant.kind {
        form.push(("scope", scope));
    }
    let reply = client.post(client.elsewhere, url, &form, basic).await?;
    if !reply.is_success() {
        let error = reply.why().error;
        let at = without_query(url);
        tracing::warn!(database = client.database, token.url = %at, status = reply.status, error, "no token was given");
        return Err(client.refused(Some(format!("{at} gave no token"))));
    }
    let no_token = || client.failed(Trouble::Unsendable, format!("{} gave no usable token", without_query(url)));
    // The answer's own words stay out of the error: they may hold the token.
    let token: Token = serde_json::from_slice(&reply.body).map_err(|_| no_token())?;
    let value = header(&format!("Bearer {}", token.access_token.expose_secret())).ok_or_else(no_token)?;
    let seconds = token.expires_in.map(|seconds| seconds.min(MAX_LIFETIME_SECONDS));
    Ok(AccessToken::new(AUTHORIZATION, value, seconds.map_or(LIFETIME, Duration::from_secs)))
}
