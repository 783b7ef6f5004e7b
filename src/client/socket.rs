//! One stream from its opening to its end: frames as they come, each with a meaning.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::AUTHORIZATION;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error as SocketError, Message as SocketMessage};

use super::api::{At, Cursor, Message, Standing, Target, cursor};
use super::error::Error;
use super::http::{Http, Refusal};
use crate::message::{Address, Position};
use crate::tls;

/// How long the server has for its answer to the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// A line on which nothing comes for so long is dead: more than two of the server's pings.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest event: far more than a hello of a thousand conversations.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The server's close code for a token whose time is over.
const TOKEN_EXPIRED: u16 = 4401;

/// What the server says on a stream.
pub(super) enum Frame {
    Hello(Hello),
    Message {
        at: Address,
        message: Message,
    },
    Recall {
        at: Address,
        recall: Recall,
    },
    Ack {
        at: Address,
        ack: Ack,
    },
    Signal {
        at: Address,
        signal: Signal,
    },
    Group {
        at: Address,
        change: GroupChange,
    },
    /// No conversations: any may have moved.
    Behind(Vec<Position>),
    /// The answer to the resume of this number: the conversations that were not replayed, or all.
    Resumed {
        id: u64,
        failed: Option<Vec<Address>>,
    },
    /// Of a later server.
    Other,
}

#[derive(Deserialize)]
pub(super) struct Hello {
    pub(super) user: String,
    pub(super) chats: Vec<Standing>,
    #[serde(default)]
    pub(super) epoch: Option<u32>,
    #[serde(default)]
    pub(super) more: bool,
}

#[derive(Deserialize)]
pub(super) struct Recall {
    pub(super) msg_index: u32,
    pub(super) recall_index: u32,
    pub(super) by: String,
}

#[derive(Deserialize)]
pub(super) struct Ack {
    pub(super) user: String,
    pub(super) msg_index: u32,
}

#[derive(Deserialize)]
pub(super) struct Signal {
    pub(super) user: String,
    pub(super) kind: String,
    pub(super) data: Value,
}

#[derive(Deserialize)]
pub(super) struct GroupChange {
    pub(super) action: String,
    pub(super) user: String,
    pub(super) by: String,
    #[serde(default)]
    pub(super) duty: Option<u8>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) until: Option<u64>,
    #[serde(default)]
    pub(super) count: Option<u32>,
}

/// What tells frames apart.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    id: Option<u64>,
}

#[derive(Deserialize)]
struct Happening<T> {
    #[serde(flatten)]
    target: Target,
    content: T,
}

#[derive(Deserialize)]
struct Behind {
    chats: Vec<Standing>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Option<Resumed>,
}

#[derive(Deserialize)]
struct Resumed {
    #[serde(default)]
    errors: Vec<Target>,
}

/// A stream that is open.
pub(super) struct Socket {
    socket: WebSocketStream<tls::Socket>,
    next_id: u64,
}

impl Socket {
    /// Opens a stream whose server waits for a resume.
    pub(super) async fn open(http: &Http, token: &str) -> Result<Self, Error> {
        let url = format!("{}/im.chat/stream?resume=1", http.sockets());
        let mut request = url.into_client_request().map_err(Error::no_answer)?;
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        let bearer = bearer.map_err(|why| Error::Unreadable(format!("the token is no header: {why}")))?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let stream = http.connect().await?;
        let opening = client_async_with_config(request, stream, Some(config));
        let opened = tokio::time::timeout(HANDSHAKE_TIMEOUT, opening).await;
        let (socket, _) = opened.map_err(|_| Error::no_answer("no stream in time"))?.map_err(refusal)?;
        Ok(Self { socket, next_id: 1 })
    }

    /// Asks for a replay; the number that its answer will have.
    pub(super) async fn resume(&mut self, positions: &[Position]) -> Result<u64, Error> {
        let id = self.next_id;
        self.next_id += 1;
        let cursors: Vec<At<Cursor>> = positions.iter().map(cursor).collect();
        let call = serde_json::json!({"id": id, "method": "resume", "params": {"cursors": cursors}});
        self.socket.send(SocketMessage::text(call.to_string())).await.map_err(Error::no_answer)?;
        Ok(id)
    }

    /// The next frame; an error if there is none any more.
    pub(super) async fn next(&mut self) -> Result<Frame, Error> {
        loop {
            let message = tokio::time::timeout(SILENCE_MAX, self.socket.next()).await;
            match message.map_err(|_| Error::no_answer("the server is silent"))? {
                Some(Ok(SocketMessage::Text(text))) => return read(&text),
                Some(Ok(SocketMessage::Close(Some(close)))) if u16::from(close.code) == TOKEN_EXPIRED => {
                    return Err(Error::TokenExpired);
                }
                Some(Ok(SocketMessage::Close(close))) => {
                    let why = close.map(|close| close.to_string()).unwrap_or_default();
                    return Err(Error::NoAnswer(format!("the stream ended: {why}")));
                }
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(why)) => return Err(Error::no_answer(why)),
                None => return Err(Error::no_answer("the stream ended")),
            }
        }
    }
}

/// Why a stream was not opened.
fn refusal(error: SocketError) -> Error {
    let SocketError::Http(response) = error else { return Error::no_answer(error) };
    let body = response.body().as_deref().unwrap_or_default();
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.into(),
        // The body may not have come with the head; the status says enough.
        Err(_) if response.status() == tungstenite::http::StatusCode::UNAUTHORIZED => Error::TokenExpired,
        Err(_) => Error::no_answer(response.status()),
    }
}

fn read(text: &str) -> Result<Frame, Error> {
    let Kind { kind, id } = parse(text)?;
    Ok(match kind.as_str() {
        "hello" => Frame::Hello(parse(text)?),
        "msg" => happening(text, |at, message| Frame::Message { at, message })?,
        "recall" => happening(text, |at, recall| Frame::Recall { at, recall })?,
        "ack" => happening(text, |at, ack| Frame::Ack { at, ack })?,
        "signal" => happening(text, |at, signal| Frame::Signal { at, signal })?,
        "group" => happening(text, |at, change| Frame::Group { at, change })?,
        "behind" => {
            let Behind { chats } = parse(text)?;
            Frame::Behind(chats.iter().map(Standing::position).collect::<Result<_, _>>()?)
        }
        "" => match id {
            Some(id) => resumed(id, text)?,
            None => Frame::Other,
        },
        _ => Frame::Other,
    })
}

fn resumed(id: u64, text: &str) -> Result<Frame, Error> {
    let Answer { result } = parse(text)?;
    let failed = result.map(|Resumed { errors }| errors.iter().map(Target::address).collect());
    Ok(Frame::Resumed { id, failed: failed.transpose()? })
}

fn happening<T: DeserializeOwned>(text: &str, frame: impl Fn(Address, T) -> Frame) -> Result<Frame, Error> {
    let Happening { target, content } = parse(text)?;
    Ok(frame(target.address()?, content))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|why| Error::Unreadable(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_a_meaning_and_those_of_later_servers_none() {
        let message = r#"{"type":"msg","target":"bob","target_type":"user","content":{"msg_index":7,"recall_index":0,"msg":"hi","extra":"","timestamp":1,"sender":"bob","target":"bob","target_type":"user"}}"#;
        let Ok(Frame::Message { at: Address::User(user), message }) = read(message) else {
            panic!("a message")
        };
        assert_eq!((user.as_str(), message.msg_index, message.msg.as_str()), ("bob", 7, "hi"));
        let resumed = r#"{"id":3,"result":{"resumed":1,"errors":[{"target":"g","target_type":"group","code":1,"msg":"x"}]}}"#;
        let Ok(Frame::Resumed { id: 3, failed: Some(failed) }) = read(resumed) else { panic!("a result") };
        assert!(matches!(&failed[..], [Address::Group(_)]));
        let crowd = r#"{"type":"group","target":"g","target_type":"group","content":{"action":"add","user":"","by":"ann","count":70}}"#;
        let Ok(Frame::Group { change, .. }) = read(crowd) else { panic!("a change") };
        assert_eq!((change.user.as_str(), change.count), ("", Some(70)));
        assert!(
            matches!(read(&crowd.replace(",\"count\":70", "")), Ok(Frame::Group { change, .. }) if change.count.is_none())
        );
        let refused = r#"{"id":3,"error":{"code":10001,"msg":"x"}}"#;
        assert!(matches!(read(refused), Ok(Frame::Resumed { id: 3, failed: None })));
        for other in [r#"{"type":"weather","chats":"sun"}"#, "{}", r#"{"type":"close","code":4401,"msg":""}"#]
        {
            assert!(matches!(read(other), Ok(Frame::Other)), "{other}");
        }
        for nonsense in [
            "",
            "7",
            "{",
            r#"{"type":"msg"}"#,
            r#"{"type":"behind","chats":[{"target":"","target_type":"user","msg_index":1,"recall_index":0}]}"#,
        ] {
            assert!(matches!(read(nonsense), Err(Error::Unreadable(_))), "{nonsense}");
        }
    }
}
