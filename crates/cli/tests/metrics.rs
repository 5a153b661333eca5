//! Tests of `run --metrics`: the endpoint's answers, its clients, and its end with the run.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use crate::common::{command, fail};

/// A run that continues until the test ends it, and the address of its metrics.
struct Run {
    child: Child,
    address: String,
}

impl Run {
    fn start() -> Self {
        let what = ["run", "--machine", "memory", "--entries", "1000", "--keys", "100"];
        let mut run = command(what);
        run.args(["--gets", "1000000000000", "--metrics", "127.0.0.1:0"]);
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let address = said.trim().strip_prefix("sprag: metrics at http://").unwrap();
        let address = address.strip_suffix("/metrics").unwrap().to_owned();
        Self { child, address }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn metrics_are_served_in_the_format_that_is_asked_for_and_to_get_only() {
    let run = Run::start();
    let plain = run.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = plain.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");

    let accept = "aCCept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
    let open = run.ask(&format!("GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n"));
    let kind = "\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(open.contains(kind) && open.ends_with("# EOF\n"), "{open}");

    let status = |request: &str| run.ask(request).lines().next().unwrap_or_default().to_owned();
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status("nonsense\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(8192 - 28));
    assert_eq!(status(&long), "HTTP/1.1 431 Request Header Fields Too Large");

    // The engine exists once the workload is made.
    let request = "GET /metrics HTTP/1.1\r\n\r\n";
    while !run.ask(request).contains("sprag_log_index{engine=\"run\",mark=\"applied\"}") {}
}

#[test]
fn a_client_that_says_nothing_holds_up_the_next_one_for_a_while_only() {
    let run = Run::start();
    let silent = TcpStream::connect(&run.address).unwrap();
    let mut half = TcpStream::connect(&run.address).unwrap();
    half.write_all(b"GET /metr").unwrap();
    assert!(run.ask("GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK"));
    drop((silent, half));
}

#[test]
fn a_port_that_is_taken_is_refused_before_the_run() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = fail(1, ["run", "--entries", "1", "--metrics", &address]);
    assert!(said.contains(&format!("--metrics {address}: ")), "{said}");
    assert!(said.contains("in use"), "{said}");
    for wrong in ["9464", "localhost", "127.0.0.1:99999"] {
        let said = fail(2, ["run", "--metrics", wrong]);
        assert!(said.contains("127.0.0.1:9464"), "{said}");
    }
}

#[test]
fn the_metrics_end_with_the_run() {
    let what = ["run", "--entries", "1000", "--keys", "100", "--gets", "10"];
    let run = command(what).args(["--metrics", "127.0.0.1:0"]).output().unwrap();
    let (said, printed) =
        (String::from_utf8_lossy(&run.stderr), String::from_utf8_lossy(&run.stdout));
    let address = said.lines().find_map(|line| line.strip_prefix("sprag: metrics at http://"));
    let address = address.unwrap().strip_suffix("/metrics").unwrap();
    assert!(TcpStream::connect(address).is_err());
    assert!(printed.contains("verified:"), "{printed}");
}
