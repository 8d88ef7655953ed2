//! `[admin]`: where the admin API is, and who may use it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use eventlog_server::server::{AdminRight, AdminToken};

use super::check::impossible;
use super::fault::ConfigError;
use super::layer::entry;
use super::lists::{Listed, Many, Parsed};
use super::settings::AdminSettings;
use super::units::Token;

entry! {
    /// One `[[admin.tokens]]`.
    AdminTokenEntry {
        /// What the log calls whoever uses it.
        name: String,
        /// What it may do.
        rights: Listed<Parsed<AdminRight>>,
        /// Each of them counts, so that one can replace another.
        token: Option<Many<Token>>,
        /// Or a file with one in each line.
        token_file: Option<PathBuf>,
    }
}

/// The admin API, as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AdminPlan {
    /// Without any, there is no admin API.
    pub(crate) tokens: Vec<AdminToken>,
    /// Where it is, if it is not where everything else is.
    pub(crate) listen: Option<SocketAddr>,
}

pub(super) fn admin(settings: AdminSettings) -> Result<AdminPlan, ConfigError> {
    // The content of a secret's file has replaced it by now.
    let AdminSettings { token, token_file: _, tokens, listen } = settings;
    let mut all = Vec::new();
    let mut names = HashSet::new();
    if let Some(Many(tokens)) = &token {
        if tokens.is_empty() {
            return Err(impossible("[admin] token", "empty", "leave it out to have none"));
        }
        names.insert("admin");
        for token in tokens {
            all.push(made("admin", &[AdminRight::Admin], token)?);
        }
    }
    for AdminTokenEntry { name, rights: Listed(rights), token, token_file: _ } in &tokens {
        let tokens = token.as_ref().map_or(&[][..], |tokens| &tokens.0);
        let rights: Vec<AdminRight> = rights.iter().map(|Parsed(right)| *right).collect();
        if name.is_empty() || rights.is_empty() || tokens.is_empty() {
            let reason = "each has a name, a right (\"read\", \"write\", \"admin\") and a token";
            return Err(impossible("[[admin.tokens]]", format!("{name:?}"), reason));
        }
        if !names.insert(name) {
            let reason = "another token has this name (`[admin] token` is \"admin\"), and the log could not tell \
                          them apart; a change is a list in one `token`";
            return Err(impossible("[[admin.tokens]] name", format!("{name:?}"), reason));
        }
        for token in tokens {
            all.push(made(name, &rights, token)?);
        }
    }
    if listen.is_some() && all.is_empty() {
        let reason = "without a token there is no admin API; set `[admin] token`";
        return Err(impossible("[admin] listen", "set", reason));
    }
    let texts = token.iter().chain(tokens.iter().filter_map(|entry| entry.token.as_ref()));
    // As tokens without a name, since one may be given as its SHA-256.
    let bare = texts.flat_map(|Many(texts)| texts).map(|text| made("", &[], text));
    let bare = bare.collect::<Result<Vec<_>, _>>()?;
    if bare.iter().enumerate().any(|(at, one)| bare[..at].contains(one)) {
        let reason = "each name and its rights need a token of their own";
        return Err(impossible("[[admin.tokens]] token", "the same twice", reason));
    }
    Ok(AdminPlan { tokens: all, listen: listen.map(|address| address.0) })
}

fn made(name: &str, rights: &[AdminRight], token: &Token) -> Result<AdminToken, ConfigError> {
    let made = AdminToken::new(name, rights.to_vec(), token.as_str());
    made.map_err(|_| {
        let reason = "behind \"sha256:\" stand the 64 hexadecimal digits of the token's SHA-256";
        impossible("[admin] token", "…", reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_file;

    fn read(file: &str) -> Result<AdminPlan, String> {
        let (settings, faults) = parse_file(file);
        if let Some(fault) = faults.found.first() {
            return Err(format!("{}: {}", fault.key, fault.message));
        }
        admin(settings.admin).map_err(|error| error.to_string())
    }

    #[test]
    fn each_token_has_a_name_and_rights() {
        let plan = read(
            "[admin]\ntoken = \"a\"\nlisten = \"127.0.0.1:1\"\n[[admin.tokens]]\nname = \"ci\"\n\
             rights = [\"read\", \"write\"]\ntoken = [\"new\", \"old\"]",
        );
        let rights = [AdminRight::Read, AdminRight::Write];
        let token = |name, rights: &[AdminRight], text| {
            AdminToken::new(name, rights.to_vec(), text).expect("a token")
        };
        let tokens = vec![
            token("admin", &[AdminRight::Admin], "a"),
            token("ci", &rights, "new"),
            token("ci", &rights, "old"),
        ];
        let listen = Some(([127, 0, 0, 1], 1).into());
        assert_eq!(plan, Ok(AdminPlan { tokens, listen }));
    }

    #[test]
    fn what_cannot_work_is_refused_and_no_token_is_shown() {
        for file in [
            "[admin]\ntoken = \"sha256:CANARY\"",
            "[admin]\nlisten = \"127.0.0.1:1\"",
            "[[admin.tokens]]\nname = \"\"\nrights = \"read\"\ntoken = \"CANARY\"",
            "[[admin.tokens]]\nname = \"a\"\nrights = []\ntoken = \"CANARY\"",
            "[[admin.tokens]]\nname = \"a\"\nrights = [\"read\"]\ntoken = []",
            "admin.token = \"\"",
            "[admin]\ntoken = \"CANARY\"\n[[admin.tokens]]\nname = \"admin\"\nrights = \"read\"\ntoken = \"b\"",
            "[admin]\ntoken = \"CANARY\"\n[[admin.tokens]]\nname = \"b\"\nrights = \"read\"\ntoken = \"CANARY\"",
            "[[admin.tokens]]\nname = \"a\"\nrights = [\"read\"]",
            "[[admin.tokens]]\nname = \"a\"\nrights = \"root\"\ntoken = \"b\"",
        ] {
            let message = read(file).expect_err(file);
            assert!(!message.contains("CANARY"), "{message}");
        }
    }
}
