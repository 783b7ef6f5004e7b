//! Who talks with whom, and the requests they make. Everything that can be is prepared before the first request.
//!
//! Users stand in a ring: everybody talks with the next one, then everybody with the next but one, until there are
//! conversations enough. So each user has about as many as any other, and no pair comes twice.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::super::Error;
use super::tally::Verb;
use crate::auth::LocalKey;
use crate::config::{self, Mix, Transport};
use crate::message::{Caller, UserId};

/// Tokens outlast the longest run (`limits::BENCH_DURATION` and `limits::BENCH_WARM_UP`).
const TOKEN_TTL: Duration = Duration::from_hours(48);
/// A message's text is of letters that JSON needs no escape for.
const LETTER: &str = "m";

/// The users, their conversations and what they say.
pub(super) struct Cast {
    users: Vec<User>,
    conversations: Vec<Conversation>,
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

struct Conversation {
    parties: [u32; 2],
    /// The newest message that any connection was told of.
    newest: AtomicU32,
}

/// A request. One for each that is in flight, written anew each time.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// As HTTP has it on the wire; not written where a WebSocket is used.
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
        let conversations: Vec<_> =
            (0..settings.conversations).map(|number| Conversation::new(number, users.len())).collect();
        for (number, conversation) in (0..).zip(&conversations) {
            for party in conversation.parties {
                users[party as usize].conversations.push(number);
            }
        }
        let head = |verb: Verb| format!("POST /im.chat/{} HTTP/1.1\r\nHost: {authority}\r\n", verb.as_str());
        let text = LETTER.repeat(settings.text_bytes);
        let heads = Verb::ALL.map(head);
        let (transport, mix, page) = (settings.transport, settings.mix, settings.page);
        Ok(Self { users, conversations, transport, heads, text, mix, page })
    }

    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// The header that says who asks, with its end.
    pub(super) fn authorization(&self, user: usize) -> &str {
        &self.users[user].authorization
    }

    /// Writes a request of `user`; `draw` decides which.
    pub(super) fn any_request(&self, user: usize, draw: u64, to: &mut Request) -> About {
        let user = &self.users[user];
        // Two independent halves of the draw.
        let (which, what) = ((draw >> 32) as usize, (draw as u32) % self.mix.total());
        let conversation = user.conversations[which % user.conversations.len()] as usize;
        let verb = match what {
            what if what < self.mix.send => Verb::Send,
            what if what < self.mix.send + self.mix.pull => Verb::Pull,
            _ => Verb::Ack,
        };
        let about = About { verb, conversation };
        match self.transport {
            Transport::Http => self.write_http(user, about, to),
            Transport::WebSocket => self.write_body(user, about, &mut to.body),
        }
        about
    }

    /// Writes a message by one of the two parties of a conversation, for HTTP: whoever prepares speaks for everybody.
    pub(super) fn message(&self, conversation: usize, party: usize, to: &mut Request) -> About {
        let user = self.conversations[conversation].parties[party % 2];
        let about = About { verb: Verb::Send, conversation };
        self.write_http(&self.users[user as usize], about, to);
        about
    }

    fn write_http(&self, user: &User, about: About, to: &mut Request) {
        let Request { bytes, body } = to;
        self.write_body(user, about, body);
        bytes.clear();
        bytes.extend_from_slice(self.heads[about.verb as usize].as_bytes());
        bytes.extend_from_slice(user.authorization.as_bytes());
        bytes.extend_from_slice(b"Content-Type: application/json\r\nContent-Length: ");
        write_number(bytes, body.len());
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(body);
    }

    fn write_body(&self, user: &User, about: About, body: &mut Vec<u8>) {
        body.clear();
        let conversation = &self.conversations[about.conversation];
        let [a, b] = conversation.parties.map(|party| self.users[party as usize].id.as_str());
        let newest = || conversation.newest.load(Ordering::Relaxed) as usize;
        body.extend_from_slice(b"{\"target\":\"");
        body.extend_from_slice(if user.id == a { b } else { a }.as_bytes());
        body.extend_from_slice(b"\",\"target_type\":\"user\",");
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

    /// A conversation has this message.
    pub(super) fn has_grown(&self, conversation: usize, msg_index: u32) {
        self.conversations[conversation].newest.fetch_max(msg_index, Ordering::Relaxed);
    }
}

impl User {
    fn new(number: usize, key: &LocalKey, now: Duration) -> Self {
        let id = format!("bench-{number}");
        let user = UserId::parse(&id).expect("a short id of plain letters");
        let token = key.sign(&Caller { user, admin: false }, now.as_secs(), TOKEN_TTL);
        Self { id, authorization: format!("Authorization: Bearer {token}\r\n"), conversations: Vec::new() }
    }
}

impl Conversation {
    fn new(number: usize, users: usize) -> Self {
        let (one, distance) = (number % users, 1 + number / users);
        let parties = [one, (one + distance) % users].map(|user| user as u32);
        Self { parties, newest: AtomicU32::new(0) }
    }
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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_pair_comes_twice_and_nobody_is_left_out() {
        for (users, conversations) in [(2, 1), (3, 3), (4, 6), (5, 4), (64, 1_000), (46, 1_035), (1_000, 999)]
        {
            let pairs = (0..conversations).map(|number| Conversation::new(number, users).parties);
            let pairs: Vec<_> = pairs.map(|[a, b]| (a.min(b), a.max(b))).collect();
            assert!(pairs.iter().all(|(a, b)| a < b && (*b as usize) < users), "{users} {conversations}");
            assert_eq!(pairs.iter().collect::<HashSet<_>>().len(), conversations, "{users}");
            let talking: HashSet<_> = pairs.iter().flat_map(|(a, b)| [a, b]).collect();
            assert_eq!(talking.len(), users, "of {users} in {conversations}");
        }
    }

    #[test]
    fn draws_are_even() {
        let mut counts = [0_u32; 100];
        (0..100_000).for_each(|number| counts[(draw(number) as u32 % 100) as usize] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }
}
