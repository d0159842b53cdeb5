//! People who write documents of jobs, one thing after another, and know what they did. What they read is compared with what they know:
//! nobody else changes what they wrote.

mod jobs;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use rand::{Rng as _, RngExt as _};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::documents::{DATABASES, Document, Documents, Members, Place, Promise, encode, is_continuous, members_of};
use super::world::World;

/// Somebody who waits for a one-shot goes away.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(300);
/// A job's state may come between a read and a write.
const TRIES: usize = 20;

/// They; for a step.
pub struct People<'a> {
    run: u64,
    rng: StdRng,
    client: Client,
    url: String,
    documents: &'a mut Documents,
    databases: Vec<Known>,
}

/// What is known of a database.
struct Known {
    name: String,
    made: u32,
    kept: usize,
}

/// The server is: what it was asked last may be done or not.
struct Gone;

/// What an edit does about the members that the replicator wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Kept,
    /// So that it runs again.
    LeftOut,
}

impl<'a> People<'a> {
    pub fn new(world: &World, documents: &'a mut Documents, rng: StdRng) -> Self {
        let known =
            |index| Known { name: world.name(index), made: world.data[index].made, kept: world.data[index].kept.len() };
        Self {
            run: world.run,
            rng,
            client: world.client.clone(),
            url: world.machine.url(""),
            documents,
            databases: (0..world.data.len()).map(known).collect(),
        }
    }

    /// Nothing goes wrong yet.
    pub async fn write_first(&mut self) {
        for _ in 0..self.rng.random_range(3..13) {
            let members = if self.rng.random_bool(0.2) { self.alike() } else { self.draw() };
            assert!(self.write_new(members).await.is_ok());
        }
    }

    /// Until the server is gone.
    pub async fn act_several_times(&mut self) {
        for _ in 0..self.rng.random_range(2..9) {
            if self.act().await.is_err() {
                return;
            }
        }
    }

    /// Finds out what became of what was never answered.
    pub async fn resolve(&mut self) {
        assert!(self.resolve_if_it_answers().await.is_ok(), "seed {}: it doesn't answer", self.run);
    }

    async fn resolve_if_it_answers(&mut self) -> Result<(), Gone> {
        while let Some((place, instead)) = self.documents.doubts.first().cloned() {
            let found = self.read(&place).await?;
            self.documents.doubts.remove(0);
            let found = found.map(|found| members_of(&found));
            let known = self.documents.all.get(&place).map(|known| &known.members);
            if found.as_ref() == known {
                continue;
            }
            if found.as_ref() == instead.as_ref().map(|instead| &instead.members) {
                match instead {
                    Some(instead) => drop(self.documents.all.insert(place, instead)),
                    None => drop(self.documents.all.remove(&place)),
                }
            }
            // Else what comes of a later doubt about it.
        }
        while let Some(document) = self.documents.unnamed.first().cloned() {
            let path = format!("/{}/_all_docs?include_docs=true", DATABASES[0]);
            let (_, listed) = self.ask(Method::GET, &path, None).await?;
            self.documents.unnamed.remove(0);
            let is_it = |row: &&Value| {
                row["id"].as_str().unwrap().contains("+continuous") && members_of(&row["doc"]) == document.members
            };
            for row in listed["rows"].as_array().unwrap().iter().filter(is_it) {
                let place = Place { database: DATABASES[0], id: row["id"].as_str().unwrap().to_owned() };
                self.documents.all.entry(place).or_insert_with(|| document.clone());
            }
        }
        Ok(())
    }

    /// Deletes a database of documents, and makes it anew.
    pub async fn remake_database(&mut self) {
        let database = *DATABASES.choose(&mut self.rng).unwrap();
        let path = format!("/{}", encode(database));
        for (method, status) in [(Method::DELETE, 200), (Method::PUT, 201)] {
            let Ok(answer) = self.ask(method, &path, None).await else {
                panic!("seed {}: it doesn't answer", self.run)
            };
            assert_eq!(answer.0, status, "seed {}: {path}: {}", self.run, answer.1);
        }
        self.documents.all.retain(|place, _| place.database != database);
    }

    async fn act(&mut self) -> Result<(), Gone> {
        let Some(place) = self.documents.all.keys().choose(&mut self.rng).cloned() else {
            let members = self.draw();
            return self.write_new(members).await;
        };
        let members = self.documents.all[&place].members.clone();
        let written = if self.rng.random_bool(0.5) { Written::Kept } else { Written::LeftOut };
        match self.rng.random_range(0..24) {
            0..3 => {
                let members = self.draw();
                self.write_new(members).await
            }
            3 => {
                let members = self.alike();
                self.write_new(members).await
            }
            4 => self.refused().await,
            5 => self.bring_failed().await,
            6..9 => {
                let mut members = self.draw();
                if self.rng.random_bool(0.3) {
                    members = self.alike();
                }
                self.edit(&place, members, written).await
            }
            9..12 => {
                let members = self.commented(members);
                self.edit(&place, members, written).await
            }
            12 => self.edit(&place, with(members, "paused", json!(true)), written).await,
            13 => self.edit(&place, without(members, "paused"), written).await,
            14..17 => self.act_on_job(&place).await,
            17 => self.delete(&place).await,
            18 => {
                // What makes no sense can't be written again.
                let is_brought = self.documents.all[&place].is_brought;
                self.delete(&place).await?;
                let members = if !is_brought && self.rng.random_bool(0.5) { members } else { self.draw() };
                self.edit(&place, members, Written::LeftOut).await
            }
            19 => self.date_forward(&place).await,
            20 | 21 => self.replicate(members).await,
            22 => {
                let members = self.draw();
                self.replicate(members).await
            }
            _ => self.cancel(&members).await,
        }
    }

    /// What somebody might want.
    fn draw(&mut self) -> Members {
        let (source, target) = self.two();
        let mut members = Members::new();
        let endpoint = |name: &str, is_object: bool| match is_object && name.contains("://") {
            true => json!({ "url": name }),
            false => json!(name),
        };
        let (source, target) = (&self.databases[source].name, &self.databases[target].name);
        members.insert("source".into(), endpoint(source, self.rng.random_bool(0.2)));
        members.insert("target".into(), endpoint(target, self.rng.random_bool(0.2)));
        let mut maybe = |chance, name: &str, value: Value| {
            if self.rng.random_bool(chance) {
                members.insert(name.into(), value);
            }
        };
        maybe(0.7, "continuous", json!(true));
        maybe(0.1, "create_target", json!(true));
        maybe(0.1, "paused", json!(true));
        maybe(0.2, "use_bulk_get", json!(false));
        maybe(0.2, "worker_batch_size", json!(1));
        maybe(0.2, "checkpoint_interval", json!(1));
        match self.rng.random_range(0..20) {
            0 => drop(members.insert("filter".into(), json!("f/low"))),
            1..4 => drop(members.insert("selector".into(), json!({"token": {"$lt": "8"}}))),
            4 => drop(members.insert("selector".into(), json!({"token": {"$gte": "8"}}))),
            _ => {}
        }
        self.commented(members)
    }

    fn two(&mut self) -> (usize, usize) {
        let count = self.databases.len();
        let source = self.rng.random_range(0..count);
        (source, (source + self.rng.random_range(1..count)) % count)
    }

    /// The same as another document, in other words.
    fn alike(&mut self) -> Members {
        match self.documents.all.values().filter(|other| !other.is_brought).choose(&mut self.rng) {
            Some(other) => {
                let members = without(other.members.clone(), "paused");
                self.commented(members)
            }
            None => self.draw(),
        }
    }

    fn commented(&mut self, members: Members) -> Members {
        with(members, "comment", json!(format!("{:08x}", self.rng.next_u32())))
    }

    fn new_place(&mut self) -> Place {
        let database = DATABASES[usize::from(self.rng.random_bool(0.3))];
        Place {
            database,
            id: format!("{} {:06x}", ["a", "m", "z/ä"].choose(&mut self.rng).unwrap(), self.rng.next_u32() >> 8),
        }
    }

    async fn write_new(&mut self, members: Members) -> Result<(), Gone> {
        let place = self.new_place();
        self.edit(&place, members, Written::LeftOut).await
    }

    /// Writes these members over what is there.
    async fn edit(&mut self, place: &Place, members: Members, written: Written) -> Result<(), Gone> {
        // What makes no sense can't be written any more, but in the way in which it came.
        let brought = self.documents.all.get(place).is_some_and(|before| before.is_brought);
        let members = if brought { self.draw() } else { members };
        let written = if brought { Written::LeftOut } else { written };
        for _ in 0..TRIES {
            let found = self.read_known(place).await?;
            let mut body = json!(members);
            for (name, value) in found.iter().flat_map(|found| found.as_object().unwrap()) {
                if name == "_rev" || written == Written::Kept && name.starts_with("_replication_") {
                    body[name] = value.clone();
                }
            }
            let after = self.after(place, found.as_ref(), &members, written);
            let answer = self.doubting(place, Some(&after), self.ask(Method::PUT, &place.path(), Some(body)).await)?;
            match answer.0 {
                201 => {
                    self.documents.all.insert(place.clone(), after);
                    return Ok(());
                }
                409 => {}
                _ => panic!("seed {}: {place:?}: {answer:?}", self.run),
            }
        }
        panic!("seed {}: {place:?} can't be written", self.run);
    }

    /// What a document is after this edit.
    fn after(&self, place: &Place, found: Option<&Value>, members: &Members, written: Written) -> Document {
        let is_completed = found.is_some_and(|found| found["_replication_state"] == "completed");
        let before = self.documents.all.get(place);
        let stays_completed = is_completed && written == Written::Kept;
        let counting = |members: &Members| without(without(members.clone(), "comment"), "paused");
        let goes_on = before.is_some_and(|before| !is_completed && counting(&before.members) == counting(members));
        let promise = match stays_completed || goes_on {
            true => before.and_then(|before| before.promise.clone()).filter(|_| goes_on),
            false => self.promise(members),
        };
        Document {
            members: members.clone(),
            may_complete: stays_completed || !is_continuous(members),
            is_brought: false,
            promise,
        }
    }

    fn promise(&self, members: &Members) -> Option<Promise> {
        let place = |name: &str| {
            let url = members[name].get("url").unwrap_or(&members[name]);
            self.databases.iter().position(|known| *url == *known.name)
        };
        let (source, target) = (place("source")?, place("target")?);
        let made = |index: usize| (index, self.databases[index].made);
        Some(Promise { source: made(source), target: made(target), kept: self.databases[source].kept })
    }

    /// Until it is gone, whatever conflicts it has.
    async fn delete(&mut self, place: &Place) -> Result<(), Gone> {
        loop {
            let read = self.read(place).await;
            if read.is_err() {
                self.documents.doubts.push((place.clone(), None));
            }
            let Some(found) = read? else { break };
            let path = format!("{}?rev={}", place.path(), found["_rev"].as_str().unwrap());
            let answer = self.doubting(place, None, self.ask(Method::DELETE, &path, None).await)?;
            assert!([200, 409, 404].contains(&answer.0), "seed {}: {place:?}: {answer:?}", self.run);
        }
        self.documents.all.remove(place);
        Ok(())
    }

    /// What makes no sense isn't taken.
    async fn refused(&mut self) -> Result<(), Gone> {
        let (place, mut members) = (self.new_place(), self.draw());
        self.spoil(&mut members);
        let answer = self.ask(Method::PUT, &place.path(), Some(json!(members))).await?;
        assert!(answer.0 == 403 && answer.1["reason"].is_string(), "seed {}: {members:?}: {answer:?}", self.run);
        Ok(())
    }

    fn spoil(&mut self, members: &mut Members) {
        match self.rng.random_range(0..4) {
            0 => drop(members.remove("source")),
            1 => drop(members.insert("continuous".into(), json!("yes"))),
            2 => drop(members.insert("filter".into(), json!("nothing"))),
            _ => drop(members.insert("target".into(), json!("http://"))),
        }
    }

    /// Moves a document here from elsewhere, where it had failed.
    async fn bring_failed(&mut self) -> Result<(), Gone> {
        let (place, mut members) = (self.new_place(), self.draw());
        self.spoil(&mut members);
        let document = Document { members: members.clone(), may_complete: false, is_brought: true, promise: None };
        let state = json!({"_replication_state": "failed", "_replication_state_reason": "elsewhere",
            "_replication_state_time": "2099-01-01T00:00:00Z"});
        self.bring(&place, document, state, vec![]).await
    }

    /// Gives a document a state that was written when the clock was wrong.
    async fn date_forward(&mut self, place: &Place) -> Result<(), Gone> {
        let (Some(found), Some(known)) = (self.read_known(place).await?, self.documents.all.get(place).cloned()) else {
            return Ok(());
        };
        if known.is_brought || ["completed", "failed"].iter().any(|state| found["_replication_state"] == *state) {
            return Ok(());
        }
        let state = *["triggered", "crashing", "error"].choose(&mut self.rng).unwrap();
        let state = json!({"_replication_state": state, "_replication_state_reason": "elsewhere",
            "_replication_state_time": "2099-01-01T00:00:00Z"});
        let rev = found["_rev"].as_str().unwrap().to_owned();
        self.bring(place, known, state, vec![rev]).await?;
        // What came between stays beside it.
        loop {
            let (status, found) = self.ask(Method::GET, &format!("{}?conflicts=true", place.path()), None).await?;
            let conflicts = found["_conflicts"].as_array().cloned().unwrap_or_default();
            if status != 200 || conflicts.is_empty() {
                return Ok(());
            }
            for rev in conflicts {
                self.ask(Method::DELETE, &format!("{}?rev={}", place.path(), rev.as_str().unwrap()), None).await?;
            }
        }
    }

    /// Writes a document with its history, after this revision.
    async fn bring(&mut self, place: &Place, document: Document, state: Value, after: Vec<String>) -> Result<(), Gone> {
        let parent = after.first().map(|rev| rev.split_once('-').unwrap());
        let start = parent.map_or(1, |(generation, _)| generation.parse::<u64>().unwrap() + 1);
        let hashes: Vec<_> = [format!("{:032x}", self.rng.next_u64())]
            .into_iter()
            .chain(parent.map(|(_, hash)| hash.to_owned()))
            .collect();
        let mut body = json!(document.members);
        body.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        body["_id"] = json!(place.id);
        body["_revisions"] = json!({"start": start, "ids": hashes});
        let path = format!("/{}/_bulk_docs", encode(place.database));
        let asked = self.ask(Method::POST, &path, Some(json!({"new_edits": false, "docs": [body]}))).await;
        let answer = self.doubting(place, Some(&document), asked)?;
        assert_eq!(answer, (201, json!([])), "seed {}: {place:?}", self.run);
        self.documents.all.insert(place.clone(), document);
        Ok(())
    }

    /// Notes what a document may be by now if its writer got no answer.
    fn doubting(
        &mut self,
        place: &Place,
        after: Option<&Document>,
        asked: Result<(u16, Value), Gone>,
    ) -> Result<(u16, Value), Gone> {
        if asked.is_err() {
            self.documents.doubts.push((place.clone(), after.cloned()));
        }
        asked
    }

    /// A document, which is what people know of it.
    async fn read_known(&mut self, place: &Place) -> Result<Option<Value>, Gone> {
        let found = self.read(place).await?;
        let known = self.documents.all.get(place).map(|known| &known.members);
        assert_eq!(
            found.as_ref().map(members_of).as_ref(),
            known,
            "seed {}: {place:?} isn't as it was left: {found:?}",
            self.run
        );
        Ok(found)
    }

    async fn read(&self, place: &Place) -> Result<Option<Value>, Gone> {
        let (status, found) = self.ask(Method::GET, &place.path(), None).await?;
        assert!([200, 404].contains(&status), "seed {}: {place:?}: {found}", self.run);
        Ok((status == 200).then_some(found))
    }

    /// Sends a request: status and answer.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<(u16, Value), Gone> {
        let asked = format!("{method} {path} {}", body.clone().unwrap_or_default());
        let mut request =
            self.client.request(method, format!("{}{path}", self.url)).header("x-couch-full-commit", "true");
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let gone = |error: reqwest::Error| {
            assert!(!error.is_timeout(), "seed {}: no answer to {asked}: {error:?}", self.run);
            Gone
        };
        let answer = request.send().await.map_err(gone)?;
        let status = answer.status().as_u16();
        let text = answer.text().await.map_err(gone)?;
        match status {
            // It stops.
            503 => Err(Gone),
            _ => Ok((status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))),
        }
    }
}

fn with(mut members: Members, name: &str, value: Value) -> Members {
    members.insert(name.into(), value);
    members
}

fn without(mut members: Members, name: &str) -> Members {
    members.shift_remove(name);
    members
}
