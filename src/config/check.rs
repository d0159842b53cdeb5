//! The rules that settings must keep, each by itself and a few together.

use super::Config;
use super::admin::MAX_ITERATIONS;
use super::options::ConfigError;

impl Config {
    /// Whether each setting makes sense beside the others.
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
            (self.auth.timeout.as_secs() > 0, "--session-timeout", "must be at least 1s"),
            (self.auth.iterations.get() <= MAX_ITERATIONS, "--password-iterations", "must be at most 10,000,000"),
            (replicator.worker_batch_size > 0, "--worker-batch-size", "must be at least 1"),
            (replicator.worker_processes > 0, "--worker-processes", "must be at least 1"),
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
