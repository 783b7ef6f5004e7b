//! The ceiling of a fan-out: a server of bare WebSockets that sends everybody the same bytes for whatever anybody says.
//!
//! It stores nothing and looks into nothing. A frame is made once, a socket has one task, and what waits for it goes
//! out with one write.

use std::io::{self, Write};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tungstenite::handshake::derive_accept_key;

use crate::wire::{Failure, Header, WHOLE_TEXT, unmasked};

/// Most frames that go out with one write.
const BATCH_MAX: usize = 256;

/// Everybody, and what they are told. Who talks keeps so many calls in flight that the queues are bounded.
struct Room {
    sockets: RwLock<Vec<UnboundedSender<Bytes>>>,
    event: Bytes,
}

/// Listens on a free port, which it prints, with events of so many bytes.
pub(crate) fn serve(frame_bytes: usize) -> Result<(), Failure> {
    let event = |payload: usize| unmasked(&"x".repeat(payload));
    let around = event(frame_bytes).len() - frame_bytes;
    let event = Bytes::from(event(frame_bytes.saturating_sub(around)));
    let room = Arc::new(Room { sockets: RwLock::default(), event });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout(), "ready http={}", listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            // It ends when the client goes away.
            tokio::spawn(talk(stream, room.clone()));
        }
    })
}

async fn talk(mut stream: TcpStream, room: Arc<Room>) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    shake_hands(&mut stream).await?;
    let (mut reading, writing) = stream.into_split();
    let (tell, told) = unbounded_channel();
    tell.send(Bytes::from(unmasked(r#"{"type":"hello"}"#)))?;
    room.sockets.write().unwrap_or_else(PoisonError::into_inner).push(tell.clone());
    tokio::spawn(write(writing, told));
    let result = Bytes::from(unmasked(r#"{"id":1,"result":{"msg_index":1}}"#));
    let mut received = BytesMut::with_capacity(64 << 10);
    while reading.read_buf(&mut received).await? > 0 {
        while let Some(header) = Header::of(&received) {
            let bytes = header.bytes + header.payload_bytes;
            if received.len() < bytes {
                break;
            }
            if header.first == WHOLE_TEXT {
                for socket in &*room.sockets.read().unwrap_or_else(PoisonError::into_inner) {
                    // Who is gone hears nothing.
                    let _ = socket.send(room.event.clone());
                }
                tell.send(result.clone())?;
            }
            let _ = received.split_to(bytes);
        }
    }
    Ok(())
}

async fn shake_hands(stream: &mut TcpStream) -> Result<(), Failure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err("no handshake".into());
        }
    }
    let key = str::from_utf8(&head)?.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = derive_accept_key(key.ok_or("no key")?.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Ok(stream.write_all(answer.as_bytes()).await?)
}

async fn write(mut stream: OwnedWriteHalf, mut told: UnboundedReceiver<Bytes>) -> io::Result<()> {
    let (mut frames, mut out) = (Vec::with_capacity(BATCH_MAX), Vec::new());
    while told.recv_many(&mut frames, BATCH_MAX).await > 0 {
        out.clear();
        frames.drain(..).for_each(|frame| out.extend_from_slice(&frame));
        stream.write_all(&out).await?;
    }
    Ok(())
}
