//! `token`: signs a token by the rules of `chinwag token`, for backends that do not have the key.
//!
//! The server's own key is there whatever other keys are accepted beside it, so there is always one to sign with.

use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde::{Deserialize, Serialize};

use super::{invalid, json};
use crate::auth::{LocalKey, expires_s};
use crate::config;
use crate::http::failure::Failure;
use crate::http::response::Answer;
use crate::http::value::Value;
use crate::http::{check, request};
use crate::message::Caller;

/// Whose token, for how long, and whether it opens the admin calls.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TokenBody<'a> {
    #[serde(borrow)]
    user: Value<'a>,
    #[serde(borrow)]
    ttl: Value<'a>,
    admin: serde_json::Value,
}

#[derive(Serialize)]
struct Signed {
    token: String,
    /// Unix time in seconds.
    expires: u64,
}

/// Signs what `by` asks for at `now_s` (Unix time in seconds).
pub(super) fn sign(key: &LocalKey, by: &Caller, body: &[u8], now_s: u64) -> Result<Answer, Failure> {
    let TokenBody { user, ttl, admin } = request::from_json(body).map_err(Failure::Rejected)?;
    let user = check::user_id(user, "user").map_err(Failure::Rejected)?;
    let ttl = config::token_ttl(ttl_text(&ttl)?.as_deref()).map_err(|why| invalid(&format!("ttl: {why}")))?;
    let caller = Caller { user, admin: truth(&admin)? };
    if caller.admin {
        tracing::info!(by = %by.user, user = %caller.user, ?ttl, "signed an admin token");
    }
    let signed = Signed { token: key.sign(&caller, now_s, ttl), expires: expires_s(now_s, ttl) };
    let mut answer = json(&signed)?;
    answer.response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// As the command line takes it, or a number of seconds.
fn ttl_text(ttl: &Value<'_>) -> Result<Option<String>, Failure> {
    match ttl {
        Value::Zero => Ok(None),
        Value::Text(text) => Ok(Some(text.clone().into_owned())),
        Value::Number(seconds) => Ok(Some(format!("{seconds}s"))),
        Value::List(_) | Value::Other => {
            Err(invalid("ttl must be a duration, such as \"24h\", or a whole number of seconds"))
        }
    }
}

fn truth(admin: &serde_json::Value) -> Result<bool, Failure> {
    match admin {
        serde_json::Value::Null => Ok(false),
        serde_json::Value::Bool(admin) => Ok(*admin),
        _ => Err(invalid("admin must be true or false")),
    }
}
