//! What a request gave for one field, before any rule: the JSON mapping of proto3, and forms.
//!
//! A field's type is only judged when its verb reads it, so that the refusal can name the field, and
//! what a verb does not know is ignored whatever it is. An absent field and `null` are zero.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config::limits::GROUP_MEMBERS_MAX;
use crate::message::Rejection;

/// Most elements of a list that are kept: one more than any verb allows, so that it can refuse.
const ELEMENTS_MAX: usize = GROUP_MEMBERS_MAX + 1;

/// One field as it was given.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Value<'a> {
    /// Absent, or `null`.
    #[default]
    Zero,
    Text(Cow<'a, str>),
    Number(u32),
    /// Texts, cut off behind [`ELEMENTS_MAX`].
    List(Vec<Cow<'a, str>>),
    /// Of no type that any field has.
    Other,
}

impl<'a> Value<'a> {
    /// The field as a text.
    pub(super) fn text(self, field: &str) -> Result<Cow<'a, str>, Rejection> {
        match self {
            Self::Zero => Ok(Cow::Borrowed("")),
            Self::Text(text) => Ok(text),
            _ => Err(Rejection::Invalid(format!("{field} must be one text"))),
        }
    }

    /// The field as a number; it may have come as a text.
    pub(super) fn number(&self, field: &str) -> Result<u32, Rejection> {
        let number = match self {
            Self::Zero => Some(0),
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok().or_else(|| text.parse().ok().and_then(whole)),
            _ => None,
        };
        number.ok_or_else(|| {
            Rejection::Invalid(format!("{field} must be a whole number from 0 to {}", u32::MAX))
        })
    }

    /// The field as a list of texts. One text is a list of one: a form cannot say it differently.
    pub(super) fn list(self, field: &str) -> Result<Vec<Cow<'a, str>>, Rejection> {
        match self {
            Self::Zero => Ok(Vec::new()),
            Self::Text(text) => Ok(if text.is_empty() { Vec::new() } else { vec![text] }),
            Self::List(texts) => Ok(texts),
            _ => Err(Rejection::Invalid(format!("{field} must be a list of texts"))),
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number)
    }
}

impl From<Vec<String>> for Value<'_> {
    fn from(texts: Vec<String>) -> Self {
        Self::List(texts.into_iter().take(ELEMENTS_MAX).map(Cow::Owned).collect())
    }
}

/// `5.0` and `5e0` are 5, `5.5` is nothing.
fn whole(number: f64) -> Option<u32> {
    let fits = number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0;
    fits.then_some(number as u32)
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number or a list of texts")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Zero)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(u32::try_from(number).map_or(Value::Other, Value::Number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(u32::try_from(number).map_or(Value::Other, Value::Number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(whole(number).map_or(Value::Other, Value::Number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(element) = elements.next_element()? {
            let Value::Text(text) = element else {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Other);
            };
            if texts.len() < ELEMENTS_MAX {
                texts.push(text);
            }
        }
        Ok(Value::List(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(json: &str) -> Option<u32> {
        serde_json::from_str::<Value<'_>>(json).expect("JSON").number("n").ok()
    }

    #[test]
    fn a_number_may_be_written_in_every_way_of_proto3() {
        for json in ["7", "7.0", "70e-1", "\"7\"", "\"7.0\"", "\"7e0\""] {
            assert_eq!(number(json), Some(7), "{json}");
        }
        assert_eq!(number("null"), Some(0));
        assert_eq!(number("-0"), Some(0));
        assert_eq!(number("4294967295"), Some(u32::MAX));
        for json in [
            "-1",
            "7.5",
            "4294967296",
            "1e99",
            "\"\"",
            "\" 7\"",
            "\"0x7\"",
            "\"NaN\"",
            "true",
            "[7]",
            "{\"a\":7}",
        ] {
            assert_eq!(number(json), None, "{json}");
        }
    }

    #[test]
    fn a_text_is_borrowed_unless_it_was_escaped() {
        let text = |json| serde_json::from_str::<Value<'_>>(json).expect("JSON").text("t");
        assert!(matches!(text(r#""plain é""#), Ok(Cow::Borrowed("plain é"))));
        assert_eq!(text(r#""a\n\u00e9""#).as_deref(), Ok("a\né"));
        assert_eq!(text("null").as_deref(), Ok(""));
        for json in ["5", "false", "[]", "[\"a\"]", "{}"] {
            let refusal = Rejection::Invalid("t must be one text".to_owned());
            assert_eq!(text(json), Err(refusal), "{json}");
        }
    }

    #[test]
    fn a_list_has_texts_only() {
        let list = |json| serde_json::from_str::<Value<'_>>(json).expect("JSON").list("l");
        assert_eq!(list(r#"["a","b"]"#), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(list(r#""a""#), Ok(vec!["a".into()]));
        assert_eq!(list("null"), Ok(vec![]));
        for json in ["[1]", "[null]", "[[\"a\"]]", "{}", "7", "[\"a\",{\"deep\":[[[]]]}]"] {
            assert!(list(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_list_keeps_no_more_than_it_takes_to_refuse_it() {
        let json = format!("[{}\"x\"]", "\"x\",".repeat(200_000));
        let list = serde_json::from_str::<Value<'_>>(&json).expect("JSON").list("l").expect("a list");
        assert_eq!(list.len(), ELEMENTS_MAX);
    }
}
