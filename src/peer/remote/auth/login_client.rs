//! Sends logins and asks for tokens: forms that carry credentials, tried once.
//!
//! They need no session themselves, so nothing here knows what a call to a peer is; the call that needs a session tries again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use url::Url;

use crate::effort::pulse::Pulse;
use crate::endpoint::auth::without_query;
use crate::peer::error::{Blame, PeerError};
use crate::peer::remote::answer::{Answer, Reply};
use crate::peer::remote::exchange::{Failed, exchange};
use crate::peer::remote::guard::GuardedClient;
use crate::peer::remote::judgement;
use crate::peer::remote::retry::{self, Trouble};

/// Logs in and fetches tokens, for one request of one peer.
pub(in crate::peer::remote) struct LoginClient<'a> {
    /// For the peer's own origin.
    pub own: &'a GuardedClient,
    /// For a token's URL.
    pub elsewhere: &'a GuardedClient,
    /// The longest silence, and the longest wait for another request's fetching.
    pub silence: Duration,
    /// The database's name, for errors.
    pub database: &'a str,
    /// Whether a refusal's reason is left out.
    pub hides_reasons: bool,
}

impl LoginClient<'_> {
    /// Sends a form and reads the answer whole; failures that may pass are errors, other answers are the caller's.
    pub(super) async fn post(
        &self,
        http: &GuardedClient,
        url: &Url,
        form: &[(&str, &str)],
        basic: Option<HeaderValue>,
    ) -> Result<Reply, Failed> {
        let request: Arc<str> = format!("POST {}", without_query(url)).into();
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut builder = http.request(Method::POST, url.clone()).body(body);
        builder =
            builder.header("content-type", "application/x-www-form-urlencoded").header("accept", "application/json");
        if let Some(basic) = basic {
            builder = builder.header(AUTHORIZATION, basic);
        }
        let response = exchange(http, builder, self.silence, &Default::default(), &request).await?;
        let reply = Answer::new(request, response, self.silence, Pulse::default());
        let reply = reply.hiding_reasons(self.hides_reasons).whole().await;
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

    /// An attempt that failed.
    pub(super) fn failed(&self, trouble: Trouble, reason: String) -> Failed {
        let error = PeerError::Unreachable { request: self.database.to_owned(), tries: 1, reason };
        Failed { trouble, asked: None, error }
    }

    /// The credentials are wrong.
    pub(super) fn refused(&self, reason: Option<String>) -> Failed {
        let error = PeerError::WrongCredentials { database: self.database.to_owned(), reason };
        Failed { trouble: Trouble::Answered(Blame::Lasting), asked: None, error }
    }
}
