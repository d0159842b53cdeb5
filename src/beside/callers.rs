//! Who asks: CouchDB is asked, with what the request has that may prove it, and its word is remembered for some seconds.
//!
//! Nothing is guessed: passwords, sessions, tokens and proxies' words are CouchDB's to judge, and a refusal is passed on in its own
//! words. A refusal isn't remembered, so that CouchDB counts wrong passwords as it does without us. Whoever was deleted, or has lost a
//! role, keeps it for [`REMEMBERED`]; what is done in his name by then, CouchDB judges anew.
//!
//! With the answer comes which other site's page may read it (CORS): CouchDB's settings count for our own answers too.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::{AUTHORIZATION, ORIGIN, SET_COOKIE, VARY};
use hyper::{HeaderMap, StatusCode};
use lru::LruCache;
use ring::digest;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Answered, Unanswered, Upstream};
use crate::access::{Caller, REPLICATOR};

/// How long a caller is known without being asked for again.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Callers that are remembered, each with what proved it.
const MOST: usize = 1_000;

/// Finds out who asks. Cheap to clone.
#[derive(Clone)]
pub struct Callers {
    upstream: Upstream,
    /// By a digest of what proved it. Held for a look at it only.
    known: Arc<Mutex<LruCache<Vec<u8>, Remembered>>>,
}

/// Somebody who was asked for.
struct Remembered {
    at: Instant,
    known: KnownCaller,
}

/// Somebody whom CouchDB knows, or nobody in particular.
#[derive(Debug, Clone)]
pub struct KnownCaller {
    /// Who he is.
    pub caller: Arc<Caller>,
    /// What an answer to him has besides: who may read it.
    pub headers: HeaderMap,
}

/// CouchDB's word on who sent some proofs.
pub enum Authentication {
    /// This is he.
    Known(KnownCaller),
    /// He isn't who he says.
    Refused(Answered),
}

#[derive(Deserialize)]
struct Session {
    #[serde(rename = "userCtx")]
    user: User,
    #[serde(default)]
    info: Info,
}

#[derive(Deserialize)]
struct User {
    name: Option<String>,
    roles: Vec<String>,
}

#[derive(Deserialize, Default)]
struct Info {
    authenticated: Option<String>,
}

impl Callers {
    /// Nobody is known yet.
    pub fn new(upstream: Upstream) -> Self {
        let known = LruCache::new(NonZeroUsize::new(MOST).unwrap_or(NonZeroUsize::MIN));
        Self { upstream, known: Arc::new(Mutex::new(known)) }
    }

    /// The CouchDB that is asked.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Asks who sent these proofs; `told` is what a proxy tells besides, and proves nothing.
    pub async fn ask(&self, proofs: &HeaderMap, told: HeaderMap) -> Result<Authentication, Unanswered> {
        let key = digest(proofs);
        if let Some(Remembered { at, known }) = self.known().get(&key)
            && at.elapsed() < REMEMBERED
        {
            return Ok(Authentication::Known(known.clone()));
        }
        let mut headers = told;
        headers.extend(proofs.clone());
        let at = Instant::now();
        let answered = self.upstream.ask("/_session", headers).await?;
        if answered.status != StatusCode::OK {
            return Ok(Authentication::Refused(answered));
        }
        let session: Session =
            serde_json::from_slice(&answered.body).map_err(|_| Unanswered::Malformed("/_session".into()))?;
        let readers =
            answered.headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-") || *name == VARY);
        let headers: HeaderMap = readers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let known = KnownCaller { caller: Arc::new(caller(session, proofs)), headers };
        // Who proves nothing, however he tries, costs no memory.
        if known.caller.name.is_some() {
            self.known().put(key, Remembered { at, known: known.clone() });
        }
        // A session that is renewed is renewed for who asked.
        let mut known = known;
        for cookie in answered.headers.get_all(SET_COOKIE) {
            known.headers.append(SET_COOKIE, cookie.clone());
        }
        Ok(Authentication::Known(known))
    }

    fn known(&self) -> MutexGuard<'_, LruCache<Vec<u8>, Remembered>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(proofs: &HeaderMap) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for (name, value) in proofs {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
    }
    context.finish().as_ref().to_vec()
}

/// A password proves for ever who somebody is, all else only for a while: it is sent as it came.
fn caller(Session { user, info }: Session, proofs: &HeaderMap) -> Caller {
    let mut roles = user.roles;
    roles.retain(|role| role != REPLICATOR);
    let text = |value: &hyper::header::HeaderValue| value.to_str().ok().map(str::to_owned);
    let by = info.authenticated.as_deref();
    let by_password = by == Some("default");
    // It enters replication ids: what proved nothing there would give him another's.
    let authorization = proofs.get(AUTHORIZATION).and_then(text).filter(|_| !matches!(by, Some("cookie" | "proxy")));
    let temporary = proofs.iter().filter(|(name, _)| *name != ORIGIN && !by_password && user.name.is_some());
    let temporary = temporary.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?.into())));
    Caller {
        name: user.name.clone(),
        roles,
        temporary_proofs: temporary.collect(),
        authorization: authorization.map(Into::into),
    }
}
