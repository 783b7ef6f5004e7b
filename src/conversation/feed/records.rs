//! Records as they were read, until they are given out.
//!
//! Bounded by count and bytes; the first record is taken however long it is.

use std::collections::HashMap;
use std::ops::Range;

use super::entry::Entry;
use super::fate::Fate;
use crate::conversation::codec;
use crate::conversation::record::{Record, decode_key, key_bytes_of};
use crate::message::{ConversationKey, UserId};
use crate::wal;

/// Some records, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Records {
    rows: Vec<Row>,
    payloads: Vec<u8>,
}

#[derive(Debug)]
struct Row {
    lsn: u64,
    kind: u8,
    payload: Range<usize>,
    /// Of a send, once it is known: without, its text is not given out.
    fate: Option<Fate>,
}

/// The sends of one conversation: somebody in it, and each one's row and message index.
type Sends = (UserId, Vec<(usize, u32)>);

impl Records {
    /// Takes a record, if so many and so many bytes are not exceeded by it.
    pub(super) fn take(&mut self, record: wal::Record<'_>, count: usize, bytes_max: usize) -> bool {
        let bytes = self.payloads.len() + record.payload.len();
        if !self.rows.is_empty() && (self.rows.len() >= count || bytes > bytes_max) {
            return false;
        }
        let payload = self.payloads.len()..bytes;
        self.payloads.extend_from_slice(record.payload);
        self.rows.push(Row { lsn: record.lsn.0, kind: record.kind, payload, fate: None });
        true
    }

    /// The sends, by conversation.
    pub(super) fn sends(&self) -> Result<HashMap<ConversationKey, Sends>, codec::Error> {
        let mut by_key = HashMap::<&[u8], Sends>::new();
        for (number, row) in self.rows.iter().enumerate() {
            let payload = &self.payloads[row.payload.clone()];
            let Record::Send(send) = Record::decode(row.kind, payload)? else { continue };
            let sender = || UserId::parse(send.sender).map_err(|_| codec::Error::Impossible("sender"));
            let sends = match by_key.entry(key_bytes_of(payload)?) {
                std::collections::hash_map::Entry::Occupied(sends) => sends.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => place.insert((sender()?, Vec::new())),
            };
            sends.1.push((number, send.msg_index));
        }
        by_key.into_iter().map(|(key, sends)| Ok((decode_key(key)?, sends))).collect()
    }

    /// Notes what has become of sends, by their rows.
    pub(super) fn tell(&mut self, fates: HashMap<usize, Fate>) {
        for (row, fate) in fates {
            self.rows[row].fate = Some(fate);
        }
    }

    /// The records as they are given out.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry<'_>, codec::Error>> {
        self.rows.iter().map(|row| {
            let record = Record::decode(row.kind, &self.payloads[row.payload.clone()])?;
            Entry::of(row.lsn, record, row.fate.unwrap_or(Fate::Unknown))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Change;
    use super::*;
    use crate::conversation::record::{AckV1, KeyV1, SendV1};
    use crate::wal::Lsn;

    fn pair(other: &str) -> ConversationKey {
        let user = |id| UserId::parse(id).expect("a valid id");
        ConversationKey::direct(user("alice"), user(other))
    }

    fn send(key: &ConversationKey, msg_index: u32) -> (u8, Vec<u8>) {
        let (sender, client_msg_id, msg, extra) = ("alice", "", "a text", "and more");
        let key = KeyV1::of(key);
        let record =
            Record::Send(SendV1 { key, msg_index, sender, timestamp_ns: 9, client_msg_id, msg, extra });
        (record.kind(), record.encode())
    }

    fn take(records: &mut Records, lsn: u64, (kind, payload): &(u8, Vec<u8>), bytes_max: usize) -> bool {
        records.take(wal::Record { lsn: Lsn(lsn), kind: *kind, payload }, 3, bytes_max)
    }

    #[test]
    fn a_page_has_a_limit_in_records_and_in_bytes_but_always_one_record() {
        let record = send(&pair("bob"), 1);
        let mut records = Records::default();
        assert!(take(&mut records, 1, &record, 0) && !take(&mut records, 2, &record, record.1.len()));
        assert!(take(&mut records, 2, &record, usize::MAX) && take(&mut records, 3, &record, usize::MAX));
        assert!(!take(&mut records, 4, &record, usize::MAX));
    }

    #[test]
    fn sends_are_asked_for_by_conversation_and_without_an_answer_no_text_is_given_out() {
        let (bob, carol) = (pair("bob"), pair("carol"));
        let ack = Record::Ack(AckV1 { key: KeyV1::of(&bob), user: "bob", msg_index: 7 });
        let mut records = Records::default();
        for (lsn, record) in [(5, send(&bob, 7)), (6, (ack.kind(), ack.encode())), (7, send(&carol, 1))] {
            assert!(take(&mut records, lsn, &record, usize::MAX));
        }
        let sends = records.sends().expect("they decode");
        assert_eq!(sends.len(), 2);
        assert_eq!((&sends[&bob].1[..], &sends[&carol].1[..]), (&[(0, 7)][..], &[(2, 1)][..]));
        records.tell(HashMap::from([(2, Fate::Readable)]));
        let told: Vec<_> = records.entries().map(|entry| entry.expect("it decodes")).collect();
        assert_eq!(told.iter().map(|entry| entry.offset).collect::<Vec<_>>(), [5, 6, 7]);
        let Change::Send { msg, extra, fate, .. } = told[0].change else { panic!("{told:?}") };
        assert_eq!((msg, extra, fate), ("", "", Fate::Unknown));
        let Change::Send { msg, extra, fate, .. } = told[2].change else { panic!("{told:?}") };
        assert_eq!((msg, extra, fate), ("a text", "and more", Fate::Readable));
    }

    #[test]
    fn a_record_that_does_not_decode_is_an_error() {
        let mut records = Records::default();
        assert!(take(&mut records, 1, &(200, vec![1, 2, 3]), usize::MAX));
        assert!(records.sends().is_err() && records.entries().next().is_some_and(|entry| entry.is_err()));
    }
}
