//! The binary: arguments in, exit code out.

use std::io::Write;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use chinwag::auth::LocalKey;
use chinwag::config::{self, Command, KeyPlace, Stop};
use chinwag::message::Caller;
use chinwag::{node, telemetry};

fn main() -> ExitCode {
    match Command::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(Command::Serve(settings)) => serve(*settings),
        Ok(Command::Token(settings)) => token(&settings),
        Err(Stop::Help(text)) => print(&text, node::exit::OTHER),
        Err(Stop::Usage(line)) => fail(&line, node::exit::USAGE),
    }
}

fn serve(settings: config::Serve) -> ExitCode {
    telemetry::log_to_standard_error(settings.log_level);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return fail(&format!("cannot start threads: {why}"), node::exit::OTHER),
    };
    let result = runtime.block_on(node::run(settings));
    // What could not end in time must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why.to_string(), why.exit_code()),
    }
}

fn token(settings: &config::Token) -> ExitCode {
    let key = match &settings.key {
        KeyPlace::Data(directory) => LocalKey::open(directory),
        KeyPlace::File(path) => LocalKey::read(path),
    };
    let key = match key {
        Ok(key) => key,
        Err(why) => return fail(&why.to_string(), node::exit::OTHER),
    };
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let caller = Caller { user: settings.user.clone(), admin: settings.admin };
    print(&format!("{}\n", key.sign(&caller, now_s, settings.ttl)), node::exit::OTHER)
}

/// Prints what was asked for; a closed pipe is somebody who has seen enough.
fn print(text: &str, failure: u8) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(failure),
    }
}

fn fail(line: &str, code: u8) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "chinwag: {line}");
    ExitCode::from(code)
}
