//! Turns the protobuf messages into Rust, without a `protoc` on the machine.

use std::error::Error;

const DIRECTORY: &str = "src/http/proto";
const FILES: [&str; 3] = ["im_chat.proto", "im_group.proto", "im_relation.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DIRECTORY}");
    let descriptors = protox::compile(FILES, [DIRECTORY])?;
    // An ordered map, so that equal pages have equal bytes.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
