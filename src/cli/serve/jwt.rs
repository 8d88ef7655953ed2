//! `[auth.jwt]` as an `Auth`: reads the keys from their files.

use std::io;
use std::path::{Path, PathBuf};

use eventlog_server::services::auth::jwt::{
    Algorithm, ClaimNames, InvalidJwks, InvalidKey, JwtAuth, JwtError, JwtOptions, Key, KeySet,
};

use crate::config::{AlgorithmName, ClaimSettings, JwtSettings, Many, Parsed};

/// The keys of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum JwtFault {
    /// A secret.
    #[error("[auth.jwt] secret: {0}")]
    Secret(InvalidKey),
    /// A file cannot be read.
    #[error("[auth.jwt] {setting}: {} cannot be read: {cause}", path.display())]
    Unreadable {
        /// Which setting names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
    /// A file with a public key.
    #[error("[auth.jwt] public_key_file: {}: {fault}", path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: InvalidKey,
    },
    /// A file with a key set.
    #[error("[auth.jwt] jwks_file: {}: {fault}", path.display())]
    Jwks {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: InvalidJwks,
    },
    /// All of it together.
    #[error("[auth.jwt]: {0}")]
    Options(#[from] JwtError),
}

/// The `Auth` that `settings` describe. Begins to fetch keys, if they have an address.
pub(super) fn auth(settings: &JwtSettings) -> Result<JwtAuth, JwtFault> {
    Ok(JwtAuth::new(options(settings)?)?)
}

/// Whether they can work. Fetches nothing.
pub(super) fn check(settings: &JwtSettings) -> Result<(), JwtFault> {
    options(settings)?.check()?;
    Ok(())
}

fn options(settings: &JwtSettings) -> Result<JwtOptions, JwtFault> {
    let default = JwtOptions::default();
    let texts = |texts: &Option<Many<String>>| {
        texts.as_ref().map_or_else(Vec::new, |texts| texts.0.clone())
    };
    let algorithms = settings.algorithms.iter().flat_map(|listed| &listed.0);
    let tokens = settings
        .tokens
        .as_ref()
        .map(|tokens| tokens.0.iter().map(|Parsed(source)| source.clone()).collect());
    Ok(JwtOptions {
        algorithms: algorithms.map(|name| algorithm(*name)).collect(),
        keys: keys(settings)?,
        jwks_url: settings.jwks_url.clone(),
        trusted_certificates: default.trusted_certificates,
        issuers: texts(&settings.issuer),
        audiences: texts(&settings.audience),
        leeway: settings.leeway.map_or(default.leeway, |leeway| leeway.0),
        tokens: tokens.unwrap_or(default.tokens),
        claims: claims(&settings.claims),
    })
}

const fn algorithm(name: AlgorithmName) -> Algorithm {
    match name {
        AlgorithmName::HS256 => Algorithm::HS256,
        AlgorithmName::RS256 => Algorithm::RS256,
        AlgorithmName::ES256 => Algorithm::ES256,
        AlgorithmName::EdDSA => Algorithm::EdDSA,
    }
}

pub(super) fn keys(settings: &JwtSettings) -> Result<KeySet, JwtFault> {
    let mut keys = KeySet::default();
    for named in settings.secret.iter().flat_map(|secrets| &secrets.0) {
        let key = Key::from_secret(named.secret.expose()).map_err(JwtFault::Secret)?;
        keys.add(named.kid.as_deref(), key);
    }
    for path in settings.public_key_file.iter().flat_map(|paths| &paths.0) {
        let text = read("public_key_file", path)?;
        let key = Key::from_pem(&text);
        keys.add(None, key.map_err(|fault| JwtFault::PublicKey { path: path.clone(), fault })?);
    }
    if let Some(path) = &settings.jwks_file {
        let added = keys.add_jwks(read("jwks_file", path)?.as_bytes());
        added.map_err(|fault| JwtFault::Jwks { path: path.clone(), fault })?;
    }
    Ok(keys)
}

fn read(setting: &'static str, path: &Path) -> Result<String, JwtFault> {
    let text = std::fs::read_to_string(path);
    text.map_err(|cause| JwtFault::Unreadable { setting, path: path.to_owned(), cause })
}

fn claims(settings: &ClaimSettings) -> ClaimNames {
    let ClaimSettings { public_keys, store_id, signing_key, read, write, events, sub, exp, jti } =
        settings;
    let default = ClaimNames::default();
    let name = |set: &Option<String>, default| set.clone().unwrap_or(default);
    ClaimNames {
        public_keys: name(public_keys, default.public_keys),
        store_id: name(store_id, default.store_id),
        signing_key: name(signing_key, default.signing_key),
        read: name(read, default.read),
        write: name(write, default.write),
        events: name(events, default.events),
        sub: name(sub, default.sub),
        exp: name(exp, default.exp),
        jti: name(jti, default.jti),
    }
}
