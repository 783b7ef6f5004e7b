//! Administering groups: duties, names, mutes, the end of a group, and one's own groups.

use std::time::Duration;

use prost::Message;
use serde_json::{Value, json};

use crate::support::protobuf::{GroupChangeReq, GroupListResp, ListReq, MEDIA_TYPE};
use crate::support::{Client, Stream, TestServer, fresh, shared_server, since_epoch};

const FORM: &str = "application/x-www-form-urlencoded";
/// Farther than any test lasts.
const LATER: u64 = 4_000_000_000;

fn set_duty(client: &Client, group: &str, user: &str, duty: u32) {
    client.group_call("set_duty", &json!({"group_id": group, "user_id": user, "duty": duty}));
}

fn mute(client: &Client, group: &str, user: &str, until: u64) {
    client.group_call("mute", &json!({"group_id": group, "user_id": user, "until": until}));
}

fn info(client: &Client, group: &str) -> Value {
    client.group_call("info", &json!({"group_id": group}))
}

#[track_caller]
fn assert_muted_until(client: &Client, group: &str, until: u64) {
    let reply = client.group(group).call("send", &json!({"msg": "m"}));
    reply.assert_error(403, 10008);
    assert!(reply.text().contains(&until.to_string()), "{reply:?}");
}

/// A group of an owner, an admin and a member.
fn three(server: &TestServer) -> (Client, Client, Client, String) {
    let (owner, admin) = server.strangers();
    let (member, group) = (server.client(&fresh("member")), fresh("group"));
    owner.create_group(&group, &[&admin.user, &member.user]);
    set_duty(&owner, &group, &admin.user, 3);
    (owner, admin, member, group)
}

#[test]
fn the_owner_gives_duties_and_hands_the_group_over() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    assert_eq!(info(&admin, &group)["duty"], 3);
    for client in [&admin, &member] {
        let body = json!({"group_id": group, "user_id": member.user, "duty": 3});
        client.call("/im.group/set_duty", &body).assert_error(403, 10008);
    }
    set_duty(&owner, &group, &member.user, 2);
    let duties = [&owner, &admin, &member].map(|client| info(client, &group)["duty"].clone());
    assert_eq!(duties, [3, 3, 2]);
    let body = json!({"group_id": group, "user_id": owner.user, "duty": 0});
    owner.call("/im.group/set_duty", &body).assert_error(403, 10008);
    assert_eq!(member.group_call("set_duty", &body), json!({}));
    assert_eq!(info(&owner, &group)["duty"], 0);
    set_duty(&server.admin(&fresh("app")), &group, &admin.user, 2);
    assert_eq!(
        (info(&admin, &group)["duty"].clone(), info(&member, &group)["duty"].clone()),
        (2.into(), 3.into())
    );
}

#[test]
fn a_duty_that_makes_no_sense_is_refused_and_changes_nothing() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    for fields in [
        json!({"duty": 1}),
        json!({"duty": 4}),
        json!({"duty": 256}),
        json!({"duty": "owner"}),
        json!({"user_id": "", "duty": 0}),
        json!({"user_id": "a\nb", "duty": 0}),
        json!({"user_id": fresh("nobody"), "duty": 3}),
        json!({"user_id": owner.user, "duty": 3}),
        json!({"group_id": "", "duty": 3}),
    ] {
        let mut body = json!({"group_id": group, "user_id": member.user});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        owner.call("/im.group/set_duty", &body).assert_error(400, 10001);
    }
    let duties = [&owner, &admin, &member].map(|client| info(client, &group)["duty"].clone());
    assert_eq!(duties, [2, 3, 0]);
}

#[test]
fn the_owner_and_admins_rename_the_group() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    member.call("/im.group/rename", &json!({"group_id": group, "name": "x"})).assert_error(403, 10008);
    for (client, name) in [(&owner, "first \u{1F600}"), (&admin, "second")] {
        assert_eq!(client.group_call("rename", &json!({"group_id": group, "name": name})), json!({}));
        assert_eq!(info(&member, &group)["name"], name);
    }
    for name in [json!(""), json!(null), json!("n".repeat(257)), json!(["a"])] {
        owner.call("/im.group/rename", &json!({"group_id": group, "name": name})).assert_error(400, 10001);
    }
    assert_eq!(info(&member, &group)["name"], "second");
}

#[test]
fn who_is_muted_sends_nothing_and_is_told_until_when() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    member.group(&group).send_named("before", "before");
    mute(&admin, &group, &member.user, LATER);
    assert_muted_until(&member, &group, LATER);
    let typing = json!({"target": group, "target_type": "group", "kind": "typing"});
    member.call("/im.chat/signal", &typing).assert_error(403, 10008);
    // What was stored before stays theirs, and they are a member in all else.
    assert!(member.group(&group).send_named("before", "before").duplicate);
    owner.group(&group).send("still read");
    assert_eq!(member.group(&group).beginning().texts(), ["before", "still read"]);
    member.group(&group).ack(2);
    assert_eq!(member.group(&group).recall(1), 1);
    mute(&owner, &group, &member.user, 0);
    assert_eq!(member.group(&group).send("again").msg_index, 3);
}

#[test]
fn a_mute_ends_by_itself_and_one_that_is_past_ends_it_at_once() {
    let server = shared_server();
    let (owner, _, member, group) = three(&server);
    let until = since_epoch().as_secs() + 2;
    mute(&owner, &group, &member.user, until);
    assert_muted_until(&member, &group, until);
    let deadline = since_epoch() + Duration::from_secs(20);
    while member.group(&group).call("send", &json!({"msg": "m"})).status != 200 {
        assert!(since_epoch() < deadline, "the mute does not end");
    }
    assert!(since_epoch().as_secs() >= until);
    mute(&owner, &group, &member.user, LATER);
    mute(&owner, &group, &member.user, 1);
    member.group(&group).send("again");
}

#[test]
fn nobody_mutes_their_equals_or_betters_but_an_admin_token() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    let other = fresh("other");
    owner.group_call("add", &json!({"group_id": group, "user_ids": [other]}));
    set_duty(&owner, &group, &other, 3);
    for (by, whom) in
        [(&admin, &owner), (&member, &owner), (&member, &member), (&owner, &owner), (&admin, &admin)]
    {
        let body = json!({"group_id": group, "user_id": whom.user, "until": LATER});
        by.call("/im.group/mute", &body).assert_error(403, 10008);
    }
    let body = json!({"group_id": group, "user_id": other, "until": LATER});
    admin.call("/im.group/mute", &body).assert_error(403, 10008);
    for until in [json!(-1), json!(1.5), json!(4_294_967_296_u64), json!("soon"), json!([1])] {
        let body = json!({"group_id": group, "user_id": member.user, "until": until});
        owner.call("/im.group/mute", &body).assert_error(400, 10001);
    }
    let body = json!({"group_id": group, "user_id": fresh("nobody"), "until": LATER});
    owner.call("/im.group/mute", &body).assert_error(400, 10001);
    mute(&owner, &group, &other, LATER);
    mute(&server.admin(&fresh("app")), &group, &owner.user, LATER);
    assert_muted_until(&owner, &group, LATER);
}

#[test]
fn of_a_dismissed_group_nothing_is_left_but_its_id() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    member.group(&group).send("secret");
    for client in [&admin, &member] {
        client.call("/im.group/dismiss", &json!({"group_id": group})).assert_error(403, 10008);
    }
    assert_eq!(owner.group_call("dismiss", &json!({"group_id": group})), json!({}));
    let app = server.admin(&fresh("app"));
    for client in [&owner, &admin, &member, &app] {
        for (verb, fields) in [
            ("send", json!({"msg": "m"})),
            ("recall", json!({"msg_index": 1})),
            ("ack", json!({"msg_index": 1})),
            ("pull", json!({"direction": "after", "start_msg_index": 1, "count": 1})),
            ("acks", json!({})),
            ("signal", json!({"kind": "typing"})),
        ] {
            client.group(&group).call(verb, &fields).assert_error(404, 22002);
        }
        for verb in ["info", "members", "add", "kick", "leave", "set_duty", "rename", "mute", "dismiss"] {
            let body = json!({"group_id": group, "user_ids": ["x"], "user_id": "x", "name": "n"});
            client.call(&format!("/im.group/{verb}"), &body).assert_error(404, 22002);
        }
        client.call("/im.group/create", &json!({"group_id": group, "name": "n"})).assert_error(409, 22003);
        assert_eq!(client.call("/im.chat/list", &json!({})).ok()["chats"], json!([]));
        assert_eq!(client.call("/im.chat/sync", &json!({})).ok()["chats"], json!([]));
        assert_eq!(client.group_call("list", &json!({}))["groups"], json!([]));
    }
}

#[test]
fn everybody_in_the_group_hears_of_every_change() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    let mut streams = [&owner, &admin, &member].map(Client::stream);
    set_duty(&owner, &group, &member.user, 3);
    owner.group_call("rename", &json!({"group_id": group, "name": "new \"name\""}));
    mute(&owner, &group, &member.user, LATER);
    mute(&owner, &group, &member.user, 0);
    set_duty(&owner, &group, &admin.user, 2);
    member.group(&group).send("between");
    admin.group_call("dismiss", &json!({"group_id": group}));
    let (o, a, m) = (&owner.user, &admin.user, &member.user);
    for stream in &mut streams {
        for content in [
            json!({"action": "duty", "user": m, "by": o, "duty": 3}),
            json!({"action": "rename", "user": o, "by": o, "name": "new \"name\""}),
            json!({"action": "mute", "user": m, "by": o, "until": LATER}),
            json!({"action": "mute", "user": m, "by": o, "until": 0}),
            json!({"action": "duty", "user": a, "by": o, "duty": 2}),
            json!({"action": "duty", "user": o, "by": o, "duty": 3}),
        ] {
            let event = stream.event_of("group");
            assert_eq!((&event["target"], &event["content"]), (&json!(group), &content));
        }
        assert_eq!(stream.event_of("msg")["content"]["msg"], "between");
        let last = stream.event_of("group");
        assert_eq!(last["content"], json!({"action": "dismiss", "user": a, "by": a}));
        stream.assert_quiet();
    }
    assert_eq!(member.stream().hello["chats"], json!([]));
}

/// The next changes of a group that a stream tells, as whom they are about and what they are.
fn changes(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut change = |_| {
        let content = stream.event_of("group")["content"].clone();
        let text = |name: &str| content[name].as_str().expect("a text").to_owned();
        let duty = content["duty"].as_u64().map_or(String::new(), |duty| format!(" {duty}"));
        format!("{} {}{duty} by {}", text("user"), text("action"), text("by"))
    };
    (0..count).map(&mut change).collect()
}

#[test]
fn everybody_hears_who_inherits_a_group() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    let app = server.admin(&fresh("app"));
    let (o, a, m, app_user) = (&owner.user, &admin.user, &member.user, &app.user);
    let mut streams = [&owner, &admin, &member].map(Client::stream);
    owner.group_call("leave", &json!({"group_id": group}));
    for stream in &mut streams {
        assert_eq!(changes(stream, 2), [format!("{a} duty 2 by {o}"), format!("{o} leave by {o}")]);
    }
    // Who goes along with the owner inherits nothing.
    app.group_call("add", &json!({"group_id": group, "user_ids": [o]}));
    set_duty(&app, &group, o, 3);
    app.group_call("kick", &json!({"group_id": group, "user_ids": [o, a]}));
    let expected = [
        format!("{o} add by {app_user}"),
        format!("{o} duty 3 by {app_user}"),
        format!("{m} duty 2 by {app_user}"),
        format!("{o} kick by {app_user}"),
        format!("{a} kick by {app_user}"),
    ];
    // Who is out hears nothing further.
    for (stream, hears) in streams.iter_mut().zip([4, 5, 5]) {
        assert_eq!(changes(stream, hears), expected[..hears]);
    }
    // The last one leaves it to nobody; who comes first owns what is begun again.
    member.group_call("leave", &json!({"group_id": group}));
    assert_eq!(changes(&mut streams[2], 1), [format!("{m} leave by {m}")]);
    app.group_call("add", &json!({"group_id": group, "user_ids": [m, a]}));
    for stream in &mut streams[1..] {
        let expected = ["add", "add", "duty 2"].iter().zip([m, a, a]);
        let expected: Vec<_> = expected.map(|(what, who)| format!("{who} {what} by {app_user}")).collect();
        assert_eq!(changes(stream, 3), expected);
    }
    assert_eq!(info(&admin, &group)["duty"], 2);
    streams.iter_mut().for_each(Stream::assert_quiet);
}

#[test]
fn the_members_say_who_is_muted_until_when() {
    let server = shared_server();
    let (owner, admin, member, group) = three(&server);
    mute(&owner, &group, &member.user, LATER);
    let muted = |client: &Client| {
        let page = client.group_call("members", &json!({"group_id": group}));
        let until = |member: &Value| member["muted_until"].as_u64().expect("a number");
        page["members"].as_array().expect("members").iter().map(until).collect::<Vec<_>>()
    };
    for client in [&owner, &admin, &member, &server.admin(&fresh("app"))] {
        assert_eq!(muted(client), [0, 0, LATER]);
    }
    mute(&owner, &group, &member.user, 0);
    assert_eq!(muted(&member), [0, 0, 0]);
}

#[test]
fn the_verbs_work_over_a_websocket_as_forms_and_in_protobuf() {
    let server = shared_server();
    let (owner, _, member, group) = three(&server);
    let mut stream = owner.stream();
    for (method, params) in [
        ("group.set_duty", json!({"groupId": group, "userId": member.user, "duty": "3"})),
        ("im.group/set_duty", json!({"group_id": group, "user_id": member.user})),
        ("group.rename", json!({"group_id": group, "name": "over a socket"})),
        ("group.mute", json!({"group_id": group, "user_id": member.user, "until": LATER})),
    ] {
        assert_eq!(stream.call(method, &params), json!({}), "{method}");
    }
    assert_muted_until(&member, &group, LATER);
    let listed = stream.call("group.list", &json!({}));
    assert_eq!(listed["groups"][0]["name"], "over a socket");
    assert_eq!(
        stream.refused("group.mute", &json!({"group_id": group, "user_id": owner.user, "until": 9})),
        10008
    );

    let form = |verb: &str, body: &str| {
        let reply = owner.post(&format!("/im.group/{verb}"), &[("Content-Type", FORM)], body.as_bytes());
        assert_eq!(reply.expect("a reply").ok(), json!({}), "{verb}");
    };
    let (user, id) = (&member.user, &group);
    form("mute", &format!("group_id={id}&user_id={user}&until=0"));
    form("rename", &format!("group_id={id}&name=of+a+form"));
    form("set_duty", &format!("group_id={id}&user_id={user}&duty=3"));
    assert_eq!(info(&member, &group)["duty"], 3);

    let protobuf = |verb: &str, body: Vec<u8>| {
        let headers = [("Content-Type", MEDIA_TYPE), ("Accept", MEDIA_TYPE)];
        let reply = owner.post(&format!("/im.group/{verb}"), &headers, &body).expect("a reply");
        assert_eq!(reply.status, 200, "{verb}");
        reply.body
    };
    let change = |number| GroupChangeReq { group_id: group.clone(), user_id: member.user.clone(), number };
    assert!(protobuf("set_duty", change(0).encode_to_vec()).is_empty());
    assert!(protobuf("mute", change(LATER as u32).encode_to_vec()).is_empty());
    assert_muted_until(&member, &group, LATER);
    let name = GroupChangeReq { group_id: group.clone(), user_id: "in protobuf".into(), number: 0 };
    assert!(protobuf("rename", name.encode_to_vec()).is_empty());
    let list = protobuf("list", ListReq { cursor: String::new(), count: 9 }.encode_to_vec());
    let list = GroupListResp::decode(list.as_slice()).expect("protobuf");
    assert_eq!((list.groups.len(), list.cursor.as_str()), (1, ""));
    let only = &list.groups[0];
    assert_eq!((only.name.as_str(), only.members_count, only.duty), ("in protobuf", 3, 2));
    let only_group = GroupChangeReq { group_id: group.clone(), ..Default::default() };
    assert!(protobuf("dismiss", only_group.encode_to_vec()).is_empty());
    owner.group(&group).call("send", &json!({"msg": "m"})).assert_error(404, 22002);
    for verb in ["set_duty", "rename", "mute", "dismiss", "list"] {
        let series = format!("chinwag_requests_total{{verb=\"group_{verb}\",code=\"0\"}}");
        assert!(server.metric(&series).is_some_and(|count| count >= 1.0), "{series}");
    }
}

#[test]
fn ones_groups_come_in_pages_in_the_order_of_their_ids() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let mut groups: Vec<String> = (0..7).map(|number| fresh(&format!("group {}", number * 3 % 7))).collect();
    for group in &groups {
        owner.create_group(group, &[&bob.user]);
    }
    bob.group_call("leave", &json!({"group_id": groups.remove(2)}));
    owner.with(&bob.user).send("a conversation that is no group");
    groups.sort_unstable();
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = bob.group_call("list", &json!({"count": 4, "cursor": cursor}));
        for group in page["groups"].as_array().expect("groups") {
            let created = &group["created"];
            assert!(created.as_u64().is_some_and(|seconds| seconds > 1_600_000_000), "{group}");
            let expected = json!({"group_id": group["group_id"], "name": "Friends", "created": created,
                "members_count": 2, "duty": 0});
            assert_eq!(*group, expected);
            seen.push(group["group_id"].as_str().expect("an id").to_owned());
        }
        (cursor, pages) = (page["cursor"].as_str().expect("a cursor").to_owned(), pages + 1);
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (groups, 2));
    assert_eq!(
        server.client(&fresh("nobody")).group_call("list", &json!({})),
        json!({"groups": [], "cursor": ""})
    );
    for body in [json!({"count": 201}), json!({"cursor": "a\u{1}"}), json!({"cursor": "c".repeat(257)})] {
        bob.call("/im.group/list", &body).assert_error(400, 10001);
    }
}

#[test]
fn an_admin_token_that_is_no_member_may_call_every_verb() {
    let server = shared_server();
    let (owner, bob) = server.strangers();
    let (app, group) = (server.admin(&fresh("app")), fresh("group"));
    owner.create_group(&group, &[&bob.user]);
    set_duty(&app, &group, &bob.user, 3);
    app.group_call("rename", &json!({"group_id": group, "name": "the app's"}));
    mute(&app, &group, &bob.user, LATER);
    assert_muted_until(&bob, &group, LATER);
    // To leave and to list are about the token's own user.
    app.call("/im.group/leave", &json!({"group_id": group})).assert_error(403, 10008);
    assert_eq!(app.group_call("list", &json!({}))["groups"], json!([]));
    let own = fresh("group");
    app.create_group(&own, &[&bob.user]);
    assert_eq!(app.group_call("list", &json!({}))["groups"][0]["duty"], 2);
    app.group_call("dismiss", &json!({"group_id": group}));
    owner.group(&group).call("send", &json!({"msg": "m"})).assert_error(404, 22002);
    // A group that everybody has left can be ended, or begun again.
    bob.group_call("leave", &json!({"group_id": own}));
    app.group_call("leave", &json!({"group_id": own}));
    app.group_call("add", &json!({"group_id": own, "user_ids": [bob.user]}));
    assert_eq!(info(&bob, &own)["duty"], 2);
    bob.group_call("leave", &json!({"group_id": own}));
    app.group_call("dismiss", &json!({"group_id": own}));
}

/// What of the groups of this test can be seen.
fn shown(server: &TestServer) -> Value {
    let at = json!({"group_id": "kept"});
    let owner = server.client("bob");
    let sent = server.client("carol").group("kept").call("send", &json!({"msg": "m"}));
    let gone = server.client("alice").call("/im.group/info", &json!({"group_id": "gone"}));
    json!([
        owner.group_call("info", &at),
        owner.group_call("members", &at),
        owner.group_call("list", &json!({})),
        owner.call("/im.chat/list", &json!({})).ok(),
        [sent.status, gone.status],
    ])
}

#[test]
fn changes_survive_crashes_checkpoints_compaction_and_a_move() {
    let mut server = TestServer::start();
    let alice = server.client("alice");
    for group in ["kept", "gone"] {
        alice.create_group(group, &["bob", "carol"]);
        alice.group(group).send("a secret");
    }
    set_duty(&alice, "kept", "bob", 2);
    server.client("bob").group_call("rename", &json!({"group_id": "kept", "name": "renamed"}));
    mute(&server.client("bob"), "kept", "carol", LATER);
    let before_dismissal = server.admin("root");
    let ops = |server: &TestServer, body: Value| {
        server.operator().call("/im.admin/snapshot", &body).ok();
    };
    // The pack has the text of the group that is going to end.
    ops(&server, json!({}));
    before_dismissal.group_call("dismiss", &json!({"group_id": "gone"}));
    let before = shown(&server);
    assert_eq!(before[4], json!([403, 404]));
    assert_eq!((&before[0]["name"], &before[0]["duty"]), (&json!("renamed"), &json!(2)));
    server.kill();
    server.start_again();
    assert_eq!(shown(&server), before);
    server.client("alice").group("kept").recall(1);
    let after = shown(&server);
    ops(&server, json!({"compact": true}));
    assert_eq!(shown(&server), after);
    server.kill();
    server.start_again();
    assert_eq!(shown(&server), after);
    server.stop();
    for part in ["snap", "wal"] {
        for file in std::fs::read_dir(server.data().join(part)).expect("a directory") {
            let bytes = std::fs::read(file.expect("a file").path()).expect("its bytes");
            assert!(!bytes.windows(8).any(|window| window == b"a secret"), "a text is left in {part}");
        }
    }
    let data = server.data().to_str().expect("UTF-8").to_owned();
    let run = |arguments: &[&str]| {
        let finished = crate::support::Process::run(crate::support::chinwag(arguments));
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        finished.stdout.join("\n") + "\n"
    };
    run(&["verify", &data]);
    let exported = run(&["export", &data]);
    let moved = tempfile::tempdir().expect("a directory");
    let (file, to) = (moved.path().join("lines"), moved.path().join("data"));
    std::fs::write(&file, &exported).expect("written");
    let (file, to) = (file.to_str().expect("UTF-8"), to.to_str().expect("UTF-8"));
    run(&["import", to, "--in", file]);
    run(&["verify", to]);
    assert_eq!(run(&["export", to]), exported);
    server.start_again();
    assert_eq!(shown(&server), after);
}
