//! Single requests: tried again, redirected, refused.

use super::super::local_docs::{LISTED_AT_ONCE, MAX_LISTED, MAX_LISTED_BYTES};
use super::super::redirect::leads_inside;
use super::*;

/// A slow peer with many requests to it failed those that waited for their turn, after the limit for tries, without a try.
#[tokio::test]
async fn a_request_that_waits_for_others_of_ours_does_not_fail() {
    let tries = Arc::new(AtomicUsize::new(0));
    let url = serve(move |seen| {
        let slow = async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok::<_, std::io::Error>(r#"{"update_seq":1,"instance_start_time":"1"}"#)
        };
        // Its turn comes late, and then it meets an error that passes.
        match seen.path.as_str() {
            "/db/" => answer(200, Body::from_stream(stream::once(slow))),
            _ if tries.fetch_add(1, Ordering::Relaxed) == 0 => answer(503, "busy"),
            _ => answer(200, r#"{"_id":"_local/a","_rev":"0-1"}"#),
        }
    });
    let mut endpoint = endpoint(json!(format!("{}/db", url.await)));
    endpoint.connection.http_connections = Some(1);
    let settings = config::Replicator { retry_time_limit: Duration::from_secs(1), ..config::Replicator::default() };
    let (clients, pulse) = (Clients::new(&settings).unwrap(), Pulse::default());
    let policy = Policy::new(&settings.endpoints, true);
    let peer = RemotePeer::new(&clients, endpoint, &policy, Arc::new(settings), pulse.clone()).await.unwrap();
    let standing_still = pulse.failed(Duration::from_millis(1500));
    let both = futures::future::join(peer.info(), peer.local_doc("a"));
    let (slow, waiting) = tokio::select! {
        both = both => both,
        () = standing_still => panic!("it doesn't stand still: it waits for its turn"),
    };
    assert!(slow.is_ok() && waiting.unwrap().is_some());
}

#[tokio::test]
async fn a_request_is_tried_again_until_it_succeeds() {
    let tries = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let tries = tries.clone();
        move |_| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => answer(503, "busy"),
            1 => {
                let pieces = [Ok(Bytes::from_static(b"{\"update")), Err(std::io::Error::other("cut"))];
                answer(200, Body::from_stream(stream::iter(pieces)))
            }
            _ => info(),
        }
    });
    let info = peer(&format!("{}/db", url.await)).info().await.unwrap();
    assert_eq!((info.instance_start_time.as_str(), info.update_seq.as_json()), ("7", "\"5-x\""));
    assert_eq!(tries.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let tries = Arc::new(AtomicUsize::new(0));
    let url = serve(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let mut response = answer(429, "");
            response.headers_mut().insert("retry-after", "1".parse().unwrap());
            response
        }
        _ => info(),
    });
    let peer = peer(&url.await);
    let start = std::time::Instant::now();
    peer.info().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_peer_that_stays_away_is_told_soon_and_without_credentials() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = peer_as("user", &format!("http://{address}/db?key={SECRET}")).info().await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(matches!(error, PeerError::Unreachable { tries: 4, .. }), "{text}");
    assert!(text.contains(&format!("http://{address}/")) && !text.contains(SECRET), "{text}");
}

#[tokio::test]
async fn a_name_without_address_is_told_as_such() {
    let error = peer("http://couchrep.invalid/db").info().await.unwrap_err();
    assert!(matches!(error, PeerError::Unresolved { .. }), "{error:?}");
}

#[tokio::test]
async fn opening_tells_missing_from_forbidden() {
    let url = serve(|seen| match seen.path.as_str() {
        "/missing/" => answer(404, r#"{"error":"not_found","reason":"no_db_file"}"#),
        "/Bad/" => answer(400, r#"{"error":"illegal_database_name","reason":"no"}"#),
        "/there/" => answer(412, r#"{"error":"file_exists","reason":"there"}"#),
        _ => answer(401, ""),
    });
    let url = url.await;
    let at = |path: &str| peer(&format!("{url}/{path}"));
    assert!(
        matches!(at("missing").info().await, Err(PeerError::DatabaseMissing { database }) if database.ends_with("/missing/"))
    );
    assert!(matches!(at("Bad").create(&[]).await, Err(PeerError::DatabaseMissing { .. })));
    assert!(at("there").create(&[]).await.is_ok());
    assert!(matches!(at("secret").info().await, Err(PeerError::Unauthorized { .. })));
    assert!(matches!(at("secret").create(&[]).await, Err(PeerError::Unauthorized { .. })));
}

#[tokio::test]
async fn credentials_follow_a_redirect_within_the_host_only() {
    let tells = |seen: Seen| {
        ok(json!({"update_seq": 1, "instance_start_time": seen.headers.contains_key(AUTHORIZATION).to_string()}))
    };
    let other = serve(tells).await;
    let url = serve(move |seen| match seen.path.as_str() {
        "/near/" => moved(307, "/here/"),
        "/far/" => moved(301, &format!("{other}/here/")),
        "/round/" => moved(302, "/round/"),
        _ => tells(seen),
    });
    let url = url.await;
    let told =
        async |path: &str| peer_as("user", &format!("{url}{path}")).info().await.map(|info| info.instance_start_time);
    assert_eq!(told("/near/").await.unwrap(), "true");
    assert_eq!(told("/far/").await.unwrap(), "false");
    assert!(matches!(told("/round/").await, Err(PeerError::Malformed { .. })));
}

#[tokio::test]
async fn a_redirected_post_keeps_its_body_and_a_moved_database_is_remembered() {
    let asked = Arc::new(AtomicUsize::new(0));
    let url = serve({
        let asked = asked.clone();
        move |seen| match seen.path.strip_prefix("/old/") {
            Some(rest) => {
                asked.fetch_add(1, Ordering::Relaxed);
                moved(301, &format!("/new/{rest}"))
            }
            None => answer(200, seen.body),
        }
    });
    let peer = peer(&format!("{}/old", url.await));
    let change = Change { seq: Seq::from(1), id: DocId::from("a"), revs: vec![rev("1-a")] };
    // The body comes back as the answer, which has the wrong shape: what it was stands in the error.
    for _ in 0..2 {
        let error = peer.revs_diff(std::slice::from_ref(&change)).await.unwrap_err().to_string();
        assert!(error.contains(r#"{"a":["1-a"],"couchrep-asks-"#), "{error}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// A source that always knew one more held its replication, and the memory for all their names, for ever.
#[tokio::test]
async fn a_list_of_local_documents_without_end_is_an_error() {
    for (digits, most) in [(10, MAX_LISTED / LISTED_AT_ONCE), (2000, MAX_LISTED_BYTES / 2000 / LISTED_AT_ONCE)] {
        let pages = Arc::new(AtomicUsize::new(0));
        let url = serve({
            let pages = pages.clone();
            move |_| {
                let first = pages.fetch_add(1, Ordering::Relaxed) * LISTED_AT_ONCE;
                let row = |number| json!({ "id": format!("_local/x-{number:0digits$}") });
                ok(json!({ "rows": (first..first + LISTED_AT_ONCE).map(row).collect::<Vec<_>>() }))
            }
        });
        let listed = peer(&format!("{}/db", url.await)).local_ids("x-").await;
        assert!(matches!(listed, Err(PeerError::Malformed { .. })), "{listed:?}");
        assert!(pages.load(Ordering::Relaxed) <= most + 1);
    }
}

/// A peer that pointed at the machine's own services had them read, or written to, with the replicator's hands.
#[test]
fn no_redirect_leads_from_elsewhere_into_this_machines_network() {
    let leads_inside = |from: &str, next: &str| leads_inside(&Url::parse(from).unwrap(), &Url::parse(next).unwrap());
    let inside = [
        "http://127.0.0.1:5984/",
        "http://localhost/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://169.254.169.254/latest",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://0.0.0.0/",
        "http://100.64.1.1/",
        "http://[64:ff9b::10.0.0.1]/",
        "http://[2002:a00:1::]/",
    ];
    for next in inside {
        assert!(
            leads_inside("https://couch.example/db/", next) && leads_inside("http://93.184.216.34/", next),
            "{next}"
        );
    }
    assert!(leads_inside("http://10.1.2.3/", "http://169.254.169.254/"), "an address of the link is for nobody else");
    assert!(
        !leads_inside("http://127.0.0.1:5984/", "http://localhost:15984/")
            && !leads_inside("http://10.0.0.1/", "http://10.0.0.2/")
    );
    assert!(!leads_inside("http://couch.example/", "https://other.example/"));
    assert!(!leads_inside("http://couch.example/", "http://[64:ff9b::93.184.216.34]/"));
}
