//! Numbers that CouchDB doesn't have, and those of the process, under Prometheus' own names.

use metrics_process::collector::Metrics as Process;

use super::figure::{Figure, counter, gauge};
use crate::accounts::Accounts;
use crate::http::AppState;
use crate::http::state::Backend;
use crate::store::Store;

/// All but those of jobs.
pub fn figures(state: &AppState, process: &Process, file_bytes: u64) -> Vec<Figure> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let ready = u64::from(state.availability.is_up());
    let mut figures = vec![
        gauge("couchrep_build_info", "always 1; the version is a label").with([("version", version)], 1_u64),
        gauge("couchrep_ready", "1 if the server is up, 0 while it starts or stops").of(ready),
        gauge("couchrep_tasks", "tasks of the process that haven't ended")
            .of(tokio::runtime::Handle::current().metrics().num_alive_tasks()),
    ];
    figures.extend(http(state));
    figures.extend(memory(state));
    figures.extend(peers(state));
    if let Backend::Embedded { store: databases, accounts } = &state.backend {
        figures.extend(store(databases, file_bytes));
        figures.extend(logins(accounts));
    }
    figures.extend(of_process(process));
    figures
}

fn http(state: &AppState) -> Vec<Figure> {
    let (traffic, permits) = (&state.traffic, &state.permits);
    let limits = &state.settings.current().http;
    let mut requests =
        counter("couchrep_http_requests_total", "requests answered, by method and class of the answer's status");
    for (method, class, count) in traffic.by_method_and_class() {
        requests = requests.with([("method", method.to_owned()), ("class", class.to_owned())], count);
    }
    vec![
        requests,
        counter("couchrep_http_requests_refused_total", "requests answered 503 because too many were worked on")
            .of(permits.refused()),
        gauge("couchrep_http_requests_open", "requests whose answers aren't sent to their ends; waiting feeds count")
            .of(permits.open()),
        gauge("couchrep_http_requests_working", "requests that are worked on; further ones than the limit are refused")
            .of(permits.working()),
        gauge("couchrep_http_requests_limit", "requests that may be worked on at once").of(permits.most()),
        gauge("couchrep_http_slow_readers", "answers whose clients have stopped reading").of(permits.slow_readers()),
        gauge("couchrep_http_connections", "connections that are open").of(traffic.connections.get()),
        gauge("couchrep_http_connections_limit", "connections that may be open; further ones wait")
            .of(limits.max_connections),
    ]
}

fn memory(state: &AppState) -> Vec<Figure> {
    let limits = &state.settings.current().http;
    let bodies = limits.max_bodies_bytes.saturating_sub(state.bodies.available_permits());
    let answers = limits.max_answers_bytes.saturating_sub(state.answers.free_bytes());
    let parts = [
        ("replications", state.budget.in_use(), state.budget.bytes()),
        ("request_bodies", bodies, limits.max_bodies_bytes),
        ("answers", answers, limits.max_answers_bytes),
    ];
    let mut used = gauge("couchrep_memory_bytes", "bytes taken of a budget of memory");
    let mut limit = gauge("couchrep_memory_limit_bytes", "bytes that such a budget has");
    for (budget, bytes, most) in parts {
        used = used.with([("budget", budget.to_owned())], bytes);
        limit = limit.with([("budget", budget.to_owned())], most);
    }
    vec![used, limit]
}

fn store(databases: &Store, file_bytes: u64) -> Vec<Figure> {
    let counters = databases.counters();
    vec![
        gauge("couchrep_store_databases", "databases that there are").of(databases.names().len()),
        gauge("couchrep_store_file_bytes", "bytes of all databases' files").of(file_bytes),
        counter("couchrep_store_commits_total", "transactions, by whether they were synced when they were answered")
            .with([("synced", "true".into())], counters.synced_commits.get())
            .with([("synced", "false".into())], counters.unsynced_commits.get()),
    ]
}

fn peers(state: &AppState) -> Vec<Figure> {
    let (counters, load) = (state.clients.counters(), state.clients.load());
    vec![
        gauge("couchrep_peer_servers", "servers that replications talk to or talked to lately").of(load.servers),
        gauge("couchrep_peer_requests_working", "requests to peers that are under way, without waiting feeds")
            .of(load.requests),
        gauge("couchrep_peer_requests_waiting", "requests to peers that wait for others of ours").of(load.waiting),
        counter("couchrep_peer_requests_unanswered_total", "requests to peers that got no answer")
            .of(counters.unanswered.get()),
    ]
}

fn logins(accounts: &Accounts) -> Vec<Figure> {
    let logins = accounts.logins();
    let outcomes = [("accepted", &logins.accepted), ("refused", &logins.refused), ("busy", &logins.busy)];
    let all = counter("couchrep_logins_total", "names and passwords that came, by what became of them");
    let all = outcomes
        .into_iter()
        .fold(all, |all, (outcome, counter)| all.with([("outcome", outcome.to_owned())], counter.get()));
    let held_up = "logins that had to wait because of wrong passwords before";
    vec![all, counter("couchrep_logins_held_up_total", held_up).of(logins.held_up.get())]
}

fn of_process(process: &Process) -> Vec<Figure> {
    vec![
        // A counter by its nature, but the exporter's have no fractions.
        gauge("process_cpu_seconds_total", "total user and system CPU time spent in seconds")
            .if_known(process.cpu_seconds_total),
        gauge("process_resident_memory_bytes", "resident memory size in bytes").if_known(process.resident_memory_bytes),
        gauge("process_virtual_memory_bytes", "virtual memory size in bytes").if_known(process.virtual_memory_bytes),
        gauge("process_open_fds", "number of open file descriptors").if_known(process.open_fds),
        gauge("process_max_fds", "maximum number of open file descriptors").if_known(process.max_fds),
        gauge("process_threads", "number of threads").if_known(process.threads),
        gauge("process_start_time_seconds", "start time of the process since the unix epoch in seconds")
            .if_known(process.start_time_seconds),
    ]
}
