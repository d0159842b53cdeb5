//! A page of a list of failures: written once, under a name that nobody else makes, and never changed.
//!
//! Does no I/O. A name tells when the page was made, so that names in order are pages in order, and how many failures it
//! holds, so that counting them reads none: `019aa1b2c3d4-5f0e6d7c8b9a0f1e-250`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::RecordedFailure;
use crate::store::StoreError;

/// Bytes of a page, about. CouchDB takes documents of up to 8 MB by default, proxies take bodies of 1 MB.
pub const PAGE_BYTES: usize = 256 << 10;

/// Failures that a page may have by its name. One of [`PAGE_BYTES`] has no room for half as many.
const MAX_FAILURES: u64 = 100_000;

/// A page's name. Names in order are pages in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PageName(String);

impl PageName {
    fn new(failures: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(format!("{:012x}-{:016x}-{failures}", now.as_millis(), rand::random::<u64>()))
    }

    /// Reads a name; `None` if it isn't one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut is_hex = |digits: usize| {
            let part = parts.next()?;
            (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(())
        };
        is_hex(12)?;
        is_hex(16)?;
        parts.next()?.parse::<u64>().ok().filter(|failures| *failures <= MAX_FAILURES)?;
        parts.next().is_none().then(|| Self(text.to_owned()))
    }

    /// As it stands in ids and names of files.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many failures the page holds.
    pub fn failures(&self) -> u64 {
        self.0.rsplit('-').next().and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// A source's index may name anything.
impl TryFrom<String> for PageName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no name of a page of failures")
    }
}

/// A page that isn't written yet.
#[derive(Debug)]
pub struct NewPage {
    /// Its name.
    pub name: PageName,
    /// Its text.
    pub body: Box<RawValue>,
}

/// A page that was read.
#[derive(Debug)]
pub struct Page {
    /// The newest first.
    pub failures: Vec<RecordedFailure>,
    /// Bytes of its text.
    pub bytes: usize,
    /// The revision of its document; `None` in a file.
    pub rev: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    failures: Vec<RecordedFailure>,
}

impl Page {
    /// Reads a page's text. Whoever wrote it, words are short.
    pub fn parse(text: &str, rev: Option<String>) -> serde_json::Result<Self> {
        let Body { failures } = serde_json::from_str(text)?;
        let failures = failures.into_iter().map(RecordedFailure::shortened).collect();
        Ok(Self { failures, bytes: text.len(), rev })
    }
}

/// Makes pages of failures that come with the newest first. Pages that are made later have the newer ones.
pub fn pages(failures: Vec<RecordedFailure>) -> Result<Vec<NewPage>, StoreError> {
    let mut groups: Vec<Vec<RecordedFailure>> = Vec::new();
    let mut bytes = 0;
    for failure in failures {
        bytes += failure.size();
        match groups.last_mut() {
            Some(group) if bytes <= PAGE_BYTES => group.push(failure),
            _ => {
                bytes = failure.size();
                groups.push(vec![failure]);
            }
        }
    }
    let page = |failures: Vec<RecordedFailure>| {
        let name = PageName::new(failures.len());
        let body = serde_json::value::to_raw_value(&Body { failures }).map_err(std::io::Error::from)?;
        Ok(NewPage { name, body })
    };
    groups.into_iter().rev().map(page).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names out of a source's index were taken as they were, and asked for.
    #[test]
    fn only_names_that_could_be_made_here_are_read() {
        let read = |text: &str| serde_json::from_value::<PageName>(text.into());
        let made = PageName::new(250);
        assert_eq!(read(made.as_str()).unwrap(), made);
        let stem = &made.as_str()[..made.as_str().len() - "250".len()];
        assert_eq!(read(&format!("{stem}{MAX_FAILURES}")).unwrap().failures(), MAX_FAILURES);
        for no_name in
            [String::new(), "../x".into(), format!("{stem}1-1"), format!("{stem}100001"), format!("x{stem}1")]
        {
            assert!(read(&no_name).is_err(), "{no_name}");
        }
    }
}
