//! What the verbs of groups and relations answer: groups, members, blocks.

use super::{field, list, seconds, text_field};
use crate::http::json::text;
use crate::http::proto;
use crate::message::{BlocksPage, GroupInfo, GroupsPage, Member, MembersPage, UserId};

pub(super) fn group_json(out: &mut Vec<u8>, info: &GroupInfo) {
    text_field(out, b"{\"group_id\":", info.group.as_str());
    text_field(out, b",\"name\":", &info.name);
    field(out, b",\"created\":", seconds(info.created_ns));
    field(out, b",\"members_count\":", info.members_count);
    field(out, b",\"duty\":", info.duty as u32);
}

pub(super) fn groups_json(out: &mut Vec<u8>, page: &GroupsPage) {
    out.extend_from_slice(b"{\"groups\":[");
    list(out, &page.groups, |out, info: &GroupInfo| {
        group_json(out, info);
        out.push(b'}');
    });
    text_field(out, b"],\"cursor\":", &page.cursor);
}

pub(super) fn blocks_json(out: &mut Vec<u8>, page: &BlocksPage) {
    out.extend_from_slice(b"{\"user_ids\":[");
    list(out, &page.users, |out, user: &UserId| text(out, user.as_str()));
    text_field(out, b"],\"cursor\":", &page.cursor);
}

pub(super) fn members_json(out: &mut Vec<u8>, page: &MembersPage) {
    out.extend_from_slice(b"{\"members\":[");
    list(out, &page.members, |out, member: &Member| {
        text_field(out, b"{\"user_id\":", member.user.as_str());
        field(out, b",\"duty\":", member.duty as u32);
        field(out, b",\"joined\":", seconds(member.joined_ns));
        field(out, b",\"muted_until\":", muted_until(member));
        out.push(b'}');
    });
    text_field(out, b"],\"cursor\":", &page.cursor);
}

/// What `mute` takes has 32 bits; what an import brought along may have more.
fn muted_until(member: &Member) -> u32 {
    u32::try_from(member.muted_until_s).unwrap_or(u32::MAX)
}

pub(super) fn group_protobuf(info: GroupInfo) -> proto::GroupInfoResp {
    proto::GroupInfoResp {
        group_id: info.group.as_str().to_owned(),
        name: info.name,
        created: seconds(info.created_ns),
        members_count: info.members_count,
        duty: info.duty as u32,
    }
}

pub(super) fn members_protobuf(page: MembersPage) -> proto::GroupMembersResp {
    let member = |member: &Member| proto::GroupMember {
        user_id: member.user.as_str().to_owned(),
        duty: member.duty as u32,
        joined: seconds(member.joined_ns),
        muted_until: muted_until(member),
    };
    proto::GroupMembersResp { members: page.members.iter().map(member).collect(), cursor: page.cursor }
}
