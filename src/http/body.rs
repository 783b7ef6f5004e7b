//! Request bodies: never more than the limit, never longer than the patience.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;
use super::wire::{LINGER, LINGER_BYTES_MAX};

/// Bodies up to this many bytes are read without asking: with 10,000 connections that is 80 MiB.
pub(super) const SMALL_BYTES: u64 = 8 * 1024;
/// Most bytes of larger bodies that are being read or handled at a time, over all connections.
const LARGE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What one permit stands for, in bytes: permits are 32 bits, and tokio's are fewer on small systems.
const PERMIT_BYTES: u64 = 1024;

/// Reads bodies within a limit, a time and the node's memory.
pub(super) struct Reader {
    limit_bytes: u64,
    patience: Duration,
    large: Arc<Semaphore>,
}

/// A whole body, and its share of the memory for bodies.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

impl Reader {
    pub(super) fn new(limit_bytes: usize, patience: Duration) -> Self {
        let permits = usize::try_from(LARGE_BYTES_MAX / PERMIT_BYTES).expect("a small number");
        Self { limit_bytes: limit_bytes as u64, patience, large: Arc::new(Semaphore::new(permits)) }
    }

    /// Longest body, in bytes.
    pub(super) fn limit_bytes(&self) -> usize {
        usize::try_from(self.limit_bytes).unwrap_or(usize::MAX)
    }

    /// Longest time for one.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The whole body. A refusal leaves it unread in part: the connection cannot be used further.
    pub(super) async fn read(&self, body: &mut Incoming) -> Result<Whole, Failure> {
        if body.is_end_stream() {
            return Ok(Whole { bytes: Bytes::new(), _share: None });
        }
        let announced = body.size_hint();
        if announced.lower() > self.limit_bytes {
            return Err(self.too_large());
        }
        let share = self.share(announced.upper().unwrap_or(self.limit_bytes))?;
        let bytes = match self.come(body)? {
            // A small body mostly came with its head, whole; a timer for it would cost more than reading it.
            Some(only) if body.is_end_stream() => only,
            first => Box::pin(self.in_time(first, body)).await?,
        };
        Ok(Whole { bytes, _share: share })
    }

    /// The whole body of a request beside which others may be in flight: it asks for memory however small it is. What a
    /// refusal leaves unread ends its stream.
    pub(super) async fn read_beside_others(&self, body: &mut Incoming) -> Result<Whole, Failure> {
        let whole = self.read_sharing(body).await;
        if let Err(Failure::BodyTooLarge { .. } | Failure::NoMemoryForBodies) = whole {
            self.skim(body).await;
        }
        whole
    }

    async fn read_sharing(&self, body: &mut Incoming) -> Result<Whole, Failure> {
        if body.is_end_stream() {
            return Ok(Whole { bytes: Bytes::new(), _share: None });
        }
        let announced = body.size_hint();
        if announced.lower() > self.limit_bytes {
            return Err(self.too_large());
        }
        let share = self.share_of(announced.upper().unwrap_or(self.limit_bytes))?;
        Ok(Whole { bytes: self.in_time(None, body).await?, _share: share })
    }

    /// The first piece, if it has come already.
    fn come(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        let first = self.next(body).now_or_never().transpose()?.flatten();
        first.as_ref().map_or(Ok(()), |first| self.check(first.len()))?;
        Ok(first)
    }

    /// The whole of a body of which `first` was read.
    async fn in_time(&self, first: Option<Bytes>, body: &mut Incoming) -> Result<Bytes, Failure> {
        let bytes = tokio::time::timeout(self.patience, self.collect(first, body)).await;
        bytes.map_err(|_| Failure::BodyTooSlow { patience: self.patience })?
    }

    /// Reads a body that nobody wants, so that the connection can go on. `false`: it cannot.
    pub(super) async fn discard(&self, mut body: Incoming) -> bool {
        if body.is_end_stream() {
            return true;
        }
        if body.size_hint().upper().is_none_or(|bytes| bytes > self.limit_bytes) {
            return false;
        }
        let rest = async {
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(self.patience, rest).await.unwrap_or(false)
    }

    /// Throws away what comes of a body for a moment: clients that are still sending when they are answered may take the
    /// end of their stream for the answer.
    pub(super) async fn skim(&self, body: &mut Incoming) {
        let rest = async {
            let mut bytes = 0;
            while bytes < LINGER_BYTES_MAX
                && let Some(Ok(frame)) = body.frame().await
            {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        // Whoever needs longer hears the answer all the same.
        let _ = tokio::time::timeout(LINGER, rest).await;
    }

    /// A part of the memory for bodies; none for a small one.
    pub(super) fn share(&self, bytes: u64) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if bytes <= SMALL_BYTES { Ok(None) } else { self.share_of(bytes) }
    }

    fn share_of(&self, bytes: u64) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let share = self.large.clone().try_acquire_many_owned(permits);
        share.map(Some).map_err(|_| Failure::NoMemoryForBodies)
    }

    async fn collect(&self, first: Option<Bytes>, body: &mut Incoming) -> Result<Bytes, Failure> {
        let first = first.unwrap_or_default();
        let mut whole = BytesMut::with_capacity(self.expected_bytes(body, first.len()));
        whole.extend_from_slice(&first);
        while let Some(next) = self.next(body).await? {
            self.check(whole.len() + next.len())?;
            whole.extend_from_slice(&next);
        }
        Ok(whole.freeze())
    }

    /// What the rest is announced to be, which is within the limit or unknown.
    fn expected_bytes(&self, body: &Incoming, read: usize) -> usize {
        let rest = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        read.saturating_add(rest)
    }

    /// The next piece of data; nothing at the end. Trailers say nothing that we read.
    async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|_| Failure::BodyBroken)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Whether a body may be so long.
    pub(super) fn check(&self, bytes: usize) -> Result<(), Failure> {
        if bytes as u64 > self.limit_bytes { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> Failure {
        Failure::BodyTooLarge { limit_bytes: self.limit_bytes }
    }
}
