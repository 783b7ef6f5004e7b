//! Restarts: everything that was acknowledged is there, whatever ended the life before.

use serde_json::json;

use crate::support::{Page, TestServer};

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
}

impl End {
    fn of(self, server: &mut TestServer) {
        match self {
            Self::Stop => server.stop(),
            Self::Kill => server.kill(),
        }
        server.start_again();
    }
}

/// Everything that can be seen of the world that [`live`] adds to.
#[derive(Debug, PartialEq)]
struct Seen {
    direct: Page,
    own: Page,
    group: Page,
    late: Page,
    info: serde_json::Value,
    members: serde_json::Value,
}

fn see(server: &TestServer) -> Seen {
    let owner = server.client("owner");
    let at = json!({"group_id": "g"});
    Seen {
        direct: server.client("bob").with("owner").everything(),
        own: owner.with("owner").everything(),
        group: owner.group("g").everything(),
        late: server.client("late").group("g").everything(),
        info: owner.group_call("info", &at),
        members: owner.group_call("members", &at),
    }
}

fn begin(server: &TestServer) {
    let owner = server.client("owner");
    owner.create_group("g", &["bob", "carol"]);
    owner.group("g").send("before late");
    owner.group_call("add", &json!({"group_id": "g", "user_ids": ["late"]}));
    owner.with("owner").send("to myself");
}

/// One life: sends, recalls, acks and membership, each of which continues the lives before.
fn live(server: &TestServer, life: u32) {
    let (owner, bob) = (server.client("owner"), server.client("bob"));
    let name = format!("life {life}");
    for (chat, other) in [(owner.with("bob"), bob.with("owner")), (owner.group("g"), bob.group("g"))] {
        let newest = chat.pull(&json!({})).max_msg_index;
        let fields = json!({"msg": name, "extra": "x", "client_msg_id": name});
        assert_eq!(chat.call("send", &fields).ok()["msg_index"], newest + 1, "indices continue");
        assert_eq!(other.send("and back").msg_index, newest + 2);
        let recalled = chat.pull(&json!({})).max_recall_index;
        assert_eq!(other.recall(newest + 2), recalled + 1, "recall indices continue");
        chat.ack(newest + 2);
        other.ack(newest + 1);
    }
    owner.group_call("add", &json!({"group_id": "g", "user_ids": [name]}));
    if life.is_multiple_of(2) {
        server.client(&name).group_call("leave", &json!({"group_id": "g"}));
    }
}

/// Retries of every life get their first answers.
fn retry_all(server: &TestServer, lives: u32) {
    let owner = server.client("owner");
    for life in 1..=lives {
        let name = format!("life {life}");
        for chat in [owner.with("bob"), owner.group("g")] {
            let fields = json!({"msg": name, "extra": "x", "client_msg_id": name});
            let again = chat.call("send", &fields).ok();
            assert_eq!(again["duplicate"], true, "{name}");
            let index = again["msg_index"].as_u64().expect("an index");
            let page = chat.pull(&json!({"start_msg_index": index, "count": 1}));
            assert_eq!(page.texts(), [name.as_str()]);
        }
    }
}

fn survives(mode: &str, end: End) {
    let mut server = TestServer::start_with(&["--sync", mode]);
    begin(&server);
    for life in 1..=4 {
        live(&server, life);
        let before = see(&server);
        end.of(&mut server);
        assert_eq!(see(&server), before, "{mode} {end:?} life {life}");
        retry_all(&server, life);
        assert_eq!(see(&server), before, "retries store nothing");
    }
}

#[test]
fn all_of_it_survives_a_stop_under_sync_always() {
    survives("always", End::Stop);
}

#[test]
fn all_of_it_survives_a_stop_under_sync_interval() {
    survives("interval", End::Stop);
}

#[test]
fn all_of_it_survives_a_stop_under_sync_never() {
    survives("never", End::Stop);
}

#[test]
fn all_of_it_survives_a_kill_under_sync_always() {
    survives("always", End::Kill);
}

#[test]
fn all_of_it_survives_a_kill_under_sync_interval() {
    survives("interval", End::Kill);
}

#[test]
fn all_of_it_survives_a_kill_under_sync_never() {
    survives("never", End::Kill);
}

#[test]
fn lives_in_which_nothing_is_written_change_nothing() {
    let mut server = TestServer::start();
    begin(&server);
    live(&server, 1);
    let before = see(&server);
    for end in [End::Stop, End::Stop, End::Kill, End::Kill, End::Stop, End::Kill] {
        // Twice without a call in between.
        end.of(&mut server);
        end.of(&mut server);
        assert_eq!(see(&server), before, "{end:?}");
    }
    live(&server, 2);
}

#[test]
fn a_server_that_never_took_anything_starts_again() {
    for end in [End::Stop, End::Kill] {
        let mut server = TestServer::start();
        for _ in 0..3 {
            end.of(&mut server);
            assert_eq!((server.ready().conversations, server.ready().messages), (0, 0));
        }
        assert_eq!(server.client("alice").with("bob").send("first").msg_index, 1);
    }
}

#[test]
fn the_sync_mode_may_change_between_lives() {
    let mut server = TestServer::start();
    begin(&server);
    for (life, mode) in (1..).zip(["never", "always", "interval", "always"]) {
        live(&server, life);
        let before = see(&server);
        server.kill();
        server.arrange(&["--sync", mode]);
        server.start_again();
        assert_eq!(see(&server), before, "{mode}");
    }
}

#[test]
fn time_does_not_run_backwards_over_a_restart() {
    let mut server = TestServer::start();
    let mut last = 0;
    for end in [End::Stop, End::Kill, End::Stop] {
        let sent = server.client("alice").with("bob").send("tick").nanoseconds();
        assert!(sent >= last);
        last = sent;
        end.of(&mut server);
    }
}

#[test]
fn what_was_refused_is_not_there_after_a_restart() {
    for end in [End::Kill, End::Stop] {
        let mut server = TestServer::start();
        let (alice, app) = (server.client("alice"), server.admin("app"));
        alice.with("bob").send("kept");
        let index = json!({"msg_index": 1});
        server.client("bob").with("alice").call("recall", &index).assert_error(403, 20002);
        alice
            .with("bob")
            .call("send", &json!({"msg": "x", "target_type": "nobody"}))
            .assert_error(400, 10001);
        alice.group("nothing").call("send", &json!({"msg": "x"})).assert_error(404, 22002);
        alice.group("nothing either").call("ack", &index).assert_error(404, 22002);
        alice.group("still nothing").call("recall", &index).assert_error(404, 22002);
        alice.with("carol").call("recall", &index).assert_error(404, 20001);
        alice.with("dave").call("ack", &index).assert_error(404, 20001);
        for verb in ["add", "kick", "leave"] {
            let body = json!({"group_id": format!("nothing to {verb}"), "user_ids": ["x"]});
            app.call(&format!("/im.group/{verb}"), &body).assert_error(404, 22002);
        }
        end.of(&mut server);
        let page = server.client("alice").with("bob").beginning();
        assert_eq!((page.texts(), page.max_recall_index), (vec!["kept"], 0));
        assert_eq!((server.ready().conversations, server.ready().messages), (1, 1), "{end:?}");
    }
}
