//! Sessions that peers share: whoever has the same credentials at the same server logs in once, for all jobs.
//!
//! A login that was refused is shared too, by all peers that were opened before: each attempt of a job opens peers of its
//! own, so attempts at the same time cost one refused login, and a later one asks anew. CouchDB locks an account after
//! five refused logins in five minutes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use url::Url;

use super::access_token::AccessToken;
use crate::config::connection::Tls;
use crate::endpoint::connection::Proxy;

/// Sessions kept. One that is dropped for another lives on as long as peers use it.
const KEPT: usize = 1000;

/// How long a peer counts as one without sessions.
const WITHOUT_SESSIONS: Duration = Duration::from_secs(600);

/// What is known of each login. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::peer::remote) struct Sessions {
    /// The most recently used last. The lock guards the list and is held for a look at it only.
    kept: Arc<Mutex<VecDeque<(LoginKey, SharedState)>>>,
}

/// The state of one login, which all peers that log in so share. Locked while one of them logs in.
pub(in crate::peer::remote) type SharedState = Arc<tokio::sync::Mutex<LoginState>>;

/// What is known of a login.
#[derive(Debug, Default)]
pub(in crate::peer::remote) enum LoginState {
    /// A session or token is to be got.
    #[default]
    LoggedOut,
    LoggedIn(Arc<AccessToken>),
    /// The peer had no sessions that work when it was asked last.
    NoSessions {
        until: Instant,
    },
    /// None was given, for this reason.
    Refused {
        at: Instant,
        reason: Option<String>,
    },
}

impl LoginState {
    /// From now on, for some time.
    pub(super) fn without_sessions() -> Self {
        Self::NoSessions { until: Instant::now() + WITHOUT_SESSIONS }
    }
}

/// What a session is got for. A password that looks like somebody's salt isn't one.
pub(super) enum Proof {
    /// That of the user.
    Password(SecretString),
    /// In place of it, if the session is made here.
    Salt(SecretString),
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Password(one), Self::Password(other)) | (Self::Salt(one), Self::Salt(other)) => {
                one.expose_secret() == other.expose_secret()
            }
            _ => false,
        }
    }
}

/// Who logs in where, and over which way.
#[derive(PartialEq)]
struct LoginKey {
    url: Url,
    user: String,
    proof: Proof,
    proxy: Option<Proxy>,
    tls: Tls,
}

impl Sessions {
    /// What is known of this login.
    pub(super) fn of(
        &self,
        url: &Url,
        (user, proof): (&str, Proof),
        (proxy, tls): (&Option<Proxy>, &Tls),
    ) -> SharedState {
        let (user, proxy, tls) = (user.to_owned(), proxy.clone(), tls.clone());
        let login = LoginKey { url: url.clone(), user, proof, proxy, tls };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(known, _)| *known == login).and_then(|place| kept.remove(place));
        let known = known.unwrap_or_else(|| (login, Arc::default()));
        let shared = known.1.clone();
        kept.push_back(known);
        if kept.len() > KEPT {
            kept.pop_front();
        }
        shared
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}
