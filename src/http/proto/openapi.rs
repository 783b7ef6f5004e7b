//! The API as an OpenAPI document, made from the protobuf messages and their comments when Chinwag is built, so that
//! the two cannot differ. A test beside the routes looks whether every path is in it.
//!
//! Which messages there are is the `.proto` files' business; here is what JSON makes of them (proto3's mapping).

use std::collections::HashMap;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use serde_json::{Value, json};

/// Path, what it does, what it takes and answers; `None`: an empty object.
const CALLS: [(&str, &str, &str, Option<&str>); 23] = [
    ("/im.chat/send", "Stores a message; answered once it is durable.", "send_req", Some("send_resp")),
    ("/im.chat/recall", "Takes a message back.", "recall_req", Some("recall_resp")),
    ("/im.chat/ack", "Moves the caller's read cursor forward.", "ack_req", None),
    ("/im.chat/pull", "A page of messages and recalls.", "pull_req", Some("pull_resp")),
    ("/im.chat/list", "The caller's conversations, newest first.", "list_req", Some("list_resp")),
    ("/im.chat/sync", "What moved past the cursors given.", "sync_req", Some("sync_resp")),
    ("/im.chat/acks", "How far everybody in a conversation has read.", "acks_req", Some("acks_resp")),
    ("/im.chat/signal", "Tells who is connected; never stored.", "signal_req", None),
    ("/im.chat/online", "Which of these users are connected.", "online_req", Some("online_resp")),
    ("/im.group/create", "A group that the caller owns.", "group_create_req", Some("group_create_resp")),
    ("/im.group/info", "The group as the caller sees it.", "group_info_req", Some("group_info_resp")),
    ("/im.group/members", "A page of members.", "group_members_req", Some("group_members_resp")),
    ("/im.group/add", "Adds members (owner, admins).", "group_add_req", None),
    ("/im.group/kick", "Removes members (owner, admins).", "group_kick_req", None),
    ("/im.group/leave", "The caller leaves.", "group_leave_req", None),
    ("/im.group/set_duty", "Gives a member a duty (owner).", "group_set_duty_req", None),
    ("/im.group/rename", "Gives the group another name (owner, admins).", "group_rename_req", None),
    ("/im.group/mute", "Lets a member send nothing for a while (owner, admins).", "group_mute_req", None),
    ("/im.group/dismiss", "Ends the group (owner).", "group_dismiss_req", None),
    ("/im.group/list", "The caller's groups.", "group_list_req", Some("group_list_resp")),
    ("/im.relation/block", "Refuses what a user sends the caller.", "relation_block_req", None),
    ("/im.relation/unblock", "Ends a block.", "relation_unblock_req", None),
    ("/im.relation/blocks", "Whom the caller blocks.", "relation_blocks_req", Some("relation_blocks_resp")),
];

/// What JSON has otherwise than proto3's mapping says: message, field, schema.
const OTHERWISE: [(&str, &str, &str); 2] = [
    ("signal_req", "data", r#"{"description":"any JSON value, at most 1024 bytes"}"#),
    (
        "chat_info",
        "last",
        r##"{"oneOf":[{"$ref":"#/components/schemas/msg_info"},{"type":"null"}],"description":"null when there is none to read"}"##,
    ),
];

/// The document, as JSON.
pub(crate) fn document(descriptors: &FileDescriptorSet, version: &str) -> String {
    let mut paths = serde_json::Map::new();
    for (path, summary, request, reply) in CALLS {
        paths.insert(path.to_owned(), json!({"post": call(path, summary, request, reply)}));
    }
    paths.insert("/im.chat/stream".to_owned(), json!({"get": stream()}));
    paths.insert("/openapi.json".to_owned(), json!({"get": this()}));
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Chinwag",
            "version": version,
            "description": "A chat backend. Unknown fields are ignored, absent ones have their zero value, and a number may \
                come as a string.",
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "token": {"type": "apiKey", "in": "header", "name": "Token"},
            },
            "schemas": schemas(descriptors),
        },
    });
    document.to_string()
}

fn call(path: &str, summary: &str, request: &str, reply: Option<&str>) -> Value {
    let reply = reply.map_or_else(|| json!({"type": "object"}), reference);
    let binary = json!({"type": "string", "format": "binary"});
    json!({
        "operationId": path.trim_start_matches("/im.").replace('/', "_"),
        "summary": summary,
        "requestBody": {"required": true, "content": {
            "application/json": {"schema": reference(request)},
            "application/x-protobuf": {"schema": binary},
            "application/x-www-form-urlencoded": {"schema": reference(request)},
        }},
        "responses": {
            "200": {"description": "done", "content": {
                "application/json": {"schema": reply},
                "application/x-protobuf": {"schema": binary},
            }},
            "default": refusal(),
        },
    })
}

fn stream() -> Value {
    json!({
        "operationId": "chat_stream",
        "summary": "What happens, as it happens: a WebSocket, or server-sent events when Accept asks for them.",
        "parameters": [{"name": "resume", "in": "query", "schema": {"enum": ["1"]},
            "description": "the client will send a resume first: live events wait for it"}],
        "responses": {
            "101": {"description": "a WebSocket of JSON objects"},
            "200": {"description": "events, one JSON object each", "content": {"text/event-stream": {}}},
            "default": refusal(),
        },
    })
}

fn this() -> Value {
    json!({
        "operationId": "openapi",
        "summary": "This document.",
        "security": [],
        "responses": {"200": {"description": "the document", "content": {"application/json": {}}}},
    })
}

fn refusal() -> Value {
    json!({"description": "a refusal", "content": {"application/json": {"schema": reference("error")}}})
}

fn reference(message: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{message}")})
}

fn schemas(descriptors: &FileDescriptorSet) -> serde_json::Map<String, Value> {
    let messages = descriptors.file.iter().flat_map(|file| {
        let comments = comments(file);
        file.message_type.iter().enumerate().map(move |(number, message)| {
            let described =
                |field| comments.get(&vec![4, number as i32, 2, field as i32]).map(String::as_str);
            (message.name().to_owned(), object(message, described))
        })
    });
    messages.collect()
}

/// The comment behind each thing of a file, by its path (descriptor.proto, `SourceCodeInfo`).
fn comments(file: &FileDescriptorProto) -> HashMap<Vec<i32>, String> {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let commented = locations.filter_map(|location| {
        let comment = location.trailing_comments.as_deref()?.trim().to_owned();
        Some((location.path.clone(), comment))
    });
    commented.collect()
}

fn object<'a>(message: &DescriptorProto, described: impl Fn(usize) -> Option<&'a str>) -> Value {
    let properties = message.field.iter().enumerate().map(|(number, field)| {
        let otherwise = OTHERWISE.iter().find(|(of, name, _)| (*of, *name) == (message.name(), field.name()));
        let schema = match otherwise {
            Some((_, _, schema)) => serde_json::from_str(schema).expect("JSON"),
            None => property(message, field, described(number)),
        };
        (field.name().to_owned(), schema)
    });
    let properties: serde_json::Map<_, _> = properties.collect();
    json!({"type": "object", "properties": properties})
}

fn property(message: &DescriptorProto, field: &FieldDescriptorProto, description: Option<&str>) -> Value {
    let name = field.type_name().rsplit('.').next().unwrap_or_default();
    let entry = message.nested_type.iter().find(|nested| nested.name() == name);
    let mut schema = match entry {
        Some(entry) => json!({"type": "object", "additionalProperties": single(&entry.field[1])}),
        None if field.label() == Label::Repeated => json!({"type": "array", "items": single(field)}),
        None => single(field),
    };
    if let Some(description) = description {
        schema["description"] = description.into();
    }
    schema
}

/// One value (proto3, "JSON mapping"): 64 bits are a decimal string.
fn single(field: &FieldDescriptorProto) -> Value {
    match field.r#type() {
        Type::String => json!({"type": "string"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Uint32 => json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX}),
        Type::Uint64 => json!({"type": "string", "pattern": "^[0-9]+$"}),
        Type::Message => reference(field.type_name().rsplit('.').next().unwrap_or_default()),
        other => panic!("no message had a field of {other:?} before"),
    }
}
