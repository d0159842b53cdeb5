//! Sessions: `POST {root}/_session` with name and password, answered with a cookie `AuthSession`.
//!
//! CouchDB checks a cookie with one hash and a password with thousands, so a session spares the peer's processor. The root
//! is the directory of the database, which also finds a CouchDB below another server's path.

use std::time::Duration;

use reqwest::header::{COOKIE, HeaderMap, SET_COOKIE, WWW_AUTHENTICATE};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::access_token::{AccessToken, header};
use super::login_client::LoginClient;
use crate::peer::remote::exchange::Failed;
use crate::peer::remote::judgement::Meaning;

/// How long a session is taken to last if the peer doesn't say: CouchDB's own default.
const LIFETIME: Duration = Duration::from_secs(600);

/// Who logs in where.
#[derive(Debug)]
pub(super) struct Login {
    url: Url,
    user: String,
    password: SecretString,
}

impl Login {
    /// `root` ends in `/`.
    pub(super) fn new(root: &Url, user: &str, password: &SecretString) -> Self {
        let mut url = root.clone();
        url.set_path(&format!("{}_session", root.path()));
        Self { url, user: user.to_owned(), password: password.clone() }
    }

    /// Where.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Logs in; `None` if there is no session to be had: the password itself is sent then, and the peer's answer to
    /// that counts.
    ///
    /// # Errors
    /// [`crate::peer::PeerError::WrongCredentials`] in the peer's own words: the password, or that the account is locked.
    pub(super) async fn log_in(&self, client: &LoginClient<'_>) -> Result<Option<AccessToken>, Failed> {
        let form = [("name", self.user.as_str()), ("password", self.password.expose_secret())];
        let reply = client.post(client.own, &self.url, &form, None).await?;
        if reply.meaning() == Meaning::NotAllowed && !reply.headers.contains_key(WWW_AUTHENTICATE) {
            return Err(client.refused(reply.said().map(|why| why.reason)));
        }
        let token = reply.is_success().then(|| cookie(&reply.headers)).flatten();
        tracing::debug!(database = client.database, status = reply.status, session = token.is_some(), "logged in");
        Ok(token)
    }
}

fn cookie(headers: &HeaderMap) -> Option<AccessToken> {
    let cookies = headers.get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    cookies.filter_map(session).next()
}

/// Reads one `Set-Cookie`.
fn session(cookie: &str) -> Option<AccessToken> {
    let mut parts = cookie.split(';').map(str::trim);
    let pair = parts.next()?;
    pair.strip_prefix("AuthSession=").filter(|value| !value.is_empty())?;
    let age = |part: &str| {
        let (name, seconds) = part.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| seconds.trim().parse().ok()).flatten()
    };
    let lifetime = parts.find_map(age).map_or(LIFETIME, Duration::from_secs);
    Some(AccessToken::new(COOKIE, header(pair)?, lifetime))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn the_login_is_right_below_the_root() {
        let at = |url: &str| Login::new(&Url::parse(url).unwrap(), "u", &"p".into()).url.to_string();
        assert_eq!(at("http://h:5984/"), "http://h:5984/_session");
        assert_eq!(at("http://h/couch/"), "http://h/couch/_session");
    }

    #[test]
    fn a_session_is_renewed_before_it_ends() {
        let left = |cookie: &str| session(cookie).unwrap().renew_at - Instant::now();
        let within =
            |left: Duration, seconds: u64| left <= Duration::from_secs(seconds) && left.as_secs() + 2 > seconds;
        assert!(within(left("AuthSession=abc; Version=1; Path=/; Max-Age=100; HttpOnly"), 90));
        assert!(within(left("AuthSession=abc; Path=/"), 540));
        assert!(within(left("AuthSession=abc; Max-Age=18446744073709551615"), 24 * 60 * 60 * 9 / 10));
        assert!(session("AuthSession=; Path=/").is_none() && session("Other=abc").is_none());
    }
}
