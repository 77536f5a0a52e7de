//! What all services of one layer share, and what becomes of a request by its head alone.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use crate::http::engine::{
    Decision, Fwd, Policy, RequestView, Served, StoredHead, UnixMs, Validation, decide,
};
use crate::http::handle::{HttpCache, Inner};
use crate::http::key;
use crate::http::purge::PurgeConfig;
use crate::http::store::{Found, Target};
use crate::http::stored::StoredResponse;

type Bypass = Arc<dyn Fn(&Parts) -> bool + Send + Sync>;
type Tenant = Arc<dyn Fn(&Parts) -> Option<String> + Send + Sync>;

/// A cache and what one layer says about the routes behind it.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) cache: HttpCache,
    pub(crate) policy: Policy,
    pub(crate) bypass: Option<Bypass>,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) purge: Option<PurgeConfig>,
}

/// What is done with a request.
#[derive(Debug)]
pub(crate) enum Class {
    /// `GET` or `HEAD`: looked up.
    Lookup(Target),
    /// Passed on, and what it may have changed is removed.
    Unsafe(Target),
    /// A purge that this layer answers.
    Purge,
    /// Passed on.
    Pass(Fwd),
}

impl Route {
    pub(crate) fn inner(&self) -> &Inner {
        &self.cache.inner
    }

    /// What is done with a request. The bypass function keeps the cache out of reads only: what
    /// an administrator writes is written.
    pub(crate) fn classify(&self, parts: &Parts, has_body: bool) -> Class {
        if self.purge.is_some() && parts.method.as_str() == "PURGE" {
            return Class::Purge;
        }
        let view = view(parts).with_body(has_body);
        if view.is_lookup() {
            if self.bypass.as_ref().is_some_and(|bypass| bypass(parts)) {
                return Class::Pass(Fwd::Bypass);
            }
            if view.bypasses() {
                let for_the_origin = view.is_for_the_origin();
                return Class::Pass(if for_the_origin { Fwd::Request } else { Fwd::Bypass });
            }
        } else if parts.method.is_safe() {
            return Class::Pass(Fwd::Method);
        }
        match self.target(parts) {
            Some(target) if view.is_lookup() => Class::Lookup(target),
            Some(target) => Class::Unsafe(target),
            None => Class::Pass(Fwd::Bypass),
        }
    }

    pub(crate) fn target(&self, parts: &Parts) -> Option<Target> {
        let tenant = self.tenant.as_ref().and_then(|tenant| tenant(parts));
        let by_host = self.inner().config.key_by_host;
        let primary = key::primary(tenant.as_deref(), by_host, &parts.uri, &parts.headers)?;
        Some(Target { tenant, primary })
    }

    /// The fresh response that memory has, if it has one: the whole of most hits.
    pub(crate) fn fresh(
        &self,
        target: &Target,
        view: &RequestView<'_>,
        now: UnixMs,
    ) -> Option<StoredResponse> {
        let store = &self.inner().store;
        let (response, stale) = store.peek(&target.primary)?;
        // An index may be stale: it is its variants that count.
        let Some(variants) = response.as_variants() else {
            if stale {
                return None;
            }
            self.is_fresh(view, &[&response.as_whole()?.head], now)?;
            return Some(response);
        };
        let candidates = variants.candidates(&target.primary, view.headers);
        let found: Vec<_> =
            candidates.filter_map(|key| store.peek(&key)).filter(|(_, stale)| !stale).collect();
        let heads: Vec<_> =
            found.iter().filter_map(|(found, _)| Some(&found.as_whole()?.head)).collect();
        // One that is no response would make the numbers disagree.
        let whole = heads.len() == found.len();
        let index = self.is_fresh(view, &heads, now).filter(|_| whole)?;
        found.into_iter().nth(index).map(|(response, _)| response)
    }

    /// Every stored response that a request may be answered with, from any layer.
    pub(crate) async fn find(&self, target: &Target, view: &RequestView<'_>) -> Selection {
        let store = &self.inner().store;
        let mut selection = Selection::default();
        let Some((response, stale)) = store.find(&target.primary).await else {
            return selection;
        };
        let Some(variants) = response.as_variants() else {
            let key = target.primary.clone();
            selection.found.push(Found { key, response, stale });
            return selection;
        };
        selection.index = Some(response.clone());
        let mut keys: Vec<_> = variants.candidates(&target.primary, view.headers).collect();
        if self.policy.validate_other_variants && keys.is_empty() {
            keys.extend(variants.latest(&target.primary));
        }
        for key in keys {
            if let Some((response, stale)) = store.find(&key).await
                && response.as_whole().is_some()
            {
                selection.found.push(Found { key, response, stale });
            }
        }
        selection
    }

    /// What the engine says about a request.
    pub(crate) fn decide(
        &self,
        view: &RequestView<'_>,
        selection: &Selection,
        now: UnixMs,
    ) -> Decision {
        let expired: Vec<Option<StoredHead>> =
            selection.found.iter().map(|found| softly_expired(found, now)).collect();
        let heads: Vec<&StoredHead> = selection
            .found
            .iter()
            .zip(&expired)
            .filter_map(|(found, expired)| {
                expired.as_ref().or_else(|| Some(&found.response.as_whole()?.head))
            })
            .collect();
        decide(&self.policy, view, &heads, now)
    }

    /// How a response that is served stale is revalidated meanwhile.
    pub(crate) fn validation(
        &self,
        view: &RequestView<'_>,
        found: &Found,
        now: UnixMs,
    ) -> Option<Validation> {
        let head = &found.response.as_whole()?.head;
        // The engine is asked about one that may no longer be served.
        let expired = StoredHead {
            lifetime_ms: head.lifetime_ms.min(head.age_ms(now)),
            never_stale: true,
            ..head.clone()
        };
        match decide(&self.policy, view, &[&expired], now) {
            Decision::Validate(validation) => Some(validation),
            _ => None,
        }
    }

    /// Whether a response with this head could answer the request without the origin.
    pub(crate) fn would_serve(
        &self,
        view: &RequestView<'_>,
        head: &StoredHead,
        now: UnixMs,
    ) -> bool {
        matches!(decide(&self.policy, view, &[head], now), Decision::Serve(_))
    }

    /// Takes off a head that is stored what clients should not see.
    pub(crate) fn strip_surrogate_key(&self, head: &mut StoredHead) {
        if self.inner().config.strip_surrogate_key {
            head.headers.remove(key::SURROGATE_KEY);
        }
    }

    fn is_fresh(
        &self,
        view: &RequestView<'_>,
        heads: &[&StoredHead],
        now: UnixMs,
    ) -> Option<usize> {
        match decide(&self.policy, view, heads, now) {
            Decision::Serve(Served { index, remaining_ms, revalidate: false })
                if remaining_ms > 0 =>
            {
                Some(index)
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("cache", &self.cache)
            .field("policy", &self.policy)
            .field("bypass", &self.bypass.is_some())
            .field("tenant", &self.tenant.is_some())
            .field("purge", &self.purge)
            .finish()
    }
}

/// The stored responses of one target that a request may be answered with.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Whole responses only.
    pub(crate) found: Vec<Found>,
    index: Option<StoredResponse>,
}

impl Selection {
    /// The key that requests share who may share an answer.
    pub(crate) fn flight_key(&self, target: &Target, view: &RequestView<'_>) -> String {
        let index = self.index.as_ref().and_then(StoredResponse::as_variants);
        let key = index.map_or_else(
            || target.primary.clone(),
            |index| index.flight_key(&target.primary, view.headers),
        );
        key::flight(key, view.headers)
    }
}

pub(crate) fn view(parts: &Parts) -> RequestView<'_> {
    RequestView::new(&parts.method, &parts.uri, &parts.headers)
}

/// The head of a response that was softly purged while it was fresh: it is stale from now on,
/// and the engine says what may be done with such a one.
fn softly_expired(found: &Found, now: UnixMs) -> Option<StoredHead> {
    let head = &found.response.as_whole()?.head;
    (found.stale && head.remaining_ms(now) > 0)
        .then(|| StoredHead { lifetime_ms: head.age_ms(now), ..head.clone() })
}
