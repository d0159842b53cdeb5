//! Counts requests and answers, around everything else that is done with them.
//!
//! A request counts when the head of its answer is there, and that is how long it took: a feed or an attachment goes on for
//! as long as its reader likes. Durations are kept by the recorder of the metrics' exporter, which this server has for
//! itself. It gathers samples until it is told to sum them up; so it is told after each [`SAMPLES`] requests, whether
//! anybody asks for metrics or not.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::counters::{Counter, Gauge};

/// Those that CouchDB counts, and all others together.
pub const METHODS: [&str; 8] = ["COPY", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "other"];
/// Classes of statuses.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Statuses that there are.
const CODES: std::ops::Range<usize> = 100..600;

/// Our own name of the durations, by method.
const DURATION: &str = "couchrep_http_request_duration_seconds";
/// CouchDB's, of all.
const REQUEST_TIME: &str = "couchdb_request_time_seconds";
/// Upper bounds in seconds: from what a lookup takes to what only a replication does.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// As CouchDB has them.
const QUANTILES: [f64; 6] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999];
/// Requests after which durations are summed up.
const SAMPLES: u64 = 1024;
const METADATA: Metadata<'_> = Metadata::new("couchrep", Level::INFO, None);

/// What is counted. Cheap to clone.
#[derive(Clone)]
pub struct Traffic {
    inner: Arc<Inner>,
    /// Connections that are open.
    pub connections: Gauge,
    /// Clients that wait in a feed of changes, or read one that goes on.
    pub feeds: Gauge,
}

struct Inner {
    requests: Counter,
    bulk_requests: Counter,
    by_method: [[Counter; CLASSES.len()]; METHODS.len()],
    by_code: Box<[Counter]>,
    recorder: PrometheusRecorder,
    durations: [Histogram; METHODS.len()],
    request_time: Histogram,
}

impl Default for Traffic {
    fn default() -> Self {
        let builder = PrometheusBuilder::new()
            .set_quantiles(&QUANTILES)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Full(DURATION.into()), &BUCKETS));
        let recorder = builder.expect("there are quantiles and buckets").build_recorder();
        let help = "time from a request to the head of its answer";
        recorder.describe_histogram(KeyName::from(DURATION), Some(Unit::Seconds), help.into());
        let help = "length of a request inside couchrep, until the head of its answer";
        recorder.describe_histogram(KeyName::from(REQUEST_TIME), Some(Unit::Seconds), help.into());
        let of_method = |method: &'static str| Key::from_parts(DURATION, vec![Label::new("method", method)]);
        let inner = Inner {
            requests: Counter::default(),
            bulk_requests: Counter::default(),
            by_method: Default::default(),
            by_code: CODES.map(|_| Counter::default()).collect(),
            durations: METHODS.map(|method| recorder.register_histogram(&of_method(method), &METADATA)),
            request_time: recorder.register_histogram(&Key::from_static_name(REQUEST_TIME), &METADATA),
            recorder,
        };
        Self { inner: Arc::new(inner), connections: Gauge::default(), feeds: Gauge::default() }
    }
}

impl Traffic {
    /// Requests for many documents.
    pub fn bulk_requests(&self) -> &Counter {
        &self.inner.bulk_requests
    }

    /// All requests that were answered.
    pub fn requests(&self) -> u64 {
        self.inner.requests.get()
    }

    /// Requests by method and by class of their answers' statuses.
    pub fn by_method_and_class(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        METHODS.into_iter().zip(&self.inner.by_method).flat_map(|(method, counters)| {
            CLASSES.into_iter().zip(counters).map(move |(class, counter)| (method, class, counter.get()))
        })
    }

    /// Requests by method.
    pub fn by_method(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sum = |counters: &[Counter; CLASSES.len()]| counters.iter().map(Counter::get).sum();
        METHODS.into_iter().zip(self.inner.by_method.iter().map(sum))
    }

    /// Answers by status: those that `always` names, and others that there were.
    pub fn by_code(&self, always: &[u16]) -> Vec<(u16, u64)> {
        let codes = CODES.zip(&self.inner.by_code).map(|(code, counter)| (code as u16, counter.get()));
        codes.filter(|(code, count)| *count > 0 || always.contains(code)).collect()
    }

    /// Durations, as Prometheus reads them.
    pub fn durations(&self) -> String {
        self.inner.recorder.handle().render()
    }

    /// Counts an answer whose head is there.
    pub(super) fn answered(&self, method: &Method, status: StatusCode, started: Instant) {
        let inner = &self.inner;
        let last = METHODS.len() - 1;
        let method = METHODS[..last].iter().position(|known| *known == method.as_str()).unwrap_or(last);
        let code = usize::from(status.as_u16()).clamp(CODES.start, CODES.end - 1);
        inner.by_method[method][code / 100 - 1].increment();
        inner.by_code[code - CODES.start].increment();
        let seconds = started.elapsed().as_secs_f64();
        inner.durations[method].record(seconds);
        inner.request_time.record(seconds);
        inner.requests.increment();
        if inner.requests.get().is_multiple_of(SAMPLES) {
            inner.recorder.handle().run_upkeep();
        }
    }
}

/// Counts a request.
pub async fn count(State(traffic): State<Traffic>, request: Request, next: Next) -> Response {
    let (method, started) = (request.method().clone(), Instant::now());
    let response = next.run(request).await;
    traffic.answered(&method, response.status(), started);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_method_class_and_status() {
        let traffic = Traffic::default();
        for (method, status) in [("GET", 200), ("GET", 404), ("COPY", 201), ("PATCH", 405), ("GET", 200)] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            traffic.answered(&method, StatusCode::from_u16(status).unwrap(), Instant::now());
        }
        let counted: Vec<_> = traffic.by_method_and_class().filter(|(.., count)| *count > 0).collect();
        let expected = [("COPY", "2xx", 1), ("GET", "2xx", 2), ("GET", "4xx", 1), ("other", "4xx", 1)];
        assert_eq!((counted.as_slice(), traffic.requests()), (&expected[..], 5));
        assert_eq!(traffic.by_method().find(|(method, _)| *method == "GET"), Some(("GET", 3)));
        assert_eq!(traffic.by_code(&[206]), [(200, 2), (201, 1), (206, 0), (404, 1), (405, 1)]);
        let durations = traffic.durations();
        for line in [
            "# TYPE couchrep_http_request_duration_seconds histogram",
            "couchrep_http_request_duration_seconds_count{method=\"GET\"} 3",
            "couchdb_request_time_seconds_count 5",
        ] {
            assert!(durations.lines().any(|found| found == line), "{line}: {durations}");
        }
    }

    /// The recorder would keep each duration until somebody asks.
    #[test]
    fn durations_are_summed_up_though_nobody_asks() {
        let traffic = Traffic::default();
        for _ in 0..3 * SAMPLES {
            traffic.answered(&Method::PUT, StatusCode::CREATED, Instant::now());
        }
        let count = format!("couchrep_http_request_duration_seconds_count{{method=\"PUT\"}} {}", 3 * SAMPLES);
        assert!(traffic.durations().lines().any(|line| line == count), "{}", traffic.durations());
    }
}
