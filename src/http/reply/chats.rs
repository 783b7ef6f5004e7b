//! What the verbs across conversations answer: list, sync, acks, online.

use super::{MESSAGE_JSON_BYTES, RECALL_JSON_BYTES, REPLY_JSON_BYTES};
use super::{
    address, field, list, message_protobuf, messages_protobuf, only_message_json, target_json, text_field,
    write_rows,
};
use crate::http::json::text;
use crate::http::proto;
use crate::message::{Chat, ChatDelta, ChatsPage, Last, Page, Synced, UserId};

/// Appends where a conversation stands, without the closing brace.
pub(in crate::http) fn chat_json(out: &mut Vec<u8>, chat: &Chat) {
    out.push(b'{');
    target_json(out, &chat.at);
    field(out, b",\"msg_index\":", chat.msg_index);
    field(out, b",\"recall_index\":", chat.recall_index);
    field(out, b",\"ack_index\":", chat.ack_index);
    field(out, b",\"unread\":", chat.unread);
}

pub(super) fn list_json(out: &mut Vec<u8>, page: &ChatsPage) {
    out.extend_from_slice(b"{\"chats\":[");
    list(out, &page.chats, |out, (chat, last)| {
        chat_json(out, chat);
        out.extend_from_slice(b",\"last\":");
        match last {
            Some(last) => only_message_json(out, &last.view(), &chat.at),
            None => out.extend_from_slice(b"null"),
        }
        // A number of 64 bits is a text in proto3's JSON: a double cannot hold it.
        field(out, b",\"timestamp_ns\":\"", chat.timestamp_ns);
        out.extend_from_slice(b"\"}");
    });
    field(out, b"],\"total_unread\":", page.total_unread);
    text_field(out, b",\"cursor\":", &page.cursor);
}

pub(super) fn sync_json(out: &mut Vec<u8>, synced: &Synced) {
    out.extend_from_slice(b"{\"chats\":[");
    list(out, &synced.chats, delta_json);
    out.extend_from_slice(b"],\"more\":");
    flag(out, synced.more);
}

fn delta_json(out: &mut Vec<u8>, delta: &ChatDelta) {
    let ChatDelta { chat, page, more } = delta;
    out.push(b'{');
    target_json(out, &chat.at);
    out.push(b',');
    write_rows(out, page, &chat.at);
    field(out, b",\"max_msg_index\":", page.max_msg_index);
    field(out, b",\"max_recall_index\":", page.max_recall_index);
    field(out, b",\"min_msg_index\":", page.min_msg_index);
    field(out, b",\"ack_index\":", chat.ack_index);
    field(out, b",\"unread\":", chat.unread);
    field(out, b",\"epoch\":", page.epoch);
    out.extend_from_slice(b",\"more\":");
    flag(out, *more);
    out.push(b'}');
}

/// About what a conversation of a sync takes.
pub(super) fn delta_bytes(page: &Page) -> usize {
    REPLY_JSON_BYTES
        + page.text_bytes()
        + page.messages().len() * MESSAGE_JSON_BYTES
        + page.recalls.len() * RECALL_JSON_BYTES
}

pub(super) fn acks_json(out: &mut Vec<u8>, acks: &[(UserId, u32)]) {
    out.extend_from_slice(b"{\"acks\":{");
    list(out, acks, |out, (user, index)| {
        text(out, user.as_str());
        field(out, b":", *index);
    });
    out.push(b'}');
}

pub(super) fn online_json(out: &mut Vec<u8>, online: &[(UserId, bool)]) {
    out.extend_from_slice(b"{\"online\":{");
    list(out, online, |out, (user, is_online)| {
        text(out, user.as_str());
        out.push(b':');
        flag(out, *is_online);
    });
    out.push(b'}');
}

pub(in crate::http) fn flag(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

pub(super) fn list_protobuf(page: ChatsPage) -> proto::ListResp {
    let chat = |(chat, last): &(Chat, Option<Last>)| {
        let (target, target_type) = address(&chat.at);
        proto::ChatInfo {
            target: target.to_owned(),
            target_type: target_type.to_owned(),
            msg_index: chat.msg_index,
            recall_index: chat.recall_index,
            ack_index: chat.ack_index,
            unread: chat.unread,
            last: last.as_ref().map(|last| message_protobuf(last.view(), &chat.at)),
            timestamp_ns: chat.timestamp_ns,
        }
    };
    proto::ListResp {
        chats: page.chats.iter().map(chat).collect(),
        total_unread: u32::try_from(page.total_unread).unwrap_or(u32::MAX),
        cursor: page.cursor,
    }
}

pub(super) fn sync_protobuf(synced: Synced) -> proto::SyncResp {
    let chat = |ChatDelta { chat, page, more }: ChatDelta| {
        let (target, target_type) = address(&chat.at);
        proto::SyncChat {
            target: target.to_owned(),
            target_type: target_type.to_owned(),
            msgs: messages_protobuf(&page, &chat.at),
            recalls: page.recalls.iter().copied().collect(),
            max_msg_index: page.max_msg_index,
            max_recall_index: page.max_recall_index,
            ack_index: chat.ack_index,
            unread: chat.unread,
            epoch: page.epoch,
            more,
            min_msg_index: page.min_msg_index,
        }
    };
    proto::SyncResp { chats: synced.chats.into_iter().map(chat).collect(), more: synced.more }
}

pub(super) fn acks_protobuf(acks: Vec<(UserId, u32)>) -> proto::AcksResp {
    proto::AcksResp {
        acks: acks.into_iter().map(|(user, index)| (user.as_str().to_owned(), index)).collect(),
    }
}

pub(super) fn online_protobuf(online: Vec<(UserId, bool)>) -> proto::OnlineResp {
    proto::OnlineResp {
        online: online.into_iter().map(|(user, is_online)| (user.as_str().to_owned(), is_online)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;

    use super::*;
    use crate::http::encoding::ReplyEncoding;
    use crate::http::reply::Reply;
    use crate::message::{Address, MessageView, OwnedMessage};

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("an id")
    }

    fn chat() -> Chat {
        Chat {
            at: Address::User(user("bob")),
            msg_index: 7,
            recall_index: 1,
            ack_index: 5,
            unread: 2,
            timestamp_ns: 1_700_000_000_123_456_789,
        }
    }

    fn page() -> Page {
        let mut page = Page::new(7, 1, 1);
        page.epoch = 3;
        let view = MessageView {
            msg_index: 7,
            recall_index: 0,
            msg: "hi",
            extra: "",
            timestamp_ns: 1_700_000_000_123_456_789,
            sender: "bob",
        };
        page.push(&user("bob"), view);
        page
    }

    fn json(reply: Reply) -> String {
        String::from_utf8(reply.encode(ReplyEncoding::Json).whole()).expect("UTF-8")
    }

    const LAST: &str = concat!(
        r#"{"msg_index":7,"recall_index":0,"msg":"hi","extra":"","timestamp":1700000000,"#,
        r#""sender":"bob","target":"bob","target_type":"user"}"#
    );

    #[test]
    fn a_list_has_the_newest_message_or_null() {
        let message = OwnedMessage {
            msg_index: 7,
            sender: user("bob"),
            timestamp_ns: 1_700_000_000_123_456_789,
            msg: "hi".into(),
            extra: "".into(),
        };
        let last = Last { message: Arc::new(message), recall_index: 0 };
        let chats = vec![(chat(), Some(last)), (chat(), None)];
        let page = ChatsPage { chats, total_unread: 4, cursor: "c".to_owned() };
        let start = r#"{"target":"bob","target_type":"user","msg_index":7,"recall_index":1,"ack_index":5,"unread":2,"last":"#;
        let end = r#","timestamp_ns":"1700000000123456789"}"#;
        let expected =
            format!(r#"{{"chats":[{start}{LAST}{end},{start}null{end}],"total_unread":4,"cursor":"c"}}"#);
        assert_eq!(json(Reply::Chats(page.clone())), expected);
        let bytes = Reply::Chats(page).encode(ReplyEncoding::Protobuf).whole();
        let reply = proto::ListResp::decode(bytes.as_slice()).expect("protobuf");
        assert_eq!(reply.chats[0].last.as_ref().map(|last| last.msg.as_str()), Some("hi"));
        assert_eq!((reply.chats[1].last.is_none(), reply.total_unread), (true, 4));
    }

    #[test]
    fn a_sync_says_of_each_conversation_what_moved_and_whether_there_is_more() {
        let chats = vec![ChatDelta { chat: chat(), page: page(), more: true }];
        let synced = Synced { chats, more: false };
        let expected = format!(
            concat!(
                r#"{{"chats":[{{"target":"bob","target_type":"user","msgs":[{last}],"recalls":{{}},"#,
                r#""max_msg_index":7,"max_recall_index":1,"min_msg_index":1,"ack_index":5,"unread":2,"#,
                r#""epoch":3,"more":true}}],"more":false}}"#
            ),
            last = LAST
        );
        assert_eq!(json(Reply::Synced(synced.clone())), expected);
        let bytes = Reply::Synced(synced).encode(ReplyEncoding::Protobuf).whole();
        let reply = proto::SyncResp::decode(bytes.as_slice()).expect("protobuf");
        assert_eq!((reply.chats[0].msgs.len(), reply.chats[0].more), (1, true));
    }

    #[test]
    fn maps_have_users_as_keys() {
        let acks = vec![(user("a\"b"), 7), (user("c"), 0)];
        assert_eq!(json(Reply::Acks(acks)), r#"{"acks":{"a\"b":7,"c":0}}"#);
        assert_eq!(json(Reply::Acks(vec![])), r#"{"acks":{}}"#);
        let online = vec![(user("a"), true), (user("b"), false)];
        assert_eq!(json(Reply::Online(online)), r#"{"online":{"a":true,"b":false}}"#);
    }
}
