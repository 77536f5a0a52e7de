//! Who asks: an administrator, a tenant, or anybody.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, header};
use escala_cluster::ClientIp;
use subtle::ConstantTimeEq as _;

use super::problem::Problem;
use super::settings::{Secret, Settings, SettingsError};

/// The header in which the gateway names the tenant.
const TENANT: &str = "x-tenant";
const BEARER: &str = "bearer ";

/// Tells who asks, by the settings. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Access {
    admin_token: Option<Secret>,
    tenants: Arc<[String]>,
    gateways: Arc<ClientIp>,
}

impl Access {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            admin_token: settings.admin_token.clone(),
            tenants: settings.tenants.as_slice().into(),
            gateways: settings.rate_limits.client_ip()?.into(),
        })
    }

    /// Does the request bear the administrators' token? Compared in constant time; without
    /// `ADMIN_TOKEN` nobody is one.
    pub(super) fn is_administrator(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = &self.admin_token else { return false };
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(BEARER.len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(BEARER.as_bytes())
            && bool::from(token.ct_eq(expected.reveal().as_bytes()))
    }

    /// Turns away who is none.
    pub(super) fn administrator(&self, headers: &HeaderMap) -> Result<(), Problem> {
        if self.is_administrator(headers) { Ok(()) } else { Err(Problem::not_an_administrator()) }
    }

    /// Takes the tenant's name off what does not come from one of `TRUSTED_PROXIES`: it would speak
    /// for whomever it likes. Without that setting all of them are believed, and whoever stands in
    /// front must replace what clients send.
    pub(super) fn only_gateways_name_tenants(&self, mut request: Request) -> Request {
        let gateways = &self.gateways.trusted;
        if !gateways.is_empty() {
            let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
            let peer = peer.map(|ConnectInfo(peer)| peer.ip().to_canonical());
            if !peer.is_some_and(|peer| gateways.iter().any(|ours| ours.contains(&peer))) {
                request.headers_mut().remove(TENANT);
            }
        }
        request
    }

    /// The tenant that the gateway in front names, if it is one of `TENANTS`: a name that somebody
    /// made up gets what is nobody's, and cannot fill the cache.
    pub(super) fn tenant(&self, headers: &HeaderMap) -> Option<String> {
        let named = headers.get(TENANT)?.to_str().ok()?;
        self.tenants.iter().find(|tenant| *tenant == named).cloned()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn access(arguments: &[&str]) -> Access {
        let arguments = ["enterprise"].iter().chain(arguments).map(Into::into);
        Access::new(&Settings::read(arguments).expect("settings")).expect("networks")
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_the_bearer_of_the_token_is_an_administrator() {
        let access = access(&["--admin-token", "0123456789abcdef"]);
        let is = |value| access.is_administrator(&headers(&[("authorization", value)]));
        assert!(is("Bearer 0123456789abcdef") && is("bearer 0123456789abcdef"));
        for wrong in ["Bearer 0123456789abcdeF", "Basic 0123456789abcdef", "Bearer ", "B", ""] {
            assert!(!is(wrong), "{wrong}");
        }
        assert!(!access.is_administrator(&headers(&[])));
        let twice = [("authorization", "Bearer 0123456789abcdef"); 2];
        assert!(!access.is_administrator(&headers(&twice)));
    }

    #[test]
    fn without_a_token_nobody_is_an_administrator() {
        let access = access(&[]);
        assert!(!access.is_administrator(&headers(&[("authorization", "Bearer ")])));
    }

    #[test]
    fn a_tenant_is_one_of_the_list_or_none() {
        let access = access(&["--tenants", "acme,globex"]);
        let tenant = |name| access.tenant(&headers(&[("x-tenant", name)]));
        assert_eq!(tenant("globex").as_deref(), Some("globex"));
        assert_eq!(tenant("acme,globex"), None);
        assert_eq!(tenant("made-up"), None);
        assert_eq!(access.tenant(&headers(&[])), None);
    }
}
