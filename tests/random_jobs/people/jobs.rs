//! What people do to jobs rather than to documents, and what becomes of the documents then.

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Gone, PATIENCE, People, with, without};
use crate::random_jobs::documents::{DATABASES, Document, Members, Place, encode, is_continuous};

impl People<'_> {
    /// Pauses its job, lets it go on, or has it tried now.
    pub(super) async fn act_on_job(&mut self, place: &Place) -> Result<(), Gone> {
        let (_, entry) = self.ask(Method::GET, &place.entry_path(), None).await?;
        let Some(id) = entry["id"].as_str() else { return Ok(()) };
        let action = *["pause", "resume", "retry_now"].choose(&mut self.rng).unwrap();
        let asked =
            self.ask(Method::POST, &format!("/_scheduler/jobs/{}", encode(id)), Some(json!({"action": action}))).await;
        if asked.is_err() && action != "retry_now" {
            let members = self.documents.all[place].members.clone();
            self.doubt_whether_paused(&members, action == "pause");
        }
        let (status, entry) = asked?;
        assert!([200, 400, 404, 409].contains(&status), "seed {}: {place:?}: {entry}", self.run);
        let database = DATABASES.into_iter().find(|database| entry["database"] == *database);
        let (Some(database), Some(id)) = (database, entry["doc_id"].as_str()) else { return Ok(()) };
        if let Some(document) = self.documents.all.get_mut(&Place { database, id: id.to_owned() })
            && status == 200
        {
            match action {
                "pause" => drop(document.members.insert("paused".into(), json!(true))),
                "resume" => drop(document.members.shift_remove("paused")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks for a replication at `_replicate`: joins the document's job, begins one without a document, or makes a document.
    pub(super) async fn replicate(&mut self, members: Members) -> Result<(), Gone> {
        let mut members = without(without(members, "paused"), "comment");
        let keeps = is_continuous(&members) && self.rng.random_bool(0.3);
        if keeps {
            members.insert("keep".into(), json!(true));
        }
        let asking = self.ask(Method::POST, "/_replicate", Some(json!(members)));
        let asked = match is_continuous(&members) {
            true => asking.await,
            // He goes away; it goes on.
            false => tokio::time::timeout(PATIENCE, asking).await.unwrap_or(Ok((0, Value::Null))),
        };
        members.shift_remove("keep");
        let document = Document { promise: None, members, may_complete: false, is_brought: false };
        if asked.is_err() && keeps {
            self.documents.unnamed.push(document.clone());
        }
        let (status, answer) = asked?;
        if status == 202 {
            let id = answer["_local_id"].as_str().unwrap().to_owned();
            let place = Place { database: DATABASES[0], id: id.clone() };
            if keeps {
                self.documents.all.entry(place).or_insert(document);
            } else if !keeps {
                self.documents.asked.insert(id);
            }
        }
        Ok(())
    }

    /// Cancels a job: a kept one's document is deleted, another's paused.
    pub(super) async fn cancel(&mut self, members: &Members) -> Result<(), Gone> {
        let body = with(without(members.clone(), "paused"), "cancel", json!(true));
        let asked = self.ask(Method::POST, "/_replicate", Some(json!(body))).await;
        for place in self.documents.alike(members) {
            if asked.as_ref().is_ok_and(|(_, answer)| answer["_local_id"] == place.id)
                || asked.is_err() && place.id.contains('+')
            {
                self.documents.doubts.push((place, None));
            }
        }
        self.doubt_whether_paused(members, true);
        asked?;
        self.resolve_if_it_answers().await
    }

    /// Cancels a replication by its id, of which only documents with these members can have a job.
    ///
    /// It was seen without a document: until it is cancelled, one of theirs may have taken it over, which is paused then.
    pub async fn cancel_held(&mut self, id: &str, members: &Members) {
        let cancel = json!({"replication_id": id, "cancel": true});
        let asked = self.ask(Method::POST, "/_replicate", Some(cancel)).await;
        assert!(asked.is_ok(), "seed {}: it doesn't answer", self.run);
        self.doubt_whether_paused(members, true);
        self.resolve().await;
    }

    fn doubt_whether_paused(&mut self, members: &Members, paused: bool) {
        for place in self.documents.alike(members) {
            let mut document = self.documents.all[&place].clone();
            document.members = match paused {
                true => with(document.members, "paused", json!(true)),
                false => without(document.members, "paused"),
            };
            self.documents.doubts.push((place, Some(document)));
        }
    }
}
