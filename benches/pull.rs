//! Pulls of a page from the handle to the page, without HTTP.
//!
//! An id names its parameters: messages in the page, bytes of each text, pulls in flight.

mod support;

use std::time::Duration;

use chinwag::message::{Direction, Pull};
use chinwag::wal::SyncMode;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Node, draft, peers, send, user};

const CONVERSATIONS: usize = 100;
const MESSAGES: u32 = 100;

fn pull(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pull");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(dir.path(), SyncMode::Never);
    let peers = peers(CONVERSATIONS);
    node.runtime.block_on(async {
        for to in peers.iter().cycle().take(CONVERSATIONS * MESSAGES as usize) {
            send(node.started.conversations.clone(), to.clone(), draft(200)).await;
        }
    });
    for (count, in_flight) in [(1, 1), (50, 1), (50, 64)] {
        let pull = Pull {
            direction: Direction::After,
            start_msg_index: 1,
            start_recall_index: 1,
            count,
            wait: Duration::ZERO,
        };
        group.throughput(Throughput::Elements(u64::from(count) * in_flight as u64));
        group.bench_function(format!("count={count}/size=200/in_flight={in_flight}"), |bencher| {
            bencher.iter(|| {
                node.runtime.block_on(async {
                    let pulls = peers.iter().take(in_flight).map(|at| {
                        let (conversations, at, pull) =
                            (node.started.conversations.clone(), at.clone(), pull.clone());
                        tokio::spawn(async move { conversations.pull(&user("sender"), &at, pull).await })
                    });
                    for pull in pulls.collect::<Vec<_>>() {
                        let page = pull.await.expect("no panic").expect("a page");
                        assert_eq!(page.messages().len(), count as usize);
                    }
                });
            });
        });
    }
    node.stop();
    group.finish();
}

criterion_group!(benches, pull);
criterion_main!(benches);
