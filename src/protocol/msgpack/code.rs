//! The names of refusals on the wire.

/// The kinds of refusal that a client is told, as spelled on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The caller is unknown or not allowed to do this.
    Unauthorized,
    /// The request itself is wrong; sending it again will not help.
    InvalidRequest,
    /// The server could not do it; it may be unknown whether it happened. Sending the same entries again is safe.
    InternalServerError,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 3] =
        [Self::Unauthorized, Self::InvalidRequest, Self::InternalServerError];

    /// The spelling on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "Unauthorized",
            Self::InvalidRequest => "InvalidRequest",
            Self::InternalServerError => "InternalServerError",
        }
    }

    /// The code with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
