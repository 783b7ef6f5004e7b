//! The users and the requests they make. Everything that can be is prepared before the first request. Who is in which
//! conversation is the business of [`super::ring`].

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::super::Error;
use super::ring::Ring;
use super::tally::Verb;
use crate::auth::LocalKey;
use crate::config::{self, Mix, Transport};
use crate::message::{Caller, UserId};

/// Tokens outlast the longest run (`limits::BENCH_DURATION` and `limits::BENCH_WARM_UP`).
const TOKEN_TTL: Duration = Duration::from_hours(48);
/// The header that says who asks, up to its value.
const AUTHORIZATION: &str = "Authorization: ";
/// A message's text is of letters that JSON needs no escape for.
const LETTER: &str = "m";
/// Members that come into a group with one call: so many ids of ours fit the smallest `--body-limit`.
const MEMBERS_AT_ONCE: usize = 50;

/// The users, their conversations and what they say.
pub(super) struct Cast {
    authority: String,
    users: Vec<User>,
    ring: Ring,
    /// Of each conversation the newest message that any connection was told of.
    newest: Vec<AtomicU32>,
    transport: Transport,
    /// How an HTTP request of each verb begins, up to the token.
    heads: [String; 3],
    text: String,
    mix: Mix,
    page: u32,
}

struct User {
    id: String,
    /// The header with the token.
    authorization: String,
    conversations: Vec<u32>,
}

/// A request. One for each that is in flight, written anew each time.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// As HTTP/1.1 has it on the wire; not written where something else is used.
    pub(super) bytes: Vec<u8>,
    /// What it says, as JSON.
    pub(super) body: Vec<u8>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) verb: Verb,
    /// For [`Cast::has_grown`].
    pub(super) conversation: usize,
}

impl Cast {
    pub(super) fn new(settings: &config::Bench, authority: &str, key: &LocalKey) -> Result<Self, Error> {
        let now = SystemTime::UNIX_EPOCH.elapsed();
        let now = now.map_err(|_| Error::Refused("the clock is before 1970: set it".to_owned()))?;
        let mut users: Vec<_> = (0..settings.users).map(|number| User::new(number, key, now)).collect();
        let ring = Ring::new(settings);
        for (number, conversation) in (0..settings.conversations).zip(0..) {
            for place in 0..ring.parties() {
                users[ring.party(number, place)].conversations.push(conversation);
            }
        }
        let newest = (0..settings.conversations).map(|_| AtomicU32::new(0)).collect();
        let head = |verb: Verb| head(authority, &format!("/im.chat/{}", verb.as_str()));
        let text = LETTER.repeat(settings.text_bytes);
        let heads = Verb::ALL.map(head);
        let (transport, mix, page) = (settings.transport, settings.mix, settings.page);
        let authority = authority.to_owned();
        Ok(Self { authority, users, ring, newest, transport, heads, text, mix, page })
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// The header that says who asks, with its end.
    pub(super) fn authorization(&self, user: usize) -> &str {
        &self.users[user].authorization
    }

    /// The value of that header alone.
    pub(super) fn bearer(&self, user: usize) -> &str {
        self.users[user].authorization[AUTHORIZATION.len()..].trim_end()
    }

    /// Writes a request of `user`; `draw` decides which.
    pub(super) fn any_request(&self, user: usize, draw: u64, to: &mut Request) -> About {
        let conversations = &self.users[user].conversations;
        // Two independent halves of the draw.
        let (which, what) = ((draw >> 32) as usize, (draw as u32) % self.mix.total());
        let conversation = conversations[which % conversations.len()] as usize;
        let verb = match what {
            what if what < self.mix.send => Verb::Send,
            what if what < self.mix.send + self.mix.pull => Verb::Pull,
            _ => Verb::Ack,
        };
        let about = About { verb, conversation };
        match self.transport {
            Transport::Http => self.write_http(user, about, to),
            Transport::Http2 | Transport::WebSocket => self.write_body(user, about, &mut to.body),
        }
        about
    }

    /// Writes a message by one of the parties of a conversation, for HTTP/1.1: whoever prepares speaks for everybody.
    pub(super) fn message(&self, conversation: usize, party: usize, to: &mut Request) {
        let user = self.ring.party(conversation, party % self.ring.parties());
        self.write_http(user, About { verb: Verb::Send, conversation }, to);
    }

    /// The requests that make a conversation, in their order; none where a first message does. Those of a group that was
    /// made before change nothing.
    pub(super) fn founding(&self, conversation: usize) -> Vec<Vec<u8>> {
        let Ring::Groups { members, .. } = self.ring else { return Vec::new() };
        let mut named = b"{\"group_id\":\"".to_vec();
        write_group_id(&mut named, conversation, members);
        let asked = |verb: &str, rest: &str| {
            let head = head(&self.authority, &format!("/im.group/{verb}"));
            let (owner, mut bytes) = (self.ring.party(conversation, 0), Vec::new());
            let body = [&named, rest.as_bytes()].concat();
            write_request(&mut bytes, &head, &self.users[owner].authorization, &body);
            bytes
        };
        let ids = |places: Vec<usize>| {
            let ids = places.iter().map(|place| &*self.users[self.ring.party(conversation, *place)].id);
            ids.collect::<Vec<_>>().join("\",\"")
        };
        let portions = (1..members).step_by(MEMBERS_AT_ONCE);
        let portions = portions.map(|from| ids((from..members.min(from + MEMBERS_AT_ONCE)).collect()));
        let adding = portions.map(|ids| asked("add", &format!("\",\"user_ids\":[\"{ids}\"]}}")));
        std::iter::once(asked("create", "\",\"name\":\"bench\"}")).chain(adding).collect()
    }

    fn write_http(&self, user: usize, about: About, to: &mut Request) {
        let Request { bytes, body } = to;
        self.write_body(user, about, body);
        bytes.clear();
        write_request(bytes, &self.heads[about.verb as usize], &self.users[user].authorization, body);
    }

    fn write_body(&self, user: usize, about: About, body: &mut Vec<u8>) {
        body.clear();
        let newest = || self.newest[about.conversation].load(Ordering::Relaxed) as usize;
        body.extend_from_slice(b"{\"target\":\"");
        self.write_target(user, about.conversation, body);
        match about.verb {
            Verb::Send => {
                body.extend_from_slice(b"\"msg\":\"");
                body.extend_from_slice(self.text.as_bytes());
                body.extend_from_slice(b"\",\"extra\":\"\"}");
            }
            Verb::Pull => {
                body.extend_from_slice(b"\"direction\":\"before\",\"start_msg_index\":");
                write_number(body, newest());
                body.extend_from_slice(b",\"count\":");
                write_number(body, self.page as usize);
                body.push(b'}');
            }
            Verb::Ack => {
                body.extend_from_slice(b"\"msg_index\":");
                write_number(body, newest());
                body.push(b'}');
            }
        }
    }

    fn write_target(&self, user: usize, conversation: usize, body: &mut Vec<u8>) {
        match self.ring {
            Ring::Pairs { .. } => {
                let [a, b] = [0, 1].map(|place| self.ring.party(conversation, place));
                body.extend_from_slice(self.users[if user == a { b } else { a }].id.as_bytes());
                body.extend_from_slice(b"\",\"target_type\":\"user\",");
            }
            Ring::Groups { members, .. } => {
                write_group_id(body, conversation, members);
                body.extend_from_slice(b"\",\"target_type\":\"group\",");
            }
        }
    }

    /// A conversation has this message.
    pub(super) fn has_grown(&self, conversation: usize, msg_index: u32) {
        self.newest[conversation].fetch_max(msg_index, Ordering::Relaxed);
    }
}

impl User {
    fn new(number: usize, key: &LocalKey, now: Duration) -> Self {
        let id = format!("bench-{number}");
        let user = UserId::parse(&id).expect("a short id of plain letters");
        let token = key.sign(&Caller { user, admin: false }, now.as_secs(), TOKEN_TTL);
        Self { id, authorization: format!("{AUTHORIZATION}Bearer {token}\r\n"), conversations: Vec::new() }
    }
}

/// How a request of HTTP begins, up to the token.
fn head(authority: &str, path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\n")
}

fn write_request(to: &mut Vec<u8>, head: &str, authorization: &str, body: &[u8]) {
    to.extend_from_slice(head.as_bytes());
    to.extend_from_slice(authorization.as_bytes());
    to.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: ");
    write_number(to, body.len());
    to.extend_from_slice(b"\r\n\r\n");
    to.extend_from_slice(body);
}

/// Says how many are in it: a run with other `--members` on the same server has groups of its own.
fn write_group_id(to: &mut Vec<u8>, conversation: usize, members: usize) {
    write!(to, "bench-{conversation}-of-{members}").expect("a Vec takes everything");
}

pub(super) fn write_number(to: &mut Vec<u8>, number: usize) {
    write!(to, "{number}").expect("a Vec takes everything");
}

/// The `number`th of an endless row of even draws: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(super) fn draw(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even() {
        let mut counts = [0_u32; 100];
        (0..100_000).for_each(|number| counts[(draw(number) as u32 % 100) as usize] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
