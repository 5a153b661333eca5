//! The `run --metrics` server: the engine's figures over HTTP, for Prometheus to scrape.
//!
//! One thread serves one request after another. A request and its answer have two seconds each, so
//! a client that stalls delays the next one by no more. The servers in crates have a pool of
//! threads and no such limit (tiny_http), or need an async runtime. So only the parser of requests
//! is a crate.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{prometheus_text, text as openmetrics_text};
use prometheus_client::registry::Registry;
use sprag::StatsReader;
use sprag_prometheus::{EngineNameTaken, SpragCollector};

use crate::error::{Outcome, about};

/// Time limit of a request, and of its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest head of a request.
const HEAD_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The server; dropping it ends its thread.
pub(crate) struct Server {
    collector: SpragCollector,
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `address` and prints the address used; with port 0 the system chooses a port.
    pub(crate) fn start(address: SocketAddr) -> Outcome<Self> {
        let failed = || about::<io::Error>(format!("--metrics {address}"));
        let listener = TcpListener::bind(address).map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let collector = SpragCollector::new();
        let mut registry = Registry::default();
        registry.register_collector(Box::new(collector.clone()));
        let stopping = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stopping);
        let serve = move || serve(&listener, &registry, &is_over);
        let thread = thread::Builder::new().name("sprag-metrics".to_owned());
        let thread = thread.spawn(serve).map_err(failed())?;
        // The command continues even if standard error is closed.
        let _unread = writeln!(io::stderr(), "sprag: metrics at http://{address}/metrics");
        Ok(Self { collector, address, stopping, thread: Some(thread) })
    }

    /// Serves the figures of another engine, until the result is dropped.
    pub(crate) fn add(&self, name: &str, reader: StatsReader) -> Result<(), EngineNameTaken> {
        self.collector.add(name, reader)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // The thread waits for a client, so this connects as one.
        let address = match self.address.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let woken =
            TcpStream::connect_timeout(&(address, self.address.port()).into(), PATIENCE).is_ok();
        // If waking the thread failed, the end of the process ends it.
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _panicked = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, registry: &Registry, stopping: &AtomicBool) {
    let mut scrape = String::new();
    while !stopping.load(Ordering::Acquire) {
        match listener.accept() {
            // A client that has gone, or stalls, cannot use an error message.
            Ok((client, _)) => {
                let _gone = answer(&client, registry, &mut scrape);
            }
            // The process may be out of descriptors, which may pass.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Meaning of a request.
enum Asked {
    Metrics { is_openmetrics: bool },
    Wrong { status: &'static str, says: &'static str },
}

fn answer(client: &TcpStream, registry: &Registry, scrape: &mut String) -> io::Result<()> {
    scrape.clear();
    let asked = read_request(client)?;
    let (status, kind) = match asked {
        Asked::Wrong { status, says } => {
            scrape.push_str(says);
            (status, PLAIN)
        }
        Asked::Metrics { is_openmetrics } => {
            let written = match is_openmetrics {
                true => openmetrics_text::encode(scrape, registry),
                false => prometheus_text::encode(scrape, registry),
            };
            written.map_err(io::Error::other)?;
            ("200 OK", if is_openmetrics { OPENMETRICS } else { PLAIN })
        }
    };
    let mut head = String::with_capacity(256);
    let bytes = scrape.len();
    write!(
        head,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {bytes}\r\n\
         Allow: GET\r\nConnection: close\r\n\r\n"
    )
    .map_err(io::Error::other)?;
    let deadline = Instant::now() + PATIENCE;
    write_until(client, head.as_bytes(), deadline)?;
    write_until(client, scrape.as_bytes(), deadline)?;
    match asked {
        Asked::Metrics { .. } => Ok(()),
        Asked::Wrong { .. } => take_the_rest(client, deadline),
    }
}

/// Reads the rest of a request that was not read whole. Closing before that would discard the
/// answer.
fn take_the_rest(mut client: &TcpStream, deadline: Instant) -> io::Result<()> {
    client.shutdown(Shutdown::Write)?;
    let mut rest = [0; HEAD_BYTES_MAX];
    while client.read(&mut rest)? > 0 {
        client.set_read_timeout(Some(left(deadline)?))?;
    }
    Ok(())
}

fn read_request(client: &TcpStream) -> io::Result<Asked> {
    let deadline = Instant::now() + PATIENCE;
    let (mut head, mut used) = ([0; HEAD_BYTES_MAX], 0);
    loop {
        client.set_read_timeout(Some(left(deadline)?))?;
        let mut reading = client;
        let Some(room) = head.get_mut(used..).filter(|room| !room.is_empty()) else {
            let status = "431 Request Header Fields Too Large";
            return Ok(Asked::Wrong { status, says: "the request is too long\n" });
        };
        match reading.read(room)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => used += read,
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head[..used]) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(_)) => return Ok(asked(&request)),
            Err(_) => {
                let says = "this is no request of HTTP/1.1\n";
                return Ok(Asked::Wrong { status: "400 Bad Request", says });
            }
        }
    }
}

fn asked(request: &httparse::Request<'_, '_>) -> Asked {
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some("/metrics") {
        let says = "the metrics are at /metrics\n";
        return Asked::Wrong { status: "404 Not Found", says };
    }
    if request.method != Some("GET") {
        let says = "the metrics can only be read: GET /metrics\n";
        return Asked::Wrong { status: "405 Method Not Allowed", says };
    }
    let mut headers = request.headers.iter();
    let is_openmetrics = headers.any(|header| {
        let value = String::from_utf8_lossy(header.value);
        header.name.eq_ignore_ascii_case("accept") && value.contains("application/openmetrics-text")
    });
    Asked::Metrics { is_openmetrics }
}

/// Time left until `deadline`; an error after it has passed.
fn left(deadline: Instant) -> io::Result<Duration> {
    // No time is left after the deadline.
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn write_until(mut client: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        client.set_write_timeout(Some(left(deadline)?))?;
        let written = client.write(bytes)?;
        // A write takes no more than it was given.
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}
