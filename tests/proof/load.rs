//! Clients that talk at random, follow the server over its deaths, and write down what they are told.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::client::{Answer, Client};
use crate::ledger::Ledger;
use crate::server::Server;
use crate::world::{USERS, tokens};

const PULL_COUNT: u32 = 50;

/// How the clients talk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) seed: u64,
    /// Longest text, in bytes.
    pub(crate) text_bytes: usize,
}

/// Where the server is now.
#[derive(Default)]
struct Whereabouts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    server: Option<SocketAddr>,
    /// Counts the servers.
    generation: u64,
    stopped: bool,
}

/// Running clients.
pub(crate) struct Load {
    whereabouts: Arc<Whereabouts>,
    threads: Vec<JoinHandle<()>>,
    unavailable: Arc<AtomicU64>,
}

impl Load {
    pub(crate) fn start(server: &Server, ledger: &Arc<Ledger>, talk: Talk) -> Self {
        let whereabouts = Arc::new(Whereabouts::default());
        let unavailable = Arc::new(AtomicU64::new(0));
        let tokens = tokens(server);
        let talker = |user| Talker {
            user,
            token: tokens[&user].clone(),
            random: StdRng::seed_from_u64(talk.seed.wrapping_add(user as u64)),
            text_bytes: talk.text_bytes,
            ledger: ledger.clone(),
            client: Client::new(server.public(), tokens[&user].clone()),
            unanswered: None,
            said: 0,
            life: talk.seed,
            unavailable: unavailable.clone(),
        };
        let threads = (0..USERS).map(|user| {
            let (mut talker, whereabouts) = (talker(user), whereabouts.clone());
            std::thread::spawn(move || talker.run(&whereabouts))
        });
        let load = Self { threads: threads.collect(), whereabouts, unavailable };
        load.follow(server);
        load
    }

    /// The server is here now.
    pub(crate) fn follow(&self, server: &Server) {
        let mut state = self.whereabouts.state.lock().expect("no panics under it");
        state.server = Some(server.public());
        state.generation += 1;
        self.whereabouts.changed.notify_all();
    }

    /// How often somebody heard 503.
    pub(crate) fn unavailable(&self) -> u64 {
        self.unavailable.load(Ordering::Relaxed)
    }

    /// Ends the clients once they have their answers.
    pub(crate) fn stop(self) {
        self.whereabouts.state.lock().expect("no panics under it").stopped = true;
        self.whereabouts.changed.notify_all();
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client does not panic"));
    }
}

impl Whereabouts {
    /// Waits for a server later than `lost`; `None` when it is over.
    fn wait(&self, lost: u64) -> Option<(SocketAddr, u64)> {
        let state = self.state.lock().expect("no panics under it");
        let waiting = |state: &mut State| !state.stopped && state.generation <= lost;
        let state = self.changed.wait_while(state, waiting).expect("no panics under it");
        if state.stopped { None } else { Some((state.server?, state.generation)) }
    }

    /// Does nothing for a moment.
    fn pause(&self, time: Duration) {
        let state = self.state.lock().expect("no panics under it");
        let paused = self.changed.wait_timeout_while(state, time, |state| !state.stopped);
        drop(paused.expect("no panics under it"));
    }
}

/// One user.
struct Talker {
    user: usize,
    token: String,
    random: StdRng,
    text_bytes: usize,
    ledger: Arc<Ledger>,
    client: Client,
    /// A send without an answer, to be tried again with its `client_msg_id`.
    unanswered: Option<(usize, String)>,
    said: u64,
    /// Makes texts of one load differ from those of another.
    life: u64,
    unavailable: Arc<AtomicU64>,
}

impl Talker {
    fn run(&mut self, whereabouts: &Whereabouts) {
        let (mut lost, mut here) = (0, 0);
        while let Some((address, generation)) = whereabouts.wait(lost) {
            if generation != here {
                self.client = Client::new(address, self.token.clone());
                here = generation;
            }
            match self.step() {
                Ok(503) => {
                    self.unavailable.fetch_add(1, Ordering::Relaxed);
                    whereabouts.pause(Duration::from_millis(10));
                }
                Ok(_) => {}
                Err(_) => lost = here,
            }
        }
    }

    /// One call; gives the status.
    fn step(&mut self) -> io::Result<u16> {
        if let Some((room, text)) = self.unanswered.take() {
            return self.send(room, text);
        }
        let room = self.any_room();
        match self.random.random_range(0..100) {
            0..55 => {
                let text = self.new_text();
                self.send(room, text)
            }
            55..65 => self.recall(room),
            65..75 => self.ack(room),
            _ => self.pull(room),
        }
    }

    fn any_room(&mut self) -> usize {
        loop {
            let room = self.random.random_range(0..self.ledger.rooms.len());
            if self.ledger.rooms[room].has(self.user) {
                return room;
            }
        }
    }

    fn new_text(&mut self) -> String {
        self.said += 1;
        let text = format!("{:x}-{}-{} ", self.life, self.user, self.said);
        let bytes = self.random.random_range(0..=self.text_bytes);
        text.chars().chain(std::iter::repeat('.')).take(text.len().max(bytes)).collect()
    }

    fn call(&mut self, verb: &str, room: usize, fields: serde_json::Value) -> io::Result<Answer> {
        let body = self.ledger.rooms[room].request(self.user, fields);
        self.client.call(&format!("/im.chat/{verb}"), &body)
    }

    fn send(&mut self, room: usize, text: String) -> io::Result<u16> {
        self.ledger.begin_send(room, self.user, &text);
        let client_msg_id = text.split(' ').next();
        let answer = self.call("send", room, json!({"msg": text, "client_msg_id": client_msg_id}));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.unanswered = Some((room, text));
                return Err(error);
            }
        };
        match answer.status {
            200 => self.ledger.sent(room, &text, answer.number("msg_index")),
            503 => {
                // Of a log that fails under a send nobody knows what it has kept; all else kept nothing.
                if !answer.says("the log has failed") {
                    self.ledger.refused(room, &text);
                }
                self.unanswered = Some((room, text));
            }
            _ => self.ledger.violation(room, format!("a send: {answer:?}")),
        }
        Ok(answer.status)
    }

    /// Any message that is known to be there, one's own if `own`.
    fn any_message(&mut self, room: usize, own: bool) -> Option<u32> {
        let known = self.ledger.known(room);
        let newest = known.newest();
        let index = self.random.random_range(1..=newest.max(1));
        let near = (index..=newest).take(20);
        near.into_iter().find(|index| {
            known.messages.contains_key(index) && (!own || known.sender_of(*index) == Some(self.user))
        })
    }

    fn recall(&mut self, room: usize) -> io::Result<u16> {
        let Some(index) = self.any_message(room, true) else { return Ok(200) };
        self.ledger.begin_recall(room, index);
        let answer = self.call("recall", room, json!({"msg_index": index}))?;
        match answer.status {
            200 => self.ledger.recalled(room, index, answer.number("recall_index")),
            503 => {}
            _ => self.ledger.violation(room, format!("a recall of {index}: {answer:?}")),
        }
        Ok(answer.status)
    }

    fn ack(&mut self, room: usize) -> io::Result<u16> {
        let Some(index) = self.any_message(room, false) else { return Ok(200) };
        let answer = self.call("ack", room, json!({"msg_index": index}))?;
        match answer.status {
            200 => self.ledger.acked(room, self.user, index),
            503 => {}
            _ => self.ledger.violation(room, format!("an ack of {index}: {answer:?}")),
        }
        Ok(answer.status)
    }

    fn pull(&mut self, room: usize) -> io::Result<u16> {
        let newest = self.ledger.known(room).newest();
        let start = self.random.random_range(newest.saturating_sub(70)..=newest) + 1;
        let floor = self.ledger.floor(room);
        let fields = json!({
            "direction": "after", "start_msg_index": start, "start_recall_index": start, "count": PULL_COUNT,
        });
        let answer = self.call("pull", room, fields)?;
        match answer.status {
            200 => self.ledger.shown(room, &floor, start, PULL_COUNT, &answer.body),
            503 => {}
            _ => self.ledger.violation(room, format!("a pull: {answer:?}")),
        }
        Ok(answer.status)
    }
}
