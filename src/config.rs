//! Every limit and setting.

/// Named limits.
pub mod limits {
    /// Longest user or group id, in bytes of UTF-8 (contract, section 2).
    pub const ID_BYTES_MAX: usize = 128;
    /// Most members of a group.
    pub const GROUP_MEMBERS_MAX: usize = 10_000;
}
