//! What a user may ask across conversations: the list, sync, read cursors, presence, live delivery.
//!
//! All of it is answered from the user's [`Inbox`], which is read on first need: from the packs' index
//! of people, and by asking the conversations of which that cannot be the last word. A conversation
//! that nobody touches is not touched here either, except for the newest message that a list shows.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::actor::Request;
use super::archive::people::{Row, Whereabouts};
use super::completion::Outcome;
use super::directory::Entered;
use super::{CALL_BYTES, Conversations, as_user, unexpected};
use crate::inbox::rows::{Cursor, Rows, Standing};
use crate::inbox::{Inbox, Inboxes};
use crate::live::Session;
use crate::message::{
    Address, Chat, ChatDelta, ChatsPage, ConversationKey, Direction, Last, MessageView, OwnedMessage,
    Position, Pull, Rejection, Sync, Synced, UserId,
};

/// Inboxes being read at a time: each takes a thread of the blocking pool for some reads of a file.
pub(super) const READS_MAX: usize = 16;
/// Conversations asked at a time by one call: enough to keep the log and the disk busy, far below the
/// permits of the node.
pub(super) const ASKED_AT_A_TIME: usize = 16;
/// Most conversations in the answer of one sync; the rest comes with the next.
const SYNCED_CHATS_MAX: usize = 100;

/// A session's place in its user's inbox; it gets no more events once this is dropped.
pub struct Attached {
    conversations: Conversations,
    inbox: Arc<Inbox>,
    session: Arc<Session>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.inbox.detach(&self.session, self.conversations.now_s());
    }
}

impl Conversations {
    /// A page of the caller's conversations, newest first, behind `cursor` (empty: from the newest).
    pub async fn list(&self, caller: &UserId, cursor: &str, count: u32) -> Result<ChatsPage, Rejection> {
        let cursor = match cursor {
            "" => None,
            text => Some(Cursor::parse(text).ok_or_else(foreign_cursor)?),
        };
        let inbox = self.inbox(caller).await?;
        let (rows, next, total_unread) = inbox.with_rows(|rows| {
            let (page, next) = rows.page(cursor, count as usize);
            (page, next, rows.total_unread())
        });
        // Most rows have their newest message at hand; only for the others is there something to wait for.
        let (mut chats, mut cold) = (Vec::with_capacity(rows.len()), Vec::new());
        for (key, standing, last) in rows {
            let chat = standing.to_chat(&key, &inbox.user);
            if last.is_none() && standing.messages > 0 {
                cold.push((chats.len(), key, standing, chat.at.clone()));
            }
            chats.push((chat, last));
        }
        let reading = cold.into_iter().map(|(place, key, standing, at)| {
            let inbox = &inbox;
            async move { (place, self.newest_message(inbox, &key, &standing, &at).await) }
        });
        let read: Vec<_> = stream::iter(reading).buffered(ASKED_AT_A_TIME).collect().await;
        for (place, last) in read {
            chats[place].1 = last?;
        }
        Ok(ChatsPage { chats, total_unread, cursor: next.map_or_else(String::new, Cursor::to_text) })
    }

    /// Reads the newest message of a row, and keeps it beside the row for the next list.
    async fn newest_message(
        &self,
        inbox: &Inbox,
        key: &ConversationKey,
        standing: &Standing,
        at: &Address,
    ) -> Result<Option<Last>, Rejection> {
        let page = match self.pull(&inbox.user, at, newest(standing.messages)).await {
            Ok(page) => page,
            // The others can be listed all the same.
            Err(why) if concerns_it_alone(&why) => return Ok(None),
            Err(why) => return Err(why),
        };
        let last = page.messages().next().map(|message| last_of(&message));
        if let Some(last) = &last {
            inbox.with_rows(|rows| rows.keep_last(key, standing.lsn, last.clone()));
        }
        Ok(last)
    }

    /// What moved past the caller's positions; with `sync.wait`, waits while that is nothing.
    pub async fn sync(&self, caller: &UserId, sync: Sync) -> Result<Synced, Rejection> {
        let deadline = Instant::now() + sync.wait;
        let mut draining = self.shared.draining.clone();
        loop {
            let inbox = self.inbox(caller).await?;
            let changed = inbox.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if inbox.is_closed() {
                continue;
            }
            let (moved, more) = inbox.with_rows(|rows| moved_past(&sync.positions, caller, rows));
            let over = Instant::now() >= deadline || *draining.borrow() || draining.has_changed().is_err();
            let chats = moved.into_iter().map(|moved| self.delta(caller, moved, sync.count));
            let chats: Vec<_> = stream::iter(chats).buffered(ASKED_AT_A_TIME).collect().await;
            let chats = chats.into_iter().collect::<Result<Vec<_>, _>>()?;
            let mut chats: Vec<_> = chats.into_iter().flatten().collect();
            if !chats.is_empty() || more || over {
                // The pages may be ahead of the rows by what has just become durable.
                self.shared.context.deliveries.caught_up().await;
                chats.iter_mut().for_each(|delta| refresh(&mut delta.chat, &inbox));
                return Ok(Synced { chats, more });
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(deadline) => {}
                _ = draining.wait_for(|draining| *draining) => {}
            }
        }
    }

    /// What a client lacks of one conversation; `None` when the caller has just left it, or it is refused because it
    /// is damaged: the others can be synced all the same.
    async fn delta(&self, caller: &UserId, moved: Moved, count: u32) -> Result<Option<ChatDelta>, Rejection> {
        let Moved { key, standing, from } = moved;
        let chat = standing.to_chat(&key, caller);
        let pull = match &from {
            Some(position) => Pull {
                direction: Direction::After,
                start_msg_index: position.msg_index.saturating_add(1),
                start_recall_index: position.recall_index.saturating_add(1),
                count,
                wait: std::time::Duration::ZERO,
            },
            None => newest(standing.messages),
        };
        let page = match self.pull(caller, &chat.at, pull).await {
            Ok(page) => page,
            Err(why) if concerns_it_alone(&why) => return Ok(None),
            Err(why) => return Err(why),
        };
        let last_message = page.messages().last().map_or(u32::MAX, |message| message.msg_index);
        let last_recall = page.recalls.last().map_or(u32::MAX, |(recall_index, _)| *recall_index);
        let more =
            from.is_some() && (last_message < page.max_msg_index || last_recall < page.max_recall_index);
        let chat = Chat { msg_index: page.max_msg_index, recall_index: page.max_recall_index, ..chat };
        Ok(Some(ChatDelta { chat, page, more }))
    }

    /// The read cursors of everybody in a conversation.
    pub async fn acks(&self, caller: &UserId, at: &Address) -> Result<Vec<(UserId, u32)>, Rejection> {
        let Some(entered) = self.enter(caller, at)? else { return Ok(Vec::new()) };
        match self.call(entered, &as_user(caller), Request::Acks).await? {
            Outcome::Cursors(cursors) => Ok(cursors),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells everybody who is connected and in the conversation; nothing is stored. `data` is JSON.
    /// In a direct conversation that has not begun nobody hears it: strangers are not reached.
    pub async fn signal(
        &self,
        caller: &UserId,
        at: &Address,
        kind: &str,
        data: &str,
    ) -> Result<(), Rejection> {
        let Some(entered) = self.enter(caller, at)? else { return Ok(()) };
        let request = Request::Signal { kind: kind.into(), data: data.into() };
        self.change(entered, &as_user(caller), request).await
    }

    /// Who of `users` is connected, as far as the caller shares a conversation with them; of others
    /// it is not said.
    pub async fn online(&self, caller: &UserId, users: &[UserId]) -> Result<Vec<bool>, Rejection> {
        let inbox = self.inbox(caller).await?;
        // Made once, for the first who is connected and no partner: it may be long.
        let groups = LazyCell::new(|| inbox.with_rows(|rows| groups_of(rows.keys())));
        Ok(users.iter().map(|user| self.is_online_for(&inbox, || &groups, user)).collect())
    }

    fn is_online_for<'a>(
        &self,
        inbox: &Inbox,
        groups: impl FnOnce() -> &'a HashSet<Arc<ConversationKey>>,
        user: &UserId,
    ) -> bool {
        let Some(other) = self.inboxes().get(user.as_str()).filter(|other| other.is_online()) else {
            return false;
        };
        if other.user == inbox.user {
            return true;
        }
        let pair = ConversationKey::direct(inbox.user.clone(), user.clone());
        // For who is blocked, nobody who blocks them is there.
        if other.with_rows(|rows| rows.get(&pair).is_some_and(|standing| standing.blocks)) {
            return false;
        }
        if inbox.with_rows(|rows| rows.get(&pair).is_some_and(|standing| standing.is_listed(&pair))) {
            return true;
        }
        // Before the other's rows are looked at: one inbox is locked at a time.
        let groups = groups();
        other.with_rows(|rows| groups.iter().any(|group| rows.get(group).is_some()))
    }

    /// Gives `session` every event of the user's conversations from here on. Also answers where each
    /// conversation stands, newest first, at most `count`: the session's first event of a
    /// conversation is the next one behind that.
    pub async fn attach(
        &self,
        user: &UserId,
        session: Arc<Session>,
        count: usize,
    ) -> Result<(Attached, Vec<Chat>), Rejection> {
        loop {
            let inbox = self.inbox(user).await?;
            let look = |rows: &mut Rows| {
                let newest = rows.newest_first().take(count);
                newest.map(|(key, standing)| standing.to_chat(key, user)).collect()
            };
            match inbox.attach(&session, look) {
                Ok(chats) => {
                    let conversations = self.clone();
                    return Ok((Attached { conversations, inbox, session }, chats));
                }
                // It went out of memory in this moment.
                Err(_) if inbox.is_closed() => {}
                Err(why) => return Err(why),
            }
        }
    }

    fn inboxes(&self) -> &Inboxes {
        &self.shared.context.inboxes
    }

    fn now_s(&self) -> u32 {
        self.shared.admission.now_s()
    }

    /// The caller's inbox, with everything in it that anybody may have been told of.
    pub(super) async fn inbox(&self, user: &UserId) -> Result<Arc<Inbox>, Rejection> {
        let (inbox, is_new) = self.inboxes().enter(user, self.now_s());
        if is_new {
            // Others may wait for it: it is read also when this caller goes away.
            let (conversations, inbox) = (self.clone(), inbox.clone());
            tokio::spawn(async move { conversations.read(inbox).await });
        }
        inbox.is_read().await?;
        self.shared.context.deliveries.caught_up().await;
        self.ask_unknown(&inbox).await;
        Ok(inbox)
    }

    async fn read(&self, inbox: Arc<Inbox>) {
        // A bug in here must not leave those who wait for it waiting.
        let read = AssertUnwindSafe(self.try_to_read(&inbox)).catch_unwind().await;
        let panicked = || Err(Rejection::Broken(format!("reading the inbox of {} panicked", inbox.user)));
        if let Err(why) = read.unwrap_or_else(|_| panicked()) {
            self.inboxes().give_up(&inbox, why);
        }
    }

    /// Reads an inbox. It is in the directory of inboxes already: every conversation that comes into
    /// memory from now on finds it there, so that only those have to be asked that are there now.
    async fn try_to_read(&self, inbox: &Arc<Inbox>) -> Result<(), Rejection> {
        let _turn = self.shared.reading.acquire().await.map_err(|_| Rejection::Draining)?;
        let candidates = self.candidates(&inbox.user).await?;
        let mut at_rest = Vec::new();
        let mut to_ask = Vec::new();
        for (key, standing) in candidates {
            match standing.filter(|standing| self.is_last_word(&key, standing)) {
                Some(standing) => at_rest.push((key, standing)),
                None => to_ask.push(key),
            }
        }
        let asked = to_ask.into_iter().map(|key| self.ask_standing(inbox, key));
        let answers: Vec<_> = stream::iter(asked).buffer_unordered(ASKED_AT_A_TIME).collect().await;
        let mut unknown = Vec::new();
        for (key, answer) in answers {
            match answer {
                Ok(standing) => at_rest.extend(standing.map(|standing| (key, standing))),
                Err(Rejection::Quarantined) => unknown.push(key),
                Err(why) => return Err(why),
            }
        }
        let put = |rows: &mut Rows| {
            at_rest.into_iter().for_each(|(key, standing)| rows.put(key, standing));
        };
        inbox.open(put, unknown);
        Ok(())
    }

    /// Every conversation that the user may be in, with where it stands as far as the packs say.
    async fn candidates(
        &self,
        user: &UserId,
    ) -> Result<HashMap<Arc<ConversationKey>, Option<Standing>>, Rejection> {
        let (context, of) = (self.shared.context.clone(), user.clone());
        let read = tokio::task::spawn_blocking(move || {
            // What leaves the tail is among the newcomers by then, and what leaves these is in the packs.
            let tail = context.archive.tail_conversations_of(&of);
            let newcomers = context.newcomers.of(&of);
            context.archive.people_of(&of).map(|rows| (tail, newcomers, rows))
        });
        let (tail, newcomers, rows) = match read.await {
            Ok(Ok(found)) => found,
            Ok(Err(why)) => {
                tracing::error!(%user, %why, "the conversations of a user cannot be read from disk");
                return Err(Rejection::Quarantined);
            }
            Err(why) => return Err(Rejection::Broken(format!("reading an inbox: {why}"))),
        };
        let (reading, blocking): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.readable_from > 0);
        let mut candidates: HashMap<_, _> =
            reading.into_iter().map(|row| (Arc::new(row.key.clone()), standing_of(&row))).collect();
        for row in blocking {
            let standing = candidates.entry(Arc::new(row.key.clone()));
            let standing = standing.or_insert_with(|| Some(standing_of_unbegun(&row)));
            standing.iter_mut().for_each(|standing| standing.blocks = true);
        }
        for key in newcomers.into_iter().chain(tail.into_iter().map(Arc::new)) {
            candidates.insert(key, None);
        }
        Ok(candidates)
    }

    /// Whether a conversation stands where the packs say: it is not in memory, and nothing happened to
    /// it since that was read.
    fn is_last_word(&self, key: &ConversationKey, standing: &Standing) -> bool {
        let at_rest = Whereabouts::InPacks { applied_lsn: standing.lsn };
        let is_resident = || self.shared.directory.is_resident(key);
        // Looked at twice: one that came into memory between took what the tail had of it along.
        !is_resident() && self.shared.context.archive.place_of(key) == at_rest && !is_resident()
    }

    /// Asks a conversation where it stands for the inbox's user, which hears of it from then on.
    async fn ask_standing(
        &self,
        inbox: &Arc<Inbox>,
        key: Arc<ConversationKey>,
    ) -> (Arc<ConversationKey>, Result<Option<Standing>, Rejection>) {
        let answer = match self.enter_existing(&key, CALL_BYTES) {
            Ok(Some(entered)) => self.join(entered, inbox).await,
            Ok(None) => Ok(None),
            Err(why) => Err(why),
        };
        (key, answer)
    }

    async fn join(&self, entered: Entered, inbox: &Arc<Inbox>) -> Result<Option<Standing>, Rejection> {
        match self.call(entered, &as_user(&inbox.user), Request::Join(inbox.clone())).await? {
            Outcome::Standing(standing) => Ok(standing.map(|standing| *standing)),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks what could not be asked before, or waits for whoever does.
    async fn ask_unknown(&self, inbox: &Arc<Inbox>) {
        if !inbox.has_unknown() {
            return;
        }
        // Carried out also when this caller goes away: what is being asked is nobody else's to ask.
        let (conversations, inbox) = (self.clone(), inbox.clone());
        let asking = tokio::spawn(async move {
            let _turn = inbox.turn_to_ask().await;
            let asked = inbox.begin_asking().into_iter().map(|key| conversations.ask_standing(&inbox, key));
            let answers: Vec<_> = stream::iter(asked).buffer_unordered(ASKED_AT_A_TIME).collect().await;
            // The sessions have everything up to where the conversations say they stand.
            conversations.shared.context.deliveries.caught_up().await;
            answers.into_iter().for_each(|(key, answer)| inbox.settle(key, answer.map_err(|_| ())));
        });
        // A panic leaves them unasked; the next look tries again.
        let _ = asking.await;
    }
}

/// A conversation that a client has to hear of.
struct Moved {
    key: Arc<ConversationKey>,
    standing: Standing,
    /// How far the client has it; `None` if it does not know it.
    from: Option<Position>,
}

/// The conversations that are not where the client has them, newest first; and whether there are more
/// than fit an answer.
fn moved_past(positions: &[Position], caller: &UserId, rows: &mut Rows) -> (Vec<Moved>, bool) {
    let known: HashMap<ConversationKey, &Position> =
        positions.iter().map(|position| (ConversationKey::of(caller, &position.at), position)).collect();
    let mut all = rows.newest_first().filter_map(|(key, standing)| {
        let from = known.get(&**key).copied();
        let stands = (standing.messages, standing.recalls);
        // A client ahead of us saw history that a restore took back: the epoch tells it.
        let has_moved = from.is_none_or(|has| (has.msg_index, has.recall_index) != stands);
        has_moved.then(|| Moved { key: key.clone(), standing: standing.clone(), from: from.cloned() })
    });
    let moved: Vec<_> = all.by_ref().take(SYNCED_CHATS_MAX).collect();
    let more = all.next().is_some();
    (moved, more)
}

/// The read cursor and what is unread, as they are now.
fn refresh(chat: &mut Chat, inbox: &Inbox) {
    let key = ConversationKey::of(&inbox.user, &chat.at);
    if let Some(now) = inbox.with_rows(|rows| rows.get(&key).cloned()) {
        (chat.ack_index, chat.unread) = (now.read_cursor, now.unread);
    }
}

/// The row of the packs as a standing; `None` where the packs cannot say it exactly.
fn standing_of(row: &Row) -> Option<Standing> {
    let says_when = row.newest_message_ns != 0;
    let nothing_recalled =
        row.recalls == 0 || (row.greatest_recalled != 0 && row.greatest_recalled <= row.read_cursor);
    (says_when && nothing_recalled).then(|| Standing {
        lsn: row.applied_lsn,
        messages: row.messages,
        recalls: row.recalls,
        read_cursor: row.read_cursor,
        unread: row.messages.saturating_sub(row.read_cursor),
        timestamp_ns: row.newest_message_ns,
        blocks: false,
    })
}

/// The same of a pair in which nothing was sent.
fn standing_of_unbegun(row: &Row) -> Standing {
    let (messages, recalls, read_cursor, unread, timestamp_ns, blocks) = (0, 0, 0, 0, 0, false);
    Standing { lsn: row.applied_lsn, messages, recalls, read_cursor, unread, timestamp_ns, blocks }
}

fn groups_of<'a>(keys: impl Iterator<Item = &'a Arc<ConversationKey>>) -> HashSet<Arc<ConversationKey>> {
    keys.filter(|key| matches!(***key, ConversationKey::Group(_))).cloned().collect()
}

fn newest(msg_index: u32) -> Pull {
    Pull {
        direction: Direction::Before,
        start_msg_index: msg_index,
        start_recall_index: 0,
        count: 1,
        wait: std::time::Duration::ZERO,
    }
}

fn last_of(message: &MessageView<'_>) -> Last {
    let owned = OwnedMessage {
        msg_index: message.msg_index,
        sender: UserId::parse(message.sender).expect("a page names users"),
        timestamp_ns: message.timestamp_ns,
        msg: message.msg.into(),
        extra: message.extra.into(),
    };
    Last { message: Arc::new(owned), recall_index: message.recall_index }
}

/// Whether only this conversation cannot be shown: it is damaged or cannot be read, or its user left it a moment ago.
fn concerns_it_alone(why: &Rejection) -> bool {
    use Rejection::{CannotRead, Forbidden, NoSuchGroup, Quarantined};
    matches!(why, Quarantined | CannotRead | Forbidden(_) | NoSuchGroup)
}

pub(super) fn foreign_cursor() -> Rejection {
    Rejection::Invalid("cursor: not one this server gave".into())
}
