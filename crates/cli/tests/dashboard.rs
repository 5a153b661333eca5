//! A test that asks every query of the dashboard of a real Prometheus, which scrapes a real run.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::panic,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use crate::common::{command, fresh};
use serde_json::Value;

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ended {
    fn check_runs(&mut self, what: &str) {
        let ended = self.0.try_wait().unwrap();
        assert_eq!(ended, None, "{what} has ended");
    }
}

/// The body of a server's answer; `None` while there is none.
fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    // HTTP/1.0 gives an answer without chunks, after which the server closes.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn query(address: &str, expression: &str) -> Option<Value> {
    let path = format!("/api/v1/query?query={}", percent_encoded(expression));
    serde_json::from_str(&get(address, &path)?).ok()
}

/// Number of series in an answer.
fn series(answer: &Value) -> usize {
    answer["data"]["result"].as_array().map_or(0, Vec::len)
}

/// Title and expression of every query of the dashboard.
fn queries() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics/dashboard.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            queries.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    // Queries fill the variables too.
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let filled = variables.iter().filter_map(|variable| variable["query"]["query"].as_str());
    for text in filled {
        let inner = text.strip_prefix("label_values(").unwrap();
        let (selector, label) = inner.trim_end_matches(')').rsplit_once(", ").unwrap();
        queries.push((text.to_owned(), format!("count by ({label}) ({selector})")));
    }
    queries
}

fn run(dir: &Path) -> (Ended, String) {
    let mut run =
        command(["run", "--entries", "20000", "--keys", "1000", "--gets", "1000000000000"]);
    run.arg("--dir").arg(dir).args(["--metrics", "127.0.0.1:0"]);
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let address = said.trim().strip_prefix("sprag: metrics at http://").unwrap();
    (Ended(child), address.strip_suffix("/metrics").unwrap().to_owned())
}

/// A server that scrapes `target` five times a second, and its address.
fn prometheus(dir: &Path, target: &str) -> (Ended, String) {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics/alerts.yml");
    let config = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
         rule_files: [{rules:?}]\n\
         scrape_configs: [{{job_name: sprag, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    let file = dir.join("prometheus.yml");
    fs::write(&file, config).unwrap();
    // Take a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut server = Command::new("prometheus");
    server.arg(format!("--config.file={}", file.display()));
    server.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
    server.arg(format!("--web.listen-address={free}"));
    let server = server.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null());
    (Ended(server.spawn().unwrap()), free.to_string())
}

#[test]
fn every_query_of_the_dashboard_has_an_answer_from_a_prometheus_that_scrapes_a_run() {
    if Command::new("prometheus").arg("--version").output().is_err() {
        eprintln!("skipped: there is no prometheus in PATH (Debian's package prometheus has it)");
        return;
    }
    let (scratch, dir) = fresh();
    let (mut run, target) = run(&dir);
    let (mut server, address) = prometheus(scratch.path(), &target);
    // Wait for ten scrapes of a run whose entries were applied.
    let scraped = "count_over_time(sprag_applied_entries_total[1m]) >= 10 \
                   and sprag_applied_entries_total > 0";
    while query(&address, scraped).is_none_or(|answer| series(&answer) == 0) {
        run.check_runs("the run");
        server.check_runs("the prometheus");
        thread::sleep(Duration::from_millis(100));
    }
    let queries = queries();
    assert!(queries.len() > 30, "{}", queries.len());
    for (title, expression) in queries {
        let filled = expression.replace("$instance", ".*").replace("$engine", ".*");
        let filled = filled.replace("$__rate_interval", "1m");
        assert!(!filled.contains('$'), "{title}: {filled}");
        // The machine of a run has no read cache, and its storage is the log.
        let is_empty = ["sprag_cache_", "sprag_storage_"].iter().any(|of| filled.contains(of));
        // On a busy machine a scrape may come too late, and then there is no answer until the next.
        let mut answer = query(&address, &filled).unwrap();
        for _ in 0..100 {
            if is_empty || series(&answer) > 0 {
                break;
            }
            thread::sleep(Duration::from_millis(100));
            answer = query(&address, &filled).unwrap();
        }
        assert_eq!(answer["status"], "success", "{title}: {filled}: {answer}");
        assert_eq!(series(&answer) == 0, is_empty, "{title}: {filled}: {answer}");
    }
    // A server loads the rules as they are, and a healthy run fires none.
    let rules = get(&address, "/api/v1/rules?type=alert").unwrap();
    let rules: Value = serde_json::from_str(&rules).unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    assert!(groups.iter().any(|group| group["name"] == "sprag"), "{rules}");
    let poisoned = query(&address, "ALERTS{alertname=\"SpragPoisoned\"}").unwrap();
    assert_eq!(series(&poisoned), 0, "{poisoned}");
    drop((server, run));
}
