//! Credentials in a file, in the format of the AWS tools.
//!
//! Keeps: those of the environment take precedence; a file is read only if the environment names it. Its contents are
//! never shown.

use std::path::Path;

/// Who may write to a bucket.
pub(super) struct Credentials {
    pub(super) id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

/// The credentials in the file that `AWS_SHARED_CREDENTIALS_FILE` names, of the profile `AWS_PROFILE` or `default`;
/// `None` without such a file. `Err` says what is wrong with it.
pub(super) fn of_file() -> Result<Option<Credentials>, String> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let file = variable("AWS_SHARED_CREDENTIALS_FILE");
    let Some(file) = file.filter(|_| variable("AWS_ACCESS_KEY_ID").is_none()) else {
        return Ok(None);
    };
    let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
    let text = std::fs::read_to_string(Path::new(&file));
    let text = text.map_err(|error| format!("AWS_SHARED_CREDENTIALS_FILE {file}: {error}"))?;
    let wrong =
        || format!("{file} has no aws_access_key_id and aws_secret_access_key in [{profile}]");
    parse(&text, &profile).map(Some).ok_or_else(wrong)
}

fn parse(text: &str, profile: &str) -> Option<Credentials> {
    let mut is_in = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_in = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_in) {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(Credentials { id: id?, secret: secret?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_a_file_is_read() {
        let text = "[other]\naws_access_key_id = A\naws_secret_access_key=B\n\n[default]\n# none\naws_access_key_id=C\n\
                    aws_secret_access_key = D=\nregion = x\naws_session_token = E\n";
        let read =
            |profile| parse(text, profile).map(|found| (found.id, found.secret, found.token));
        let texts = |id: &str, secret: &str, token: Option<&str>| {
            Some((id.to_owned(), secret.to_owned(), token.map(ToOwned::to_owned)))
        };
        assert_eq!(read("default"), texts("C", "D=", Some("E")));
        assert_eq!(read("other"), texts("A", "B", None));
        assert_eq!(read("nobody"), None);
    }
}
