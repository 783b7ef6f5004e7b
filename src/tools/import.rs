//! `chinwag import`: the lines of an export become conversations of a store.
//!
//! Everything is checked by the rules of `verify` before anything is stored, and all of it becomes current with one
//! manifest: an import that fails has changed nothing that anybody can see. Conversations go into packs, as a
//! checkpoint would write them, because the log has no record for a text that was recalled long ago.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use super::Error;
use super::invariants::broken;
use super::state_hash::StateHash;
use super::transcript::{
    ConversationLine, GroupLine, Line, MemberLine, MessageLine, ParticipantLine, RecallLine, VERSION, lines,
};
use crate::config::limits::{BODY_BYTES, CLIENT_MSG_ID_BYTES_MAX, GROUP_MEMBERS_MAX, GROUP_NAME_BYTES_MAX};
use crate::conversation::Place;
use crate::conversation::chunk::{self, Saved};
use crate::conversation::group::Mutes;
use crate::conversation::history::Stored;
use crate::conversation::participants::{Membership, Participant};
use crate::conversation::people::ConversationPack;
use crate::conversation::record::encode_key;
use crate::conversation::recovery::{Recovered, recover};
use crate::conversation::state::{GroupFacts, State};
use crate::data_dir::{DataDir, Lock};
use crate::disk::{Disk, Real};
use crate::message::{ConversationKey, Duty, GroupId, UserId};
use crate::snapshot::{self, Manifest, PACK_CHUNKS_MAX, PackInfo, PackWriter};
use crate::wal::{self, Lsn, Stepped};

/// Longest line, in bytes: a group through which half a million people went. A longer one is none of ours.
const LINE_BYTES_MAX: u64 = 128 << 20;
/// A pack is finished at so many bytes and the next one begun, so that one merge later is not endless.
const PACK_BYTES: u64 = 4 << 30;
/// The same for chunks; a conversation may bring some more.
const PACK_CHUNKS: usize = PACK_CHUNKS_MAX / 2;

/// What [`import`] stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// How many conversations.
    pub conversations: u64,
    /// Their messages, recalled ones included.
    pub messages: u64,
    /// Their recalls.
    pub recalls: u64,
    /// The hash of these conversations, as `verify` prints it of a store that has no others.
    pub state_hash: StateHash,
}

/// Imports a file, see [`import`].
///
/// # Errors
/// As [`import`].
pub fn import_file(dir: &Path, file: &Path) -> Result<Imported, Error> {
    let opened = std::fs::File::open(file).map_err(Error::io("open", file))?;
    import(dir, &mut BufReader::new(opened), file)
}

/// Stores the conversations of `input` (called `name` in messages) in the data directory `dir`, which is made if it is
/// not there. All of them, or none.
///
/// # Errors
/// When a line breaks a rule, a conversation is there already, or the store cannot be written.
pub fn import(dir: &Path, input: &mut dyn BufRead, name: &Path) -> Result<Imported, Error> {
    let _lock = Lock::acquire(dir)?;
    let disk: Arc<dyn Disk> = Arc::new(Real);
    let mut data = DataDir::open(disk.clone(), dir)?;
    let place = Place::of(&data, disk);
    let recovered = recover(&place, &data.wal_dir())?;
    begin_log(&mut data, &place, &recovered)?;
    let mut import = Import::new(&place, &recovered)?;
    import.read(input).map_err(|(line, why)| why.at(name, line))?;
    import.publish()
}

/// A store whose log was never begun may have no snapshot.
fn begin_log(data: &mut DataDir, place: &Place, recovered: &Recovered) -> Result<(), Error> {
    if data.format().started {
        return Ok(());
    }
    let Place { disk, tmp_dir, store, .. } = place;
    let options = wal::Options { first_segment_bytes: 8 << 10, ..wal::Options::default() };
    let sink: wal::Sink<()> = Box::new(|_| {});
    let log = Stepped::start(disk.clone(), &data.wal_dir(), tmp_dir, *store, &recovered.log, options, sink)?;
    data.mark_started()?;
    log.close()?;
    Ok(())
}

/// Why a line is not taken.
enum Refusal {
    /// It breaks a rule.
    Line(String),
    /// It is lawful, but not for this store.
    Exists(ConversationKey),
    /// It cannot be read or stored.
    Broken(Error),
}

impl Refusal {
    fn at(self, name: &Path, line: u64) -> Error {
        match self {
            Self::Line(why) => {
                Error::Damaged { path: name.into(), why: format!("line {line}: {why}; nothing was imported") }
            }
            Self::Exists(key) => {
                let name = name.display();
                Error::Refused(format!("{name}: line {line}: {key} is there already; nothing was imported"))
            }
            Self::Broken(why) => why,
        }
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Line(why)
    }
}

impl From<snapshot::Error> for Refusal {
    fn from(why: snapshot::Error) -> Self {
        Self::Broken(why.into())
    }
}

/// An import under way.
struct Import<'a> {
    place: &'a Place,
    recovered: &'a Recovered,
    next_number: u64,
    pack: Option<ConversationPack>,
    /// Finished, and named by no manifest yet.
    packs: Vec<PackInfo>,
    seen: HashSet<u128>,
    current: Option<Builder>,
    imported: Imported,
}

impl<'a> Import<'a> {
    fn new(place: &'a Place, recovered: &'a Recovered) -> Result<Self, Error> {
        let next_number = snapshot::next_number(&*place.disk, &place.snap_dir)?;
        let (pack, packs, seen) = (None, Vec::new(), HashSet::new());
        let imported = Imported::default();
        Ok(Self { place, recovered, next_number, pack, packs, seen, current: None, imported })
    }

    /// Reads all lines; an error comes with the number of the line.
    fn read(&mut self, input: &mut dyn BufRead) -> Result<(), (u64, Refusal)> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let read = read.map_err(Error::io("read", Path::new("the import")));
            let more = read.map_err(|why| (number, Refusal::Broken(why)))? > 0;
            let taken = if more { self.line(&line) } else { self.finish() };
            taken.map_err(|why| (number, why))?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line.len() as u64 == LINE_BYTES_MAX {
            return Err(format!("longer than {LINE_BYTES_MAX} bytes").into());
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        match serde_json::from_slice(text).map_err(|why| why.to_string())? {
            Line::Conversation(line) => {
                self.finish()?;
                self.begin(&line)
            }
            Line::Message(line) => Ok(self.builder()?.message(&line)?),
            Line::Recall(line) => Ok(self.builder()?.recall(&line)?),
        }
    }

    fn builder(&mut self) -> Result<&mut Builder, String> {
        self.current.as_mut().ok_or_else(|| "it belongs to no conversation".into())
    }

    fn begin(&mut self, line: &ConversationLine<'_>) -> Result<(), Refusal> {
        let builder = Builder::begin(line)?;
        let key = &*builder.state.key;
        let hash = self.recovered.archive.hash_of_bytes(&encode_key(key));
        if self.recovered.archive.has(key) || !self.seen.insert(hash) {
            return Err(Refusal::Exists(key.clone()));
        }
        self.current = Some(builder);
        Ok(())
    }

    /// Stores the conversation that the lines so far have told.
    fn finish(&mut self) -> Result<(), Refusal> {
        let Some(builder) = self.current.take() else { return Ok(()) };
        let mut state = builder.finish()?;
        state.applied_lsn = self.recovered.log.last_lsn.0;
        self.store(&state)?;
        self.imported.conversations += u64::from(state.has_begun());
        self.imported.messages += u64::from(state.history.newest_message());
        self.imported.recalls += u64::from(state.history.newest_recall());
        self.imported.state_hash.add(&state.key, state.hash);
        Ok(())
    }

    fn store(&mut self, state: &State) -> Result<(), snapshot::Error> {
        let mut pack = match self.pack.take() {
            Some(pack) => pack,
            None => self.begin_pack()?,
        };
        let key = encode_key(&state.key);
        let before = Saved { messages: state.history.newest_old(), recalls: 0 };
        let (mut saved, mut complete) = (before, false);
        while !complete {
            for chunk in chunk::encode_next(state, saved) {
                pack.add(&key, &chunk)?;
                (saved, complete) = (chunk.summary.after(), chunk.complete);
            }
        }
        match pack.bytes() < PACK_BYTES && pack.chunks() < PACK_CHUNKS {
            true => self.pack = Some(pack),
            false => self.packs.push(pack.finish()?),
        }
        Ok(())
    }

    fn begin_pack(&mut self) -> Result<ConversationPack, snapshot::Error> {
        let Place { disk, tmp_dir, snap_dir, store, .. } = self.place;
        let number = self.take_number();
        let pack = PackWriter::create(disk.clone(), tmp_dir, snap_dir, *store, number)?;
        Ok(ConversationPack::new(pack, *store))
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Makes everything current at once.
    fn publish(mut self) -> Result<Imported, Error> {
        if let Some(pack) = self.pack.take() {
            self.packs.push(pack.finish()?);
        }
        if self.packs.is_empty() {
            return Ok(self.imported);
        }
        let number = self.take_number();
        let Place { disk, tmp_dir, snap_dir, quarantine_dir, store, epoch } = self.place;
        let mut packs: Vec<_> = self.recovered.archive.packs().iter().map(|pack| *pack.info()).collect();
        packs.append(&mut self.packs);
        let Lsn(replay_after_lsn) = self.recovered.replay_after;
        let manifest =
            Manifest { number, store: *store, epoch: *epoch, replay_after_lsn, state: [0; 8], packs };
        snapshot::publish(&**disk, tmp_dir, snap_dir, &manifest)?;
        snapshot::prune(&**disk, snap_dir, quarantine_dir, store)?;
        Ok(self.imported)
    }
}

/// One conversation in the making.
struct Builder {
    state: State,
    messages: u32,
    recalls: u32,
    /// Whether the line said which rolling hash it has.
    has_hash: bool,
    /// The oldest message that is kept.
    min_msg_index: u32,
    /// What the messages say of the recalls that are to come.
    recalled: HashSet<(u32, u32)>,
}

impl Builder {
    fn begin(line: &ConversationLine<'_>) -> Result<Self, String> {
        if line.version != VERSION {
            return Err(format!("version {}, this program reads {VERSION}", line.version));
        }
        let mut state = State::new(key_of(line)?);
        for row in &line.participants {
            participant(&mut state, row)?;
        }
        state.group = line.group.as_ref().map(|group| facts_of(group, line, &state)).transpose()?;
        state.last_timestamp_ns = line.last_timestamp_ns;
        if state.group.is_none() && line.participants.iter().any(|row| row.muted_until_s != 0) {
            return Err("muted_until_s: only in groups is anybody muted".into());
        }
        for user in &line.blocked_by {
            let blocks = state.blocks.with(&state.key, user);
            state.blocks = blocks.ok_or_else(|| format!("blocked_by: {user:?} is not one of two"))?;
        }
        state.note_silenced();
        if let Some(hash) = &line.hash {
            state.hash = hash_of(hash)?;
        }
        let (has_hash, recalled) = (line.hash.is_some(), HashSet::new());
        let ConversationLine { messages, recalls, min_msg_index, .. } = *line;
        if min_msg_index == 0 || min_msg_index - 1 > messages {
            return Err(format!("min_msg_index {min_msg_index} of {messages} messages"));
        }
        Ok(Self { state, messages, recalls, has_hash, min_msg_index, recalled })
    }

    /// Begins behind what retention took; the messages that come are `from` on.
    fn begin_behind(&mut self, from: u32) {
        let history = &mut self.state.history;
        if history.newest_message() == 0 && history.newest_recall() == 0 {
            history.begin_behind(from.min(self.min_msg_index).saturating_sub(1));
            history.keep_from(self.min_msg_index);
        }
    }

    fn message(&mut self, line: &MessageLine<'_>) -> Result<(), String> {
        self.begin_behind(line.msg_index);
        let expected = u64::from(self.state.history.newest_message()) + 1;
        if u64::from(line.msg_index) != expected {
            return Err(format!("msg_index {} where {expected} comes next", line.msg_index));
        }
        if self.state.history.newest_recall() != 0 {
            return Err("a message behind the recalls".into());
        }
        let is_hollow = line.msg_index < self.min_msg_index;
        check_texts(line, is_hollow)?;
        let sender = self.state.participants.number_of(&line.sender);
        let sender = sender.ok_or_else(|| format!("sender {:?} is no participant", line.sender))?;
        let erased = line.recall_index != 0 || is_hollow;
        if line.recall_index != 0 {
            self.recalled.insert((line.recall_index, line.msg_index));
        }
        let (timestamp_ns, client_msg_id) = (line.timestamp_ns, &*line.client_msg_id);
        let (msg, extra) = (&*line.msg, &*line.extra);
        self.state.history.push(Stored {
            sender,
            timestamp_ns,
            recall_index: 0,
            client_msg_id,
            msg,
            extra,
            erased,
        });
        Ok(())
    }

    fn recall(&mut self, line: &RecallLine) -> Result<(), String> {
        self.begin_behind(self.min_msg_index);
        let expected = u64::from(self.state.history.newest_recall()) + 1;
        if u64::from(line.recall_index) != expected {
            return Err(format!("recall_index {} where {expected} comes next", line.recall_index));
        }
        let is_gone = line.msg_index > 0 && line.msg_index <= self.state.history.newest_old();
        let is_new = !is_gone || self.state.history.recall_of(line.msg_index) == 0;
        if !is_new || !is_gone && !self.recalled.remove(&(line.recall_index, line.msg_index)) {
            return Err(format!("message {} does not name this recall", line.msg_index));
        }
        self.state.history.push_recall(line.msg_index);
        Ok(())
    }

    fn finish(mut self) -> Result<State, String> {
        self.begin_behind(self.min_msg_index);
        let told = (self.state.history.newest_message(), self.state.history.newest_recall());
        if told != (self.messages, self.recalls) || !self.recalled.is_empty() {
            let announced = (self.messages, self.recalls);
            return Err(format!("{announced:?} messages and recalls were announced, {told:?} came"));
        }
        self.state.history.erase_through(told.1);
        // Where nothing was sent and a block has ended, the hash over both is all that is left.
        let was_blocked = self.has_hash && matches!(&*self.state.key, ConversationKey::Direct(..));
        if !self.state.has_begun() && !self.state.blocks.is_any() && !was_blocked {
            return Err("nothing has happened in it: it has no participants".into());
        }
        if let Some(why) = broken(&self.state).into_iter().next() {
            return Err(format!("{}: {why}", self.state.key));
        }
        if !self.has_hash {
            self.state.hash = first_hash(&self.state);
        }
        Ok(self.state)
    }
}

fn key_of(line: &ConversationLine<'_>) -> Result<ConversationKey, String> {
    let user = |id: &str| UserId::parse(id).map_err(|why| format!("users: {why}"));
    match (&line.users, &line.group) {
        (Some((a, b)), None) => Ok(ConversationKey::direct(user(a)?, user(b)?)),
        (None, Some(group)) => {
            let id = GroupId::parse(&group.group_id).map_err(|why| format!("group_id: {why}"))?;
            Ok(ConversationKey::Group(id))
        }
        _ => Err("a conversation has either users or a group".into()),
    }
}

fn facts_of(group: &GroupLine<'_>, line: &ConversationLine<'_>, state: &State) -> Result<GroupFacts, String> {
    if group.name.len() > GROUP_NAME_BYTES_MAX {
        return Err(format!("name: longer than {GROUP_NAME_BYTES_MAX} bytes"));
    }
    let members = state.participants.members().count();
    if members > GROUP_MEMBERS_MAX {
        return Err(format!("participants: {members} members, at most {GROUP_MEMBERS_MAX} are allowed"));
    }
    let (name, created_ns) = (group.name.clone().into_owned(), group.created_ns);
    let mut mutes = Mutes::default();
    for (row, number) in line.participants.iter().zip(0..) {
        mutes.set(number, row.muted_until_s);
    }
    Ok(GroupFacts { name, created_ns, members_count: members as u32, mutes, dismissed: group.dismissed })
}

fn participant(state: &mut State, line: &ParticipantLine<'_>) -> Result<(), String> {
    let user = UserId::parse(&line.user).map_err(|why| format!("participants: {why}"))?;
    if state.participants.number_of(user.as_str()).is_some() {
        return Err(format!("participants: {user:?} twice"));
    }
    let membership = line.member.as_ref().map(membership).transpose()?;
    state.participants.push(Participant { user, read_cursor: line.ack_index, membership });
    Ok(())
}

fn membership(line: &MemberLine) -> Result<Membership, String> {
    let duty = Duty::from_number(line.duty).ok_or_else(|| format!("there is no duty {}", line.duty))?;
    Ok(Membership { duty, joined_ns: line.joined_ns, readable_from: line.readable_from })
}

/// The limits that a send is held to.
fn check_texts(line: &MessageLine<'_>, is_hollow: bool) -> Result<(), String> {
    let (is_recalled, bytes) = (line.recall_index != 0, line.msg.len() + line.extra.len());
    if is_recalled && bytes > 0 {
        return Err("a recalled message has no text".into());
    }
    if is_hollow && bytes > 0 {
        return Err("a message that is not kept has no text".into());
    }
    if !is_recalled && !is_hollow && line.msg.is_empty() {
        return Err("msg: must not be empty".into());
    }
    if bytes as u64 > *BODY_BYTES.end() {
        return Err(format!("msg and extra: longer than {} bytes", BODY_BYTES.end()));
    }
    if line.client_msg_id.len() > CLIENT_MSG_ID_BYTES_MAX {
        return Err(format!("client_msg_id: longer than {CLIENT_MSG_ID_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn hash_of(text: &str) -> Result<u128, String> {
    let is_hash = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match u128::from_str_radix(text, 16) {
        Ok(hash) if is_hash => Ok(hash),
        _ => Err("hash: not 32 hexadecimal digits in lower case".into()),
    }
}

/// The rolling hash of a history of which only the outcome is known: XXH3-128 of its lines.
fn first_hash(state: &State) -> u128 {
    let mut hasher = Xxh3Default::new();
    let written = lines(state, None, &mut |line| {
        hasher.update(&serde_json::to_vec(line)?);
        hasher.update(b"\n");
        Ok::<_, serde_json::Error>(())
    });
    written.expect("texts and numbers are JSON");
    hasher.digest128()
}
