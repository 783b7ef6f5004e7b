//! What `--help` says of each command below its flags: what they do not tell, and examples to copy.

pub(super) const SETTINGS_HELP: &str = "\
Every flag is also CHINWAG_<NAME> in the environment (CHINWAG_BODY_LIMIT) and a key in chinwag.toml
(body-limit = 65536). A flag beats the environment, which beats the file; an empty variable counts
as not set.";

pub(super) const SERVE_EXAMPLE: &str = "\
Example:
  chinwag serve --listen 127.0.0.1:8000 --data /var/lib/chinwag --body-limit 64KiB";

pub(super) const TOKEN_EXAMPLE: &str = "\
Example:
  curl -H \"Authorization: Bearer $(chinwag token --user alice)\" -H 'Content-Type: application/json' \\
       -d '{\"target\":\"bob\",\"target_type\":\"user\",\"msg\":\"hello\"}' 127.0.0.1:8000/im.chat/send";

pub(super) const VERIFY_EXAMPLE: &str = "\
Changes nothing, and takes a stopped server's directory or a backup. Every finding is a line with its
file, offset and conversations. Exit code 0: as it was written; 1: nothing but a torn tail, which the
next start cuts off; 65: damaged; 74: some of it could not be read.

Example:
  chinwag verify /var/lib/chinwag";

pub(super) const INSPECT_EXAMPLE: &str = "\
Example:
  chinwag inspect /var/lib/chinwag --json | jq .largest";

pub(super) const EXPORT_EXAMPLE: &str = "\
Takes a stopped server's directory or a backup. A conversation is one line, then one line for each of
its messages and recalls.

Examples:
  chinwag export /var/lib/chinwag --out all.jsonl
  chinwag export /var/lib/chinwag --user alice --peer bob
  chinwag export /var/lib/chinwag --group team";

pub(super) const IMPORT_EXAMPLE: &str = "\
Checks every line, then stores all conversations or none. The directory is made if it is not there;
none of the conversations may be in it.

Example:
  chinwag export old | chinwag import new";

pub(super) const BACKUP_EXAMPLE: &str = "\
Asks the server that uses the data directory, with a token signed by its key, or copies the directory
if no server uses it. The copy is a data directory too. Packs and old log files are hard links where
the file system allows it: for a copy on another disk, name a directory there.

Example:
  chinwag backup --data /var/lib/chinwag --to /backup/chinwag-monday";

pub(super) const RESTORE_EXAMPLE: &str = "\
Goes back to the end of a backup, or with --at to a moment within its log: before the first message
later than a time, or behind a record. With --log, a later backup (or a stopped server's directory)
brings the log from then on; what it reaches back to is set by serve --keep-log. Prints what verify
prints.

Examples:
  chinwag restore /backup/chinwag-monday --data /var/lib/chinwag
  chinwag restore /backup/chinwag-monday --log broken --data repaired --at 2026-01-31T11:59:00Z";

pub(super) const BENCH_EXAMPLE: &str = "\
Without --url it starts a server of its own in a temporary directory, and stops it. Flags behind `--`
are that server's, files among them named from the root. With --url it makes tokens for users
bench-0, bench-1, ... with the server's key, and leaves their messages there. Over https the server's
certificate has to be for the host of the URL (for 127.0.0.1, where the server is its own), and by
somebody whom the system or --ca trusts.

Without --rate each connection sends when it was answered, as fast as that goes. With --rate requests
are due at fixed times whatever the server does. Either way a stall costs what it cost the clients
that would have come meanwhile: latencies count from when a request was due, and without a schedule
the requests that a slow answer held back are counted in.

Examples:
  chinwag bench --connections 64 --duration 30s
  chinwag bench --sync interval --rate 10000 --json result.json
  chinwag bench --transport ws --pipeline 8 --mix send=1
  chinwag bench --mix pull=100 --history 50 --page 50 -- --memory-limit 1GiB
  chinwag bench --url http://127.0.0.1:8000 --data /var/lib/chinwag --mix send=1
  chinwag bench --url https://localhost:8000 --ca cert.pem --transport h2 --connections 4 --pipeline 16
  chinwag bench --ca $PWD/cert.pem -- --tls-cert $PWD/cert.pem --tls-key $PWD/key.pem";
