//! The admin calls: orders of an operator, on the operations address, with an admin token.
//!
//! Bodies and replies are JSON. An order may take minutes, so it runs on a thread of its own, one at a time, and to
//! its end also when nobody waits for the answer any more. What an order does is the node's business. Other calls are
//! answered beside them: `token`, `drain`, `members`, `stats`, `feed`.

pub mod stats;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use self::drain::Draining;
pub use self::stats::Stats;
use super::body;
use super::credentials::LastCaller;
use super::exchange::{check_host, now_s};
use super::failure::Failure;
use super::feed;
use super::response::Answer;
use crate::auth::{LocalKey, Verifier};
use crate::conversation::Conversations;
use crate::conversation::feed::Feed;
use crate::message::{Caller, Rejection};

mod drain;
mod members;
mod token;

/// What every path here begins with.
pub(super) const PREFIX: &str = "/im.admin/";

/// Largest body, in bytes: a path of the longest kind, escaped.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// How long a body may take; it is one packet.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What was backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BackedUp {
    /// How many files.
    pub files: u64,
    /// How many of them are a second name of the server's own.
    pub linked: u64,
    /// How much was written, in bytes.
    pub bytes: u64,
    /// The newest record in the backup.
    pub last_lsn: u64,
}

/// Takes a checkpoint; `true`: and merges all packs. An error is for the log.
pub type SnapshotOrder = Box<dyn Fn(bool) -> Result<(), String> + Send + Sync>;
/// Makes a backup in this directory.
pub type BackupOrder = Box<dyn Fn(&Path) -> Result<BackedUp, Rejection> + Send + Sync>;

/// Reads the figures of the node.
pub type StatsOrder = Box<dyn Fn() -> Stats + Send + Sync>;

/// What can be ordered. Each blocks until it is done.
pub struct Orders {
    /// See [`SnapshotOrder`].
    pub snapshot: SnapshotOrder,
    /// See [`BackupOrder`].
    pub backup: BackupOrder,
    /// See [`StatsOrder`].
    pub stats: StatsOrder,
}

/// Begins the drain of the node, and does not wait for it. Ordered again, it changes nothing.
pub type DrainOrder = Box<dyn Fn() + Send + Sync>;

/// What the calls work with that are no orders.
pub struct Means {
    /// Signs tokens.
    pub key: Arc<LocalKey>,
    /// Has the members of groups.
    pub conversations: Conversations,
    /// Reads the log.
    pub feed: Feed,
    /// See [`DrainOrder`].
    pub drain: DrainOrder,
    /// Becomes true when the node drains.
    pub draining: watch::Receiver<bool>,
}

/// Answers the admin calls.
pub struct Admin {
    verifier: Arc<Verifier>,
    orders: Arc<Orders>,
    key: Arc<LocalKey>,
    conversations: Conversations,
    /// Takes no turn, and is bounded by itself.
    feed: Feed,
    draining: Draining,
    bodies: body::Reader,
    /// One order at a time: two would only share the disk.
    turn: Arc<Semaphore>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupBody {
    to: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotBody {
    #[serde(default)]
    compact: bool,
}

/// Of a call without settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

impl Admin {
    /// Carries out `orders`, and answers the other calls by `means`, for whoever has an admin token.
    pub fn new(verifier: Arc<Verifier>, orders: Orders, means: Means) -> Self {
        let bodies = body::Reader::new(BODY_BYTES_MAX, BODY_TIMEOUT);
        let Means { key, conversations, feed, drain, draining } = means;
        let draining = Draining::new(drain, draining);
        let (orders, turn) = (Arc::new(orders), Arc::new(Semaphore::new(1)));
        Self { verifier, orders, key, conversations, feed, draining, bodies, turn }
    }

    /// Answers a request; `has_unread` is set when its body was not read.
    pub(super) async fn answer(&self, request: Request<Incoming>, has_unread: &AtomicBool) -> Answer {
        let (head, mut body) = request.into_parts();
        let admitted = match self.admit(&head) {
            Ok(caller) => self.bodies.read(&mut body).await.map(|body| (caller, body)),
            Err(failure) if self.bodies.discard(body).await => return Answer::failure(failure),
            Err(failure) => Err(failure),
        };
        match admitted {
            Ok((caller, body)) => {
                let answer = self.carry_out(head.uri.path(), &caller, &body.bytes).await;
                answer.unwrap_or_else(Answer::failure)
            }
            Err(failure) => {
                has_unread.store(true, Ordering::Relaxed);
                Answer::failure(failure).closing()
            }
        }
    }

    fn admit(&self, head: &Parts) -> Result<Caller, Failure> {
        check_host(head.version, &head.headers)?;
        let caller = LastCaller::default().identify(&head.headers, &self.verifier, now_s());
        let caller = caller.map_err(Failure::Unauthenticated)?;
        if !caller.admin {
            return Err(Failure::Rejected(Rejection::Forbidden("this takes an admin token")));
        }
        match head.method {
            Method::POST => Ok(caller),
            _ => Err(Failure::WrongMethod { allow: "POST" }),
        }
    }

    async fn carry_out(&self, path: &str, caller: &Caller, body: &[u8]) -> Result<Answer, Failure> {
        match path.strip_prefix(PREFIX) {
            Some("backup") => {
                let BackupBody { to } = parse(body)?;
                if !to.is_absolute() {
                    return Err(invalid("to: must be an absolute path on the server's machine"));
                }
                self.run(move |orders| (orders.backup)(&to)).await
            }
            Some("snapshot") => {
                let SnapshotBody { compact } = parse(body)?;
                self.run(move |orders| {
                    (orders.snapshot)(compact).map_err(Rejection::Broken)?;
                    Ok(serde_json::Map::new())
                })
                .await
            }
            Some("token") => token::sign(&self.key, caller, body, now_s()),
            Some("drain") => {
                let EmptyBody {} = parse(body)?;
                self.draining.begin(caller).await;
                json(&serde_json::Map::new())
            }
            Some("members") => {
                self.draining.refuse()?;
                members::page(&self.conversations, caller, body).await
            }
            Some("stats") => {
                let EmptyBody {} = parse(body)?;
                stats::answer(self.orders.clone()).await
            }
            Some("feed") => feed::answer(&self.feed, body).await,
            _ => Err(Failure::UnknownPath),
        }
    }

    /// Runs an order to its end. Its turn ends with it, not with whoever waits.
    async fn run<T: Serialize + Send + 'static>(
        &self,
        order: impl FnOnce(&Orders) -> Result<T, Rejection> + Send + 'static,
    ) -> Result<Answer, Failure> {
        let Ok(turn) = self.turn.clone().try_acquire_owned() else {
            return Err(Failure::Rejected(Rejection::Overloaded));
        };
        let orders = self.orders.clone();
        let running = tokio::task::spawn_blocking(move || {
            let outcome = order(&orders);
            drop(turn);
            outcome
        });
        json(&running.await.map_err(|why| broken(&why))?.map_err(Failure::Rejected)?)
    }
}

fn json<T: Serialize>(reply: &T) -> Result<Answer, Failure> {
    let json = serde_json::to_vec(reply).map_err(|why| broken(&why))?;
    Ok(Answer::text(StatusCode::OK, "application/json", json))
}

/// Something of ours broke.
pub(super) fn broken(why: &dyn std::fmt::Display) -> Failure {
    Failure::Rejected(Rejection::Broken(why.to_string()))
}

/// An empty body is an order without settings.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    let body: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|why| invalid(&why.to_string()))
}

fn invalid(why: &str) -> Failure {
    Failure::Rejected(Rejection::Invalid(why.to_owned()))
}
