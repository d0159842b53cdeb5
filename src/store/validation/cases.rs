//! The edits of a call while they are judged: one function after the other, each about all of them.

use std::time::{Duration, Instant};

use super::design::{self, ViewFunction};
use super::documents::Documents;
use super::own::{OwnRules, Writer};
use super::rules::Rules;
use crate::access::Denied;
use crate::javascript::{Admission, Running, ScriptError, worth_another_try};
use crate::store::StoreError;
use crate::store::prepared::{Judged, Prepared};
use crate::store::read::Snapshot;
use crate::store::replaced::Old;
use crate::store::work::Refusal;

/// How long one function judges before others may run, and before a fresh snapshot is taken: a held one makes the file grow.
const TURN: Duration = Duration::from_millis(500);

/// The edits of a call while they are judged.
pub(super) struct Cases {
    generation: u64,
    cases: Vec<Case>,
    /// The one that the function in hand is asked about next.
    next: usize,
}

struct Case {
    edit: Prepared,
    verdict: Verdict,
}

enum Verdict {
    /// Functions are to be asked.
    Open,
    /// None is.
    Closed,
    Refused(Refusal),
}

impl Cases {
    pub(super) fn new(rules: &Rules, edits: Vec<Prepared>) -> Self {
        let cases = edits.into_iter().map(|mut edit| {
            let open = rules.concern(&edit);
            if open {
                edit.judged = None;
            }
            Case { edit, verdict: if open { Verdict::Open } else { Verdict::Closed } }
        });
        Self { generation: rules.generation, cases: cases.collect(), next: 0 }
    }

    /// Whether design documents are to be judged.
    pub(super) fn has_designs(&self) -> bool {
        self.cases.iter().any(Case::is_open_design)
    }

    /// Judges design documents, but for the functions of views that must compile: these are answered, with their case. Whether
    /// the author may write design documents is `right`.
    pub(super) fn check_designs(
        mut self,
        right: Result<(), Denied>,
    ) -> Result<(Self, Vec<(usize, ViewFunction)>), StoreError> {
        let mut functions = Vec::new();
        for (place, case) in self.cases.iter_mut().enumerate().filter(|(_, case)| case.is_open_design()) {
            case.edit.judged = Some(Judged { generation: self.generation, old: None, is_branch: false });
            let checked = match right {
                Ok(()) => design::check(&case.edit.body)?,
                Err(denied) => Err(Refusal::Denied(denied)),
            };
            case.verdict = Verdict::Closed;
            match checked {
                Ok(found) => functions.extend(found.into_iter().map(|function| (place, function))),
                Err(refusal) => case.verdict = Verdict::Refused(refusal),
            }
        }
        Ok((self, functions))
    }

    /// Refuses a case, unless it is refused already.
    pub(super) fn refuse(&mut self, place: usize, refusal: Refusal) {
        if let Some(case) = self.cases.get_mut(place)
            && !matches!(case.verdict, Verdict::Refused(_))
        {
            case.verdict = Verdict::Refused(refusal);
        }
    }

    /// Goes on to the first case that is open for the next function.
    pub(super) fn restart(&mut self) {
        self.next = 0;
    }

    /// Goes on to the next case that is open, if there is one.
    pub(super) fn skip_closed(&mut self) -> bool {
        while self.cases.get(self.next).is_some_and(|case| !matches!(case.verdict, Verdict::Open)) {
            self.next += 1;
        }
        self.next < self.cases.len()
    }

    /// Asks a function about the cases that are open, for a while. Blocks.
    pub(super) fn ask(mut self, snapshot: &Snapshot, admission: Admission) -> Result<Self, StoreError> {
        let short = admission.is_short();
        // That the try was short is no verdict.
        let passing = |error: &ScriptError| short && worth_another_try(error);
        let function = match admission.start() {
            Err(error) if passing(&error) => return Ok(self),
            function => function,
        };
        // Compiling may take longer than a turn.
        let (started, mut text) = (Instant::now(), Vec::new());
        while self.skip_closed() && started.elapsed() < TURN {
            text.clear();
            let asked = match self.cases[self.next].question(snapshot, self.generation, &mut text)? {
                false => Ok(()),
                true => ask(&function, &text),
            };
            let usable = asked.as_ref().err().is_none_or(ScriptError::is_verdict);
            match asked {
                Ok(()) => {}
                Err(error) if passing(&error) => return Ok(self),
                Err(error) => self.cases[self.next].verdict = Verdict::Refused(Refusal::Script(error)),
            }
            self.next += 1;
            if function.is_ok() && !usable {
                return Ok(self);
            }
        }
        if let Ok(function) = function {
            function.finish();
        }
        Ok(self)
    }

    /// Judges by rules of the server's own, for a while. Blocks.
    pub(super) fn judge_by_own(
        mut self,
        snapshot: &Snapshot,
        rules: OwnRules,
        writer: &Writer,
    ) -> Result<Self, StoreError> {
        let (started, mut text) = (Instant::now(), Vec::new());
        while self.skip_closed() && started.elapsed() < TURN {
            text.clear();
            let case = &mut self.cases[self.next];
            let judged = match rules.may_write(&case.edit, writer) {
                Ok(()) if case.question(snapshot, self.generation, &mut text)? => {
                    rules.judge(&text, &case.edit, writer)
                }
                written => written,
            };
            if let Err(error) = judged {
                case.verdict = Verdict::Refused(Refusal::Script(error));
            }
            self.next += 1;
        }
        Ok(self)
    }

    /// The edits that weren't refused.
    pub(super) fn finish(self, refused: &mut Vec<(usize, Refusal)>) -> Vec<Prepared> {
        let mut passed = Vec::with_capacity(self.cases.len());
        for Case { edit, verdict } in self.cases {
            match verdict {
                Verdict::Refused(refusal) => refused.push((edit.place, refusal)),
                Verdict::Open | Verdict::Closed => passed.push(edit),
            }
        }
        passed
    }
}

fn ask(function: &Result<Running, ScriptError>, text: &[u8]) -> Result<(), ScriptError> {
    match function.as_ref().map_err(Clone::clone)?.passes(text)? {
        true => Ok(()),
        false => Err(ScriptError::no_answer()),
    }
}

impl Case {
    fn is_open_design(&self) -> bool {
        self.edit.id.is_design() && matches!(self.verdict, Verdict::Open)
    }

    /// Writes down what a function is asked; `false` if nothing is, since the verdict is clear without it.
    fn question(&mut self, snapshot: &Snapshot, generation: u64, text: &mut Vec<u8>) -> Result<bool, StoreError> {
        let documents = match Documents::find(snapshot, &self.edit)? {
            Ok(documents) => documents,
            Err(refusal) => {
                self.verdict = Verdict::Refused(refusal);
                return Ok(false);
            }
        };
        let is_branch = documents.is_branch();
        let old = Some(documents.old.clone());
        match &self.edit.judged {
            None => self.edit.judged = Some(Judged { generation, old, is_branch }),
            Some(judged) if judged.old == old && judged.is_branch == is_branch => {}
            // Another function was asked about another document: all of them are asked again, later.
            Some(_) => {
                self.edit.judged = None;
                self.verdict = Verdict::Closed;
                return Ok(false);
            }
        }
        if documents.old == Old::Known {
            self.verdict = Verdict::Closed;
            return Ok(false);
        }
        if let Err(refusal) = documents.write(snapshot, &self.edit, text)? {
            self.verdict = Verdict::Refused(refusal);
            return Ok(false);
        }
        Ok(true)
    }
}
