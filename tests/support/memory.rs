//! What memory a process takes.

use std::path::Path;
use std::time::Duration;

/// The most memory that a process ever had.
pub fn peak_bytes(process: u32) -> usize {
    bytes(process, "VmHWM:")
}

/// Waits until a process takes no more memory: until it has had the same for a second.
pub async fn settled(process: u32) {
    let (mut before, mut same) = (0, 0);
    while same < 10 {
        let now = peak_bytes(process);
        same = if now == before { same + 1 } else { 0 };
        before = now;
        // Nothing tells that nothing more happens.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn bytes(process: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
