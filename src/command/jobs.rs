//! `couchrep jobs`: what a running server replicates, and what may be done about it.
//!
//! Asks the server's `_scheduler`, which only its administrators may: jobs, and documents that have none since they have failed or
//! are yet to begin. Both are listed together, since "why doesn't it replicate" is one question. A CouchDB can be asked too; but
//! `pause`, `resume` and `retry` are couchrep's own.

use anyhow::{Context as _, anyhow, bail};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::job_entry::{Entry, details, list_table};
use super::server::{Answer, LocalAdmin, LocalServer, Server};
use super::{Exit, UsageError, block_on, print};

/// Shown below the options.
pub const EXAMPLES: &str = "\
Exit codes: 0 done, 1 not, 2 wrong usage.
Without --server, the server on this machine is asked, with the password of the settings if they hold one. It isn't sent to
a server whose uuid isn't the one of the data directory. One with --tls-cert is named: --server https://HOST:PORT.

Examples:
  couchrep jobs
  couchrep jobs list --state crashing,failed
  couchrep jobs show _replicator/soup
  couchrep jobs pause 8f3a1c02
  couchrep jobs cancel _replicator/soup --json
  read -rs COUCHREP_SERVER; export COUCHREP_SERVER    # http://NAME:PASSWORD@HOST:PORT, for another server";

/// States of documents whose replications have no jobs; those that are completed are many, and shown where asked for.
const WITHOUT_JOBS: &[&str] = &["initializing", "error", "failed"];
/// What else `--state` may name.
const OTHER_STATES: &[&str] = &["running", "pending", "crashing", "completed", "paused"];
/// Entries that are asked for at once.
const PAGE: u64 = 1000;

/// The command's options.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,

    /// The server, http://HOST:PORT [default: the one on this machine]
    ///
    /// Who asks stands in it, http://NAME:PASSWORD@HOST:PORT. Other users of this machine can read command lines: COUCHREP_SERVER
    /// in the environment is the place for a password.
    #[arg(long, global = true, env = "COUCHREP_SERVER", hide_env_values = true, value_name = "URL")]
    server: Option<String>,

    /// Print JSON, an entry a line, as the server gives it
    #[arg(long, global = true)]
    json: bool,

    #[command(flatten)]
    local: LocalServer,

    #[command(flatten)]
    admin: LocalAdmin,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List jobs, and documents that have none; the default
    List {
        /// Only those in these states: running, pending, paused, crashing, initializing, error, failed, completed
        #[arg(long = "state", value_name = "STATE,…", value_delimiter = ',', value_parser = state)]
        states: Vec<String>,
    },
    /// Show one with its history
    Show(Job),
    /// Let one rest until it is resumed; its document remembers it
    Pause(Job),
    /// Let a paused one go on
    Resume(Job),
    /// Try one now that waits for its next try
    Retry(Job),
    /// End one; if a document describes it, the document is deleted
    Cancel(Job),
}

#[derive(Debug, Args)]
struct Job {
    /// Its id or the beginning of it, or its document: DATABASE/DOCUMENT
    #[arg(value_name = "ID|DB/DOC", value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

fn state(text: &str) -> Result<String, String> {
    match WITHOUT_JOBS.iter().chain(OTHER_STATES).any(|state| *state == text) {
        true => Ok(text.to_owned()),
        false => Err(format!("it may be {}", [WITHOUT_JOBS, OTHER_STATES].concat().join(", "))),
    }
}

/// Does what is asked for.
pub fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let (url, login) = match arguments.server {
        Some(url) => (url, None),
        None => arguments.local.resolve(Some(arguments.admin))?,
    };
    let jobs = Jobs { server: Server::new(&url, login)?, json: arguments.json };
    let action = arguments.action.unwrap_or(Action::List { states: Vec::new() });
    block_on(jobs.act(action))?;
    Ok(Exit::Done)
}

/// The jobs of a server.
struct Jobs {
    server: Server,
    json: bool,
}

impl Jobs {
    async fn act(&self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::List { states } => self.list(&states).await,
            Action::Show(job) => {
                let entry = self.find(&job.name).await?;
                self.tell(&entry, || details(&entry));
                Ok(())
            }
            Action::Pause(job) => self.change(&job.name, "pause", "paused").await,
            Action::Resume(job) => self.change(&job.name, "resume", "goes on").await,
            Action::Retry(job) => self.change(&job.name, "retry_now", "is tried now").await,
            Action::Cancel(job) => self.cancel(&job.name).await,
        }
    }

    async fn list(&self, states: &[String]) -> anyhow::Result<()> {
        let is_wanted = |state: &str| states.iter().any(|wanted| wanted == state);
        let mut entries = self.all("jobs", None).await?;
        let without_jobs = [WITHOUT_JOBS, &["completed"]].concat();
        let mut wanted: Vec<_> = without_jobs.into_iter().filter(|state| is_wanted(state)).collect();
        if states.is_empty() {
            wanted = WITHOUT_JOBS.to_vec();
        }
        if !wanted.is_empty() {
            entries
                .extend(self.all("docs", Some(wanted.join(","))).await?.into_iter().filter(|entry| !entry.has_job()));
        }
        entries.retain(|entry| states.is_empty() || is_wanted(entry.state()));
        match self.json {
            true => entries.iter().for_each(|entry| print(&entry.0)),
            false if entries.is_empty() => print("no jobs"),
            false => list_table(&entries).lines().for_each(print),
        }
        Ok(())
    }

    /// All entries of `_scheduler/jobs` or `_scheduler/docs`.
    async fn all(&self, kind: &str, states: Option<String>) -> anyhow::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        loop {
            let mut query = vec![("limit", PAGE.to_string()), ("skip", entries.len().to_string())];
            query.extend(states.iter().map(|states| ("states", states.clone())));
            let mut page = self.ask(Method::GET, &["_scheduler", kind], &query, None).await?.ok()?;
            let Value::Array(page) = page[kind].take() else {
                bail!("the server lists no {kind}: it isn't a couchrep")
            };
            let is_last = (page.len() as u64) < PAGE;
            entries.extend(page.into_iter().map(Entry));
            if is_last {
                return Ok(entries);
            }
        }
    }

    /// A job by its id, the beginning of its id, or its document.
    async fn find(&self, name: &str) -> anyhow::Result<Entry> {
        if let Some((database, document)) = place(name) {
            let path = ["_scheduler", "docs", &database, document];
            let described = self.ask(Method::GET, &path, &[], None).await?;
            if described.is_missing() {
                bail!("there is no document {name}");
            }
            let described = Entry(described.ok()?);
            // Its job's entry tells more.
            return Ok(match described.id() {
                Some(id) => self.job(id).await?.unwrap_or(described),
                None => described,
            });
        }
        if let Some(entry) = self.job(name).await? {
            return Ok(entry);
        }
        let all = self.all("jobs", None).await?;
        let mut found = all.into_iter().filter(|entry| entry.id().is_some_and(|id| id.starts_with(name)));
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(entry),
            (None, _) => bail!("there is no job {name}"),
            (Some(_), Some(_)) => Err(UsageError(format!("several jobs have ids that begin with {name}")).into()),
        }
    }

    async fn job(&self, id: &str) -> anyhow::Result<Option<Entry>> {
        let answer = self.ask(Method::GET, &["_scheduler", "jobs", id], &[], None).await?;
        if answer.is_missing() {
            return Ok(None);
        }
        Ok(Some(Entry(answer.ok()?)))
    }

    async fn change(&self, name: &str, action: &str, told: &str) -> anyhow::Result<()> {
        let entry = self.find(name).await?;
        let Some(id) = entry.id() else {
            bail!("{name} has no job, its state is {}: {}", entry.state(), entry.error().unwrap_or("nothing is known"));
        };
        let body = json!({ "action": action });
        let answer = self.ask(Method::POST, &["_scheduler", "jobs", id], &[], Some(&body)).await?;
        if answer.status == reqwest::StatusCode::METHOD_NOT_ALLOWED {
            bail!("the server can't: it isn't a couchrep");
        }
        let changed = Entry(answer.ok()?);
        self.tell(&changed, || format!("{} {told}", changed.name()));
        Ok(())
    }

    async fn cancel(&self, name: &str) -> anyhow::Result<()> {
        let entry = self.find(name).await?;
        let answer = match (entry.document(), entry.id()) {
            (Some((database, document)), _) => {
                let described = self.ask(Method::GET, &[database, document], &[], None).await?.ok()?;
                let rev = described["_rev"].as_str().ok_or_else(|| anyhow!("the document has no revision"))?;
                self.ask(Method::DELETE, &[database, document], &[("rev", rev.to_owned())], None).await?
            }
            (None, id) => {
                let body = json!({ "replication_id": id, "cancel": true });
                self.ask(Method::POST, &["_replicate"], &[], Some(&body)).await?
            }
        };
        let done = Entry(answer.ok()?);
        self.tell(&done, || format!("{} cancelled", entry.name()));
        Ok(())
    }

    fn tell(&self, entry: &Entry, words: impl FnOnce() -> String) {
        match self.json {
            true => print(&entry.0),
            false => print(words()),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let answer = self.server.ask(method, path, query, body).await;
        answer.with_context(|| format!("{} doesn't answer", self.server.shown()))
    }
}

/// The database and the id of a document: `_replicator/soup`, `kitchen/_replicator/soup`. The database may be encoded.
fn place(name: &str) -> Option<(String, &str)> {
    let name = name.strip_prefix('/').unwrap_or(name);
    let end = name.find("_replicator/")? + "_replicator".len();
    let (database, document) = (&name[..end], &name[end + 1..]);
    let is_one =
        database == "_replicator" || database.ends_with("/_replicator") || database.ends_with("%2F_replicator");
    (is_one && !document.is_empty()).then(|| (database.replace("%2F", "/"), document))
}
