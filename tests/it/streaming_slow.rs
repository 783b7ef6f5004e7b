//! Slow readers: they are told where to pull to, cost a bounded amount, and delay nobody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Chat, Stream, TestServer};

/// How far a reader of one conversation is.
#[derive(Default)]
struct Seen {
    msg_index: u64,
    recall_index: u64,
    behinds: u32,
}

impl Seen {
    /// The next index, or a behind; anything else is a hole or a repeat.
    #[track_caller]
    fn see(&mut self, event: &Value) {
        let number = |value: &Value| value.as_u64().expect("a number");
        match event["type"].as_str() {
            Some("msg") => {
                let index = number(&event["content"]["msg_index"]);
                assert_eq!(index, self.msg_index + 1, "{event}");
                self.msg_index = index;
            }
            Some("recall") => {
                let index = number(&event["content"]["recall_index"]);
                assert_eq!(index, self.recall_index + 1, "{event}");
                self.recall_index = index;
            }
            Some("behind") => {
                let chats = event["chats"].as_array().expect("chats");
                assert_eq!(chats.len(), 1, "{event}");
                assert!(number(&chats[0]["msg_index"]) > self.msg_index, "{event}");
                self.msg_index = number(&chats[0]["msg_index"]);
                self.recall_index = number(&chats[0]["recall_index"]);
                self.behinds += 1;
            }
            _ => {}
        }
    }

    fn read_up_to(&mut self, stream: &mut Stream, last: u64) {
        while self.msg_index < last {
            self.see(&stream.event());
        }
    }
}

/// A server where little waits for a reader.
fn server() -> TestServer {
    // Nobody who does not read is given up while the others are served, however busy the machine is.
    let limits = ["--body-limit", "16KiB", "--stream-queue", "64KiB"];
    let patience = ["--write-timeout", "10m", "--stream-ping", "10m"];
    TestServer::start_with(&[&limits[..], &patience].concat())
}

fn send_all(chat: &Chat<'_>, texts: impl Iterator<Item = String>) {
    for text in texts {
        chat.send(&text);
    }
}

#[test]
fn ten_slow_readers_beside_a_fast_one_delay_nobody() {
    const MESSAGES: u64 = 1500;
    const SLOW: usize = 10;
    let server = server();
    let writer = server.client("writer");
    let users: Vec<_> = (0..=SLOW).map(|number| format!("reader-{number}")).collect();
    let members: Vec<_> = users.iter().map(String::as_str).collect();
    writer.create_group("busy", &members);
    let mut fast = server.client(&users[SLOW]).stream();
    let mut slow: Vec<_> = users[..SLOW].iter().map(|user| server.client(user).stream()).collect();
    let padding = "x".repeat(6000);
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let group = writer.group("busy");
            send_all(&group, (0..MESSAGES).map(|number| format!("{number} {padding}")));
        });
        let mut seen = Seen::default();
        seen.read_up_to(&mut fast, MESSAGES);
    });
    let took = started.elapsed();
    assert!(took < Duration::from_mins(5), "the fast one was held up: {took:?}");
    // Those who begin to read now find a beginning, one jump or a few, and an end without a hole.
    for stream in &mut slow {
        let mut seen = Seen::default();
        seen.read_up_to(stream, MESSAGES);
        assert!(seen.behinds >= 1, "{} bytes cannot all have waited", MESSAGES * 6000);
    }
    let group = writer.group("busy");
    let next = group.send("live again").msg_index;
    for stream in &mut slow {
        // A behind may come between; then it reaches as far.
        let mut seen = Seen { msg_index: MESSAGES, ..Seen::default() };
        seen.read_up_to(stream, next.into());
    }
    assert!(server.metric("chinwag_stream_behind_total ").is_some_and(|count| count >= 10.0));
}

#[test]
fn a_slow_event_source_is_told_where_to_pull_to() {
    const MESSAGES: u64 = 1000;
    let server = server();
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    let mut source = bob.event_source();
    assert_eq!(source.event().expect("an event")["type"], "hello");
    let padding = "x".repeat(15_000);
    send_all(&alice.with("bob"), (0..MESSAGES).map(|number| format!("{number} {padding}")));
    let mut seen = Seen::default();
    while seen.msg_index < MESSAGES {
        seen.see(&source.event().expect("an event"));
    }
    assert!(seen.behinds >= 1);
    alice.with("bob").send("live again");
    seen.see(&source.event().expect("an event"));
    assert_eq!(seen.msg_index, MESSAGES + 1);
}

#[test]
fn what_behind_says_is_there_to_be_pulled() {
    let server = server();
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    let mut stream = bob.stream();
    let padding = "x".repeat(15_000);
    send_all(&alice.with("bob"), (0..1000).map(|number| format!("{number} {padding}")));
    let behind = loop {
        let event = stream.event();
        if event["type"] == "behind" {
            break event;
        }
    };
    assert_eq!(behind["chats"][0]["target"], "alice", "{behind}");
    let index = behind["chats"][0]["msg_index"].clone();
    let fields = json!({"start_msg_index": index, "start_recall_index": 0, "count": 1});
    assert_eq!(bob.with("alice").pull(&fields).msgs.len(), 1);
}
