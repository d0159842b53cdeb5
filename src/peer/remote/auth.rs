//! How a peer is told who asks.
//!
//! A request carries, to its peer's own origin only: nothing; Basic credentials; a session's cookie, got for the Basic
//! credentials at `POST {root}/_session` as CouchDB 3 does, where the peer has sessions; an OAuth 1.0a signature
//! ([`crate::endpoint::oauth1`]); a bearer token, given or fetched ([`token`]); to the CouchDB beside which this server stands, the
//! cookie of a session of its caller's, made here ([`made_cookie`]).
//!
//! A cookie and a fetched token are an [`AccessToken`]: got once for all requests that wait for it, renewed when nine tenths of
//! its time are over. A 401 to a token that had been taken before means that it has ended early: it is renewed and the
//! request repeated. A 401 to a new token is the peer's last word; a new cookie that isn't taken (as by a proxy with
//! Basic credentials of its own) makes way for Basic, and then the peer's word is the last one.
//!
//! # Wrong credentials
//! A refused password is sent once. CouchDB locks an account after five, and gateways ban addresses. So a login that the
//! peer refuses in CouchDB's words isn't tried as Basic; a refusal is remembered, and no later request of this peer is
//! sent ([`sessions`] says who shares it). A 401 with `WWW-Authenticate` asks for Basic (`require_valid_user`, a gateway):
//! that is no refusal. Whoever opens the database anew, after a pause or because somebody asks again, asks anew.
//!
//! A declared secret ([`RemoteEndpoint::secret`]) goes to its database's own URL and to `{root}/_session`, and nowhere else on that
//! host; and the peer's reasons for a 401 or 403 are left out, since they may be words of who wants to learn it.
//!
//! Nothing here prints a secret: `Debug` shows kinds and names only.

mod access_token;
mod login_client;
mod session;
mod sessions;
mod token;
mod made_cookie;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use url::Url;

use self::access_token::{basic_header, header};
use self::session::Login;
use self::sessions::{LoginState, Proof, SharedState};
use super::exchange::Failed;
use super::retry::Trouble;
use crate::beside::LastingSession;
use crate::endpoint::auth::{Auth, Grant};
use crate::endpoint::oauth1::OAuth1;
use crate::endpoint::{Credentials, RemoteEndpoint};
use crate::peer::error::PeerError;

pub(super) use self::access_token::AccessToken;
pub(super) use self::login_client::LoginClient;
pub(super) use self::sessions::Sessions;

/// Keeps a peer's credentials and what was got for them.
#[derive(Debug)]
pub(super) struct Authenticator {
    scheme: Scheme,
    /// Held while a token is fetched, so that all who need one wait for the same.
    state: SharedState,
    opened: Instant,
    /// The peer's reason for refusing what isn't an [`AccessToken`]: it isn't sent again.
    refused: OnceLock<Option<String>>,
}

/// How requests say who asks.
enum Scheme {
    Nothing,
    Basic(HeaderValue, Login),
    Bearer(HeaderValue),
    OAuth1(OAuth1),
    Token(Grant),
    Session(Arc<LastingSession>),
}

impl Authenticator {
    /// `None` if the credentials don't fit into a header.
    pub(super) fn new(endpoint: &RemoteEndpoint, iam_token_url: &Url, sessions: &Sessions) -> Option<Self> {
        let RemoteEndpoint { credentials, auth, connection, .. } = endpoint;
        let mut state = Arc::default();
        let scheme = match (auth, credentials) {
            (Some(Auth::OAuth1(oauth)), _) => Scheme::OAuth1(oauth.clone()),
            (Some(Auth::Bearer(token)), _) => Scheme::Bearer(header(&format!("Bearer {}", token.expose_secret()))?),
            (Some(Auth::Token(grant)), _) => Scheme::Token(grant.or_at(iam_token_url)),
            (Some(Auth::Session(session)), _) => {
                let proof = Proof::Salt(session.salt().clone());
                state = sessions.of(&endpoint.root(), (session.name(), proof), (&connection.proxy, &connection.tls));
                Scheme::Session(session.clone())
            }
            (None, Some(Credentials { name, password, .. })) => {
                let login = Login::new(&endpoint.root(), name, password);
                let proof = Proof::Password(password.clone());
                state = sessions.of(login.url(), (name, proof), (&connection.proxy, &connection.tls));
                Scheme::Basic(basic_header(name, password.expose_secret())?, login)
            }
            (None, None) => Scheme::Nothing,
        };
        Some(Self { scheme, state, opened: Instant::now(), refused: OnceLock::new() })
    }

    /// Whether requests carry what a peer can refuse.
    pub(super) fn has_credentials(&self) -> bool {
        !matches!(self.scheme, Scheme::Nothing)
    }

    /// Learns that the peer doesn't take the credentials: they aren't sent again.
    pub(super) fn refused_for_good(&self, reason: Option<String>) {
        // Whoever was first has the reason.
        let _ = self.refused.set(reason);
    }

    /// Puts on a request what says who asks; answers the access token among it, if there is one.
    pub(super) async fn sign(
        &self,
        client: LoginClient<'_>,
        headers: &mut HeaderMap,
        method: &Method,
        url: &Url,
    ) -> Result<Option<Arc<AccessToken>>, Failed> {
        if let Some(reason) = self.refused.get() {
            return Err(client.refused(reason.clone()));
        }
        let fixed = match &self.scheme {
            Scheme::Nothing => return Ok(None),
            Scheme::Bearer(value) => value.clone(),
            Scheme::OAuth1(oauth) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let nonce = hex::encode(rand::random::<[u8; 16]>());
                let unsendable = || client.failed(Trouble::Unsendable, "a signature doesn't fit into a header".into());
                header(&oauth.authorization(method, url, &nonce, now)).ok_or_else(unsendable)?
            }
            Scheme::Basic(value, _) => match self.access_token(&client).await? {
                Some(token) => return Ok(Some(token.put_on(headers))),
                None => value.clone(),
            },
            Scheme::Token(_) | Scheme::Session(_) => {
                return Ok(self.access_token(&client).await?.map(|token| token.put_on(headers)));
            }
        };
        headers.insert(AUTHORIZATION, fixed);
        Ok(None)
    }

    /// Learns that a request with this token was answered 401; tells whether it should be repeated.
    pub(super) async fn refused(&self, token: Option<&Arc<AccessToken>>) -> bool {
        let Some(token) = token else { return false };
        let mut state = self.state.lock().await;
        match &*state {
            LoginState::LoggedIn(current) if Arc::ptr_eq(current, token) => {}
            // Somebody else has renewed it meanwhile, or found out that there is no use in it.
            _ => return true,
        }
        let proven = token.is_proven();
        *state = match &self.scheme {
            Scheme::Basic(..) if !proven => LoginState::without_sessions(),
            _ => LoginState::LoggedOut,
        };
        proven || matches!(*state, LoginState::NoSessions { .. })
    }

    async fn access_token(&self, client: &LoginClient<'_>) -> Result<Option<Arc<AccessToken>>, Failed> {
        let waiting = tokio::time::timeout(client.silence, self.state.lock()).await;
        let mut state = waiting.map_err(|_| client.failed(Trouble::Silent, "the login takes too long".into()))?;
        match &*state {
            LoginState::LoggedIn(token) if token.is_fresh() => return Ok(Some(token.clone())),
            LoginState::NoSessions { until } if Instant::now() < *until => return Ok(None),
            LoginState::Refused { at, reason } if *at >= self.opened => return Err(client.refused(reason.clone())),
            LoginState::LoggedIn(_)
            | LoginState::NoSessions { .. }
            | LoginState::Refused { .. }
            | LoginState::LoggedOut => {}
        }
        let got = match &self.scheme {
            Scheme::Basic(_, login) => login.log_in(client).await,
            Scheme::Token(grant) => token::fetch(grant, client).await.map(Some),
            Scheme::Session(session) => made_cookie::make(session, client).await.map(Some),
            Scheme::Nothing | Scheme::Bearer(_) | Scheme::OAuth1(_) => return Ok(None),
        };
        // That one session is over says nothing of another one of its user, and locks no account.
        if let Err(Failed { error: PeerError::WrongCredentials { reason, .. }, .. }) = &got
            && !matches!(self.scheme, Scheme::Session(_))
        {
            *state = LoginState::Refused { at: Instant::now(), reason: reason.clone() };
        }
        let token = got?.map(Arc::new);
        *state = token.clone().map_or_else(LoginState::without_sessions, LoginState::LoggedIn);
        Ok(token)
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Basic(..) => "Basic",
            Self::Bearer(_) => "Bearer",
            Self::OAuth1(_) => "OAuth1",
            Self::Token(_) => "Token",
            Self::Session(_) => "Session",
        })
    }
}
