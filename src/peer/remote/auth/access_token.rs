//! What a login or a token's server gives for credentials: a session's cookie or a bearer token. Prints no secret.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

/// What a peer says beyond it is taken for this long: the clock has an end.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A session's cookie or a bearer token.
pub(in crate::peer::remote) struct AccessToken {
    name: HeaderName,
    value: HeaderValue,
    pub(super) renew_at: Instant,
    /// It was taken once.
    proven: AtomicBool,
}

impl AccessToken {
    pub(super) fn new(name: HeaderName, value: HeaderValue, lifetime: Duration) -> Self {
        let lifetime = lifetime.min(LONGEST_LIFETIME);
        Self { name, value, renew_at: Instant::now() + lifetime.mul_f64(0.9), proven: AtomicBool::new(false) }
    }

    /// Learns that it was taken.
    pub(in crate::peer::remote) fn taken(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether it needn't be renewed yet.
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() < self.renew_at
    }

    /// Whether it was taken once.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    pub(super) fn put_on(self: Arc<Self>, headers: &mut HeaderMap) -> Arc<Self> {
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

/// A header's value that isn't printed.
pub(super) fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The value of a Basic `Authorization` header.
pub(super) fn basic_header(user: &str, password: &str) -> Option<HeaderValue> {
    use base64::Engine as _;
    header(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))))
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("name", &self.name)
            .field("renew_at", &self.renew_at)
            .finish_non_exhaustive()
    }
}
