//! Moments to go back to: a position in the log, or a time.

use std::time::{Duration, SystemTime};

/// Where a restore stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Behind this record.
    Lsn(u64),
    /// Before the first record later than this, Unix time in nanoseconds.
    Time(u64),
}

impl Moment {
    /// Reads a whole number (a position) or a time of RFC 3339, with `Z` or an offset.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(lsn) = text.parse() {
            return if lsn == 0 { Err("0 is before the first record".into()) } else { Ok(Self::Lsn(lsn)) };
        }
        let bad = || format!("{text:?} is neither a position nor a time, such as 2026-01-31T12:00:00Z");
        time(text).map(Self::Time).ok_or_else(bad)
    }
}

fn time(text: &str) -> Option<u64> {
    let (local, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
            (local, offset_s(offset)?)
        }
    };
    let local = humantime::parse_rfc3339(&format!("{}Z", local.replacen('t', "T", 1))).ok()?;
    let since = local.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let shift = Duration::from_secs(u64::from(offset.unsigned_abs()));
    let utc = if offset < 0 { since.checked_add(shift)? } else { since.checked_sub(shift)? };
    // Behind what the number holds, in the year 2554, there is no record either.
    Some(u64::try_from(utc.as_nanos()).unwrap_or(u64::MAX))
}

/// How many seconds a local time is ahead, from `+02:00`.
fn offset_s(text: &str) -> Option<i32> {
    let (sign, rest) = text.split_at_checked(1)?;
    let sign = match sign {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, below: i32| -> Option<i32> {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number| digits && *number < below)
    };
    Some(sign * (number(hours, 24)? * 3600 + number(minutes, 60)? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_times_are_told_apart() {
        let second = 1_000_000_000;
        assert_eq!(Moment::parse("17"), Ok(Moment::Lsn(17)));
        for (text, seconds) in [
            ("1970-01-01T00:00:10Z", 10),
            ("1970-01-01T02:00:10+02:00", 10),
            ("1970-01-01T00:00:10-00:30", 1_810),
            ("2026-01-31T12:00:00z", 1_769_860_800),
        ] {
            assert_eq!(Moment::parse(text), Ok(Moment::Time(seconds * second)), "{text}");
        }
        assert_eq!(Moment::parse("1970-01-01T00:00:00.000000007Z"), Ok(Moment::Time(7)));
        assert_eq!(Moment::parse("2999-01-01T00:00:00Z"), Ok(Moment::Time(u64::MAX)));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "0", "-1", "now", "2026-01-31", "2026-01-31T12:00:00", "2026-13-31T12:00:00Z"] {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
        for text in
            ["1970-01-01T00:00:00+24:00", "1970-01-01T00:00:00+1:00", "1970-01-01T00:00:00+01:00", "é+01:00"]
        {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
    }
}
