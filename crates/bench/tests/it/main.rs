//! The parts of the benchmark against each other: real processes, real sockets, figures that must add up.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

/// A server of ours on a free port, killed when dropped.
struct Server {
    child: Child,
    addr: String,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = bench(args).args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(stdout);
        lines.read_line(&mut line).expect("tells where it listens");
        // Whoever prints later must find the pipe open.
        thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        let line: Value = serde_json::from_str(&line).expect("a line of JSON");
        let addr = line["listening"].as_str().expect("an address").to_owned();
        Self { child, addr }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// Status and body of one request.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.addr).expect("connects");
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).expect("sends");
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).expect("answers"), 0, "{head}");
        }
        let (_, length) = head.split_once("content-length: ").expect("a length");
        let length = length.lines().next().and_then(|length| length.parse().ok());
        let mut body = vec![0; length.expect("a number")];
        lines.read_exact(&mut body).expect("a body");
        let status = head[9..12].parse().expect("a status");
        (status, String::from_utf8(body).expect("text"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings-bench"));
    command.args(args);
    command
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

fn load(url: &str, args: &[&str]) -> Value {
    let mut command = bench(&["load", "--url", url]);
    json(&command.args(args).output().expect("runs"))
}

fn raw_server(folder: &TempDir, more: &[&str]) -> Server {
    let file = folder.path().join("events");
    let file = file.to_str().expect("a name in UTF-8");
    Server::start(&[&["baseline", "serve", "--file", file], more].concat())
}

fn lines_on_disk(folder: &TempDir) -> Vec<String> {
    let text = fs::read_to_string(folder.path().join("events")).expect("the file");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn what_the_load_counts_as_acked_is_what_the_raw_server_has_on_disk() {
    for (mode, runtime) in [("single", "per-core"), ("ndjson", "per-core"), ("ndjson", "shared")] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = raw_server(&folder, &["--runtime", runtime]);
        let report = load(&server.url(), &["--mode", mode, "--connections", "8", "--count", "1030", "--with-ids"]);
        assert_eq!(report["acked"], 1030, "{report}");
        assert_eq!(report["errors"], serde_json::json!({}));
        let lines = lines_on_disk(&folder);
        assert_eq!(lines.len(), 1030, "{mode}");
        for line in lines {
            let event: Value = serde_json::from_str(&line).expect("whole events only");
            assert!(event["eventId"].is_string(), "{event}");
        }
    }
}

#[test]
fn a_run_for_a_time_acks_what_it_sent_last_and_measures_only_its_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = raw_server(&folder, &[]);
    let report =
        load(&server.url(), &["--mode", "single", "--connections", "4", "--warmup", "0.1", "--seconds", "0.2"]);
    let acked = u32::try_from(lines_on_disk(&folder).len()).expect("few");
    assert_eq!(report["acked"], acked);
    let measured = report["events_per_second"].as_f64().expect("a rate") * 0.2;
    assert!(measured > 0.0 && measured < f64::from(acked), "{report}");
}

#[test]
fn answers_other_than_201_are_reported_and_never_counted_as_acks() {
    let receiver = Server::start(&["receiver"]);
    let report = load(&receiver.url(), &["--mode", "single", "--connections", "2", "--count", "10"]);
    assert_eq!(report["acked"], 0);
    assert_eq!(report["errors"], serde_json::json!({"200": 10}));
}

#[test]
fn a_server_that_hangs_up_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let server = thread::spawn(move || drop(listener.accept()));
    let report = load(&url, &["--mode", "ndjson", "--connections", "1", "--count", "500"]);
    server.join().expect("accepted");
    assert_eq!(report["acked"], 0);
    assert_eq!(report["errors"].as_object().expect("errors").len(), 1, "{report}");
}

#[test]
fn the_raw_server_parses_what_it_stores() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = raw_server(&folder, &[]);
    for refused in ["", "{", r#"{"data":1}"#, r#"{"eventType":"a.b"}"#, r#"{"eventType":"a.b","data":{]}"#] {
        assert_eq!(server.ask("POST", "/events", refused).0, 422, "{refused}");
    }
    let escaped = r#"{"eventType":"a\u002eb","channels":["x\ty"],"metadata":{"k":"\"v\""},"data":1e400}"#;
    assert_eq!(server.ask("POST", "/events", escaped).0, 201);
    assert_eq!(lines_on_disk(&folder), [escaped]);
}

#[test]
fn the_raw_sender_repeats_a_captured_webhook_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Server::start(&["receiver"]);
    let forward = first.url();
    let relay = raw_server(&folder, &["--forward", &forward, "--forward-connections", "2"]);
    load(&relay.url(), &["--mode", "single", "--connections", "1", "--count", "1"]);
    let sample = loop {
        let (_, sample) = first.ask("GET", "/sample", "");
        if sample != "null" {
            break sample;
        }
    };
    let file = folder.path().join("sample");
    fs::write(&file, &sample).expect("written");
    let second = Server::start(&["receiver"]);
    let mut command = bench(&["baseline", "post", "--count", "50", "--connections", "4", "--url"]);
    let output = command.arg(second.url()).arg("--sample").arg(&file).output().expect("runs");
    assert_eq!(json(&output)["posts"], 50);
    assert_eq!(second.ask("GET", "/sample", "").1, sample);
    let stats: Value = serde_json::from_str(&second.ask("GET", "/stats", "").1).expect("stats");
    assert_eq!(stats["posts"], 50);
    assert!(stats["age_us"]["p50"].as_u64() > Some(0), "{stats}");
}

#[test]
fn a_row_that_cannot_be_measured_fails_the_run_and_says_why() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    // Not a Tidings: it does not know `serve` and ends at once.
    let output = bench(&["run", "--smoke", "--rows", "idle", "--tidings", env!("CARGO_BIN_EXE_tidings-bench")])
        .arg("--work")
        .arg(folder.path())
        .output()
        .expect("runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("FAILED idle: the server ended with exit status: 2"), "{text}");
    let left = fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(left, 0, "the work folder is gone");
}
