//! How many files the server may have open, sockets among them.
//!
//! A process starts with a soft limit, 1,024 on most machines, and may raise it as far as its hard limit. The low limit is
//! for programs that use `select`, which knows no higher file numbers; nothing here does. Without a raise, some hundred
//! clients that wait in a feed would leave no file for the databases.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// What is open besides clients' connections and the databases that are kept open: the log, the registry, files of
/// attachments, connections of replications.
const OTHERS: u64 = 512;

/// Raises the soft limit to the hard one; warns if less may be open than the settings allow for.
pub fn allow(config: &Config) {
    let wanted = wanted(config);
    let limit = getrlimit(Resource::Nofile);
    let raised = raised(limit, wanted);
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::debug!(%error, "could not raise the limit of open files");
            limit.current
        }
    };
    if let Some(allowed) = allowed.filter(|allowed| *allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than --max-connections and --open-databases allow for: raise the limit (ulimit -n) or lower these"
        );
    }
}

fn wanted(config: &Config) -> u64 {
    // Beside a CouchDB each connection may need another one to it.
    let behind = if config.couchdb.is_some() { config.http.max_connections } else { config.store.open_databases };
    let counted = config.http.max_connections.saturating_add(behind);
    u64::try_from(counted).unwrap_or(u64::MAX).saturating_add(OTHERS)
}

/// The limit to ask for. Without a hard limit it is what is wanted, since not every system takes a soft limit of infinity.
fn raised(limit: Rlimit, wanted: u64) -> Rlimit {
    let current = limit.current.map(|current| limit.maximum.unwrap_or(wanted).max(current));
    Rlimit { current, ..limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_rises_to_the_hard_one_and_never_sinks() {
        let soft = |current, maximum| raised(Rlimit { current, maximum }, 17_000).current;
        assert_eq!(soft(Some(1024), Some(524_288)), Some(524_288));
        assert_eq!(soft(Some(1024), Some(4096)), Some(4096));
        assert_eq!(soft(Some(1024), None), Some(17_000));
        assert_eq!(soft(Some(50_000), None), Some(50_000));
        assert_eq!(soft(None, None), None);
    }

    #[test]
    fn connections_and_open_databases_are_wanted() {
        let mut config = Config::default();
        (config.http.max_connections, config.store.open_databases) = (100, 10);
        assert_eq!(wanted(&config), 110 + OTHERS);
    }
}
