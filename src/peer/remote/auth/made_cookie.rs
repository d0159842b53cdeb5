//! Cookies of callers' sessions at the CouchDB beside which this server stands, made here ([`crate::beside::LastingSession`]).

use futures::FutureExt as _;
use reqwest::header::COOKIE;
use secrecy::ExposeSecret;

use super::access_token::{AccessToken, header};
use super::login_client::LoginClient;
use crate::beside::{LastingSession, MadeCookie, RenewError};
use crate::peer::error::Blame;
use crate::peer::remote::exchange::Failed;
use crate::peer::remote::retry::Trouble;

/// Makes one.
///
/// # Errors
/// [`crate::peer::PeerError::WrongCredentials`] if the session is over.
pub(super) async fn make(session: &LastingSession, client: &LoginClient<'_>) -> Result<AccessToken, Failed> {
    // Boxed: rare, and else a part of every request's future.
    let MadeCookie { pair, lifetime } = session.renew().boxed().await.map_err(|error| match error {
        RenewError::Over(over) => client.refused(Some(over.to_string())),
        // CouchDB, or its admin, is in trouble, which says nothing of the caller.
        RenewError::Unanswered(error) => client.failed(Trouble::Answered(Blame::Passing), error.to_string()),
    })?;
    tracing::debug!(database = client.database, user = session.name(), "a session was renewed");
    let unsendable = || client.failed(Trouble::Unsendable, "a cookie doesn't fit into a header".into());
    Ok(AccessToken::new(COOKIE, header(pair.expose_secret()).ok_or_else(unsendable)?, lifetime))
}
