//! Pages: what a pull sees of what is durable, as far as its user may read.
//!
//! Which rows a page has is counted in [`shown`](crate::conversation::shown). Promises that a recall shows once it is
//! durable, not before.

use super::{Durable, Found, State};
use crate::conversation::old::{Missing, Old};
use crate::conversation::shown::View;
use crate::message::{Direction, MessageView, Page, Placed, Pull, Rejection, UserId};

/// What a pull would get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pulled {
    Page(Page),
    /// Ask again with these messages, which are not in memory.
    Needs(Missing),
}

impl State {
    /// What a pull sees of what is durable, as far as the user may read.
    pub(crate) fn view(&self, user: &UserId, pull: &Pull, durable: Durable) -> Result<View, Rejection> {
        let readable_from = self.admit(user)?.map_or(1, |membership| membership.readable_from);
        Ok(View::of(pull, readable_from.max(self.history.kept_from()), durable))
    }

    /// The page of it. `epoch` is left to the caller.
    pub(crate) fn page(&self, view: &View, old: &Old) -> Result<Pulled, Rejection> {
        let View { shown, oldest, durable } = *view;
        let (first, last) = shown.messages;
        if let Some(missing) = self.missing(first..=last, old) {
            return Ok(Pulled::Needs(missing));
        }
        let mut page = Page::new(durable.messages, durable.recalls, oldest);
        if first > self.history.newest_old() {
            self.copy_messages(&mut page, first, last, durable)?;
        } else {
            (first..=last).try_for_each(|index| self.push_message(&mut page, index, old, durable))?;
        }
        if shown.direction == Direction::Before {
            page.reverse();
        }
        for index in view.recall_indices() {
            let msg_index = self.history.recalled_by(index).expect("a durable recall is in the history");
            page.recalls.push((index, msg_index));
        }
        Ok(Pulled::Page(page))
    }

    /// Both at once.
    #[cfg(test)]
    pub(crate) fn pull(
        &self,
        user: &UserId,
        pull: &Pull,
        old: &Old,
        durable: Durable,
    ) -> Result<Pulled, Rejection> {
        self.page(&self.view(user, pull, durable)?, old)
    }

    /// Those of the messages that are neither in memory nor in what was read.
    fn missing(&self, indices: impl Iterator<Item = u32>, old: &Old) -> Option<Missing> {
        let newest_old = self.history.newest_old();
        let missing = indices.filter(|index| *index <= newest_old && old.message(*index).is_none());
        missing.fold(None, |span, index| match span {
            None => Some(Missing(index..=index)),
            Some(Missing(span)) => Some(Missing(index.min(*span.start())..=index.max(*span.end()))),
        })
    }

    /// Puts messages that are in memory into a page, their texts in as few pieces as they stand in.
    fn copy_messages(
        &self,
        page: &mut Page,
        first: u32,
        last: u32,
        durable: Durable,
    ) -> Result<(), Rejection> {
        if first > last {
            return Ok(());
        }
        let text_bytes = self.history.parts(first, last).map(|part| part.text.len()).sum();
        page.reserve((last + 1 - first) as usize, text_bytes);
        // Mostly few people talk, and often one of them for a while.
        let mut known = None;
        for part in self.history.parts(first, last) {
            let base = page.add_text(part.text);
            for (message, erased) in part.messages() {
                let sender = match known {
                    Some((participant, number)) if participant == message.sender => number,
                    _ => page.sender_number(self.participant(message.sender)?),
                };
                known = Some((message.sender, sender));
                page.place(shown(message, erased, base, sender, durable));
            }
        }
        Ok(())
    }

    fn push_message(
        &self,
        page: &mut Page,
        msg_index: u32,
        old: &Old,
        durable: Durable,
    ) -> Result<(), Rejection> {
        let Found::Message(message) = self.find(msg_index, old) else {
            return Err(Rejection::Broken(format!("{} lacks message {msg_index}", self.key)));
        };
        let sender = self.participant(message.sender)?;
        let recalled = is_recalled(message.recall_index, message.erased, durable);
        let (msg, extra) = if recalled { ("", "") } else { (message.msg, message.extra) };
        let view = MessageView {
            msg_index,
            recall_index: if recalled { message.recall_index } else { 0 },
            msg,
            extra,
            timestamp_ns: message.timestamp_ns,
            sender: sender.as_str(),
        };
        page.push(sender, view);
        Ok(())
    }
}

/// Whether a message is shown as recalled. A recall that a crash could still take back must not be
/// shown: until it is durable, the message is as it was. But a text that is gone already was taken by
/// one that is durable.
fn is_recalled(recall_index: u32, erased: bool, durable: Durable) -> bool {
    recall_index != 0 && (recall_index <= durable.recalls || erased)
}

/// A message as a page shows it whose texts begin at `base`.
fn shown(message: Placed, erased: bool, base: u32, sender: u32, durable: Durable) -> Placed {
    let Placed { msg_from, extra_from, to, .. } = message;
    match is_recalled(message.recall_index, erased, durable) {
        true => Placed { sender, msg_from: base, extra_from: base, to: base, ..message },
        false => Placed {
            sender,
            recall_index: 0,
            msg_from: base + msg_from,
            extra_from: base + extra_from,
            to: base + to,
            ..message
        },
    }
}
