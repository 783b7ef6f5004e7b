//! Crowds: changes of a group that are about so many users that not everybody hears of each.
//!
//! Everybody who looks hears how many came or were put out, and each of those who look hears of themselves:
//! so a change costs as much as there are listeners and users, and not one by the other.

use std::collections::HashSet;
use std::sync::Arc;

use super::{id, newest_message_ns};
use crate::conversation::completion::News;
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

/// The same news for a crowd: those of it who look hear of themselves first, and of what everybody hears only what
/// does not find them put out.
pub(super) fn tell_apart(state: &State, change: &GroupV1<'_>, news: News) -> News {
    let crowd: HashSet<&str> = change.users.iter().copied().collect();
    let News { listeners, events, mut apart } = news;
    let (in_crowd, others): (Vec<_>, Vec<_>) =
        listeners.iter().cloned().partition(|inbox| crowd.contains(inbox.user.as_str()));
    apart.extend(in_crowd.into_iter().map(|inbox| {
        let own = events_for(&inbox.user, state, change, &events);
        (inbox, own)
    }));
    News { listeners: others.into(), events, apart }
}

fn events_for(user: &UserId, state: &State, change: &GroupV1<'_>, events: &[Arc<Event>]) -> Vec<Arc<Event>> {
    let mut own = Vec::with_capacity(events.len() + 1);
    for event in events {
        let Content::Crowd { action, by, .. } = &event.content else {
            own.push(event.clone());
            continue;
        };
        let content = Content::Group {
            action: action_for(user, change, action),
            user: user.clone(),
            by: by.clone(),
            newest_message_ns: newest_message_ns(state, change),
        };
        own.push(Arc::new(Event::new(event.key.clone(), event.messages, event.recalls, content)));
        if *action == GroupAction::Kick {
            // Who is out hears nothing further.
            break;
        }
        own.push(event.clone());
    }
    own
}

/// The first of a new group owns it.
fn action_for(user: &UserId, change: &GroupV1<'_>, of_crowd: &GroupAction) -> GroupAction {
    let is_new = matches!(change.change(), Ok(GroupChange::Create));
    match is_new && change.users.first() == Some(&user.as_str()) {
        true => GroupAction::Create,
        false => of_crowd.clone(),
    }
}
