//! Sends per second from the handle to the receipt, without HTTP: permit, directory, actor, rules,
//! record, log, disk, completion.
//!
//! An id names its parameters: the sync mode, how many sends are in flight, over how many
//! conversations. Run with `TMPDIR` on the disk in question.

mod support;

use std::time::Duration;

use chinwag::wal::SyncMode;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use support::{Node, draft, peers, send};

const TEXT_BYTES: usize = 200;

fn send_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("send_path");
    let interval = SyncMode::Interval(Duration::from_millis(50));
    for (name, sync) in [("always", SyncMode::Always), ("interval", interval)] {
        for (in_flight, conversations) in [(1, 1), (64, 1), (64, 1_000), (256, 1_000)] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let node = Node::start(dir.path(), sync);
            let peers = peers(conversations);
            group.throughput(Throughput::Elements(in_flight as u64));
            let id = format!("sync={name}/in_flight={in_flight}/conversations={conversations}");
            let mut next = 0;
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    next += in_flight;
                    node.runtime.block_on(send_all(&node, &peers, next, in_flight));
                });
            });
            node.stop();
        }
    }
    group.finish();
}

async fn send_all(node: &Node, peers: &[chinwag::message::Address], from: usize, count: usize) {
    let sends = (from..from + count).map(|number| {
        let conversations = node.started.conversations.clone();
        let to = peers[number % peers.len()].clone();
        tokio::spawn(send(conversations, to, draft(TEXT_BYTES)))
    });
    for send in sends.collect::<Vec<_>>() {
        send.await.expect("accepted");
    }
}

criterion_group!(benches, send_path);
criterion_main!(benches);
