//! Settings of `chinwag bench`. Neither the environment nor the settings file changes what is measured: they only say,
//! with `--url`, where the server's data directory is.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;

use super::layers::Environment;
use super::limits::{
    BENCH_CONNECTIONS, BENCH_CONVERSATIONS, BENCH_DURATION, BENCH_HISTORY, BENCH_MEMBERS,
    BENCH_MEMBERSHIPS_MAX, BENCH_PIPELINE, BENCH_RATE, BENCH_STREAMS, BENCH_TEXT_BYTES, BENCH_THREADS,
    BENCH_USERS, BENCH_WARM_UP, PULL_COUNT_MAX,
};
use super::{Error, KeyPlace, SyncMode, cli, to_usize, value};

/// What load to drive at which server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bench {
    /// The server.
    pub server: BenchServer,
    /// The certificates of those who may vouch for it; `None`: those whom the system trusts.
    pub ca: Option<PathBuf>,
    /// How requests travel.
    pub transport: Transport,
    /// Requests in flight on each connection; 1 over HTTP/1.1.
    pub pipeline: usize,
    /// Requests per second in all; `None`: a closed loop.
    pub rate: Option<NonZeroU64>,
    /// How many connections.
    pub connections: usize,
    /// How long to measure.
    pub duration: Duration,
    /// How long to run before that.
    pub warm_up: Duration,
    /// How many conversations.
    pub conversations: usize,
    /// How many are in each, which are groups; `None`: direct conversations.
    pub members: Option<usize>,
    /// How many users talk in them.
    pub users: usize,
    /// Length of a message's text, in bytes.
    pub text_bytes: usize,
    /// How many of each call.
    pub mix: Mix,
    /// Messages in every conversation before the start.
    pub history: usize,
    /// Messages that a pull asks for.
    pub page: u32,
    /// Threads that drive the load.
    pub threads: usize,
    /// Where the result goes as JSON.
    pub json: Option<PathBuf>,
}

/// The server that is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BenchServer {
    /// One that is started for it.
    Own {
        /// Where its temporary directory is made; `None`: where the system makes them.
        dir: Option<PathBuf>,
        /// When it acknowledges a send.
        sync: SyncMode,
        /// Further flags of `serve`.
        flags: Vec<String>,
        /// Whether these make it HTTPS.
        is_secret: bool,
    },
    /// One that runs already.
    Running {
        /// Where: scheme, host and port.
        url: Uri,
        /// The key that signs tokens for it.
        key: KeyPlace,
    },
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTP/1.1, one request at a time on a connection.
    Http,
    /// HTTP/2, with many requests of one user on a connection.
    Http2,
    /// Calls over a WebSocket of one user. It also gets the events of the user's conversations, as it would from a
    /// client.
    WebSocket,
}

impl Transport {
    /// As the flag spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "h2",
            Self::WebSocket => "ws",
        }
    }
}

impl BenchServer {
    /// Whether it is spoken to over TLS.
    pub fn is_secret(&self) -> bool {
        match self {
            Self::Own { is_secret, .. } => *is_secret,
            Self::Running { url, .. } => url.scheme_str() == Some("https"),
        }
    }
}

impl Bench {
    /// Requests in flight at most.
    pub fn lanes(&self) -> usize {
        self.connections * self.pipeline
    }
}

/// How many of each call, relative to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// `/im.chat/send`.
    pub send: u32,
    /// `/im.chat/pull`.
    pub pull: u32,
    /// `/im.chat/ack`.
    pub ack: u32,
}

impl Mix {
    /// Largest share: what sums of three cannot overflow.
    const SHARE_MAX: u32 = 1_000_000;

    /// Reads `send=80,pull=15,ack=5`; what is not named is not called.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut mix = Self { send: 0, pull: 0, ack: 0 };
        let mut seen = Vec::new();
        for part in text.split(',') {
            let (verb, share) = part.split_once('=').ok_or_else(|| not_a_mix(text))?;
            let place = match verb.trim() {
                "send" => &mut mix.send,
                "pull" => &mut mix.pull,
                "ack" => &mut mix.ack,
                other => return Err(format!("there is no call {other:?} to mix; there are send, pull, ack")),
            };
            let share = share.trim().parse().ok().filter(|share| *share <= Self::SHARE_MAX);
            *place = share.ok_or_else(|| not_a_mix(text))?;
            if seen.contains(&verb.trim()) {
                return Err(format!("{} is in it twice", verb.trim()));
            }
            seen.push(verb.trim());
        }
        if mix.total() == 0 { Err("calls nothing".to_owned()) } else { Ok(mix) }
    }

    /// What the shares are parts of.
    pub fn total(self) -> u32 {
        self.send + self.pull + self.ack
    }
}

fn not_a_mix(text: &str) -> String {
    format!("{text:?} is not a mix, such as send=80,pull=15,ack=5, of shares up to {}", Mix::SHARE_MAX)
}

pub(super) fn read(flags: cli::BenchFlags, environment: Environment<'_>) -> Result<Bench, Error> {
    let server = server(&flags, environment)?;
    let connections = number("--connections", flags.connections.as_deref(), 64, &BENCH_CONNECTIONS)?;
    let conversations =
        number("--conversations", flags.conversations.as_deref(), 1000, &BENCH_CONVERSATIONS)?;
    let members = members(flags.members.as_deref(), conversations)?;
    let rate = flags.rate.as_deref().map(|text| value::whole_number(text, &BENCH_RATE)).transpose();
    let time = |place, text: Option<&str>, default, allowed| {
        value::duration(text.unwrap_or(default), allowed).map_err(|why| Error::new(place, why))
    };
    let mix = Mix::parse(flags.mix.as_deref().unwrap_or("send=80,pull=15,ack=5"));
    let size = value::size_bytes(flags.size.as_deref().unwrap_or("200"), &BENCH_TEXT_BYTES);
    let page = number("--page", flags.page.as_deref(), 20, &(1..=u64::from(PULL_COUNT_MAX)))?;
    let json = flags.json.as_deref().map(value::path).transpose();
    let transport = transport(flags.transport.as_deref())?;
    Ok(Bench {
        ca: ca(flags.ca.as_deref(), &server)?,
        server,
        transport,
        pipeline: pipeline(flags.pipeline.as_deref(), transport)?,
        rate: rate.map_err(|why| Error::new("--rate", why))?.and_then(NonZeroU64::new),
        connections,
        duration: time("--duration", flags.duration.as_deref(), "10s", &BENCH_DURATION)?,
        warm_up: time("--warm-up", flags.warm_up.as_deref(), "1s", &BENCH_WARM_UP)?,
        conversations,
        members,
        users: users(flags.users.as_deref(), connections, conversations, members)?,
        text_bytes: to_usize(size.map_err(|why| Error::new("--size", why))?),
        mix: mix.map_err(|why| Error::new("--mix", why))?,
        history: number("--history", flags.history.as_deref(), 1, &BENCH_HISTORY)?,
        page: u32::try_from(page).expect("at most PULL_COUNT_MAX"),
        threads: number("--threads", flags.threads.as_deref(), half_of_the_cores(), &BENCH_THREADS)?
            .min(connections),
        json: json.map_err(|why| Error::new("--json", why))?,
    })
}

fn server(flags: &cli::BenchFlags, environment: Environment<'_>) -> Result<BenchServer, Error> {
    let path = |place, text: &String| value::path(text).map_err(|why| Error::new(place, why));
    if let Some(url) = &flags.url {
        let key = match &flags.key {
            Some(file) => KeyPlace::File(path("--key", file)?),
            None => KeyPlace::Data(super::data_of_the_server(
                flags.data.clone(),
                flags.config.clone(),
                environment,
            )?),
        };
        return Ok(BenchServer::Running {
            url: parse_url(url).map_err(|why| Error::new("--url", why))?,
            key,
        });
    }
    let sync = value::sync_mode(flags.sync.as_deref().unwrap_or("always"));
    let sync = sync.map_err(|why| Error::new("--sync", why))?;
    let is_secret = cli::make_https(&flags.serve);
    let is_secret = is_secret.map_err(|why| Error::new("flags of the own server", why))?;
    let dir = flags.dir.as_ref().map(|dir| path("--dir", dir)).transpose()?;
    Ok(BenchServer::Own { dir, sync, flags: flags.serve.clone(), is_secret })
}

/// Who trusts somebody wants to be asked whom: over plain HTTP nobody is.
fn ca(text: Option<&str>, server: &BenchServer) -> Result<Option<PathBuf>, Error> {
    let Some(text) = text else { return Ok(None) };
    if !server.is_secret() {
        let why = "goes with a --url that begins with https://, or with --tls-cert behind --";
        return Err(Error::new("--ca", why));
    }
    value::path(text).map(Some).map_err(|why| Error::new("--ca", why))
}

/// A server has no paths but the API's.
fn parse_url(text: &str) -> Result<Uri, String> {
    let url: Option<Uri> = text.parse().ok();
    let is_server = |url: &Uri| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.path() == "/"
            && url.query().is_none()
            && !text.contains('@')
    };
    url.filter(is_server).ok_or_else(|| format!("{text:?} is not a server, such as http://127.0.0.1:8000"))
}

fn transport(text: Option<&str>) -> Result<Transport, Error> {
    match text {
        None | Some("http") => Ok(Transport::Http),
        Some("h2") => Ok(Transport::Http2),
        Some("ws") => Ok(Transport::WebSocket),
        Some(other) => {
            Err(Error::new("--transport", format!("{other:?} is not known; there are http, h2 and ws")))
        }
    }
}

fn pipeline(text: Option<&str>, transport: Transport) -> Result<usize, Error> {
    let allowed = if transport == Transport::Http2 { BENCH_STREAMS } else { BENCH_PIPELINE };
    let pipeline = number("--pipeline", text, 1, &allowed)?;
    if pipeline > 1 && transport == Transport::Http {
        return Err(Error::new(
            "--pipeline",
            "over HTTP/1.1 a connection has one request in flight: --transport h2 or ws".to_owned(),
        ));
    }
    Ok(pipeline)
}

fn members(text: Option<&str>, conversations: usize) -> Result<Option<usize>, Error> {
    let Some(text) = text else { return Ok(None) };
    let members = number("--members", Some(text), 0, &BENCH_MEMBERS)?;
    if conversations * members > BENCH_MEMBERSHIPS_MAX {
        let why = format!("times the conversations at most {BENCH_MEMBERSHIPS_MAX} are allowed");
        return Err(Error::new("--members", why));
    }
    Ok(Some(members))
}

/// Two users have one direct conversation with each other, and a ring or chain of conversations leaves nobody out.
/// Nobody is in a group twice, or in none.
fn users(
    text: Option<&str>,
    connections: usize,
    conversations: usize,
    members: Option<usize>,
) -> Result<usize, Error> {
    let pairs = |users: usize| users * (users - 1) / 2;
    let (least, most) = match members {
        Some(members) => (members, conversations * members),
        None => {
            let enough = (2..).find(|users| pairs(*users) >= conversations);
            (enough.expect("pairs grow without end"), conversations + 1)
        }
    };
    let Some(text) = text else {
        return Ok(connections.clamp(least, most).min(to_usize(*BENCH_USERS.end())));
    };
    let users = number("--users", Some(text), 0, &BENCH_USERS)?;
    if users < least {
        return Err(Error::new(
            "--users",
            format!("so many conversations need {least} or more, not {users}"),
        ));
    }
    if users > most {
        return Err(Error::new("--users", format!("the conversations bring together at most {most}")));
    }
    Ok(users)
}

fn number(
    place: &str,
    text: Option<&str>,
    default: u64,
    allowed: &std::ops::RangeInclusive<u64>,
) -> Result<usize, Error> {
    let Some(text) = text else { return Ok(to_usize(default)) };
    value::whole_number(text, allowed).map(to_usize).map_err(|why| Error::new(place, why))
}

/// The other half is the server's.
fn half_of_the_cores() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    (cores / 2).clamp(*BENCH_THREADS.start(), *BENCH_THREADS.end())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Command, Stop, Tool};
    use super::*;

    fn bench(arguments: &str) -> Result<Bench, Stop> {
        let arguments = ["chinwag", "bench"].into_iter().chain(arguments.split_whitespace());
        match Command::read(arguments.map(OsString::from), |_| None)? {
            Command::Tool(Tool::Bench(bench)) => Ok(*bench),
            other => panic!("not a bench: {other:?}"),
        }
    }

    #[test]
    fn a_mix_names_each_call_once_and_calls_something() {
        assert_eq!(Mix::parse("send=80,pull=15,ack=5"), Ok(Mix { send: 80, pull: 15, ack: 5 }));
        assert_eq!(Mix::parse(" pull = 1 , ack=0"), Ok(Mix { send: 0, pull: 1, ack: 0 }));
        for bad in ["", "send", "send=", "send=-1", "send=1.5", "recall=1", "send=1,send=2", "send=0,ack=0"] {
            assert!(Mix::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Mix::parse("send=1000001").is_err(), "three shares could overflow");
    }

    #[test]
    fn by_default_there_are_users_enough_for_the_conversations_and_one_for_each_connection() {
        assert_eq!(bench("").unwrap().users, 64);
        assert_eq!(bench("--connections 1").unwrap().users, 46, "46 users have 1,035 pairs");
        assert_eq!(bench("--conversations 1").unwrap().users, 2);
        assert_eq!(bench("--conversations 3 --connections 1000").unwrap().users, 4, "nobody is alone");
        assert_eq!(bench("--conversations 3 --connections 1000 --members 5").unwrap().users, 15);
        assert_eq!(bench("--conversations 3 --connections 1 --members 5").unwrap().users, 5);
    }

    #[test]
    fn a_run_on_a_server_of_its_own_passes_flags_on() {
        let own = bench("--sync never --dir /tmp -- --segment-bytes 1MiB").unwrap().server;
        let flags = vec!["--segment-bytes".to_owned(), "1MiB".to_owned()];
        let is_secret = false;
        assert_eq!(
            own,
            BenchServer::Own { dir: Some("/tmp".into()), sync: SyncMode::Never, flags, is_secret }
        );
    }

    #[test]
    fn a_running_server_is_named_with_the_place_of_its_key() {
        let BenchServer::Running { url, key } = bench("--url http://h:1 --key k").unwrap().server else {
            panic!("not a running server");
        };
        assert_eq!((url.to_string().as_str(), key), ("http://h:1/", KeyPlace::File("k".into())));
        let server = bench("--url http://h:1 --data d").unwrap().server;
        assert!(
            matches!(server, BenchServer::Running { key: KeyPlace::Data(d), .. } if d.as_os_str() == "d")
        );
    }

    #[test]
    fn authorities_go_with_tls_wherever_that_comes_from() {
        for arguments in
            ["--url https://h:1 --key k --ca c.pem", "--ca c.pem -- --tls-cert c.pem --tls-key k.pem"]
        {
            let bench = bench(arguments).unwrap();
            assert!(bench.server.is_secret() && bench.ca == Some("c.pem".into()), "{arguments}");
        }
        assert!(!bench("--url http://h:1 --key k").unwrap().server.is_secret());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_the_flag_that_says_it() {
        for (arguments, place) in [
            ("--url https://h:1/path --key k", "--url"),
            ("--url wss://h:1 --key k", "--url"),
            ("--url http://h:1 --key k --ca c.pem", "--ca"),
            ("--url https://h:1 --key k --ca ", "--ca"),
            ("--ca c.pem", "--ca"),
            ("--url http://h:1/path --key k", "--url"),
            ("--url h:1 --key k", "--url"),
            ("--url http://h:1 --sync never", "--sync"),
            ("--key k", "--url"),
            ("--transport quic", "--transport"),
            ("--pipeline 2", "--pipeline"),
            ("--transport ws --pipeline 257", "--pipeline"),
            ("--transport h2 --pipeline 101", "--pipeline"),
            ("--users 3 --conversations 4", "--users"),
            ("--users 10 --conversations 4", "--users"),
            ("--users 4 --members 5", "--users"),
            ("--users 31 --members 5 --conversations 6", "--users"),
            ("--members 1", "--members"),
            ("--members 10001", "--members"),
            ("--members 1000 --conversations 20001", "--members"),
            ("--rate 0", "--rate"),
            ("--page 51", "--page"),
            ("--size 2MiB", "--size"),
            ("--mix ack", "--mix"),
            ("-- --listen 127.0.0.1:1", "--listen"),
            ("-- --nonsense", "--nonsense"),
        ] {
            let refused = bench(arguments);
            assert!(
                matches!(&refused, Err(Stop::Usage(why)) if why.contains(place)),
                "{arguments}: {refused:?}"
            );
        }
    }
}
