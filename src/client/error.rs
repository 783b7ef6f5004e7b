//! What can go wrong with a call, and whether calling again can help.

use std::io;
use std::time::Duration;

use crate::tls;

/// Why there is no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The URL is neither `http://host:port` nor `https://host:port`.
    #[error("{0:?} is neither http://host:port nor https://host:port")]
    Url(String),
    /// The certificates of authorities cannot be used, or the system has none.
    #[error("the authorities to trust: {0}")]
    Authorities(String),
    /// There is a server, and it could not show that it is the one of the URL: nothing was said to it. Calls are not
    /// repeated then; streams go on trying, because a certificate may be mended.
    #[error("the server is not trusted: {0}")]
    Untrusted(String),
    /// The server said no.
    #[error("{msg} ({code})")]
    Refused {
        /// The code of the API's table.
        code: u32,
        /// The server's words, which name the field and the limit.
        msg: String,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer came: whether the call was carried out is unknown.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer is none of the API's.
    #[error("an answer that is not of this API: {0}")]
    Unreadable(String),
    /// The token's time is over, and no other was set.
    #[error("the token has expired")]
    TokenExpired,
}

/// What may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// Twice does the same as once.
    Always,
    /// Only what the server has said it did nothing of.
    Refused,
    /// It is stale by then.
    Never,
}

/// Codes that decide whether to call again.
const TOO_FAST: u32 = 10009;
const UNAVAILABLE: u32 = 10011;
const BROKEN: u32 = 10003;
const UNAUTHENTICATED: u32 = 10004;

impl Error {
    /// Whether calling again may help and hurts nobody.
    pub(super) fn is_worth_repeating(&self, repeatable: Repeatable) -> bool {
        match (repeatable, self) {
            (Repeatable::Never, _) => false,
            (_, Self::Refused { code: TOO_FAST, .. }) => true,
            (Repeatable::Always, Self::Refused { code: UNAVAILABLE | BROKEN, .. } | Self::NoAnswer(_)) => {
                true
            }
            _ => false,
        }
    }

    /// How long the server asked to be left alone.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Refused { retry_after: Some(wait), .. } => *wait,
            _ => Duration::ZERO,
        }
    }

    /// Whether no token of this kind will do.
    pub(super) fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::TokenExpired | Self::Refused { code: UNAUTHENTICATED, .. })
    }

    pub(super) fn no_answer(why: impl std::fmt::Display) -> Self {
        Self::NoAnswer(why.to_string())
    }

    /// A connection that did not come about.
    pub(super) fn not_connected(why: io::Error) -> Self {
        match tls::untrusted(&why) {
            Some(why) => Self::Untrusted(why.to_string()),
            None => Self::no_answer(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_depends_on_what_is_known() {
        let refused = |code| Error::Refused { code, msg: String::new(), retry_after: None };
        for (error, always, only_refused) in [
            (Error::NoAnswer(String::new()), true, false),
            (refused(TOO_FAST), true, true),
            // The log may have failed: then nobody knows.
            (refused(UNAVAILABLE), true, false),
            (refused(BROKEN), true, false),
            (refused(10008), false, false),
            (Error::TokenExpired, false, false),
            (Error::Untrusted(String::new()), false, false),
        ] {
            assert_eq!(error.is_worth_repeating(Repeatable::Always), always, "{error}");
            assert_eq!(error.is_worth_repeating(Repeatable::Refused), only_refused, "{error}");
            assert!(!error.is_worth_repeating(Repeatable::Never), "{error}");
        }
    }
}
