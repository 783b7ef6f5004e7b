//! A WebSocket of the load, against what a server that follows the protocol reads and says.

use std::io::Cursor;
use std::pin::pin;

use futures_util::poll;
use tungstenite::protocol::WebSocket;

use super::*;

/// What a server that follows the protocol reads.
fn as_a_server_reads(bytes: Vec<u8>) -> WebSocket<Cursor<Vec<u8>>> {
    WebSocket::from_raw_socket(Cursor::new(bytes), Role::Server, None)
}

/// A text as a server sends it.
fn pushed(text: &str) -> Vec<u8> {
    let mut server = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Server, None);
    server.send(Message::text(text)).expect("a Vec takes everything");
    server.get_ref().get_ref().clone()
}

fn protocol() -> WebSocketContext {
    WebSocketContext::new(Role::Client, None)
}

fn desk(asked: &[(usize, Verb)]) -> Desk {
    let desk = Desk::new(asked.len());
    for (slot, (id, verb)) in asked.iter().enumerate() {
        desk.say(slot, *id, *verb, b"{}").expect("it is open");
    }
    desk
}

async fn answer(desk: &Desk, slot: usize) -> Poll<Answered> {
    poll!(pin!(std::future::poll_fn(|cx| desk.poll_answer(slot, cx))))
}

#[test]
fn a_server_reads_calls_of_every_length() {
    let mut out = Vec::new();
    let texts =
        [0, 1, 80, 90, 91, 92, 93, 200, 65_490, 65_500, 65_510, 200_000].map(|bytes| "x".repeat(bytes));
    for (id, text) in [7, 10, 99, 100].into_iter().cycle().zip(&texts) {
        write_call(&mut out, id, Verb::Send, format!("{{\"msg\":\"{text}\"}}").as_bytes());
    }
    let mut server = as_a_server_reads(out);
    for (id, text) in [7, 10, 99, 100].into_iter().cycle().zip(&texts) {
        let call = format!("{{\"id\":{id},\"method\":\"send\",\"params\":{{\"msg\":\"{text}\"}}}}");
        assert_eq!(server.read().expect("a message"), Message::text(call));
    }
}

#[test]
fn an_outcome_has_the_id_of_its_call() {
    let result = |text| outcome_of(str::as_bytes(text));
    assert_eq!(result(r#"{"id":17,"result":{"a":{}}}"#), Some((17, Outcome::Result(b"{\"a\":{}}"))));
    assert_eq!(result(r#"{"id":0,"error":{"code":1}}"#), Some((0, Outcome::Error(b"{\"code\":1}"))));
    for other in ["", "{}", r#"{"id":null,"error":{}}"#, r#"{"id":1,"result":{}"#, r#"{"id":-1,"result":{}}"#]
    {
        // A brace is taken off whatever it closes: what is left of the result is judged as a body is.
        let judged = result(other).map(|(_, outcome)| outcome.judge(Verb::Send));
        assert!(matches!(judged, None | Some(Err(Failure::WrongBody))), "{other}");
    }
}

#[tokio::test]
async fn answers_find_who_asked_in_any_order_and_between_events() {
    let desk = desk(&[(3, Verb::Send), (4, Verb::Ack), (5, Verb::Send)]);
    let bytes = [
        r#"{"type":"hello","user":"u"}"#,
        r#"{"id":5,"error":{"code":10009,"msg":"too fast"}}"#,
        r#"{"type":"msg","content":{"msg_index":9}}"#,
        r#"{"id":3,"result":{"msg_index":12,"timestamp":1}}"#,
    ]
    .map(pushed)
    .concat();
    let mut protocol = protocol();
    // However the bytes come.
    for byte in &bytes {
        desk.take(&mut protocol, std::slice::from_ref(byte)).expect("it is understood");
    }
    assert_eq!(answer(&desk, 0).await, Poll::Ready(Ok(Some(12))));
    assert_eq!(answer(&desk, 1).await, Poll::Pending);
    let too_fast = Failure::Refused { status: OK, code: 10_009 };
    assert_eq!(answer(&desk, 2).await, Poll::Ready(Err(too_fast)));
    desk.end();
    assert_eq!(answer(&desk, 1).await, Poll::Ready(Err(Failure::Connection)), "it will not come any more");
    assert_eq!(desk.say(0, 6, Verb::Send, b"{}"), Err(Failure::Connection));
}

#[test]
fn an_answer_that_nobody_asked_for_breaks_the_connection() {
    for id in [0, 1, 2, 5, 7] {
        let stranger = pushed(&format!("{{\"id\":{id},\"result\":{{}}}}"));
        assert_eq!(
            desk(&[(2, Verb::Ack), (3, Verb::Ack)]).take(&mut protocol(), &stranger),
            match id {
                2 => Ok(()),
                _ => Err(Broken),
            }
        );
    }
    assert_eq!(desk(&[(2, Verb::Ack)]).take(&mut protocol(), &pushed("7")), Err(Broken));
}

#[test]
fn pings_are_answered() {
    let desk = Desk::new(1);
    desk.take(&mut protocol(), &[0x89, 2, b'h', b'i']).expect("it is understood");
    let out = mem::take(&mut desk.state.borrow_mut().out);
    assert_eq!(as_a_server_reads(out).read().expect("a message"), Message::Pong("hi".into()));
}

#[test]
fn only_the_answer_to_our_own_key_opens_a_socket() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: k\r\n\r\n";
    let early = format!("{head}early");
    assert_eq!(accepted(early.as_bytes(), "k").expect("it is"), Some(head.len()));
    assert_eq!(accepted(&head.as_bytes()[..head.len() - 1], "k").expect("not yet"), None);
    assert!(accepted(head.as_bytes(), "other").is_err());
    let refused = accepted(b"HTTP/1.1 401 Unauthorized\r\n\r\n", "k").expect_err("it is not");
    assert!(refused.to_string().contains("401"), "{refused}");
}
