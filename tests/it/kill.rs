//! `kill -9` at random moments, life after life on one directory: nothing acknowledged is ever lost,
//! nothing seen is ever taken back.
//!
//! `CHINWAG_KILL_LIVES` says how many lives (5), `CHINWAG_KILL_SEED` repeats the choices of a run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::{Chat, Client, DEADLINE, Page, TestServer};

const WRITERS: usize = 4;
const GROUP: &str = "everybody";
const READER: &str = "reader";

/// A conversation as the reader addresses it.
type Name = String;

/// What a writer asked for and does not know the outcome of.
#[derive(Debug, Clone)]
enum Call {
    Send { to_group: bool, id: String },
    Recall { to_group: bool, msg_index: u32 },
}

/// What has been promised or shown so far.
#[derive(Default)]
struct Ledger {
    /// The name of the message at an index, as acknowledged.
    sent: BTreeMap<(Name, u32), String>,
    /// The index that a name was answered with.
    answered: BTreeMap<String, u32>,
    /// The message of a recall, as acknowledged.
    recalled: BTreeMap<(Name, u32), u32>,
    /// What a pull has shown at an index: sender, text (none once recalled), seconds.
    seen: BTreeMap<(Name, u32), (String, Option<String>, u32)>,
    seen_recalls: BTreeMap<(Name, u32), u32>,
}

struct Writer {
    user: String,
    random: StdRng,
    next: u32,
    /// Asked again in the next life, until it is known.
    pending: Option<Call>,
    /// Own messages that could be recalled.
    own: Vec<(bool, u32)>,
    /// Sends that were acknowledged, any of which may be asked for again.
    known: Vec<(bool, String)>,
}

impl Writer {
    fn new(number: usize, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64 + 1));
        Self {
            user: format!("writer-{number}"),
            random,
            next: 1,
            pending: None,
            own: Vec::new(),
            known: Vec::new(),
        }
    }

    fn name(&self, to_group: bool) -> Name {
        if to_group { GROUP.to_owned() } else { self.user.clone() }
    }

    fn choose(&mut self) -> Call {
        if !self.own.is_empty() && self.random.random_ratio(1, 8) {
            let at = self.random.random_range(0..self.own.len());
            let (to_group, msg_index) = self.own.swap_remove(at);
            return Call::Recall { to_group, msg_index };
        }
        if !self.known.is_empty() && self.random.random_ratio(1, 4) {
            let (to_group, id) = self.known[self.random.random_range(0..self.known.len())].clone();
            return Call::Send { to_group, id };
        }
        let id = format!("{} {}", self.user, self.next);
        self.next += 1;
        Call::Send { to_group: self.random.random(), id }
    }

    /// Writes until the server dies; tells of every acknowledgement.
    fn live(&mut self, server: &TestServer, ledger: &Mutex<Ledger>, acknowledged: &Sender<()>) {
        let client = server.client(&self.user);
        loop {
            let call = self.pending.take().unwrap_or_else(|| self.choose());
            self.pending = Some(call.clone());
            let Some(answer) = ask(&client, &call) else { return };
            self.note(&call, &answer, &mut lock(ledger));
            self.pending = None;
            acknowledged.send(()).ok();
        }
    }

    fn note(&mut self, call: &Call, answer: &Value, ledger: &mut Ledger) {
        let index = |field: &str| u32::try_from(answer[field].as_u64().expect("an index")).expect("a u32");
        match call {
            Call::Send { to_group, id } => {
                let msg_index = index("msg_index");
                if let Some(first) = ledger.answered.insert(id.clone(), msg_index) {
                    assert_eq!((msg_index, &answer["duplicate"]), (first, &json!(true)), "a retry of {id}");
                    return;
                }
                let before = ledger.sent.insert((self.name(*to_group), msg_index), id.clone());
                assert_eq!(before, None, "index {msg_index} was given out twice");
                self.own.push((*to_group, msg_index));
                self.known.push((*to_group, id.clone()));
            }
            Call::Recall { to_group, msg_index } => {
                let at = (self.name(*to_group), index("recall_index"));
                let before = ledger.recalled.insert(at, *msg_index);
                assert_eq!(before, None, "a recall index was given out twice");
            }
        }
    }
}

/// The answer, or nothing when the server died.
fn ask(client: &Client, call: &Call) -> Option<Value> {
    let chat = |to_group: bool| if to_group { client.group(GROUP) } else { client.with(READER) };
    let reply = match call {
        Call::Send { to_group, id } => {
            let fields = json!({"msg": text_of(id), "client_msg_id": id});
            chat(*to_group).try_call("send", &fields)
        }
        Call::Recall { to_group, msg_index } => {
            chat(*to_group).try_call("recall", &json!({"msg_index": msg_index}))
        }
    };
    Some(reply.ok()?.ok())
}

/// Lengths differ, so that batches do.
fn text_of(id: &str) -> String {
    format!("{id}: {}", "x".repeat(id.len() * 37 % 400))
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Takes over what a pull shows, which must agree with everything shown before.
    fn see(&mut self, name: &str, page: &Page) {
        for msg in &page.msgs {
            let text = (msg.recall_index == 0).then(|| msg.msg.clone());
            let at = (name.to_owned(), msg.msg_index);
            let now = (msg.sender.clone(), text, msg.timestamp);
            if let Some(before) = self.seen.get(&at) {
                assert_eq!((&before.0, before.2), (&now.0, now.2), "message {at:?} has changed");
                assert!(now.1.is_none() || now.1 == before.1, "{at:?} was {before:?} and is {now:?}");
            }
            self.seen.insert(at, now);
        }
        for (recall_index, msg_index) in &page.recalls {
            let before = self.seen_recalls.insert((name.to_owned(), *recall_index), *msg_index);
            assert!(before.is_none_or(|before| before == *msg_index), "recall {recall_index} has changed");
        }
    }

    /// Everything promised and everything shown is there, without holes and without repeats.
    fn check(&mut self, name: &str, all: &Page) {
        self.see(name, all);
        assert_eq!(all.indices(), (1..=all.max_msg_index).collect::<Vec<_>>(), "{name}: dense");
        assert!(all.recalls.keys().copied().eq(1..=all.max_recall_index), "{name}: dense recalls");
        assert_eq!(all.recalls.values().collect::<BTreeSet<_>>().len(), all.recalls.len(), "recalled twice");
        assert!(all.msgs.windows(2).all(|pair| pair[0].timestamp <= pair[1].timestamp), "{name}: time");
        let mut texts = HashSet::new();
        for msg in all.msgs.iter().filter(|msg| msg.recall_index == 0) {
            assert!(texts.insert(&msg.msg), "{name}: {} is stored twice", msg.msg);
        }
        for msg in &all.msgs {
            assert_eq!(all.recalls.get(&msg.recall_index).copied().unwrap_or(msg.msg_index), msg.msg_index);
            assert_eq!(msg.recall_index != 0, msg.msg.is_empty(), "{name}: recalled texts are gone");
        }
        self.check_promises(name, all);
    }

    fn check_promises(&self, name: &str, all: &Page) {
        for ((_, msg_index), id) in of(&self.sent, name) {
            let msg = all.msgs.get(*msg_index as usize - 1);
            let msg = msg.unwrap_or_else(|| panic!("{name}: message {msg_index}, {id}, is lost"));
            assert!(
                msg.recall_index != 0 || msg.msg == text_of(id),
                "{name} {msg_index}: {} is not {id}",
                msg.msg
            );
        }
        for ((_, recall_index), msg_index) in of(&self.recalled, name) {
            assert_eq!(all.recalls.get(recall_index), Some(msg_index), "{name}: recall {recall_index}");
        }
        for ((_, msg_index), shown) in of(&self.seen, name) {
            assert!(*msg_index <= all.max_msg_index, "{name}: {shown:?} was shown and is gone");
        }
        for (at, msg_index) in of(&self.seen_recalls, name) {
            assert_eq!(all.recalls.get(&at.1), Some(msg_index), "{name}: a recall that was shown is gone");
        }
    }
}

fn of<'a, T>(
    map: &'a BTreeMap<(Name, u32), T>,
    name: &'a str,
) -> impl Iterator<Item = (&'a (Name, u32), &'a T)> {
    map.iter().filter(move |((at, _), _)| at == name)
}

fn chat_of<'a>(reader: &'a Client, name: &str) -> Chat<'a> {
    if name == GROUP { reader.group(name) } else { reader.with(name) }
}

/// Pulls what comes, conversation after conversation, until the server dies.
fn read(server: &TestServer, names: &[Name], ledger: &Mutex<Ledger>) {
    let reader = server.client(READER);
    loop {
        for name in names {
            let (msg, recall) = {
                let ledger = lock(ledger);
                (of(&ledger.seen, name).count() as u32 + 1, of(&ledger.seen_recalls, name).count() as u32 + 1)
            };
            let fields = json!({"direction": "after", "start_msg_index": msg, "start_recall_index": recall, "count": 50});
            let Ok(reply) = chat_of(&reader, name).try_call("pull", &fields) else { return };
            let page: Page = serde_json::from_value(reply.ok()).expect("a page");
            lock(ledger).see(name, &page);
        }
    }
}

/// One life: everybody works until so many calls were acknowledged; then the server is killed.
fn live(
    server: &mut TestServer,
    writers: &mut [Writer],
    names: &[Name],
    ledger: &Mutex<Ledger>,
    calls: usize,
) {
    std::thread::scope(|scope| {
        let (acknowledged, counted) = channel();
        let shared: &TestServer = server;
        for writer in writers.iter_mut() {
            let acknowledged = acknowledged.clone();
            scope.spawn(move || writer.live(shared, ledger, &acknowledged));
        }
        drop(acknowledged);
        scope.spawn(|| read(shared, names, ledger));
        for _ in 0..calls {
            if counted.recv_timeout(DEADLINE).is_err() {
                break;
            }
        }
        // Ends the writers and the reader too, whatever they were waiting for.
        shared.signal(rustix::process::Signal::KILL);
    });
    server.finish();
}

fn check(server: &TestServer, names: &[Name], ledger: &mut Ledger) {
    let reader = server.client(READER);
    let mut messages = 0;
    for name in names {
        let all = chat_of(&reader, name).everything();
        messages += u64::from(all.max_msg_index);
        ledger.check(name, &all);
    }
    assert_eq!(server.ready().messages, messages, "the ready line counts what can be read");
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// A server, those who write to it, and what they were promised.
struct Run {
    server: TestServer,
    writers: Vec<Writer>,
    names: Vec<Name>,
    ledger: Mutex<Ledger>,
    random: StdRng,
}

impl Run {
    fn begin(seed: u64) -> Self {
        let server = TestServer::start_with(&["--checkpoint-interval", "1s", "--checkpoint-bytes", "1MiB"]);
        let writers: Vec<_> = (0..WRITERS).map(|number| Writer::new(number, seed)).collect();
        let mut names: Vec<_> = writers.iter().map(|writer| writer.user.clone()).collect();
        let members: Vec<_> = names.iter().map(String::as_str).collect();
        server.client(READER).create_group(GROUP, &members);
        names.push(GROUP.to_owned());
        Self { server, writers, names, ledger: Mutex::default(), random: StdRng::seed_from_u64(seed) }
    }

    fn live_and_be_killed(&mut self) {
        let calls = self.random.random_range(1..600);
        live(&mut self.server, &mut self.writers, &self.names, &self.ledger, calls);
    }

    fn check(&self) {
        check(&self.server, &self.names, &mut lock(&self.ledger));
    }

    /// The outcomes that are still unknown become known, and change nothing that was promised.
    fn settle(&mut self) {
        for writer in &mut self.writers {
            if let Some(call) = writer.pending.take() {
                let answer = ask(&self.server.client(&writer.user), &call).expect("the server lives");
                writer.note(&call, &answer, &mut lock(&self.ledger));
            }
        }
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a failing run has to say how to repeat it")]
fn nothing_acknowledged_is_lost_and_nothing_seen_is_taken_back() {
    let lives = number_from("CHINWAG_KILL_LIVES").unwrap_or(5);
    let seed = number_from("CHINWAG_KILL_SEED").unwrap_or_else(rand::random);
    println!("repeat the choices with CHINWAG_KILL_SEED={seed} CHINWAG_KILL_LIVES={lives}");
    let mut run = Run::begin(seed);
    for _ in 0..lives {
        run.live_and_be_killed();
        run.server.start_again();
        run.check();
    }
    run.settle();
    run.server.stop();
    run.server.start_again();
    run.check();
}

/// The control: a server that had lost one life's writes would be found out.
#[test]
fn a_life_that_is_forgotten_is_noticed() {
    let mut run = Run::begin(1);
    run.live_and_be_killed();
    let before = run.server.copy_of_data();
    run.server.start_again();
    run.check();
    run.live_and_be_killed();
    run.server.replace_data(&before);
    run.server.start_again();
    let checked = std::panic::catch_unwind(AssertUnwindSafe(|| run.check()));
    assert!(checked.is_err(), "the check sees nothing");
}
