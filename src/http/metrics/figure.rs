//! One number, or one for each of some labels, as it is told to Prometheus and in CouchDB's `_stats`.

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Map, Value, json};

/// A metric.
pub struct Figure {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// Where it stands in `_stats`, with dots.
    place: Option<&'static str>,
    samples: Vec<(Vec<Label>, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// What only grows.
pub fn counter(name: &'static str, help: &'static str) -> Figure {
    Figure { name, help, kind: Kind::Counter, place: None, samples: Vec::new() }
}

/// What goes up and down.
pub fn gauge(name: &'static str, help: &'static str) -> Figure {
    Figure { kind: Kind::Gauge, ..counter(name, help) }
}

impl Figure {
    /// It stands in CouchDB's `_stats`, too. Samples with a label stand there by its value.
    pub fn at(self, place: &'static str) -> Self {
        Self { place: Some(place), ..self }
    }

    /// The number.
    pub fn of(self, value: impl Number) -> Self {
        self.with([], value)
    }

    /// The number, if it is known.
    pub fn if_known(self, value: Option<impl Number>) -> Self {
        match value {
            Some(value) => self.of(value),
            None => self,
        }
    }

    /// The number of these labels.
    pub fn with<const N: usize>(mut self, labels: [(&'static str, String); N], value: impl Number) -> Self {
        self.add(labels.map(|(name, value)| Label::new(name, value)).into(), value);
        self
    }

    /// The number of these labels.
    pub fn add(&mut self, labels: Vec<Label>, value: impl Number) {
        self.samples.push((labels, value.number()));
    }

    /// Puts it into the tree of `_stats`, if it stands there.
    pub fn add_to(&self, tree: &mut Map<String, Value>) {
        let Some(place) = self.place else { return };
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        for (labels, value) in &self.samples {
            let names: Vec<_> = place.split('.').chain(labels.iter().map(Label::value)).collect();
            let Some((last, branches)) = names.split_last() else { continue };
            let branch = branches.iter().try_fold(&mut *tree, |branch, name| {
                branch.entry(*name).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
            });
            // A number that stands where a branch is to be would be a mistake in the table.
            let Some(branch) = branch else { continue };
            branch.insert((*last).to_owned(), json!({ "value": *value as u64, "type": kind, "desc": self.help }));
        }
    }
}

/// All of them, as Prometheus reads them.
pub fn rendered(figures: &[Figure]) -> String {
    const METADATA: Metadata<'_> = Metadata::new("couchrep", Level::INFO, None);
    let recorder = PrometheusBuilder::new().build_recorder();
    for figure in figures {
        let name = KeyName::from(figure.name);
        match figure.kind {
            Kind::Counter => recorder.describe_counter(name, None, figure.help.into()),
            Kind::Gauge => recorder.describe_gauge(name, None, figure.help.into()),
        }
        for (labels, value) in &figure.samples {
            let key = Key::from_parts(figure.name, labels.clone());
            match figure.kind {
                Kind::Counter => recorder.register_counter(&key, &METADATA).absolute(*value as u64),
                Kind::Gauge => recorder.register_gauge(&key, &METADATA).set(*value),
            }
        }
    }
    recorder.handle().render()
}

/// What can be told: beyond 2^53 not to the last digit.
pub trait Number {
    /// As Prometheus has all numbers.
    fn number(self) -> f64;
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

impl Number for u64 {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for usize {
    fn number(self) -> f64 {
        self as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_told_to_prometheus_and_in_couchdbs_tree() {
        let figures = [
            counter("a_total", "how many").at("x.a").of(3_u64),
            counter("methods", "by method").at("x.by").with([("method", "GET".into())], 1_u64),
            gauge("g", "a gauge").with([("name", "q\"uo\nte".into())], 1.5),
            gauge("unknown", "nobody knows").if_known(None::<u64>),
        ];
        let text = rendered(&figures);
        for line in [
            "# HELP a_total how many",
            "# TYPE a_total counter",
            "a_total 3",
            "methods{method=\"GET\"} 1",
            "# TYPE g gauge",
            "g{name=\"q\\\"uo\\nte\"} 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("unknown"), "{text}");
        let mut tree = Map::new();
        figures.iter().for_each(|figure| figure.add_to(&mut tree));
        let leaf = |value: u64, desc: &str| json!({ "value": value, "type": "counter", "desc": desc });
        let expected = json!({ "x": { "a": leaf(3, "how many"), "by": { "GET": leaf(1, "by method") } } });
        assert_eq!(Value::Object(tree), expected);
    }
}
