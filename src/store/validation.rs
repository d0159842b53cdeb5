//! What design documents say about writes: each document that is to be written is judged before it gets to the writer.
//!
//! `validate_doc_update` of every design document that isn't deleted is asked, in the order of their ids, until one
//! throws; then that document is refused, and the others of its call are written. A function that is broken, or takes too
//! long, refuses what it is asked about. A design document itself is asked for by [`design`]: only admins write it.
//! `_local` documents aren't judged (`couch_db:validate_doc_update/3`).
//!
//! Otherwise than CouchDB 3.5 on purpose: whatever is thrown refuses, `1` and `true` too; a reason that is no text is told as
//! JSON text; what can't be read of a refusal refuses one document, not its whole call. Bodies of leaves alone are stored, so
//! `oldDoc` is `null` where CouchDB still has an inner revision's body that hasn't been compacted away.
//!
//! Judging takes its time, so it happens outside the writer's transaction, against a snapshot, and is checked within it: the
//! writer counts the writes of design documents and of the security object (the *generation* of the [`Rules`]), and looks
//! up what each edit replaces. If either isn't what an edit was judged under, nothing of the call is written, and those edits are judged
//! again. So no write is answered under rules that were replaced before it.
//!
//! A database without such functions pays one comparison of generations a call. The rules are read at the first write after an
//! opening, and at the first one after either was written.

mod design;
mod documents;
mod cases;
mod own;
mod rules;

use std::sync::Arc;

use serde_json::json;

use self::cases::Cases;
use self::own::{OwnRules, Writer};
use super::prepared::Prepared;
use super::work::{Done, Durability, Refusal, Work};
use super::{Database, StoreError};
use crate::access::{Caller, Denied};
use crate::document::Rev;
use crate::javascript::{Code, Kind, Running, ScriptError, worth_another_try};
use crate::tasks;

pub(super) use self::rules::Rules;

impl Database {
    /// Judges edits and writes those that pass; answers in order.
    pub(super) async fn write_judged(
        &self,
        mut edits: Vec<Prepared>,
        author: &Caller,
        durability: Durability,
    ) -> Result<Vec<Result<Rev, Refusal>>, StoreError> {
        let mut refused = Vec::new();
        loop {
            let rules = self.rules().await?;
            while edits.iter().any(|edit| rules.concern(edit)) {
                edits = self.judge(&rules, edits, author, &mut refused).await?;
            }
            if edits.is_empty() {
                return Ok(in_order(refused, Vec::new()));
            }
            let places = if refused.is_empty() { Vec::new() } else { edits.iter().map(|edit| edit.place).collect() };
            match self.writer().ask(Work::Edits { edits, generation: rules.generation, durability }).await? {
                Done::Written(written) if refused.is_empty() => return Ok(written),
                Done::Written(written) => return Ok(in_order(refused, places.into_iter().zip(written).collect())),
                Done::Again(again) => edits = again,
                _ => return Err(StoreError::Closing),
            }
        }
    }

    /// The rules as they are now.
    async fn rules(&self) -> Result<Arc<Rules>, StoreError> {
        // Read before the rest: at worst the rules are newer than their generation, and read once more.
        let generation = self.writer().generation();
        if let Some(rules) = self.known_rules().filter(|rules| rules.generation == generation) {
            return Ok(rules);
        }
        let (database, security) = (self.name().to_string(), self.security());
        let own = OwnRules::of(self.name(), self.check());
        let rules = self.read(move |snapshot| Rules::read(snapshot, generation, security, &database, own)).await?;
        let rules = Arc::new(rules);
        self.keep_rules(rules.clone());
        Ok(rules)
    }

    /// Judges edits as far as they are to be; answers those that weren't refused. One of them that was changed meanwhile is to
    /// be judged again.
    async fn judge(
        &self,
        rules: &Rules,
        edits: Vec<Prepared>,
        author: &Caller,
        refused: &mut Vec<(usize, Refusal)>,
    ) -> Result<Vec<Prepared>, StoreError> {
        let mut cases = self.judge_designs(Cases::new(rules, edits), rules.security.may_design(author)).await?;
        if let Some(own) = rules.own {
            let writer = Writer { caller: author.clone(), is_admin: rules.security.is_admin(author) };
            cases = self.judge_by_own(cases, own, Arc::new(writer)).await?;
        }
        let user = json!({ "db": self.name().as_str(), "name": author.name, "roles": author.roles });
        let request: Arc<str> = format!("[{user},{}]", rules.security.json()).into();
        for function in &rules.functions {
            cases.restart();
            while cases.skip_closed() {
                let (admission, _stopped_when_dropped) =
                    self.interpreters().admit(function.clone(), request.clone()).await;
                cases = self.read(move |snapshot| cases.ask(snapshot, admission)).await?;
            }
        }
        Ok(cases.finish(refused))
    }
}

impl Database {
    /// Judges the design documents among a call's edits.
    async fn judge_designs(&self, cases: Cases, right: Result<(), Denied>) -> Result<Cases, StoreError> {
        if !cases.has_designs() {
            return Ok(cases);
        }
        let (mut cases, functions) =
            tasks::blocking("check design documents", move || cases.check_designs(right)).await??;
        for (case, function) in functions {
            if let Some(error) = self.compile(&function.source).await?.err() {
                let refusal = match error.is_verdict() {
                    true => function.failed(&error.reason),
                    false => Refusal::Script(error),
                };
                cases.refuse(case, refusal);
            }
        }
        Ok(cases)
    }

    /// Judges a call's edits by rules of the server's own.
    async fn judge_by_own(&self, mut cases: Cases, rules: OwnRules, writer: Arc<Writer>) -> Result<Cases, StoreError> {
        cases.restart();
        while cases.skip_closed() {
            let writer = writer.clone();
            cases = self.read(move |snapshot| cases.judge_by_own(snapshot, rules, &writer)).await?;
        }
        Ok(cases)
    }

    /// Compiles a function of a view, and forgets it.
    async fn compile(&self, source: &str) -> Result<Result<(), ScriptError>, StoreError> {
        let database = self.name().to_string();
        let code = Code { database, design: b"{}".to_vec(), source: source.to_owned(), kind: Kind::Map };
        let code = Arc::new(code);
        loop {
            let (admission, _stopped_when_dropped) = self.interpreters().admit(code.clone(), "null".into()).await;
            let short = admission.is_short();
            let compiled = tasks::blocking("compile a view", move || admission.start().map(Running::forget)).await?;
            match compiled {
                Err(error) if short && worth_another_try(&error) => {}
                compiled => return Ok(compiled),
            }
        }
    }
}

fn in_order(refused: Vec<(usize, Refusal)>, written: Vec<(usize, Result<Rev, Refusal>)>) -> Vec<Result<Rev, Refusal>> {
    let mut all = written;
    all.extend(refused.into_iter().map(|(place, refusal)| (place, Err(refusal))));
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, result)| result).collect()
}
