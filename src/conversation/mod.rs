//! tmp
pub mod chunk; pub mod codec; mod group; mod history; mod participants; mod record; mod resident; pub mod state;
