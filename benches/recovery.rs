//! A start on a directory with history: until it serves, and until every conversation is in memory.
//!
//! An id names its parameters: where the history is (`log`: nothing but the log; `packs`: a
//! checkpoint covers it), messages, conversations, and whether every conversation is touched.

mod support;

use std::path::Path;
use std::time::Duration;

use chinwag::message::{Direction, Pull};
use chinwag::wal::SyncMode;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use support::{Node, draft, peers, send, user};

const CONVERSATIONS: usize = 1_000;

/// `CHINWAG_BENCH_MESSAGES` in all, 100,000 without it.
fn messages() -> usize {
    let asked = std::env::var("CHINWAG_BENCH_MESSAGES").ok();
    asked.map_or(100_000, |text| text.parse().expect("CHINWAG_BENCH_MESSAGES is a number"))
}

fn fill(root: &Path, checkpoint: bool) {
    let node = Node::start(root, SyncMode::Never);
    let peers = peers(CONVERSATIONS);
    node.runtime.block_on(async {
        for from in (0..messages()).step_by(1_000) {
            let sends = (from..from + 1_000).map(|number| {
                let (conversations, to) =
                    (node.started.conversations.clone(), peers[number % CONVERSATIONS].clone());
                tokio::spawn(send(conversations, to, draft(200)))
            });
            for send in sends.collect::<Vec<_>>() {
                send.await.expect("accepted");
            }
        }
    });
    if checkpoint {
        node.stop();
    }
    // Otherwise it is dropped, as a kill would leave it: all in the log and nothing in a pack.
}

async fn touch_all(node: &Node) {
    let pull = Pull {
        direction: Direction::Before,
        start_msg_index: u32::MAX,
        start_recall_index: 0,
        count: 1,
        wait: Duration::ZERO,
    };
    for at in peers(CONVERSATIONS) {
        let page = node.started.conversations.pull(&user("sender"), &at, pull.clone()).await;
        assert_eq!(page.expect("a page").max_msg_index as usize, messages() / CONVERSATIONS);
    }
}

fn recovery(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    group.throughput(Throughput::Elements(messages() as u64));
    for (place, checkpoint) in [("log", false), ("packs", true)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fill(dir.path(), checkpoint);
        for touch in [false, true] {
            let id =
                format!("in={place}/messages={}/conversations={CONVERSATIONS}/touch_all={touch}", messages());
            group.bench_function(id, |bencher| {
                // One at a time: two nodes must not share a directory.
                let started = |()| {
                    let node = Node::start(dir.path(), SyncMode::Never);
                    if touch {
                        node.runtime.block_on(touch_all(&node));
                    }
                    node
                };
                bencher.iter_batched(|| (), started, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
