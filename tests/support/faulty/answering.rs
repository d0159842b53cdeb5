//! What a faulty peer does with a request: passes it on, whole or in part, and answers well, badly or not at all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Fault, Script};

/// Answers a request as the script has it.
pub(super) async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    if *script.down_until.borrow() > Instant::now() {
        disconnect();
    }
    let (request, text) = script.looked_into(request).await;
    match script.fault(&request, &text) {
        None if script.hides_start_times.load(Ordering::Relaxed) && tells_start_time(&request) => {
            changed(script.pass_on(request).await, |bytes| {
                let mut told: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                if let Some(time) = told.get_mut("instance_start_time") {
                    *time = "0".into();
                }
                let text = Bytes::from(told.to_string());
                (text.len(), vec![text])
            })
            .await
        }
        None => script.pass_on(request).await,
        Some(Fault::Answer(status, headers, body)) => {
            // Read to the end, or the client may see a reset instead of the answer.
            let _ = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            response(status, &headers, Body::from(body))
        }
        Some(Fault::ApplyThenFail(status)) => {
            whole(script.pass_on(request).await).await;
            response(status, &[], Body::from("{\"error\":\"fault\",\"reason\":\"applied, then failed\"}"))
        }
        Some(Fault::ApplyThenHang) => {
            whole(script.pass_on(request).await).await;
            std::future::pending().await
        }
        Some(Fault::ApplyThenDisconnect) => {
            whole(script.pass_on(request).await).await;
            disconnect()
        }
        Some(Fault::Disconnect) => disconnect(),
        Some(Fault::Down(pause)) => {
            script.down_until.send_replace(Instant::now() + pause);
            disconnect()
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Silence) => {
            let silence = stream::iter([Ok("\n")]).chain(stream::pending::<Result<_, io::Error>>());
            response(200, &[], Body::from_stream(silence))
        }
        Some(Fault::BreakOff) => {
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(io::Error::other("cut"))
            });
            response(200, &[], Body::from_stream(stream::iter([Ok("\n")]).chain(cut)))
        }
        Some(Fault::Cut(length)) => {
            let (mut head, body) = script.pass_on(request).await.into_parts();
            let bytes = all(body).await;
            head.headers.remove(CONTENT_LENGTH);
            let piece = Ok(bytes.slice(..length.min(bytes.len())));
            // The first piece leaves on its own: hyper drops what is still unsent when a body fails.
            let cut = stream::once(async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Err(std::io::Error::other("cut"))
            });
            Response::from_parts(head, Body::from_stream(stream::iter([piece]).chain(cut)))
        }
        Some(Fault::Truncate(length)) => {
            changed(script.pass_on(request).await, |bytes| {
                (bytes.len().min(length), vec![bytes.slice(..bytes.len().min(length))])
            })
            .await
        }
        Some(Fault::WrongLength(more)) => {
            changed(script.pass_on(request).await, |bytes| (bytes.len().saturating_add_signed(more), vec![bytes])).await
        }
        Some(Fault::Drip(pieces, pause)) => {
            let (mut head, body) = script.pass_on(request).await.into_parts();
            let bytes = all(body).await;
            head.headers.remove(CONTENT_LENGTH);
            let step = bytes.len().div_ceil(pieces).max(1);
            let pieces: Vec<_> = bytes.chunks(step).map(Bytes::copy_from_slice).collect();
            let drip = stream::iter(pieces).then(move |piece| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, io::Error>(piece)
            });
            Response::from_parts(head, Body::from_stream(drip))
        }
        Some(Fault::Until(signal, answer)) => {
            signal.notified().await;
            match answer {
                None => script.pass_on(request).await,
                Some((status, body)) => {
                    response(status, &[("content-type", "application/json".into())], Body::from(body))
                }
            }
        }
        Some(Fault::LineEnds(pause)) => {
            let line_ends = stream::repeat(()).then(move |()| async move {
                tokio::time::sleep(pause).await;
                Ok::<_, io::Error>("\n")
            });
            response(200, &[], Body::from_stream(line_ends))
        }
        Some(Fault::Slow(pause)) => {
            tokio::time::sleep(pause).await;
            script.pass_on(request).await
        }
    }
}

impl Script {
    /// Lets the server behind do it: all of it, or what isn't refused of the documents.
    async fn pass_on(&self, request: Request) -> Response {
        match request.uri().path().ends_with("/_bulk_docs") {
            true => self.pass_on_docs(request).await,
            false => self.forward(request).await,
        }
    }

    async fn pass_on_docs(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        let mut body: Value = serde_json::from_slice(&all(body).await).unwrap();
        let docs = body["docs"].as_array_mut().unwrap();
        let mut refused = Vec::new();
        docs.retain(|doc| {
            let refusal = (self.refuses.lock().unwrap())(doc["_id"].as_str().unwrap());
            if let Some((error, reason)) = refusal {
                let (id, rev) = (&doc["_id"], &doc["_rev"]);
                refused.push(json!({ "id": id, "rev": rev, "error": error, "reason": reason }));
            }
            refusal.is_none()
        });
        if refused.is_empty() || !docs.is_empty() {
            head.headers.remove(CONTENT_LENGTH);
            let passed = self.forward(Request::from_parts(head, Body::from(body.to_string()))).await;
            if refused.is_empty() || !passed.status().is_success() {
                return passed;
            }
        }
        response(201, &[("content-type", "application/json".into())], Body::from(json!(refused).to_string()))
    }

    /// The question for a feed with a smaller limit, if there is to be one.
    fn shortened(&self, target: &str) -> String {
        let most = *self.most_rows.lock().unwrap();
        let (Some(most), Some((path, rest))) = (most, target.split_once("limit=")) else { return target.to_owned() };
        if !path.contains("/_changes?") {
            return target.to_owned();
        }
        let (limit, rest) = rest.split_at(rest.find('&').unwrap_or(rest.len()));
        format!("{path}limit={}{rest}", most.min(limit.parse().unwrap()))
    }

    async fn forward(&self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let upstream = self.upstream.lock().unwrap().clone();
        let target = self.shortened(head.uri.path_and_query().map_or("/", |target| target.as_str()));
        let url = format!("{upstream}{target}");
        let mut request = self.client.request(head.method, url).headers(head.headers.clone());
        if head.headers.get(CONTENT_LENGTH).is_none_or(|length| length != "0") {
            request = request.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return response(502, &[], Body::from(format!("the server behind failed: {error:?}"))),
        };
        let mut passed = Response::new(Body::empty());
        *passed.status_mut() = answer.status();
        *passed.headers_mut() = answer.headers().clone();
        for name in [CONNECTION, TRANSFER_ENCODING] {
            passed.headers_mut().remove(name);
        }
        *passed.body_mut() = Body::from_stream(answer.bytes_stream());
        passed
    }
}

/// Whether a request is answered with an `instance_start_time`.
fn tells_start_time(request: &Request) -> bool {
    let path = request.uri().path();
    let is_database = request.method() == Method::GET && path.trim_matches('/').split('/').count() == 1;
    is_database || path.ends_with("/_ensure_full_commit")
}

/// An answer with another body, and the length that is told of it, whether it is true or not.
async fn changed(response: Response, change: impl FnOnce(Bytes) -> (usize, Vec<Bytes>)) -> Response {
    let (mut head, body) = response.into_parts();
    let (length, pieces) = change(all(body).await);
    head.headers.insert(CONTENT_LENGTH, length.into());
    let body = stream::iter(pieces).map(Ok::<_, io::Error>).chain(stream::once(async {
        // What came before leaves on its own: hyper drops what is still unsent when a connection fails.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Bytes::new())
    }));
    Response::from_parts(head, Body::from_stream(body))
}

async fn whole(response: Response) -> Bytes {
    all(response.into_body()).await
}

/// A body's bytes; where the server behind dies meanwhile, the connection ends as well.
pub(super) async fn all(body: Body) -> Bytes {
    axum::body::to_bytes(body, usize::MAX).await.unwrap_or_else(|_| disconnect())
}

fn response(status: u16, headers: &[(&'static str, String)], body: Body) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(body).unwrap()
}

/// Ends the connection's task, and the connection with it, without the noise of a panic.
fn disconnect() -> ! {
    std::panic::resume_unwind(Box::new("disconnect"))
}
