//! What a verb answers, in JSON or protobuf. Every field is always there.

use prost::Message as _;

use super::encoding::ReplyEncoding;
use super::json::{escaped, number, text};
use super::pieces::Pieces;
use super::proto;
use crate::conversation::encoded::EncodedPage;
use crate::message::{
    Address, BlocksPage, ChatsPage, GroupId, GroupInfo, GroupsPage, Last, MembersPage, MessageView, Page,
    Receipt, Synced, UserId,
};

use self::groups::{blocks_json, group_json, group_protobuf, groups_json, members_json, members_protobuf};

pub(super) mod chats;
mod groups;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// What a message takes beside its texts and its address: names, numbers, punctuation.
const MESSAGE_JSON_BYTES: usize = 160;
/// What a recall, and what a member take at most beside ids.
const RECALL_JSON_BYTES: usize = 24;
const MEMBER_JSON_BYTES: usize = 88;
/// What a conversation of a list takes beside the text of its newest message.
const CHAT_JSON_BYTES: usize = 384;
/// What any reply takes beside its lists.
const REPLY_JSON_BYTES: usize = 160;

/// The success of a verb.
pub(super) enum Reply {
    Sent(Receipt),
    Recalled {
        recall_index: u32,
    },
    /// Nothing to say but that it is done.
    Done,
    /// A page whose rows [`rows_json`] or [`rows_protobuf`] wrote, as the reply is to be.
    Page(EncodedPage),
    GroupCreated(GroupId),
    Group(GroupInfo),
    Members(MembersPage),
    Groups(GroupsPage),
    Blocks(BlocksPage),
    Chats(ChatsPage),
    Synced(Synced),
    /// The read cursors of those who are in a conversation.
    Acks(Vec<(UserId, u32)>),
    /// Who of those asked for is connected.
    Online(Vec<(UserId, bool)>),
}

impl Reply {
    /// The reply's bytes.
    pub(super) fn encode(self, encoding: ReplyEncoding) -> Pieces {
        match (self, encoding) {
            (Self::Page(page), ReplyEncoding::Json) => {
                let mut rest = Vec::with_capacity(REPLY_JSON_BYTES);
                rest_json(&mut rest, &page);
                rest.push(b'}');
                Pieces::of(page.rows, rest.into())
            }
            (Self::Page(page), ReplyEncoding::Protobuf) => {
                let rest = rest_protobuf(&page);
                Pieces::of(page.rows, rest.into())
            }
            (reply, ReplyEncoding::Json) => {
                let mut out = Vec::with_capacity(reply.json_bytes());
                reply.write_json(&mut out);
                out.into()
            }
            (reply, ReplyEncoding::Protobuf) => reply.into_protobuf().into(),
        }
    }

    /// Appends the reply as JSON.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sent(receipt) => receipt_json(out, receipt),
            Self::Recalled { recall_index } => field(out, b"{\"recall_index\":", *recall_index),
            Self::Done => out.push(b'{'),
            Self::Page(page) => {
                out.extend_from_slice(&page.rows);
                rest_json(out, page);
            }
            Self::GroupCreated(group) => text_field(out, b"{\"group_id\":", group.as_str()),
            Self::Group(info) => group_json(out, info),
            Self::Members(page) => members_json(out, page),
            Self::Groups(page) => groups_json(out, page),
            Self::Blocks(page) => blocks_json(out, page),
            Self::Chats(page) => chats::list_json(out, page),
            Self::Synced(synced) => chats::sync_json(out, synced),
            Self::Acks(acks) => chats::acks_json(out, acks),
            Self::Online(online) => chats::online_json(out, online),
        }
        out.push(b'}');
    }

    /// Enough for any reply whose texts need few escapes; one growth for the others.
    fn json_bytes(&self) -> usize {
        let lists = match self {
            Self::Page(page) => page.rows.len(),
            Self::Members(page) => page.members.len() * MEMBER_JSON_BYTES,
            Self::Groups(page) => page.groups.len() * REPLY_JSON_BYTES,
            Self::Blocks(page) => page.users.len() * MEMBER_JSON_BYTES,
            Self::Chats(page) => page
                .chats
                .iter()
                .map(|(_, last)| CHAT_JSON_BYTES + last.as_ref().map_or(0, Last::text_bytes))
                .sum::<usize>(),
            Self::Synced(synced) => synced.chats.iter().map(|delta| chats::delta_bytes(&delta.page)).sum(),
            _ => 0,
        };
        REPLY_JSON_BYTES + lists
    }

    fn into_protobuf(self) -> Vec<u8> {
        match self {
            Self::Sent(receipt) => proto::SendResp {
                msg_index: receipt.msg_index,
                timestamp: seconds(receipt.timestamp_ns),
                timestamp_ns: receipt.timestamp_ns,
                duplicate: receipt.duplicate,
            }
            .encode_to_vec(),
            Self::Recalled { recall_index } => proto::RecallResp { recall_index }.encode_to_vec(),
            Self::Done => Vec::new(),
            Self::Page(page) => [&page.rows[..], &rest_protobuf(&page)].concat(),
            Self::GroupCreated(group) => {
                proto::GroupCreateResp { group_id: group.as_str().to_owned() }.encode_to_vec()
            }
            Self::Group(info) => group_protobuf(info).encode_to_vec(),
            Self::Members(page) => members_protobuf(page).encode_to_vec(),
            Self::Groups(page) => {
                let groups = page.groups.into_iter().map(group_protobuf).collect();
                proto::GroupListResp { groups, cursor: page.cursor }.encode_to_vec()
            }
            Self::Blocks(page) => {
                let user_ids = page.users.iter().map(|user| user.as_str().to_owned()).collect();
                proto::RelationBlocksResp { user_ids, cursor: page.cursor }.encode_to_vec()
            }
            Self::Chats(page) => chats::list_protobuf(page).encode_to_vec(),
            Self::Synced(synced) => chats::sync_protobuf(synced).encode_to_vec(),
            Self::Acks(acks) => chats::acks_protobuf(acks).encode_to_vec(),
            Self::Online(online) => chats::online_protobuf(online).encode_to_vec(),
        }
    }
}

/// Seconds of a moment, as far as 32 bits reach (the year 2106).
fn seconds(timestamp_ns: u64) -> u32 {
    u32::try_from(timestamp_ns / NANOS_PER_SECOND).unwrap_or(u32::MAX)
}

/// `target` and `target_type`.
pub(super) fn address(at: &Address) -> (&str, &'static str) {
    match at {
        Address::User(user) => (user.as_str(), "user"),
        Address::Group(group) => (group.as_str(), "group"),
    }
}

/// Appends `name`, which carries the punctuation around it, and a number. Inlined, because a name of known length is
/// copied by a move or two.
#[inline(always)]
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], value: impl Into<u64>) {
    out.extend_from_slice(name);
    number(out, value.into());
}

/// The same with a text.
#[inline(always)]
pub(super) fn text_field(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    text(out, value);
}

/// Appends what `write` writes for each element, with commas between.
pub(super) fn list<T>(
    out: &mut Vec<u8>,
    elements: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    for (place, element) in elements.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(out, element);
    }
}

fn receipt_json(out: &mut Vec<u8>, receipt: &Receipt) {
    field(out, b"{\"msg_index\":", receipt.msg_index);
    field(out, b",\"timestamp\":", seconds(receipt.timestamp_ns));
    // A number of 64 bits is a text in proto3's JSON: a double cannot hold it.
    field(out, b",\"timestamp_ns\":\"", receipt.timestamp_ns);
    let duplicate: &[u8] =
        if receipt.duplicate { b"\",\"duplicate\":true" } else { b"\",\"duplicate\":false" };
    out.extend_from_slice(duplicate);
}

/// Appends what stands behind the rows of a page.
fn rest_json(out: &mut Vec<u8>, page: &EncodedPage) {
    field(out, b",\"max_msg_index\":", page.max_msg_index);
    field(out, b",\"max_recall_index\":", page.max_recall_index);
    field(out, b",\"min_msg_index\":", page.min_msg_index);
    field(out, b",\"epoch\":", page.epoch);
}

/// Enough for rows whose texts need few escapes.
fn rows_bytes(page: &Page, at: &Address) -> usize {
    let (target, _) = address(at);
    // The sender's id is as long as it is; most are shorter than the names around it.
    let messages = page.messages().len() * (MESSAGE_JSON_BYTES + target.len());
    page.text_bytes() + messages + page.recalls.len() * RECALL_JSON_BYTES + REPLY_JSON_BYTES
}

/// The beginning of a page in JSON, up to its numbers: all of it that depends on the reader.
pub(super) fn rows_json(page: &Page, at: &Address) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows_bytes(page, at));
    out.push(b'{');
    write_rows(&mut out, page, at);
    out
}

/// `msgs` and `recalls`.
fn write_rows(out: &mut Vec<u8>, page: &Page, at: &Address) {
    // Few people talk on a page: what stands behind the texts is the same for all messages of one.
    let addressed = addressed(at);
    let tails: Vec<_> = page.senders().iter().map(|sender| tail(sender.as_str(), &addressed)).collect();
    out.extend_from_slice(b"\"msgs\":[");
    list(out, page.numbered(), |out, (message, sender)| {
        texts_json(out, &message);
        out.extend_from_slice(&tails[sender]);
    });
    out.extend_from_slice(b"],\"recalls\":{");
    list(out, &page.recalls, |out, (recall_index, msg_index)| {
        field(out, b"\"", *recall_index);
        field(out, b"\":", *msg_index);
    });
    out.push(b'}');
}

/// The end of every `msg_info` of a conversation: how the reader addresses it.
pub(super) fn addressed(at: &Address) -> Vec<u8> {
    let mut addressed = Vec::with_capacity(address(at).0.len() + 64);
    addressed_json(&mut addressed, at);
    addressed
}

fn addressed_json(out: &mut Vec<u8>, at: &Address) {
    out.push(b',');
    target_json(out, at);
    out.push(b'}');
}

/// Appends `"target"` and `"target_type"`.
pub(super) fn target_json(out: &mut Vec<u8>, at: &Address) {
    text_field(out, b"\"target\":", address(at).0);
    match at {
        Address::User(_) => out.extend_from_slice(b",\"target_type\":\"user\""),
        Address::Group(_) => out.extend_from_slice(b",\"target_type\":\"group\""),
    }
}

/// The end of every `msg_info` of one sender.
fn tail(sender: &str, addressed: &[u8]) -> Vec<u8> {
    let mut tail = Vec::with_capacity(sender.len() + addressed.len() + 16);
    text_field(&mut tail, b",\"sender\":", sender);
    tail.extend_from_slice(addressed);
    tail
}

/// Appends a `msg_info`; `addressed` is its end.
pub(super) fn message_json(out: &mut Vec<u8>, message: &MessageView<'_>, addressed: &[u8]) {
    texts_json(out, message);
    text_field(out, b",\"sender\":", message.sender);
    out.extend_from_slice(addressed);
}

/// Appends the one `msg_info` of a conversation.
fn only_message_json(out: &mut Vec<u8>, message: &MessageView<'_>, at: &Address) {
    texts_json(out, message);
    text_field(out, b",\"sender\":", message.sender);
    addressed_json(out, at);
}

/// Appends a `msg_info` up to its sender.
fn texts_json(out: &mut Vec<u8>, message: &MessageView<'_>) {
    field(out, b"{\"msg_index\":", message.msg_index);
    // Most messages are not recalled and have no `extra`: what stands around the text is two pieces then.
    match message.recall_index {
        0 => out.extend_from_slice(b",\"recall_index\":0,\"msg\":\""),
        recall_index => {
            field(out, b",\"recall_index\":", recall_index);
            out.extend_from_slice(b",\"msg\":\"");
        }
    }
    escaped(out, message.msg);
    match message.extra {
        "" => out.extend_from_slice(b"\",\"extra\":\"\",\"timestamp\":"),
        extra => {
            text_field(out, b"\",\"extra\":", extra);
            out.extend_from_slice(b",\"timestamp\":");
        }
    }
    number(out, seconds(message.timestamp_ns).into());
}

/// The same in protobuf, where one message behind another is both in one.
pub(super) fn rows_protobuf(page: &Page, at: &Address) -> Vec<u8> {
    let (msgs, recalls) = (messages_protobuf(page, at), page.recalls.iter().copied().collect());
    proto::PullResp { msgs, recalls, ..proto::PullResp::default() }.encode_to_vec()
}

fn rest_protobuf(page: &EncodedPage) -> Vec<u8> {
    let EncodedPage { max_msg_index, max_recall_index, min_msg_index, epoch, .. } = *page;
    let rest =
        proto::PullResp { max_msg_index, max_recall_index, min_msg_index, epoch, ..Default::default() };
    rest.encode_to_vec()
}

fn messages_protobuf(page: &Page, at: &Address) -> Vec<proto::MsgInfo> {
    page.messages().map(|message| message_protobuf(message, at)).collect()
}

fn message_protobuf(message: MessageView<'_>, at: &Address) -> proto::MsgInfo {
    let (target, target_type) = address(at);
    proto::MsgInfo {
        msg_index: message.msg_index,
        recall_index: message.recall_index,
        msg: message.msg.to_owned(),
        extra: message.extra.to_owned(),
        timestamp: seconds(message.timestamp_ns),
        sender: message.sender.to_owned(),
        target: target.to_owned(),
        target_type: target_type.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::encoded::EncodeRows;
    use crate::message::{Duty, Member, UserId};

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("an id")
    }

    fn json(reply: Reply) -> String {
        String::from_utf8(reply.encode(ReplyEncoding::Json).whole()).expect("UTF-8")
    }

    fn receipt() -> Receipt {
        Receipt { msg_index: 7, timestamp_ns: 1_700_000_000_123_456_789, duplicate: false }
    }

    fn page() -> Page {
        let mut page = Page::default();
        (page.recalls, page.max_msg_index, page.max_recall_index) = (vec![(2, 1), (1, 9)], 9, 2);
        let view = |msg_index, recall_index, msg| MessageView {
            msg_index,
            recall_index,
            msg,
            extra: "",
            timestamp_ns: 1_700_000_000_999_999_999,
            sender: "alice",
        };
        page.push(&user("alice"), view(9, 0, "say \"hi\"\n"));
        page.push(&user("alice"), view(1, 2, ""));
        page.min_msg_index = 1;
        page
    }

    fn reply(page: &Page, rows: EncodeRows) -> Reply {
        Reply::Page(EncodedPage::of(rows(page, &Address::User(user("bob"))).into(), page))
    }

    #[test]
    fn a_receipt_has_seconds_and_nanoseconds() {
        assert_eq!(
            json(Reply::Sent(receipt())),
            r#"{"msg_index":7,"timestamp":1700000000,"timestamp_ns":"1700000000123456789","duplicate":false}"#
        );
        assert_eq!(seconds(u64::MAX), u32::MAX);
    }

    #[test]
    fn a_page_has_every_field_and_recalls_in_the_order_of_the_pull() {
        assert_eq!(
            json(reply(&page(), rows_json)),
            concat!(
                r#"{"msgs":[{"msg_index":9,"recall_index":0,"msg":"say \"hi\"\n","extra":"","#,
                r#""timestamp":1700000000,"sender":"alice","target":"bob","target_type":"user"},"#,
                r#"{"msg_index":1,"recall_index":2,"msg":"","extra":"","timestamp":1700000000,"#,
                r#""sender":"alice","target":"bob","target_type":"user"}],"recalls":{"2":1,"1":9},"#,
                r#""max_msg_index":9,"max_recall_index":2,"min_msg_index":1,"epoch":0}"#
            )
        );
        assert_eq!(
            json(reply(&Page::default(), rows_json)),
            r#"{"msgs":[],"recalls":{},"max_msg_index":0,"max_recall_index":0,"min_msg_index":0,"epoch":0}"#
        );
    }

    #[test]
    fn small_replies_are_whole() {
        assert_eq!(json(Reply::Recalled { recall_index: 3 }), r#"{"recall_index":3}"#);
        assert_eq!(json(Reply::Done), "{}");
        let group = GroupId::parse("g\"1").expect("an id");
        assert_eq!(json(Reply::GroupCreated(group.clone())), r#"{"group_id":"g\"1"}"#);
        let info = GroupInfo {
            group,
            name: "n".to_owned(),
            created_ns: 5_000_000_000,
            members_count: 2,
            duty: Duty::Admin,
        };
        assert_eq!(
            json(Reply::Group(info.clone())),
            r#"{"group_id":"g\"1","name":"n","created":5,"members_count":2,"duty":3}"#
        );
        let groups = vec![info.clone(), GroupInfo { name: "two".to_owned(), ..info.clone() }];
        assert_eq!(
            json(Reply::Groups(GroupsPage { groups, cursor: "g".to_owned() })),
            concat!(
                r#"{"groups":[{"group_id":"g\"1","name":"n","created":5,"members_count":2,"duty":3},"#,
                r#"{"group_id":"g\"1","name":"two","created":5,"members_count":2,"duty":3}],"cursor":"g"}"#
            )
        );
        let users = vec![user("a\"b"), user("c")];
        assert_eq!(
            json(Reply::Blocks(BlocksPage { users, cursor: "c".to_owned() })),
            r#"{"user_ids":["a\"b","c"],"cursor":"c"}"#
        );
        let member = |muted_until_s| Member {
            user: user("a"),
            duty: Duty::Owner,
            joined_ns: 6_999_999_999,
            muted_until_s,
        };
        let page = || MembersPage { members: [0, 9, u64::MAX].map(member).into(), cursor: String::new() };
        assert_eq!(
            json(Reply::Members(page())),
            concat!(
                r#"{"members":[{"user_id":"a","duty":2,"joined":6,"muted_until":0},"#,
                r#"{"user_id":"a","duty":2,"joined":6,"muted_until":9},"#,
                r#"{"user_id":"a","duty":2,"joined":6,"muted_until":4294967295}],"cursor":""}"#
            )
        );
        let bytes = Reply::Members(page()).encode(ReplyEncoding::Protobuf).whole();
        let reply = proto::GroupMembersResp::decode(bytes.as_slice()).expect("protobuf");
        let muted_until: Vec<_> = reply.members.iter().map(|member| member.muted_until).collect();
        assert_eq!(muted_until, [0, 9, u32::MAX]);
    }

    #[test]
    fn protobuf_says_the_same() {
        let expected = page();
        let bytes = reply(&expected, rows_protobuf).encode(ReplyEncoding::Protobuf).whole();
        let reply = proto::PullResp::decode(bytes.as_slice()).expect("protobuf");
        assert_eq!(reply.msgs.len(), 2);
        assert_eq!((reply.msgs[0].msg.as_str(), reply.msgs[0].target.as_str()), ("say \"hi\"\n", "bob"));
        assert_eq!((reply.max_msg_index, reply.max_recall_index, reply.min_msg_index), (9, 2, 1));
        assert_eq!(reply.recalls.into_iter().rev().collect::<Vec<_>>(), expected.recalls);
        let bytes = Reply::Sent(receipt()).encode(ReplyEncoding::Protobuf).whole();
        let reply = proto::SendResp::decode(bytes.as_slice()).expect("protobuf");
        assert_eq!(
            (reply.msg_index, reply.timestamp, reply.timestamp_ns),
            (7, 1_700_000_000, receipt().timestamp_ns)
        );
    }

    #[test]
    fn fields_have_the_numbers_of_the_api_document() {
        let bytes = proto::SendReq {
            target: "t".into(),
            target_type: "u".into(),
            msg: "m".into(),
            extra: "e".into(),
            client_msg_id: "c".into(),
        }
        .encode_to_vec();
        assert_eq!(bytes, b"\x0a\x01t\x12\x01u\x1a\x01m\x22\x01e\x2a\x01c");
        let bytes = proto::PullReq {
            target: "t".into(),
            target_type: "u".into(),
            direction: "d".into(),
            start_msg_index: 1,
            start_recall_index: 2,
            count: 3,
            wait_ms: 4,
        }
        .encode_to_vec();
        assert_eq!(bytes, b"\x0a\x01t\x12\x01u\x1a\x01d\x20\x01\x28\x02\x30\x03\x38\x04");
    }
}
