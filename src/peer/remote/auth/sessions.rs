//! Sessions that peers share: whoever has the same credentials at the same server logs in once, for all jobs.
//!
//! A login that was refused is shared too, by all peers that were opened before: each attempt of a job opens peers of its
//! own, so attempts at the same time cost one refused login, and a later one asks anew. CouchDB locks an account after
//! five refused logins in five minutes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config::connection::Tls;
use crate::endpoint::connection::Proxy;

/// Sessions kept. One that is dropped for another lives on as long as peers use it.
const KEPT: usize = 1000;

/// What is known of each login, a `T`. Cheap to clone.
pub(in crate::peer::remote) struct SharedLogins<T> {
    /// The most recently used last. The lock guards the list and is held for a look at it only.
    kept: Arc<Mutex<Kept<T>>>,
}

type Kept<T> = VecDeque<(Login, Arc<T>)>;

/// Who logs in where, and over which way.
struct Login {
    url: Url,
    user: String,
    password: SecretString,
    proxy: Option<Proxy>,
    tls: Tls,
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        (&self.url, &self.user, &self.proxy, &self.tls) == (&other.url, &other.user, &other.proxy, &other.tls)
            && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl<T: Default> SharedLogins<T> {
    /// What is known of this login.
    pub(super) fn of(
        &self,
        url: &Url,
        (user, password): (&str, &SecretString),
        (proxy, tls): (&Option<Proxy>, &Tls),
    ) -> Arc<T> {
        let (user, proxy, tls) = (user.to_owned(), proxy.clone(), tls.clone());
        let login = Login { url: url.clone(), user, password: password.clone(), proxy, tls };
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

impl<T> Clone for SharedLogins<T> {
    fn clone(&self) -> Self {
        Self { kept: self.kept.clone() }
    }
}

impl<T> Default for SharedLogins<T> {
    fn default() -> Self {
        Self { kept: Arc::default() }
    }
}

impl<T> std::fmt::Debug for SharedLogins<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedLogins").finish_non_exhaustive()
    }
}
