//! Power is cut under load, again and again on the same store; what was acknowledged must be there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check::{assert_whole, check};
use crate::image::Image;
use crate::ledger::Ledger;
use crate::load::{Load, Talk};
use crate::server::Settings;
use crate::world::{found_groups, rooms};
use crate::{directory, number, seed};

const CUTS_DEFAULT: u64 = 20;
/// Power cuts of one store; then a new one begins.
const CUTS_PER_STORE: u64 = 5;
const IMAGE_MIB: u64 = 128;

/// One store and its power cuts.
struct Store {
    image: Image,
    settings: Settings,
    ledger: Arc<Ledger>,
    cuts: u64,
}

impl Store {
    fn new(dir: &std::path::Path, name: &str, settings: impl FnOnce(Settings) -> Settings) -> Self {
        let image = Image::make(dir, name, IMAGE_MIB);
        let data = image.root().join("data");
        let settings = settings(Settings::new(&data).with("segment-bytes", "1MiB").with("log-level", "warn"));
        Self { image, settings, ledger: Arc::new(Ledger::new(rooms())), cuts: 0 }
    }

    /// Starts, talks, loses the power after `life`, and leaves the image as the next start finds it.
    fn life(&mut self, life: Duration, talk: Talk) {
        let server = self.settings.start();
        if self.cuts == 0 {
            found_groups(&server, &self.ledger);
        }
        let load = Load::start(&server, &self.ledger, talk);
        // The moment is what is random here; nothing is waited for.
        std::thread::park_timeout(life);
        server.kill();
        load.stop();
        self.cuts += 1;
        self.image = self.image.after_power_cut(&format!("cut-{}-{}", talk.seed, self.cuts));
        self.settings = self.settings.in_directory(&self.image.root().join("data"));
    }
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn what_was_acknowledged_survives_power_cuts() {
    let (seed, began) = (seed("power cuts"), Instant::now());
    let mut random = StdRng::seed_from_u64(seed);
    let dir = directory();
    let cuts = number("CHINWAG_POWER_CUTS").unwrap_or(CUTS_DEFAULT);
    let mut acknowledged = 0;
    let mut recalls = 0;
    for store in 0..cuts.div_ceil(CUTS_PER_STORE) {
        // Every other store takes checkpoints all the time, so that packs, manifests and the cutting of the log are hit.
        let busy = |settings: Settings| {
            if store % 2 == 0 {
                settings
            } else {
                settings.with("checkpoint-interval", "1s").with("checkpoint-bytes", "1MiB")
            }
        };
        let mut store = Store::new(dir.path(), &format!("store-{store}"), busy);
        for _ in 0..CUTS_PER_STORE.min(cuts) {
            let life = Duration::from_millis(random.random_range(30..1500));
            store.life(life, Talk { seed: random.random(), text_bytes: random.random_range(10..4000) });
            let server = store.settings.start();
            assert_whole(&server, &store.ledger);
            server.kill();
        }
        acknowledged += store.ledger.acknowledged();
        recalls += store.ledger.recalls();
    }
    eprintln!(
        "{cuts} power cuts, {acknowledged} acknowledged sends, {recalls} recalls, {:.0?}",
        began.elapsed()
    );
}

#[test]
#[ignore = "takes long, and needs root, strace and e2fsprogs: cargo test --test proof -- --ignored"]
fn control_without_syncs_a_power_cut_loses_acknowledged_messages() {
    let seed = seed("power cut without syncs");
    let dir = directory();
    let mut store = Store::new(dir.path(), "control", |settings| settings.with("sync", "never"));
    store.life(Duration::from_millis(500), Talk { seed, text_bytes: 100 });
    let acknowledged = store.ledger.acknowledged();
    match store.settings.try_start() {
        Ok(server) => drop((check(&server, &store.ledger), server)),
        Err(ended) => eprintln!("it did not even start: {ended:?}"),
    }
    let violations = store.ledger.violations();
    eprintln!(
        "{acknowledged} acknowledged sends, {} violations, such as {:?}",
        violations.len(),
        violations.first()
    );
    assert!(acknowledged > 0 && !violations.is_empty(), "this test cannot see what a power cut takes");
}
