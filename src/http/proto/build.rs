//! Turns the protobuf messages into Rust, without a `protoc` on the machine, and into an OpenAPI document.

use std::error::Error;
use std::path::PathBuf;

mod openapi;

const DIRECTORY: &str = "src/http/proto";
const FILES: [&str; 3] = ["im_chat.proto", "im_group.proto", "im_relation.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DIRECTORY}");
    let descriptors = protox::compile(FILES, [DIRECTORY])?;
    let document = openapi::document(&descriptors, &std::env::var("CARGO_PKG_VERSION")?);
    std::fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("openapi.json"), document)?;
    // An ordered map, so that equal pages have equal bytes.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
