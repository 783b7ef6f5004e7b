//! What the verbs answer, byte for byte.

use super::*;

#[tokio::test]
async fn the_four_calls_do_what_the_api_document_says() {
    let server = Server::start(options()).await;
    let to_bob = r#"{"target":"bob","target_type":"user","msg":"hi","client_msg_id":"1"}"#;
    let first = say(&server, "alice", "/im.chat/send", to_bob).await;
    assert!(
        first.starts_with(r#"200 {"msg_index":1,"timestamp":"#) && first.ends_with(r#""duplicate":false}"#),
        "{first}"
    );
    let again = say(&server, "alice", "/im.chat/send", to_bob).await;
    assert_eq!(again, first.replace("false", "true"));
    let other = to_bob.replace("hi", "ho");
    assert!(say(&server, "alice", "/im.chat/send", &other).await.starts_with(r#"409 {"code":20003,"#));
    let at_alice = r#"{"target":"alice","target_type":"user","msg_index":1}"#;
    assert_eq!(say(&server, "bob", "/im.chat/ack", at_alice).await, "200 {}");
    assert!(say(&server, "bob", "/im.chat/recall", at_alice).await.starts_with(r#"403 {"code":20002,"#));
    let at_bob = at_alice.replace("alice", "bob");
    assert_eq!(say(&server, "alice", "/im.chat/recall", &at_bob).await, r#"200 {"recall_index":1}"#);
    let pull = r#"{"target":"alice","targetType":"user","direction":"after","startMsgIndex":"1","startRecallIndex":1,"count":50}"#;
    let page = say(&server, "bob", "/im.chat/pull", pull).await;
    let message = r#"200 {"msgs":[{"msg_index":1,"recall_index":1,"msg":"","extra":"","timestamp":"#;
    assert!(page.starts_with(message), "{page}");
    let rest =
        r#""sender":"alice","target":"alice","target_type":"user"}],"recalls":{"1":1},"max_msg_index":1,"#;
    assert!(page.contains(rest), "{page}");
    server.drained().await;
}

#[tokio::test]
async fn groups_do_what_the_contract_says() {
    let server = Server::start(options()).await;
    let create = "group_id=g&name=the+group&members=bob&members=carol";
    let form =
        format!(
        "{}{create}",
        server.head("/im.group/create", &format!(
            "Connection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}",
            create.len()
        ))
    );
    assert!(server.exchange(&form).await.ends_with("\r\n\r\n{\"group_id\":\"g\"}"));
    let group = r#"{"group_id":"g","name":"again"}"#;
    assert!(say(&server, "alice", "/im.group/create", group).await.starts_with(r#"409 {"code":22003,"#));
    let info = say(&server, "bob", "/im.group/info", group).await;
    assert!(info.starts_with(r#"200 {"group_id":"g","name":"the group","created":"#), "{info}");
    assert!(info.ends_with(r#","members_count":3,"duty":0}"#), "{info}");
    assert!(say(&server, "dave", "/im.group/info", group).await.starts_with(r#"403 {"code":10008,"#));
    assert!(
        say(&server, "dave", "/im.group/info", r#"{"group_id":"h"}"#)
            .await
            .starts_with(r#"404 {"code":22002,"#)
    );
    let dave = r#"{"group_id":"g","user_ids":["dave"]}"#;
    assert_eq!(say(&server, "alice", "/im.group/add", dave).await, "200 {}");
    assert_eq!(say(&server, "dave", "/im.group/leave", group).await, "200 {}");
    assert_eq!(say(&server, "alice", "/im.group/kick", &dave.replace("dave", "carol")).await, "200 {}");
    let members = say(&server, "alice", "/im.group/members", group).await;
    assert!(members.starts_with(r#"200 {"members":[{"user_id":"alice","duty":2,"joined":"#), "{members}");
    assert!(members.contains(r#"{"user_id":"bob","duty":0,"#) && !members.contains("carol"), "{members}");
    assert!(members.ends_with(r#"}],"cursor":""}"#), "{members}");
    server.drained().await;
}

#[tokio::test]
async fn a_reply_is_protobuf_for_whoever_accepts_it() {
    let server = Server::start(options()).await;
    let body = r#"{"target":"bob","target_type":"user","msg":"m"}"#;
    let framing =
        format!("Connection: close\r\nAccept: application/x-protobuf\r\nContent-Length: {}", body.len());
    let mut client = server.connect().await;
    client.send(&(server.head("/im.chat/send", &framing) + body)).await;
    let mut answer = Vec::new();
    within(client.0.read_to_end(&mut answer)).await.expect("an answer");
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    assert!(String::from_utf8_lossy(&answer[..body]).contains("content-type: application/x-protobuf\r\n"));
    let reply: crate::http::proto::SendResp = prost::Message::decode(&answer[body..]).expect("protobuf");
    assert_eq!((reply.msg_index, reply.duplicate), (1, false));
    assert_eq!(u64::from(reply.timestamp), reply.timestamp_ns / 1_000_000_000);
    server.drained().await;
}

#[tokio::test]
async fn a_pull_that_waits_is_answered_by_a_send_or_by_the_drain() {
    let server = Server::start(options()).await;
    let pull = |start| {
        let body = format!(
            r#"{{"target":"bob","target_type":"user","direction":"after","start_msg_index":{start},"count":1,"wait_ms":30000}}"#
        );
        server.request("/im.chat/pull", &body)
    };
    let (mut waiting, mut stuck) = (server.connect().await, server.connect().await);
    waiting.send(&pull(1)).await;
    stuck.send(&pull(2)).await;
    say(&server, "bob", "/im.chat/send", r#"{"target":"alice","target_type":"user","msg":"at last"}"#).await;
    assert!(waiting.answer().await.contains("at last"));
    server.draining.send(true).expect("a running server");
    let answer = stuck.rest().await;
    assert!(answer.contains(r#"{"msgs":[],"recalls":{},"max_msg_index":1,"#), "{answer}");
    server.drained().await;
}
