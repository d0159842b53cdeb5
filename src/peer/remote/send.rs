//! Sends requests to a peer: again where that may help, led on by redirects.
//!
//! A [`Call`] is tried as [`retry`] says, within its budget. Redirects are followed by hand, with the same
//! method and body (303 makes it a GET); custom headers and credentials go only to the scheme, host and port that they
//! were given for, those of a declared secret only to the database, those of callers only to the CouchDB beside which this server stands. Where a
//! server outside leads, only addresses outside are connected to, and so it stays for the rest of the request. No try has a limit of total
//! time, since bodies stream, but every silence has one.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use tokio::time::Instant;
use url::Url;

use super::answer::{Answer, Reply};
use super::auth::{AccessToken, LoginClient};
use super::call::{Call, Streamed};
use super::exchange::{Failed, exchange, outgoing};
use super::guard::GuardedClient;
use super::pace::Permit;
use super::redirect::redirect;
use super::retry::{self, Budget, Operation, Schedule, Trouble, Verdict};
use super::{HttpClients, Inner, Place, RemotePeer};
use crate::peer::error::{Blame, PeerError};
use crate::policy;

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 10;
/// Bytes of a query shown in errors and logs.
const SHOWN_QUERY: usize = 64;

impl RemotePeer {
    /// Sends a request and answers as soon as a good answer's head is there: the answer itself, or what `otherwise` makes
    /// of one that tells of no success. An error that may pass is tried again.
    pub(super) async fn send<T>(
        &self,
        call: &Call,
        otherwise: impl Fn(Reply) -> Result<T, PeerError>,
    ) -> Result<Result<Answer, T>, PeerError> {
        let otherwise = &otherwise;
        self.retrying(call, || async move {
            let answer = self.attempt(call).await?;
            if answer.is_success() {
                return Ok(Ok(answer.released()));
            }
            Ok(Err(read(call, answer, otherwise).await?))
        })
        .await
    }

    /// Sends a request and answers as soon as a good answer's head is there.
    pub(super) async fn open(&self, call: &Call) -> Result<Answer, PeerError> {
        let refused = |reply| Err(self.refusal(reply));
        let Ok(answer) = self.send::<Infallible>(call, refused).await?;
        Ok(answer)
    }

    /// Sends a request, reads the answer whole, and makes of it what `make` does. An error that may pass is tried again:
    /// so a page in place of an answer is asked for anew.
    pub(super) async fn ask<T>(
        &self,
        call: &Call,
        make: impl Fn(Reply) -> Result<T, PeerError>,
    ) -> Result<T, PeerError> {
        let make = &make;
        self.retrying(call, || async move { read(call, self.attempt(call).await?, make).await }).await
    }

    async fn retrying<T, F>(&self, call: &Call, mut attempt: impl FnMut() -> F) -> Result<T, PeerError>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let settings = &self.inner.settings;
        let met = self.inner.met.load(Ordering::Relaxed);
        let budget = if met { Budget::of(settings) } else { Budget::first_contact(settings) };
        let mut schedule = Schedule::new(budget);
        let start = Instant::now();
        loop {
            let failed = match attempt().await {
                Ok(answer) => {
                    self.inner.met.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let verdict = match &failed.error {
                // Whoever asks asks for less.
                PeerError::TooLong { .. } => Verdict::Stop,
                _ => retry::verdict(call.operation, failed.trouble),
            };
            let elapsed = start.elapsed().saturating_sub(call.waited());
            let Some(pause) = schedule.pause(verdict, failed.asked, elapsed) else {
                if let Some(asked) = failed.asked {
                    self.inner.servers.of(&self.inner.url).asked_for(asked);
                }
                let too_long = matches!(failed.error, PeerError::TooLong { .. });
                if matches!(call.operation, Operation::Changes | Operation::Wait) && !too_long {
                    self.inner.counters.changes_read_failures.increment();
                }
                return Err(match failed.trouble {
                    Trouble::Unresolved => PeerError::Unresolved { database: self.inner.name.clone() },
                    // There is a server, and what it was asked may be why.
                    Trouble::Broke if call.operation.is_of_documents() => broken(failed.error),
                    _ => failed.into_error(schedule.tries()),
                });
            };
            tracing::debug!(error = %failed.error, tries = schedule.tries(), ?pause, "trying again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Failed> {
        let request: Arc<str> = self.request_name(call).into();
        let (mut place, mut method, mut body) = (self.place(&call.path)?, call.method.clone(), call.body.clone());
        let silence = self.silence(call);
        let mut renewed = false;
        for _ in 0..=MAX_REDIRECTS {
            let (url, client) = (&place.url, self.client(&place).await?);
            let (mut headers, token) = self.headers(call, &method, url).await?;
            let sent = Arc::new(AtomicU64::new(0));
            if body.is_some() || call.operation == Operation::Commit {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            let mut builder = client.request(method.clone(), url.clone());
            if let Some(body) = &body {
                headers.insert(CONTENT_LENGTH, body.len().into());
                builder = builder.body(outgoing(body.clone(), sent.clone(), self.inner.pulse.clone()));
            }
            let builder = builder.headers(headers);
            let (response, permit) = self.exchange(call, (url, client), builder, &sent, &request).await?;
            if self.should_renew(token.as_ref(), response.status()).await && !renewed {
                renewed = true;
                continue;
            }
            match redirect(&response, url) {
                None => {
                    let answer = self.answer(request, response, silence).waiting(call.operation == Operation::Wait);
                    return Ok(answer.holding(permit));
                }
                Some(Err(found)) => return Err(lost(&request, found)),
                Some(Ok(next)) => {
                    let from_outside = place.from_outside || self.is_from_outside(&response);
                    place = Place { url: next, from_outside };
                    self.learn_move(response.status(), &call.path, &place);
                }
            }
            if response.status() == StatusCode::SEE_OTHER {
                (method, body) = (Method::GET, None);
            }
        }
        Err(lost(&request, "one redirect after another".into()))
    }

    /// Sends a body that can't be sent twice: one try, no redirect. Where one is asked for, the peer is remembered to
    /// have moved, and the caller starts anew.
    pub(super) async fn send_streamed<S>(&self, call: &Call, body: Streamed<S>) -> Result<Answer, Failed>
    where
        S: Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    {
        let request: Arc<str> = self.request_name(call).into();
        let (place, silence) = (self.place(&call.path)?, self.silence(call));
        let (url, client) = (&place.url, self.client(&place).await?);
        let (mut headers, token) = self.headers(call, &call.method, url).await?;
        if let Ok(content_type) = HeaderValue::from_str(&body.content_type) {
            headers.insert(CONTENT_TYPE, content_type);
        }
        headers.insert(CONTENT_LENGTH, body.length.into());
        let sent = Arc::new(AtomicU64::new(0));
        let pieces = body.pieces.inspect_ok({
            let (sent, pulse) = (sent.clone(), self.inner.pulse.clone());
            move |piece| {
                sent.fetch_add(1, Ordering::Relaxed);
                pulse.moved(piece.len());
            }
        });
        let builder = client.request(call.method.clone(), url.clone()).headers(headers);
        let builder = builder.body(reqwest::Body::wrap_stream(pieces));
        let (response, _) = self.exchange(call, (url, client), builder, &sent, &request).await?;
        let again = |reason: &str| {
            let error = PeerError::Broken { request: request.to_string(), reason: reason.into() };
            Failed { trouble: Trouble::Broke, asked: None, error }
        };
        if self.should_renew(token.as_ref(), response.status()).await {
            return Err(again("the login has ended"));
        }
        match redirect(&response, url) {
            None => Ok(self.answer(request, response, silence)),
            Some(Err(found)) => Err(lost(&request, found)),
            Some(Ok(next)) => {
                let from_outside = place.from_outside || self.is_from_outside(&response);
                let next = Place { url: next, from_outside };
                self.learn_move(StatusCode::PERMANENT_REDIRECT, &call.path, &next);
                Err(again("the database has moved"))
            }
        }
    }

    /// Method and URL as errors show them: without credentials, the query shortened.
    pub(super) fn request_name(&self, call: &Call) -> String {
        let query = call.path.find('?').unwrap_or(call.path.len());
        let (path, cut) = match call.path.char_indices().find(|&(at, _)| at >= query + SHOWN_QUERY) {
            Some((end, _)) => (&call.path[..end], "…"),
            None => (call.path.as_str(), ""),
        };
        format!("{} {}{path}{cut}", call.method, self.inner.name)
    }

    fn answer(&self, request: Arc<str>, response: Response, silence: Duration) -> Answer {
        let answer = Answer::new(request, response, silence, self.inner.pulse.clone());
        answer.hiding_reasons(self.inner.names_secret)
    }

    fn silence(&self, call: &Call) -> Duration {
        call.silence.unwrap_or(self.inner.settings.connection_timeout)
    }

    /// The headers of a request, and the access token among them, if there is one.
    async fn headers(
        &self,
        call: &Call,
        method: &Method,
        url: &Url,
    ) -> Result<(HeaderMap, Option<Arc<AccessToken>>), Failed> {
        let (mut headers, mut token) = (HeaderMap::new(), None);
        if self.is_own(url) {
            headers = self.inner.headers.clone();
            let inner = &self.inner;
            let (silence, database) = (inner.settings.connection_timeout, inner.name.as_str());
            let HttpClients { own, elsewhere } = &inner.http;
            let hides_reasons = inner.names_secret;
            let logins = LoginClient { own, elsewhere, silence, database, hides_reasons };
            token = inner.auth.sign(logins, &mut headers, method, url).await?;
        }
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        if call.operation == Operation::Wait {
            // A compressor would hold back the heartbeats (express-pouchdb's does).
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        if call.unsynced() {
            headers.insert("x-couch-full-commit", HeaderValue::from_static("false"));
        }
        Ok((headers, token))
    }

    /// Whether a URL is where credentials, headers and certificates were given for: of that origin, and below that path.
    fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.inner.url.origin() && url.path().starts_with(&self.inner.own_path)
    }

    async fn client(&self, to: &Place) -> Result<&GuardedClient, Failed> {
        let Inner { http, http_from_outside, clients, policy, connection, settings, .. } = &*self.inner;
        let http = match to.from_outside {
            false => http,
            true => {
                let find = || async { HttpClients::find(clients, connection, &policy.from_outside(), settings).await };
                let unsendable =
                    |error| Failed { trouble: Trouble::Unsendable, asked: None, error: PeerError::Client(error) };
                http_from_outside.get_or_try_init(find).await.map_err(unsendable)?
            }
        };
        Ok(if self.is_own(&to.url) { &http.own } else { &http.elsewhere })
    }

    /// Whether an answer came from outside this machine's network, as far as is known: what a proxy reached isn't.
    fn is_from_outside(&self, response: &Response) -> bool {
        let address = response.remote_addr().map(|address| address.ip());
        self.inner.connection.proxy.is_none() && !address.is_some_and(policy::is_inside)
    }

    /// Whether a request is to be sent again because its access token has ended.
    async fn should_renew(&self, token: Option<&Arc<AccessToken>>, status: StatusCode) -> bool {
        if status == StatusCode::UNAUTHORIZED {
            return self.inner.auth.refused(token).await;
        }
        token.inspect(|token| token.taken());
        false
    }

    /// Sends a request when its server may be asked, and waits for the answer's head.
    ///
    /// However long other requests of ours keep it waiting: those have limits of their own, and it has none for them.
    async fn exchange(
        &self,
        call: &Call,
        (url, client): (&Url, &GuardedClient),
        request: reqwest::RequestBuilder,
        sent: &AtomicU64,
        name: &str,
    ) -> Result<(Response, Option<Permit>), Failed> {
        let server = self.inner.servers.of(url);
        server.pause().await;
        let waiting = Instant::now();
        let permit = server.permit(call.operation, &self.inner.requests, &self.inner.pulse).await;
        call.waited_ms.fetch_add(waiting.elapsed().as_millis() as u64, Ordering::Relaxed);
        let counters = &self.inner.counters;
        counters.requests.increment();
        let response = exchange(client, request, self.silence(call), sent, name).await;
        let response = response.inspect_err(|_| counters.unanswered.increment())?;
        counters.answered(response.status().as_u16());
        server.answered(response.status().as_u16());
        match call.operation {
            Operation::Wait => self.inner.pulse.waits(),
            _ => self.inner.pulse.beat(),
        }
        Ok((response, permit))
    }

    /// The place of a path below the database's URL, or below the one to which it has moved.
    fn place(&self, path: &str) -> Result<Place, Failed> {
        let moved = self.inner.moved.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let from_outside = moved.as_ref().is_some_and(|moved| moved.from_outside);
        let base = moved.as_ref().map_or(&self.inner.url, |moved| &moved.url);
        let path = if base.query().is_some() { path.replacen('?', "&", 1) } else { path.to_owned() };
        let text = format!("{base}{path}");
        // A document called `..` has no URL: whoever parses one takes it for the directory above.
        let url = Url::parse(&text).ok().filter(|url| url.as_str() == text);
        url.map(|url| Place { url, from_outside }).ok_or_else(|| Failed {
            trouble: Trouble::Unsendable,
            asked: None,
            error: PeerError::Malformed {
                request: format!("{}{path}", self.inner.name),
                expected: "a path that a URL can carry",
                found: "a name made of dots".into(),
            },
        })
    }

    /// Remembers that a whole database has moved, so that later requests need no redirect.
    fn learn_move(&self, status: StatusCode, path: &str, to: &Place) {
        let lasting = matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
        let base = to.url.as_str().strip_suffix(path).filter(|base| lasting && base.ends_with('/'));
        if let Some(base) = base.and_then(|base| Url::parse(base).ok()) {
            tracing::info!(from = %self.inner.name, to = %base, "the peer has moved");
            let moved = Place { url: base, from_outside: to.from_outside };
            *self.inner.moved.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(moved);
        }
    }
}

fn broken(error: PeerError) -> PeerError {
    match error {
        PeerError::Unreachable { request, reason, .. } => PeerError::Broken { request, reason },
        error => error,
    }
}

/// Reads an answer whole and makes the result of it; else a failure, with the pause that the peer asks for.
async fn read<T>(call: &Call, answer: Answer, make: impl Fn(Reply) -> Result<T, PeerError>) -> Result<T, Failed> {
    let header = answer.header(RETRY_AFTER.as_str());
    let asked = header.and_then(|header| retry::retry_after(header, SystemTime::now()));
    let broke = |error| Failed { trouble: Trouble::BrokeOff, asked, error };
    let reply = answer.whole_within(call.max_answer).await.and_then(Reply::uncut).map_err(broke)?;
    make(reply).map_err(|error| Failed { trouble: Trouble::Answered(error.blame()), asked, error })
}

fn lost(request: &str, found: String) -> Failed {
    let error = PeerError::Malformed { request: request.to_owned(), expected: "an answer or a redirect", found };
    Failed { trouble: Trouble::Answered(Blame::Lasting), asked: None, error }
}
