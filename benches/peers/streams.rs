//! Load for the peers that have a wire protocol of their own: appends of 200 bytes to 1,000 streams, one at a time on
//! each connection (no pipelining), on one thread, as `chinwag bench` does it for HTTP.
//!
//! `streams redis|nats ADDRESS CLIENTS SECONDS` prints one line of JSON.
//!
//! Redis: `XADD` (<https://redis.io/docs/latest/develop/reference/protocol-spec/>). NATS: a publish to JetStream is a
//! message with a reply subject, on which the acknowledgement comes
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>).

use std::cell::RefCell;
use std::error::Error;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

const STREAMS: u64 = 1_000;
const TEXT_BYTES: usize = 200;
const WARM_UP: Duration = Duration::from_millis(500);
const CREATE: &str = r#"{"name":"CHAT","subjects":["chat.*"],"storage":"file"}"#;

/// What went wrong; the run is worth nothing then.
type Failure = Box<dyn Error>;

#[derive(Clone, Copy)]
enum Peer {
    Redis,
    Nats,
}

struct Client {
    peer: Peer,
    stream: TcpStream,
    number: usize,
    received: Vec<u8>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [peer, address, clients, seconds] = arguments.as_slice() else {
        return Err("usage: streams redis|nats ADDRESS CLIENTS SECONDS".into());
    };
    let peer = match peer.as_str() {
        "redis" => Peer::Redis,
        "nats" => Peer::Nats,
        other => return Err(format!("{other:?} is neither redis nor nats").into()),
    };
    let (clients, seconds) = (clients.parse()?, Duration::from_secs_f64(seconds.parse()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let latencies = LocalSet::new().block_on(&runtime, load(peer, address, clients, seconds))?;
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    writeln!(
        io::stdout(),
        r#"{{"operations_per_s":{},"p50_us":{},"p99_us":{}}}"#,
        latencies.len() as f64 / seconds.as_secs_f64(),
        at(0.5),
        at(0.99),
    )?;
    Ok(())
}

async fn load(
    peer: Peer,
    address: &str,
    clients: usize,
    seconds: Duration,
) -> Result<Histogram<u64>, Failure> {
    let mut open = Vec::new();
    for number in 0..clients {
        open.push(Client::open(peer, address, number).await?);
    }
    let latencies = Rc::new(RefCell::new(Histogram::new_with_bounds(1, 60_000_000_000, 3)?));
    let from = Instant::now() + WARM_UP;
    let mut running = JoinSet::new();
    for client in open {
        running.spawn_local(client.run(from, from + seconds, latencies.clone()));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let latencies = latencies.borrow().clone();
    Ok(latencies)
}

impl Client {
    async fn open(peer: Peer, address: &str, number: usize) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { peer, stream, number, received: Vec::with_capacity(4096) };
        if let Peer::Nats = peer {
            client.greet().await?;
        }
        Ok(client)
    }

    /// Appends until the end, and records what began while it was measured.
    async fn run(
        mut self,
        from: Instant,
        end: Instant,
        latencies: Rc<RefCell<Histogram<u64>>>,
    ) -> Result<(), Failure> {
        let mut request = Vec::new();
        let mut begun = Instant::now();
        // A full-period walk over the streams, from another place for each client.
        let mut stream = self.number as u64 * 7;
        while begun < end {
            stream = (stream + 389) % STREAMS;
            self.write_append(stream, &mut request);
            self.stream.write_all(&request).await?;
            self.acknowledged().await?;
            let now = Instant::now();
            if begun >= from {
                latencies.borrow_mut().saturating_record((now - begun).as_nanos() as u64);
            }
            begun = now;
        }
        Ok(())
    }

    fn write_append(&self, stream: u64, request: &mut Vec<u8>) {
        request.clear();
        let written = match self.peer {
            Peer::Redis => {
                let name = format!("s:{stream}");
                write!(
                    request,
                    "*5\r\n$4\r\nXADD\r\n${}\r\n{name}\r\n$1\r\n*\r\n$1\r\nm\r\n$200\r\n",
                    name.len()
                )
            }
            Peer::Nats => write!(request, "PUB chat.{stream} _INBOX.{} {TEXT_BYTES}\r\n", self.number),
        };
        written.expect("a Vec takes everything");
        request.extend_from_slice(&[b'm'; TEXT_BYTES]);
        request.extend_from_slice(b"\r\n");
    }

    async fn acknowledged(&mut self) -> Result<(), Failure> {
        match self.peer {
            Peer::Redis => {
                let line = self.line().await?;
                if !line.starts_with('$') {
                    return Err(line.into());
                }
                self.line().await.map(drop)
            }
            Peer::Nats => self.reply().await.map(drop),
        }
    }

    /// Introduces itself to NATS, listens for acknowledgements, and sees to it that there is a stream.
    async fn greet(&mut self) -> Result<(), Failure> {
        self.line().await?;
        let hello = r#"{"verbose":false,"pedantic":false}"#;
        let number = self.number;
        let create = CREATE.len();
        let greeting = format!(
            "CONNECT {hello}\r\nSUB _INBOX.{number} 1\r\n\
             PUB $JS.API.STREAM.CREATE.CHAT _INBOX.{number} {create}\r\n{CREATE}\r\n"
        );
        self.stream.write_all(greeting.as_bytes()).await?;
        self.reply().await.map(drop)
    }

    /// The next message of NATS.
    async fn reply(&mut self) -> Result<String, Failure> {
        loop {
            let line = self.line().await?;
            match line.split(' ').next() {
                Some("MSG") => break,
                Some("PING") => self.stream.write_all(b"PONG\r\n").await?,
                Some("-ERR") => return Err(line.into()),
                _ => {}
            }
        }
        // The replies of JetStream are JSON without line breaks.
        let reply = self.line().await?;
        if reply.contains(r#""error""#) { Err(reply.into()) } else { Ok(reply) }
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8(self.received[..end].to_vec())?;
                self.received.drain(..end + 2);
                return Ok(line);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }
}
