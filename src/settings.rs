//! The settings as they are now: those that the server was started with, and over them what was put since
//! (`PUT /_node/_local/_config/…`).
//!
//! What was put is kept in the data directory and counts at the next start too, over options and files, as the last of CouchDB's
//! `ini` files does. A setting that is deleted is what it is by default, until a start gives it again. One change is made
//! after another: it is checked beside all other settings, kept, and then shown to everybody at once; if it can't be kept,
//! nothing has changed.
//!
//! Whoever asks for a setting each time ([`Settings::current`]) sees changes: logins, `[cors]`, the log's level. Others have read
//! theirs at the start: `[replicator]`, `uuid`, `iterations`.
//!
//! No password is kept or shown as it came ([`own`]). The last administrator can't be deleted: everybody would be one.

mod error;
mod own;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use crate::config::Config;
use crate::config::keys::Setting;
use crate::data_file;
use crate::tasks;
use crate::users::token::Tokens;

pub use self::error::{Named, Refused, SettingsError};

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
    /// These settings, with what was put at some time over them, and with what the server makes itself where nothing is set.
    pub async fn open(mut config: Config) -> Result<Self, SettingsError> {
        let opening = move || {
            let kept = read(&config.data_dir)?;
            lay_over(&kept, &mut config)?;
            own::complete(&mut config)?;
            Tokens::new(&config.auth.jwt)?;
            Ok::<_, SettingsError>((config, kept))
        };
        let (config, kept) = tasks::blocking("read settings", opening).await??;
        warn_of(&config);
        let (current, _) = watch::channel(Arc::new(config));
        Ok(Self { inner: Arc::new(Inner { current, kept: Arc::new(Mutex::new(kept)) }) })
    }

    /// As they are now.
    pub fn current(&self) -> Arc<Config> {
        self.inner.current.borrow().clone()
    }

    /// As they are, again and again.
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
                sections.entry(setting.section().into()).or_default().insert(setting.name().into(), value);
            }
        }
        sections
    }

    /// One of those.
    pub async fn get(&self, section: &str, name: &str) -> Option<String> {
        let kept = self.inner.kept.lock().await;
        shown(Setting::named(section, name)?, &self.current(), &kept)
    }

    /// Makes a setting what a text says, and tells what it was; `None` if it wasn't set.
    pub async fn put(
        &self,
        section: &str,
        name: &str,
        text: &str,
        persist: Persist,
    ) -> Result<Option<String>, Refused> {
        let named = || Named(section.into(), name.into());
        let setting = Setting::named(section, name).ok_or_else(|| Refused::Unknown(named()))?;
        let text = text.trim();
        let take = |config: &mut Config| {
            setting.take(config, text).map_err(|problem| Refused::Value { named: named(), problem })
        };
        self.change(setting, take, Some(text), persist).await
    }

    /// Makes a setting what it is by default, and tells what it was.
    pub async fn delete(&self, section: &str, name: &str, persist: Persist) -> Result<String, Refused> {
        let setting = Setting::named(section, name).ok_or(Refused::NotSet)?;
        let reset = |config: &mut Config| match setting.reset(config) {
            _ if setting == Setting::Admin(name) && config.admins.is_empty() => Err(Refused::LastAdmin),
            reset => reset.map_err(|problem| Refused::Value { named: Named(section.into(), name.into()), problem }),
        };
        self.change(setting, reset, None, persist).await?.ok_or(Refused::NotSet)
    }

    /// The one way to change a setting: `text` is what is kept of it. It runs to its end, even if nobody waits for it any more.
    async fn change(
        &self,
        setting: Setting<'_>,
        change: impl FnOnce(&mut Config) -> Result<(), Refused>,
        text: Option<&str>,
        persist: Persist,
    ) -> Result<Option<String>, Refused> {
        let mut kept = Arc::clone(&self.inner.kept).lock_owned().await;
        let config = self.current();
        let before = shown(setting, &config, &kept);
        if before.is_none() && text.is_none() {
            return Ok(None);
        }
        let mut changed = Config::clone(&config);
        change(&mut changed)?;
        changed.check()?;
        Tokens::new(&changed.auth.jwt)?;

        let (section, name) = (setting.section(), setting.name().to_owned());
        let (is_admin, text) = (matches!(setting, Setting::Admin(_)), text.map(str::to_owned));
        let inner = Arc::clone(&self.inner);
        let changing = move || {
            own::complete_change(&mut changed)?;
            // Of an admin's password the hash is kept.
            let text = if is_admin { Setting::Admin(&name).show(&changed) } else { text };
            if persist == Persist::Yes {
                let mut new = kept.clone();
                match text {
                    Some(text) => _ = new.entry(section.into()).or_default().insert(name.clone(), text),
                    None => _ = new.get_mut(section).and_then(|names| names.remove(&name)),
                }
                write(&changed.data_dir, &new)?;
                *kept = new;
            }
            tracing::info!("[{section}] {name} was changed");
            inner.current.send_replace(Arc::new(changed));
            Ok::<_, SettingsError>(())
        };
        tasks::blocking("change a setting", changing).await.map_err(SettingsError::from)??;
        Ok(before)
    }
}

/// What is shown of a setting: nothing, if it is what it is by default and nobody has put that.
fn shown(setting: Setting<'_>, config: &Config, kept: &Sections) -> Option<String> {
    let is_kept = kept.get(setting.section()).is_some_and(|names| names.contains_key(setting.name()));
    setting.show(config).filter(|_| is_kept || !setting.is_default(config))
}

fn read(dir: &Path) -> Result<Sections, SettingsError> {
    let path = dir.join(FILE);
    let text = data_file::read(&path).map(Option::unwrap_or_default);
    let sections = text.and_then(|text| match text.is_empty() {
        true => Ok(Sections::new()),
        false => serde_json::from_str(&text).map_err(io::Error::from),
    });
    sections.map_err(|source| SettingsError::Kept { path, source })
}

fn write(dir: &Path, kept: &Sections) -> Result<(), SettingsError> {
    let path = dir.join(FILE);
    let text = serde_json::to_string_pretty(kept).map_err(io::Error::from);
    text.and_then(|text| data_file::write(&path, &text)).map_err(|source| SettingsError::Kept { path, source })
}

/// Lays what was put over the settings.
fn lay_over(kept: &Sections, config: &mut Config) -> Result<(), SettingsError> {
    let path = config.data_dir.join(FILE);
    let settings = kept.iter().flat_map(|(section, names)| names.iter().map(move |(name, text)| (section, name, text)));
    for (section, name, text) in settings {
        let named = Named(section.clone(), name.clone());
        let taken = match Setting::named(section, name) {
            Some(setting) => setting.take(config, text).map_err(|problem| Refused::Value { named, problem }),
            None => Err(Refused::Unknown(named)),
        };
        taken.map_err(|refused| SettingsError::Put { path: path.clone(), refused: Box::new(refused) })?;
        tracing::info!("[{section}] {name} is what was put, and is kept in {}", path.display());
    }
    config.check().map_err(|error| SettingsError::Put { path, refused: Box::new(error.into()) })
}

/// Tells of settings that are seldom meant so.
fn warn_of(config: &Config) {
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
