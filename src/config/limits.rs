//! Limits that more than one part relies on: unit, bound, reason.
//!
//! What only one part needs is that part's own. What an operator may change is a setting
//! ([`super::Serve`]) with its bounds here.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest user or group id, in bytes of UTF-8 (contract, section 2).
pub const ID_BYTES_MAX: usize = 128;
/// Longest `client_msg_id`, in bytes (contract, section 3): a UUID in any spelling, with room.
pub const CLIENT_MSG_ID_BYTES_MAX: usize = 64;
/// Most messages, and most recalls, in one pull (the API document).
pub const PULL_COUNT_MAX: u32 = 50;
/// Longest a pull may wait, in milliseconds (contract, section 3).
pub const PULL_WAIT_MS_MAX: u32 = 30_000;
/// Conversations in one page of a list when the request names no count.
pub const LIST_COUNT_DEFAULT: u32 = 50;
/// Most conversations in one page of a list, each with its newest message.
pub const LIST_COUNT_MAX: u32 = 200;
/// Most cursors in one sync: about as many as the largest `--body-limit` can hold.
pub const SYNC_CURSORS_MAX: usize = 10_000;
/// Longest `kind` of a signal, in bytes: a word.
pub const SIGNAL_KIND_BYTES_MAX: usize = 64;
/// Longest `data` of a signal, in bytes (contract, section 5).
pub const SIGNAL_DATA_BYTES_MAX: usize = 1024;
/// How deep the lists and objects of a signal's data may be: readers stop at a hundred or so, their own levels included.
pub const SIGNAL_DATA_DEPTH_MAX: usize = 32;
/// Most users in one question for who is online: more than one screen shows.
pub const ONLINE_USERS_MAX: usize = 1000;
/// Most users that one user blocks: more than anybody blocks by hand. All of them are in the user's inbox while it is in
/// memory, about 4 MB.
pub const BLOCKS_MAX: usize = 10_000;
/// Longest group name, in bytes: what a list of chats can show.
pub const GROUP_NAME_BYTES_MAX: usize = 256;
/// Most members of a group, and most ids in one request: a whole group fits one conversation's head.
pub const GROUP_MEMBERS_MAX: usize = 10_000;
/// Longest payload of one log record, in bytes. The largest lawful request body is far below it; the
/// bound exists so that a damaged length can neither steer recovery nor make it allocate without
/// end.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Members, or blocked users, in one page when the request names no count.
pub const MEMBERS_PAGE_DEFAULT: u32 = 100;
/// Most members, or blocked users, in one page: about 150 KiB of reply.
pub const MEMBERS_PAGE_MAX: u32 = 1000;
/// Records in one page of the feed when the request names no count.
pub const FEED_COUNT_DEFAULT: u32 = 100;
/// Most records in one page of the feed: a consumer that lags behind is not slowed down by requests any more.
pub const FEED_COUNT_MAX: u32 = 1000;
/// Most bytes of records in one page of the feed, unless the first is longer. As JSON it is about as much, and six times
/// that where a text is nothing but control characters.
pub const FEED_BYTES_MAX: usize = 1024 * 1024;
/// Longest a feed may wait, in milliseconds: as a pull.
pub const FEED_WAIT_MS_MAX: u32 = PULL_WAIT_MS_MAX;
/// Feeds that are read or wait at a time: each takes a few megabytes while it is read, and services that follow a node
/// are few.
pub const FEEDS_MAX: usize = 16;
/// Longest cursor, in bytes: an id, with room for what a later cursor may add.
pub const CURSOR_BYTES_MAX: usize = 256;
/// Longest token, in bytes: an RS256 token with many claims is about 1.5 KiB.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Longest request line and headers together, in bytes: four tokens of the largest size.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most headers of a request over HTTP/1.1: as many as hyper has room for without an allocation for each request.
pub const HEADERS_MAX: usize = 100;
/// Most bytes a connection buffers in each direction before it stops reading, or waits for the
/// client to read: with 10,000 connections 320 MiB at the very worst.
pub const CONNECTION_BUFFER_BYTES_MAX: usize = 32 * 1024;
/// Connections to the operations address; probes and scrapers are few.
pub const OPS_CONNECTIONS_MAX: usize = 64;

/// `--body-limit`, in bytes: below 1 KiB no message fits, above 1 MiB a body is not chat.
pub const BODY_BYTES: RangeInclusive<u64> = 1024..=1024 * 1024;
/// `--connections`: one is a working server; a million is what a process can hold descriptors for.
pub const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
/// `--workers`: one serves; beyond a thousand no machine has cores.
pub const WORKERS: RangeInclusive<u64> = 1..=1024;
/// `--rate`, in calls per second and user: more than a million is no limit.
pub const RATE: RangeInclusive<u64> = 1..=1_000_000;
/// `--header-timeout`, `--body-timeout`, `--write-timeout`: under 100 ms an honest client on a bad
/// line is cut off, over 10 minutes a slow one is no longer bounded.
pub const CONNECTION_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(10);
/// `--stream-ping`: under a second pings are the traffic; over 10 minutes every gateway on the way has
/// forgotten the connection.
pub const STREAM_PING: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
/// `--stream-queue`, in bytes for each connection: below 64 KiB a busy second is too much; above 64 MiB
/// a slow reader is no longer cheap.
pub const STREAM_QUEUE_BYTES: RangeInclusive<u64> = 64 * 1024..=64 * 1024 * 1024;
/// `--stream-queue` when nobody says: sixteen bodies of the default length.
pub const STREAM_QUEUE_BYTES_DEFAULT: u64 = 1024 * 1024;
/// An event is kept as the texts and as its JSON.
pub const EVENT_BYTES_PER_BODY_BYTE: u64 = 2;
/// What an event takes beside its texts, with room: ids and the names of fields.
pub const STREAM_QUEUE_BYTES_BESIDE_BODY: u64 = 4096;
/// `--drain-timeout`: zero cuts at once; no supervisor waits longer than an hour.
pub const DRAIN_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);
/// `--recall-window`: shorter than a second is a mistake in the unit.
pub const RECALL_WINDOW: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(24 * 36_500);
/// `--sync-interval`: what a power cut may cost under `--sync interval`.
pub const SYNC_INTERVAL: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_mins(1);
/// `--checkpoint-interval`: a checkpoint a second is the most a disk should see; a day of log is
/// the most a start should replay.
pub const CHECKPOINT_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
/// `--checkpoint-bytes`, in bytes of log between two checkpoints.
pub const CHECKPOINT_BYTES: RangeInclusive<u64> = 1024 * 1024..=1024 * 1024 * 1024 * 1024;
/// `--segment-bytes`: below 256 KiB the log rotates more than it writes; it names places in a
/// segment with 32 bits.
pub const SEGMENT_BYTES: RangeInclusive<u64> = 256 * 1024..=1024 * 1024 * 1024;
/// A segment is at least so many times `--body-limit`: every lawful call has to fit into one.
pub const BODIES_PER_SEGMENT_MIN: u64 = 4;
/// `--idle-after`: under a second every pause of a chat would read it from disk again.
pub const IDLE_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 365);
/// `--memory-limit`, in bytes: below 16 MiB not even the conversations in use fit.
pub const MEMORY_BYTES: RangeInclusive<u64> = 16 * 1024 * 1024..=1 << 50;
/// `--keep-log`: under a minute no restore can use it; a year of log is an archive's business.
pub const KEEP_LOG: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24 * 366);
/// `--retain-days`: no day is kept by turning it off; a century is for ever.
pub const RETAIN_DAYS: RangeInclusive<u64> = 1..=36_500;
/// `--retain-count`: nothing kept is no chat; an index has 32 bits.
pub const RETAIN_COUNT: RangeInclusive<u64> = 1..=u32::MAX as u64;
/// `--scrub-interval`: off, or at least a second, which is for tests.
pub const SCRUB_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 366);
/// `--scrub-rate`, in bytes per second: below 64 KiB a day is not enough for 6 GB.
pub const SCRUB_RATE: RangeInclusive<u64> = 64 * 1024..=1 << 40;
/// Life of a token that `chinwag token` or `POST /im.admin/token` makes: a token cannot be called back before.
pub const TOKEN_TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 3650);
/// `bench --connections`: what one address has ports for.
pub const BENCH_CONNECTIONS: RangeInclusive<u64> = 1..=20_000;
/// `bench --pipeline`, in requests: as many as the server takes from one socket.
pub const BENCH_PIPELINE: RangeInclusive<u64> = 1..=256;
/// `--pipeline` of `chinwag bench --transport h2`: what a server takes on a connection at a time.
pub const BENCH_STREAMS: RangeInclusive<u64> = 1..=100;
/// `bench --duration`.
pub const BENCH_DURATION: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
/// `bench --warm-up`.
pub const BENCH_WARM_UP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);
/// `bench --rate`, in requests per second: beyond any loopback.
pub const BENCH_RATE: RangeInclusive<u64> = 1..=10_000_000;
/// `bench --conversations`: about 100 MB of the tool's memory at the most.
pub const BENCH_CONVERSATIONS: RangeInclusive<u64> = 1..=1_000_000;
/// `bench --users`: a token each, of about 200 bytes.
pub const BENCH_USERS: RangeInclusive<u64> = 2..=100_000;
/// `bench --members`.
pub const BENCH_MEMBERS: RangeInclusive<u64> = 2..=GROUP_MEMBERS_MAX as u64;
/// `bench --conversations` times `--members`: about 100 MB of the tool's memory at the most.
pub const BENCH_MEMBERSHIPS_MAX: usize = 20_000_000;
/// `bench --size`, in bytes: what the largest `--body-limit` takes.
pub const BENCH_TEXT_BYTES: RangeInclusive<u64> = 1..=1024 * 1024 - 1024;
/// `bench --history`, in messages per conversation.
pub const BENCH_HISTORY: RangeInclusive<u64> = 1..=100_000;
/// `bench --threads`.
pub const BENCH_THREADS: RangeInclusive<u64> = 1..=256;

const _: () = {
    assert!(*BODY_BYTES.end() as usize * 2 < RECORD_BYTES_MAX, "every lawful call fits a record");
    assert!(TOKEN_BYTES_MAX * 2 < HEADER_BYTES_MAX, "a token in both headers has to fit the head");
    assert!(HEADER_BYTES_MAX < CONNECTION_BUFFER_BYTES_MAX, "a whole head has to fit the buffer");
    assert!(
        *BODY_BYTES.end() * EVENT_BYTES_PER_BODY_BYTE + STREAM_QUEUE_BYTES_BESIDE_BODY
            <= *STREAM_QUEUE_BYTES.end(),
        "one event of the longest kind has to fit a stream's queue"
    );
    assert!(FEEDS_MAX * 2 <= OPS_CONNECTIONS_MAX, "feeds that wait leave room for probes");
    assert!(FEED_COUNT_DEFAULT <= FEED_COUNT_MAX);
    assert!(CURSOR_BYTES_MAX >= ID_BYTES_MAX, "a cursor is at least an id");
    assert!(MEMBERS_PAGE_DEFAULT <= MEMBERS_PAGE_MAX);
    assert!(CLIENT_MSG_ID_BYTES_MAX <= 255, "a record keeps its length in a byte");
    assert!(
        *BODY_BYTES.start() as usize > ID_BYTES_MAX + CLIENT_MSG_ID_BYTES_MAX,
        "a send has to fit a body"
    );
};
