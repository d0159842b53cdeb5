//! `couchrep health`: asks a server whether it works, for containers whose image has no curl.
//!
//! One `GET /_up`, which needs no credentials. Where no URL is given, the server is the one that the settings describe:
//! `--listen`, the environment, the file. Whatever isn't `{"status":"ok"}` within the limit of time is no; a server that
//! starts or stops says so.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use couchrep::config::Options;
use serde_json::Value;
use url::Url;

use super::{Exit, UsageError, block_on, print};

/// Shown below the options.
pub const EXAMPLES: &str = "\
Exit codes: 0 it works, 1 it doesn't, 2 wrong usage.

Examples:
  couchrep health
  couchrep health http://127.0.0.1:5985";

/// For the whole answer. A server that takes longer is no use to anyone.
const LIMIT: Duration = Duration::from_secs(5);

/// The command's options.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The server [default: the one of --listen on this machine]
    url: Option<String>,

    /// The address that the server listens on [default: 127.0.0.1:5984]
    #[arg(long, env = "COUCHREP_LISTEN", hide_env = true, value_name = "HOST:PORT")]
    listen: Option<String>,

    /// The server's TOML file, in which that address may stand
    #[arg(long, env = "COUCHREP_CONFIG", hide_env = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Asks.
pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let given = match arguments.url {
        Some(url) => url,
        None => {
            let options = Options { listen: arguments.listen, config: arguments.config, ..Options::default() };
            reachable(&options.config()?.listen)
        }
    };
    // What was given may hold a password.
    let url = Url::parse(&given).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let mut url = url.ok_or_else(|| UsageError("URL must be http://HOST:PORT".into()))?;
    // It may fail for URLs without a host alone.
    _ = url.set_username("");
    _ = url.set_password(None);
    let server = url.as_str().trim_end_matches('/').to_owned();
    block_on(ask(&server)).with_context(|| format!("{server} doesn't work"))?;
    print(format_args!("{server} works"));
    Ok(Exit::Done)
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

async fn ask(server: &str) -> anyhow::Result<()> {
    // An error means that there is one already.
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(LIMIT).no_proxy().build().context("could not start")?;
    let answer = client.get(format!("{server}/_up")).send().await.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(reqwest::Error::without_url)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if body["status"] != "ok" {
        match body["status"].as_str() {
            // Quoted, since anybody may have answered.
            Some(word) => bail!("it answers {}, {word:?}", status.as_u16()),
            None => bail!("it answers {}", status.as_u16()),
        }
    }
    Ok(())
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
