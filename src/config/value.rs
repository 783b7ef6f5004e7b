//! Texts into typed settings. Every refusal says what was given and what is allowed.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::SyncMode;
use super::limits::RATE;

/// Suffixes of sizes. Decimal ones (KB) are left out: half the readers would guess wrong.
const SIZE_UNITS: [(&str, u64); 5] =
    [("", 1), ("B", 1), ("KiB", 1024), ("MiB", 1024 * 1024), ("GiB", 1024 * 1024 * 1024)];

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address with a port, such as 127.0.0.1:8000"))
}

pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must name a path".to_owned()) } else { Ok(text.into()) }
}

pub(super) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// `*`, or an origin as a browser writes it: scheme, host, and the port unless it is the scheme's own.
pub(super) fn origin(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_origin =
        authority.is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '?', '#', ' ', '@']));
    if text == "*" || is_origin {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{text:?} is neither * nor an origin, such as https://chat.example.com"))
}

pub(super) fn whole_number(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().map_err(|_| format!("{text:?} is not a whole number"))?;
    if allowed.contains(&number) {
        return Ok(number);
    }
    Err(format!("{number} is not between {} and {}", allowed.start(), allowed.end()))
}

pub(super) fn size_bytes(text: &str, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_bytes = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()));
    let bytes = match (number.parse::<u64>(), unit_bytes) {
        (Ok(number), Some((_, unit_bytes))) => number.checked_mul(*unit_bytes),
        _ => return Err(format!("{text:?} is not a size, such as 65536 or 64KiB")),
    };
    match bytes {
        Some(bytes) if allowed.contains(&bytes) => Ok(bytes),
        _ => Err(format!("{text} is not between {} and {} bytes", allowed.start(), allowed.end())),
    }
}

pub(super) fn duration(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration, such as 10s, 50ms or 2h"))?;
    if allowed.contains(&duration) {
        return Ok(duration);
    }
    let [low, high] = [allowed.start(), allowed.end()].map(|end| humantime::format_duration(*end));
    Err(format!("{text} is not between {low} and {high}"))
}

/// A duration, or `off`.
pub(super) fn optional_duration(
    text: &str,
    allowed: &RangeInclusive<Duration>,
) -> Result<Option<Duration>, String> {
    if text == "off" { Ok(None) } else { duration(text, allowed).map(Some) }
}

/// A number that fits 32 bits, or `off`.
pub(super) fn optional_number(text: &str, allowed: &RangeInclusive<u64>) -> Result<Option<u32>, String> {
    if text == "off" {
        return Ok(None);
    }
    let number = whole_number(text, allowed).map_err(|why| format!("{why}, nor off"))?;
    Ok(u32::try_from(number).ok())
}

/// Calls per second, or `off`.
pub(super) fn rate(text: &str) -> Result<Option<NonZeroU32>, String> {
    if text == "off" {
        return Ok(None);
    }
    let number = whole_number(text, &RATE).map_err(|why| format!("{why}, nor off"))?;
    Ok(u32::try_from(number).ok().and_then(NonZeroU32::new))
}

pub(super) fn sync_mode(text: &str) -> Result<SyncMode, String> {
    match text {
        "always" => Ok(SyncMode::Always),
        "interval" => Ok(SyncMode::Interval),
        "never" => Ok(SyncMode::Never),
        _ => Err(format!("{text:?} is none of always, interval, never")),
    }
}

pub(super) fn log_level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(format!("{text:?} is none of error, warn, info, debug, trace")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_binary_unit() {
        let all = 0..=u64::MAX;
        assert_eq!(size_bytes("65536", &all), Ok(65_536));
        assert_eq!(size_bytes("64KiB", &all), Ok(65_536));
        assert_eq!(size_bytes("64 kib", &all), Ok(65_536));
        assert_eq!(size_bytes("1GiB", &all), Ok(1 << 30));
        for bad in ["", "KiB", "64KB", "-1", "1.5MiB", "64 KiB x", "0x10"] {
            assert!(size_bytes(bad, &all).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_size_that_overflows_is_out_of_bounds_and_not_small() {
        assert!(size_bytes("99999999999GiB", &(0..=u64::MAX)).is_err());
        assert!(size_bytes("18446744073709551616", &(0..=u64::MAX)).is_err());
    }

    #[test]
    fn refusals_name_what_was_given_and_what_is_allowed() {
        assert_eq!(size_bytes("10", &(1024..=2048)), Err("10 is not between 1024 and 2048 bytes".to_owned()));
        let second = Duration::from_secs(1);
        assert_eq!(duration("5ms", &(second..=second * 2)), Err("5ms is not between 1s and 2s".to_owned()));
        assert!(duration("10", &(second..=second * 60)).is_err());
        assert!(sync_mode("Always").is_err_and(|why| why.contains("always, interval, never")));
    }

    #[test]
    fn a_rate_a_window_and_a_number_can_be_off() {
        assert_eq!(optional_number("off", &(1..=9)), Ok(None));
        assert_eq!(optional_number("9", &(1..=9)), Ok(Some(9)));
        for bad in ["0", "10", "-1", "many", ""] {
            assert!(optional_number(bad, &(1..=9)).is_err_and(|why| why.ends_with("nor off")), "{bad:?}");
        }
        assert_eq!(rate("off"), Ok(None));
        assert_eq!(rate("20"), Ok(NonZeroU32::new(20)));
        assert!(rate("0").is_err());
        assert!(rate("fast").is_err_and(|why| why.ends_with("nor off")));
        assert_eq!(optional_duration("off", &(Duration::ZERO..=Duration::MAX)), Ok(None));
    }
}
