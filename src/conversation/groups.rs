//! What may be done to groups, and asked of them. Who may is decided in [`super::group`].

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};

use super::actor::Request;
use super::completion::Outcome;
use super::reader::{ASKED_AT_A_TIME, concerns_it_alone, foreign_cursor};
use super::{CALL_BYTES, Conversations, as_user, unexpected};
use crate::message::{
    Caller, ConversationKey, Duty, GroupId, GroupInfo, GroupsPage, MembersPage, Rejection, UserId,
};

impl Conversations {
    /// Creates a group owned by the caller; without an id the server makes one.
    pub async fn create_group(
        &self,
        caller: &Caller,
        group: Option<GroupId>,
        name: String,
        members: Vec<UserId>,
    ) -> Result<GroupId, Rejection> {
        let group = group.map_or_else(random_group_id, Ok)?;
        let bytes = CALL_BYTES + name.len() + ids_bytes(&members);
        let entered = self.enter_or_begin(&ConversationKey::Group(group.clone()), bytes)?;
        self.change(entered, caller, Request::CreateGroup { name, members }).await?;
        Ok(group)
    }

    /// Adds members; those who are in already stay as they are.
    pub async fn add_members(
        &self,
        caller: &Caller,
        group: &GroupId,
        users: Vec<UserId>,
    ) -> Result<(), Rejection> {
        let bytes = ids_bytes(&users);
        self.change_group(caller, group, Request::AddMembers(users), bytes).await
    }

    /// Removes members; those who are not in are passed over.
    pub async fn kick_members(
        &self,
        caller: &Caller,
        group: &GroupId,
        users: Vec<UserId>,
    ) -> Result<(), Rejection> {
        let bytes = ids_bytes(&users);
        self.change_group(caller, group, Request::KickMembers(users), bytes).await
    }

    /// The caller leaves.
    pub async fn leave_group(&self, caller: &Caller, group: &GroupId) -> Result<(), Rejection> {
        self.change_group(caller, group, Request::LeaveGroup, 0).await
    }

    /// A page of members behind `cursor` (empty: from the start), at most `count`.
    pub async fn members(
        &self,
        caller: &Caller,
        group: &GroupId,
        cursor: String,
        count: u32,
    ) -> Result<MembersPage, Rejection> {
        let entered = self.enter_group(&ConversationKey::Group(group.clone()), CALL_BYTES)?;
        match self.call(entered, caller, Request::Members { cursor, count }).await? {
            Outcome::Members(page) => Ok(*page),
            other => Err(unexpected(&other)),
        }
    }

    /// The group as the caller sees it.
    pub async fn group_info(&self, caller: &Caller, group: &GroupId) -> Result<GroupInfo, Rejection> {
        let entered = self.enter_group(&ConversationKey::Group(group.clone()), CALL_BYTES)?;
        match self.call(entered, caller, Request::GroupInfo).await? {
            Outcome::Info(info) => Ok(*info),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives a member a duty; who gives somebody else the owner's becomes an admin.
    pub async fn set_duty(
        &self,
        caller: &Caller,
        group: &GroupId,
        user: UserId,
        duty: Duty,
    ) -> Result<(), Rejection> {
        self.change_group(caller, group, Request::SetDuty { user, duty }, 0).await
    }

    /// Gives the group another name.
    pub async fn rename_group(
        &self,
        caller: &Caller,
        group: &GroupId,
        name: String,
    ) -> Result<(), Rejection> {
        let bytes = name.len();
        self.change_group(caller, group, Request::RenameGroup(name), bytes).await
    }

    /// Mutes a member until `until_s`, Unix seconds; a moment that is past lets them send again.
    pub async fn mute(
        &self,
        caller: &Caller,
        group: &GroupId,
        user: UserId,
        until_s: u64,
    ) -> Result<(), Rejection> {
        self.change_group(caller, group, Request::Mute { user, until_s }, 0).await
    }

    /// Ends a group: from then on there is no such group, but its id stays taken.
    pub async fn dismiss_group(&self, caller: &Caller, group: &GroupId) -> Result<(), Rejection> {
        self.change_group(caller, group, Request::DismissGroup, 0).await?;
        self.shared.paging.forget(&ConversationKey::Group(group.clone()));
        Ok(())
    }

    /// The groups that `user` is in whose ids are behind `cursor` (empty: from the start), at most `count`. Those whose
    /// data is damaged are left out.
    pub async fn groups(&self, user: &UserId, cursor: &str, count: u32) -> Result<GroupsPage, Rejection> {
        let behind = match cursor {
            "" => None,
            id => Some(GroupId::parse(id).map_err(|_| foreign_cursor())?),
        };
        let inbox = self.inbox(user).await?;
        let (ids, more) =
            inbox.with_rows(|rows| first_behind(groups_in(rows.keys()), behind.as_ref(), count as usize));
        let cursor = ids.last().filter(|_| more).map_or_else(String::new, |id| id.as_str().to_owned());
        let caller = as_user(user);
        let asked = ids.into_iter().map(|id| {
            let caller = &caller;
            async move { self.group_info(caller, &id).await }
        });
        let answers: Vec<_> = stream::iter(asked).buffered(ASKED_AT_A_TIME).collect().await;
        let mut groups = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer {
                Ok(info) => groups.push(info),
                Err(why) if concerns_it_alone(&why) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(GroupsPage { groups, cursor })
    }

    async fn change_group(
        &self,
        caller: &Caller,
        group: &GroupId,
        request: Request,
        bytes: usize,
    ) -> Result<(), Rejection> {
        let entered = self.enter_group(&ConversationKey::Group(group.clone()), CALL_BYTES + bytes)?;
        self.change(entered, caller, request).await
    }
}

/// The groups among these conversations.
fn groups_in<'a>(keys: impl Iterator<Item = &'a Arc<ConversationKey>>) -> impl Iterator<Item = &'a GroupId> {
    keys.filter_map(|key| match &**key {
        ConversationKey::Group(id) => Some(id),
        ConversationKey::Direct(..) => None,
    })
}

/// The smallest `count` ids behind `behind`, in their order, and whether there are more.
pub(super) fn first_behind<'a, T: Ord + Clone + 'a>(
    ids: impl Iterator<Item = &'a T>,
    behind: Option<&T>,
    count: usize,
) -> (Vec<T>, bool) {
    let mut ids: Vec<&T> = ids.filter(|id| behind.is_none_or(|behind| *id > behind)).collect();
    let more = ids.len() > count;
    if more {
        // Only those that are shown have to be in order.
        ids.select_nth_unstable(count);
        ids.truncate(count);
    }
    ids.sort_unstable();
    (ids.into_iter().cloned().collect(), more)
}

fn ids_bytes(ids: &[UserId]) -> usize {
    ids.iter().map(|id| id.as_str().len() + size_of::<UserId>()).sum()
}

/// 128 random bits: unguessable, and never taken.
fn random_group_id() -> Result<GroupId, Rejection> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|why| Rejection::Broken(format!("no random numbers: {why}")))?;
    let id = format!("{:032x}", u128::from_be_bytes(random));
    Ok(GroupId::parse(&id).expect("32 hexadecimal digits are a valid id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_any_size_have_every_group_once_in_order() {
        let user = |id: &str| UserId::parse(id).expect("an id");
        let group =
            |number: u32| ConversationKey::Group(GroupId::parse(&format!("g-{number:02}")).expect("an id"));
        // In an order of no meaning, with a pair between.
        let mut keys: Vec<_> = (0..20).map(|number| Arc::new(group(number * 7 % 20))).collect();
        keys.insert(3, Arc::new(ConversationKey::direct(user("a"), user("b"))));
        let expected: Vec<_> = (0..20).map(|number| format!("g-{number:02}")).collect();
        for count in [1, 3, 19, 20, 21] {
            let (mut seen, mut behind) = (Vec::new(), None);
            loop {
                let (page, more) = first_behind(groups_in(keys.iter()), behind.as_ref(), count);
                assert!(page.len() <= count);
                seen.extend(page.iter().map(|id| id.as_str().to_owned()));
                behind = page.last().cloned();
                if !more {
                    break;
                }
            }
            assert_eq!(seen, expected, "pages of {count}");
        }
    }
}
