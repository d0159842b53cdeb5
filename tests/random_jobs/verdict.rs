//! What must hold when it is quiet.
//!
//! - Documents are what people left, each with nothing but its state added.
//! - A continuous one has one job, which is well, and its target has all leaves of its source that pass its filter. Of several that describe the
//!   same replication one has the job, and the others name it. A paused one's job says so, and copies nothing.
//! - A one-shot is completed, and its target has what its source had when it was asked for.
//! - What `_scheduler` tells is what documents say. No job is without a document but those that were asked for at `_replicate`.
//! - Nothing has crashed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::Run;
use super::documents::{
    DATABASES, Document, Place, encode, is_continuous, is_paused, key, members_of, named_first, passes,
};
use crate::random::edits::{ancestors, check};
use crate::support::{Leaf, json as json_of, leaves_for_now};

/// For all to become as it must be, on a machine with much else to do.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(60);

/// What is told at one moment.
struct Told {
    /// Documents as they stand.
    documents: BTreeMap<Place, Value>,
    /// What the scheduler tells of them.
    entries: BTreeMap<Place, Value>,
    jobs: Vec<Value>,
}

impl Run {
    pub(super) async fn judge(&mut self) {
        self.until_all_holds("first").await;
        // A job that has nothing to copy doesn't learn that its target was made anew; and what is parked must be woken.
        for index in 0..self.world.data.len() {
            self.world.nudge(index, "last").await;
        }
        self.until_all_holds("last").await;
        self.nothing_was_copied_that_no_job_copies().await;
        let log = self.world.machine.log();
        if let Some(line) =
            log.lines().find(|line| line.contains("panicked") || line.contains("the replication crashed"))
        {
            self.fail(line);
        }
    }

    async fn until_all_holds(&mut self, when: &str) {
        let began = Instant::now();
        let contents_count = when == "last" || self.world.data.iter().all(|data| data.made == 1);
        loop {
            self.free_what_is_held().await;
            let Err(problem) = self.all_holds(contents_count).await else { return };
            if began.elapsed() > LIMIT {
                self.fail(&format!("{when}: {problem}"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A replication that was asked for at `_replicate` may have the id of a document's: it is cancelled.
    async fn free_what_is_held(&mut self) {
        let told = self.told().await;
        for (place, entry) in told.entries.iter().filter(|(_, entry)| entry["state"] == "error") {
            let error = entry["info"]["error"].as_str().unwrap_or_default();
            let known = self.documents.all.get(place);
            if let Some(known) = known.filter(|_| error.contains("runs already, without a document")) {
                let (id, members) = (error.split('`').nth(1).unwrap(), known.members.clone());
                self.people().cancel_held(id, &members).await;
            }
        }
    }

    async fn told(&self) -> Told {
        let get = |path: String| json_of(&self.world.client, Method::GET, self.world.machine.url(&path), None, 200);
        let jobs = get("/_scheduler/jobs?limit=1000".into()).await["jobs"].as_array().unwrap().clone();
        let listed = get("/_scheduler/docs?limit=1000".into()).await["docs"].as_array().unwrap().clone();
        let entries =
            listed.into_iter().map(|entry| (place(&entry["database"], &entry["doc_id"]).unwrap(), entry)).collect();
        let mut documents = BTreeMap::new();
        for database in DATABASES {
            let rows = get(format!("/{}/_all_docs?include_docs=true", encode(database))).await["rows"]
                .as_array()
                .unwrap()
                .clone();
            documents.extend(
                rows.into_iter()
                    .map(|row| (Place { database, id: row["id"].as_str().unwrap().to_owned() }, row["doc"].clone())),
            );
        }
        Told { documents, entries, jobs }
    }

    async fn all_holds(&self, contents_count: bool) -> Result<(), String> {
        let told = self.told().await;
        self.documents_are_as_they_were_left(&told)?;
        self.states_hold(&told)?;
        if !contents_count {
            return Ok(());
        }
        let mut leaves = Vec::new();
        for index in 0..self.world.data.len() {
            let found = leaves_for_now(&self.world.client, &self.world.url(index)).await;
            leaves.push(found.map_err(|answer| format!("a leaf has changed: {answer}"))?);
        }
        for (place, document) in &self.documents.all {
            let (found, entry) = (&told.documents[place], &told.entries[place]);
            let holds = match (found["_replication_state"].as_str(), &document.promise) {
                (Some("completed"), Some(_)) => self.promise_holds(document, &leaves),
                (Some("completed"), _) => Ok(()),
                _ if entry["state"] == "running" => self.target_has_all(document, &leaves),
                _ => Ok(()),
            };
            holds.map_err(|problem| format!("{place:?}: {problem}"))?;
        }
        Ok(())
    }

    fn documents_are_as_they_were_left(&self, told: &Told) -> Result<(), String> {
        let places = |places: Vec<&Place>| format!("{places:?}");
        let (found, known): (Vec<_>, Vec<_>) = (told.documents.keys().collect(), self.documents.all.keys().collect());
        if found != known {
            return Err(format!("other documents: {}, and not {}", places(found), places(known)));
        }
        for (place, document) in &self.documents.all {
            let found = members_of(&told.documents[place]);
            if found != document.members {
                return Err(format!("{place:?} isn't as it was left: {found:?}"));
            }
        }
        Ok(())
    }

    fn states_hold(&self, told: &Told) -> Result<(), String> {
        let mut of_documents: BTreeMap<Place, Vec<&Value>> = BTreeMap::new();
        for job in &told.jobs {
            match place(&job["database"], &job["doc_id"]) {
                Some(place) => of_documents.entry(place).or_default().push(job),
                None if self.documents.asked.contains(job["id"].as_str().unwrap()) => {}
                None => return Err(format!("nobody asked for {job}")),
            }
        }
        if told.entries.len() != told.documents.len() {
            return Err(format!("{} entries of {} documents", told.entries.len(), told.documents.len()));
        }
        let mut owners: HashMap<String, Vec<&Place>> = HashMap::new();
        for (place, document) in &self.documents.all {
            let Some(entry) = told.entries.get(place) else { return Err(format!("{place:?} has no entry")) };
            let jobs = of_documents.remove(place).unwrap_or_default();
            let found = &told.documents[place];
            let holds = self.state_holds(document, found, entry, &jobs, told);
            holds.map_err(|problem| {
                format!("{place:?}: {problem}\n  document {found}\n  entry {entry}\n  jobs {jobs:?}")
            })?;
            if !jobs.is_empty() {
                owners.entry(key(&document.members)).or_default().push(place);
            }
        }
        if let Some((place, jobs)) = of_documents.iter().next() {
            return Err(format!("{place:?} isn't there, and has jobs: {jobs:?}"));
        }
        match owners.values().find(|places| places.len() > 1) {
            Some(places) => Err(format!("jobs of one replication: {places:?}")),
            None => Ok(()),
        }
    }

    /// Whether what a document, its entry and its jobs say is true, and the same.
    fn state_holds(
        &self,
        document: &Document,
        found: &Value,
        entry: &Value,
        jobs: &[&Value],
        told: &Told,
    ) -> Result<(), String> {
        let (stated, state) = (found["_replication_state"].as_str(), entry["state"].as_str().unwrap());
        let is = |is: bool, problem: &str| if is { Ok(()) } else { Err(problem.to_owned()) };
        if stated == Some("completed") {
            is(state == "completed" && jobs.is_empty(), "completed, and more is done")?;
            is(found["_replication_stats"].is_object(), "completed without stats")?;
            return is(document.may_complete, "completed, which it can't be");
        }
        if document.is_brought {
            let is_failed = stated == Some("failed") && state == "failed";
            is(is_failed && entry["info"]["error"] == "elsewhere", "it was failed where it came from")?;
            return is(jobs.is_empty(), "it makes no sense, and has a job");
        }
        if stated == Some("failed") {
            is(state == "failed" && jobs.is_empty(), "failed, and something is done")?;
            let Some((database, first, id)) = named_first(found) else {
                return Err("failed, for no good reason".into());
            };
            let has_it = |job: &&Value| job["id"] == *id && job["database"] == *database && job["doc_id"] == *first;
            return is(told.jobs.iter().any(|job| has_it(&job)), "it names a document that hasn't the job");
        }
        is(jobs.len() == 1, "it has not one job")?;
        let job = jobs[0];
        is(job["id"] == entry["id"], "another id")?;
        is(job["state"] == entry["state"] && job["paused"] == entry["paused"], "the job is told of in two ways")?;
        let says_nothing = stated.is_none() && found["_replication_state_reason"].is_null();
        let says_so = stated == Some("triggered") && found["_replication_id"] == job["id"];
        let says_well = says_so
            || says_nothing && !self.world.machine.updates_docs()
            || stated == Some("triggered") && !self.world.machine.updates_docs();
        if is_paused(&document.members) {
            is(state == "pending" && entry["paused"] == true, "it is paused")?;
            return is(says_well || says_nothing, "it is paused, and says what isn't so");
        }
        is(entry["paused"] == false, "it isn't paused")?;
        is(is_continuous(&document.members), "a one-shot that isn't completed")?;
        is(state == "running" && entry["error_count"] == 0, "it isn't well")?;
        is(says_well, "it is well, and doesn't say so")
    }

    /// A completed one-shot's target has what its source had.
    fn promise_holds(&self, document: &Document, leaves: &[Vec<Leaf>]) -> Result<(), String> {
        let Some(promise) = &document.promise else { return Ok(()) };
        let was_made = |(index, made): (usize, u32)| self.world.data[index].made == made;
        if !was_made(promise.source) || !was_made(promise.target) {
            return Ok(());
        }
        let (source, target) = (&leaves[promise.source.0], &leaves[promise.target.0]);
        let is_filtered = document.members.contains_key("selector") || document.members.contains_key("filter");
        for kept in &self.world.data[promise.source.0].kept[..promise.kept] {
            let still_stands = || source.iter().any(|leaf| (&leaf.id, &leaf.rev) == (&kept.id, &kept.rev));
            if !is_filtered || passes(&document.members, kept.token.as_deref()) && still_stands() {
                check(kept, target).map_err(|problem| format!("completed, and not copied: {kept:?}: {problem}"))?;
            }
        }
        Ok(())
    }

    fn target_has_all(&self, document: &Document, leaves: &[Vec<Leaf>]) -> Result<(), String> {
        let index = |name: &str| {
            let endpoint = &document.members[name];
            let url = endpoint.get("url").unwrap_or(endpoint);
            (0..leaves.len()).find(|index| *url == *self.world.name(*index)).unwrap()
        };
        let (source, target) = (&leaves[index("source")], &leaves[index("target")]);
        for leaf in source.iter().filter(|leaf| passes(&document.members, token(leaf).as_deref())) {
            let generation = leaf.rev.split_once('-').unwrap().0.parse().unwrap();
            let there = target.iter().find(|there| there.id == leaf.id && there.rev == leaf.rev);
            let is_there = match there {
                Some(there) => {
                    (&there.body, &there.attachments, there.deleted) == (&leaf.body, &leaf.attachments, leaf.deleted)
                }
                None => target
                    .iter()
                    .filter(|there| there.id == leaf.id)
                    .flat_map(ancestors)
                    .any(|rev| rev == (generation, &*leaf.path[0])),
            };
            if !is_there {
                return Err(format!("its target hasn't {leaf:?}, but {there:?}"));
            }
        }
        Ok(())
    }

    /// What is paused, replaced or gone copies nothing.
    async fn nothing_was_copied_that_no_job_copies(&self) {
        let told = self.told().await;
        let count = self.world.data.len();
        let ends =
            |url: &Value, index: usize| url.as_str().unwrap().ends_with(&format!("/{}/", self.world.data[index].name));
        let copies = |from: usize, to: usize| {
            told.jobs.iter().any(|job| job["paused"] == false && ends(&job["source"], from) && ends(&job["target"], to))
        };
        for target in 0..count {
            let mut reached_from = BTreeSet::from([target]);
            while let Some(more) =
                (0..count).find(|from| !reached_from.contains(from) && reached_from.iter().any(|to| copies(*from, *to)))
            {
                reached_from.insert(more);
            }
            let leaves = leaves_for_now(&self.world.client, &self.world.url(target)).await.unwrap();
            for source in (0..count).filter(|source| !reached_from.contains(source)) {
                if leaves.iter().any(|leaf| leaf.id.starts_with(&format!("last-{source}-"))) {
                    self.fail(&format!("no job copies from {source} to {target}, and yet it is done: {:?}", told.jobs));
                }
            }
        }
    }
}

fn token(leaf: &Leaf) -> Option<String> {
    serde_json::from_str::<Value>(&leaf.body).unwrap()["token"].as_str().map(str::to_owned)
}

fn place(database: &Value, id: &Value) -> Option<Place> {
    let database = DATABASES.into_iter().find(|name| *database == **name)?;
    Some(Place { database, id: id.as_str()?.to_owned() })
}
