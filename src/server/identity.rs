//! Who the server is, as far as replication ids depend on it.
//!
//! The uuid is taken as given, else made once and kept in the data dir. It must stay the same over restarts, or no
//! checkpoint is found again.

use std::io;
use std::path::Path;

use super::start_error::StartError;
use crate::config::Config;
use crate::replicate::id::Identity;
use crate::{data_file, tasks, uuids};

const FILE: &str = "server.uuid";

/// Who the server is that listens on `listening` (`host:port`) and has this uuid.
pub fn of(config: &Config, listening: &str, uuid: &str) -> Identity {
    let own_name = || {
        let name = gethostname::gethostname().to_string_lossy().into_owned();
        // As Erlang's `inet:gethostname/0`.
        name.split('.').next().map_or(String::new(), str::to_owned)
    };
    Identity {
        uuid: uuid.to_owned(),
        address: config.local_address.clone().unwrap_or_else(|| listening.to_owned()),
        hostname: config.hostname.clone().unwrap_or_else(own_name),
        httpd_port: config.httpd_port,
    }
}

/// The uuid of the settings, else the kept one, else a new one, which is kept.
pub async fn uuid(config: &Config) -> Result<String, StartError> {
    if let Some(uuid) = &config.uuid {
        return Ok(uuid.clone());
    }
    let dir = config.data_dir.clone();
    let kept = tasks::blocking("server uuid", move || read_or_make(&dir)).await;
    kept.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(|source| StartError::DataDir { dir: config.data_dir.clone(), source })
}

/// The uuid of the settings, else the kept one, for who isn't the server; `None` if there is none, or if it can't be read.
pub fn known_uuid(config: &Config) -> Option<String> {
    config.uuid.clone().or_else(|| kept(&config.data_dir).ok().flatten())
}

fn read_or_make(dir: &Path) -> io::Result<String> {
    if let Some(uuid) = kept(dir)? {
        return Ok(uuid);
    }
    let uuid = uuids::random();
    data_file::write(&dir.join(FILE), &uuid)?;
    Ok(uuid)
}

fn kept(dir: &Path) -> io::Result<Option<String>> {
    let Some(text) = data_file::read(&dir.join(FILE))? else { return Ok(None) };
    let uuid = text.trim();
    let whole = uuid.len() == 32 && uuid.bytes().all(|byte| byte.is_ascii_hexdigit());
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("{FILE} doesn't hold 32 hex digits"));
    whole.then(|| Some(uuid.to_owned())).ok_or_else(damaged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_uuid_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("not/there/yet");
        let made = read_or_make(&data_dir).unwrap();
        assert_eq!(made.len(), 32);
        assert_eq!(read_or_make(&data_dir).unwrap(), made);
    }

    #[test]
    fn a_damaged_uuid_is_an_error_not_a_new_uuid() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "12ab").unwrap();
        assert_eq!(read_or_make(dir.path()).unwrap_err().to_string(), "server.uuid doesn't hold 32 hex digits");
    }

    #[tokio::test]
    async fn a_given_uuid_wins_and_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let uuid_given = "0123456789abcdef0123456789abcdef";
        let config = Config { uuid: Some(uuid_given.into()), data_dir: dir.path().into(), ..Config::default() };
        assert_eq!(uuid(&config).await.unwrap(), uuid_given);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
