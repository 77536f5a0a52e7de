//! What a file means: routes in their order, groups, limits. Made whole, then only read.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::http::header::{CONNECTION, CONTENT_LENGTH, TRAILER, TRANSFER_ENCODING, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use escala_replicas::http::{Network, ReverseProxy, client_address};

use super::choice::{Key, Spread, salt, side};
use super::error::SettingError;
use super::file::{self, File, Limits};
use super::group::Group;
use super::routes::Matcher;

/// A file, ready to serve.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) file: File,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) response_headers: Vec<(HeaderName, HeaderValue)>,
    /// In the order in which they are asked.
    routes: Vec<Route>,
}

/// One route with its sides.
#[derive(Debug)]
pub(super) struct Route {
    matcher: Matcher,
    pub(super) max_body_bytes: u64,
    sides: Vec<ReverseProxy>,
    weights: Vec<u32>,
    sticky: Option<Key>,
    salt: u64,
    spread: Spread,
    toggle: Option<Toggle>,
}

#[derive(Debug)]
struct Toggle {
    proxy: ReverseProxy,
    percent: f64,
    key: Key,
    salt: u64,
    switch: Option<(HeaderName, String)>,
}

/// Reads a file; inside a runtime, on which the questions of health are asked.
///
/// # Errors
/// It cannot be read, is no TOML, or a setting breaks its rule: the text names file, field, value.
pub(super) fn load(path: &Path, old: Option<&Snapshot>) -> anyhow::Result<Snapshot> {
    use anyhow::Context as _;
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{shown} cannot be read"))?;
    let file: File = toml::from_str(&text).with_context(|| shown.to_string())?;
    Snapshot::new(file, old).with_context(|| shown.to_string())
}

impl Snapshot {
    /// Groups that an old snapshot has as well, with the same servers, are taken over.
    pub(super) fn new(file: File, old: Option<&Self>) -> Result<Self, SettingError> {
        check(&file, old)?;
        let mut groups = BTreeMap::new();
        for (name, group) in &file.upstreams {
            let table = format!("upstreams.{name}");
            let kept = old.and_then(|old| old.groups.get(name));
            let group = Group::new(&table, group, &file.trusted_proxies, kept)?;
            groups.insert(name.clone(), group);
        }
        let response_headers = response_headers(&file.response_headers)?;
        let mut routes = Vec::new();
        for (position, route) in file.routes.iter().enumerate() {
            routes.push(Route::new(&format!("routes[{position}]"), route, &groups, &file.limits)?);
        }
        check_shadows(&file.routes, &routes)?;
        routes.sort_by_cached_key(|route| route.matcher.rank());
        Ok(Self { file, groups, response_headers, routes })
    }

    pub(super) fn route(&self, host: &str, path: &[u8]) -> Option<&Route> {
        self.routes.iter().find(|route| route.matcher.fits(host, path))
    }
}

/// The settings that no group and no route has.
fn check(file: &File, old: Option<&Snapshot>) -> Result<(), SettingError> {
    file.server.validate().map_err(|error| {
        SettingError::new(format!("server.{}", error.field()), error.value(), error.rule())
    })?;
    let Limits { max_headers, max_header_bytes, .. } = file.limits;
    if !(1..=100).contains(&max_headers) {
        return Err(SettingError::new("limits.max_headers", max_headers, "be from 1 to 100"));
    }
    if !(1024..=256 * 1024).contains(&max_header_bytes) {
        let rule = "be from 1024 to 262144";
        return Err(SettingError::new("limits.max_header_bytes", max_header_bytes, rule));
    }
    if file.routes.is_empty() {
        return Err(SettingError::new("routes", "[]", "have at least one route"));
    }
    if file.watch.is_some_and(|time| time.is_zero()) {
        return Err(SettingError::new("watch", "0s", "be longer than zero"));
    }
    let Some(Snapshot { file: old, .. }) = old else { return Ok(()) };
    let rule = "stay as it is while the gateway runs";
    if file.listen != old.listen {
        return Err(SettingError::new("listen", file.listen, rule));
    }
    if file.management != old.management {
        return Err(SettingError::new("management", format!("{:?}", file.management), rule));
    }
    if file.threads != old.threads {
        return Err(SettingError::new("threads", format!("{:?}", file.threads), rule));
    }
    if file.server != old.server {
        return Err(SettingError::new("server", "another", rule));
    }
    if file.watch != old.watch {
        return Err(SettingError::new("watch", format!("{:?}", file.watch), rule));
    }
    Ok(())
}

/// Of two routes for the same requests one would never be taken.
fn check_shadows(files: &[file::Route], routes: &[Route]) -> Result<(), SettingError> {
    for (second, route) in routes.iter().enumerate() {
        if let Some(first) = routes[..second].iter().position(|r| r.matcher == route.matcher) {
            let rule = format!("differ from that of routes[{first}], or have another host");
            let field = format!("routes[{second}].path");
            return Err(SettingError::new(field, &files[second].path, rule));
        }
    }
    Ok(())
}

/// What hyper says by itself, and what would be believed instead.
const OF_FRAMING: [HeaderName; 5] =
    [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, TRAILER];

fn response_headers(
    table: &BTreeMap<String, String>,
) -> Result<Vec<(HeaderName, HeaderValue)>, SettingError> {
    let mut headers = Vec::new();
    for (name, value) in table.iter().filter(|(_, value)| !value.is_empty()) {
        let field = format!("response_headers.{name}");
        let refused = |rule| SettingError::new(field.clone(), value, rule);
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| refused("have the name of a header"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| refused("be what a header can hold"))?;
        if OF_FRAMING.contains(&parsed) {
            return Err(refused("be none that says where a message ends"));
        }
        headers.push((parsed, value));
    }
    Ok(headers)
}

impl Route {
    fn new(
        table: &str,
        file: &file::Route,
        groups: &BTreeMap<String, Group>,
        limits: &Limits,
    ) -> Result<Self, SettingError> {
        let matcher = Matcher::parse(table, file.host.as_deref(), &file.path)?;
        let group = |field: &str, name: &str| match groups.get(name) {
            Some(group) => Ok(group.proxy.clone()),
            None => {
                let known: Vec<&str> = groups.keys().map(String::as_str).collect();
                let rule = format!("be one of the upstreams: {}", known.join(", "));
                Err(SettingError::new(format!("{table}.{field}"), name, rule))
            }
        };
        let mut sides = Vec::new();
        match (&file.upstream, &file.split) {
            (Some(name), None) => sides.push((group("upstream", name)?, 1)),
            (None, Some(split)) => {
                for (name, &weight) in split {
                    sides.push((group("split", name)?, weight));
                }
                if sides.iter().all(|&(_, weight)| weight == 0) {
                    let rule = "have a weight above zero";
                    return Err(SettingError::new(format!("{table}.split"), "0", rule));
                }
            }
            (None, None) | (Some(_), Some(_)) => {
                let value = if file.split.is_some() { "both" } else { "neither" };
                let rule = "be upstream or split, one of them";
                return Err(SettingError::new(table, value, rule));
            }
        }
        let (sides, weights) = sides.into_iter().unzip();
        let place = format!("{} {}", file.host.as_deref().unwrap_or("*"), file.path);
        let salt = salt(&place, "split");
        let key = |field: &str, text: &String| Key::parse(&format!("{table}.{field}"), text);
        let sticky = file.sticky.as_ref().map(|text| key("sticky", text)).transpose()?;
        let toggle = match &file.toggle {
            Some(toggle) => {
                let proxy = group("toggle.upstream", &toggle.upstream)?;
                Some(Toggle::new(table, &place, toggle, proxy)?)
            }
            None => None,
        };
        let max_body_bytes = file.max_body_bytes.unwrap_or(limits.max_body_bytes);
        let spread = Spread::default();
        Ok(Self { matcher, max_body_bytes, sides, weights, sticky, salt, spread, toggle })
    }

    /// The side that a request goes to.
    pub(super) fn choose(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
        trusted: &[Network],
    ) -> &ReverseProxy {
        if let Some(toggle) = &self.toggle
            && toggle.takes(headers, peer, trusted)
        {
            return &toggle.proxy;
        }
        // The usual route has one side, and nothing to decide.
        let side = match (&self.sides[..], &self.sticky) {
            ([_], _) => 0,
            (_, Some(key)) => {
                let client = client_address(headers, peer, trusted);
                side(&self.weights, key.place(headers, client, self.salt))
            }
            (_, None) => side(&self.weights, self.spread.next()),
        };
        &self.sides[side]
    }
}

impl Toggle {
    /// `place` says which route it is of, in words that stay when routes come and go.
    fn new(
        table: &str,
        place: &str,
        file: &file::Toggle,
        proxy: ReverseProxy,
    ) -> Result<Self, SettingError> {
        let field = |name: &str| format!("{table}.toggle.{name}");
        if !(0.0..=100.0).contains(&file.percent) {
            return Err(SettingError::new(field("percent"), file.percent, "be from 0 to 100"));
        }
        let key = match &file.sticky {
            Some(text) => Key::parse(&field("sticky"), text)?,
            None => Key::Ip,
        };
        let switch = match &file.header {
            Some(file::Switch { name, value }) => {
                let parsed = HeaderName::from_bytes(name.as_bytes());
                let rule = "be the name of a header";
                let parsed =
                    parsed.map_err(|_| SettingError::new(field("header.name"), name, rule))?;
                Some((parsed, value.clone()))
            }
            None => None,
        };
        let salt = salt(place, &format!("toggle {}", file.upstream));
        Ok(Self { proxy, percent: file.percent, key, salt, switch })
    }

    fn takes(&self, headers: &HeaderMap, peer: IpAddr, trusted: &[Network]) -> bool {
        if let Some((name, wanted)) = &self.switch
            && let Some(value) = headers.get(name)
        {
            return value.as_bytes() == wanted.as_bytes();
        }
        if self.percent <= 0.0 || self.percent >= 100.0 {
            return self.percent > 0.0;
        }
        let client = client_address(headers, peer, trusted);
        self.key.place(headers, client, self.salt) * 100.0 < self.percent
    }
}

/// The snapshot that serves now, and what became of the last new one.
#[derive(Debug)]
pub(super) struct Current {
    snapshot: arc_swap::ArcSwap<Snapshot>,
    pub(super) loads: parking_lot::Mutex<Loads>,
}

/// What became of the files so far.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(super) struct Loads {
    /// How many files have been taken over, the first included.
    pub(super) generation: u64,
    /// How many were refused.
    pub(super) refused_total: u64,
    /// Why the last one was, if it was.
    pub(super) last_error: Option<String>,
}

impl Current {
    pub(super) fn new(first: Snapshot) -> Self {
        let loads = Loads { generation: 1, ..Loads::default() };
        Self {
            snapshot: arc_swap::ArcSwap::from_pointee(first),
            loads: parking_lot::Mutex::new(loads),
        }
    }

    pub(super) fn get(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Takes a new file over for the next request, or keeps the old one and says why.
    pub(super) fn reload(&self, path: &Path) -> anyhow::Result<()> {
        let mut loads = self.loads.lock();
        match load(path, Some(&self.get())) {
            Ok(snapshot) => {
                self.snapshot.store(Arc::new(snapshot));
                loads.generation += 1;
                loads.last_error = None;
                Ok(())
            }
            Err(error) => {
                loads.refused_total += 1;
                loads.last_error = Some(format!("{error:#}"));
                Err(error)
            }
        }
    }

    /// Figures of every group, by name.
    pub(super) fn groups(&self) -> HashMap<String, serde_json::Value> {
        let snapshot = self.get();
        let groups = snapshot.groups.iter().map(|(name, group)| {
            let figures = serde_json::json!({
                "servers": group.proxy.replicas().stats(),
                "proxy": group.proxy.stats(),
            });
            (name.clone(), figures)
        });
        groups.collect()
    }
}
