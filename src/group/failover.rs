//! What becomes of the keys of a server that is down: `next | off | backup [exptime=TIME]`.

/// Seconds: above, memcached reads an exptime as a time of the epoch.
pub const MAX_EXPTIME: u32 = 60 * 60 * 24 * 30;

/// Seconds that a value stays in a backup server if nothing is said.
const DEFAULT_EXPTIME: u32 = 60;

/// What becomes of the keys of a server that is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failover {
    /// They go to another server, and if there is none to a backup server.
    #[default]
    Next,
    /// Their operations fail.
    Off,
    /// They go to the backup servers, and what is stored there expires soon.
    Backup {
        /// Seconds, from 1 to [`MAX_EXPTIME`].
        exptime: u32,
    },
}

/// What is wrong with the text of a failover.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailoverError {
    /// There is no such failover.
    #[error("needs \"next\", \"off\" or \"backup\"")]
    Unknown,
    /// Only `backup` has parameters, and one.
    #[error("takes one parameter, \"exptime\", with \"backup\" only")]
    Parameter,
    /// Too short, too long, or no time.
    #[error("needs an \"exptime\" from 1s to 30d")]
    Exptime,
}

impl Failover {
    /// Parses a failover. `seconds` reads a time.
    ///
    /// # Errors
    ///
    /// For the operator to read.
    pub fn parse<'a>(
        name: &[u8],
        parameters: impl IntoIterator<Item = &'a [u8]>,
        seconds: impl Fn(&[u8]) -> Option<u32>,
    ) -> Result<Failover, FailoverError> {
        let mut parameters = parameters.into_iter();
        let failover = match name {
            b"next" => Failover::Next,
            b"off" => Failover::Off,
            b"backup" => {
                let exptime = match parameters.next() {
                    None => DEFAULT_EXPTIME,
                    Some(parameter) => parameter
                        .strip_prefix(b"exptime=")
                        .ok_or(FailoverError::Parameter)
                        .and_then(|time| seconds(time).ok_or(FailoverError::Exptime))?,
                };
                if !(1..=MAX_EXPTIME).contains(&exptime) {
                    return Err(FailoverError::Exptime);
                }
                Failover::Backup { exptime }
            }
            _ => return Err(FailoverError::Unknown),
        };
        match parameters.next() {
            None => Ok(failover),
            Some(_) => Err(FailoverError::Parameter),
        }
    }
}

/// The exptime of what is stored in a backup server: the caller's, but at most `limit` seconds from
/// now. `now` is a time of the epoch.
pub fn bounded_exptime(exptime: i64, limit: u32, now: i64) -> i64 {
    let limit = i64::from(limit);
    match exptime {
        // never
        0 => limit,
        // below 0 it has expired, and stays so
        _ if exptime <= i64::from(MAX_EXPTIME) => exptime.min(limit),
        _ if exptime.saturating_sub(now) > limit => limit,
        _ => exptime,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Failover, FailoverError> {
        let mut words = text.split(' ').map(str::as_bytes);
        let seconds = |text: &[u8]| str::from_utf8(text).ok()?.parse().ok();
        Failover::parse(words.next().unwrap(), words, seconds)
    }

    #[test]
    fn what_is_accepted() {
        assert_eq!(parse("next"), Ok(Failover::default()));
        assert_eq!(parse("off"), Ok(Failover::Off));
        let backup = |exptime| Ok(Failover::Backup { exptime });
        assert_eq!(parse("backup"), backup(60));
        assert_eq!(parse("backup exptime=1"), backup(1));
        assert_eq!(parse("backup exptime=2592000"), backup(2_592_000));
    }

    #[test]
    fn what_is_refused() {
        for (text, error) in [
            ("", FailoverError::Unknown),
            ("on", FailoverError::Unknown),
            ("Next", FailoverError::Unknown),
            ("next exptime=5", FailoverError::Parameter),
            ("off x", FailoverError::Parameter),
            ("backup 60", FailoverError::Parameter),
            ("backup exptime=5 exptime=5", FailoverError::Parameter),
            ("backup exptime=0", FailoverError::Exptime),
            ("backup exptime=", FailoverError::Exptime),
            ("backup exptime=-1", FailoverError::Exptime),
            ("backup exptime=2592001", FailoverError::Exptime),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn exptimes_in_a_backup_server() {
        let now = 1_700_000_000;
        for (exptime, expected) in [
            (0, 60),
            (-1, -1),
            (i64::MIN, i64::MIN),
            (1, 1),
            (10, 10),
            (59, 59),
            (61, 60),
            (3600, 60),
            (2_592_000, 60),
            // times of the epoch
            (2_592_001, 2_592_001),
            (now - 5, now - 5),
            (now + 30, now + 30),
            (now + 60, now + 60),
            (now + 61, 60),
            (i64::MAX, 60),
        ] {
            assert_eq!(bounded_exptime(exptime, 60, now), expected, "{exptime}");
        }
        assert_eq!(bounded_exptime(i64::MAX, 60, i64::MIN), 60);
    }
}
