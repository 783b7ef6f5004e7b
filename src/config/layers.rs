//! Where a setting comes from: a flag beats the environment, which beats the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};

use super::Error;

/// Read when no file is named and it is there.
const DEFAULT_FILE: &str = "chinwag.toml";
/// Largest settings file, in bytes: every key a hundred times over.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Looks a variable of the environment up.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What was given for each setting, and where.
pub(super) struct Layers {
    given: BTreeMap<&'static str, Given>,
}

struct Given {
    values: Vec<String>,
    source: Source,
}

/// Where a value came from, as the operator knows it.
enum Source {
    Flag(&'static str),
    Variable(String),
    File { key: &'static str, file: String },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Variable(name) => f.write_str(name),
            Self::File { key, file } => write!(f, "{key} in {file}"),
        }
    }
}

impl Layers {
    /// Collects the settings that `flags` lists, each with what its flag was given.
    pub(super) fn read(
        flags: Vec<(&'static str, Vec<String>)>,
        environment: Environment<'_>,
    ) -> Result<Self, Error> {
        let known: Vec<_> = flags.iter().map(|(key, _)| *key).collect();
        let mut given = BTreeMap::new();
        for (key, values) in flags {
            if !values.is_empty() {
                given.insert(key, Given { values, source: Source::Flag(key) });
            } else if let Some(found) = from_environment(key, environment)? {
                given.insert(key, found);
            }
        }
        let mut layers = Self { given };
        layers.add_file(&known)?;
        Ok(layers)
    }

    /// The one value of a setting, or its default.
    pub(super) fn one<T>(
        &self,
        key: &'static str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        match self.optional(key, &parse)? {
            Some(value) => Ok(value),
            None => parse(default).map_err(|why| Error::new(key, why)),
        }
    }

    /// The one value of a setting, if it was given.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some(given) = self.given.get(key) else { return Ok(None) };
        let [value] = given.values.as_slice() else {
            return Err(Error::new(&given.source, "takes one value"));
        };
        parse(value).map(Some).map_err(|why| Error::new(&given.source, why))
    }

    /// All values of a setting that may be repeated.
    pub(super) fn all<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Error> {
        let Some(given) = self.given.get(key) else { return Ok(Vec::new()) };
        let parsed = given.values.iter().map(|value| parse(value));
        parsed.collect::<Result<_, _>>().map_err(|why| Error::new(&given.source, why))
    }

    /// Fills what neither a flag nor the environment gave from the settings file.
    fn add_file(&mut self, known: &[&'static str]) -> Result<(), Error> {
        let named = self.optional("config", super::value::name)?;
        let file = named.as_deref().unwrap_or(DEFAULT_FILE);
        let Some(text) = read_file(file, named.is_some())? else { return Ok(()) };
        let table: toml::Table = text.parse().map_err(|error| not_toml(file, &text, &error))?;
        let mut seen = Vec::new();
        for (name, value) in &table {
            let key = known.iter().find(|key| **key == name.replace('_', "-") && **key != "config");
            let Some(key) = key else {
                return Err(Error::new(file, format!("there is no setting {name:?}")));
            };
            if seen.contains(key) {
                return Err(Error::new(file, format!("{key} is given twice")));
            }
            seen.push(*key);
            let source = Source::File { key, file: file.to_owned() };
            let values = texts(value).map_err(|why| Error::new(&source, why))?;
            self.given.entry(key).or_insert(Given { values, source });
        }
        Ok(())
    }
}

fn from_environment(key: &'static str, environment: Environment<'_>) -> Result<Option<Given>, Error> {
    let name = format!("CHINWAG_{}", key.replace('-', "_").to_uppercase());
    let Some(value) = environment(&name).filter(|value| !value.is_empty()) else { return Ok(None) };
    match value.into_string() {
        Ok(value) => Ok(Some(Given { values: vec![value], source: Source::Variable(name) })),
        Err(_) => Err(Error::new(name, "is not UTF-8")),
    }
}

/// The file's text; nothing if it is absent and nobody asked for it.
fn read_file(file: &str, asked_for: bool) -> Result<Option<String>, Error> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound && !asked_for => return Ok(None),
        opened => opened,
    };
    let mut text = String::new();
    opened
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| Error::new(file, format!("cannot be read (--config): {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::new(file, format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(text))
}

fn not_toml(file: &str, text: &str, error: &toml::de::Error) -> Error {
    let offset = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
    let why = error.message().replace('\n', " ");
    Error::new(file, format!("line {line} is not TOML: {why}"))
}

/// A value of the file as the texts a flag would have been given.
fn texts(value: &toml::Value) -> Result<Vec<String>, &'static str> {
    match value {
        toml::Value::Array(values) => values.iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}

fn text(value: &toml::Value) -> Result<String, &'static str> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        _ => Err("must be a text or a whole number"),
    }
}
