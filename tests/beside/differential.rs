//! Random requests, valid and odd ones, sent to a CouchDB directly and through a couchrep beside it: the answers are the same.
//!
//! The CouchDB is a real one if `COUCHDB_URL` names it, else the embedded store of another couchrep. There are two databases of the same
//! content; what is sent to the one directly is sent to the other one through us, so that what one request writes the next
//! one finds on both sides. `COUCHREP_FUZZ` says how many requests there are, `COUCHREP_SEED` which ones; a failure prints both.

mod drawing;
mod comparing;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use couchrep::config::couchdb::CouchDb;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use self::comparing::{Answer, Exchange};
use self::drawing::{Drawing, Drawn};
use super::raw::Wire;
use crate::support::{self, Server, client};

/// Without `COUCHREP_FUZZ`.
const FEW: u64 = 400;
/// Requests that are drawn from one seed, over one pair of databases. A failure is repeated by as many at most.
const ROUND: u64 = 400;
/// Differences that are told.
const TOLD: usize = 10;

/// Who is asked directly, and a couchrep beside it.
struct Pair {
    couchdb: SocketAddr,
    server: Server,
    root: Url,
    /// The embedded store that plays the CouchDB.
    _played: Option<Server>,
}

impl Pair {
    async fn start() -> Self {
        let (root, played) = match std::env::var("COUCHDB_URL").ok().filter(|url| !url.is_empty()) {
            Some(url) => (Url::parse(&url).unwrap(), None),
            None => {
                let played = Server::with_admin("admin", "pass").await;
                (Url::parse(&played.url("/")).unwrap(), Some(played))
            }
        };
        let mut anonymous = root.clone();
        anonymous.set_username("").unwrap();
        anonymous.set_password(None).unwrap();
        let server = Server::with_config(|config| config.couchdb = Some(CouchDb::parse(anonymous.as_str()).unwrap()));
        let (couchdb, server) = (root.socket_addrs(|| None).unwrap()[0], server.await);
        Self { couchdb, server, root, _played: played }
    }

    fn authorization(&self) -> String {
        let pair = format!("{}:{}", self.root.username(), self.root.password().unwrap());
        format!("Basic {}", STANDARD.encode(pair))
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>, status: u16) -> Value {
        support::json(&client(), method, self.root.join(path).unwrap().to_string(), body.as_ref(), status).await
    }

    /// A session of the admin's.
    async fn cookie(&self) -> String {
        let (name, password) = (self.root.username(), self.root.password().unwrap());
        let mut root = self.root.join("/_session").unwrap();
        root.set_username("").unwrap();
        root.set_password(None).unwrap();
        let form = client().post(root).body(format!("name={name}&password={password}"));
        let answer = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    /// What is answered to these bytes until the connection closes.
    async fn answers(&self, addr: SocketAddr, drawn: &Drawn, db: &str) -> Vec<Answer> {
        let wire = Wire::connect(addr).await;
        comparing::parsed(&wire.exchange(&drawn.bytes(db), drawn.ends).await, &drawn.heads)
    }

    /// A database of the content that requests ask for.
    async fn fill(&self, db: &str) {
        self.ask(Method::PUT, &format!("/{db}?q=1"), None, 201).await;
        let answer = self.ask(Method::POST, &format!("/{db}/_bulk_docs"), Some(drawing::content()), 201).await;
        assert_eq!(answer, json!([]));
    }
}

#[tokio::test]
async fn random_requests_are_answered_the_same_directly_and_through_us() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let all = number("COUCHREP_FUZZ").unwrap_or(FEW);
    let seed = number("COUCHREP_SEED").unwrap_or_else(rand::random);
    println!("COUCHREP_SEED={seed} COUCHREP_FUZZ={all}");
    let pair = Pair::start().await;
    let (mut differences, mut kinds, mut sent) = (Vec::new(), std::collections::BTreeMap::new(), 0);
    while sent < all {
        let round = seed.wrapping_add(sent / ROUND);
        let name = format!("couchrep-fuzz-{round:020}-{:08x}", rand::random::<u32>());
        let dbs = ["a", "b"].map(|side| format!("{name}-{side}"));
        for db in &dbs {
            pair.fill(db).await;
        }
        let mut drawing = Drawing::new(StdRng::seed_from_u64(round), pair.authorization(), pair.cookie().await);
        for _ in 0..ROUND.min(all - sent) {
            let drawn = drawing.next();
            let direct = pair.answers(pair.couchdb, &drawn, &dbs[0]).await;
            let through = pair.answers(pair.server.addr(), &drawn, &dbs[1]).await;
            *kinds.entry(direct.first().map_or(0, |answer| answer.status)).or_insert(0) += 1;
            if let Some(difference) = (Exchange { drawn: &drawn, direct, through }).difference(&dbs) {
                differences.push(format!("seed {round}: {difference}"));
            }
        }
        sent += ROUND.min(all - sent);
        for db in &dbs {
            pair.ask(Method::DELETE, &format!("/{db}"), None, 200).await;
        }
    }
    println!("{sent} requests, {} differences; answers by status: {kinds:?}", differences.len());
    // Else nothing is compared.
    assert!(kinds.get(&200).is_some_and(|number| number * 5 > sent), "hardly anything was answered: {kinds:?}");
    let told = differences.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(differences.is_empty(), "{} of {sent} differ, COUCHREP_SEED={seed}:\n{told}", differences.len());
}
