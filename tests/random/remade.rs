//! A target that is deleted and made anew beneath a session that goes on: between what was copied and the checkpoint for it.
//! Whether the target tells so or not, what it had must be copied once more.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::Run;

const DOCUMENTS: usize = 10;
/// Some checkpoint intervals.
const CHECKPOINTED: Duration = Duration::from_millis(150);

impl Run<'_> {
    /// Nothing fails yet. The session goes on into whatever comes next.
    pub(super) async fn remake_beneath_a_session(&self) {
        self.replicated(json!({"source": self.name(0), "target": self.name(1), "continuous": true})).await;
        let docs: Vec<_> = (0..DOCUMENTS).map(|number| json!({"_id": format!("before{number}")})).collect();
        self.write_and_wait(json!({ "docs": docs }), "before0").await;
        for method in [Method::DELETE, Method::PUT] {
            self.client.request(method, self.url(1)).send().await.unwrap().error_for_status().unwrap();
        }
        self.write_and_wait(json!({ "docs": [{"_id": "after"}] }), "after").await;
        // A checkpoint that must not be isn't signalled.
        tokio::time::sleep(CHECKPOINTED).await;
    }

    /// Writes to the first database, and waits until this document is in the second.
    async fn write_and_wait(&self, body: serde_json::Value, id: &str) {
        let request = self.client.post(self.url(0) + "/_bulk_docs").header(CONTENT_TYPE, "application/json");
        let request = request.header("x-couch-full-commit", "true").body(body.to_string());
        request.send().await.unwrap().error_for_status().unwrap();
        let url = format!("{}/{id}", self.url(1));
        while self.client.get(&url).send().await.unwrap().status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
