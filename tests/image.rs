//! The Docker image is built from what `.dockerignore` leaves of the clone, and nothing else.
//!
//! There is no Docker here. So this makes the context by hand, copies what the Dockerfile copies out of it, and lets Cargo
//! look at the result: it refuses a manifest that names files which aren't there. What the sources include is looked for
//! beside. Compiling it all would show no more, and takes minutes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

fn clone() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The paths of all files, from the clone's root on.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let skipped = ["target", "node_modules", ".git", ".venv"];
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(clone().join(dir)).unwrap() {
        let entry = entry.unwrap();
        let path = dir.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true if skipped.iter().any(|skipped| path.ends_with(skipped)) => {}
            true => found.extend(files(&path)),
            false => _ = found.insert(path),
        }
    }
    found
}

/// Whether the ignore file leaves a file in the context: the last line that matches it, or one of its directories, counts.
fn is_left(path: &Path, ignore: &str) -> bool {
    let mut left = true;
    for line in ignore.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (pattern, kept) = line.strip_prefix('!').map_or((line, false), |pattern| (pattern, true));
        let pattern = pattern.trim_matches('/');
        assert!(pattern == "*" || !pattern.contains(['*', '?', '[']), "this test can't read the pattern {pattern}");
        if pattern == "*" || path.starts_with(pattern) {
            left = kept;
        }
    }
    left
}

/// What the stage that compiles copies out of the context.
fn copied() -> BTreeSet<PathBuf> {
    let ignore = fs::read_to_string(clone().join(".dockerignore")).unwrap();
    let dockerfile = fs::read_to_string(clone().join("Dockerfile")).unwrap();
    let mut copied = BTreeSet::new();
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let words = line.split_whitespace().skip(1).collect::<Vec<_>>();
        let (_, sources) = words.split_last().unwrap();
        let from = |path: &PathBuf| sources.iter().any(|source| *source == "." || path.starts_with(source));
        copied.extend(files(Path::new("")).into_iter().filter(|path| from(path) && is_left(path, &ignore)));
    }
    copied
}

/// The ignore file dropped `benches/`, which Cargo.toml names: no image could be built, and nothing here saw it.
#[test]
fn the_image_can_be_built_from_what_the_context_holds() {
    let (copied, dir) = (copied(), tempfile::tempdir().unwrap());
    for path in &copied {
        let to = dir.path().join(path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(clone().join(path), to).unwrap();
    }
    // It reads the whole manifest and the lock file, and needs nothing that isn't on this machine, as the tests were built.
    let cargo = Command::new(env!("CARGO"))
        .args(["fetch", "--locked", "--offline", "--target", "host-tuple"])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));

    for source in copied.iter().filter(|path| path.starts_with("src") && !is_test(path)) {
        let text = fs::read_to_string(clone().join(source)).unwrap();
        // The image's build knows no tests.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let included = ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|start| text.split(start).skip(1));
        for path in included.map(|rest| rest.split('"').next().unwrap()) {
            let path = normal(&source.parent().unwrap().join(path));
            assert!(copied.contains(&path), "{} includes {}, which stays out", source.display(), path.display());
        }
    }
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests")
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = normal.pop(),
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn secrets_and_what_was_built_stay_out_of_the_image() {
    let ignore = fs::read_to_string(clone().join(".dockerignore")).unwrap();
    for path in ["target/release/couchrep", "data/recipes.redb", "docker-admin.example", ".git/config"] {
        assert!(!is_left(Path::new(path), &ignore), "{path}");
    }
}
