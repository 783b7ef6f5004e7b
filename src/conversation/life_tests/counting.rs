//! The census: what it says of a life whose every record, pack and file is known.

use super::census::{Packs, Permits};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_census_says_what_there_is() {
    let life = Life::begin(&Simulated::new(1));
    let operator = life.started.operator();
    let census = || tokio::task::block_in_place(|| operator.census());
    let before = census();
    assert_eq!((before.conversations, before.in_memory, before.log.durable.0), (0, 0, 0));
    assert_eq!(before.packs, Packs { count: 0, bytes: 0, chunks: 0 });
    assert_eq!((before.log.segments, before.log.kept_bytes), (1, 16 << 10));

    life.send("alice", &to("bob"), "one").await;
    life.send("alice", &to("bob"), "two").await;
    life.send("alice", &to("carol"), "three").await;
    eventually("answered calls are over", || life.conversations().in_flight() == 0).await;
    let busy = census();
    assert_eq!((busy.conversations, busy.in_memory, busy.quarantined), (2, 2, 0));
    assert_eq!((busy.log.appended.0, busy.log.durable.0, busy.log.oldest.map(|lsn| lsn.0)), (3, 3, Some(1)));
    let Permits { taken, max, bytes, .. } = busy.permits;
    assert_eq!((taken, max, bytes), (0, admission::Options::default().in_flight_max, 0));

    life.checkpoint().unwrap();
    let manifest = life.manifest();
    let named = Packs {
        count: manifest.packs.len(),
        bytes: manifest.packs.iter().map(|pack| pack.bytes).sum(),
        chunks: manifest.packs.iter().map(|pack| pack.chunks).sum(),
    };
    assert_eq!(census().packs, named);
    assert!(named.count == 1 && named.chunks >= 2, "{named:?}");
    let last = &life.metrics.last_checkpoint;
    assert!(last.written_s.get() > 0 && last.is_failing.get() == 0);
    life.stop().await;
}
