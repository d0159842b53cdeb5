//! What a command shows while it works: a bar on a terminal, a line now and then elsewhere, or JSON lines.
//!
//! Bar and lines go to stderr, JSON to stdout. While there is a bar, whatever else is printed goes above it.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::print;

/// Without a terminal, a line this often.
const LINES_EVERY: Duration = Duration::from_secs(10);
/// JSON, likewise.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// The bar takes what room the words leave, so that the line doesn't wrap.
const BAR: &str = "{msg} {wide_bar} {percent:>3}% ETA {eta}";
const SPINNER: &str = "{spinner} {wide_msg}";

/// How far the work is.
pub struct ProgressLine {
    /// In words.
    pub words: String,
    /// For programs.
    pub json: Value,
    /// Done and all, if that is known and there is something to do.
    pub share: Option<(u64, u64)>,
}

/// Where it is shown.
#[derive(Clone)]
pub struct Screen {
    bar: ProgressBar,
    json: bool,
    shown: Instant,
}

impl Screen {
    /// A bar where stderr is a terminal, unless JSON is wanted.
    pub fn new(json: bool) -> Self {
        let hidden = json || !io::stderr().is_terminal();
        let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self { bar: ProgressBar::with_draw_target(None, target), json, shown: Instant::now() }
    }

    /// Shows how far the work is, where it is time to.
    pub fn show(&mut self, how_far: impl FnOnce() -> ProgressLine) {
        let every = if self.json { JSON_EVERY } else { LINES_EVERY };
        if !self.bar.is_hidden() {
            self.draw(how_far());
        } else if self.shown.elapsed() >= every {
            self.shown = Instant::now();
            match self.json {
                true => self.event("progress", how_far().json),
                false => _ = writeln!(io::stderr(), "{}", how_far().words),
            }
        }
    }

    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints an event, if JSON is wanted.
    pub fn event(&self, name: &str, fields: Value) {
        if self.json {
            let mut event = json!({ "event": name });
            if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
                event.extend(fields);
            }
            print(event);
        }
    }

    /// Prints a line for people.
    pub fn say(&self, line: impl std::fmt::Display) {
        if !self.json {
            self.bar.suspend(|| print(line));
        }
    }

    /// Prints a line that is no result.
    pub fn note(&self, line: impl std::fmt::Display) {
        self.bar.suspend(|| _ = writeln!(io::stderr(), "{line}"));
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Where the log is to be written.
    pub fn log_writer(&self) -> impl Fn() -> AboveBar + Send + Sync + 'static {
        let bar = self.bar.clone();
        move || AboveBar(bar.clone())
    }

    fn draw(&self, how_far: ProgressLine) {
        let template = if how_far.share.is_some() { BAR } else { SPINNER };
        // The templates are constants, which the tests draw.
        self.bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        if let Some((done, all)) = how_far.share {
            self.bar.set_length(all);
            self.bar.set_position(done);
        }
        self.bar.set_message(how_far.words);
        self.bar.tick();
    }
}

/// Stderr, above the bar.
pub struct AboveBar(ProgressBar);

impl Write for AboveBar {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// How long a command took, and so how fast it was.
#[derive(Clone, Copy)]
pub struct Elapsed(Duration);

impl Elapsed {
    /// From then until now.
    pub fn since(start: Instant) -> Self {
        Self(start.elapsed())
    }

    /// Seconds, to the millisecond.
    pub fn seconds(self) -> f64 {
        self.0.as_millis() as f64 / 1000.0
    }

    /// So many things a second.
    pub fn rate(self, things: u64) -> u64 {
        // What takes no time at all was still done within a millisecond.
        (things as f64 / self.0.as_secs_f64().max(0.001)).round() as u64
    }
}

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs() {
            0..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds => write!(f, "{}", humantime::format_duration(Duration::from_secs(seconds))),
        }
    }
}

/// `1,234 documents`, `1 document`.
pub fn count(number: u64, thing: &str) -> String {
    let plural = match thing.strip_suffix('f') {
        _ if number == 1 => thing.to_owned(),
        Some(stem) => format!("{stem}ves"),
        None => format!("{thing}s"),
    };
    format!("{} {plural}", HumanCount(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_can_be_drawn() {
        for template in [BAR, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn times_and_rates_are_short() {
        assert_eq!(Elapsed(Duration::from_millis(1260)).to_string(), "1.3 s");
        assert_eq!(Elapsed(Duration::from_millis(3_725_900)).to_string(), "1h 2m 5s");
        assert_eq!(Elapsed(Duration::from_millis(500)).rate(10), 20);
        assert_eq!(Elapsed(Duration::ZERO).rate(3), 3000);
        assert!((Elapsed(Duration::from_micros(1_234_567)).seconds() - 1.234).abs() < 1e-9);
    }

    #[test]
    fn things_are_counted_in_english() {
        assert_eq!(count(1, "document"), "1 document");
        assert_eq!(count(12_345, "document"), "12,345 documents");
        assert_eq!(count(0, "leaf"), "0 leaves");
    }
}
