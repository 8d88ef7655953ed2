//! What a receiver's answer means.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;

/// The limits for a receiver that asks for less time, or for more.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// What happens to the entries that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// They have arrived.
    Taken,
    /// One of them, or all, will not be accepted, however often they are sent.
    Refused(String),
    /// Nothing more should be sent.
    Gone,
    /// It says nothing about the entries: they are sent again, after this time if it is given.
    Failed(String, Option<Duration>),
}

impl Answer {
    /// What this status means, with `Retry-After` if present.
    pub(super) fn of(status: StatusCode, retry_after: Option<&str>, now: SystemTime) -> Self {
        match status {
            _ if status.is_success() => Self::Taken,
            StatusCode::GONE => Self::Gone,
            // The other statuses that begin with 4 are about the address, the rights, or the moment.
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => Self::Refused(format!("it answered {status}")),
            _ if status.is_redirection() => {
                Self::Failed(format!("it answered {status}, but redirects are not followed"), None)
            }
            _ => {
                let wait = retry_after.and_then(|text| parse_wait(text, now));
                Self::Failed(
                    format!("it answered {status}"),
                    wait.map(|wait| wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)),
                )
            }
        }
    }
}

/// Seconds, or a date.
fn parse_wait(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(text.trim()).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, retry_after: Option<&str>) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        Answer::of(status, retry_after, now)
    }

    #[test]
    fn every_status_has_an_effect() {
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status, None), Answer::Taken);
        }
        assert_eq!(of(410, None), Answer::Gone);
        for status in [400, 413, 415, 422] {
            assert!(matches!(of(status, Some("7")), Answer::Refused(_)), "{status}");
        }
        for status in [301, 308, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(of(status, None), Answer::Failed(_, None)), "{status}");
        }
    }

    #[test]
    fn a_receiver_can_say_when_within_a_bound() {
        for (text, seconds) in [
            ("0", Some(1)),
            (" 120 ", Some(120)),
            ("99999999999", Some(3_600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(1)),
            ("soon", None),
            ("-1", None),
        ] {
            let Answer::Failed(_, wait) = of(503, Some(text)) else { panic!("it failed") };
            assert_eq!(wait, seconds.map(Duration::from_secs), "{text}");
        }
    }
}
