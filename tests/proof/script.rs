//! One life with everything in it, always the same: first start, groups, sends, recalls, acks, rotations of the log,
//! checkpoints, a compaction, a drain. Proofs break it at every point.

use std::io;
use std::path::Path;

use serde_json::json;

use crate::client::{self, Client};
use crate::ledger::Ledger;
use crate::server::{Server, Settings};
use crate::world::{Room, clients, found_group};
use crate::{PATIENCE, until};

/// Enough log for a checkpoint.
const ROUNDS_PER_CHECKPOINT: usize = 13;
/// Behind the third one the first pack is never larger than the others together, which makes a compaction due.
const CHECKPOINTS: u64 = 3;
/// Three of them in a round; 64 KiB is the most a body may have.
const TEXT_BYTES: usize = 30_000;

pub(crate) fn rooms() -> Vec<Room> {
    vec![Room::Direct(0, 1), Room::Direct(2, 3), Room::Group(0)]
}

/// Small segments, and checkpoints as soon as the least log is there.
pub(crate) fn settings(data: &Path) -> Settings {
    Settings::new(data).with("segment-bytes", "512KiB").with("checkpoint-bytes", "1MiB")
}

/// Plays the life up to the drain; an error is the death of the server.
pub(crate) fn play(server: &Server, ledger: &Ledger, data: &Path) -> io::Result<()> {
    let mut cast = Cast { ledger, clients: clients(server), said: 0, life: server.id() };
    cast.found_group()?;
    for checkpoint in 1..=CHECKPOINTS {
        for _ in 0..ROUNDS_PER_CHECKPOINT {
            cast.round()?;
        }
        wait_for_checkpoint(server, checkpoint)?;
    }
    wait_for_compaction(server, data)?;
    cast.round()
}

struct Cast<'a> {
    ledger: &'a Ledger,
    clients: Vec<Client>,
    said: usize,
    /// Makes the texts of one life differ from those of another.
    life: u32,
}

impl Cast<'_> {
    fn found_group(&mut self) -> io::Result<()> {
        let room =
            self.ledger.rooms.iter().position(|room| *room == Room::Group(0)).expect("it is one of ours");
        if found_group(&mut self.clients[0], 0)? {
            self.ledger.known(room).is_founded = true;
            return Ok(());
        }
        Err(io::Error::other("refused"))
    }

    /// A large text in every room, then a small one, a recall, an ack and a look.
    fn round(&mut self) -> io::Result<()> {
        for room in 0..self.ledger.rooms.len() {
            let speaker = self.ledger.rooms[room].reader();
            self.send(room, speaker, TEXT_BYTES)?;
        }
        let room = self.said % self.ledger.rooms.len();
        let speaker = self.ledger.rooms[room].reader();
        let index = self.send(room, speaker, 20)?;
        self.recall(room, speaker, index)?;
        self.ack(room, speaker + 1, index)?;
        self.pull(room, speaker)
    }

    fn call(
        &mut self,
        room: usize,
        user: usize,
        verb: &str,
        fields: serde_json::Value,
    ) -> io::Result<client::Answer> {
        let body = self.ledger.rooms[room].request(user, fields);
        let path = format!("/im.chat/{verb}");
        let client = &mut self.clients[user];
        let answer = until(PATIENCE, "room in the log", || match client.call(&path, &body) {
            // The next segment is not ready yet; unless the log has failed, it soon will be.
            Ok(answer) if answer.status == 503 && !answer.says("the log has failed") => None,
            answered => Some(answered),
        })?;
        match answer.status {
            200 => Ok(answer),
            503 => Err(io::Error::other("the log has failed")),
            _ => {
                self.ledger.violation(room, format!("{verb}: {answer:?}"));
                Err(io::Error::other("a wrong answer"))
            }
        }
    }

    fn send(&mut self, room: usize, user: usize, bytes: usize) -> io::Result<u32> {
        self.said += 1;
        let id = format!("{}-{}", self.life, self.said);
        let text: String = format!("{id} ").chars().chain(std::iter::repeat('.')).take(bytes).collect();
        self.ledger.begin_send(room, user, &text);
        let answer = self.call(room, user, "send", json!({"msg": text, "client_msg_id": id}))?;
        let index = answer.number("msg_index");
        self.ledger.sent(room, &text, index);
        Ok(index)
    }

    fn recall(&mut self, room: usize, user: usize, index: u32) -> io::Result<()> {
        self.ledger.begin_recall(room, index);
        let answer = self.call(room, user, "recall", json!({"msg_index": index}))?;
        self.ledger.recalled(room, index, answer.number("recall_index"));
        Ok(())
    }

    fn ack(&mut self, room: usize, user: usize, index: u32) -> io::Result<()> {
        self.call(room, user, "ack", json!({"msg_index": index}))?;
        self.ledger.acked(room, user, index);
        Ok(())
    }

    fn pull(&mut self, room: usize, user: usize) -> io::Result<()> {
        let floor = self.ledger.floor(room);
        let fields =
            json!({"direction": "after", "start_msg_index": 1, "start_recall_index": 1, "count": 50});
        let answer = self.call(room, user, "pull", fields)?;
        self.ledger.shown(room, &floor, 1, 50, &answer.body);
        Ok(())
    }
}

fn wait_for_checkpoint(server: &Server, number: u64) -> io::Result<()> {
    wait(server, "a checkpoint", |metrics| checkpoints(metrics) >= number)
}

/// A checkpoint takes a number for its pack and one for its manifest; every number beyond is a compaction's.
fn wait_for_compaction(server: &Server, data: &Path) -> io::Result<()> {
    wait(server, "a compaction", |metrics| {
        let names = std::fs::read_dir(data.join("snap")).into_iter().flatten().flatten();
        let manifests = names.filter_map(|name| {
            let name = name.file_name().into_string().ok()?;
            name.strip_suffix(".manifest")?.parse::<u64>().ok()
        });
        manifests.max().is_some_and(|newest| newest > 2 * checkpoints(metrics))
    })
}

fn checkpoints(metrics: &str) -> u64 {
    let taken =
        metrics.lines().find_map(|line| line.strip_prefix("chinwag_checkpoints_total{result=\"ok\"} "));
    taken.and_then(|taken| taken.parse().ok()).unwrap_or(0)
}

fn wait(server: &Server, what: &str, mut done: impl FnMut(&str) -> bool) -> io::Result<()> {
    until(PATIENCE, what, || match client::get(server.ops(), "/metrics") {
        Ok((_, metrics)) => done(&metrics).then_some(Ok(())),
        Err(dead) => Some(Err(dead)),
    })
}
