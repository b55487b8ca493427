//! What the tests of processes share.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "only tests use this, clippy sees no test in it")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// The newest PostgreSQL that a drill can use; a printed reason where there is none.
pub fn postgres() -> Option<scratch::Installation> {
    let found = scratch::installations().into_iter().find(|installation| (13..=18).contains(&installation.major()));
    if found.is_none() {
        println!("skipped: no PostgreSQL 13 to 18 is installed; `cargo xtask testbed` gets one");
    }
    found
}

/// The example, which cargo builds along with the tests: it stands for the binary.
pub fn drill() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let drill = test.ancestors().nth(2).unwrap().join("examples/drill");
    assert!(drill.is_file(), "{} is not built: cargo build -p drill --examples", drill.display());
    drill
}

/// A helper process.
pub struct Helper {
    child: Child,
    pub port: u16,
}

impl Helper {
    pub fn start(kind: &str, spec: &serde_json::Value) -> Self {
        let mut child = Command::new(drill())
            .args(["drill-service", kind, &spec.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let announced: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(announced["helper"], kind);
        let port = u16::try_from(announced["port"].as_u64().unwrap()).unwrap();
        Self { child, port }
    }

    /// Closes its standard input and waits.
    pub fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().unwrap()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn get(port: u16, path: &str) -> (u16, String) {
    request(port, "GET", path)
}

pub fn post(port: u16, path: &str) -> (u16, String) {
    request(port, "POST", path)
}

/// One request over HTTP/1.0, so that the answer ends with the connection.
fn request(port: u16, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{method} {path} HTTP/1.0\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// All descendants of a process, each with its start time, so that a later process with the same pid is not taken for it.
pub fn descendants(pid: u32) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        for thread in std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            for child in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
                found.extend(started(child).map(|ticks| (child, ticks)));
                open.push(child);
            }
        }
    }
    found
}

/// A live process's start time; zombies are dead.
pub fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
