//! Membership is ordered with the messages: whoever is out when one is accepted never reads it.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{Client, TestServer, fresh, shared_server};

fn change(client: &Client, verb: &str, group: &str, user: &str) {
    client.group_call(verb, &json!({"group_id": group, "user_ids": [user]}));
}

#[test]
fn a_newcomer_reads_only_what_comes_after_them() {
    let server = shared_server();
    let (owner, late) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[]);
    owner.group(&group).send("before");
    owner.group(&group).send("before too");
    change(&owner, "add", &group, &late.user);
    assert_eq!(owner.group(&group).send("after").msg_index, 3);
    let chat = late.group(&group);
    for fields in [
        json!({"start_msg_index": 1}),
        json!({"direction": "before", "start_msg_index": 99}),
        json!({"start_msg_index": 2}),
        json!({"start_msg_index": 3}),
    ] {
        let page = chat.pull(&fields);
        assert_eq!((page.indices(), page.texts()), (vec![3], vec!["after"]), "{fields}");
        assert_eq!((page.min_msg_index, page.max_msg_index), (3, 3), "{fields}");
    }
    assert_eq!(chat.pull(&json!({"direction": "before", "start_msg_index": 2})).msgs, []);
    assert_eq!(owner.group(&group).beginning().min_msg_index, 1);
}

#[test]
fn what_was_said_while_one_was_out_is_never_read() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[&bob.user]);
    owner.group(&group).send("with them");
    change(&owner, "kick", &group, &bob.user);
    owner.group(&group).send("without them");
    change(&owner, "add", &group, &bob.user);
    owner.group(&group).send("with them again");
    let page = bob.group(&group).beginning();
    assert!(!page.texts().contains(&"without them"), "{:?}", page.texts());
    assert_eq!(page.texts().last(), Some(&"with them again"));
    let backwards = bob.group(&group).pull(&json!({"direction": "before", "start_msg_index": 99}));
    assert!(!backwards.texts().contains(&"without them"), "{:?}", backwards.texts());
    assert_eq!(owner.group(&group).beginning().texts(), ["with them", "without them", "with them again"]);
}

#[test]
fn the_same_holds_after_leaving_and_after_a_restart() {
    let mut server = TestServer::start();
    let owner = server.client("owner");
    owner.create_group("g", &["bob"]);
    server.client("bob").group_call("leave", &json!({"group_id": "g"}));
    owner.group("g").send("without them");
    change(&owner, "add", "g", "bob");
    owner.group("g").send("with them");
    let read = |server: &TestServer| server.client("bob").group("g").beginning();
    let before = read(&server);
    assert_eq!((before.texts(), before.min_msg_index), (vec!["with them"], 2));
    server.kill();
    server.start_again();
    assert_eq!(read(&server), before);
    server.stop();
    server.start_again();
    assert_eq!(read(&server), before);
}

#[test]
fn who_is_out_can_neither_recall_nor_retry_their_own() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[&bob.user]);
    bob.group(&group).send_named("id", "from bob");
    change(&owner, "kick", &group, &bob.user);
    bob.group(&group).call("recall", &json!({"msg_index": 1})).assert_error(403, 10008);
    let retry = json!({"msg": "from bob", "client_msg_id": "id"});
    bob.group(&group).call("send", &retry).assert_error(403, 10008);
    assert_eq!(owner.group(&group).beginning().texts(), ["from bob"]);
}

/// Somebody is put out and let in again while others write: everything they ever read was accepted
/// while they were in, which the sender knows because each text says so.
#[test]
fn under_load_nobody_reads_what_was_accepted_while_they_were_out() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[&bob.user]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let reader = server.client(&bob.user);
            let pull = json!({"direction": "before", "start_msg_index": u32::MAX, "count": 50});
            let mut read = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let reply = reader.group(&group).call("pull", &pull);
                if reply.status == 200 {
                    read.push(reply.text().to_owned());
                } else {
                    reply.assert_error(403, 10008);
                }
            }
            read
        });
        for _ in 0..30 {
            let public = owner.group(&group).send("public");
            let from = json!({"start_msg_index": public.msg_index});
            assert_eq!(bob.group(&group).pull(&from).texts(), ["public"]);
            change(&owner, "kick", &group, &bob.user);
            owner.group(&group).send("private");
            change(&owner, "add", &group, &bob.user);
        }
        stop.store(true, Ordering::Relaxed);
        let read = reading.join().expect("the reader");
        assert!(!read.is_empty());
        assert!(read.iter().all(|page| !page.contains("private")));
    });
}
