//! Every limit and setting.
pub mod limits {
    /// Longest user or group id, in bytes of UTF-8 (contract, section 2).
    pub const ID_BYTES_MAX: usize = 128;
}
