use std::collections::HashMap;
use std::fs;

use super::*;

fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Command, Stop> {
    let environment: HashMap<_, _> = environment.iter().copied().collect();
    let arguments = ["chinwag"].iter().chain(arguments).map(OsString::from);
    Command::read(arguments, |name| environment.get(name).map(OsString::from))
}

fn serve_of(arguments: &[&str], environment: &[(&str, &str)]) -> Serve {
    match read(&[&["serve"], arguments].concat(), environment) {
        Ok(Command::Serve(serve)) => *serve,
        other => panic!("expected settings, got {other:?}"),
    }
}

fn refusal_of(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    match read(arguments, environment) {
        Err(Stop::Usage(line)) => line,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

struct File(tempfile::NamedTempFile);

impl File {
    fn with(text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), text).expect("a written file");
        Self(file)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("a UTF-8 path")
    }
}

#[test]
fn with_no_flags_every_setting_has_its_documented_default() {
    let serve = serve_of(&[], &[]);
    assert_eq!(serve.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(serve.ops.to_string(), "127.0.0.1:8001");
    assert_eq!(serve.data, PathBuf::from("snapshots"));
    assert_eq!(serve.body_limit_bytes, 65_536);
    assert_eq!((serve.sync, serve.sync_interval), (SyncMode::Always, Duration::from_millis(50)));
    assert_eq!(serve.header_timeout, Duration::from_secs(30));
    assert_eq!(serve.body_timeout, Duration::from_secs(10));
    assert_eq!(serve.write_timeout, Duration::from_secs(30));
    assert_eq!(serve.drain_timeout, Duration::from_secs(10));
    assert_eq!((serve.connections, serve.rate, serve.recall_window), (10_000, None, None));
    assert_eq!((serve.stream_ping, serve.stream_queue_bytes), (Duration::from_secs(25), 1 << 20));
    assert_eq!(serve.origins, [] as [String; 0]);
    assert_eq!((serve.checkpoint_interval, serve.checkpoint_bytes), (Duration::from_secs(60), 64 << 20));
    assert_eq!(serve.segment_bytes, 64 << 20);
    assert_eq!(serve.idle_after, Duration::from_secs(300));
    assert!(limits::MEMORY_BYTES.contains(&serve.memory_limit_bytes));
    assert_eq!(serve.log_level, LevelFilter::INFO);
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = File::with("listen = '127.0.0.1:1'\nops = '127.0.0.1:2'\nbody-limit = 4096\n");
    let environment =
        [("CHINWAG_LISTEN", "127.0.0.1:3"), ("CHINWAG_OPS", "127.0.0.1:4"), ("CHINWAG_CONFIG", file.path())];
    let serve = serve_of(&["--listen", "127.0.0.1:5"], &environment);
    assert_eq!(serve.listen.port(), 5);
    assert_eq!(serve.ops.port(), 4);
    assert_eq!(serve.body_limit_bytes, 4096);
}

#[test]
fn keys_of_the_file_may_be_spelled_with_underscores_and_lists() {
    let file = File::with("body_limit = '2KiB'\nverify-key = ['a.pem', 'b.pem']\nrate = 5\n");
    let serve = serve_of(&["--config", file.path()], &[]);
    assert_eq!(serve.body_limit_bytes, 2048);
    assert_eq!(serve.verify_keys, [PathBuf::from("a.pem"), PathBuf::from("b.pem")]);
    assert_eq!(serve.rate, NonZeroU32::new(5));
}

#[test]
fn origins_are_written_as_browsers_write_them() {
    let serve = serve_of(&["--origin", "https://Chat.example.com", "--origin", "*"], &[]);
    assert_eq!(serve.origins, ["https://chat.example.com", "*"]);
    for origin in ["chat.example.com", "https://", "https://a/b", "null", "ftp://a", "https://a@b"] {
        let line = refusal_of(&["serve", "--origin", origin], &[]);
        assert!(line.starts_with("--origin: ") && line.contains("is neither * nor an origin"), "{line}");
    }
}

#[test]
fn a_streams_queue_holds_a_message_of_the_longest_kind() {
    assert_eq!(serve_of(&["--body-limit", "1MiB"], &[]).stream_queue_bytes, (2 << 20) + 4096);
    let line = refusal_of(&["serve", "--body-limit", "64KiB", "--stream-queue", "100KiB"], &[]);
    assert_eq!(line, "--stream-queue: 100KiB is not between 135168 and 67108864 bytes");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(serve_of(&[], &[("CHINWAG_LISTEN", "")]).listen.port(), 8000);
}

#[test]
fn a_bad_value_is_one_line_that_names_its_place_and_why() {
    let flag = refusal_of(&["serve", "--body-limit", "10"], &[]);
    assert_eq!(flag, "--body-limit: 10 is not between 1024 and 1048576 bytes");
    let variable = refusal_of(&["serve"], &[("CHINWAG_SYNC", "often")]);
    assert_eq!(variable, "CHINWAG_SYNC: \"often\" is none of always, interval, never");
    let file = File::with("header-timeout = '1ms'\n");
    let line = refusal_of(&["serve", "--config", file.path()], &[]);
    assert_eq!(line, format!("header-timeout in {}: 1ms is not between 100ms and 10m", file.path()));
}

#[test]
fn a_file_with_an_unknown_key_a_doubled_one_or_a_wrong_type_is_refused() {
    for (text, expected) in [
        ("lisen = '127.0.0.1:1'", "there is no setting \"lisen\""),
        ("config = 'other.toml'", "there is no setting \"config\""),
        ("body-limit = 4096\nbody_limit = 4096", "body-limit is given twice"),
        ("listen = true", "must be a text or a whole number"),
        ("[listen]\nport = 1", "must be a text or a whole number"),
        ("listen = ['127.0.0.1:1', '127.0.0.1:2']", "takes one value"),
        ("ok = 1\nlisten = = 3", "line 2 is not TOML"),
    ] {
        let file = File::with(text);
        let line = refusal_of(&["serve", "--config", file.path()], &[]);
        assert!(line.contains(expected) && !line.contains('\n'), "{text:?} gave {line:?}");
    }
}

#[test]
fn a_named_file_that_cannot_be_read_is_refused() {
    assert!(
        refusal_of(&["serve", "--config", "no/such.toml"], &[]).starts_with("no/such.toml: cannot be read")
    );
    assert!(refusal_of(&["serve", "--config", "/"], &[]).contains("cannot be read"));
}

#[test]
fn clap_refusals_are_one_line_too() {
    assert!(refusal_of(&["serve", "--lissten", "x"], &[]).contains("--lissten"));
    let line = refusal_of(&["token"], &[]);
    assert!(line.contains("--user") && !line.contains('\n'), "{line:?}");
    assert!(refusal_of(&["server"], &[]).contains("server"));
    assert!(refusal_of(&[], &[]).starts_with("name a command"));
}

#[test]
fn help_has_an_example_and_goes_to_standard_output() {
    for command in ["serve", "token"] {
        let Err(Stop::Help(text)) = read(&[command, "--help"], &[]) else { panic!("expected help") };
        assert!(text.contains("Example:\n"), "{text}");
    }
    assert!(matches!(read(&["--version"], &[]), Err(Stop::Help(_))));
}

#[test]
fn a_token_is_signed_with_the_key_of_the_directory_that_serve_would_use() {
    let token_of = |arguments: &[&str], environment: &[(&str, &str)]| match read(arguments, environment) {
        Ok(Command::Token(token)) => token,
        other => panic!("expected a token, got {other:?}"),
    };
    let plain = token_of(&["token", "--user", "alice"], &[]);
    assert_eq!(plain.key, KeyPlace::Data("snapshots".into()));
    assert_eq!((plain.ttl, plain.admin), (Duration::from_hours(24), false));
    let moved = token_of(&["token", "--user", "alice"], &[("CHINWAG_DATA", "elsewhere")]);
    assert_eq!(moved.key, KeyPlace::Data("elsewhere".into()));
    let named = token_of(&["token", "--user", "a", "--key", "k", "--admin", "--ttl", "1h"], &[]);
    assert_eq!((named.key, named.admin), (KeyPlace::File("k".into()), true));
    assert!(refusal_of(&["token", "--user", ""], &[]).contains("--user"));
    assert!(refusal_of(&["token", "--user", "a", "--ttl", "0s"], &[]).starts_with("--ttl"));
}

#[test]
fn a_segment_of_the_log_is_refused_when_the_largest_call_might_not_fit() {
    assert_eq!(serve_of(&["--segment-bytes", "256KiB"], &[]).segment_bytes, 256 << 10);
    for arguments in [
        &["serve", "--segment-bytes", "255KiB"][..],
        &["serve", "--segment-bytes", "256KiB", "--body-limit", "65537"],
    ] {
        assert!(refusal_of(arguments, &[]).starts_with("--segment-bytes: "));
    }
}
