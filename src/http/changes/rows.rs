//! Rows of a feed, rendered from one snapshot at a time.

use std::fmt::Write as _;

use crate::document::Rev;
use crate::http::answer::{Answers, CHUNK};
use crate::http::outgoing::Outgoing;
use crate::json::push_string;
use crate::store::{ChangeRow, FilterRun, Snapshot, StoreError};

use super::request::Request;

/// How far a feed has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The last row's seq; after which the next piece starts.
    pub seq: u64,
    /// Descending, where the next piece starts below. As in CouchDB, that begins at the newest, whatever `since` is.
    below: u64,
    /// Rows that were written.
    pub rows: u64,
    /// Rows that the feed has after `seq`.
    pub pending: u64,
    /// Rows that were looked at, whether they passed the filter or not.
    looked_at: u64,
    /// Rows that there were at the beginning.
    at_start: Option<u64>,
    /// Whether the opening was written.
    pub opened: bool,
    /// Whether there is nothing to read for now, or nothing more is wanted.
    pub caught_up: bool,
}

impl Progress {
    /// At the start, after `since`.
    pub fn new(since: u64) -> Self {
        Self {
            seq: since,
            below: u64::MAX,
            rows: 0,
            pending: 0,
            looked_at: 0,
            at_start: None,
            opened: false,
            caught_up: false,
        }
    }

    /// Whether more rows were read than there were at the beginning, and there are still more.
    pub fn has_gone_beyond(&self) -> bool {
        !self.caught_up && self.at_start.is_some_and(|rows| self.looked_at >= rows)
    }
}

/// Renders rows until there is a chunk, the limit is met, or the feed has no more.
pub fn piece(
    snapshot: &Snapshot,
    filter_run: &mut FilterRun,
    request: &Request,
    mut progress: Progress,
    answers: &Answers,
) -> Result<(Outgoing, Progress), StoreError> {
    let mut out = Outgoing::chunk(answers);
    if request.feed.goes_on() {
        out = out.on_one_line();
    }
    if !progress.opened {
        out.json.extend_from_slice(request.feed.opening().as_bytes());
        progress.opened = true;
    }
    if !request.descending {
        progress.seq = snapshot.going_on_after(progress.seq);
    }
    let mut ended = true;
    let mut last = progress.seq;
    let each = |row: ChangeRow| {
        last = row.seq;
        progress.looked_at += 1;
        let revs = filter_run.passing(snapshot, &row)?;
        if !revs.is_empty() {
            out.json.extend_from_slice(request.feed.before(progress.rows).as_bytes());
            push_row(snapshot, request, &row, &revs, &mut out)?;
            progress.rows += 1;
        }
        ended = progress.rows < request.limit && out.json.len() < CHUNK && !filter_run.is_tired();
        Ok(ended)
    };
    match request.descending {
        false => snapshot.changes(progress.seq, each)?,
        true => snapshot.changes_descending(progress.below, each)?,
    }
    progress.caught_up = ended || progress.rows >= request.limit;
    // A feed read to its end has come as far as the database, whatever the filter let through.
    progress.seq = if ended && !request.descending { last.max(snapshot.update_seq()) } else { last };
    progress.below = last;
    progress.pending = if request.descending { 0 } else { snapshot.pending(progress.seq)? };
    progress.at_start.get_or_insert(progress.looked_at + progress.pending);
    Ok((out, progress))
}

fn push_row(
    snapshot: &Snapshot,
    request: &Request,
    row: &ChangeRow,
    revs: &[Rev],
    out: &mut Outgoing,
) -> Result<(), StoreError> {
    push_change(row, revs, &mut out.json);
    if request.include_docs {
        out.json.extend_from_slice(br#","doc":"#);
        let record = snapshot.document(&row.id)?;
        match record.and_then(|record| Some((record.tree.winner()?, record))) {
            Some((winner, record)) => out.render(snapshot, &row.id, &record, &winner, &request.options)?,
            None => out.json.extend_from_slice(b"null"),
        }
    }
    out.json.push(b'}');
    out.json.extend_from_slice(request.feed.after(row.seq).as_bytes());
    Ok(())
}

/// A row up to where its document would stand.
fn push_change(row: &ChangeRow, revs: &[Rev], out: &mut Vec<u8>) {
    let mut number = String::new();
    // Writing to a string can't fail.
    let _ = write!(number, "{{\"seq\":{},\"id\":", row.seq);
    out.extend_from_slice(number.as_bytes());
    push_string(out, &row.id);
    out.extend_from_slice(br#","changes":["#);
    for (index, rev) in revs.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"rev\":" } else { b"{\"rev\":" });
        push_string(out, &rev.to_string());
        out.push(b'}');
    }
    out.push(b']');
    if row.deleted {
        out.extend_from_slice(br#","deleted":true"#);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(deleted: bool) -> ChangeRow {
        let leaves = vec![Rev::parse("2-b").unwrap(), Rev::parse("1-a").unwrap()];
        ChangeRow { seq: 4, id: "doc1".into(), deleted, leaves }
    }

    fn rendered(row: &ChangeRow, revs: &[Rev]) -> String {
        let mut out = Vec::new();
        push_change(row, revs, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_shows_the_leaves_that_passed() {
        let (row, deleted) = (row(false), row(true));
        assert_eq!(rendered(&row, &row.leaves[..1]), r#"{"seq":4,"id":"doc1","changes":[{"rev":"2-b"}]"#);
        assert_eq!(
            rendered(&deleted, &deleted.leaves),
            r#"{"seq":4,"id":"doc1","changes":[{"rev":"2-b"},{"rev":"1-a"}],"deleted":true"#
        );
    }
}
