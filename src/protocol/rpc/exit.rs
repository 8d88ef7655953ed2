//! The result of a request, as a client reads it.

use serde::de::IgnoredAny;

use super::answer::{ProtocolError, outcome, reason};
use super::frame::open;
use super::ids::{PROTOCOL_ERROR, VARIANT};
use super::window::{Malformed, Window, text};

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub enum Exit<'a> {
    /// With success and this value: nothing, or one that [`HelloResponse`](super::HelloResponse) or
    /// [`Acks`](super::Acks) can decode.
    Success(&'a [u8]),
    /// With a failure.
    Failure(Cause<'a>),
}

/// Why a request failed: any number of reasons, all of them validated.
#[derive(Clone, Copy, Debug)]
pub struct Cause<'a> {
    window: Window<'a>,
}

/// One reason for a failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason<'a> {
    /// A refusal.
    Fail(ProtocolError<'a>),
    /// A crash, described in JSON.
    Die(&'a str),
    /// Interrupted, perhaps by the fiber with this number.
    Interrupt(Option<f64>),
}

impl<'a> Exit<'a> {
    /// Reads the frame in [`Envelope::Exit`](super::Envelope::Exit).
    pub fn decode(exit: &'a [u8]) -> Result<Self, Malformed> {
        let mut window = open(exit)?;
        match window.byte()? {
            outcome::SUCCESS => Ok(Self::Success(window.rest())),
            outcome::FAILURE => Cause::read(window).map(Self::Failure),
            _ => Err(Malformed::new("success or failure")),
        }
    }
}

impl<'a> Cause<'a> {
    fn read(mut window: Window<'a>) -> Result<Self, Malformed> {
        let count = window.count()?;
        let reasons = window;
        for _ in 0..count {
            read_reason(window.sized()?)?;
        }
        window.end()?;
        Ok(Self { window: reasons })
    }

    /// The reasons, without those of an unknown kind.
    pub fn reasons(&self) -> impl Iterator<Item = Reason<'a>> {
        let mut window = self.window;
        // All reasons were read before.
        std::iter::from_fn(move || window.sized().ok())
            .filter_map(|reason| read_reason(reason).ok().flatten())
    }
}

fn read_reason(bytes: &[u8]) -> Result<Option<Reason<'_>>, Malformed> {
    let mut window = Window::new(bytes);
    Ok(match window.byte()? {
        reason::FAIL => {
            if window.byte()? != VARIANT || window.array()? != PROTOCOL_ERROR.to_le_bytes() {
                return Err(Malformed::new("a protocol error"));
            }
            Some(Reason::Fail(ProtocolError::read(window)?))
        }
        reason::DIE => Some(Reason::Die(json(window.rest())?)),
        reason::INTERRUPT => {
            window.end()?;
            Some(Reason::Interrupt(None))
        }
        reason::INTERRUPT_BY => {
            let fiber = f64::from_le_bytes(window.array()?);
            window.end()?;
            Some(Reason::Interrupt(Some(fiber)))
        }
        _ => None,
    })
}

fn json(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = text(bytes)?;
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(Malformed::new("JSON")),
    }
}

/// Reads the frame in [`Envelope::Defect`](super::Envelope::Defect): JSON text.
pub fn decode_defect(defect: &[u8]) -> Result<&str, Malformed> {
    json(open(defect)?.rest())
}
