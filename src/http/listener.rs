//! Taking connections: never more than allowed at a time, never spinning when the system has none.

use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::drain::Drain;

/// First pause after the system refused a connection (out of descriptors, out of memory).
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause; an operator sees one log line a second.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Gives every connection to `start` until the drain begins, then waits until all are closed.
///
/// A connection is open as long as its permit lives. The permit is taken first: whoever finds none
/// waits in the system's queue and costs nothing here.
pub(super) async fn accept(
    listener: TcpListener,
    connections_max: usize,
    drain: Drain,
    start: impl Fn(TcpStream, OwnedSemaphorePermit),
) {
    let connections_max = connections_max.min(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(connections_max));
    let mut drain_begins = pin!(drain.begins());
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
            (next_connection(&listener).await, permit)
        };
        tokio::select! {
            biased;
            () = &mut drain_begins => break,
            (stream, permit) = next => start(stream, permit),
        }
    }
    drop(listener);
    let all = u32::try_from(connections_max).unwrap_or(u32::MAX);
    let _all = permits.acquire_many(all).await.expect("nobody closes the semaphore");
}

async fn next_connection(listener: &TcpListener) -> TcpStream {
    let mut pause = PAUSE_MIN;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A reply is one write; waiting for more to send only delays it. A socket that is
                // already gone says so on its first read.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot take a connection");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// Whether only the one connection is lost, which its client gave up while it was waiting.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}
