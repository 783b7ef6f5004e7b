//! Conversations: one actor each, which orders what is sent, recalled and acknowledged.
//!
//! [`Conversations`] is the handle the edge uses. Every method answers only what is durable under
//! the server's sync mode, and gives back a lawful "no" as a [`Rejection`].

pub mod chunk;
pub mod codec;
mod group;
mod history;
mod participants;
mod record;
mod resident;
pub mod state;

use crate::message::{
    Address, Caller, Draft, GroupId, GroupInfo, MembersPage, Page, Pull, Receipt, Rejection, UserId,
};

/// The handle to every conversation of this node. Cheap to clone.
#[derive(Clone)]
pub struct Conversations {}

impl Conversations {
    /// Stores a message; answers once it is durable.
    pub async fn send(&self, _caller: &UserId, _to: &Address, _draft: Draft) -> Result<Receipt, Rejection> {
        Err(Rejection::Draining)
    }

    /// Takes a message back; answers its recall index, the first one if it was recalled before.
    pub async fn recall(&self, _caller: &UserId, _at: &Address, _msg_index: u32) -> Result<u32, Rejection> {
        Err(Rejection::Draining)
    }

    /// Moves the caller's read cursor forward; never back.
    pub async fn ack(&self, _caller: &UserId, _at: &Address, _msg_index: u32) -> Result<(), Rejection> {
        Err(Rejection::Draining)
    }

    /// A page of durable history.
    pub async fn pull(&self, _caller: &UserId, _at: &Address, _pull: Pull) -> Result<Page, Rejection> {
        Err(Rejection::Draining)
    }

    /// Creates a group owned by the caller; without an id the server makes one.
    pub async fn create_group(
        &self,
        _caller: &Caller,
        _group: Option<GroupId>,
        _name: String,
        _members: Vec<UserId>,
    ) -> Result<GroupId, Rejection> {
        Err(Rejection::Draining)
    }

    /// Adds members; those who are in already stay as they are.
    pub async fn add_members(
        &self,
        _caller: &Caller,
        _group: &GroupId,
        _users: Vec<UserId>,
    ) -> Result<(), Rejection> {
        Err(Rejection::Draining)
    }

    /// Removes members; those who are not in are passed over.
    pub async fn kick_members(
        &self,
        _caller: &Caller,
        _group: &GroupId,
        _users: Vec<UserId>,
    ) -> Result<(), Rejection> {
        Err(Rejection::Draining)
    }

    /// The caller leaves.
    pub async fn leave_group(&self, _caller: &Caller, _group: &GroupId) -> Result<(), Rejection> {
        Err(Rejection::Draining)
    }

    /// A page of members behind `cursor` (empty: from the start), at most `count`.
    pub async fn members(
        &self,
        _caller: &Caller,
        _group: &GroupId,
        _cursor: String,
        _count: u32,
    ) -> Result<MembersPage, Rejection> {
        Err(Rejection::Draining)
    }

    /// The group as the caller sees it.
    pub async fn group_info(&self, _caller: &Caller, _group: &GroupId) -> Result<GroupInfo, Rejection> {
        Err(Rejection::Draining)
    }
}
