//! The audience: who of a conversation is looking, and what they get to hear of a record.
//!
//! Owned by the conversation's actor, so it changes in the order of the conversation: whoever comes in
//! hears of it and of everything behind it, whoever is put out hears that and nothing further. A
//! conversation in which nobody looks pays one look at an empty list per record.

use std::collections::HashSet;
use std::sync::Arc;

use super::actor::Context;
use super::completion::News;
use super::group;
use super::record::{GroupChange, GroupV1, Record, RelationChange, RelationV1, SendV1};
use super::state::State;
use crate::inbox::delivery::Listeners;
use crate::inbox::newcomers::Newcomers;
use crate::inbox::{Inbox, Inboxes};
use crate::live::{Content, Event, GroupAction};
use crate::message::{ConversationKey, Duty, OwnedMessage, UserId};

mod apart;
mod crowd;

/// Who is looking at one conversation.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    listeners: Listeners,
    /// Who will be once the record at hand is accepted.
    next: Option<Listeners>,
}

impl Audience {
    /// Those in the conversation whose inbox is in memory. An inbox that is made after this look asks
    /// the conversation itself, which is in the directory by then.
    pub(crate) fn find(inboxes: &Inboxes, state: &State) -> Self {
        if inboxes.is_empty() {
            return Self::default();
        }
        let mut found: Vec<Arc<Inbox>> = Vec::new();
        let mut look = |user: &UserId| found.extend(inboxes.get(user.as_str()));
        match &*state.key {
            ConversationKey::Direct(first, second) => {
                look(first);
                if first != second {
                    look(second);
                }
            }
            ConversationKey::Group(_) => {
                state.participants.members().for_each(|(_, row, _)| look(&row.user));
            }
        }
        Self { listeners: found.into(), next: None }
    }

    /// Who is looking now.
    pub(crate) fn listeners(&self) -> Listeners {
        self.listeners.clone()
    }

    /// The inbox hears from here on. Those that closed unnoticed go.
    pub(crate) fn join(&mut self, inbox: Arc<Inbox>) {
        let others = self.listeners.iter().filter(|other| !other.is_closed() && !Arc::ptr_eq(other, &inbox));
        let others = others.cloned();
        self.listeners = match inbox.is_closed() {
            true => others.collect(),
            false => others.chain([inbox.clone()]).collect(),
        };
    }

    /// The inbox is closed; with it go those that closed unnoticed.
    pub(crate) fn part(&mut self, closed: &Arc<Inbox>) {
        let stays = |inbox: &&Arc<Inbox>| !Arc::ptr_eq(inbox, closed) && !inbox.is_closed();
        self.listeners = self.listeners.iter().filter(stays).cloned().collect();
    }

    /// What the record that `state` is about to take over means for those who look; `None` when
    /// nobody does. Also notes who comes in with it.
    pub(crate) fn prepare(
        &mut self,
        context: &Context,
        state: &State,
        record: &Record<'_>,
    ) -> Option<Box<News>> {
        self.next = None;
        let listeners = match record {
            Record::Send(_) if !state.has_begun() => {
                // Noted before the look, as below: who began to look since the actor started could not
                // join what had not begun.
                note_everybody(&context.newcomers, state);
                let all = Self::find(&context.inboxes, state).listeners;
                self.next = Some(all.clone());
                all
            }
            Record::Group(change) => self.regroup(context, state, change),
            Record::Relation(change) => self.relate(context, state, change),
            _ => self.listeners.clone(),
        };
        if listeners.is_empty() {
            return None;
        }
        let news = News { listeners, events: events_of(state, record), apart: Vec::new() };
        Some(Box::new(match record {
            Record::Group(change) if apart::is_needed(change) => apart::tell(state, change, news),
            _ => news,
        }))
    }

    /// Who hears of a change of the group; who looks behind it is kept for [`settle`](Self::settle).
    fn regroup(&mut self, context: &Context, state: &State, change: &GroupV1<'_>) -> Listeners {
        match change.change() {
            Ok(GroupChange::Create | GroupChange::Add) => {
                let ids = change.users.iter().filter_map(|id| UserId::parse(id).ok());
                let users: Vec<UserId> = ids.collect();
                // Noted before the look: an inbox that is made meanwhile finds one or the other.
                context.newcomers.note(&users, &state.key);
                let came = users.iter().filter_map(|user| context.inboxes.get(user.as_str()));
                let all: Listeners = self.listeners.iter().cloned().chain(came).collect();
                self.next = Some(all.clone());
                all
            }
            Ok(GroupChange::Kick | GroupChange::Leave) => {
                let out: HashSet<&str> = change.users.iter().copied().collect();
                let stays = |inbox: &&Arc<Inbox>| !out.contains(inbox.user.as_str());
                self.next = Some(self.listeners.iter().filter(stays).cloned().collect());
                self.listeners.clone()
            }
            Ok(GroupChange::Dismiss) => {
                self.next = Some(Listeners::default());
                self.listeners.clone()
            }
            Ok(GroupChange::Duty | GroupChange::Rename | GroupChange::Mute) | Err(_) => {
                self.listeners.clone()
            }
        }
    }

    /// Only who blocks hears of it; from here on they look, also at a pair that has not begun.
    fn relate(&mut self, context: &Context, state: &State, change: &RelationV1<'_>) -> Listeners {
        let by = id(state, change.by);
        // Noted before the look, as above.
        context.newcomers.note([&by], &state.key);
        let Some(inbox) = context.inboxes.get(by.as_str()) else { return Listeners::default() };
        let others = self.listeners.iter().filter(|other| !Arc::ptr_eq(other, &inbox)).cloned();
        self.next = Some(others.chain([inbox.clone()]).collect());
        [inbox].into()
    }

    /// The record was accepted.
    pub(crate) fn settle(&mut self) {
        if let Some(next) = self.next.take() {
            self.listeners = next;
        }
    }
}

/// Everybody in the conversation is in it, and no pack may know it yet.
pub(super) fn note_everybody(newcomers: &Newcomers, state: &State) {
    match &*state.key {
        ConversationKey::Direct(first, second) => {
            let other = (first != second).then_some(second);
            newcomers.note([first].into_iter().chain(other), &state.key);
        }
        ConversationKey::Group(_) => {
            newcomers.note(state.participants.members().map(|(_, row, _)| &row.user), &state.key);
        }
    }
}

fn events_of(state: &State, record: &Record<'_>) -> Vec<Arc<Event>> {
    let (messages, recalls) = (state.history.newest_message(), state.history.newest_recall());
    let event =
        |messages, recalls, content| Arc::new(Event::new(state.key.clone(), messages, recalls, content));
    match record {
        Record::Send(send) => vec![event(send.msg_index, recalls, message_of(state, send))],
        Record::Recall(recall) => {
            let (msg_index, recall_index) = (recall.msg_index, recall.recall_index);
            let content = Content::Recall { msg_index, recall_index, by: id(state, recall.by) };
            vec![event(messages, recall_index, content)]
        }
        Record::Ack(ack) => {
            let unread = state.unread_behind(ack.msg_index);
            let content = Content::Ack { user: id(state, ack.user), msg_index: ack.msg_index, unread };
            vec![event(messages, recalls, content)]
        }
        Record::Relation(change) => {
            let blocks = matches!(change.change(), Ok(RelationChange::Block));
            vec![event(messages, recalls, Content::Block { user: id(state, change.by), blocks })]
        }
        Record::Group(change) => group_contents(state, change)
            .into_iter()
            .map(|content| event(messages, recalls, content))
            .collect(),
    }
}

fn message_of(state: &State, send: &SendV1<'_>) -> Content {
    Content::Message(Arc::new(OwnedMessage {
        msg_index: send.msg_index,
        sender: id(state, send.sender),
        timestamp_ns: send.timestamp_ns,
        msg: send.msg.into(),
        extra: send.extra.into(),
    }))
}

/// One for each user that the change is about, or one for a crowd of them; the first of a new group is its owner. What is
/// about the group itself is about whoever did it. Where somebody inherits the group with it, one more says so.
fn group_contents(state: &State, change: &GroupV1<'_>) -> Vec<Content> {
    let newest_message_ns = newest_message_ns(state, change);
    let by = id(state, change.by);
    let mut crowd = crowd::content_of(state, change);
    let is_crowd = crowd.is_some();
    let content = |(user, action)| match action {
        // In the place of the first of them.
        GroupAction::Create | GroupAction::Add | GroupAction::Kick if is_crowd => crowd.take(),
        action => Some(Content::Group { action, user, by: by.clone(), newest_message_ns }),
    };
    group_actions(state, change).into_iter().filter_map(content).collect()
}

fn newest_message_ns(state: &State, change: &GroupV1<'_>) -> u64 {
    state.newest_message_ns().unwrap_or(change.timestamp_ns)
}

fn group_actions(state: &State, change: &GroupV1<'_>) -> Vec<(UserId, GroupAction)> {
    let Ok(kind) = change.change() else { return Vec::new() };
    let of_each = |action: fn(usize) -> GroupAction| -> Vec<_> {
        let users = change.users.iter().enumerate();
        users.map(|(number, user)| (id(state, user), action(number))).collect()
    };
    let of_group = |action| vec![(id(state, change.by), action)];
    match kind {
        GroupChange::Create => {
            of_each(|number| if number == 0 { GroupAction::Create } else { GroupAction::Add })
        }
        GroupChange::Add => {
            let came = of_each(|_| GroupAction::Add);
            came.into_iter().chain(heir_action(state, change)).collect()
        }
        // Who goes hears of that last.
        GroupChange::Kick => heir_action(state, change).chain(of_each(|_| GroupAction::Kick)).collect(),
        GroupChange::Leave => heir_action(state, change).chain(of_each(|_| GroupAction::Leave)).collect(),
        GroupChange::Duty => duty_actions(state, change),
        GroupChange::Rename => of_group(GroupAction::Rename(change.name.into())),
        GroupChange::Mute => {
            let until_s = change.until_s;
            change.users.iter().map(|user| (id(state, user), GroupAction::Mute { until_s })).collect()
        }
        GroupChange::Dismiss => of_group(GroupAction::Dismiss),
    }
}

/// Who gives the group to somebody else becomes an admin of it.
fn duty_actions(state: &State, change: &GroupV1<'_>) -> Vec<(UserId, GroupAction)> {
    let Some(duty) = Duty::from_number(change.duty) else { return Vec::new() };
    let before = if duty == Duty::Owner { group::owner_of(state) } else { None };
    let before = before.map(|owner| (owner, GroupAction::Duty(Duty::Admin)));
    let users = change.users.iter().map(|user| (id(state, user), GroupAction::Duty(duty)));
    users.chain(before).collect()
}

/// Who inherits the group.
fn heir_action(state: &State, change: &GroupV1<'_>) -> impl Iterator<Item = (UserId, GroupAction)> + use<> {
    group::heir_of(state, change).map(|heir| (heir, GroupAction::Duty(Duty::Owner))).into_iter()
}

/// An id of a record that is about to be accepted: the rules have seen it.
fn id(state: &State, id: &str) -> UserId {
    state.user(id).expect("records name users whose ids were checked")
}
