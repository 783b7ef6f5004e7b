//! The binary: arguments in, exit code out.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use chinwag::auth::LocalKey;
use chinwag::config::{self, Command, KeyPlace, Stop};
use chinwag::message::Caller;
use chinwag::{exit, node, telemetry};

mod tool;

/// Gives memory back to the system when conversations leave it; the C library's keeps nearly all of it
/// (figures in `docs/architecture.md`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Most threads that wait for the disk beside the workers: one for each call that the operations address may have, which
/// waits for conversations to be read, and as many to read them. More reads at a time make no disk faster.
const READING_THREADS_MAX: usize = 2 * config::limits::OPS_CONNECTIONS_MAX;

fn main() -> ExitCode {
    let outcome = match Command::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Command::Serve(settings)) => serve(*settings),
        Ok(Command::Token(settings)) => token(&settings),
        Ok(Command::Tool(tool)) => tool::run(&tool).map_err(|error| (error.exit_code(), error.to_string())),
        Err(Stop::Help(text)) => print(text.trim_end()),
        Err(Stop::Usage(why)) => Err((exit::USAGE, why)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, why)) => {
            // Whoever closed standard error does not want to know.
            let _ = writeln!(io::stderr(), "chinwag: {}", one_line(&why));
            ExitCode::from(code)
        }
    }
}

fn serve(settings: config::Serve) -> Result<(), (u8, String)> {
    telemetry::log_to_standard_error(settings.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(node::runtime_threads(settings.workers))
        .max_blocking_threads(READING_THREADS_MAX)
        .build();
    let runtime = runtime.map_err(|error| (exit::OTHER, format!("cannot start its threads: {error}")))?;
    let outcome = runtime.block_on(node::run(settings));
    // What still runs serves clients that outstayed the drain; nobody waits for it.
    runtime.shutdown_background();
    outcome.map_err(|error| (error.exit_code(), error.to_string()))
}

fn token(settings: &config::Token) -> Result<(), (u8, String)> {
    let key = match &settings.key {
        KeyPlace::Data(directory) => LocalKey::open(directory),
        KeyPlace::File(path) => LocalKey::read(path),
    };
    let key =
        key.map_err(|error| (exit::OTHER, format!("{error}; the first `chinwag serve` makes the key")))?;
    let now = SystemTime::UNIX_EPOCH.elapsed();
    let now = now.map_err(|_| (exit::OTHER, "the clock is before 1970: set it".to_owned()))?;
    let caller = Caller { user: settings.user.clone(), admin: settings.admin };
    print(&key.sign(&caller, now.as_secs(), settings.ttl))
}

fn print(text: &str) -> Result<(), (u8, String)> {
    let written = writeln!(io::stdout(), "{text}");
    written.map_err(|error| (exit::OTHER, format!("cannot write to standard output: {error}")))
}

/// Operators and scripts are promised one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
