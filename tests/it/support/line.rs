//! A bad line to a server: its connections are cut after a random number of bytes.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An address that leads to a server which may move.
pub(crate) struct Line {
    address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Line {
    /// A line whose connections end after so many bytes from the server, as `seed` decides.
    pub(crate) async fn to(server: SocketAddr, seed: u64, bytes: Range<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Arc::new(Mutex::new(server));
        let leads_to = server.clone();
        let task = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            while let Ok((client, _)) = listener.accept().await {
                let server = *leads_to.lock().unwrap_or_else(PoisonError::into_inner);
                tokio::spawn(forward(client, server, random.random_range(bytes.clone())));
            }
        });
        Self { address, server, task }
    }

    /// The server is somewhere else now.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut client: TcpStream, server: SocketAddr, bytes: u64) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut from_server = from_server.take(bytes);
    // Both ends are closed when either is, or when its bytes are over, wherever that is in a frame.
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}
