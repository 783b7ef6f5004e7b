//! Crowds: changes of a group that are about so many users that not everybody hears of each.
//!
//! Everybody who looks hears how many came or were put out, and each of those who look hears of themselves:
//! so a change costs as much as there are listeners and users, and not one by the other.

use super::{id, newest_message_ns};
use crate::conversation::record::{GroupChange, GroupV1};
use crate::conversation::state::State;
use crate::live::{Content, Event, GroupAction};
use crate::message::UserId;

/// Users of one change of whom everybody hears one by one: more than an app shows by name, and sixteen such changes
/// fit into the queue of a connection, which has room for 1,024 events.
const TOLD_EACH_MAX: usize = 64;

/// How a crowd comes or goes with the change; `None` when everybody is told of each user.
pub(super) fn action_of(change: &GroupV1<'_>) -> Option<GroupAction> {
    let action = match change.change() {
        Ok(GroupChange::Create | GroupChange::Add) => GroupAction::Add,
        Ok(GroupChange::Kick) => GroupAction::Kick,
        _ => return None,
    };
    (change.users.len() > TOLD_EACH_MAX).then_some(action)
}

/// What everybody hears of a crowd. Who creates a group is not one of those who are added.
pub(super) fn content_of(state: &State, change: &GroupV1<'_>) -> Option<Content> {
    let action = action_of(change)?;
    let is_new = matches!(change.change(), Ok(GroupChange::Create));
    let count = change.users.len() - usize::from(is_new);
    Some(Content::Crowd { action, count, by: id(state, change.by) })
}

/// What one of a crowd hears of themselves in place of `event`, by which everybody hears of the crowd.
pub(super) fn own_of(user: &UserId, state: &State, change: &GroupV1<'_>, event: &Event) -> Option<Event> {
    let Content::Crowd { action, by, .. } = &event.content else { return None };
    let content = Content::Group {
        action: action_for(user, change, action),
        user: user.clone(),
        by: by.clone(),
        newest_message_ns: newest_message_ns(state, change),
    };
    Some(Event::new(event.key.clone(), event.messages, event.recalls, content))
}

/// The first of a new group owns it.
fn action_for(user: &UserId, change: &GroupV1<'_>, of_crowd: &GroupAction) -> GroupAction {
    let is_new = matches!(change.change(), Ok(GroupChange::Create));
    match is_new && change.users.first() == Some(&user.as_str()) {
        true => GroupAction::Create,
        false => of_crowd.clone(),
    }
}
