//! A conversation much longer than what is kept in memory of it: nobody can tell.

use serde_json::{Value, json};

use crate::support::{Chat, Page, Process, TestServer, chinwag, eventually};

/// So few seconds of rest, and a conversation leaves memory.
const RESTLESS: [&str; 6] =
    ["--idle-after", "1s", "--checkpoint-interval", "1s", "--checkpoint-bytes", "1MiB"];
/// Together about 5 MB of texts.
const LONG: u32 = 100;

fn text_of(number: u32) -> String {
    format!("{number} {}", "x".repeat(50_000))
}

fn id_of(number: u32) -> String {
    format!("id {number}")
}

/// What everybody can see of it, a few long pages at a time, both ways.
fn see(chat: &Chat<'_>) -> Vec<Page> {
    let mut pages = Vec::new();
    for direction in ["after", "before"] {
        for start in (1..=LONG + 20).step_by(20) {
            let start = json!({"direction": direction, "start_msg_index": start, "start_recall_index": start, "count": 20});
            pages.push(chat.pull(&start));
        }
    }
    pages
}

fn retry_all(chat: &Chat<'_>) -> Vec<Value> {
    let retry = |number: u32| {
        let fields = json!({"msg": text_of(number), "client_msg_id": id_of(number)});
        let answer = chat.call("send", &fields).ok();
        assert_eq!((&answer["duplicate"], &answer["msg_index"]), (&json!(true), &json!(number)));
        let other = json!({"msg": "other", "client_msg_id": id_of(number)});
        if !number.is_multiple_of(10) {
            chat.call("send", &other).assert_error(409, 20003);
        }
        answer
    };
    (1..=LONG).step_by(9).map(retry).collect()
}

fn in_memory(server: &TestServer) -> Option<f64> {
    server.metric("chinwag_conversations_in_memory")
}

#[test]
fn a_long_conversation_is_the_same_in_memory_and_out_of_it() {
    let mut server = TestServer::start_with(&RESTLESS);
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    let (chat, other) = (alice.with("bob"), bob.with("alice"));
    for number in 1..=LONG {
        assert_eq!(chat.send_named(&id_of(number), &text_of(number)).msg_index, number);
        if number % 10 == 0 {
            chat.recall(number);
        }
    }
    other.ack(40);
    let hot = see(&other);
    assert_eq!(hot[0].indices(), (1..=20).collect::<Vec<_>>());
    assert_eq!((hot[0].msgs[9].msg.as_str(), hot[0].msgs[8].msg.clone()), ("", text_of(9)));
    let receipts = retry_all(&chat);
    assert_eq!(chat.recall(20), 2, "the first index again");
    assert_eq!(chat.recall(5), 11, "one of the old part");
    other.call("recall", &json!({"msg_index": 3})).assert_error(403, 20002);
    let after = see(&other);
    assert_eq!(after[0].msgs[4].msg, "");

    eventually("it left memory", || (in_memory(&server)? == 0.0).then_some(()));
    assert_eq!(see(&other), after);
    assert_eq!(retry_all(&chat), receipts);
    for end in ["stop", "kill"] {
        match end {
            "stop" => server.stop(),
            _ => server.kill(),
        }
        server.start_again();
        let (alice, bob) = (server.client("alice"), server.client("bob"));
        assert_eq!(retry_all(&alice.with("bob")), receipts, "{end}");
        assert_eq!(see(&bob.with("alice")), after, "{end}");
        assert_eq!(alice.with("bob").recall(5), 11, "{end}");
    }
    assert_eq!(server.client("bob").with("alice").send("goes on").msg_index, LONG + 1);
    server.stop();
    let data = server.data().to_str().expect("a printable path");
    let verified = Process::run(chinwag(&["verify", data]));
    assert_eq!(verified.code(), Some(0), "{verified:?}");
}
