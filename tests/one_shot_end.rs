//! Where a one-shot ends: only after all that its source held when it began, whatever a writer or a failing cluster does
//! meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use couchrep::tasks::Tasks;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{Fault, FaultyPeer, Process, Server};

/// A source that is written to, or falls ill, exactly between two pages of its feed.
struct Source {
    url: String,
    model: Arc<Mutex<Model>>,
    tasks: Tasks,
}

/// Its documents, and what happens at a request for the feed.
struct Model {
    /// Document and revision by place.
    feed: BTreeMap<u64, (usize, u64)>,
    newest: u64,
    local: HashMap<String, Value>,
    feeds_asked: usize,
    /// Rows of an answer at most, whatever its limit.
    page_rows: usize,
    /// Called when an answer has been read from the feed.
    after_page: AfterPage,
    /// Changes an answer before it is given; a text is given as it is.
    answer: ChangeAnswer,
}

/// Both are told how many times the feed was asked.
type AfterPage = Box<dyn FnMut(&mut Model, usize) + Send>;
type ChangeAnswer = Box<dyn FnMut(Value, usize) -> Value + Send>;

impl Model {
    fn edit(&mut self, doc: usize) {
        let place = self.feed.iter().find(|(_, (id, _))| *id == doc).map(|(place, _)| *place);
        let generation = place.and_then(|place| self.feed.remove(&place)).map_or(0, |(_, generation)| generation);
        self.newest += 1;
        self.feed.insert(self.newest, (doc, generation + 1));
    }

    fn changes(&mut self, query: &HashMap<String, String>) -> Value {
        self.feeds_asked += 1;
        let since: u64 = query["since"].parse().unwrap();
        let limit = query.get("limit").map_or(usize::MAX, |limit| self.page_rows.min(limit.parse().unwrap()));
        let rows: Vec<_> = self.feed.range(since + 1..).take(limit).collect();
        let last_seq = rows.last().map_or(since, |(place, _)| **place);
        // As CouchDB does.
        let interval = query.get("seq_interval").map_or(1, |interval| interval.parse().unwrap());
        let asked: usize = query.get("limit").map_or(0, |limit| limit.parse().unwrap());
        let row = |(index, (place, (doc, generation))): (usize, &(&u64, &(usize, u64)))| {
            let seq = asked.saturating_sub(index).is_multiple_of(interval).then_some(**place);
            json!({"seq": seq, "id": format!("doc{doc}"), "changes": [{"rev": format!("{generation}-a")}]})
        };
        let rows: Vec<_> = rows.iter().enumerate().map(row).collect();
        let pending = self.feed.range(last_seq + 1..).count();
        let answer = json!({"results": rows, "last_seq": last_seq, "pending": pending});
        let mut after_page: AfterPage = std::mem::replace(&mut self.after_page, Box::new(|_, _| ()));
        after_page(self, self.feeds_asked);
        self.after_page = after_page;
        (self.answer)(answer, self.feeds_asked)
    }
}

impl Source {
    /// Holds so many documents.
    async fn with(docs: usize) -> Self {
        let (after_page, answer): (AfterPage, ChangeAnswer) = (Box::new(|_, _| ()), Box::new(|answer, _| answer));
        let (feed, local) = (BTreeMap::new(), HashMap::new());
        let mut model = Model { feed, newest: 0, local, feeds_asked: 0, page_rows: 10, after_page, answer };
        (0..docs).for_each(|doc| model.edit(doc));
        let (model, tasks) = (Arc::new(Mutex::new(model)), Tasks::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/src", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer_to).with_state(model.clone());
        let stopping = tasks.stopping().clone();
        tasks.spawn("source", async move {
            let serving = std::future::IntoFuture::into_future(axum::serve(listener, router));
            stopping.run_until_cancelled(serving).await
        });
        Self { url, model, tasks }
    }

    fn after_page(&self, happens: impl FnMut(&mut Model, usize) + Send + 'static) {
        self.model.lock().unwrap().after_page = Box::new(happens);
    }

    fn answers(&self, change: impl FnMut(Value, usize) -> Value + Send + 'static) {
        self.model.lock().unwrap().answer = Box::new(change);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn answer_to(State(model): State<Arc<Mutex<Model>>>, request: Request) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let mut model = model.lock().unwrap();
    let answer = match uri.path().strip_prefix("/src/").unwrap_or_default() {
        "" => json!({"update_seq": model.newest, "instance_start_time": "1"}),
        "_ensure_full_commit" => json!({"ok": true, "instance_start_time": "1"}),
        "_changes" => model.changes(&query),
        "_bulk_get" => {
            let wanted = body["docs"].as_array().unwrap().iter().map(|wanted| {
                let (id, rev) = (&wanted["id"], wanted["rev"].as_str().unwrap());
                let (start, hash) = rev.split_once('-').unwrap();
                let revisions = json!({"start": start.parse::<u64>().unwrap(), "ids": [hash]});
                json!({"id": id, "docs": [{"ok": {"_id": id, "_rev": rev, "_revisions": revisions}}]})
            });
            json!({"results": wanted.collect::<Vec<_>>()})
        }
        local if method == Method::PUT => {
            let mut body = body;
            body["_rev"] = json!("0-1");
            model.local.insert(local.to_owned(), body);
            json!({"ok": true, "rev": "0-1"})
        }
        local => match model.local.get(local) {
            Some(stored) => stored.clone(),
            None => return response(404, &json!({"error": "not_found", "reason": "missing"})),
        },
    };
    response(200, &answer)
}

fn response(status: u16, body: &Value) -> Response {
    let response = Response::builder().status(status).header("content-type", "application/json");
    let body = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    response.body(Bytes::from(body).into()).unwrap()
}

/// Copies in batches of ten; answers the ids that lack of so many.
async fn lacking(server: &Server, source: &Source, docs: usize) -> Vec<String> {
    server.database("tgt").await;
    let request = json!({"source": source.url, "target": "tgt", "worker_batch_size": 10});
    tokio::time::timeout(Duration::from_secs(60), server.replicate(request)).await.expect("it ends");
    let there = server.get("/tgt/_all_docs", 200).await;
    let there: Vec<_> = there["rows"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    (0..docs).map(|doc| format!("doc{doc}")).filter(|id| !there.contains(&json!(id))).collect()
}

/// Edits moved documents behind the count of rows at which the feed was left: up to a tenth of them were missing.
#[tokio::test]
async fn a_one_shot_beside_edits_copies_all_that_was_there_when_it_began() {
    let (server, source) = (Server::start().await, Source::with(60).await);
    // What is read already, and what isn't, both move to the end.
    source.after_page(|model, page| {
        for doc in [page * 3, page * 3 + 1, 55, 59] {
            model.edit(doc % 60);
        }
    });
    assert_eq!(lacking(&server, &source, 60).await, [""; 0]);
}

/// With the count gone, only a snapshot ends it: more edits come between two pages than a page has rows.
#[tokio::test]
async fn a_one_shot_ends_although_its_source_is_written_to_faster_than_it_is_read() {
    for tells in [true, false] {
        let (server, source) = (Server::start().await, Source::with(60).await);
        source.after_page(|model, page| (0..12).for_each(|doc| model.edit(if doc == 0 { 59 } else { page + doc })));
        if !tells {
            // A short page: with full ones it would take a million rows until such a writer is noticed.
            source.model.lock().unwrap().page_rows = 9;
            source.answers(|mut answer, _| {
                answer.as_object_mut().unwrap().remove("pending");
                answer
            });
        }
        assert_eq!(lacking(&server, &source, 60).await, [""; 0]);
        assert!(source.model.lock().unwrap().feeds_asked < 20);
    }
}

/// A cluster whose node dies gives rows twice, and the count was reached before the end.
#[tokio::test]
async fn rows_that_a_source_gives_again_do_not_end_a_one_shot_early() {
    let (server, source) = (Server::start().await, Source::with(60).await);
    source.answers(|mut answer, page| {
        if page % 2 == 1 && answer["pending"].as_u64().unwrap() > 0 {
            let (back, pending) = (answer["last_seq"].as_u64().unwrap() - 8, answer["pending"].as_u64().unwrap() + 8);
            (answer["last_seq"], answer["pending"]) = (json!(back), json!(pending));
        }
        answer
    });
    assert_eq!(lacking(&server, &source, 60).await, [""; 0]);
}

/// A target that was empty isn't asked what it lacks, unless a row comes again: documents would be written and counted twice.
#[tokio::test]
async fn an_empty_target_is_asked_about_rows_alone_that_were_given_before() {
    for repeated in [0, 8] {
        let (server, source) = (Server::start().await, Source::with(60).await);
        source.answers(move |mut answer, page| {
            if page == 3 {
                answer["last_seq"] = json!(answer["last_seq"].as_u64().unwrap() - repeated);
            }
            answer
        });
        server.database("tgt").await;
        let target = FaultyPeer::before(&server).await;
        let job =
            json!({"source": source.url, "target": target.url("/tgt"), "worker_batch_size": 10, "worker_processes": 1});
        let session = server.replicate(job).await["history"][0].clone();
        let asked = target.requests().iter().filter(|request| request.contains("_revs_diff")).count();
        assert_eq!(asked, usize::from(repeated > 0));
        let counts = ["docs_written", "missing_found"].map(|count| session[count].clone());
        assert_eq!(counts, [60, 60], "{session}");
    }
}

/// A feed that a dying cluster closes well, with nothing in it, was an end.
#[tokio::test]
async fn an_answer_that_says_it_is_not_the_end_is_asked_for_again() {
    for pending in [json!(50), Value::Null] {
        let (server, source) = (Server::start().await, Source::with(60).await);
        source.answers(move |mut answer, page| {
            if page == 2 {
                answer = json!({"results": [], "last_seq": 10, "pending": pending});
            }
            answer
        });
        assert_eq!(lacking(&server, &source, 60).await, [""; 0]);
    }
}

/// A request for each batch's rows cost a far source a wait each time, and CouchDB half of what the feed costs it.
#[tokio::test]
async fn one_answer_of_the_feed_is_cut_into_many_batches() {
    let (server, source) = (Server::start().await, Source::with(1000).await);
    source.model.lock().unwrap().page_rows = usize::MAX;
    assert_eq!(lacking(&server, &source, 1000).await, [""; 0]);
    assert_eq!(source.model.lock().unwrap().feeds_asked, 1);
}

/// Rows between two seqs that were given before the answer broke off are given again, whatever the seqs there say.
#[tokio::test]
async fn an_answer_that_breaks_off_or_turns_into_something_else_is_asked_for_from_the_last_seq_on() {
    for rest in ["", "<html>", "]}", "\n\n{\"error\":\"nodedown\",\"reason\":\"progress not possible\"}"] {
        let (server, source) = (Server::start().await, Source::with(60).await);
        source.model.lock().unwrap().page_rows = usize::MAX;
        source.answers(move |answer, asked| {
            // The second one is asked for carefully, and is as long as a batch.
            let text = answer.to_string();
            if asked > 2 { answer } else { json!(format!("{}{rest}", &text[..text.len() / 5 * 3])) }
        });
        assert_eq!(lacking(&server, &source, 60).await, [""; 0], "{rest}");
    }
}

/// In the embedded store too: edits came faster than a slow target took them.
#[tokio::test]
async fn a_one_shot_out_of_the_store_copies_all_and_ends_beside_a_fast_writer() {
    let server = Server::start().await;
    let target = FaultyPeer::before(&server).await;
    server.database("src").await;
    server.database("tgt").await;
    let docs = |round: usize| (0..200).map(move |n| json!({"_id": format!("doc{n}"), "round": round}));
    server.post("/src/_bulk_docs", json!({"docs": docs(0).collect::<Vec<_>>()}), 201).await;
    target.fail_at_random(|_| Some(Fault::Slow(Duration::from_millis(30))));
    let request =
        json!({"source": "src", "target": target.url("/tgt"), "worker_batch_size": 10, "worker_processes": 1});
    let writing = async {
        for round in 1.. {
            // Half of them, in the opposite direction, each as a new branch.
            let edited = docs(round).rev().step_by(2).map(|mut doc| {
                doc["_rev"] = json!(format!("2-{round}"));
                doc
            });
            let edits = json!({"new_edits": false, "docs": edited.collect::<Vec<_>>()});
            server.post("/src/_bulk_docs", edits, 201).await;
        }
    };
    let replicating = tokio::time::timeout(Duration::from_secs(60), server.replicate(request));
    tokio::select! {
        answer = replicating => drop(answer.expect("it ends")),
        () = writing => unreachable!(),
    }
    assert_eq!(server.get("/tgt", 200).await["doc_count"], 200);
}

/// `couchrep verify` took an empty page for the end: what it hadn't read wasn't missing.
#[tokio::test(flavor = "multi_thread")]
async fn verify_asks_again_for_an_empty_page_while_changes_are_pending() {
    let (server, source) = (Server::start().await, Source::with(60).await);
    server.database("tgt").await;
    source.answers(|answer, asked| match asked {
        1 | 2 => json!({"results": [], "last_seq": 0, "pending": 60}),
        _ => answer,
    });
    let output = Process::run(&["verify", &source.url, &server.url("/tgt")], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("60 documents, 60 leaves compared") && text.contains("lacks 60"), "{text}");
}
