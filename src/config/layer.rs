//! What one source of settings says: every setting may be missing.
//!
//! Keeps: the file, the environment and the flags fill the same types, and are combined in the same way; an error in
//! one setting does not hide errors in the next; a message about a secret does not contain it. Leaves out: which
//! settings there are (`settings`).

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::environment::{Environment, EnvironmentError};
use super::schema::Described;
use super::secrets;

/// A layer of settings from one source.
pub(super) trait Layer: Sized {
    /// These settings, and where one is missing, that of `below`.
    fn over(self, below: Self) -> Self;

    /// Takes the value of this setting from the environment, whose variable would be `name`.
    fn fill(&mut self, name: &str, environment: &mut Environment);

    /// Takes the value of this setting, which is at `path`, from the file.
    fn read(&mut self, path: &str, value: Spanned<DeValue<'_>>, file: &mut FileFaults<'_>);

    /// What is allowed here, as JSON Schema.
    fn schema() -> Value;

    /// Adds the missing settings to `paths`; this one is at `path`.
    #[cfg(test)]
    fn missing(&self, path: &str, paths: &mut Vec<String>);
}

/// One problem in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileFault {
    /// Where, from 1.
    pub(crate) line: usize,
    /// Which setting, with its tables; empty if it is not about a setting.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) message: String,
}

/// All problems in the file.
pub(super) struct FileFaults<'a> {
    text: &'a str,
    pub(super) found: Vec<FileFault>,
}

impl<'a> FileFaults<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// The line of the byte at offset `at`, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        line_at(self.text, at)
    }

    pub(super) fn add(&mut self, at: usize, key: &str, message: impl Into<String>) {
        let (line, key) = (self.line(at), key.to_owned());
        self.found.push(FileFault { line, key, message: message.into() });
    }
}

/// The line of the byte at offset `at` in `text`, from 1.
pub(super) fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The setting `name` of the table at `path`.
pub(super) fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Converts `value` to the type of the setting at `path`.
fn deserialize<T: for<'de> Deserialize<'de>>(
    path: &str,
    value: Spanned<DeValue<'_>>,
    file: &mut FileFaults<'_>,
) -> Option<T> {
    let at = value.span().start;
    match T::deserialize(ValueDeserializer::from(value)) {
        Ok(value) => Some(value),
        Err(error) => {
            let at = error.span().map_or(at, |span| span.start);
            file.add(at, path, secrets::without(path, error.message()));
            None
        }
    }
}

impl<T: for<'de> Deserialize<'de> + Described> Layer for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }

    fn fill(&mut self, name: &str, environment: &mut Environment) {
        let Some(text) = environment.take(name) else { return };
        let text: StrDeserializer<'_, ValueError> = text.as_str().into_deserializer();
        match T::deserialize(text) {
            Ok(value) => *self = Some(value),
            Err(error) => environment.refuse(EnvironmentError::Invalid {
                variable: name.to_owned(),
                message: error.to_string(),
            }),
        }
    }

    fn read(&mut self, path: &str, value: Spanned<DeValue<'_>>, file: &mut FileFaults<'_>) {
        *self = deserialize(path, value, file);
    }

    fn schema() -> Value {
        T::schema()
    }

    #[cfg(test)]
    fn missing(&self, path: &str, paths: &mut Vec<String>) {
        if self.is_none() {
            paths.push(path.to_owned());
        }
    }
}

/// A list of tables: only a file can contain one, so the environment and the flags leave it empty.
impl<T: for<'de> Deserialize<'de> + Described> Layer for Vec<T> {
    fn over(self, below: Self) -> Self {
        if self.is_empty() { below } else { self }
    }

    fn fill(&mut self, _: &str, _: &mut Environment) {}

    fn read(&mut self, path: &str, value: Spanned<DeValue<'_>>, file: &mut FileFaults<'_>) {
        let at = value.span().start;
        let DeValue::Array(items) = value.into_inner() else {
            return file.add(at, path, format!("it is a list of tables, written [[{path}]]"));
        };
        self.extend(items.into_iter().filter_map(|item| deserialize(path, item, file)));
    }

    fn schema() -> Value {
        serde_json::json!({ "type": "array", "items": T::schema() })
    }

    #[cfg(test)]
    fn missing(&self, path: &str, paths: &mut Vec<String>) {
        if self.is_empty() {
            paths.push(path.to_owned());
        }
    }
}

/// A table of settings.
macro_rules! settings {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        impl $crate::config::layer::Layer for $name {
            fn over(self, below: Self) -> Self {
                Self { $($field: self.$field.over(below.$field),)* }
            }

            fn fill(&mut self, name: &str, environment: &mut $crate::config::Environment) {
                $({
                    let name = format!("{name}_{}", stringify!($field).to_ascii_uppercase());
                    self.$field.fill(&name, environment);
                })*
            }

            fn read(
                &mut self,
                path: &str,
                value: toml::Spanned<toml::de::DeValue<'_>>,
                file: &mut $crate::config::layer::FileFaults<'_>,
            ) {
                let at = value.span().start;
                let toml::de::DeValue::Table(mut table) = value.into_inner() else {
                    return file.add(at, path, "it is a table, not a value");
                };
                $(if let Some(value) = table.remove(stringify!($field)) {
                    let path = $crate::config::layer::below(path, stringify!($field));
                    self.$field.read(&path, value, file);
                })*
                for name in table.keys() {
                    let key = $crate::config::layer::below(path, name.get_ref());
                    let known = [$(stringify!($field)),*].join(", ");
                    file.add(name.span().start, &key, format!("there is no such setting; there are: {known}"));
                }
            }

            fn schema() -> serde_json::Value {
                $crate::config::schema::table(&[
                    $((stringify!($field), <$type as $crate::config::layer::Layer>::schema(), false),)*
                ])
            }

            #[cfg(test)]
            fn missing(&self, path: &str, paths: &mut Vec<String>) {
                $(self.$field.missing(&format!("{path}.{}", stringify!($field)), paths);)*
            }
        }
    };
}

/// One of several tables with the same name. Fields that are not `Option` are required.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$field_doc])* pub(crate) $field: $type,)*
        }

        impl $crate::config::schema::Described for $name {
            fn schema() -> serde_json::Value {
                use $crate::config::schema::Described;
                $crate::config::schema::table(&[
                    $((stringify!($field), <$type as Described>::schema(), <$type as Described>::REQUIRED),)*
                ])
            }
        }
    };
}

pub(super) use {entry, settings};
