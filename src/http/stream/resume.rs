//! `resume`: what a client missed up to the moment its stream began, as the events it would have got.
//!
//! What comes live is exactly what is behind `hello`, so the replay ends where `hello` says that each
//! conversation stood, and history and live events meet without a hole or a repeat. The connection
//! holds live events back until the replay is over; they wait in the session, within its limits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{HELLO_CHATS_MAX, Start, event, frame};
use crate::config::limits::PULL_COUNT_MAX;
use crate::http::edge::Edge;
use crate::http::failure::{Failure, Verdict};
use crate::http::json::text;
use crate::http::reply::target_json;
use crate::http::reply::{addressed, field, list};
use crate::message::{Address, Caller, Direction, Page, Position, Pull, Rejection};

/// Most messages, and most recalls, of one conversation that are replayed: a few screens. Who missed
/// more is told where to pull to, and pulls what it shows.
pub(super) const REPLAY_MAX: u32 = 1000;

/// Frames of a replay.
pub(super) struct Replayed {
    pub(super) frames: Bytes,
    pub(super) events: usize,
}

/// What came of a resume.
pub(super) struct Resumed {
    resumed: usize,
    errors: Vec<(Address, Verdict)>,
}

impl Resumed {
    /// Appends `{"resumed":n,"errors":[..]}`.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        field(out, b"{\"resumed\":", self.resumed as u64);
        out.extend_from_slice(b",\"errors\":[");
        list(out, &self.errors, |out, (at, verdict)| {
            out.push(b'{');
            target_json(out, at);
            field(out, b",\"code\":", verdict.code);
            out.extend_from_slice(b",\"msg\":");
            text(out, &verdict.msg);
            out.push(b'}');
        });
        out.extend_from_slice(b"]}");
    }
}

/// Replays conversation after conversation into `frames`, which the connection writes as the client
/// reads.
pub(super) async fn replay(
    edge: Arc<Edge>,
    caller: Arc<Caller>,
    start: Arc<Start>,
    positions: Vec<Position>,
    frames: mpsc::Sender<Replayed>,
) -> Resumed {
    let ends: HashMap<&Address, (u32, u32)> =
        start.chats.iter().map(|(at, msg_index, recall_index)| (at, (*msg_index, *recall_index))).collect();
    let replay = Replay { edge: &edge, caller: &caller, frames };
    let mut resumed = Resumed { resumed: 0, errors: Vec::new() };
    let mut replayed = HashSet::new();
    for position in positions {
        // Named twice is replayed once: one small frame must not ask for the same thousand messages many times.
        if !replayed.insert(position.at.clone()) {
            continue;
        }
        let end = ends.get(&position.at).copied();
        let outcome = match end {
            Some(end) => replay.chat(&position, end).await,
            None if start.is_whole => replay.check(&position).await,
            None => Err(not_in_hello()),
        };
        match outcome {
            Ok(()) => resumed.resumed += 1,
            Err(why) => resumed.errors.push((position.at, Failure::Rejected(why).verdict())),
        }
    }
    resumed
}

fn not_in_hello() -> Rejection {
    Rejection::Invalid(format!("not among the newest {HELLO_CHATS_MAX} conversations of hello: pull it"))
}

struct Replay<'a> {
    edge: &'a Edge,
    caller: &'a Caller,
    frames: mpsc::Sender<Replayed>,
}

impl Replay<'_> {
    /// First the messages, then the recalls, so that what is recalled is known.
    async fn chat(&self, position: &Position, (msg_end, recall_end): (u32, u32)) -> Result<(), Rejection> {
        let missed = msg_end.saturating_sub(position.msg_index);
        let missed_recalls = recall_end.saturating_sub(position.recall_index);
        if missed.max(missed_recalls) > REPLAY_MAX {
            self.check(position).await?;
            self.behind(&position.at, msg_end, recall_end).await;
            return Ok(());
        }
        if missed == 0 && missed_recalls == 0 {
            return self.check(position).await;
        }
        self.messages(position, msg_end).await?;
        self.recalls(position, recall_end).await
    }

    /// Whether the client may read there at all.
    async fn check(&self, position: &Position) -> Result<(), Rejection> {
        self.pull(&position.at, position.msg_index.saturating_add(1), 0, 1).await.map(|_| ())
    }

    async fn messages(&self, position: &Position, end: u32) -> Result<(), Rejection> {
        let mut next = position.msg_index.saturating_add(1);
        while next <= end {
            let page = self.pull(&position.at, next, 0, end - next + 1).await?;
            if page.min_msg_index > next {
                // What the client may not read is no hole to it.
                next = page.min_msg_index.min(end.saturating_add(1));
                self.behind(&position.at, next - 1, position.recall_index).await;
            }
            let rows = page.messages().take_while(|message| message.msg_index <= end);
            let Some(last) = rows.map(|message| message.msg_index).last() else { break };
            self.write_messages(&page, &position.at, end).await;
            next = last + 1;
        }
        Ok(())
    }

    async fn write_messages(&self, page: &Page, at: &Address, end: u32) {
        let addressed = addressed(at);
        let frames: Vec<_> = page
            .messages()
            .take_while(|message| message.msg_index <= end)
            .map(|message| {
                let bytes = 320 + message.msg.len() + message.extra.len();
                frame::text(bytes, |out| event::message_event(out, &message, at, &addressed))
            })
            .collect();
        self.write(&frames).await;
    }

    /// History does not keep who took a message back.
    async fn recalls(&self, position: &Position, end: u32) -> Result<(), Rejection> {
        let mut next = position.recall_index.saturating_add(1);
        while next <= end {
            let page = self.pull(&position.at, 0, next, end - next + 1).await?;
            let rows = page.recalls.iter().take_while(|(recall_index, _)| *recall_index <= end);
            let frames: Vec<_> = rows
                .map(|(recall_index, msg_index)| {
                    next = recall_index + 1;
                    frame::text(160, |out| {
                        event::recall_event(out, *msg_index, *recall_index, "", &position.at);
                    })
                })
                .collect();
            if frames.is_empty() {
                break;
            }
            self.write(&frames).await;
        }
        Ok(())
    }

    async fn pull(&self, at: &Address, msg: u32, recall: u32, count: u32) -> Result<Page, Rejection> {
        let pull = Pull {
            direction: Direction::After,
            start_msg_index: msg,
            start_recall_index: recall,
            count: count.min(PULL_COUNT_MAX),
            wait: Duration::ZERO,
        };
        self.edge.conversations.pull(&self.caller.user, at, pull).await
    }

    async fn behind(&self, at: &Address, msg_index: u32, recall_index: u32) {
        self.write(&[event::behind_list(&[(at.clone(), msg_index, recall_index)])]).await;
    }

    async fn write(&self, frames: &[Bytes]) {
        let replayed = Replayed { frames: frames.concat().into(), events: frames.len() };
        // The connection is gone if nobody takes it, and this future with it.
        let _ = self.frames.send(replayed).await;
    }
}
