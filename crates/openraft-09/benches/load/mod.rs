//! A load of single writes by clients that each wait for their reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sprag::ApplyStats;
use sprag_raft_store::Request;

/// Times of a load: before it is measured, and while it is.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_secs(2);

/// Puts of 16 + 100 bytes by `clients` clients. Prints writes/s, latencies, and the syncs of each
/// node a write.
pub(crate) async fn run<W, F>(clients: u64, write: W, stats: impl Fn() -> Vec<ApplyStats>)
where
    W: Fn(Request) -> F + Clone + Send + 'static,
    F: Future<Output = bool> + Send,
{
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (write, next) = (write.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                let mut latencies_us = Vec::new();
                while began.elapsed() < WARM_UP + MEASURED {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let key = format!("{:016}", number % 100_000);
                    let asked = Instant::now();
                    let done = write(Request::put(key, vec![b'v'; 100])).await;
                    let measured = began.elapsed() >= WARM_UP;
                    if done && measured && began.elapsed() < WARM_UP + MEASURED {
                        latencies_us.push(asked.elapsed().as_micros());
                    }
                }
                latencies_us
            })
        })
        .collect();
    tokio::time::sleep(WARM_UP).await;
    let before = stats();
    tokio::time::sleep(MEASURED).await;
    let after = stats();
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await.unwrap_or_default());
    }
    latencies_us.sort_unstable();
    let at = |percent: usize| latencies_us.get(latencies_us.len() * percent / 100).copied();
    let writes = latencies_us.len() as u64;
    let syncs = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.log_writer.syncs - before.log_writer.syncs);
    let syncs: Vec<_> = syncs.map(|syncs| syncs * 100 / writes.max(1)).collect();
    println!(
        "{clients:>5} clients: {:>7} writes/s, p50 {:>7} us, p99 {:>7} us, syncs per 100 writes of each node {syncs:?}",
        writes / MEASURED.as_secs(),
        at(50).unwrap_or_default(),
        at(99).unwrap_or_default(),
    );
}
