//! Group verbs: creating, adding, putting out, leaving, listing, and who may.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Client, TestServer, fresh, shared_server, since_epoch};

fn duties(client: &Client, group: &str) -> BTreeMap<String, u64> {
    let page = client.group_call("members", &json!({"group_id": group}));
    let members = page["members"].as_array().expect("members").iter();
    members
        .map(|member| {
            (member["user_id"].as_str().expect("an id").to_owned(), member["duty"].as_u64().expect("a duty"))
        })
        .collect()
}

fn count(client: &Client, group: &str) -> Value {
    client.group_call("info", &json!({"group_id": group}))["members_count"].clone()
}

#[test]
fn the_creator_owns_the_group_and_everybody_named_is_in() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let group = fresh("group");
    let before = since_epoch().as_secs();
    let body = json!({"group_id": group, "name": "Friends", "members": [bob.user, bob.user, owner.user]});
    assert_eq!(owner.group_call("create", &body), json!({"group_id": group}));
    let after = since_epoch().as_secs();

    let info = owner.group_call("info", &json!({"group_id": group}));
    let created = info["created"].as_u64().expect("seconds");
    assert!((before..=after).contains(&created), "{before} {created} {after}");
    let expected =
        json!({"group_id": group, "name": "Friends", "created": created, "members_count": 2, "duty": 2});
    assert_eq!(info, expected);
    assert_eq!(bob.group_call("info", &json!({"group_id": group}))["duty"], 0);
    assert_eq!(duties(&bob, &group), [(owner.user.clone(), 2), (bob.user.clone(), 0)].into());
}

#[test]
fn without_an_id_the_server_makes_one() {
    let server = shared_server();
    let owner = server.client(&fresh("owner"));
    let create =
        |body: Value| owner.group_call("create", &body)["group_id"].as_str().expect("an id").to_owned();
    let first = create(json!({"name": "one"}));
    let second = create(json!({"name": "one", "group_id": "", "members": null}));
    assert!(!first.is_empty() && first != second);
    assert_eq!(owner.group(&first).send("m").msg_index, 1);
    assert_eq!(owner.group_call("info", &json!({"group_id": second}))["name"], "one");
}

#[test]
fn a_taken_id_is_409_and_changes_nothing() {
    let server = shared_server();
    let (owner, other) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[]);
    for client in [&other, &owner] {
        let reply = client.call("/im.group/create", &json!({"group_id": group, "name": "Mine now"}));
        assert_eq!(reply.status, 409, "{reply:?}");
        assert!(
            reply.json()["code"].as_u64().is_some_and(|code| code > 0) && reply.json()["msg"].is_string()
        );
    }
    let info = owner.group_call("info", &json!({"group_id": group}));
    assert_eq!(
        (&info["name"], &info["members_count"], &info["duty"]),
        (&json!("Friends"), &json!(1), &json!(2))
    );
    other.group(&group).call("send", &json!({"msg": "m"})).assert_error(403, 10008);
}

#[test]
fn of_many_who_create_one_id_at_once_one_owns_it() {
    let server = shared_server();
    let group = fresh("group");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let create = || {
            let client = server.client(&fresh("creator"));
            client.call("/im.group/create", &json!({"group_id": group, "name": "n"})).status
        };
        let creators: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        creators.into_iter().map(|creator| creator.join().expect("a creator")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 7, "{statuses:?}");
}

#[test]
fn an_unknown_group_is_22002_for_every_call() {
    let server = shared_server();
    let alice = server.client(&fresh("alice"));
    let group = fresh("nothing");
    for (verb, fields) in [
        ("send", json!({"msg": "m"})),
        ("recall", json!({"msg_index": 1})),
        ("ack", json!({"msg_index": 1})),
        ("pull", json!({"direction": "after", "start_msg_index": 1, "count": 1})),
    ] {
        alice.group(&group).call(verb, &fields).assert_error(404, 22002);
    }
    for client in [&alice, &server.admin(&fresh("app"))] {
        for verb in ["info", "members", "add", "kick", "leave"] {
            let body = json!({"group_id": group, "user_ids": ["someone"]});
            client.call(&format!("/im.group/{verb}"), &body).assert_error(404, 22002);
        }
    }
    alice.create_group(&group, &[]);
}

#[test]
fn outsiders_are_refused_with_10008_by_every_call() {
    let server = shared_server();
    let (owner, outsider) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[]);
    owner.group(&group).send("inside");
    for (verb, fields) in [
        ("send", json!({"msg": "m"})),
        ("send", json!({"msg": "m", "client_msg_id": "id"})),
        ("recall", json!({"msg_index": 1})),
        ("recall", json!({"msg_index": 2})),
        ("ack", json!({"msg_index": 0})),
        ("ack", json!({"msg_index": 1})),
        ("pull", json!({"direction": "after", "start_msg_index": 1, "count": 1})),
        ("pull", json!({"direction": "before", "count": 1})),
    ] {
        outsider.group(&group).call(verb, &fields).assert_error(403, 10008);
    }
    for verb in ["info", "members", "add", "kick", "leave"] {
        let body = json!({"group_id": group, "user_ids": [outsider.user]});
        outsider.call(&format!("/im.group/{verb}"), &body).assert_error(403, 10008);
    }
    assert_eq!(duties(&owner, &group), [(owner.user.clone(), 2)].into());
}

#[test]
fn members_may_neither_add_nor_put_out() {
    let server = shared_server();
    let (owner, member) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[&member.user]);
    for (verb, user) in [("add", "new"), ("kick", owner.user.as_str()), ("kick", member.user.as_str())] {
        let body = json!({"group_id": group, "user_ids": [user]});
        member.call(&format!("/im.group/{verb}"), &body).assert_error(403, 10008);
    }
    assert_eq!(count(&owner, &group), 2);
}

#[test]
fn adding_and_putting_out_pass_over_who_is_in_or_out_already() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let (group, carol) = (fresh("group"), fresh("carol"));
    owner.create_group(&group, &[&bob.user]);
    let users = json!({"group_id": group, "user_ids": [bob.user, carol, carol, owner.user]});
    assert_eq!(owner.group_call("add", &users), json!({}));
    assert_eq!(owner.group_call("add", &users), json!({}));
    assert_eq!(
        duties(&owner, &group),
        [(owner.user.clone(), 2), (bob.user.clone(), 0), (carol.clone(), 0)].into()
    );
    let out = json!({"group_id": group, "user_ids": [carol, fresh("nobody"), carol]});
    assert_eq!(owner.group_call("kick", &out), json!({}));
    assert_eq!(owner.group_call("kick", &out), json!({}));
    assert_eq!(count(&owner, &group), 2);
}

#[test]
fn who_leaves_is_out_and_the_group_goes_on() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[&bob.user]);
    assert_eq!(bob.group_call("leave", &json!({"group_id": group})), json!({}));
    bob.group(&group).call("send", &json!({"msg": "m"})).assert_error(403, 10008);
    bob.call("/im.group/leave", &json!({"group_id": group})).assert_error(403, 10008);
    assert_eq!(owner.group(&group).send("m").msg_index, 1);
    assert_eq!(count(&owner, &group), 1);
}

#[test]
fn when_the_owner_leaves_somebody_owns_the_group() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let group = fresh("group");
    owner.create_group(&group, &[&bob.user, &fresh("carol")]);
    owner.group_call("leave", &json!({"group_id": group}));
    let duties = duties(&bob, &group);
    assert_eq!(duties.values().filter(|duty| **duty == 2).count(), 1, "{duties:?}");
}

#[test]
fn the_members_come_in_pages() {
    let server = shared_server();
    let owner = server.client(&fresh("owner"));
    let group = fresh("group");
    let members: Vec<String> = (0..25).map(|number| format!("member {number:02}")).collect();
    owner.create_group(&group, &members.iter().map(String::as_str).collect::<Vec<_>>());
    let before = since_epoch().as_secs();
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = owner.group_call("members", &json!({"group_id": group, "count": 10, "cursor": cursor}));
        for member in page["members"].as_array().expect("members") {
            assert!(member["joined"].as_u64().is_some_and(|joined| joined <= before + 1), "{member}");
            seen.push(member["user_id"].as_str().expect("an id").to_owned());
        }
        pages += 1;
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(pages, 3);
    seen.sort_unstable();
    let mut all = members;
    all.push(owner.user.clone());
    all.sort_unstable();
    assert_eq!(seen, all);
}

#[test]
fn an_admin_token_may_call_the_verbs_on_any_group() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let app = server.admin(&fresh("app"));
    let group = fresh("group");
    owner.create_group(&group, &[]);
    app.group_call("add", &json!({"group_id": group, "user_ids": [bob.user]}));
    assert_eq!(app.group_call("info", &json!({"group_id": group}))["members_count"], 2);
    assert_eq!(duties(&app, &group).len(), 2);
    bob.group(&group).send("in");
    app.group_call("kick", &json!({"group_id": group, "user_ids": [bob.user]}));
    bob.group(&group).call("send", &json!({"msg": "out"})).assert_error(403, 10008);
    // Owning membership is not being a member.
    app.group(&group).call("send", &json!({"msg": "m"})).assert_error(403, 10008);
    assert_eq!(count(&owner, &group), 1, "the admin is no member");
}

#[test]
fn groups_survive_a_crash() {
    let mut server = TestServer::start();
    let owner = server.client("owner");
    owner.create_group("g", &["bob", "carol"]);
    owner.group_call("add", &json!({"group_id": "g", "user_ids": ["dave"]}));
    owner.group_call("kick", &json!({"group_id": "g", "user_ids": ["carol"]}));
    server.client("bob").group_call("leave", &json!({"group_id": "g"}));
    let shown = |server: &TestServer| {
        let owner = server.client("owner");
        let at = json!({"group_id": "g"});
        (owner.group_call("info", &at), owner.group_call("members", &at))
    };
    let before = shown(&server);
    server.kill();
    server.start_again();
    assert_eq!(shown(&server), before);
    assert_eq!(
        duties(&server.client("owner"), "g"),
        [("owner".to_owned(), 2), ("dave".to_owned(), 0)].into()
    );
    server.client("carol").group("g").call("send", &json!({"msg": "m"})).assert_error(403, 10008);
    server.client("owner").call("/im.group/create", &json!({"group_id": "g", "name": "n"}));
    assert_eq!(server.client("dave").group("g").send("m").msg_index, 1);
}
