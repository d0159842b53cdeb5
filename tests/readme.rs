//! The README's walk, command by command: what it shows is what a newcomer gets.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Process;

/// For what is said to happen by itself meanwhile.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_walk_works_as_printed() {
    let readme = include_str!("../README.md");
    let data_dir = tempfile::tempdir().unwrap();
    let servers = [("http://127.0.0.1:5984", "data"), ("http://127.0.0.1:5985", "data2")]
        .map(|(printed, dir)| (printed, Process::start(&data_dir.path().join(dir))));
    let steps = steps(readme);
    assert!(steps.len() > 8, "found only {} commands", steps.len());
    for (command, printed) in steps {
        let real = servers.iter().fold(command.clone(), |text, (url, server)| text.replace(url, &server.url("")));
        let expected = masked(&printed);
        let repeatable = !command.contains(" -d ") && !command.contains("PUT");
        let start = Instant::now();
        loop {
            let answer = run(&real);
            let answer = servers.iter().fold(answer, |text, (url, server)| text.replace(&server.url(""), url));
            let found = masked(&answer);
            if found == expected {
                break;
            }
            let waiting = repeatable && start.elapsed() < LIMIT;
            assert!(waiting, "$ {command}\nprinted:  {expected}\nanswered: {found}");
        }
    }
}

/// Commands and what the README shows below them.
fn steps(readme: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push((command.to_owned(), String::new())),
                (None, Some((_, answer))) => answer.push_str(line),
                (None, None) => panic!("{line} stands before any command"),
            }
        }
    }
    steps
}

fn run(command: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(command).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The answer without what is another one each time: ids, revisions and times.
fn masked(answer: &str) -> Value {
    fn mask(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(mask),
            Value::Object(members) => {
                for (key, value) in members {
                    match key.as_str() {
                        "started_on" | "updated_on" | "start_time" | "end_time" | "docs_per_second" => {
                            *value = key.as_str().into();
                        }
                        _ => mask(value),
                    }
                }
            }
            Value::String(text) => *text = without_hashes(text),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error} in {answer:?}"));
    mask(&mut value);
    value
}

/// Runs of 32 hexadecimal digits are hashes.
fn without_hashes(text: &str) -> String {
    let mut rest = text;
    let mut masked = String::new();
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let (taken, shown) = match digits {
            32 => (32, "<hash>"),
            0 => (first.len_utf8(), &rest[..first.len_utf8()]),
            _ => (digits, &rest[..digits]),
        };
        masked.push_str(shown);
        rest = &rest[taken..];
    }
    masked
}
