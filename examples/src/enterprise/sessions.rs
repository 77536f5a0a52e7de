//! How clients carry what makes them see their own writes.

use std::fs::File;
use std::io::Read as _;

use anyhow::Context;
use escala_replicas::{Keys, SessionConfig, SessionLayer};

use super::settings::Settings;

/// Where clients without cookies find their token, and bring it back.
pub(crate) const TOKEN_HEADER: &str = "x-escala-token";

/// Cookies for browsers, a header for other clients.
pub(super) fn layer(settings: &Settings) -> anyhow::Result<SessionLayer> {
    let keys = match &settings.session_secret {
        Some(secret) => Keys::new(secret.reveal().as_bytes())?,
        None => {
            // Good for this process: after a restart its tokens are as if they had expired.
            let mut secret = [0; 32];
            let mut random = File::open("/dev/urandom").context("/dev/urandom")?;
            random.read_exact(&mut secret).context("/dev/urandom")?;
            Keys::new(&secret)?
        }
    };
    let config = SessionConfig::default()
        .header(TOKEN_HEADER)
        .secure(settings.environment == "production")
        .explain(settings.environment != "production");
    Ok(SessionLayer::with_config(keys, &config)?)
}
