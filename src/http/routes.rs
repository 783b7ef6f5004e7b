//! Paths to verbs, verbs to calls. Everything the API answers is in the matches of this file.

use super::chat;
use super::edge::Edge;
use super::encoding::{BodyEncoding, ReplyEncoding};
use super::group;
use super::relation;
use super::reply::Reply;
use super::request::decode;
use super::sync;
use crate::conversation::Conversations;
use crate::message::{Caller, Rejection};
use crate::telemetry::Verb;

/// The verb at a path.
pub(super) fn verb(path: &str) -> Verb {
    if let Some(name) = path.strip_prefix("/im.chat/") {
        return chat_verb(name);
    }
    if let Some(name) = path.strip_prefix("/im.relation/") {
        return relation_verb(name);
    }
    if path == "/openapi.json" {
        return Verb::OpenApi;
    }
    path.strip_prefix("/im.group/").map_or(Verb::Unknown, group_verb)
}

/// The method that a verb is called with.
pub(super) fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Stream | Verb::OpenApi => "GET",
        _ => "POST",
    }
}

/// The verb that a frame on a stream names: `send`, `im.chat/send`, `group.create`, `im.group/create`, `relation.block`,
/// `im.relation/block`; and `resume`, which only streams have.
pub(super) fn verb_of_method(method: &str) -> Verb {
    let named = |short: &str, long: &str| method.strip_prefix(short).or_else(|| method.strip_prefix(long));
    match (method, named("group.", "im.group/"), named("relation.", "im.relation/")) {
        ("resume", ..) => Verb::Resume,
        (_, Some(name), _) => group_verb(name),
        (_, None, Some(name)) => relation_verb(name),
        (method, None, None) => match chat_verb(method.strip_prefix("im.chat/").unwrap_or(method)) {
            Verb::Stream => Verb::Unknown,
            verb => verb,
        },
    }
}

fn chat_verb(name: &str) -> Verb {
    match name {
        "send" => Verb::Send,
        "recall" => Verb::Recall,
        "ack" => Verb::Ack,
        "pull" => Verb::Pull,
        "list" => Verb::List,
        "sync" => Verb::Sync,
        "acks" => Verb::Acks,
        "signal" => Verb::Signal,
        "online" => Verb::Online,
        "stream" => Verb::Stream,
        _ => Verb::Unknown,
    }
}

fn group_verb(name: &str) -> Verb {
    match name {
        "create" => Verb::GroupCreate,
        "info" => Verb::GroupInfo,
        "members" => Verb::GroupMembers,
        "add" => Verb::GroupAdd,
        "kick" => Verb::GroupKick,
        "leave" => Verb::GroupLeave,
        "set_duty" => Verb::GroupSetDuty,
        "rename" => Verb::GroupRename,
        "mute" => Verb::GroupMute,
        "dismiss" => Verb::GroupDismiss,
        "list" => Verb::GroupList,
        _ => Verb::Unknown,
    }
}

fn relation_verb(name: &str) -> Verb {
    match name {
        "block" => Verb::RelationBlock,
        "unblock" => Verb::RelationUnblock,
        "blocks" => Verb::RelationBlocks,
        _ => Verb::Unknown,
    }
}

/// Makes the call that a request asks for. Sends wait in place, the others apart: every connection has room for the
/// largest of what waits in place.
pub(super) async fn dispatch(
    edge: &Edge,
    verb: Verb,
    caller: &Caller,
    encoding: BodyEncoding,
    body: &[u8],
    reply_encoding: ReplyEncoding,
) -> Result<Reply, Rejection> {
    let (conversations, user) = (&edge.conversations, &caller.user);
    match verb {
        Verb::Send => chat::send(conversations, user, decode(encoding, body)?)?.await,
        Verb::Recall => Box::pin(chat::recall(conversations, user, decode(encoding, body)?)).await,
        Verb::Ack => Box::pin(chat::ack(conversations, user, decode(encoding, body)?)).await,
        Verb::Pull => {
            Box::pin(chat::pull(conversations, user, decode(encoding, body)?, reply_encoding)).await
        }
        _ => Box::pin(dispatch_rare(conversations, verb, caller, encoding, body)).await,
    }
}

async fn dispatch_rare(
    conversations: &Conversations,
    verb: Verb,
    caller: &Caller,
    encoding: BodyEncoding,
    body: &[u8],
) -> Result<Reply, Rejection> {
    let user = &caller.user;
    match verb {
        Verb::List => sync::list(conversations, user, decode(encoding, body)?).await,
        Verb::Sync => sync::sync(conversations, user, decode(encoding, body)?).await,
        Verb::Acks => sync::acks(conversations, user, decode(encoding, body)?).await,
        Verb::Signal => sync::signal(conversations, user, sync::decode_signal(encoding, body)?).await,
        Verb::Online => sync::online(conversations, user, decode(encoding, body)?).await,
        Verb::GroupCreate => group::create(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupInfo => group::info(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupMembers => group::members(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupAdd => group::add(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupKick => group::kick(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupLeave => group::leave(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupSetDuty => group::set_duty(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupRename => group::rename(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupMute => group::mute(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupDismiss => group::dismiss(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupList => group::list(conversations, user, decode(encoding, body)?).await,
        Verb::RelationBlock => relation::block(conversations, user, decode(encoding, body)?).await,
        Verb::RelationUnblock => relation::unblock(conversations, user, decode(encoding, body)?).await,
        Verb::RelationBlocks => relation::blocks(conversations, user, decode(encoding, body)?).await,
        // The first four are made by `dispatch`; the others were refused, or answered, before a body was read.
        Verb::Send
        | Verb::Recall
        | Verb::Ack
        | Verb::Pull
        | Verb::Stream
        | Verb::Resume
        | Verb::OpenApi
        | Verb::Unknown => Err(Rejection::Invalid("there is nothing at this path".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::proto::OPENAPI;

    #[test]
    fn the_openapi_document_has_every_path_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().expect("paths");
        let mut described = BTreeSet::new();
        for (path, item) in paths {
            let verb = verb(path);
            assert_ne!(verb, Verb::Unknown, "{path}");
            assert!(item.get(method(verb).to_ascii_lowercase()).is_some(), "{path}");
            described.insert(format!("{verb:?}"));
        }
        let all = crate::telemetry::verbs().filter(|verb| !matches!(verb, Verb::Resume | Verb::Unknown));
        assert_eq!(described, all.map(|verb| format!("{verb:?}")).collect());
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        let references = OPENAPI.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next());
        let missing: Vec<_> = references.filter(|pointer| document.pointer(pointer).is_none()).collect();
        assert_eq!(missing, [""; 0]);
        assert!(OPENAPI.contains("at most 64 bytes; makes a retry safe"), "the comments are in it");
    }
}
