//! The labels of the metrics: every value that one can have, so that each is resolved once.
//!
//! What is counted under them is [`super::Metrics`]' business.

use prometheus_client::encoding::EncodeLabelSet;

/// What a request asked for, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `/im.chat/send`
    Send,
    /// `/im.chat/recall`
    Recall,
    /// `/im.chat/ack`
    Ack,
    /// `/im.chat/pull`
    Pull,
    /// `/im.chat/list`
    List,
    /// `/im.chat/sync`
    Sync,
    /// `/im.chat/acks`
    Acks,
    /// `/im.chat/signal`
    Signal,
    /// `/im.chat/online`
    Online,
    /// `/im.chat/stream`: opening one
    Stream,
    /// A resume on a stream
    Resume,
    /// `/im.group/create`
    GroupCreate,
    /// `/im.group/info`
    GroupInfo,
    /// `/im.group/members`
    GroupMembers,
    /// `/im.group/add`
    GroupAdd,
    /// `/im.group/kick`
    GroupKick,
    /// `/im.group/leave`
    GroupLeave,
    /// `/im.group/set_duty`
    GroupSetDuty,
    /// `/im.group/rename`
    GroupRename,
    /// `/im.group/mute`
    GroupMute,
    /// `/im.group/dismiss`
    GroupDismiss,
    /// `/im.group/list`
    GroupList,
    /// `/im.relation/block`
    RelationBlock,
    /// `/im.relation/unblock`
    RelationUnblock,
    /// `/im.relation/blocks`
    RelationBlocks,
    /// `/openapi.json`
    OpenApi,
    /// Anything else.
    Unknown,
}

pub(super) const VERBS: [(Verb, &str); 27] = [
    (Verb::Send, "send"),
    (Verb::Recall, "recall"),
    (Verb::Ack, "ack"),
    (Verb::Pull, "pull"),
    (Verb::List, "list"),
    (Verb::Sync, "sync"),
    (Verb::Acks, "acks"),
    (Verb::Signal, "signal"),
    (Verb::Online, "online"),
    (Verb::Stream, "stream"),
    (Verb::Resume, "resume"),
    (Verb::GroupCreate, "group_create"),
    (Verb::GroupInfo, "group_info"),
    (Verb::GroupMembers, "group_members"),
    (Verb::GroupAdd, "group_add"),
    (Verb::GroupKick, "group_kick"),
    (Verb::GroupLeave, "group_leave"),
    (Verb::GroupSetDuty, "group_set_duty"),
    (Verb::GroupRename, "group_rename"),
    (Verb::GroupMute, "group_mute"),
    (Verb::GroupDismiss, "group_dismiss"),
    (Verb::GroupList, "group_list"),
    (Verb::RelationBlock, "relation_block"),
    (Verb::RelationUnblock, "relation_unblock"),
    (Verb::RelationBlocks, "relation_blocks"),
    (Verb::OpenApi, "openapi"),
    (Verb::Unknown, "unknown"),
];

/// Code of a success in `chinwag_requests_total`; no error has it.
pub const SUCCESS: u32 = 0;

/// Every code a request can end with, the most frequent first (contract, section 3).
pub(super) const CODES: [u32; 13] =
    [SUCCESS, 10001, 10004, 10009, 10008, 10011, 20001, 10003, 20002, 20003, 20004, 22002, 22003];
/// Label of a code that is not in the list: better a vague label than a lost request.
pub(super) const CODE_OTHER: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    pub(super) verb: &'static str,
    pub(super) code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VerbLabel {
    pub(super) verb: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabel {
    pub(super) result: &'static str,
}

/// Who makes packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackMaker {
    /// A checkpoint, of what changed.
    Checkpoint = 0,
    /// Compaction, of other packs.
    Merge = 1,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PackLabel {
    pub(super) by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ModeLabel {
    pub(super) mode: &'static str,
}
