//! The forms in which CouchDB's settings are written.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::auth;
use crate::config::cors::list;

/// What is wrong with a value. It follows the key's name, and never shows the value.
pub type Problem = &'static str;

/// How a setting is written.
pub trait Form<T> {
    /// As CouchDB writes it.
    fn show(setting: &T) -> String;
    /// Reads that.
    fn parse(text: &str) -> Result<T, Problem>;
}

/// What is shown in place of a secret.
pub const HIDDEN: &str = "*****";

/// `true` or `false`.
pub struct Boolean;

impl Form<bool> for Boolean {
    fn show(setting: &bool) -> String {
        setting.to_string()
    }

    fn parse(text: &str) -> Result<bool, Problem> {
        text.parse().map_err(|_| "must be true or false")
    }
}

/// How many jobs of documents may run at once: none, or as many as there are, whatever the number says.
pub struct AnyJobs;

impl Form<bool> for AnyJobs {
    fn show(setting: &bool) -> String {
        if *setting { "500" } else { "0" }.to_owned()
    }

    fn parse(text: &str) -> Result<bool, Problem> {
        text.parse::<u64>().map(|number| number > 0).map_err(|_| "must be a number that isn't negative")
    }
}

/// The same as [`Boolean`], where it may be left to the default, which is `true`.
pub struct OptionalBoolean;

impl Form<Option<bool>> for OptionalBoolean {
    fn show(setting: &Option<bool>) -> String {
        setting.unwrap_or(true).to_string()
    }

    fn parse(text: &str) -> Result<Option<bool>, Problem> {
        Boolean::parse(text).map(Some)
    }
}

/// A number above nothing.
pub struct Positive;

impl<N: Display + FromStr> Form<N> for Positive {
    fn show(setting: &N) -> String {
        setting.to_string()
    }

    fn parse(text: &str) -> Result<N, Problem> {
        let is_positive = text.bytes().all(|byte| byte.is_ascii_digit()) && text.bytes().any(|byte| byte != b'0');
        text.parse().ok().filter(|_| is_positive).ok_or("must be a positive integer")
    }
}

/// A time in seconds.
pub struct Seconds;

impl Form<Duration> for Seconds {
    fn show(setting: &Duration) -> String {
        setting.as_secs().to_string()
    }

    fn parse(text: &str) -> Result<Duration, Problem> {
        Positive::parse(text).map(Duration::from_secs)
    }
}

/// A time in milliseconds.
pub struct Millis;

impl Form<Duration> for Millis {
    fn show(setting: &Duration) -> String {
        setting.as_millis().to_string()
    }

    fn parse(text: &str) -> Result<Duration, Problem> {
        Positive::parse(text).map(Duration::from_millis)
    }
}

/// Any text.
pub struct Text;

impl Form<String> for Text {
    fn show(setting: &String) -> String {
        setting.clone()
    }

    fn parse(text: &str) -> Result<String, Problem> {
        Ok(text.to_owned())
    }
}

/// A text, of which an empty one is none.
pub struct OptionalText;

impl Form<Option<String>> for OptionalText {
    fn show(setting: &Option<String>) -> String {
        setting.clone().unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Option<String>, Problem> {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

/// A file, of which an empty one is none.
pub struct OptionalPath;

impl Form<Option<PathBuf>> for OptionalPath {
    fn show(setting: &Option<PathBuf>) -> String {
        setting.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Option<PathBuf>, Problem> {
        Ok(OptionalText::parse(text)?.map(PathBuf::from))
    }
}

/// A secret, which isn't shown.
pub struct Secret;

impl Form<Option<SecretString>> for Secret {
    fn show(setting: &Option<SecretString>) -> String {
        setting.as_ref().map_or("", |_| HIDDEN).to_owned()
    }

    fn parse(text: &str) -> Result<Option<SecretString>, Problem> {
        Ok(OptionalText::parse(text)?.map(SecretString::from))
    }
}

/// Names, parted by commas.
pub struct List;

impl Form<Vec<String>> for List {
    fn show(setting: &Vec<String>) -> String {
        setting.join(", ")
    }

    fn parse(text: &str) -> Result<Vec<String>, Problem> {
        Ok(list(text))
    }
}

/// The same, for which capitals make no difference.
pub struct LowerList;

impl Form<Vec<String>> for LowerList {
    fn show(setting: &Vec<String>) -> String {
        List::show(setting)
    }

    fn parse(text: &str) -> Result<Vec<String>, Problem> {
        List::parse(&text.to_ascii_lowercase())
    }
}

/// Something with a form of its own.
pub struct Parsed;

impl<T: Display + FromStr<Err = Problem>> Form<T> for Parsed {
    fn show(setting: &T) -> String {
        setting.to_string()
    }

    fn parse(text: &str) -> Result<T, Problem> {
        text.parse()
    }
}

/// The same, of which an empty text is none.
pub struct OptionalParsed;

impl<T: Display + FromStr<Err = Problem>> Form<Option<T>> for OptionalParsed {
    fn show(setting: &Option<T>) -> String {
        setting.as_ref().map(T::to_string).unwrap_or_default()
    }

    fn parse(text: &str) -> Result<Option<T>, Problem> {
        (!text.is_empty()).then(|| text.parse()).transpose()
    }
}

/// How people may prove who they are, as a list of Erlang's functions. Sessions and passwords always may, whatever it says.
pub struct HandlerList;

const COOKIE: &str = "cookie_authentication_handler";
const DEFAULT: &str = "default_authentication_handler";
const PROXY: &str = "proxy_authentication_handler";
const JWT: &str = "jwt_authentication_handler";

impl Form<auth::Handlers> for HandlerList {
    fn show(setting: &auth::Handlers) -> String {
        let further =
            [(setting.jwt, JWT), (setting.proxy, PROXY)].into_iter().filter_map(|(is, name)| is.then_some(name));
        let all = [COOKIE, DEFAULT].into_iter().chain(further);
        all.map(|name| format!("{{chttpd_auth, {name}}}")).collect::<Vec<_>>().join(", ")
    }

    fn parse(text: &str) -> Result<auth::Handlers, Problem> {
        if ![COOKIE, DEFAULT, PROXY, JWT].iter().any(|handler| text.contains(handler)) {
            return Err("must name cookie_, default_, jwt_ or proxy_authentication_handler");
        }
        Ok(auth::Handlers { jwt: text.contains(JWT), proxy: text.contains(PROXY) })
    }
}

/// What is logged, in CouchDB's words or our own.
pub struct Level;

impl Form<String> for Level {
    fn show(setting: &String) -> String {
        match setting.as_str() {
            "warn" => "warning".into(),
            "off" => "none".into(),
            other => other.into(),
        }
    }

    fn parse(text: &str) -> Result<String, Problem> {
        let level = match text {
            "trace" | "debug" | "info" | "warn" | "error" | "off" => text,
            "notice" => "info",
            "warning" => "warn",
            "err" | "critical" | "crit" | "alert" | "emergency" | "emerg" => "error",
            "none" => "off",
            _ => return Err("must be debug, info, warning, error or none"),
        };
        Ok(level.to_owned())
    }
}
