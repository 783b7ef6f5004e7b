//! Those whom a change of a group is about, where they hear something else of it than everybody.
//!
//! Of a crowd each hears of themselves first. Who is put out hears nothing that stands behind that, however few go with
//! them: what comes then is not theirs any more.

use std::collections::HashSet;
use std::sync::Arc;

use super::crowd;
use crate::conversation::completion::News;
use crate::conversation::record::{GroupChange, GroupV1};
use crate::conversation::state::State;
use crate::live::{Content, Event, GroupAction};
use crate::message::UserId;

/// Whether somebody may hear something else of the change than everybody.
pub(super) fn is_needed(change: &GroupV1<'_>) -> bool {
    crowd::action_of(change).is_some()
        || change.users.len() > 1 && matches!(change.change(), Ok(GroupChange::Kick))
}

/// The same news, with what those who look of whom it is hear of it.
pub(super) fn tell(state: &State, change: &GroupV1<'_>, news: News) -> News {
    let whom: HashSet<&str> = change.users.iter().copied().collect();
    let News { listeners, events, mut apart } = news;
    let (concerned, others): (Vec<_>, Vec<_>) =
        listeners.iter().cloned().partition(|inbox| whom.contains(inbox.user.as_str()));
    apart.extend(concerned.into_iter().map(|inbox| {
        let own = events_for(&inbox.user, state, change, &events);
        (inbox, own)
    }));
    News { listeners: others.into(), events, apart }
}

fn events_for(user: &UserId, state: &State, change: &GroupV1<'_>, events: &[Arc<Event>]) -> Vec<Arc<Event>> {
    let own_first = events.iter().flat_map(|event| {
        let own = crowd::own_of(user, state, change, event).map(Arc::new);
        own.into_iter().chain([event.clone()])
    });
    let mut heard = Vec::new();
    for event in own_first {
        heard.push(event);
        if heard.last().is_some_and(|last| puts_out(last, user)) {
            break;
        }
    }
    heard
}

fn puts_out(event: &Event, whom: &UserId) -> bool {
    matches!(&event.content, Content::Group { action: GroupAction::Kick, user, .. } if user == whom)
}
