//! Who talks to whom: users, direct conversations and groups, the same in every proof.

use std::collections::HashMap;
use std::io;

use serde_json::{Value, json};

use crate::client::Client;
use crate::ledger::Ledger;
use crate::server::Server;

pub(crate) const USERS: usize = 8;
const GROUPS: usize = 8;

/// A conversation as its members address it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Room {
    Direct(usize, usize),
    /// Everybody is in it.
    Group(usize),
}

pub(crate) fn user(number: usize) -> String {
    format!("user-{number}")
}

/// Twelve direct conversations and eight groups.
pub(crate) fn rooms() -> Vec<Room> {
    let neighbours = (0..USERS).map(|one| Room::Direct(one, (one + 1) % USERS));
    let others = (0..4).map(|one| Room::Direct(one, one + 4));
    neighbours.chain(others).chain((0..GROUPS).map(Room::Group)).collect()
}

impl Room {
    pub(crate) fn has(&self, user: usize) -> bool {
        match self {
            Self::Direct(one, other) => user == *one || user == *other,
            Self::Group(_) => true,
        }
    }

    /// Somebody who can read it.
    pub(crate) fn reader(&self) -> usize {
        match self {
            Self::Direct(one, _) => *one,
            Self::Group(_) => 0,
        }
    }

    /// A request of `user` about this conversation.
    pub(crate) fn request(&self, user: usize, mut fields: Value) -> Value {
        let (target, kind) = match self {
            Self::Direct(one, other) => (self::user(if user == *one { *other } else { *one }), "user"),
            Self::Group(number) => (format!("group-{number}"), "group"),
        };
        fields["target"] = json!(target);
        fields["target_type"] = json!(kind);
        fields
    }
}

/// One client for each user.
pub(crate) fn clients(server: &Server) -> Vec<Client> {
    (0..USERS).map(|number| Client::new(server.public(), server.token(&user(number)))).collect()
}

/// Their tokens.
pub(crate) fn tokens(server: &Server) -> HashMap<usize, String> {
    (0..USERS).map(|number| (number, server.token(&user(number)))).collect()
}

/// Makes the groups of a new store.
pub(crate) fn found_groups(server: &Server, ledger: &Ledger) {
    let mut owner = Client::new(server.public(), server.token(&user(0)));
    for (number, room) in ledger.rooms.iter().enumerate() {
        if let Room::Group(group) = room {
            let founded = found_group(&mut owner, *group).expect("an answer");
            assert!(founded, "the group was refused");
            ledger.known(number).is_founded = true;
        }
    }
}

/// Makes a group of everybody, unless it is there; whether that was acknowledged.
pub(crate) fn found_group(owner: &mut Client, number: usize) -> io::Result<bool> {
    let members: Vec<_> = (1..USERS).map(user).collect();
    let group = json!({"group_id": format!("group-{number}"), "name": "a group", "members": members});
    Ok([200, 409].contains(&owner.call("/im.group/create", &group)?.status))
}
