//! The settings as they are now: those that the server was started with, and over them what was put since
//! (`PUT /_node/_local/_config/…`).
//!
//! What was put is kept in the data directory and counts at the next start too, over options and files, as the last of CouchDB's
//! `ini` files does. A setting that is deleted is what it is by default, until a start gives it again. One change is made
//! after another: it is checked beside all other settings, kept, and then shown to everybody at once; if it can't be kept,
//! nothing has changed. A change that nobody waits for any more is made all the same.
//!
//! Whoever asks for a setting each time ([`Settings::current`]) sees changes. What was read at the start alone stays as it was:
//! `[replicator]`, `uuid` and `iterations`.
//!
//! No password of an administrator is kept or shown as it came ([`secrets`]); keys of tokens and the secret are kept as they came,
//! in a file for its owner alone, and not shown. A damaged file, or a setting in it that can't be taken any more, stops the start.
//! The last administrator can't be deleted: everybody would be one.

mod error;
mod secrets;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::access::{Caller, Denied};
use crate::config::keys::{HIDDEN, Setting};
use crate::config::{Config, ConfigError};
use crate::data_file;
use crate::tasks;
use crate::users::token::Tokens;

pub use self::error::{SettingName, SettingRefused, SettingsError};

/// Values by section and key.
pub type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// The settings as they are now. Cheap to clone.
#[derive(Clone)]
pub struct Settings {
    inner: Arc<Inner>,
}

struct Inner {
    current: watch::Sender<Arc<Config>>,
    /// What was put, as the file has it. Locked as long as a change takes.
    kept: Arc<Mutex<Sections>>,
    /// As the server was started, without what was put.
    started: Config,
}

/// Whether a change outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persist {
    /// It does.
    Yes,
    /// It doesn't: `X-Couch-Persist: false`.
    No,
}

const FILE: &str = "config.json";

impl Settings {
    /// These settings, with what was put at some time over them. Reads and writes nothing else: whose the data directory is,
    /// isn't known yet.
    pub async fn read(started: Config) -> Result<Self, SettingsError> {
        let reading = move || {
            let kept = read(&started.data_dir)?;
            let config = laid_over(&started, &kept)?;
            for (section, key) in kept.iter().flat_map(|(section, keys)| keys.keys().map(move |key| (section, key))) {
                tracing::info!(
                    setting.section = section,
                    setting.key = key,
                    "a setting that was put wins over options and files"
                );
            }
            Ok::<_, SettingsError>((config, kept, started))
        };
        let (config, kept, started) = tasks::blocking("read settings", reading).await??;
        let (current, _) = watch::channel(Arc::new(config));
        Ok(Self { inner: Arc::new(Inner { current, kept: Arc::new(Mutex::new(kept)), started }) })
    }

    /// Has what the server makes itself where nothing is set: it is read, or made and kept.
    pub async fn complete(&self) -> Result<(), SettingsError> {
        let mut config = Config::clone(&self.current());
        let completing = move || secrets::complete(&mut config).map(|()| config);
        let config = tasks::blocking("complete settings", completing).await??;
        warn_of_risks(&config);
        self.inner.current.send_replace(Arc::new(config));
        Ok(())
    }

    /// As they are now.
    pub fn current(&self) -> Arc<Config> {
        self.inner.current.borrow().clone()
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<Config>> {
        self.inner.current.subscribe()
    }

    /// Those that aren't what they are by default, and those that were put; secrets are hidden.
    pub async fn sections(&self) -> Sections {
        let kept = self.inner.kept.lock().await;
        let config = self.current();
        let mut sections = Sections::new();
        for setting in Setting::all(&config) {
            if let Some(value) = shown(setting, &config, &kept) {
                sections.entry(setting.section().into()).or_default().insert(setting.key().into(), value);
            }
        }
        sections
    }

    /// What [`Settings::sections`] has for one setting.
    pub async fn get(&self, section: &str, key: &str) -> Option<String> {
        let kept = self.inner.kept.lock().await;
        shown(Setting::named(section, key)?, &self.current(), &kept)
    }

    /// Makes a setting what a text says, and tells what it was; `None` if it wasn't set.
    pub async fn put(
        &self,
        (section, key): (&str, &str),
        text: &str,
        author: &Caller,
        persist: Persist,
    ) -> Result<Option<String>, SettingRefused> {
        let unknown = || SettingRefused::Unknown(SettingName::new(section, key));
        let setting = Setting::named(section, key).ok_or_else(unknown)?;
        let text = text.trim();
        if text == HIDDEN {
            let (name, problem) = (SettingName::new(section, key), "is what is shown in place of a secret");
            return Err(SettingRefused::Value { name, problem });
        }
        self.change(setting, Some(text), author, persist).await
    }

    /// Makes a setting what it is by default, and tells what it was.
    pub async fn delete(
        &self,
        (section, key): (&str, &str),
        author: &Caller,
        persist: Persist,
    ) -> Result<String, SettingRefused> {
        let setting = Setting::named(section, key).ok_or(SettingRefused::NotSet)?;
        self.change(setting, None, author, persist).await?.ok_or(SettingRefused::NotSet)
    }

    /// Sets a setting to a text, or resets it.
    async fn change(
        &self,
        setting: Setting<'_>,
        text: Option<&str>,
        author: &Caller,
        persist: Persist,
    ) -> Result<Option<String>, SettingRefused> {
        let kept = Arc::clone(&self.inner.kept).lock_owned().await;
        let config = self.current();
        // Where there was no admin everybody was one, until there was.
        if author.name.is_none() && !config.admins.is_empty() {
            return Err(Denied::NotServerAdmin.into());
        }
        let mut before = shown(setting, &config, &kept);
        if text.is_none() {
            // One that was deleted without persisting that comes back at the next start, and may still be deleted.
            before = before.or_else(|| is_kept(setting, &kept).then(|| HIDDEN.into()));
            if before.is_none() {
                return Ok(None);
            }
        }
        let mut changed = Config::clone(&config);
        let wrong =
            |problem| SettingRefused::Value { name: SettingName::new(setting.section(), setting.key()), problem };
        match text {
            Some(text) => setting.set(&mut changed, text).map_err(wrong)?,
            None => setting.reset(&mut changed),
        }
        if changed.admins.is_empty() && !config.admins.is_empty() {
            return Err(SettingRefused::LastAdmin);
        }
        changed.check().map_err(|error| match error {
            ConfigError::Value { problem, .. } => wrong(problem),
            error => error.into(),
        })?;

        let change = Change {
            name: SettingName::new(setting.section(), setting.key()),
            is_admin: matches!(setting, Setting::Admin(_)),
            text: text.map(str::to_owned),
            persist,
        };
        let inner = Arc::clone(&self.inner);
        let making = move || change.make(changed, kept, &inner);
        tasks::blocking("change a setting", making).await.map_err(SettingsError::from)??;
        Ok(before)
    }
}

/// A change that was checked as far as that takes no time.
struct Change {
    name: SettingName,
    is_admin: bool,
    text: Option<String>,
    persist: Persist,
}

impl Change {
    /// Blocks.
    fn make(
        self,
        mut config: Config,
        mut kept: OwnedMutexGuard<Sections>,
        inner: &Inner,
    ) -> Result<(), SettingRefused> {
        let Self { name, is_admin, text, persist } = self;
        Tokens::new(&config.auth.jwt)?;
        if let Some(problem) = unreadable(&config) {
            return Err(SettingRefused::Value { name, problem });
        }
        // Logins cost what they cost at the start.
        secrets::complete_change(&mut config, inner.started.auth.iterations)?;
        // Of an admin's password the hash is kept.
        let text = if is_admin { Setting::Admin(&name.key).show(&config) } else { text };
        if persist == Persist::Yes {
            let mut new = kept.clone();
            match text {
                Some(text) => _ = new.entry(name.section.clone()).or_default().insert(name.key.clone(), text),
                None => _ = new.get_mut(&name.section).and_then(|keys| keys.remove(&name.key)),
            }
            // What was put for now alone isn't there at the next start.
            let next = laid_over(&inner.started, &new)?;
            if next.admins.is_empty() && !config.admins.is_empty() {
                return Err(SettingRefused::LastAdmin);
            }
            write(&config.data_dir, &new)?;
            *kept = new;
        }
        tracing::info!(setting.section = name.section, setting.key = name.key, "a setting was changed");
        warn_of_risks(&config);
        inner.current.send_replace(Arc::new(config));
        Ok(())
    }
}

/// A file that the settings name and that can't be read: the next start would fail.
fn unreadable(config: &Config) -> Option<&'static str> {
    let tls = &config.replicator.tls;
    let mut files = [&tls.cert_file, &tls.key_file, &tls.ssl_trusted_certificates_file].into_iter().flatten();
    files.any(|path| std::fs::read(path).is_err()).then_some("names a file that can't be read")
}

fn is_kept(setting: Setting<'_>, kept: &Sections) -> bool {
    kept.get(setting.section()).is_some_and(|keys| keys.contains_key(setting.key()))
}

/// What is shown of a setting: nothing, if it is what it is by default and nobody has put that.
fn shown(setting: Setting<'_>, config: &Config, kept: &Sections) -> Option<String> {
    setting.show(config).filter(|_| is_kept(setting, kept) || !setting.is_default(config))
}

fn read(dir: &Path) -> Result<Sections, SettingsError> {
    let path = dir.join(FILE);
    let text = data_file::read(&path).map(Option::unwrap_or_default);
    let sections = text.and_then(|text| match text.is_empty() {
        true => Ok(Sections::new()),
        false => serde_json::from_str(&text).map_err(io::Error::from),
    });
    sections.map_err(|source| SettingsError::File { path, source })
}

fn write(dir: &Path, kept: &Sections) -> Result<(), SettingsError> {
    let path = dir.join(FILE);
    let text = serde_json::to_string_pretty(kept).map_err(io::Error::from);
    text.and_then(|text| data_file::write(&path, &text)).map_err(|source| SettingsError::File { path, source })
}

/// The settings of the start, and over them what was put.
fn laid_over(started: &Config, kept: &Sections) -> Result<Config, SettingsError> {
    let mut config = started.clone();
    let wrong = |problem: String| SettingsError::Kept { path: started.data_dir.join(FILE), problem };
    let settings = kept.iter().flat_map(|(section, keys)| keys.iter().map(move |(key, text)| (section, key, text)));
    for (section, key, text) in settings {
        let setting = Setting::named(section, key).ok_or("is no setting");
        let set = setting.and_then(|setting| setting.set(&mut config, text));
        set.map_err(|problem| wrong(format!("[{section}] {key} {problem}")))?;
    }
    // Those of the start were checked where they were read.
    if !kept.is_empty() {
        config.check().map_err(|error| wrong(error.to_string()))?;
    }
    Tokens::new(&config.auth.jwt)?;
    Ok(config)
}

/// Warns of settings that are seldom meant so.
fn warn_of_risks(config: &Config) {
    let auth = &config.auth;
    if auth.handlers.proxy && !auth.proxy.use_secret {
        tracing::warn!("a proxy needs no secret: whoever reaches this server is whom he says he is");
    }
    if !auth.jwt.keys.is_empty() && !auth.handlers.jwt {
        tracing::warn!("JSON web tokens aren't looked at: [chttpd] authentication_handlers doesn't name their handler");
    }
}

#[cfg(test)]
mod tests;
