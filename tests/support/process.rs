//! The real binary as a child process: for what only a process can show, signals and crashes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// A running couchrep, killed when dropped.
pub struct Process {
    child: Child,
    url: String,
    /// Kept open: a process that prints to nobody fails.
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts one on a free port with this data dir, and waits until it listens.
    pub fn start(data_dir: &Path) -> Self {
        Self::with_args(data_dir, &[])
    }

    /// The same with further options.
    pub fn with_args(data_dir: &Path, args: &[&str]) -> Self {
        let mut command = command();
        command.args(args).stderr(Stdio::inherit());
        Self::spawn(command, data_dir)
    }

    /// Starts one that tells a service manager, at this socket, how it is.
    pub fn notifying(data_dir: &Path, socket: &Path) -> Self {
        let mut command = command();
        command.env("NOTIFY_SOCKET", socket).stderr(Stdio::inherit());
        Self::spawn(command, data_dir)
    }

    /// Starts one that logs everything it can into this file.
    pub fn tracing(data_dir: &Path, args: &[&str], log: &Path) -> Self {
        let mut command = command();
        command.args(args).env("COUCHREP_LOG", "trace").stderr(File::create(log).unwrap());
        Self::spawn(command, data_dir)
    }

    /// Starts one that adds its log to this file.
    pub fn logging(data_dir: &Path, args: &[&str], log: &Path) -> Self {
        let mut command = command();
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.args(args).env("COUCHREP_LOG", "info").stderr(log);
        Self::spawn(command, data_dir)
    }

    /// Starts one whose files can't grow beyond this many KiB: to it, the disk is full then.
    pub fn with_file_limit(data_dir: &Path, kib: u64) -> Self {
        let mut command = deaf(Command::new("sh"));
        // A process that doesn't ignore the signal is ended by it.
        command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]).arg(binary()).stderr(Stdio::inherit());
        let process = Self::spawn(command, data_dir);
        process.limit_files(kib);
        process
    }

    /// Starts one with this soft limit of open files.
    pub fn with_soft_limit_of_open_files(data_dir: &Path, limit: u64) -> Self {
        let mut command = deaf(Command::new("sh"));
        let limited = format!(r#"ulimit -Sn {limit}; exec "$0" "$@""#);
        command.args(["-c", &limited]).arg(binary()).stderr(Stdio::inherit());
        Self::spawn(command, data_dir)
    }

    /// Sets another limit.
    pub fn limit_files(&self, kib: u64) {
        self.set_file_limit(&(kib << 10).to_string());
    }

    /// Takes that limit away.
    pub fn lift_file_limit(&self) {
        self.set_file_limit("unlimited");
    }

    /// The soft limit, which anybody may raise again.
    fn set_file_limit(&self, bytes: &str) {
        let (id, limit) = (self.id().to_string(), format!("--fsize={bytes}:"));
        assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
    }

    fn spawn(mut command: Command, data_dir: &Path) -> Self {
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.strip_prefix("couchrep listens on ").and_then(|rest| rest.split(',').next());
        let url = url.unwrap_or_else(|| panic!("couchrep didn't start: {line:?}")).to_owned();
        Self { child, url, stdout }
    }

    /// Runs one that is to end by itself.
    pub fn run(args: &[&str], envs: &[(&str, &str)]) -> Output {
        command().args(args).envs(envs.iter().copied()).output().unwrap()
    }

    /// Starts another of its commands, its output to be read.
    pub fn spawn_command(args: &[&str]) -> Child {
        command().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The URL of a path that starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it without warning, as `kill -9` or a lost machine does.
    pub fn kill(mut self) {
        self.kill_in_place();
    }

    /// The same, for who keeps its address to find it dead.
    pub fn kill_in_place(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends `SIGTERM`, `SIGINT` or `SIGHUP`.
    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Whether it has come to its end.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; panics where it takes longer than `limit`.
    pub fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < limit, "couchrep still ran after {limit:?}");
            // Nothing signals a child's end without a thread of its own.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that it has printed after its first line; call it when it has ended.
    pub fn printed(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command printed, without how long it took and how fast it was.
pub fn without_times(printed: &str) -> String {
    let time = fancy_regex::Regex::new(r" (in|after) [0-9][0-9.hms ]*s\b| \([0-9,]+/s\)").unwrap();
    time.replace_all(printed, "").into_owned()
}

/// Sends a signal to a process.
pub fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &id.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The binary, deaf to the settings in the environment of whoever runs the tests.
fn command() -> Command {
    deaf(Command::new(binary()))
}

fn deaf(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COUCHREP_")) {
        command.env_remove(name);
    }
    command.env("COUCHREP_LOG", "warn");
    command
}

fn binary() -> PathBuf {
    env!("CARGO_BIN_EXE_couchrep").into()
}
