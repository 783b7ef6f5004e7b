//! How far a client says that it has its conversations: the `cursors` of a sync and of a resume.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config::limits::SYNC_CURSORS_MAX;
use crate::http::request::{from_json, request};
use crate::http::{check, proto};
use crate::message::{Position, Rejection};

request! {
    /// How far a client has one conversation.
    pub(super) PositionRequest = proto::ChatPosition {
        target, target_type | "targetType", msg_index | "msgIndex", recall_index | "recallIndex"
    }
}

impl PositionRequest<'_> {
    fn check(self) -> Result<Position, Rejection> {
        Ok(Position {
            at: check::address(self.target, self.target_type)?,
            msg_index: self.msg_index.number("msg_index")?,
            recall_index: self.recall_index.number("recall_index")?,
        })
    }
}

/// A list of positions, cut off behind one more than is allowed.
#[derive(Default)]
pub(super) enum Cursors<'a> {
    /// Absent, or `null`.
    #[default]
    Zero,
    List(Vec<PositionRequest<'a>>),
    /// A text or the like: all that a form can say.
    Other,
}

impl Cursors<'_> {
    /// As protobuf has them.
    pub(super) fn of(messages: Vec<proto::ChatPosition>) -> Self {
        let positions = messages.into_iter().take(SYNC_CURSORS_MAX + 1);
        Self::List(positions.map(PositionRequest::from).collect())
    }

    /// The positions, each of which follows the rules.
    pub(super) fn check(self) -> Result<Vec<Position>, Rejection> {
        let positions = match self {
            Self::Zero => Vec::new(),
            Self::List(positions) => positions,
            Self::Other => {
                let rule = "must be a list of objects, which a form cannot hold: use JSON or protobuf";
                return Err(check::invalid("cursors", rule));
            }
        };
        if positions.len() > SYNC_CURSORS_MAX {
            return Err(check::invalid("cursors", format_args!("must have at most {SYNC_CURSORS_MAX}")));
        }
        let place = |(place, position): (usize, PositionRequest<'_>)| {
            position.check().map_err(|why| match why {
                Rejection::Invalid(why) => check::invalid(&format!("cursors[{place}]:"), why),
                why => why,
            })
        };
        positions.into_iter().enumerate().map(place).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Cursors<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyCursors)
    }
}

struct AnyCursors;

impl<'de> Visitor<'de> for AnyCursors {
    type Value = Cursors<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cursors::Zero)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Cursors::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut positions = Vec::new();
        while positions.len() <= SYNC_CURSORS_MAX {
            let Some(position) = elements.next_element()? else { return Ok(Cursors::List(positions)) };
            positions.push(position);
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Cursors::List(positions))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Cursors::Other)
    }
}

/// The positions of a `resume`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ResumeRequest<'a> {
    #[serde(borrow)]
    cursors: Cursors<'a>,
}

/// Reads the parameters of a `resume`.
pub(in crate::http) fn positions(params: &[u8]) -> Result<Vec<Position>, Rejection> {
    from_json::<ResumeRequest<'_>>(params)?.cursors.check()
}
