//! Every limit and setting.
/// Limits that more than one part must agree on.
pub mod limits {
    /// Longest user or group id, in bytes of UTF-8 (contract, section 2).
    pub const ID_BYTES_MAX: usize = 128;

    /// Longest payload of one log record, in bytes. The largest lawful request body is far below it; the bound exists
    /// so that a damaged length can neither steer recovery nor make it allocate without end.
    pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
}
