//! `_design_docs`, `_dbs_info`, `_membership`, as CouchDB 3.5.0 answers them.

use serde_json::json;

use crate::asking::{ask, get, with_db};

#[tokio::test]
async fn design_documents_are_listed_alone() {
    let server = with_db().await;
    for id in ["A", "_design/d", "_design/d2", "a"] {
        ask(&server, "PUT", &format!("/db/{id}"), "{}").await;
    }
    let gone = ask(&server, "PUT", "/db/_design/gone", "{}").await.rev();
    ask(&server, "DELETE", &format!("/db/_design/gone?rev={gone}"), "").await;
    let row = |id: &str| {
        let rev = "1-967a00dff5e02add41819138abb3284d";
        format!("{{\"id\":\"{id}\",\"key\":\"{id}\",\"value\":{{\"rev\":\"{rev}\"}}}}")
    };
    let (one, two) = (row("_design/d"), row("_design/d2"));
    let none = r#"{"key":"_design/no","error":"not_found"}"#;
    for (query, offset, rows) in [
        ("", "1", format!("{one},\n{two}")),
        ("?limit=1&descending=true", "0", two.clone()),
        ("?startkey=\"_design/d2\"", "2", two.clone()),
        ("?endkey=\"_design/d\"", "1", one.clone()),
        ("?key=\"a\"", "2", String::new()),
        ("?skip=1", "2", two.clone()),
        (r#"?keys=["a","_design/d","_design/no"]"#, "null", format!("{one},\n{none}")),
    ] {
        let answer = get(&server, &format!("/db/_design_docs{query}")).await;
        let expected = format!("{{\"total_rows\":2,\"offset\":{offset},\"rows\":[\n{rows}\n]}}\n");
        assert_eq!((answer.status, answer.text()), (200, expected.as_str()), "{query}");
    }
    let answer = ask(&server, "POST", "/db/_design_docs", r#"{"keys":["_design/d"],"include_docs":true}"#).await;
    assert_eq!((answer.status, &answer.json()["rows"][0]["doc"]["_id"]), (200, &json!("_design/d")));
}

#[tokio::test]
async fn several_databases_are_described_at_once() {
    let server = with_db().await;
    server.database("other").await.fill("doc", 3).await;
    let asked = ask(&server, "POST", "/_dbs_info", r#"{"keys":["other","nosuch","Bad Name!",1,"db"]}"#).await;
    let info = |name| get(&server, name);
    let (other, db) = (info("/other").await.json(), info("/db").await.json());
    let expected = json!([
        { "key": "other", "info": other },
        { "key": "nosuch", "error": "not_found" },
        { "key": "Bad Name!", "error": "not_found" },
        { "key": 1, "error": "not_found" },
        { "key": "db", "info": db },
    ]);
    assert_eq!((asked.status, asked.json()), (200, expected));
    let listed = get(&server, "/_dbs_info?startkey=\"e\"").await;
    assert_eq!((listed.status, listed.json()), (200, json!([{ "key": "other", "info": other }])));
    assert_eq!(get(&server, "/_dbs_info?limit=0").await.text(), "[]\n");
    let many = format!(r#"{{"keys":[{}]}}"#, vec![r#""x""#; 101].join(","));
    for (body, reason) in [
        ("{}", "`keys` member must exist."),
        (r#"{"keys":1}"#, "`keys` member must be an array."),
        ("[]", "Request body must be a JSON object"),
        (many.leak(), "too_many_keys"),
    ] {
        let answer = ask(&server, "POST", "/_dbs_info", body).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (400, &json!(reason)), "{body}");
    }
}

#[tokio::test]
async fn a_server_is_the_one_node_of_its_cluster() {
    let server = with_db().await;
    let nodes = json!(["couchrep@127.0.0.1"]);
    let expected = json!({ "all_nodes": nodes, "cluster_nodes": nodes });
    assert_eq!(get(&server, "/_membership").await.json(), expected);
}
