//! Events as JSON: what a stream says, one object each.

use bytes::Bytes;

use super::frame;
use crate::http::json::text;
use crate::http::reply::chats::{chat_json, flag};
use crate::http::reply::{addressed, field, list, message_json, target_json, text_field};
use crate::live::{Behind, Content, Event, GroupAction};
use crate::message::{Address, Chat, MessageView, UserId};

/// What an event takes beside its texts.
const EVENT_JSON_BYTES: usize = 320;
/// What a conversation takes in a hello or a behind.
const CHAT_JSON_BYTES: usize = 160;

/// The frame of an event for `viewer`; made once for all who see the conversation alike.
pub(super) fn frame_for(event: &Event, viewer: &UserId) -> Bytes {
    event.encoded(viewer, |event, at| {
        frame::text(EVENT_JSON_BYTES + event.bytes() / 2, |out| event_json(out, event, at))
    })
}

fn event_json(out: &mut Vec<u8>, event: &Event, at: &Address) {
    match &event.content {
        Content::Message(message) => message_event(out, &message.view(0), at, &addressed(at)),
        Content::Recalled(last) => message_event(out, &last.view(), at, &addressed(at)),
        Content::Behind => behind_json(out, &[(at.clone(), event.messages, event.recalls)]),
        Content::Recall { msg_index, recall_index, by } => {
            recall_event(out, *msg_index, *recall_index, by.as_str(), at);
        }
        Content::Ack { user, msg_index, unread } => {
            begin(out, "ack", at);
            text_field(out, b"{\"user\":", user.as_str());
            field(out, b",\"msg_index\":", *msg_index);
            field(out, b",\"unread\":", *unread);
            out.extend_from_slice(b"}}");
        }
        Content::Group { action, user, by, .. } => {
            group_event(out, action, user.as_str(), by, at);
            action_fields(out, action);
            out.extend_from_slice(b"}}");
        }
        Content::Crowd { action, count, by } => {
            group_event(out, action, "", by, at);
            field(out, b",\"count\":", *count as u64);
            out.extend_from_slice(b"}}");
        }
        // Not given to sessions.
        Content::Block { .. } => {}
        Content::Signal { user, kind, data } => {
            begin(out, "signal", at);
            text_field(out, b"{\"user\":", user.as_str());
            text_field(out, b",\"kind\":", kind);
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(data.as_bytes());
            out.extend_from_slice(b"}}");
        }
    }
}

/// A change of a group up to what is its own.
fn group_event(out: &mut Vec<u8>, action: &GroupAction, user: &str, by: &UserId, at: &Address) {
    begin(out, "group", at);
    text_field(out, b"{\"action\":", action_name(action));
    text_field(out, b",\"user\":", user);
    text_field(out, b",\"by\":", by.as_str());
}

/// What a change of a group is called.
pub(in crate::http) fn action_name(action: &GroupAction) -> &'static str {
    match action {
        GroupAction::Create => "create",
        GroupAction::Add => "add",
        GroupAction::Kick => "kick",
        GroupAction::Leave => "leave",
        GroupAction::Duty(_) => "duty",
        GroupAction::Rename(_) => "rename",
        GroupAction::Mute { .. } => "mute",
        GroupAction::Dismiss => "dismiss",
    }
}

/// What an action has beside whom it is about.
pub(in crate::http) fn action_fields(out: &mut Vec<u8>, action: &GroupAction) {
    match action {
        GroupAction::Duty(duty) => field(out, b",\"duty\":", *duty as u32),
        GroupAction::Rename(name) => text_field(out, b",\"name\":", name),
        GroupAction::Mute { until_s } => field(out, b",\"until\":", *until_s),
        GroupAction::Create
        | GroupAction::Add
        | GroupAction::Kick
        | GroupAction::Leave
        | GroupAction::Dismiss => {}
    }
}

/// Everything up to the content.
fn begin(out: &mut Vec<u8>, kind: &str, at: &Address) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",");
    target_json(out, at);
    out.extend_from_slice(b",\"content\":");
}

/// A message as an event; `addressed` is the end of its `msg_info`.
pub(super) fn message_event(out: &mut Vec<u8>, message: &MessageView<'_>, at: &Address, addressed: &[u8]) {
    begin(out, "msg", at);
    message_json(out, message, addressed);
    out.push(b'}');
}

/// A recall as an event.
pub(super) fn recall_event(out: &mut Vec<u8>, msg_index: u32, recall_index: u32, by: &str, at: &Address) {
    begin(out, "recall", at);
    field(out, b"{\"msg_index\":", msg_index);
    field(out, b",\"recall_index\":", recall_index);
    text_field(out, b",\"by\":", by);
    out.extend_from_slice(b"}}");
}

/// The first event: who is connected, and where each conversation stands. `more`: there are
/// conversations behind these.
pub(super) fn hello(user: &UserId, chats: &[Chat], more: bool, epoch: u32) -> Bytes {
    frame::text(EVENT_JSON_BYTES + chats.len() * CHAT_JSON_BYTES, |out| {
        out.extend_from_slice(b"{\"type\":\"hello\",\"chats\":[");
        list(out, chats, |out, chat| {
            chat_json(out, chat);
            out.push(b'}');
        });
        text_field(out, b"],\"user\":", user.as_str());
        field(out, b",\"epoch\":", epoch);
        out.extend_from_slice(b",\"more\":");
        flag(out, more);
        out.push(b'}');
    })
}

/// Where to pull to. No conversations: all that the user is in.
pub(super) fn behind(behind: &Behind, viewer: &UserId) -> Bytes {
    let Behind::Chats(chats) = behind else { return behind_list(&[]) };
    let named: Vec<_> = chats
        .iter()
        .map(|(key, newest)| (key.address_for(viewer), newest.msg_index, newest.recall_index))
        .collect();
    behind_list(&named)
}

/// The same for conversations as the viewer addresses them, with their message and recall index.
pub(super) fn behind_list(chats: &[(Address, u32, u32)]) -> Bytes {
    frame::text(EVENT_JSON_BYTES + chats.len() * CHAT_JSON_BYTES, |out| behind_json(out, chats))
}

fn behind_json(out: &mut Vec<u8>, chats: &[(Address, u32, u32)]) {
    out.extend_from_slice(b"{\"type\":\"behind\",\"chats\":[");
    list(out, chats, |out, (at, msg_index, recall_index)| {
        out.push(b'{');
        target_json(out, at);
        field(out, b",\"msg_index\":", *msg_index);
        field(out, b",\"recall_index\":", *recall_index);
        out.push(b'}');
    });
    out.extend_from_slice(b"]}");
}

/// The last event before the server closes the stream, and why.
pub(super) fn close(code: u16, why: &str) -> Bytes {
    frame::text(EVENT_JSON_BYTES, |out| {
        field(out, b"{\"type\":\"close\",\"code\":", code);
        out.extend_from_slice(b",\"msg\":");
        text(out, why);
        out.push(b'}');
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::live::Newest;
    use crate::message::{ConversationKey, Duty, GroupId, OwnedMessage};

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("an id")
    }

    fn json(frame: &[u8]) -> String {
        String::from_utf8(frame::payload(frame).to_vec()).expect("UTF-8")
    }

    fn seen_by(viewer: &str, key: ConversationKey, content: Content) -> String {
        json(&frame_for(&Event::new(Arc::new(key), 7, 2, content), &user(viewer)))
    }

    fn pair() -> ConversationKey {
        ConversationKey::direct(user("alice"), user("bob"))
    }

    fn group() -> ConversationKey {
        ConversationKey::Group(GroupId::parse("g").expect("an id"))
    }

    #[test]
    fn a_message_is_addressed_as_its_reader_would() {
        let content = || {
            Content::Message(Arc::new(OwnedMessage {
                msg_index: 7,
                sender: user("alice"),
                timestamp_ns: 1_700_000_000_123_456_789,
                msg: "say \"hi\"".into(),
                extra: "".into(),
            }))
        };
        let expected = concat!(
            r#"{"type":"msg","target":"alice","target_type":"user","content":{"msg_index":7,"#,
            r#""recall_index":0,"msg":"say \"hi\"","extra":"","timestamp":1700000000,"sender":"alice","#,
            r#""target":"alice","target_type":"user"}}"#
        );
        assert_eq!(seen_by("bob", pair(), content()), expected);
        let of_alice = seen_by("alice", pair(), content());
        assert_eq!(of_alice, expected.replace(r#""target":"alice""#, r#""target":"bob""#));
    }

    #[test]
    fn every_other_event_has_the_shape_of_the_contract() {
        let recall = Content::Recall { msg_index: 3, recall_index: 2, by: user("bob") };
        assert_eq!(
            seen_by("alice", pair(), recall),
            r#"{"type":"recall","target":"bob","target_type":"user","content":{"msg_index":3,"recall_index":2,"by":"bob"}}"#
        );
        let ack = Content::Ack { user: user("bob"), msg_index: 3, unread: 4 };
        assert_eq!(
            seen_by("alice", group(), ack),
            r#"{"type":"ack","target":"g","target_type":"group","content":{"user":"bob","msg_index":3,"unread":4}}"#
        );
        let signal =
            Content::Signal { user: user("bob"), kind: "typing".into(), data: r#"{"on":true}"#.into() };
        assert_eq!(
            seen_by("alice", group(), signal),
            r#"{"type":"signal","target":"g","target_type":"group","content":{"user":"bob","kind":"typing","data":{"on":true}}}"#
        );
        let changed = |action| {
            seen_by(
                "alice",
                group(),
                Content::Group { action, user: user("bob"), by: user("alice"), newest_message_ns: 1 },
            )
        };
        for (action, shown) in [
            (GroupAction::Duty(Duty::Admin), r#""duty","user":"bob","by":"alice","duty":3"#),
            (GroupAction::Rename("a \"b\"".into()), r#""rename","user":"bob","by":"alice","name":"a \"b\"""#),
            (GroupAction::Mute { until_s: 9 }, r#""mute","user":"bob","by":"alice","until":9"#),
            (GroupAction::Dismiss, r#""dismiss","user":"bob","by":"alice""#),
        ] {
            let start = r#"{"type":"group","target":"g","target_type":"group","content":{"action":"#;
            assert_eq!(changed(action), format!("{start}{shown}}}}}"));
        }
        let kick = Content::Group {
            action: GroupAction::Kick,
            user: user("bob"),
            by: user("alice"),
            newest_message_ns: 1,
        };
        assert_eq!(
            seen_by("alice", group(), kick),
            r#"{"type":"group","target":"g","target_type":"group","content":{"action":"kick","user":"bob","by":"alice"}}"#
        );
        let crowd = Content::Crowd { action: GroupAction::Add, count: 6_000, by: user("alice") };
        assert_eq!(
            seen_by("alice", group(), crowd),
            r#"{"type":"group","target":"g","target_type":"group","content":{"action":"add","user":"","by":"alice","count":6000}}"#
        );
    }

    #[test]
    fn hello_says_who_and_where_everything_stands() {
        let chat = Chat {
            at: Address::User(user("bob")),
            msg_index: 7,
            recall_index: 1,
            ack_index: 5,
            unread: 2,
            timestamp_ns: 9,
        };
        assert_eq!(
            json(&hello(&user("alice"), &[chat], false, 3)),
            concat!(
                r#"{"type":"hello","chats":[{"target":"bob","target_type":"user","msg_index":7,"#,
                r#""recall_index":1,"ack_index":5,"unread":2}],"user":"alice","epoch":3,"more":false}"#
            )
        );
    }

    #[test]
    fn behind_names_conversations_or_none_for_all() {
        let newest = Newest { msg_index: 9, recall_index: 1 };
        let chats = Behind::Chats(HashMap::from([(Arc::new(pair()), newest)]));
        assert_eq!(
            json(&behind(&chats, &user("bob"))),
            r#"{"type":"behind","chats":[{"target":"alice","target_type":"user","msg_index":9,"recall_index":1}]}"#
        );
        assert_eq!(json(&behind(&Behind::Everything, &user("bob"))), r#"{"type":"behind","chats":[]}"#);
    }

    #[test]
    fn the_last_event_says_why() {
        assert_eq!(
            json(&close(4401, "token expired")),
            r#"{"type":"close","code":4401,"msg":"token expired"}"#
        );
    }
}
