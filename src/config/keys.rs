//! Settings by CouchDB's names: the sections and keys of its `local.ini`, which `/_node/_local/_config` has too.
//!
//! One line for each key says where the setting is and in which form it is written: as CouchDB writes it, times in the unit of
//! the key, lists with commas. `[admins]` and `[jwt_keys]` have a key for each admin and each key of tokens.

mod forms;

use self::forms::{
    AnyJobs, Boolean, Form as _, HandlerList, Level, List, LowerList, Millis, OptionalBoolean, OptionalParsed,
    OptionalPath, OptionalText, Parsed, Positive, Seconds, Secret, Text,
};
use super::auth::JwtKey;
use super::{Admin, Config};
pub use forms::{HIDDEN, Problem};

/// A setting with a fixed section and key.
pub struct FixedSetting {
    section: &'static str,
    key: &'static str,
    show: fn(&Config) -> String,
    set: fn(&mut Config, &str) -> Result<(), Problem>,
    reset: fn(&mut Config),
}

impl PartialEq for FixedSetting {
    fn eq(&self, other: &Self) -> bool {
        (self.section, self.key) == (other.section, other.key)
    }
}

impl Eq for FixedSetting {}

macro_rules! settings {
    ($([$section:literal] $($key:literal = $form:ident of $($field:ident).+;)+)+) => {
        &[$($(FixedSetting {
            section: $section,
            key: $key,
            show: |config| $form::show(&config.$($field).+),
            set: |config, text| {
                config.$($field).+ = $form::parse(text)?;
                Ok(())
            },
            reset: |config| config.$($field).+ = Config::default().$($field).+,
        },)+)+]
    };
}

const FIXED: &[FixedSetting] = settings! {
    ["chttpd"]
        "authentication_handlers" = HandlerList of auth.handlers;
        "enable_cors" = Boolean of cors.enabled;
        "require_valid_user" = Boolean of auth.require_valid_user;
        "require_valid_user_except_for_up" = Boolean of auth.require_valid_user_except_for_up;
    ["chttpd_auth"]
        "allow_persistent_cookies" = Boolean of auth.allow_persistent_cookies;
        "cookie_domain" = OptionalText of auth.cookie_domain;
        "iterations" = Positive of auth.iterations;
        "proxy_use_secret" = Boolean of auth.proxy.use_secret;
        "same_site" = OptionalParsed of auth.same_site;
        "secret" = Secret of auth.secret;
        "timeout" = Seconds of auth.timeout;
        "x_auth_roles" = Text of auth.proxy.x_auth_roles;
        "x_auth_token" = Text of auth.proxy.x_auth_token;
        "x_auth_username" = Text of auth.proxy.x_auth_username;
    ["cors"]
        "credentials" = Boolean of cors.credentials;
        "exposed_headers" = LowerList of cors.exposed_headers;
        "headers" = LowerList of cors.headers;
        "max_age" = Seconds of cors.max_age;
        "methods" = List of cors.methods;
        "origins" = List of cors.origins;
    ["couchdb"]
        "users_db_security_editable" = Boolean of users_db_security_editable;
        "uuid" = OptionalText of uuid;
    ["jwt_auth"]
        "required_claims" = Parsed of auth.jwt.required_claims;
        "roles_claim_name" = Text of auth.jwt.roles_claim_name;
    ["log"]
        "level" = Level of log;
    ["replicator"]
        "cert_file" = OptionalPath of replicator.tls.cert_file;
        "checkpoint_interval" = Millis of replicator.checkpoint_interval;
        "connection_timeout" = Millis of replicator.connection_timeout;
        "http_connections" = Positive of replicator.http_connections;
        "key_file" = OptionalPath of replicator.tls.key_file;
        "max_jobs" = AnyJobs of replicator.run_documents;
        "retries_per_request" = Positive of replicator.retries_per_request;
        "socket_options" = Parsed of replicator.socket_options;
        "ssl_trusted_certificates_file" = OptionalPath of replicator.tls.ssl_trusted_certificates_file;
        "update_docs" = Boolean of replicator.update_docs;
        "verify_ssl_certificates" = OptionalBoolean of replicator.tls.verify_ssl_certificates;
        "worker_batch_size" = Positive of replicator.worker_batch_size;
        "worker_processes" = Positive of replicator.worker_processes;
};

/// A setting, by CouchDB's names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Setting<'a> {
    /// One with a fixed section and key.
    Fixed(&'static FixedSetting),
    /// An administrator's password.
    Admin(&'a str),
    /// A key of JSON web tokens.
    JwtKey(&'a str),
}

impl<'a> Setting<'a> {
    /// The setting of this section and key; `None` for those that couchrep doesn't have. Older releases' sections are known.
    pub fn named(section: &'a str, key: &'a str) -> Option<Self> {
        match section {
            "admins" => Some(Self::Admin(key)),
            "jwt_keys" => Some(Self::JwtKey(key)),
            _ => FIXED.iter().find(|fixed| fixed.key == key && is_same(fixed.section, section)).map(Self::Fixed),
        }
    }

    /// Every fixed setting, each admin and each key of tokens.
    pub fn all(config: &'a Config) -> impl Iterator<Item = Self> {
        let admins = config.admins.iter().map(|admin| Self::Admin(&admin.name));
        let jwt_keys = config.auth.jwt.keys.iter().map(|key| Self::JwtKey(&key.name));
        FIXED.iter().map(Self::Fixed).chain(admins).chain(jwt_keys)
    }

    /// Its section, as CouchDB 3.5 has it.
    pub fn section(self) -> &'static str {
        match self {
            Self::Fixed(fixed) => fixed.section,
            Self::Admin(_) => "admins",
            Self::JwtKey(_) => "jwt_keys",
        }
    }

    /// Its key there.
    pub fn key(self) -> &'a str {
        match self {
            Self::Fixed(fixed) => fixed.key,
            Self::Admin(key) | Self::JwtKey(key) => key,
        }
    }

    /// What it is, secrets hidden; `None` for an admin or a key that isn't there. Hashes of passwords are shown, as in CouchDB,
    /// where they are what is copied from one node to the next.
    pub fn show(self, config: &Config) -> Option<String> {
        match self {
            Self::Fixed(fixed) => Some((fixed.show)(config)),
            Self::Admin(name) => {
                let admin = config.admins.iter().find(|admin| admin.name == name)?;
                Some(admin.password.hashed_text().unwrap_or_else(|| HIDDEN.into()))
            }
            Self::JwtKey(name) => {
                let key = config.auth.jwt.keys.iter().find(|key| key.name == name)?;
                Some(key.public().unwrap_or(HIDDEN).to_owned())
            }
        }
    }

    /// Whether it is what it is by default.
    pub fn is_default(self, config: &Config) -> bool {
        self.show(config) == self.show(&Config::default())
    }

    /// Makes it what a text says.
    pub fn set(self, config: &mut Config, text: &str) -> Result<(), Problem> {
        match self {
            Self::Fixed(fixed) => (fixed.set)(config, text)?,
            Self::Admin(name) => {
                let admin = Admin::new(name, text)?;
                match config.admins.iter_mut().find(|admin| admin.name == name) {
                    Some(known) => *known = admin,
                    None => config.admins.push(admin),
                }
            }
            Self::JwtKey(name) => {
                let new = JwtKey::new(name, text)?;
                match config.auth.jwt.keys.iter_mut().find(|key| key.name == name) {
                    Some(known) => *known = new,
                    None => config.auth.jwt.keys.push(new),
                }
            }
        }
        Ok(())
    }

    /// Makes it what it is by default.
    pub fn reset(self, config: &mut Config) {
        match self {
            Self::Fixed(fixed) => (fixed.reset)(config),
            Self::Admin(name) => config.admins.retain(|admin| admin.name != name),
            Self::JwtKey(name) => config.auth.jwt.keys.retain(|key| key.name != name),
        }
    }
}

/// Whether a section is meant by another's name: what is said of HTTP and of logins stood elsewhere in older releases.
fn is_same(own: &str, section: &str) -> bool {
    let is_http = |section: &str| matches!(section, "chttpd" | "chttpd_auth" | "httpd" | "couch_httpd_auth");
    own == section || is_http(own) && is_http(section)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_takes_what_it_shows() {
        let default = Config::default();
        for fixed in FIXED {
            let mut config = default.clone();
            (fixed.set)(&mut config, &(fixed.show)(&default))
                .unwrap_or_else(|problem| panic!("{} {problem}", fixed.key));
            assert!(Setting::Fixed(fixed).is_default(&config), "{}", fixed.key);
        }
    }

    #[test]
    fn a_setting_is_shown_as_it_was_taken_and_reset_to_what_it_was() {
        for (section, key, text) in [
            (
                "chttpd",
                "authentication_handlers",
                "{chttpd_auth, cookie_authentication_handler}, {chttpd_auth, default_authentication_handler}, {chttpd_auth, jwt_authentication_handler}",
            ),
            ("httpd", "enable_cors", "true"),
            ("couch_httpd_auth", "same_site", "strict"),
            ("chttpd_auth", "timeout", "77"),
            ("cors", "origins", "https://a, https://b"),
            ("cors", "max_age", "5"),
            ("jwt_auth", "required_claims", "exp, nbf, {iss, \"me\"}"),
            ("jwt_keys", "rsa:x", "-----BEGIN PUBLIC KEY-----"),
            ("log", "level", "debug"),
            ("log", "level", "warning"),
            ("replicator", "connection_timeout", "1500"),
            ("replicator", "socket_options", "[{keepalive, true}, {nodelay, false}]"),
            ("replicator", "verify_ssl_certificates", "false"),
            ("replicator", "cert_file", "cert.pem"),
        ] {
            let setting = Setting::named(section, key).unwrap();
            let mut config = Config::default();
            setting.set(&mut config, text).unwrap();
            assert_eq!(setting.show(&config).as_deref(), Some(text), "{key}");
            setting.reset(&mut config);
            assert!(setting.is_default(&config), "{key}");
        }
    }

    #[test]
    fn secrets_are_hidden_and_other_keys_unknown() {
        let mut config = Config::default();
        for (section, name) in [("chttpd_auth", "secret"), ("jwt_keys", "hmac:_default"), ("admins", "root")] {
            let setting = Setting::named(section, name).unwrap();
            setting.set(&mut config, "c2VjcmV0").unwrap();
            assert_eq!(setting.show(&config).as_deref(), Some(HIDDEN));
        }
        assert!(Setting::named("cors", "enable_cors").is_none() && Setting::named("smoosh", "x").is_none());
    }
}
