//! Numbers that CouchDB 3.5 has too, under its names and with its words, as far as they are true here.
//!
//! Beside a CouchDB only those of the replicator are told: the others are its own, and it tells them. Left out are those of what isn't here (views, Mango queries, shards, Erlang), of the replicator's own processes, and those
//! that nobody counts here: documents read, log lines.

use metrics_process::collector::Metrics as Process;

use super::figure::{Figure, counter, gauge};
use crate::accounts::Accounts;
use crate::counters::{JobFigures, ReplicatorCounters};
use crate::http::AppState;
use crate::http::state::Backend;
use crate::store::Store;

/// Statuses that CouchDB always tells.
const CODES: [u16; 25] = [
    200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 406, 409, 412, 413, 414, 415, 416, 417, 500, 501,
    503, 507,
];

/// All of them.
pub fn figures(state: &AppState, process: &Process, jobs: &[JobFigures]) -> Vec<Figure> {
    let mut figures = replicator(state.clients.counters(), jobs);
    if let Backend::Embedded { store, accounts } = &state.backend {
        figures.extend(server(state, process, (store, accounts)));
    }
    figures
}

fn replicator(counters: &ReplicatorCounters, jobs: &[JobFigures]) -> Vec<Figure> {
    let in_state = |state: &str| jobs.iter().filter(|job| job.state == state).count();
    vec![
        counter("couchdb_couch_replicator_requests_total", "number of HTTP requests made by the replicator")
            .at("couch_replicator.requests")
            .of(counters.requests.get()),
        counter("couchdb_couch_replicator_responses_total", "number of HTTP responses received by the replicator")
            .at("couch_replicator.responses.success")
            .of(counters.responses.get()),
        counter(
            "couchdb_couch_replicator_responses_failure_total",
            "number of failed HTTP responses received by the replicator",
        )
        .at("couch_replicator.responses.failure")
        .of(counters.response_failures.get()),
        counter("couchdb_couch_replicator_connection_creates_total", "number of connections created")
            .at("couch_replicator.connection.creates")
            .of(counters.connections.get()),
        counter(
            "couchdb_couch_replicator_changes_read_failures_total",
            "number of failed replicator changes read failures",
        )
        .at("couch_replicator.changes_read_failures")
        .of(counters.changes_read_failures.get()),
        counter("couchdb_couch_replicator_checkpoints_total", "number of checkpoint saves")
            .at("couch_replicator.checkpoints.success")
            .of(counters.checkpoints.get()),
        counter("couchdb_couch_replicator_checkpoints_failure_total", "number of failed checkpoint saves")
            .at("couch_replicator.checkpoints.failure")
            .of(counters.checkpoint_failures.get()),
        counter("couchdb_couch_replicator_jobs_adds_total", "number of jobs added to replicator scheduler")
            .at("couch_replicator.jobs.adds")
            .of(counters.jobs_added.get()),
        counter(
            "couchdb_couch_replicator_jobs_duplicate_adds_total",
            "number of duplicate jobs added to replicator scheduler",
        )
        .at("couch_replicator.jobs.duplicate_adds")
        .of(counters.jobs_added_again.get()),
        counter("couchdb_couch_replicator_jobs_removes_total", "number of jobs removed from replicator scheduler")
            .at("couch_replicator.jobs.removes")
            .of(counters.jobs_removed.get()),
        counter("couchdb_couch_replicator_jobs_starts_total", "number of jobs started by replicator scheduler")
            .at("couch_replicator.jobs.starts")
            .of(counters.jobs_started.get()),
        counter("couchdb_couch_replicator_jobs_stops_total", "number of jobs stopped by replicator scheduler")
            .at("couch_replicator.jobs.stops")
            .of(counters.jobs_stopped.get()),
        counter("couchdb_couch_replicator_jobs_crashes_total", "number of job crashed noticed by replicator scheduler")
            .at("couch_replicator.jobs.crashes")
            .of(counters.jobs_crashed.get()),
        counter(
            "couchdb_couch_replicator_docs_completed_state_updates_total",
            "number of 'completed' state document updates",
        )
        .at("couch_replicator.docs.completed_state_updates")
        .of(counters.docs_completed.get()),
        counter(
            "couchdb_couch_replicator_docs_failed_state_updates_total",
            "number of 'failed' state document updates",
        )
        .at("couch_replicator.docs.failed_state_updates")
        .of(counters.docs_failed.get()),
        gauge("couchdb_couch_replicator_jobs_running", "replicator scheduler running jobs")
            .at("couch_replicator.jobs.running")
            .of(in_state("running")),
        gauge("couchdb_couch_replicator_jobs_pending", "replicator scheduler pending jobs")
            .at("couch_replicator.jobs.pending")
            .of(in_state("pending")),
        gauge("couchdb_couch_replicator_jobs_crashed", "replicator scheduler crashed jobs")
            .at("couch_replicator.jobs.crashed")
            .of(in_state("crashing")),
        gauge("couchdb_couch_replicator_jobs_total", "total number of replicator scheduler jobs")
            .at("couch_replicator.jobs.total")
            .of(jobs.len()),
    ]
}

fn server(state: &AppState, process: &Process, (databases, accounts): (&Store, &Accounts)) -> Vec<Figure> {
    let (traffic, logins, store) = (&state.traffic, accounts.logins(), databases.counters());
    let methods = counter("couchdb_httpd_request_methods", "number of HTTP requests by method");
    let codes = counter("couchdb_httpd_status_codes", "number of HTTP responses by status code");
    vec![
        counter("couchdb_httpd_requests_total", "number of HTTP requests")
            .at("couchdb.httpd.requests")
            .of(traffic.requests()),
        traffic
            .by_method()
            .filter(|(method, _)| *method != "other")
            .fold(methods.at("couchdb.httpd_request_methods"), |methods, (method, count)| {
                methods.with([("method", method.to_owned())], count)
            }),
        traffic.by_code(&CODES).into_iter().fold(codes.at("couchdb.httpd_status_codes"), |codes, (code, count)| {
            codes.with([("code", code.to_string())], count)
        }),
        counter("couchdb_httpd_bulk_requests_total", "number of bulk requests")
            .at("couchdb.httpd.bulk_requests")
            .of(traffic.bulk_requests().get()),
        gauge("couchdb_httpd_clients_requesting_changes", "number of clients for continuous _changes")
            .at("couchdb.httpd.clients_requesting_changes")
            .of(traffic.feeds.get()),
        gauge("couchdb_open_databases", "number of open databases")
            .at("couchdb.open_databases")
            .of(databases.open_databases()),
        gauge("couchdb_open_os_files", "number of file descriptors that the server has open")
            .at("couchdb.open_os_files")
            .if_known(process.open_fds),
        counter("couchdb_commits_total", "number of commits performed")
            .at("couchdb.commits")
            .of(store.synced_commits.get()),
        counter("couchdb_document_writes_total", "number of document write operations")
            .at("couchdb.document_writes")
            .of(store.document_writes.get()),
        counter("couchdb_local_document_writes_total", "number of _local document write operations")
            .at("couchdb.local_document_writes")
            .of(store.local_document_writes.get()),
        counter("couchdb_password_hashing_slow_total", "number of slow password hashing operations")
            .at("couchdb.password_hashing_slow")
            .of(logins.hashed.get()),
        counter("couchdb_password_hashing_fast_total", "number of fast password hashing operations")
            .at("couchdb.password_hashing_fast")
            .of(logins.remembered.get()),
        counter("couchdb_uptime_seconds", "couchdb uptime").of(state.started.elapsed().as_secs()),
    ]
}
