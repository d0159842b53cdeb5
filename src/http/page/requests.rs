//! What couchrep's own page asks: all jobs at a glance, one of them, and what may be done with it.
//!
//! `GET /_couchrep/jobs`, `GET` and `POST /_couchrep/jobs/{id}`, `POST /_couchrep/check`, `POST /_couchrep/verify`. CouchDB has none of them.
//! Whoever may replicate may ask, of his own jobs alone, and a server admin of all. An overview that is still the same is answered
//! 304: its tag is a hash over all of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Extension, Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::access::Caller;
use crate::http::answer::Sink;
use crate::http::attachments::accepts_gzip;
use crate::http::error::ApiError;
use crate::http::open_requests::RequestPermit;
use crate::http::query::Query;
use crate::http::request::Payload;
use crate::http::scheduler::{count, states};
use crate::http::{AppState, answer, replication};
use crate::jobs::checking::{CheckedEnd, Found};
use crate::jobs::listing::Action;
use crate::jobs::overview::{Overview, Wanted};
use crate::jobs::trends::STEP;
use crate::json::MAX_VALUE_BYTES;
use crate::replicate::ReplicateError;
use crate::verify::Report;

/// Jobs of an answer that doesn't say how many it wants, and at most.
const JOBS: u64 = 50;
const MAX_JOBS: u64 = 500;
/// Bytes of what is to be done.
const MAX_ACTION_BYTES: usize = 1 << 10;
/// Between two lines that say how far a comparison is.
const PROGRESS_PAUSE: Duration = Duration::from_millis(500);

/// `GET /_couchrep/jobs?limit=&skip=&states=&search=`.
pub async fn jobs(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Shown<'a> {
        server: Value,
        #[serde(flatten)]
        overview: &'a Overview,
    }
    let wanted = Wanted {
        states: states(&query)?,
        search: query.get("search").unwrap_or_default().to_owned(),
        skip: count(query.number("skip")?.unwrap_or(0)),
        limit: count(query.number("limit")?.unwrap_or(JOBS).min(MAX_JOBS)),
    };
    let encode = {
        let (state, caller) = (state.clone(), caller.clone());
        move |overview: &Overview| {
            let server = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "node": state.jobs.node(),
                "beside_couchdb": state.couchdb_url().is_some(),
                // Where it is, is the operator's business.
                "couchdb": state.couchdb_url().filter(|_| caller.is_server_admin()),
                "admin": caller.is_server_admin(),
                "name": caller.name,
                "documents": overview.documents,
                "refresh_ms": u64::try_from(overview.refresh.as_millis()).unwrap_or(u64::MAX),
                "trend_seconds": STEP.as_secs(),
            });
            serde_json::to_vec(&Shown { server, overview }).unwrap_or_default()
        }
    };
    let answered = state.jobs.overview(wanted, &caller, encode).await?;
    // Weak, since it stands for the gzipped text too.
    let etag = HeaderValue::from_str(&format!("W/\"{}\"", answered.etag)).map_err(|_| ApiError::Crashed)?;
    let mut response = match answer::has_already(&headers, &answered.etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false if accepts_gzip(&headers) => {
            let coding = (CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            ([(CONTENT_TYPE, answer::APPLICATION_JSON), coding], answered.gzipped.clone()).into_response()
        }
        false => ([(CONTENT_TYPE, answer::APPLICATION_JSON)], answered.text.clone()).into_response(),
    };
    response.headers_mut().extend(Some((ETAG, etag)));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

/// `GET /_couchrep/jobs/{id}`.
pub async fn job(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let details = state.jobs.details(&id, &caller).ok_or(ApiError::Missing)?;
    Ok(answer::json(StatusCode::OK, &details))
}

/// What may be done with a job.
#[derive(Deserialize)]
#[serde(untagged)]
enum Act {
    Job(Action),
    Failures(RetryFailures),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RetryFailures {
    RetryFailures,
}

/// `POST /_couchrep/jobs/{id}` with `{"action": "pause" | "resume" | "retry_now" | "retry_failures"}`.
pub async fn act(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(place): Extension<RequestPermit>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    struct Asked {
        action: Act,
    }
    let unknown = "`action` must be `pause`, `resume`, `retry_now` or `retry_failures`";
    let Asked { action } = payload.limited(MAX_ACTION_BYTES).parsed(unknown).await?;
    let action = match action {
        Act::Job(action) => action,
        Act::Failures(RetryFailures::RetryFailures) => {
            place.leave();
            return Ok(replication::told(state.jobs.retry_failures(&id, &caller).await, None));
        }
    };
    state.jobs.details(&id, &caller).ok_or(ApiError::Missing)?;
    state.jobs.act(&id, action).await?.ok_or(ApiError::Missing)?;
    state.jobs.is_wanted_anew();
    let details = state.jobs.details(&id, &caller).ok_or(ApiError::Missing)?;
    Ok(answer::json(StatusCode::OK, &details))
}

/// `POST /_couchrep/check`: looks at both ends of what would be asked for at `_replicate`.
pub async fn check(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(place): Extension<RequestPermit>,
    payload: Payload,
) -> Result<Response, ApiError> {
    let request: Map<String, Value> =
        payload.limited(MAX_VALUE_BYTES).parsed("Request body must be a JSON object").await?;
    place.leave();
    let checked = state.jobs.check(&request, &caller).await?;
    let mut answered = json!({
        "ok": checked.source.found.is_ok() && checked.target.found.is_ok() && checked.id.is_ok(),
        "source": end(checked.source),
        "target": end(checked.target),
        "id": checked.id.as_ref().ok().cloned().flatten(),
        "running": checked.running,
    });
    if let Err(error) = checked.id {
        add(&mut answered, error);
    }
    Ok(answer::json(StatusCode::OK, &answered))
}

fn end(CheckedEnd { url, found }: CheckedEnd) -> Value {
    match found {
        Ok(Found::Documents(count)) => json!({ "ok": true, "url": url, "doc_count": count, "missing": false }),
        Ok(Found::ToBeMade) => json!({ "ok": true, "url": url, "doc_count": 0, "missing": true }),
        Err(error) => {
            let mut answered = json!({ "ok": false, "url": url });
            add(&mut answered, error);
            answered
        }
    }
}

fn add(answered: &mut Value, error: ReplicateError) {
    let error = ApiError::from(error);
    let (error, reason) = error.pair();
    (answered["error"], answered["reason"]) = (error.into(), reason.into());
}

/// `POST /_couchrep/verify` with `{"id"}`: compares the databases of a job, and says line by line how far it is; the last line is the
/// result. Whoever hangs up ends it.
pub async fn verify(
    State(state): State<AppState>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(place): Extension<RequestPermit>,
    payload: Payload,
) -> Result<Response, ApiError> {
    #[derive(Deserialize)]
    struct Asked {
        id: String,
    }
    let Asked { id } = payload.limited(MAX_ACTION_BYTES).parsed("`id` must be a string").await?;
    state.jobs.details(&id, &caller).ok_or(ApiError::Missing)?;
    place.leave();
    let jobs = state.jobs.clone();
    let write = move |sink: Sink| async move {
        let newest = Mutex::new(None);
        let note = |report: &Report| {
            let line = json!({ "compared": report.docs, "missing": report.differences });
            *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        };
        let mut comparing = std::pin::pin!(jobs.verify(&id, &caller, note));
        sink.send("\n").await?;
        let compared = loop {
            tokio::select! {
                biased;
                compared = &mut comparing => break compared,
                () = sink.hung_up() => return Err(answer::Stopped::HungUp),
                () = tokio::time::sleep(PROGRESS_PAUSE) => {}
            }
            let line = newest.lock().unwrap_or_else(PoisonError::into_inner).take();
            sink.send(line.map_or_else(|| "\n".to_owned(), |line| format!("{line}\n"))).await?;
        };
        sink.send(match compared {
            Ok(report) => format!("{}\n", result(&report)),
            Err(error) => answer::error_line(&error.into()),
        })
        .await
    };
    let body = answer::streamed(&state.tasks, "_couchrep/verify", write).await?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))], body).into_response())
}

fn result(report: &Report) -> Value {
    let (compared, missing) = (report.docs, report.differences);
    json!({ "ok": report.is_complete(), "compared": compared, "missing": missing, "differences": report.named })
}
