//! The console: a page for an operator, served from the binary.
//!
//! Promises that it needs nothing from elsewhere, and that browsers hold it to that: they load and ask nothing but
//! this address, run no script but these files, send no form and show it in no frame of another page. What the page shows it asks
//! for as every client of this address does, so it can do nothing that its token could not.

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};

use super::response::Answer;
use hyper::StatusCode;

/// What browsers let the page do. Trusted types without a policy: no text ever becomes markup or script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the console.
pub(super) struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

/// All of them; the first is the page. The others are named by it and by each other, relative to it.
static ASSETS: [Asset; 9] = [
    Asset { path: "/", content_type: HTML, text: include_str!("page.html") },
    Asset { path: "/console/style.css", content_type: CSS, text: include_str!("style.css") },
    Asset { path: "/console/icon.svg", content_type: SVG, text: include_str!("icon.svg") },
    Asset { path: "/console/main.js", content_type: JAVASCRIPT, text: include_str!("main.js") },
    Asset { path: "/console/admin.js", content_type: JAVASCRIPT, text: include_str!("admin.js") },
    Asset { path: "/console/chart.js", content_type: JAVASCRIPT, text: include_str!("chart.js") },
    Asset { path: "/console/figures.js", content_type: JAVASCRIPT, text: include_str!("figures.js") },
    Asset { path: "/console/format.js", content_type: JAVASCRIPT, text: include_str!("format.js") },
    Asset { path: "/console/metrics.js", content_type: JAVASCRIPT, text: include_str!("metrics.js") },
];

/// The file at a path.
pub(super) fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

impl Asset {
    /// The file with everything that browsers are told about it.
    pub(super) fn answer(&self) -> Answer {
        let mut answer = Answer::text(StatusCode::OK, self.content_type, self.text);
        let headers = answer.response.headers_mut();
        for (name, value) in [
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_FRAME_OPTIONS, "DENY"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            // Another build at the same address must not meet files of this one.
            (CACHE_CONTROL, "no-store"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in quotes behind `before`, everywhere in a text.
    fn quoted_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn every_file_that_is_named_is_there_and_every_other_one_is_named() {
        let mut named: Vec<_> = ["href=\"", "src=\""]
            .into_iter()
            .flat_map(|attribute| quoted_after(ASSETS[0].text, attribute))
            .filter(|name| name.starts_with("console/"))
            .map(|name| format!("/{name}"))
            .collect();
        for script in ASSETS.iter().filter(|asset| asset.content_type == JAVASCRIPT) {
            named.extend(quoted_after(script.text, "from \"./").map(|name| format!("/console/{name}")));
        }
        for name in &named {
            assert!(asset(name).is_some(), "{name} is named and not there");
        }
        for one in &ASSETS[1..] {
            assert!(named.iter().any(|name| name == one.path), "{} is there and not named", one.path);
        }
    }

    #[test]
    fn nothing_in_it_needs_what_the_policy_forbids() {
        for one in &ASSETS {
            let text = one.text.replace("http://www.w3.org/2000/svg", "");
            for forbidden in [
                "http:",
                "https:",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "document.write",
                "<style",
                "style=\"",
                "onclick=",
            ] {
                assert!(!text.contains(forbidden), "{} has {forbidden}", one.path);
            }
        }
        assert!(
            quoted_after(ASSETS[0].text, "<script").all(|rest| rest.starts_with(" type=")),
            "no script inside"
        );
    }

    #[test]
    fn it_is_small() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.text.len()).sum();
        assert!(bytes <= 48 * 1024, "{bytes} bytes");
    }
}
