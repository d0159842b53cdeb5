//! Names and passwords that a CouchDB doesn't take. With a user of the test's own: an account that fails too often is locked.

use reqwest::Method;
use serde_json::json;

use super::rig::{Replicator, Rig, Side};
use crate::support::{self, FaultyPeer, client};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_fails_one_login_and_the_reason_is_couchdbs_own() {
    let Some(rig) = Rig::start().await else { return };
    let (source, target) = (rig.database(Side::Store).await, rig.database(Side::First).await);
    let root = target.url.rsplit_once('/').unwrap().0;
    let name = format!("couchrep-test-{:032x}", rand::random::<u128>());
    let user = format!("{root}/_users/org.couchdb.user:{name}");
    let account = json!({ "name": name, "password": "right", "roles": [], "type": "user" });
    let made = support::json(&client(), Method::PUT, user.clone(), Some(&account), 201).await;

    let (_, place) = root.split_once("://").unwrap();
    let between = FaultyPeer::before_url(format!("http://{}", place.split('@').next_back().unwrap())).await;
    let database = target.url.rsplit_once('/').unwrap().1;
    let at = |password: &str| between.url(&format!("/{database}")).replace("://", &format!("://{name}:{password}@"));
    let ask = async |url: String| {
        let request = json!({ "source": rig.named(Replicator::Couchrep, &source), "target": url });
        rig.ask_couchrep(&request, 401).await["reason"].as_str().unwrap().to_owned()
    };
    let reason = ask(at("wrong")).await;
    assert!(reason.ends_with("/: Name or password is incorrect."), "{reason}");
    assert_eq!(between.requests(), ["POST /_session"]);
    // The right one logs in, and has no rights here.
    let reason = ask(at("right")).await;
    assert!(reason.ends_with("/: You are not allowed to access this db."), "{reason}");

    let rev = made["rev"].as_str().unwrap();
    support::json(&client(), Method::DELETE, format!("{user}?rev={rev}"), None, 200).await;
}
