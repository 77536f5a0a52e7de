//! The dashboard page: one file without outside assets, and the policy that allows only itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

const HTML: &str = include_str!("dashboard.html");

/// The page with its Content-Security-Policy, made once.
#[derive(Debug)]
pub(crate) struct Page {
    policy: HeaderValue,
}

impl Page {
    /// The policy names the digests of the page's one style and one script: anything else, also
    /// if it were injected, does not run. (A nonce would have to be made for each answer.)
    pub(crate) fn new() -> Self {
        let (style, script) = (digest("style"), digest("script"));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
             connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'"
        );
        let policy = HeaderValue::try_from(policy).expect("base64 and ASCII words only");
        Self { policy }
    }

    pub(crate) fn policy(&self) -> HeaderValue {
        self.policy.clone()
    }

    pub(crate) fn html() -> Bytes {
        Bytes::from_static(HTML.as_bytes())
    }
}

/// Digest of the text inside the page's only element of this name, as browsers compute it.
fn digest(tag: &str) -> String {
    let inside = HTML
        .split_once(&format!("<{tag}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")))
        .map_or("", |(inside, _)| inside);
    STANDARD.encode(Sha256::digest(inside.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_one_script_and_nothing_from_outside() {
        for tag in ["<style", "<script", "</style>", "</script>"] {
            assert_eq!(HTML.matches(tag).count(), 1, "{tag}");
        }
        for bad in ["src=", "href=\"http", "@import", "url(http", "innerHTML", "eval(", " style="] {
            assert!(!HTML.contains(bad), "{bad}");
        }
        // Inline handlers would need 'unsafe-inline'.
        for handler in [" onclick", " onload", " onerror"] {
            assert!(!HTML.contains(handler), "{handler}");
        }
    }
}
