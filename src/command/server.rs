//! The running server that a command asks: which it is, who asks, and what its answers mean.
//!
//! Where no URL is given, it is the one that the settings describe: `--listen`, the environment, the file. Then their first
//! administrator asks whose password isn't hashed, so that a command beside a server, in its container say, needs no password
//! of its own. While the server is down anybody may listen in its place, so what listens is first asked for its uuid, without the
//! password, if the data directory tells that uuid. Elsewhere, who asks stands in the URL. A name or password is in no message.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use couchrep::config::{Options, Password};
use couchrep::server::identity;
use reqwest::{Client, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

use super::UsageError;

/// For a whole answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the settings of the server on this machine stand.
#[derive(Debug, Args)]
pub struct LocalServer {
    /// The address that the server on this machine listens on [default: 127.0.0.1:5984]
    #[arg(long, global = true, env = "COUCHREP_LISTEN", hide_env = true, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// That server's TOML file, in which the address may stand
    #[arg(long, global = true, env = "COUCHREP_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Who asks the server on this machine, and what that server is known by.
#[derive(Debug, Default, Args)]
pub struct LocalAdmin {
    #[arg(long, hide = true, env = "COUCHREP_ADMIN", hide_env = true, value_delimiter = '\n')]
    admin: Vec<SecretString>,

    #[arg(long, hide = true, env = "COUCHREP_ADMIN_FILE", hide_env = true)]
    admin_file: Option<PathBuf>,

    #[arg(long, hide = true, env = "COUCHREP_DATA_DIR", hide_env = true)]
    data_dir: Option<PathBuf>,

    #[arg(long, hide = true, env = "COUCHREP_UUID", hide_env = true)]
    uuid: Option<String>,
}

/// A server, and who asks it.
pub struct Server {
    /// Without credentials.
    url: Url,
    login: Option<Login>,
    client: Client,
    /// Set when the server was found to be the one that the login is for.
    recognized: OnceCell<()>,
}

/// Who asks.
pub struct Login {
    name: String,
    password: SecretString,
    /// The uuid of the only server that may learn of it.
    only_for: Option<String>,
}

/// What a server answers.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// As JSON; null if it isn't.
    pub body: Value,
}

impl LocalServer {
    /// The URL for who stands on the same machine, and who may ask there.
    pub fn resolve(self, admin: Option<LocalAdmin>) -> anyhow::Result<(String, Option<Login>)> {
        let Self { listen, config } = self;
        let LocalAdmin { admin, admin_file, data_dir, uuid } = admin.unwrap_or_default();
        let config = Options { listen, config, admin, admin_file, data_dir, uuid, ..Options::default() }.config()?;
        let only_for = identity::known_uuid(&config);
        let login = config.admins.into_iter().find_map(|admin| match admin.password {
            Password::Plain(password) => Some((admin.name, password)),
            _ => None,
        });
        let login = login.map(|(name, password)| Login { name, password, only_for });
        Ok((reachable(&config.listen), login))
    }
}

impl Server {
    /// The server of this URL. Who asks: whoever stands in the URL, else `login`.
    pub fn new(url: &str, login: Option<Login>) -> anyhow::Result<Self> {
        // What was given may hold a password.
        let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut url = url.ok_or_else(|| UsageError("URL must be http://HOST:PORT".into()))?;
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = match url.username() {
            "" => login,
            name => {
                let password = decoded(url.password().unwrap_or_default()).into();
                Some(Login { name: decoded(name), password, only_for: None })
            }
        };
        // It may fail for URLs without a host alone.
        _ = url.set_username("");
        _ = url.set_password(None);
        // An error means that there is one already.
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(LIMIT).no_proxy().build().context("could not start")?;
        Ok(Self { url, login, client, recognized: OnceCell::new() })
    }

    /// The same, asked by nobody in particular.
    pub fn anonymous(self) -> Self {
        Self { login: None, ..self }
    }

    /// The server's URL, as it may be shown.
    pub fn shown(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Asks. Each part of the path is a segment, whatever characters it has.
    pub async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        if let Some(Login { only_for: Some(uuid), .. }) = &self.login {
            self.recognized.get_or_try_init(|| self.recognize(uuid)).await?;
        }
        self.send(self.login.as_ref(), method, path, query, body).await
    }

    /// Asks for the server's uuid, as nobody in particular.
    async fn recognize(&self, uuid: &str) -> anyhow::Result<()> {
        let answer = self.send(None, Method::GET, &[], &[], None).await?;
        if answer.body["uuid"] != uuid {
            bail!(
                "something else does, which isn't the server of the data directory by its uuid and isn't sent the password of \
                 the settings; say who asks: COUCHREP_SERVER=http://NAME:PASSWORD@HOST:PORT"
            );
        }
        Ok(())
    }

    async fn send(
        &self,
        login: Option<&Login>,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url);
        if let Some(Login { name, password, .. }) = login {
            request = request.basic_auth(name, Some(password.expose_secret()));
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let unanswered = |error: reqwest::Error| error.without_url();
        let answer = request.send().await.map_err(unanswered)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unanswered)?;
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
}

impl Answer {
    /// Whether the server says that there is no such thing.
    pub fn is_missing(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// The body of a success.
    ///
    /// # Errors
    /// What the server says of a failure.
    pub fn ok(self) -> anyhow::Result<Value> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let text = |name: &str| self.body[name].as_str().unwrap_or_default();
        if self.status == StatusCode::UNAUTHORIZED {
            bail!("{}; say who asks: COUCHREP_SERVER=http://NAME:PASSWORD@HOST:PORT", text("reason"));
        }
        match (text("error"), text("reason")) {
            ("", _) => bail!("the server answers {}", self.status.as_u16()),
            (error, reason) => bail!("{error}: {reason}"),
        }
    }
}

/// The URL for who stands on the same machine: nobody can ask "all addresses".
fn reachable(listen: &str) -> String {
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "5984"));
    let host = match host {
        "0.0.0.0" | "" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    format!("http://{host}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_its_own_machine() {
        assert_eq!(reachable("0.0.0.0:5984"), "http://127.0.0.1:5984");
        assert_eq!(reachable("[::]:80"), "http://[::1]:80");
        assert_eq!(reachable("db.example:5984"), "http://db.example:5984");
    }
}
