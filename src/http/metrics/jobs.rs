//! Numbers of jobs: of each one, up to `--metrics-jobs`, and of all of them by state.
//!
//! A job's numbers are labelled by its id, its document if it has one, and its source and target without credentials. Those
//! in trouble are told first, then by id, so that it is the same ones each time. What stands by state counts all jobs,
//! told one by one or not, so that a rule upon it never misses one.
//!
//! A URL or a document's id may be long, and stands in a dozen figures: it is cut short, and held once.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Label, SharedString};

use super::figure::{Figure, counter, gauge};
use crate::counters::JobFigures;

/// Characters of a label.
const MAX_LABEL: usize = 200;

/// What is told of these jobs under our own names, of so many one by one.
pub fn figures(mut jobs: Vec<JobFigures>, most: usize) -> Vec<Figure> {
    let mut figures = all_together(&jobs);
    jobs.sort_by(|one, other| (one.failures == 0, &one.id).cmp(&(other.failures == 0, &other.id)));
    let untold = jobs.len().saturating_sub(most);
    jobs.truncate(most);
    figures.push(gauge("couchrep_jobs_untold", "jobs that aren't told one by one: --metrics-jobs").of(untold));
    figures.extend(one_by_one(&jobs));
    figures
}

fn all_together(jobs: &[JobFigures]) -> Vec<Figure> {
    let mut count = gauge("couchrep_jobs", "jobs by state");
    let mut failing = gauge("couchrep_jobs_failing", "jobs by state whose last life failed");
    let mut written = gauge("couchrep_jobs_docs_written", "documents written by the jobs that there are, by state");
    let mut pending = gauge("couchrep_jobs_changes_pending", "changes that aren't on the targets yet, by state");
    let mut lag = gauge("couchrep_jobs_lag_seconds_max", "the longest that a target lacks something, by state");
    // There is always something to look at.
    let mut by_state = BTreeMap::from([("running", Vec::new())]);
    jobs.iter().for_each(|job| by_state.entry(job.state.as_str()).or_default().push(job));
    for (state, jobs) in by_state {
        let label = || vec![Label::new("state", state.to_owned())];
        count.add(label(), jobs.len());
        failing.add(label(), jobs.iter().filter(|job| job.failures > 0).count());
        written.add(label(), sum(jobs.iter().map(|job| job.docs_written)));
        pending.add(label(), sum(jobs.iter().filter_map(|job| job.changes_pending)));
        lag.add(label(), jobs.iter().filter_map(|job| job.lag_seconds).max().unwrap_or(0));
    }
    vec![count, failing, written, pending, lag]
}

/// A source may say that any number of changes is pending.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

fn one_by_one(jobs: &[JobFigures]) -> Vec<Figure> {
    let mut state = gauge("couchrep_job_state", "always 1; the job's state is a label");
    let mut read = counter("couchrep_job_docs_read_total", "documents read from the source");
    let mut written = counter("couchrep_job_docs_written_total", "documents written to the target");
    let mut refused = counter("couchrep_job_doc_write_failures_total", "documents that didn't get to the target");
    let mut checked = counter("couchrep_job_revisions_checked_total", "revisions that the target was asked for");
    let mut missing = counter("couchrep_job_missing_revisions_total", "revisions that the target lacked");
    let mut bytes = counter("couchrep_job_bytes_total", "bytes that came from the peers and went to them");
    let mut pending = gauge("couchrep_job_changes_pending", "changes of the source that aren't on the target yet");
    let mut lag =
        gauge("couchrep_job_lag_seconds", "seconds since the target had all that the source had; 0 if it has");
    let mut success =
        gauge("couchrep_job_last_success_timestamp_seconds", "unix time of the last progress or checkpoint");
    let mut failures = gauge("couchrep_job_failures", "lives in a row that failed");
    for job in jobs {
        let labels = labels(job);
        let labels = || labels.clone();
        let mut with_state = labels();
        with_state.push(Label::new("state", job.state.clone()));
        state.add(with_state, 1_u64);
        read.add(labels(), job.docs_read);
        written.add(labels(), job.docs_written);
        refused.add(labels(), job.doc_write_failures);
        checked.add(labels(), job.revisions_checked);
        missing.add(labels(), job.missing_revisions_found);
        failures.add(labels(), job.failures);
        for (figure, value) in [
            (&mut bytes, job.bytes),
            (&mut pending, job.changes_pending),
            (&mut lag, job.lag_seconds),
            (&mut success, job.last_success),
        ] {
            value.into_iter().for_each(|value| figure.add(labels(), value));
        }
    }
    vec![state, read, written, refused, checked, missing, bytes, pending, lag, success, failures]
}

/// Clones of them share their texts.
fn labels(job: &JobFigures) -> Vec<Label> {
    let all = [
        ("id", Some(&job.id)),
        ("database", job.database.as_ref()),
        ("doc_id", job.doc_id.as_ref()),
        ("source", Some(&job.source)),
        ("target", Some(&job.target)),
    ];
    all.into_iter().filter_map(|(name, value)| Some(Label::new(name, shortened(value?)))).collect()
}

fn shortened(text: &str) -> SharedString {
    let text: Arc<str> = match text.char_indices().nth(MAX_LABEL) {
        None => text.into(),
        // The last one makes room for the mark.
        Some(_) => text.chars().take(MAX_LABEL - 1).chain(['…']).collect::<String>().into(),
    };
    SharedString::from_shared(text)
}

#[cfg(test)]
mod tests {
    use super::super::figure::rendered;
    use super::*;

    fn job(id: &str, state: &str, failures: u64) -> JobFigures {
        let (changes_pending, lag_seconds) = (Some(3), Some(7));
        JobFigures { id: id.into(), state: state.into(), failures, changes_pending, lag_seconds, ..Default::default() }
    }

    #[test]
    fn jobs_in_trouble_are_told_first_and_all_of_them_by_state() {
        let jobs = vec![job("a", "running", 0), job("b", "running", 0), job("c", "crashing", 4)];
        let text = rendered(&figures(jobs, 2));
        for line in [
            "couchrep_job_failures{id=\"c\",source=\"\",target=\"\"} 4",
            "couchrep_job_state{id=\"a\",source=\"\",target=\"\",state=\"running\"} 1",
            "couchrep_jobs{state=\"running\"} 2",
            "couchrep_jobs_failing{state=\"crashing\"} 1",
            "couchrep_jobs_changes_pending{state=\"running\"} 6",
            "couchrep_jobs_lag_seconds_max{state=\"crashing\"} 7",
            "couchrep_jobs_untold 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("id=\"b\""), "{text}");
    }

    /// Sources and targets of 64 KiB stood in each of a dozen figures.
    #[test]
    fn long_texts_are_cut_short() {
        let url = |length: usize| "ä".repeat(length);
        let long = JobFigures { source: url(64 << 10), target: url(200), ..job("a", "running", 0) };
        let labels: Vec<_> = labels(&long).iter().map(|label| label.value().to_owned()).collect();
        assert_eq!(labels, ["a".to_owned(), url(199) + "…", url(200)]);
    }

    /// The sum panicked, or began again at 0.
    #[test]
    fn any_number_may_be_pending() {
        let any = || JobFigures { changes_pending: Some(u64::MAX), ..job("a", "running", 0) };
        let text = rendered(&figures(vec![any(), any()], 0));
        let told = text.lines().find(|line| line.starts_with("couchrep_jobs_changes_pending{"));
        assert_eq!(told, Some("couchrep_jobs_changes_pending{state=\"running\"} 18446744073709552000"));
    }
}
