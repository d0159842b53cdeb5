//! What the server makes itself where nothing is set, and keeps: the secret of sessions, and a hash in place of each password of
//! an administrator.
//!
//! A session ends with its secret and with its user's salt, and so both outlive the process.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::error::SettingsError;
use crate::config::{Admin, Config, Password};
use crate::{data_file, uuids};

/// At the start: fills in what isn't set, and hashes what isn't hashed, with the hashes of the starts before. It may take long.
pub(super) fn complete(config: &mut Config) -> Result<(), SettingsError> {
    hash_as_before(&config.data_dir, &mut config.admins, config.auth.iterations)?;
    complete_change(config, config.auth.iterations)
}

/// The same after a change.
pub(super) fn complete_change(config: &mut Config, iterations: NonZeroU32) -> Result<(), SettingsError> {
    for admin in &mut config.admins {
        if let Password::Plain(password) = &admin.password {
            admin.password = hash(password, iterations);
        }
    }
    if config.auth.secret.is_none() {
        config.auth.secret = Some(secret(&config.data_dir)?);
    }
    Ok(())
}

fn hash(password: &SecretString, iterations: NonZeroU32) -> Password {
    Password::hash(password.expose_secret(), &uuids::random(), iterations)
}

const SECRET_FILE: &str = "session.secret";
const ADMINS_FILE: &str = "admins.hashed";

/// The kept secret, else a new one, which is kept.
fn secret(dir: &Path) -> Result<SecretString, SettingsError> {
    let path = dir.join(SECRET_FILE);
    let read = || match data_file::read(&path)? {
        Some(text) if text.trim().is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty")),
        Some(text) => Ok(text.trim().to_owned()),
        None => {
            let secret = uuids::random();
            data_file::write(&path, &secret).map(|()| secret)
        }
    };
    let secret = read();
    secret.map(SecretString::from).map_err(|source| SettingsError::File { path, source })
}

/// Gives each administrator a hash: a password that isn't hashed gets the hash that is kept for it, else a new one, which is
/// kept. A hash of another password is replaced, and one of somebody who isn't named any more is forgotten.
fn hash_as_before(dir: &Path, admins: &mut [Admin], iterations: NonZeroU32) -> Result<(), SettingsError> {
    if admins.iter().all(|admin| admin.password.salt().is_some()) {
        return Ok(());
    }
    let path = dir.join(ADMINS_FILE);
    let failed = |source| SettingsError::File { path: path.clone(), source };
    let text = data_file::read(&path).map_err(failed)?.unwrap_or_else(|| "{}".into());
    let old: BTreeMap<String, String> = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
    let mut new = BTreeMap::new();
    for admin in admins {
        let Password::Plain(password) = &admin.password else { continue };
        let known = old.get(&admin.name).and_then(|hash| Admin::new(&admin.name, hash).ok());
        let known = known.map(|known| known.password).filter(|known| known.is(password.expose_secret()));
        let hash = known.unwrap_or_else(|| hash(password, iterations));
        new.extend(hash.hashed_text().map(|text| (admin.name.clone(), text)));
        admin.password = hash;
    }
    if new != old {
        let text = serde_json::to_string_pretty(&new).map_err(|error| failed(error.into()))?;
        data_file::write(&path, &text).map_err(failed)?;
    }
    Ok(())
}
