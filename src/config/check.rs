//! The rules that settings must keep, each by itself and a few together.

use std::time::Duration;

use super::Config;
use super::admin::MAX_ITERATIONS;
use super::options::ConfigError;

/// What a cookie's `Expires` can say, whatever the year is.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Config {
    /// Whether each setting makes sense, also beside the others.
    pub fn check(&self) -> Result<(), ConfigError> {
        let is_hex = |uuid: &String| uuid.len() == 32 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (replicator, http) = (&self.replicator, &self.http);
        let is_address = |address: &String| {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(['/', '@']));
            port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        };
        let rules = [
            (self.uuid.as_ref().is_none_or(is_hex), "--uuid", "must be 32 hex digits"),
            (self.hostname.as_ref().is_none_or(|name| !name.is_empty()), "--hostname", "must not be empty"),
            (self.local_address.as_ref().is_none_or(is_address), "--local-address", "must be HOST:PORT"),
            (
                self.utils_dir.as_ref().is_none_or(|dir| dir.is_dir()),
                "--utils-dir",
                "must be a directory that is there",
            ),
            (!self.stands_beside_itself(), "--couchdb", "must not be the address that is listened on"),
            (self.couchdb.is_some() || self.couchdb_admin.is_none(), "--couchdb-admin", "needs --couchdb"),
            (self.couchdb_admin.is_some() || self.take_over.is_none(), "--take-over", "needs --couchdb-admin-file"),
            (
                self.replicator.run_documents || self.take_over.is_none(),
                "--take-over",
                "needs --run-documents true, which a max_jobs of 0 in --couchdb-ini turns off",
            ),
            (
                !self.replicator.keep_jobs || self.couchdb.is_none() || self.couchdb_admin.is_some(),
                "--keep-jobs",
                "needs --couchdb-admin-file beside a CouchDB",
            ),
            (self.couchdb_session_max.as_secs() > 0, "--couchdb-session-max", "must be at least 1s"),
            (self.couchdb_session_max <= CENTURY, "--couchdb-session-max", "must be at most a hundred years"),
            (self.auth.timeout.as_secs() > 0, "--session-timeout", "must be at least 1s"),
            (self.auth.timeout <= CENTURY, "--session-timeout", "must be at most a hundred years"),
            (self.auth.cookie_domain.as_deref().is_none_or(is_domain), "--cookie-domain", "must be a domain"),
            (is_header(&self.auth.proxy.x_auth_username), "--x-auth-username", "must be a header's name"),
            (is_header(&self.auth.proxy.x_auth_roles), "--x-auth-roles", "must be a header's name"),
            (is_header(&self.auth.proxy.x_auth_token), "--x-auth-token", "must be a header's name"),
            (self.auth.iterations.get() <= MAX_ITERATIONS, "--password-iterations", "must be at most 10,000,000"),
            (replicator.worker_batch_size > 0, "--worker-batch-size", "must be at least 1"),
            (replicator.worker_processes > 0, "--worker-processes", "must be at least 1"),
            (replicator.worker_batch_size <= 100_000, "--worker-batch-size", "must be at most 100,000"),
            (replicator.worker_processes <= 1000, "--worker-processes", "must be at most 1,000"),
            (replicator.http_connections <= 10_000, "--http-connections", "must be at most 10,000"),
            (replicator.connections_per_server <= 100_000, "--connections-per-server", "must be at most 100,000"),
            (replicator.retries_per_request > 0, "--retries-per-request", "must be at least 1"),
            (replicator.http_connections > 0, "--http-connections", "must be at least 1"),
            (replicator.connections_per_server > 0, "--connections-per-server", "must be at least 1"),
            (replicator.batch_bytes > 0, "--batch-bytes", "must be at least 1"),
            (replicator.memory_budget >= replicator.batch_bytes, "--memory-budget", "must be at least --batch-bytes"),
            (!replicator.heartbeat.is_zero(), "--heartbeat", "must be more than nothing"),
            (http.max_bodies_bytes >= http.max_body_bytes, "--max-bodies-bytes", "must be at least --max-body-bytes"),
            (!http.body_pause.is_zero(), "--body-pause", "must be more than nothing"),
            (http.max_requests > 0, "--max-requests", "must be at least 1"),
            (http.max_slow_readers > 0, "--max-slow-readers", "must be at least 1"),
            (!http.reader_pause.is_zero(), "--reader-pause", "must be more than nothing"),
            (http.max_connections > 0, "--max-connections", "must be at least 1"),
            (http.max_header_bytes >= 8192, "--max-header-bytes", "must be at least 8KiB"),
            (replicator.tls.problem().is_none(), "--key-file", "needs a cert_file"),
            (self.store.open_databases > 0, "--open-databases", "must be at least 1"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, option, problem)) => Err(ConfigError::Value { option, problem }),
            None => Ok(()),
        }
    }
}

impl Config {
    /// A request would be passed on to ourselves, for ever.
    fn stands_beside_itself(&self) -> bool {
        self.couchdb.as_ref().is_some_and(|couchdb| couchdb.address() == self.listen)
    }
}

/// Whether this can stand in a cookie's `Domain`.
fn is_domain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

fn is_header(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
