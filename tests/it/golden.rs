//! Data directories of earlier versions open: everything in them is there, and they can be gone on with.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Arrangement, Finished, Process, TestServer, chinwag};

/// How long the golden segments were before their trailing zeros were cut.
const SEGMENT_BYTES: u64 = 256 * 1024;

/// A copy of a golden data directory, and what is expected of it.
struct Golden {
    directory: TempDir,
    expected: String,
    state_hash: String,
}

impl Golden {
    fn copy(name: &str) -> Self {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        for part in ["wal", "snap", "tmp", "quarantine"] {
            fs::create_dir_all(data.join(part)).expect("a directory");
        }
        fs::copy(from.join("data/FORMAT"), data.join("FORMAT")).expect("FORMAT");
        for part in ["wal", "snap"] {
            for entry in fs::read_dir(from.join("data").join(part)).expect("a golden directory") {
                let entry = entry.expect("an entry");
                fs::copy(entry.path(), data.join(part).join(entry.file_name())).expect("copied");
            }
        }
        for segment in files(&data.join("wal")) {
            let segment = fs::OpenOptions::new().write(true).open(segment).expect("a segment");
            segment.set_len(SEGMENT_BYTES).expect("as long as it was");
        }
        let text = |file: &str| fs::read_to_string(from.join(file)).expect("a golden text");
        Self { directory, expected: text("expected.jsonl"), state_hash: text("state_hash").trim().to_owned() }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn tool(&self, command: &str) -> Finished {
        Process::run(chinwag(&[command, self.data().to_str().expect("UTF-8")]))
    }

    /// Whether the tools read what is expected; `code` is what `verify` ends with.
    fn assert_read_by_tools(&self, code: i32) {
        let verified = self.tool("verify");
        assert_eq!(verified.code(), Some(code), "{verified:?}");
        assert!(verified.stdout.contains(&self.state_hash), "{verified:?}");
        let exported = self.tool("export");
        assert_eq!(exported.code(), Some(0), "{exported:?}");
        assert_eq!(exported.stdout.join("\n") + "\n", self.expected);
    }

    fn serve(&self) -> TestServer {
        let (arrangement, data) = (Arrangement::flags(&["--segment-bytes", "256KiB"]), self.data());
        let directory = std::sync::Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let process = Process::start(arrangement.command(&data), &directory.path().join("stderr"));
        TestServer::of(process, directory, data, arrangement)
    }

    /// The conversations, each with its messages.
    fn conversations(&self) -> Vec<(Value, Vec<Value>)> {
        let mut all: Vec<(Value, Vec<Value>)> = Vec::new();
        for line in self.expected.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON Lines");
            match line["type"].as_str() {
                Some("conversation") => all.push((line, Vec::new())),
                Some("message") => all.last_mut().expect("behind its conversation").1.push(line),
                _ => {}
            }
        }
        all
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of[field].as_str().unwrap_or_else(|| panic!("no {field} in {of}"))
}

fn number(of: &Value, field: &str) -> u32 {
    of[field]
        .as_u64()
        .and_then(|number| number.try_into().ok())
        .unwrap_or_else(|| panic!("no {field} in {of}"))
}

/// Who may read all of a conversation, and the body that names it.
fn reader_of(conversation: &Value) -> (String, Value) {
    if let Some(users) = conversation["users"].as_array() {
        let user = |place: usize| users[place].as_str().expect("a user").to_owned();
        return (user(0), json!({"target": user(1), "target_type": "user"}));
    }
    let of = conversation["participants"].as_array().expect("participants");
    let owner = of.iter().find(|one| one["member"]["duty"] == 2).expect("an owner");
    let group = text(&conversation["group"], "group_id");
    (text(owner, "user").to_owned(), json!({"target": group, "target_type": "group"}))
}

fn with(body: &Value, fields: Value) -> Value {
    let mut all = body.clone();
    let fields = fields.as_object().expect("fields").clone();
    all.as_object_mut().expect("an object").extend(fields);
    all
}

/// Compares every message as the API shows it.
fn assert_pulled(server: &TestServer, conversation: &Value, messages: &[Value]) {
    let (reader, body) = reader_of(conversation);
    let reader = server.client(&reader);
    let asked = json!({"direction": "after", "start_msg_index": 1, "start_recall_index": 1, "count": 50});
    let page = reader.call("/im.chat/pull", &with(&body, asked)).ok();
    assert_eq!(page["max_msg_index"], conversation["messages"], "{conversation}");
    assert_eq!(page["max_recall_index"], conversation["recalls"], "{conversation}");
    let pulled = page["msgs"].as_array().expect("messages");
    assert_eq!(pulled.len(), messages.len());
    for (pulled, message) in pulled.iter().zip(messages) {
        for field in ["msg_index", "recall_index", "sender", "msg", "extra"] {
            assert_eq!(pulled[field], message[field], "{field} of {message}");
        }
    }
    for message in messages.iter().filter(|message| number(message, "recall_index") > 0) {
        assert_eq!(page["recalls"][message["recall_index"].to_string()], message["msg_index"], "{page}");
    }
}

/// Sends every message of a pair again under its name: none is stored twice.
fn assert_retries_are_known(server: &TestServer, conversation: &Value, messages: &[Value]) -> usize {
    let Some(users) = conversation["users"].as_array() else { return 0 };
    let named = messages.iter().filter(|message| !text(message, "client_msg_id").is_empty());
    let mut known = 0;
    for message in named {
        let sender = text(message, "sender");
        let peer = users.iter().find(|user| *user != sender).unwrap_or(&users[0]);
        // A recalled one is known whatever its text.
        let msg = Some(text(message, "msg")).filter(|msg| !msg.is_empty()).unwrap_or("forgotten");
        let body = json!({
            "target": peer, "target_type": "user", "msg": msg, "extra": message["extra"],
            "client_msg_id": message["client_msg_id"],
        });
        let receipt = server.client(sender).call("/im.chat/send", &body).ok();
        let told = json!([receipt["msg_index"], receipt["timestamp_ns"], receipt["duplicate"]]);
        assert_eq!(told, json!([message["msg_index"], message["timestamp_ns"], true]), "{message}");
        known += 1;
    }
    known
}

fn assert_groups(server: &TestServer) {
    let (alice, bob) = (server.client("alice"), server.client("bob"));
    let info = alice.group_call("info", &json!({"group_id": "team"}));
    assert_eq!(info["name"], "The team");
    let members = alice.group_call("members", &json!({"group_id": "team"}));
    let ids: Vec<_> =
        members["members"].as_array().expect("members").iter().map(|one| text(one, "user_id")).collect();
    assert_eq!(ids, ["alice", "carol", "dave"], "{members}");
    bob.group("team").call("send", &json!({"msg": "bob has left"})).assert_error(403, 10008);
    let seen_by_carol = server.client("carol").group("team").beginning();
    assert_eq!((seen_by_carol.min_msg_index, seen_by_carol.texts()), (14, vec!["back again"]));
}

/// Opens the directory with this binary, compares everything, and goes on with it.
fn assert_served(golden: &Golden) {
    let mut server = golden.serve();
    let conversations = golden.conversations();
    assert_eq!(server.ready().conversations, conversations.len() as u64);
    let mut known = 0;
    for (conversation, messages) in &conversations {
        assert_pulled(&server, conversation, messages);
        known += assert_retries_are_known(&server, conversation, messages);
    }
    assert!(known > 20, "only {known} retries");
    assert_groups(&server);
    let token = server.admin("root").token().to_owned();
    let ops = crate::support::Client::new(server.ready().ops, "root", token);
    ops.call("/im.admin/snapshot", &json!({"compact": true})).ok();
    server.stop();
    // Nothing of this was a change, though every file was written anew.
    golden.assert_read_by_tools(0);
    server.start_again();
    let newest = conversations[0].0["messages"].as_u64().expect("a number");
    let (sender, body) = reader_of(&conversations[0].0);
    let receipt = server.client(&sender).call("/im.chat/send", &with(&body, json!({"msg": "goes on"}))).ok();
    assert_eq!(receipt["msg_index"].as_u64(), Some(newest + 1));
}

#[test]
fn a_killed_servers_directory_of_an_earlier_version_opens_with_everything() {
    let golden = Golden::copy("killed");
    golden.assert_read_by_tools(0);
    assert_served(&golden);
}

#[test]
fn a_torn_tail_of_an_earlier_version_is_cut_and_the_rest_is_there() {
    let golden = Golden::copy("torn");
    golden.assert_read_by_tools(1);
    assert_served(&golden);
    assert_eq!(files(&golden.data().join("quarantine")).len(), 1);
}
