//! Records: what one accepted change of a conversation looks like as log bytes.
//!
//! A record is self-contained: it names its conversation and carries its own index, so replay can
//! demand exactly the next one, and another log could carry it unchanged. What a record does to a
//! conversation is the business of [`super::state`].

use std::ops::Range;

use bincode::{BorrowDecode, Encode};

use super::codec::{self, Error};
use crate::config::limits::ID_BYTES_MAX;
use crate::message::{ConversationKey, GroupId, UserId};

// The encoding keeps the length of a text in one byte up to 250.
const _: () = assert!(ID_BYTES_MAX <= 250);

/// Kind numbers on disk. Never reused, never renumbered.
mod kind {
    pub(super) const SEND: u8 = 1;
    pub(super) const RECALL: u8 = 2;
    pub(super) const ACK: u8 = 3;
    pub(super) const GROUP: u8 = 4;
    pub(super) const RELATION: u8 = 5;
}

/// A conversation's key inside a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub(crate) struct KeyV1<'a> {
    /// 0 direct, 1 group.
    kind: u8,
    /// The smaller user id, or the group id.
    first: &'a str,
    /// The greater user id; empty for a group.
    second: &'a str,
}

impl<'a> KeyV1<'a> {
    /// The key as it stands in records and chunks.
    pub(crate) fn of(key: &'a ConversationKey) -> Self {
        match key {
            ConversationKey::Direct(a, b) => Self { kind: 0, first: a.as_str(), second: b.as_str() },
            ConversationKey::Group(id) => Self { kind: 1, first: id.as_str(), second: "" },
        }
    }

    /// The two users of a direct conversation, as they stand here; `None` for a group.
    pub(crate) fn pair(&self) -> Option<(&'a str, &'a str)> {
        (self.kind == 0).then_some((self.first, self.second))
    }

    /// The smaller user id, or the group id.
    pub(crate) fn first(&self) -> &'a str {
        self.first
    }

    /// Whether [`parse`](Self::parse) would take it, without making anything.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_lawful = match self.kind {
            0 => self.first <= self.second && UserId::is_lawful(self.first) && UserId::is_lawful(self.second),
            1 => self.second.is_empty() && GroupId::is_lawful(self.first),
            _ => false,
        };
        if is_lawful { Ok(()) } else { Err(Error::Impossible("key")) }
    }

    /// The key it stands for; an error when ids or their order break the rules.
    pub(crate) fn parse(&self) -> Result<ConversationKey, Error> {
        let user = |id| UserId::parse(id).map_err(|_| Error::Impossible("key"));
        match self.kind {
            0 if self.first <= self.second => {
                Ok(ConversationKey::Direct(user(self.first)?, user(self.second)?))
            }
            1 if self.second.is_empty() => {
                GroupId::parse(self.first).map(ConversationKey::Group).map_err(|_| Error::Impossible("key"))
            }
            _ => Err(Error::Impossible("key")),
        }
    }
}

/// The bytes that name `key` in a snapshot.
pub(crate) fn encode_key(key: &ConversationKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    codec::encode_into(&KeyV1::of(key), &mut bytes);
    bytes
}

/// The key that [`encode_key`] wrote.
pub(crate) fn decode_key(bytes: &[u8]) -> Result<ConversationKey, Error> {
    codec::decode::<KeyV1<'_>>(bytes)?.parse()
}

/// The key bytes with which the payload of a record begins: what [`encode_key`] would write.
pub(crate) fn key_bytes_of(payload: &[u8]) -> Result<&[u8], Error> {
    if let Some(key) = short_key_bytes_of(payload) {
        return Ok(key);
    }
    let bytes = codec::length_of::<KeyV1<'_>>(payload)?;
    Ok(&payload[..bytes])
}

/// The same where both lengths are such as lawful ids have: one byte each. A start asks this of every record, and
/// decoding takes four times as long.
fn short_key_bytes_of(payload: &[u8]) -> Option<&[u8]> {
    let first = 2..2 + usize::from(*payload.get(1)?);
    let second = first.end + 1..first.end + 1 + usize::from(*payload.get(first.end)?);
    let is_text = |id: &Range<usize>| {
        id.len() <= ID_BYTES_MAX && payload.get(id.clone()).is_some_and(|id| str::from_utf8(id).is_ok())
    };
    (is_text(&first) && is_text(&second)).then(|| &payload[..second.end])
}

/// A message was sent. Its sender's read cursor moves to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub(crate) struct SendV1<'a> {
    pub(crate) key: KeyV1<'a>,
    pub(crate) msg_index: u32,
    pub(crate) sender: &'a str,
    pub(crate) timestamp_ns: u64,
    pub(crate) client_msg_id: &'a str,
    pub(crate) msg: &'a str,
    pub(crate) extra: &'a str,
}

/// A message was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub(crate) struct RecallV1<'a> {
    pub(crate) key: KeyV1<'a>,
    pub(crate) recall_index: u32,
    pub(crate) msg_index: u32,
    pub(crate) by: &'a str,
    pub(crate) timestamp_ns: u64,
}

/// A user has read up to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub(crate) struct AckV1<'a> {
    pub(crate) key: KeyV1<'a>,
    pub(crate) user: &'a str,
    pub(crate) msg_index: u32,
}

/// What a [`GroupV1`] record does; numbers on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum GroupChange {
    /// The group begins; `users[0]` owns it, the rest are members.
    Create = 1,
    /// `users` come in.
    Add = 2,
    /// `users` are put out by `by`.
    Kick = 3,
    /// `users[0]` goes.
    Leave = 4,
    /// `users[0]` gets `duty`; when that is the owner's, the owner before becomes an admin.
    Duty = 5,
    /// The group gets `name`.
    Rename = 6,
    /// `users[0]` may send nothing before `until_s`; 0: may send again.
    Mute = 7,
    /// The group ends: everybody goes, and nothing is readable any more.
    Dismiss = 8,
}

/// A group changed. One shape for every change, so that later changes need no new kind.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
pub(crate) struct GroupV1<'a> {
    pub(crate) key: KeyV1<'a>,
    /// A [`GroupChange`].
    pub(crate) change: u8,
    /// Who did it.
    pub(crate) by: &'a str,
    pub(crate) timestamp_ns: u64,
    /// Whom it is about.
    pub(crate) users: Vec<&'a str>,
    /// The name, where the change sets one.
    pub(crate) name: &'a str,
    /// The duty, where the change sets one.
    pub(crate) duty: u8,
    /// Until when, Unix seconds, where the change has an end.
    pub(crate) until_s: u64,
}

impl GroupV1<'_> {
    /// The change, if this version knows it.
    pub(crate) fn change(&self) -> Result<GroupChange, Error> {
        match self.change {
            1 => Ok(GroupChange::Create),
            2 => Ok(GroupChange::Add),
            3 => Ok(GroupChange::Kick),
            4 => Ok(GroupChange::Leave),
            5 => Ok(GroupChange::Duty),
            6 => Ok(GroupChange::Rename),
            7 => Ok(GroupChange::Mute),
            8 => Ok(GroupChange::Dismiss),
            _ => Err(Error::Impossible("change")),
        }
    }
}

/// What a [`RelationV1`] record does; numbers on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum RelationChange {
    /// `by` blocks the other one.
    Block = 1,
    /// `by` does not block the other one any more.
    Unblock = 2,
}

/// One of a pair changed how they stand to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub(crate) struct RelationV1<'a> {
    pub(crate) key: KeyV1<'a>,
    /// A [`RelationChange`].
    pub(crate) change: u8,
    /// Who did it.
    pub(crate) by: &'a str,
    pub(crate) timestamp_ns: u64,
}

impl RelationV1<'_> {
    /// The change, if this version knows it.
    pub(crate) fn change(&self) -> Result<RelationChange, Error> {
        match self.change {
            1 => Ok(RelationChange::Block),
            2 => Ok(RelationChange::Unblock),
            _ => Err(Error::Impossible("change")),
        }
    }
}

/// One accepted change of one conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// See [`SendV1`].
    Send(SendV1<'a>),
    /// See [`RecallV1`].
    Recall(RecallV1<'a>),
    /// See [`AckV1`].
    Ack(AckV1<'a>),
    /// See [`GroupV1`].
    Group(GroupV1<'a>),
    /// See [`RelationV1`].
    Relation(RelationV1<'a>),
}

impl<'a> Record<'a> {
    /// Bytes of a record beside its texts: numbers, lengths, key and ids of usual size. Only a
    /// first guess for the buffer.
    const OVERHEAD_BYTES: usize = 96;

    /// Whose it is.
    pub(crate) fn key(&self) -> KeyV1<'a> {
        match self {
            Self::Send(record) => record.key,
            Self::Recall(record) => record.key,
            Self::Ack(record) => record.key,
            Self::Group(record) => record.key,
            Self::Relation(record) => record.key,
        }
    }

    /// The number of its kind in the log frame.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Send(_) => kind::SEND,
            Self::Recall(_) => kind::RECALL,
            Self::Ack(_) => kind::ACK,
            Self::Group(_) => kind::GROUP,
            Self::Relation(_) => kind::RELATION,
        }
    }

    /// Its payload in the log.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(Self::OVERHEAD_BYTES + self.text_bytes());
        match self {
            Self::Send(record) => codec::encode_into(record, &mut buffer),
            Self::Recall(record) => codec::encode_into(record, &mut buffer),
            Self::Ack(record) => codec::encode_into(record, &mut buffer),
            Self::Group(record) => codec::encode_into(record, &mut buffer),
            Self::Relation(record) => codec::encode_into(record, &mut buffer),
        }
        buffer
    }

    fn text_bytes(&self) -> usize {
        match self {
            Self::Send(record) => record.msg.len() + record.extra.len() + record.client_msg_id.len(),
            Self::Group(record) => {
                record.name.len() + record.users.iter().map(|user| user.len() + 2).sum::<usize>()
            }
            Self::Recall(_) | Self::Ack(_) | Self::Relation(_) => 0,
        }
    }

    /// Whether records of this kind are messages.
    pub(crate) fn is_send(kind: u8) -> bool {
        kind == kind::SEND
    }

    /// Whether records of this kind are about users alone, and begin no conversation.
    pub(crate) fn is_relation(kind: u8) -> bool {
        kind == kind::RELATION
    }

    /// Whether records of this kind are changes of a group.
    pub(crate) fn is_group(kind: u8) -> bool {
        kind == kind::GROUP
    }

    /// Reads back what [`Record::encode`] wrote.
    pub(crate) fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, Error> {
        match kind {
            kind::SEND => codec::decode(payload).map(Self::Send),
            kind::RECALL => codec::decode(payload).map(Self::Recall),
            kind::ACK => codec::decode(payload).map(Self::Ack),
            kind::GROUP => codec::decode(payload).map(Self::Group),
            kind::RELATION => codec::decode(payload).map(Self::Relation),
            unknown => Err(Error::UnknownKind(unknown)),
        }
    }
}

/// Extends a conversation's rolling hash by one record (XXH3-128 of the payload, seeded with the
/// hash before it and the kind). Equal histories have equal hashes.
pub(crate) fn extend_hash(before: u128, kind: u8, payload: &[u8]) -> u128 {
    let folded = (before as u64) ^ ((before >> 64) as u64).rotate_left(32);
    xxhash_rust::xxh3::xxh3_128_with_seed(payload, folded.wrapping_add(u64::from(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("a valid id")
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn one_of_each(key: &ConversationKey) -> [Record<'_>; 5] {
        let key = KeyV1::of(key);
        [
            Record::Send(SendV1 {
                key,
                msg_index: 300,
                sender: "alice",
                timestamp_ns: 1_700_000_000_123_456_789,
                client_msg_id: "c-1",
                msg: "hé",
                extra: "{}",
            }),
            Record::Recall(RecallV1 { key, recall_index: 1, msg_index: 300, by: "alice", timestamp_ns: 5 }),
            Record::Ack(AckV1 { key, user: "bob", msg_index: 70_000 }),
            Record::Group(GroupV1 {
                key,
                change: GroupChange::Add as u8,
                by: "alice",
                timestamp_ns: 9,
                users: vec!["carol", "dave"],
                name: "",
                duty: 0,
                until_s: 0,
            }),
            Record::Relation(RelationV1 { key, change: 1, by: "bob", timestamp_ns: 300 }),
        ]
    }

    /// The bytes of every record kind as released. A change here is a change of the disk format:
    /// it needs a new kind or version and a reader for the old one, never a new golden value.
    #[test]
    fn records_have_the_bytes_they_always_had() {
        let key = ConversationKey::direct(user("bob"), user("alice"));
        let bytes = one_of_each(&key).map(|record| format!("{} {}", record.kind(), hex(&record.encode())));
        assert_eq!(
            bytes,
            [
                "1 0005616c69636503626f62fb2c0105616c696365fd15cd853dfe9c971703632d310368c3a9027b7d",
                "2 0005616c69636503626f6201fb2c0105616c69636505",
                "3 0005616c69636503626f6203626f62fc70110100",
                "4 0005616c69636503626f620205616c6963650902056361726f6c0464617665000000",
                "5 0005616c69636503626f620103626f62fb2c01",
            ]
        );
        let group = ConversationKey::Group(GroupId::parse("g").expect("a valid id"));
        assert_eq!(hex(&encode_key(&group)), "01016700");
    }

    #[test]
    fn changes_of_duty_name_and_mute_and_the_end_have_the_bytes_they_always_had() {
        let key = ConversationKey::Group(GroupId::parse("g").expect("a valid id"));
        let of = |change: GroupChange, users: Vec<&'static str>, name, duty, until_s| {
            let (key, change, by, timestamp_ns) = (KeyV1::of(&key), change as u8, "alice", 9);
            let record = Record::Group(GroupV1 { key, change, by, timestamp_ns, users, name, duty, until_s });
            let bytes = record.encode();
            assert_eq!(Record::decode(record.kind(), &bytes).expect("decodes"), record);
            format!("{} {}", record.kind(), hex(&bytes))
        };
        assert_eq!(
            [
                of(GroupChange::Duty, vec!["bob"], "", 3, 0),
                of(GroupChange::Rename, vec![], "new", 0, 0),
                of(GroupChange::Mute, vec!["bob"], "", 0, 1_800_000_000),
                of(GroupChange::Dismiss, vec![], "", 0, 0),
            ],
            [
                "4 010167000505616c696365090103626f62000300",
                "4 010167000605616c6963650900036e65770000",
                "4 010167000705616c696365090103626f620000fc00d2496b",
                "4 010167000805616c6963650900000000",
            ]
        );
    }

    #[test]
    fn records_come_back_as_they_went() {
        let key = ConversationKey::Group(GroupId::parse("g-1").expect("a valid id"));
        for record in one_of_each(&key) {
            let bytes = record.encode();
            let decoded = Record::decode(record.kind(), &bytes).expect("decodes");
            assert_eq!(decoded, record);
            assert_eq!(decode_key(key_bytes_of(&bytes).expect("a key")).expect("a key"), key);
        }
    }

    #[test]
    fn a_cut_or_lengthened_record_is_refused_and_never_panics() {
        let key = ConversationKey::direct(user("a"), user("b"));
        for record in one_of_each(&key) {
            let bytes = record.encode();
            for cut in 0..bytes.len() {
                assert!(Record::decode(record.kind(), &bytes[..cut]).is_err());
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            assert!(matches!(Record::decode(record.kind(), &longer), Err(Error::TrailingBytes { extra: 1 })));
        }
        let hostile = [0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0x10];
        assert!(Record::decode(kind::SEND, &hostile).is_err());
        assert!(matches!(Record::decode(99, &[]), Err(Error::UnknownKind(99))));
    }

    #[test]
    fn a_key_out_of_order_is_refused() {
        let long = "l".repeat(ID_BYTES_MAX + 1);
        let keys = [
            (0, "b", "a"),
            (2, "b", ""),
            (1, "b", "c"),
            (1, "", ""),
            (0, "", "a"),
            (0, "a", "\n"),
            (0, "a", &long),
            (1, &long, ""),
        ];
        for (kind, first, second) in keys {
            let key = KeyV1 { kind, first, second };
            assert!(key.parse().is_err() && key.check().is_err(), "{key:?}");
        }
        for (kind, first, second) in [(0, "a", "b"), (0, "a", "a"), (1, "g", "")] {
            let key = KeyV1 { kind, first, second };
            assert!(key.parse().is_ok() && key.check().is_ok(), "{key:?}");
        }
    }

    #[test]
    fn a_key_ends_where_decoding_it_ends() {
        let long = "l".repeat(300);
        for (first, second) in [("a", "b"), ("", ""), ("ä", "ö"), (&long, "b"), ("a", &long)] {
            let mut bytes = Vec::new();
            codec::encode_into(&KeyV1 { kind: 0, first, second }, &mut bytes);
            let key_bytes = bytes.len();
            bytes.extend_from_slice(b"\xffbehind");
            assert_eq!(key_bytes_of(&bytes).ok(), Some(&bytes[..key_bytes]), "{first:?} {second:?}");
            for cut in 0..key_bytes {
                assert!(key_bytes_of(&bytes[..cut]).is_err());
            }
        }
        // Not UTF-8; and a length that is written longer than it needs to be, which decodes all the same.
        assert!(key_bytes_of(&[0, 1, 0xff, 0]).is_err());
        assert_eq!(key_bytes_of(&[0, 0xfb, 1, 0, b'a', 1, b'b', 9]).ok().map(<[u8]>::len), Some(7));
    }

    #[test]
    fn the_rolling_hash_depends_on_order_kind_and_content() {
        let hash = |records: &[(u8, &[u8])]| {
            records.iter().fold(0, |before, (kind, payload)| extend_hash(before, *kind, payload))
        };
        let base = hash(&[(1, b"a"), (1, b"b")]);
        assert_eq!(base, hash(&[(1, b"a"), (1, b"b")]));
        assert_ne!(base, hash(&[(1, b"b"), (1, b"a")]));
        assert_ne!(base, hash(&[(1, b"a"), (2, b"b")]));
        assert_ne!(base, hash(&[(1, b"a"), (1, b"c")]));
    }
}
