//! The messages of the API document as protobuf, written down from the document: its fields in its
//! order from 1, what the contract adds behind them.

use std::collections::BTreeMap;

pub(crate) const MEDIA_TYPE: &str = "application/x-protobuf";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SendReq {
    #[prost(string, tag = "1")]
    pub(crate) target: String,
    #[prost(string, tag = "2")]
    pub(crate) target_type: String,
    #[prost(string, tag = "3")]
    pub(crate) msg: String,
    #[prost(string, tag = "4")]
    pub(crate) extra: String,
    #[prost(string, tag = "5")]
    pub(crate) client_msg_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SendResp {
    #[prost(uint32, tag = "1")]
    pub(crate) msg_index: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) timestamp: u32,
    #[prost(uint64, tag = "3")]
    pub(crate) timestamp_ns: u64,
    #[prost(bool, tag = "4")]
    pub(crate) duplicate: bool,
}

/// The request of recall and of ack.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IndexReq {
    #[prost(string, tag = "1")]
    pub(crate) target: String,
    #[prost(string, tag = "2")]
    pub(crate) target_type: String,
    #[prost(uint32, tag = "3")]
    pub(crate) msg_index: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RecallResp {
    #[prost(uint32, tag = "1")]
    pub(crate) recall_index: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PullReq {
    #[prost(string, tag = "1")]
    pub(crate) target: String,
    #[prost(string, tag = "2")]
    pub(crate) target_type: String,
    #[prost(string, tag = "3")]
    pub(crate) direction: String,
    #[prost(uint32, tag = "4")]
    pub(crate) start_msg_index: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) start_recall_index: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) count: u32,
    #[prost(uint32, tag = "7")]
    pub(crate) wait_ms: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PullResp {
    #[prost(message, repeated, tag = "1")]
    pub(crate) msgs: Vec<MsgInfo>,
    #[prost(btree_map = "uint32, uint32", tag = "2")]
    pub(crate) recalls: BTreeMap<u32, u32>,
    #[prost(uint32, tag = "3")]
    pub(crate) max_msg_index: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) max_recall_index: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) min_msg_index: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) epoch: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MsgInfo {
    #[prost(uint32, tag = "1")]
    pub(crate) msg_index: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) recall_index: u32,
    #[prost(string, tag = "3")]
    pub(crate) msg: String,
    #[prost(string, tag = "4")]
    pub(crate) extra: String,
    #[prost(uint32, tag = "5")]
    pub(crate) timestamp: u32,
    #[prost(string, tag = "6")]
    pub(crate) sender: String,
    #[prost(string, tag = "7")]
    pub(crate) target: String,
    #[prost(string, tag = "8")]
    pub(crate) target_type: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AcksResp {
    #[prost(btree_map = "string, uint32", tag = "1")]
    pub(crate) acks: BTreeMap<String, u32>,
}

/// The request of a change of one member: a duty, or until when; of rename with the name in the second place.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GroupChangeReq {
    #[prost(string, tag = "1")]
    pub(crate) group_id: String,
    #[prost(string, tag = "2")]
    pub(crate) user_id: String,
    #[prost(uint32, tag = "3")]
    pub(crate) number: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListReq {
    #[prost(string, tag = "1")]
    pub(crate) cursor: String,
    #[prost(uint32, tag = "2")]
    pub(crate) count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GroupListResp {
    #[prost(message, repeated, tag = "1")]
    pub(crate) groups: Vec<GroupInfoResp>,
    #[prost(string, tag = "2")]
    pub(crate) cursor: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GroupInfoResp {
    #[prost(string, tag = "1")]
    pub(crate) group_id: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(uint32, tag = "3")]
    pub(crate) created: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) members_count: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) duty: u32,
}

/// The request of block and of unblock.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlockReq {
    #[prost(string, tag = "1")]
    pub(crate) user_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BlocksResp {
    #[prost(string, repeated, tag = "1")]
    pub(crate) user_ids: Vec<String>,
    #[prost(string, tag = "2")]
    pub(crate) cursor: String,
}
