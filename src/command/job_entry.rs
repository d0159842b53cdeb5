//! An entry of `_scheduler` for people: a row of a table that fits the terminal, or all that it says.

use console::{Term, measure_text_width, pad_str, truncate_str};
use serde_json::Value;

/// Characters of an id that tell jobs apart.
const SHORT: usize = 8;
/// What no column is narrowed below.
const NARROWEST: usize = 12;
const GAP: &str = "  ";

/// An entry of `_scheduler/jobs` or `_scheduler/docs`, as the server gave it.
pub struct Entry(pub Value);

impl Entry {
    /// Its replication's id; `None` of a document that has no job.
    pub fn id(&self) -> Option<&str> {
        self.0["id"].as_str()
    }

    /// Whether it stands in `_scheduler/jobs` too.
    pub fn has_job(&self) -> bool {
        self.id().is_some()
    }

    /// The document that describes it: database and id.
    pub fn document(&self) -> Option<(&str, &str)> {
        Some((self.0["database"].as_str()?, self.0["doc_id"].as_str()?))
    }

    /// `paused`, or the state. CouchDB's jobs don't tell theirs: it can be seen from what they do tell.
    pub fn state(&self) -> &str {
        match (self.0["paused"].as_bool(), self.0["state"].as_str()) {
            (Some(true), _) => "paused",
            (_, Some(state)) => state,
            _ if self.0["pid"].is_string() => "running",
            _ if self.0["history"][0]["type"] == "crashed" => "crashing",
            _ => "pending",
        }
    }

    /// Why it fails.
    pub fn error(&self) -> Option<&str> {
        self.0["info"]["error"].as_str()
    }

    /// What a person calls it.
    pub fn name(&self) -> String {
        match (self.document(), self.id()) {
            (Some((database, document)), _) => plain(&format!("{database}/{document}")),
            (None, id) => plain(id.unwrap_or("–")),
        }
    }

    /// Short, since two must fit into a line.
    fn endpoints(&self) -> Option<String> {
        let short = |name: &str| {
            let url = self.0[name].as_str()?;
            Some(url.split_once("://").map_or(url, |(_, place)| place).trim_end_matches('/'))
        };
        Some(plain(&format!("{} → {}", short("source")?, short("target")?)))
    }

    fn count(&self, name: &str) -> String {
        self.0["info"][name].as_u64().map_or(String::new(), |count| indicatif::HumanCount(count).to_string())
    }
}

/// A line for each, columns below their names, as wide as the terminal. A job goes by its document, or by the beginning of its id.
pub fn list_table(entries: &[Entry]) -> String {
    let row = |entry: &Entry| {
        let job = match entry.document() {
            Some(_) => entry.name(),
            None => entry.name().chars().take(SHORT).collect(),
        };
        let (written, pending) = (entry.count("docs_written"), entry.count("changes_pending"));
        let (state, endpoints) = (plain(entry.state()), entry.endpoints().unwrap_or_default());
        [job, state, endpoints, written, pending, entry.error().map(plain).unwrap_or_default()]
    };
    let titles = ["JOB", "STATE", "SOURCE → TARGET", "WRITTEN", "PENDING", "ERROR"].map(str::to_owned);
    let rows: Vec<_> = entries.iter().map(row).collect();
    table(Some(titles), &rows, Term::stdout().size_checked().map(|(_, width)| usize::from(width)))
}

/// Columns that nothing stands in are left out; the widest ones are narrowed until a line fits.
fn table<const N: usize>(titles: Option<[String; N]>, rows: &[[String; N]], limit: Option<usize>) -> String {
    let columns: Vec<_> = (0..N).filter(|column| rows.iter().any(|row| !row[*column].is_empty())).collect();
    let lines: Vec<_> = titles.iter().chain(rows).collect();
    let widest = |column: &usize| lines.iter().map(|line| measure_text_width(&line[*column])).max().unwrap_or_default();
    let mut widths: Vec<_> = columns.iter().map(widest).collect();
    let gaps = GAP.len() * columns.len().saturating_sub(1);
    while let Some(limit) = limit
        && widths.iter().sum::<usize>() + gaps > limit
        && let Some(width) = widths.iter_mut().max()
        && *width > NARROWEST
    {
        *width -= 1;
    }
    let line = |line: &&[String; N]| {
        let cells = columns.iter().zip(&widths).map(|(column, width)| {
            let text = truncate_str(&line[*column], *width, "…");
            pad_str(&text, *width, console::Alignment::Left, None).into_owned()
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// All that is known of one, in lines.
pub fn details(entry: &Entry) -> String {
    let shown = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(plain(text)),
        value => Some(plain(&value.to_string())),
    };
    let mut lines = vec![
        ("id".to_owned(), entry.id().map(plain)),
        ("document".to_owned(), entry.document().map(|_| entry.name())),
        ("state".to_owned(), Some(plain(entry.state()))),
    ];
    for field in ["source", "target", "user", "next_try"] {
        lines.push((field.replace('_', " "), shown(&entry.0[field])));
    }
    lines.push(("failures in a row".to_owned(), shown(&entry.0["error_count"]).filter(|count| count != "0")));
    for (name, value) in entry.0["info"].as_object().into_iter().flatten() {
        lines.push((plain(&name.replace('_', " ")), shown(value)));
    }
    for event in entry.0["history"].as_array().into_iter().flatten() {
        let text = |name: &str| plain(event[name].as_str().unwrap_or_default());
        let words = [text("type"), text("reason")].join(": ");
        lines.push((text("timestamp"), Some(words.trim_end_matches(": ").to_owned())));
    }
    let known: Vec<_> = lines.into_iter().filter_map(|(name, text)| Some([name, text?])).collect();
    table(None, &known, None)
}

/// Whatever a name or a peer's words hold, it is one line, and no terminal takes it for a command.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
