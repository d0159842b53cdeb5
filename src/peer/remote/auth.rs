//! How a peer is told who asks.
//!
//! A request carries, to its peer's own origin only: nothing; Basic credentials; a session's cookie, got for the Basic
//! credentials at `POST {root}/_session` as CouchDB 3 does, where the peer has sessions; an OAuth 1.0a signature
//! ([`crate::endpoint::oauth1`]); a bearer token, given or fetched ([`token`]).
//!
//! A cookie and a fetched token are a [`Pass`]: got once for all requests that wait for it, renewed when nine tenths of
//! its time are over. A 401 to a pass that had been taken before means that it has ended early: it is renewed and the
//! request repeated. A 401 to a new token is the peer's last word; a new cookie that isn't taken (as by a proxy with
//! Basic credentials of its own) makes way for Basic, and then the peer's word is the last one.
//!
//! # Wrong credentials
//! A refused password is sent once. CouchDB locks an account after five, and gateways ban addresses. So a login that the
//! peer refuses in CouchDB's words isn't tried as Basic; a refusal is remembered, and no later request of this peer is
//! sent ([`sessions`] says who shares it). A 401 with `WWW-Authenticate` asks for Basic (`require_valid_user`, a gateway):
//! that is no refusal. Whoever opens the database anew, after a pause or because somebody asks again, asks anew.
//!
//! Nothing here prints a secret: `Debug` shows kinds and names only.

mod session;
mod sessions;
mod token;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::PeerError;
use super::answer::{Answer, Reply};
use super::call::{Failed, exchange};
use super::judgement;
use super::retry::{self, Trouble};
use crate::effort::pulse::Pulse;
use crate::endpoint::auth::{Auth, Grant, without_query};
use crate::endpoint::oauth1::OAuth1;
use crate::endpoint::{Credentials, RemoteEndpoint};
use crate::peer::Blame;
use session::Login;
use sessions::SharedLogins;

/// Sessions that peers share.
pub(super) type Sessions = SharedLogins<Mutex<Standing>>;

/// What goes out to fetch a pass, and where.
pub(super) struct Desk<'a> {
    /// For the peer's own origin.
    pub own: &'a reqwest::Client,
    /// For a token's URL.
    pub elsewhere: &'a reqwest::Client,
    /// The longest silence, and the longest wait for another request's fetching.
    pub silence: Duration,
    /// The database's name, for errors.
    pub database: &'a str,
}

/// Keeps a peer's credentials and what was got for them.
#[derive(Debug)]
pub(super) struct Authenticator {
    means: Means,
    /// Held while a pass is fetched, so that all who need one wait for the same.
    standing: Arc<Mutex<Standing>>,
    opened: Instant,
    /// The peer's reason for refusing what isn't a [`Pass`]: it isn't sent again.
    refused: OnceLock<Option<String>>,
}

enum Means {
    Nothing,
    Basic(HeaderValue, Login),
    Bearer(HeaderValue),
    OAuth1(OAuth1),
    Token(Grant),
}

/// What is known of a login.
#[derive(Debug, Default)]
pub(super) enum Standing {
    /// A pass is to be got.
    #[default]
    Without,
    With(Arc<Pass>),
    /// The peer had no sessions that work when it was asked last.
    PlainBasic {
        until: Instant,
    },
    /// No pass was given, for this reason.
    Refused {
        at: Instant,
        reason: Option<String>,
    },
}

/// How long a peer counts as one without sessions.
const WITHOUT_SESSIONS: Duration = Duration::from_secs(600);

/// A cookie or a token.
pub(super) struct Pass {
    name: HeaderName,
    value: HeaderValue,
    renew_at: Instant,
    /// It was taken once.
    proven: AtomicBool,
}

impl Authenticator {
    /// `None` where the credentials don't fit into a header.
    pub(super) fn new(endpoint: &RemoteEndpoint, iam_token_url: &Url, sessions: &Sessions) -> Option<Self> {
        let RemoteEndpoint { url, credentials, auth, connection, .. } = endpoint;
        let mut standing = Arc::default();
        let means = match (auth, credentials) {
            (Some(Auth::OAuth1(oauth)), _) => Means::OAuth1(oauth.clone()),
            (Some(Auth::Bearer(token)), _) => Means::Bearer(header(&format!("Bearer {}", token.expose_secret()))?),
            (Some(Auth::Token(grant)), _) => Means::Token(grant.or_at(iam_token_url)),
            (None, Some(Credentials { name, password, .. })) => {
                let login = Login::new(url, name, password);
                if let Some(url) = login.url() {
                    standing = sessions.of(url, (name, password), (&connection.proxy, &connection.tls));
                }
                Means::Basic(basic_header(name, password.expose_secret())?, login)
            }
            (None, None) => Means::Nothing,
        };
        Some(Self { means, standing, opened: Instant::now(), refused: OnceLock::new() })
    }

    /// Whether requests carry what a peer can refuse.
    pub(super) fn has_credentials(&self) -> bool {
        !matches!(self.means, Means::Nothing)
    }

    /// Learns that the peer doesn't take the credentials: they aren't sent again.
    pub(super) fn refused_for_good(&self, reason: Option<String>) {
        // Whoever was first has the reason.
        let _ = self.refused.set(reason);
    }

    /// Puts on a request what says who asks; answers the pass that it carries, if it does.
    pub(super) async fn sign(
        &self,
        desk: Desk<'_>,
        headers: &mut HeaderMap,
        method: &Method,
        url: &Url,
    ) -> Result<Option<Arc<Pass>>, Failed> {
        if let Some(reason) = self.refused.get() {
            return Err(desk.refused(reason.clone()));
        }
        let fixed = match &self.means {
            Means::Nothing => return Ok(None),
            Means::Bearer(value) => value.clone(),
            Means::OAuth1(oauth) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let nonce = hex::encode(rand::random::<[u8; 16]>());
                let unsendable = || desk.failed(Trouble::Unsendable, "a signature doesn't fit into a header".into());
                header(&oauth.authorization(method, url, &nonce, now)).ok_or_else(unsendable)?
            }
            Means::Basic(value, _) => match self.pass(&desk).await? {
                Some(pass) => return Ok(Some(pass.put_on(headers))),
                None => value.clone(),
            },
            Means::Token(_) => return Ok(self.pass(&desk).await?.map(|pass| pass.put_on(headers))),
        };
        headers.insert(AUTHORIZATION, fixed);
        Ok(None)
    }

    /// Learns that a pass was answered 401; tells whether the request should be repeated.
    pub(super) async fn refused(&self, pass: Option<&Arc<Pass>>) -> bool {
        let Some(pass) = pass else { return false };
        let mut standing = self.standing.lock().await;
        match &*standing {
            Standing::With(current) if Arc::ptr_eq(current, pass) => {}
            // Somebody else has renewed it meanwhile, or found out that there is no use in it.
            _ => return true,
        }
        let proven = pass.proven.load(Ordering::Relaxed);
        *standing = match &self.means {
            Means::Basic(..) if !proven => Standing::without_sessions(),
            _ => Standing::Without,
        };
        proven || matches!(*standing, Standing::PlainBasic { .. })
    }

    async fn pass(&self, desk: &Desk<'_>) -> Result<Option<Arc<Pass>>, Failed> {
        let waiting = tokio::time::timeout(desk.silence, self.standing.lock()).await;
        let mut standing = waiting.map_err(|_| desk.failed(Trouble::Silent, "the login takes too long".into()))?;
        match &*standing {
            Standing::With(pass) if Instant::now() < pass.renew_at => return Ok(Some(pass.clone())),
            Standing::PlainBasic { until } if Instant::now() < *until => return Ok(None),
            Standing::Refused { at, reason } if *at >= self.opened => return Err(desk.refused(reason.clone())),
            Standing::With(_) | Standing::PlainBasic { .. } | Standing::Refused { .. } | Standing::Without => {}
        }
        let got = match &self.means {
            Means::Basic(_, login) => login.pass(desk).await,
            Means::Token(grant) => token::fetch(grant, desk).await.map(Some),
            Means::Nothing | Means::Bearer(_) | Means::OAuth1(_) => return Ok(None),
        };
        if let Err(Failed { error: PeerError::WrongCredentials { reason, .. }, .. }) = &got {
            *standing = Standing::Refused { at: Instant::now(), reason: reason.clone() };
        }
        let pass = got?.map(Arc::new);
        *standing = pass.clone().map_or_else(Standing::without_sessions, Standing::With);
        Ok(pass)
    }
}

impl Standing {
    fn without_sessions() -> Self {
        Self::PlainBasic { until: Instant::now() + WITHOUT_SESSIONS }
    }
}

impl Pass {
    fn new(name: HeaderName, value: HeaderValue, lifetime: Duration) -> Self {
        let lifetime = lifetime.min(LONGEST_LIFETIME);
        Self { name, value, renew_at: Instant::now() + lifetime.mul_f64(0.9), proven: AtomicBool::new(false) }
    }

    /// Learns that it was taken.
    pub(super) fn taken(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    fn put_on(self: Arc<Self>, headers: &mut HeaderMap) -> Arc<Self> {
        match (self.name == COOKIE).then(|| headers.get(COOKIE)).flatten() {
            // An endpoint's own cookies stay, before the session's.
            Some(own) => {
                let joined = [own.as_bytes(), b"; ", self.value.as_bytes()].concat();
                let mut joined = HeaderValue::from_bytes(&joined).unwrap_or_else(|_| self.value.clone());
                joined.set_sensitive(true);
                headers.insert(COOKIE, joined);
            }
            None => _ = headers.insert(&self.name, self.value.clone()),
        }
        self
    }
}

impl Desk<'_> {
    /// Sends a form and reads the answer whole; failures that may pass are errors, other answers are the caller's.
    async fn post(
        &self,
        client: &reqwest::Client,
        url: &Url,
        form: &[(&str, &str)],
        basic: Option<HeaderValue>,
    ) -> Result<Reply, Failed> {
        let request: Arc<str> = format!("POST {}", without_query(url)).into();
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut builder = client.post(url.clone()).body(body);
        builder =
            builder.header("content-type", "application/x-www-form-urlencoded").header("accept", "application/json");
        if let Some(basic) = basic {
            builder = builder.header(AUTHORIZATION, basic);
        }
        let response = exchange(builder, self.silence, &Default::default(), &request).await?;
        let reply = Answer::new(request, response, self.silence, Pulse::default()).whole().await;
        let reply = reply.map_err(|error| Failed { trouble: Trouble::BrokeOff, asked: None, error })?;
        // By its status alone: a login's answer needn't be in CouchDB's words.
        let blame = judgement::meaning(reply.status, None).blame();
        if blame == Blame::Passing || reply.status == 500 {
            let asked = reply.headers.get("retry-after").and_then(|after| after.to_str().ok());
            let asked = asked.and_then(|after| retry::retry_after(after, SystemTime::now()));
            return Err(Failed { trouble: Trouble::Answered(blame), asked, error: reply.into_error() });
        }
        Ok(reply)
    }

    fn failed(&self, trouble: Trouble, reason: String) -> Failed {
        let error = PeerError::Unreachable { request: self.database.to_owned(), tries: 1, reason };
        Failed { trouble, asked: None, error }
    }

    /// The credentials are wrong.
    fn refused(&self, reason: Option<String>) -> Failed {
        let error = PeerError::WrongCredentials { database: self.database.to_owned(), reason };
        Failed { trouble: Trouble::Answered(Blame::Lasting), asked: None, error }
    }
}

/// What a peer says beyond it is taken for this long: the clock has an end.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A header's value that isn't printed.
fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The value of a Basic `Authorization` header.
pub(super) fn basic_header(user: &str, password: &str) -> Option<HeaderValue> {
    use base64::Engine as _;
    header(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Basic(..) => "Basic",
            Self::Bearer(_) => "Bearer",
            Self::OAuth1(_) => "OAuth1",
            Self::Token(_) => "Token",
        })
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("name", &self.name).field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}
