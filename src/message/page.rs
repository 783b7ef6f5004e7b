//! A page of history: what a pull answers.
//!
//! Texts stand one behind the other, as they stood where they were kept, so that a page is copied in a
//! few large pieces; a row says where each message is in them. A page may hold bytes that no row
//! shows. Nothing here decides who may read what.

use super::UserId;

/// One message of a [`Page`]. `msg` and `extra` are empty once it is recalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageView<'a> {
    /// Dense per conversation, from 1.
    pub msg_index: u32,
    /// The recall that took it back; 0 for none.
    pub recall_index: u32,
    /// The text.
    pub msg: &'a str,
    /// What the app attached.
    pub extra: &'a str,
    /// Unix time in nanoseconds.
    pub timestamp_ns: u64,
    /// Who sent it.
    pub sender: &'a str,
}

/// A page of durable history: what a pull answers.
#[derive(Debug, Clone, Default)]
pub struct Page {
    rows: Vec<Placed>,
    /// The texts of all rows; 32 bits reach, because a page has few messages and each is bounded.
    text: String,
    /// Everybody whom a row names, once.
    senders: Vec<UserId>,
    /// `(recall_index, msg_index)`, in the order of the pull.
    pub recalls: Vec<(u32, u32)>,
    /// Newest durable message; 0 when there is none.
    pub max_msg_index: u32,
    /// Newest durable recall; 0 when there is none.
    pub max_recall_index: u32,
    /// Oldest message the caller may read; 1 in a conversation that keeps everything.
    pub min_msg_index: u32,
    /// Changes only when a restore took history back.
    pub epoch: u32,
}

/// One message and the place of its texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) timestamp_ns: u64,
    pub(crate) msg_index: u32,
    pub(crate) recall_index: u32,
    /// Place in the list of senders.
    pub(crate) sender: u32,
    /// Where `msg` begins.
    pub(crate) msg_from: u32,
    /// Where `msg` ends and `extra` begins.
    pub(crate) extra_from: u32,
    /// Where `extra` ends.
    pub(crate) to: u32,
}

impl Page {
    /// A page without messages and recalls. The epoch is 0 until somebody sets it.
    pub fn new(max_msg_index: u32, max_recall_index: u32, min_msg_index: u32) -> Self {
        Self { max_msg_index, max_recall_index, min_msg_index, ..Self::default() }
    }

    /// Makes room for so many messages with so many bytes of text together.
    pub(crate) fn reserve(&mut self, messages: usize, text_bytes: usize) {
        self.rows.reserve(messages);
        self.text.reserve(text_bytes);
    }

    /// Adds a message behind the ones already there.
    pub fn push(&mut self, sender: &UserId, message: MessageView<'_>) {
        let sender = self.sender_number(sender);
        let msg_from = self.add_text(message.msg);
        let extra_from = self.add_text(message.extra);
        self.place(Placed {
            timestamp_ns: message.timestamp_ns,
            msg_index: message.msg_index,
            recall_index: message.recall_index,
            sender,
            msg_from,
            extra_from,
            to: self.text.len() as u32,
        });
    }

    /// Adds texts; where they begin.
    pub(crate) fn add_text(&mut self, text: &str) -> u32 {
        let from = self.text.len() as u32;
        self.text.push_str(text);
        from
    }

    /// Adds a message whose texts are there already.
    pub(crate) fn place(&mut self, message: Placed) {
        self.rows.push(message);
    }

    /// The place of a sender in the list of senders, where they are put if they are new.
    pub(crate) fn sender_number(&mut self, sender: &UserId) -> u32 {
        let known = self.senders.iter().position(|known| known == sender);
        known.unwrap_or_else(|| {
            self.senders.push(sender.clone());
            self.senders.len() - 1
        }) as u32
    }

    /// Turns the order of the messages round.
    pub(crate) fn reverse(&mut self) {
        self.rows.reverse();
    }

    /// The messages, in the order of the pull.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = MessageView<'_>> {
        self.numbered().map(|(message, _)| message)
    }

    /// The messages, each with the place of its sender in the list of senders.
    pub(crate) fn numbered(&self) -> impl ExactSizeIterator<Item = (MessageView<'_>, usize)> {
        self.rows.iter().map(|row| {
            let message = MessageView {
                msg_index: row.msg_index,
                recall_index: row.recall_index,
                msg: &self.text[row.msg_from as usize..row.extra_from as usize],
                extra: &self.text[row.extra_from as usize..row.to as usize],
                timestamp_ns: row.timestamp_ns,
                sender: self.senders[row.sender as usize].as_str(),
            };
            (message, row.sender as usize)
        })
    }

    /// Everybody whom a message of the page names.
    pub(crate) fn senders(&self) -> &[UserId] {
        &self.senders
    }

    /// Whether there is neither a message nor a recall in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.recalls.is_empty()
    }

    /// At least the bytes of text that it shows, to size a reply.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }
}

/// Two pages are the same when they show the same.
impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        let rest = |page: &Self| {
            (page.max_msg_index, page.max_recall_index, page.min_msg_index, page.epoch, page.recalls.clone())
        };
        self.messages().eq(other.messages()) && rest(self) == rest(other)
    }
}

impl Eq for Page {}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("a valid id")
    }

    fn view<'a>(msg_index: u32, msg: &'a str, extra: &'a str, sender: &'a str) -> MessageView<'a> {
        MessageView { msg_index, recall_index: 0, msg, extra, timestamp_ns: 7, sender }
    }

    #[test]
    fn a_page_gives_back_what_was_pushed() {
        let mut page = Page::default();
        let views =
            [view(1, "hello", "", "alice"), view(2, "", "x", "bob"), view(3, "three", "extra", "alice")];
        views.iter().for_each(|view| page.push(&user(view.sender), *view));
        assert_eq!(page.messages().collect::<Vec<_>>(), views);
        assert_eq!(page.senders(), [user("alice"), user("bob")]);
        page.reverse();
        assert_eq!(page.messages().collect::<Vec<_>>(), [views[2], views[1], views[0]]);
    }

    #[test]
    fn pages_are_the_same_that_show_the_same() {
        let mut pushed = Page::default();
        pushed.push(&user("bob"), view(1, "shown", "", "bob"));
        let mut placed = Page::default();
        placed.sender_number(&user("alice"));
        let sender = placed.sender_number(&user("bob"));
        placed.add_text("hidden");
        let msg_from = placed.add_text("shown");
        let to = msg_from + 5;
        placed.place(Placed {
            timestamp_ns: 7,
            msg_index: 1,
            recall_index: 0,
            sender,
            msg_from,
            extra_from: to,
            to,
        });
        assert_eq!(pushed, placed);
        placed.max_msg_index = 1;
        assert_ne!(pushed, placed);
    }
}
