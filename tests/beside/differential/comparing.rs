//! Compares answers: status with its words, headers with their letters, bodies byte for byte, but for what [`Exchange::difference`] names.

use super::drawing::Drawn;

/// One answer, its body without chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    head: Vec<String>,
    body: Vec<u8>,
}

/// The answers of a connection; what can't be read is one with the status 0. `heads`: which of them answer HEAD.
pub fn parsed(bytes: &[u8], heads: &[bool]) -> Vec<Answer> {
    let (mut answers, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let is_head = heads.get(answers.len()).copied().unwrap_or_default();
        match answer(rest, is_head) {
            Some((Answer { status: 100, .. }, after)) => rest = after,
            // CouchDB ends such a feed twice, if its time is over.
            Some((answer, _)) if answer.head.iter().any(|line| line.contains(EVENTS)) => {
                answers.push(answer);
                break;
            }
            Some((answer, after)) => {
                answers.push(answer);
                rest = after;
            }
            None => {
                answers.push(Answer { status: 0, head: Vec::new(), body: rest.to_vec() });
                break;
            }
        }
    }
    answers
}

fn answer(bytes: &[u8], is_head: bool) -> Option<(Answer, &[u8])> {
    let end = find(bytes, b"\r\n\r\n")?;
    // A character a byte: headers may be no UTF-8.
    let head: String = bytes[..end].iter().copied().map(char::from).collect();
    let mut head: Vec<_> = head.split("\r\n").map(str::to_owned).collect();
    head[1..].sort();
    let status = head[0].split(' ').nth(1)?.parse().ok()?;
    let mut rest = &bytes[end + 4..];
    let value = |name: &str| {
        let line = head.iter().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
        line.map(|line| line[name.len() + 1..].trim().to_lowercase())
    };
    let body = match (value("transfer-encoding"), value("content-length")) {
        _ if is_head || status < 200 || matches!(status, 204 | 304) => Vec::new(),
        (Some(coding), _) if coding == "chunked" => {
            let mut whole = Vec::new();
            loop {
                let line = find(rest, b"\r\n")?;
                let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?.trim(), 16).ok()?;
                whole.extend_from_slice(rest.get(line + 2..line + 2 + size)?);
                rest = rest.get(line + 2 + size + 2..)?;
                if size == 0 {
                    break whole;
                }
            }
        }
        (_, Some(length)) => {
            let (body, after) = rest.split_at_checked(length.parse().ok()?)?;
            rest = after;
            body.to_vec()
        }
        _ => std::mem::take(&mut rest).to_vec(),
    };
    Some((Answer { status, head, body }, rest))
}

const EVENTS: &str = "text/event-stream";

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|found| found == what)
}

/// A request, and what was answered to it on both ways.
pub struct Exchange<'a> {
    pub drawn: &'a Drawn,
    pub direct: Vec<Answer>,
    pub through: Vec<Answer>,
}

/// Headers that aren't compared, with what they say.
const OF_ITS_OWN: [&str; 6] = [
    // The time, which may go on between the two.
    "date:",
    "expires:",
    // A number that CouchDB draws for each request.
    "x-couch-request-id:",
    // How long it took to read the body.
    "x-couchdb-body-time:",
    // How each connection goes on, and how its bodies are framed, is settled on each side.
    "connection:",
    "transfer-encoding:",
];

/// Members of answers whose values are a database's own, of two that are otherwise the same.
const VALUES_OF_ITS_OWN: [&str; 13] = [
    // Seqs name the shard's file and the node's time.
    "seq",
    "last_seq",
    "update_seq",
    "purge_seq",
    "pending",
    // When it was made.
    "instance_start_time",
    // Bytes on disk: pages may be written together or not.
    "file",
    "external",
    "active",
    "data_size",
    "disk_size",
    // Whether the index is being built at this moment.
    "updater_running",
    "waiting_clients",
];

impl Exchange<'_> {
    /// How the two differ, if they do.
    pub fn difference(self, dbs: &[String; 2]) -> Option<String> {
        let waits = self.drawn.text().contains("timeout=");
        let plain =
            |answers: &[Answer]| answers.iter().map(|answer| comparable(answer, dbs, waits)).collect::<Vec<_>>();
        let (direct, through) = (plain(&self.direct), plain(&self.through));
        if direct == through {
            return None;
        }
        let shown = |answers: &[Answer]| {
            let one = |answer: &Answer| {
                let body: String = String::from_utf8_lossy(&answer.body).chars().take(600).collect();
                format!("{}\n{body}", answer.head.join("\n"))
            };
            answers.iter().map(one).collect::<Vec<_>>().join("\n\n")
        };
        Some(format!("{}\n--- directly\n{}\n--- through us\n{}", self.drawn.text(), shown(&direct), shown(&through)))
    }
}

/// An answer without what is its own.
fn comparable(answer: &Answer, dbs: &[String; 2], waits: bool) -> Answer {
    let mut head = answer.head.clone();
    head.retain(|line| !OF_ITS_OWN.iter().any(|name| line.to_lowercase().starts_with(name)));
    let body: String = answer.body.iter().copied().map(char::from).collect();
    let nameless = |text: &str| text.replace(&dbs[0], "{db}").replace(&dbs[1], "{db}");
    let mut body = nameless(&body);
    // The boundaries of a multipart answer are drawn, those within its parts too.
    let announced = format!("{}\n{body}", head.join("\n"));
    let boundaries = announced.split("boundary=\"").skip(1).filter_map(|rest| rest.split('"').next());
    for boundary in boundaries.filter(|boundary| !boundary.is_empty()) {
        body = body.replace(boundary, "{boundary}");
        head.iter_mut().for_each(|line| *line = line.replace(boundary, "{boundary}"));
    }
    if head.iter().any(|line| line.contains(EVENTS)) {
        // An event's id is a seq.
        body = body.lines().filter(|line| !line.starts_with("id: ")).collect::<Vec<_>>().join("\n");
    }
    if waits {
        // To one of 20 feeds that end soon CouchDB sends a heartbeat.
        body = body.replace("event: heartbeat\ndata: \n", "").replace('\n', "");
    }
    for (encoded, plain) in [("%22", "\""), ("%3C", "<"), ("%3E", ">"), ("%60", "`")] {
        // What people type arrives encoded, and CouchDB says so in `Location` and to update functions.
        body = body.replace(encoded, plain);
        head.iter_mut().for_each(|line| *line = line.replace(encoded, plain));
    }
    for name in VALUES_OF_ITS_OWN {
        body = without_values(&body, name);
    }
    head.iter_mut().for_each(|line| *line = nameless(line));
    for line in &mut head {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        match name.as_str() {
            // That of a list is a hash of the database's name and seq, in base 36; that of a document or an attachment is compared.
            "etag"
                if line.len() > 20
                    && line[name.len()..]
                        .bytes()
                        .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'"' | b':' | b' ')) =>
            {
                line.truncate(name.len());
            }
            // A cookie has the time in it.
            "set-cookie" => line.truncate(line.find('=').unwrap_or(line.len())),
            // It counts what was taken out above too; that it is right is checked by reading as much.
            "content-length" => line.truncate(name.len()),
            _ => {}
        }
    }
    Answer { status: answer.status, head, body: body.into_bytes() }
}

/// Takes out the values of a member, which are texts or numbers.
fn without_values(text: &str, name: &str) -> String {
    let (member, mut whole, mut rest) = (format!("\"{name}\":"), String::new(), text);
    while let Some(at) = rest.find(&member) {
        let (before, after) = rest.split_at(at + member.len());
        whole.push_str(before);
        let is_text = after.starts_with('"');
        let end = match is_text {
            true => after[1..].find('"').map(|end| end + 2),
            false => after.find([',', '}', '\n']),
        };
        rest = &after[end.unwrap_or(after.len())..];
    }
    whole + rest
}
