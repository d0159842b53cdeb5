//! `couchrep health`: asks a server whether it works, for containers whose image has no curl.
//!
//! One `GET /_up`, which needs no credentials. Whatever isn't `{"status":"ok"}` within the limit of time is no; a server that
//! starts or stops says so.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use reqwest::Method;
use tokio::time::timeout;

use super::server::{LocalServer, Server};
use super::{Exit, block_on, print};

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

    #[command(flatten)]
    local: LocalServer,
}

/// Asks.
pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let url = match arguments.url {
        Some(url) => url,
        None => arguments.local.resolve(None)?.0,
    };
    let server = Server::new(&url, None)?.anonymous();
    let shown = server.shown();
    let asked =
        block_on(async { timeout(LIMIT, ask(&server)).await.unwrap_or_else(|_| Err(anyhow!("it is too slow"))) });
    asked.with_context(|| format!("{shown} doesn't work"))?;
    print(format_args!("{shown} works"));
    Ok(Exit::Done)
}

async fn ask(server: &Server) -> anyhow::Result<()> {
    let answer = server.ask(Method::GET, &["_up"], &[], None).await?;
    if answer.body["status"] != "ok" {
        match answer.body["status"].as_str() {
            // Quoted, since anybody may have answered.
            Some(word) => bail!("it answers {}, {word:?}", answer.status.as_u16()),
            None => bail!("it answers {}", answer.status.as_u16()),
        }
    }
    Ok(())
}
