//! Filling gaps: what a stream does not bring is pulled, until a conversation is where it is said to be.

use std::time::Duration;

use super::Progress;
use super::reader::{Reader, Stop};
use crate::client::api::Page;
use crate::client::error::Error;
use crate::client::event::{Begin, Event};
use crate::client::reading::{Reading, Verdict};
use crate::message::{Address, Direction, Position, Pull};

/// Messages, and recalls, of one pull: the most that the server gives.
const PAGE: u32 = 50;
/// Conversations of one page of a list: the most that the server gives.
const LIST_PAGE: u32 = 200;
/// Pages of one walk through the list: a million conversations.
const LIST_PAGES_MAX: usize = 5000;

impl Reader {
    /// Looks through the whole list for what moved: more did than an event can name.
    pub(super) async fn walk_list(&mut self) -> Result<(), Stop> {
        let mut cursor = String::new();
        for _ in 0..LIST_PAGES_MAX {
            let page = self.client.list(&cursor, LIST_PAGE).await?;
            for (chat, _) in page.chats {
                let (msg_index, recall_index) = (chat.msg_index, chat.recall_index);
                let end = Position { at: chat.at, msg_index, recall_index };
                if self.stands(&end).await?.is_some() {
                    self.catch_up(&end.at, (&end).into(), None, false).await?;
                }
            }
            if page.cursor.is_empty() {
                return Ok(());
            }
            cursor = page.cursor;
        }
        Ok(())
    }

    /// Reads a conversation up to `goal`, first the messages and then the recalls. Without a position
    /// it begins at the message `from`, or at the newest. `look`: also if it seems to be there.
    pub(super) async fn catch_up(
        &mut self,
        at: &Address,
        mut goal: Reading,
        from: Option<u32>,
        mut look: bool,
    ) -> Result<(), Stop> {
        loop {
            let Some(reading) = self.readings.chats.get(at).copied() else {
                let Some(newest) = self.begin_chat(at, from).await? else { return Ok(()) };
                goal.raise(newest);
                continue;
            };
            if reading.has(goal) && !look {
                return Ok(());
            }
            let pull = pull_for(reading, goal, look);
            look = false;
            let Some(page) = self.pull(at, &pull).await? else { return Ok(()) };
            let end = Reading { msg_index: page.max_msg_index, recall_index: page.max_recall_index };
            if !end.has(reading) {
                let first = match self.begin {
                    Begin::Newest => Reading { msg_index: end.msg_index.saturating_sub(1), ..end },
                    Begin::Oldest => Reading::default(),
                };
                self.readings.chats.insert(at.clone(), first);
                let event = Event::Reset { at: Some(at.clone()) };
                self.deliver(event, Progress::Read(at.clone(), first)).await?;
                goal = end;
                continue;
            }
            let ahead = self.read_page(at, reading, page).await?;
            goal.raise(Reading { msg_index: ahead, recall_index: 0 });
            if ahead == 0 && self.readings.chats.get(at) == Some(&reading) {
                // The server has nothing there: whoever said so was wrong, and asking again would not end.
                return Ok(());
            }
        }
    }

    /// Gives a conversation without a position its beginning. Everything up to the newest message of
    /// this moment is then pulled, so that it is read as it is after the recalls that are skipped.
    async fn begin_chat(&mut self, at: &Address, from: Option<u32>) -> Result<Option<Reading>, Stop> {
        if self.begins_with_first() {
            return self.begin_chat_at(at, Reading::default()).await.map(Some);
        }
        let newest = Pull {
            direction: Direction::Before,
            start_msg_index: u32::MAX,
            start_recall_index: 0,
            count: 1,
            wait: Duration::ZERO,
        };
        let Some(page) = self.pull(at, &newest).await? else { return Ok(None) };
        let first = from.unwrap_or(u32::MAX).min(page.max_msg_index.max(1));
        let reading = Reading { msg_index: first - 1, recall_index: page.max_recall_index };
        self.begin_chat_at(at, reading).await?;
        Ok(Some(Reading { msg_index: page.max_msg_index, recall_index: page.max_recall_index }))
    }

    /// A page, unless the server refuses this conversation.
    async fn pull(&mut self, at: &Address, pull: &Pull) -> Result<Option<Page>, Stop> {
        match self.client.pull(at, pull).await {
            // A restore needs a restart, and the next hello tells of it.
            Ok(page) if self.readings.epoch.is_some_and(|epoch| epoch != page.epoch) => {
                Err(Error::no_answer("history has changed").into())
            }
            Ok(page) => Ok(Some(page)),
            Err(error @ Error::Refused { .. }) if !error.is_unauthenticated() => {
                let event = Event::Problem { at: at.clone(), why: error.to_string() };
                self.deliver(event, Progress::None).await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Delivers what is the next in a page, and what is behind that. What comes back is the message
    /// that has to be read before a recall of it; 0: none.
    async fn read_page(&mut self, at: &Address, mut reading: Reading, page: Page) -> Result<u32, Stop> {
        reading.begin_at(page.min_msg_index.min(page.max_msg_index.saturating_add(1)));
        self.readings.chats.insert(at.clone(), reading);
        for message in page.msgs {
            if reading.message(message.msg_index) == Verdict::Next {
                self.readings.chats.insert(at.clone(), reading);
                self.deliver_message(at.clone(), message).await?;
            }
        }
        for (recall_index, msg_index) in page.recalls {
            match reading.recall(recall_index, msg_index) {
                Verdict::Next => {
                    self.readings.chats.insert(at.clone(), reading);
                    self.deliver_recall(at.clone(), msg_index, recall_index, String::new()).await?;
                }
                Verdict::Known => {}
                Verdict::Gap if msg_index > reading.msg_index => return Ok(msg_index),
                Verdict::Gap => break,
            }
        }
        Ok(0)
    }
}

fn pull_for(reading: Reading, goal: Reading, look: bool) -> Pull {
    let is_messages = look || reading.msg_index < goal.msg_index;
    Pull {
        direction: Direction::After,
        start_msg_index: if is_messages { reading.msg_index.saturating_add(1) } else { 0 },
        start_recall_index: if is_messages { 0 } else { reading.recall_index.saturating_add(1) },
        count: PAGE,
        wait: Duration::ZERO,
    }
}
