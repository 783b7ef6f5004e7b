//! Paths to verbs, verbs to calls. Everything the API answers is in the two matches of this file.

use super::chat;
use super::edge::Edge;
use super::exchange::Call;
use super::group;
use super::reply::Reply;
use super::request::decode;
use crate::message::Rejection;
use crate::telemetry::Verb;

/// The verb at a path.
pub(super) fn verb(path: &str) -> Verb {
    match path {
        "/im.chat/send" => Verb::Send,
        "/im.chat/recall" => Verb::Recall,
        "/im.chat/ack" => Verb::Ack,
        "/im.chat/pull" => Verb::Pull,
        "/im.group/create" => Verb::GroupCreate,
        "/im.group/info" => Verb::GroupInfo,
        "/im.group/members" => Verb::GroupMembers,
        "/im.group/add" => Verb::GroupAdd,
        "/im.group/kick" => Verb::GroupKick,
        "/im.group/leave" => Verb::GroupLeave,
        _ => Verb::Unknown,
    }
}

/// Makes the call that a request asks for.
pub(super) async fn dispatch(edge: &Edge, verb: Verb, call: &Call, body: &[u8]) -> Result<Reply, Rejection> {
    let conversations = &edge.conversations;
    let Call { caller, body_encoding, .. } = call;
    let encoding = *body_encoding;
    match verb {
        Verb::Send => chat::send(conversations, &caller.user, decode(encoding, body)?).await,
        Verb::Recall => chat::recall(conversations, &caller.user, decode(encoding, body)?).await,
        Verb::Ack => chat::ack(conversations, &caller.user, decode(encoding, body)?).await,
        Verb::Pull => chat::pull(conversations, &caller.user, decode(encoding, body)?).await,
        Verb::GroupCreate => group::create(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupInfo => group::info(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupMembers => group::members(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupAdd => group::add(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupKick => group::kick(conversations, caller, decode(encoding, body)?).await,
        Verb::GroupLeave => group::leave(conversations, caller, decode(encoding, body)?).await,
        // Refused before its body was read.
        Verb::Unknown => Err(Rejection::Invalid("there is nothing at this path".to_owned())),
    }
}
