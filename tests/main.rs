//! All integration tests, in one binary so that it links once.

#![expect(clippy::unwrap_used, reason = "a helper's panic fails the test that called it, as it should")]

mod support;

mod cli;
mod command_line;
mod jobs_command;
mod failures;
mod verifying;
mod asking;
mod rights;
mod rights_matrix;
mod cors;
mod sessions;
mod settings;
mod metrics;
mod contrib;
mod tls;
mod users;
mod replicator_docs;
mod databases;
mod endpoints;
mod admin_uis;
mod page;
mod documents;
mod attachments;
mod ranges;
mod copying;
mod client_headers;
mod lists;
mod purging;
mod small_attachments;
mod bulk;
mod changes_feed;
mod db_updates;
mod filters;
mod validation;
mod peer_contract;
mod replications;
mod scheduler;
mod checkpoints;
mod listeners;
mod malformed;
mod memory;
mod slow_readers;
#[cfg(target_os = "linux")]
mod still_readers;
mod refused;
mod round_trips;
mod secrets;
mod declared_secrets;
mod endpoint_policy;
mod faults;
mod gateways;
mod one_document;
mod selection;
mod doc_ids;
mod one_shot_end;
mod standstill;
mod shutdown;
mod beside;
mod readme;
mod floors;
mod image;
mod crash;
#[cfg(target_os = "linux")]
mod full_disk;
mod random;
mod random_jobs;
mod fuzzed;
mod couchdb;
