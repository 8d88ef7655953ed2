//! `[auth]`: who decides what a key may do, and which settings go with that.

use eventlog_server::services::auth::jwt::TokenSource;
use eventlog_server::services::auth::{Grant, Grants};
use eventlog_server::services::identities::BindPolicy;

use super::AuthChoice;
use super::fault::ConfigError;
use super::lists::{Many, Parsed};
use super::settings::{AuthMode, AuthSettings, BindMode, ClaimSettings, GrantEntry, JwtSettings};
use super::units::Flag;

pub(super) fn auth(
    settings: AuthSettings,
    has_admin_api: bool,
    dev: bool,
) -> Result<AuthChoice, ConfigError> {
    let AuthSettings { mode, bind, keep_proof: _, jwt, http, grant } = settings;
    let unused = |what| Err(ConfigError::Auth(what));
    match mode {
        Some(AuthMode::Grants | AuthMode::Jwt | AuthMode::Http) if dev => {
            Err(ConfigError::DevWithRules)
        }
        Some(AuthMode::AllowAll | AuthMode::Jwt | AuthMode::Http) | None if !grant.is_empty() => {
            unused(
                "the [[auth.grant]] tables have no effect; set `mode = \"grants\"` in [auth], or remove them",
            )
        }
        Some(AuthMode::AllowAll | AuthMode::Grants | AuthMode::Http) | None
            if jwt.says_whom_to_believe() =>
        {
            unused("[auth.jwt] has no effect; set `mode = \"jwt\"` in [auth], or remove it")
        }
        Some(AuthMode::AllowAll | AuthMode::Grants | AuthMode::Jwt) | None
            if http.url.is_some() =>
        {
            unused("[auth.http] has no effect; set `mode = \"http\"` in [auth], or remove it")
        }
        Some(AuthMode::AllowAll | AuthMode::Grants) | None if bind == Some(BindMode::Token) => {
            unused(
                "`[auth] bind` is \"token\", but no token or answer could name a signing key; set `mode = \
                 \"jwt\"` or `\"http\"`, or remove it",
            )
        }
        Some(AuthMode::Grants) if grant.is_empty() && !has_admin_api => unused(
            "`[auth] mode` is \"grants\", but there is no [[auth.grant]], and without `[admin] token` nobody \
             can add one later",
        ),
        Some(AuthMode::Grants) => {
            let grants: Vec<_> = grant.into_iter().map(into_grant).collect();
            // Only to check that they are compatible.
            Grants::new(grants.clone())?;
            Ok(AuthChoice::Grants(grants))
        }
        Some(AuthMode::Jwt) => Ok(AuthChoice::Jwt(Box::new(jwt))),
        Some(AuthMode::Http) => Ok(AuthChoice::Http(Box::new(http.into_options()))),
        Some(AuthMode::AllowAll) | None if dev => Ok(AuthChoice::Dev),
        Some(AuthMode::AllowAll) => Ok(AuthChoice::AllowAll),
        None => Err(ConfigError::NoAuthMode),
    }
}

impl JwtSettings {
    /// Whether something is set that has no default.
    fn says_whom_to_believe(&self) -> bool {
        let Self { algorithms, secret, public_key_file, jwks_file, jwks_url, .. } = self;
        let Self { issuer, audience, .. } = self;
        let keys = secret.is_some() || public_key_file.is_some() || jwks_file.is_some();
        keys || jwks_url.is_some() || algorithms.is_some() || issuer.is_some() || audience.is_some()
    }

    /// Whether tokens are taken from a cookie, which a browser sends whichever page asks.
    pub(super) fn takes_cookies(&self) -> bool {
        let tokens = self.tokens.as_ref().map_or(&[][..], |tokens| &tokens.0);
        tokens.iter().any(|Parsed(source)| matches!(source, TokenSource::Cookie(_)))
    }
}

impl ClaimSettings {
    /// The names that are set.
    pub(super) fn names(&self) -> [Option<&String>; 9] {
        let Self { public_keys, store_id, signing_key, read, write, events, sub, exp, jti } = self;
        [public_keys, store_id, signing_key, read, write, events, sub, exp, jti].map(Option::as_ref)
    }
}

/// If nothing else distinguishes a stranger from the grantee, nobody may take a key by being the first.
pub(super) fn bind_policy(auth: &AuthSettings) -> BindPolicy {
    match (auth.bind, auth.mode) {
        (Some(BindMode::Token), _) => BindPolicy::Named,
        (Some(BindMode::Pinned), _) | (None, Some(AuthMode::Grants)) => BindPolicy::Pinned,
        (Some(BindMode::FirstUse), _)
        | (None, Some(AuthMode::AllowAll | AuthMode::Jwt | AuthMode::Http) | None) => {
            BindPolicy::FirstUse
        }
    }
}

fn into_grant(entry: GrantEntry) -> Grant {
    let GrantEntry { public_key, write, read, events, signing_key: _ } = entry;
    let events = events.map(|Many(events)| events.into_iter().map(Into::into).collect());
    let may = |flag: Option<Flag>| flag.is_some_and(|flag| flag.0);
    Grant { public_key, write: may(write), read: may(read), events }
}
