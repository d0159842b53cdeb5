//! Which documents of the source a command is about: all, or what these options choose.

use std::error::Error;

use clap::Args;
use couchrep::selector::Selector;
use serde_json::{Map, Value};

/// Options that choose; without any, it is all documents.
#[derive(Debug, Args)]
pub struct Selection {
    /// This document alone; may be repeated
    #[arg(long = "doc-id", value_name = "ID", conflicts_with_all = ["filter", "selector"])]
    doc_ids: Vec<String>,

    /// What this filter of the source lets through: a design document's, or _design, or _view
    #[arg(long, value_name = "DDOC/NAME", conflicts_with = "selector")]
    filter: Option<String>,

    /// A parameter for the filter; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, requires = "filter")]
    query: Vec<(String, String)>,

    /// The documents that match this Mango selector
    #[arg(long, value_name = "JSON", value_parser = selector)]
    selector: Option<Value>,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn selector(text: &str) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let value = serde_json::from_str(text).map_err(|error| format!("this isn't JSON: {error}"))?;
    Selector::parse(&value)?;
    Ok(value)
}

impl Selection {
    /// Adds what is chosen to a request.
    pub fn add_to(&self, fields: &mut Map<String, Value>) {
        if !self.doc_ids.is_empty() {
            // A request's ids are percent-decoded; those of a command line mean what they say.
            let ids = self.doc_ids.iter().map(|id| id.replace('%', "%25"));
            fields.insert("doc_ids".into(), ids.collect::<Vec<_>>().into());
        }
        if let Some(filter) = &self.filter {
            let query = self.query.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
            fields.insert("filter".into(), filter.as_str().into());
            fields.insert("query_params".into(), Value::Object(query.collect()));
        }
        if let Some(selector) = &self.selector {
            fields.insert("selector".into(), selector.clone());
        }
    }
}
