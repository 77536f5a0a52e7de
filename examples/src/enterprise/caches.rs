//! The caches: quotes and reports as values, whole answers as pages; and what takes them away.

use std::sync::Arc;
use std::time::Duration;

use escala_cache::http::{HttpCache, HttpCacheConfig};
use escala_cache::{Cache, CacheKey, Entry, Memory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::join;

use super::domain::{AffiliateReport, Dated, PlacedOrder, Quote};
use super::redis::Redis;

const MINUTE: Duration = Duration::from_secs(60);
/// Lifetime of a quote, as a value and as a page: the documented 10 minutes.
pub(super) const QUOTE_TTL: Duration = Duration::from_secs(10 * 60);
/// Lifetime of a page of the catalogue: the documented 30 minutes.
pub(super) const CATALOGUE_TTL: Duration = Duration::from_secs(30 * 60);
/// How long past its lifetime a quote is served while no database answers. Longer, and its price
/// would mislead more than it helps.
const QUOTE_STALE: Duration = Duration::from_secs(60 * 60);
/// Most values or pages a cache holds in memory: the documented thousand, which is all symbols.
const ENTRIES: u64 = 1_000;

/// Everything that was made of market data.
const MARKET: &str = "market";
/// Every report.
pub(super) const REPORTS: &str = "reports";

/// The caches of one server, all in the same Redis if there is one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caches {
    /// Quotes by symbol; that there is no such symbol, too.
    pub quotes: Cache<String, Arc<Dated<Quote>>>,
    /// Affiliate reports by user.
    pub reports: Cache<i64, Arc<AffiliateReport>>,
    /// Answers to `GET` of the routes that are the same for everybody.
    pub pages: HttpCache,
    /// Whose pages are kept apart.
    tenants: Arc<[String]>,
}

impl Caches {
    pub(super) fn new(redis: Option<&Redis>, tenants: &[String]) -> anyhow::Result<Self> {
        let quotes = values("quotes", redis);
        let reports = values("reports", redis);
        // Each page has the lifetime that its route gives it.
        let mut pages = HttpCache::storage("pages");
        if let Some(redis) = redis {
            pages = pages.shared(redis.clone());
        }
        // No answer depends on the host, and a purge must reach it under all of them.
        let http = HttpCacheConfig::new("pages").key_by_host(false);
        Ok(Self {
            quotes: quotes.ttl(QUOTE_TTL).stale(QUOTE_STALE).schema_version(1).build()?,
            // Five minutes, the documented default. Never stale: a report is about money.
            reports: reports.ttl(5 * MINUTE).build()?,
            pages: HttpCache::new(pages.build()?, http)?,
            tenants: tenants.into(),
        })
    }

    /// Removes what an order has changed. Once this has returned, no answer of any server is older.
    pub(super) async fn ordered(&self, placed: &PlacedOrder, affiliates: [Option<i64>; 2]) {
        let symbol = placed.order.symbol.as_str();
        // By key where the key is known: while a removal by tag is on its way to Redis, no load of
        // that cache reads from Redis, and orders come by the thousand.
        let report = async |affiliate: Option<i64>| {
            if let Some(affiliate) = affiliate {
                self.reports.remove(&affiliate).await;
            }
        };
        let [first, second] = affiliates;
        join!(self.quotes.remove(symbol), report(first), report(second));
        // Afterwards, or a page could be made of the value that is being removed.
        self.purge_pages(&quote_key(symbol)).await;
    }

    /// Removes everything that bears a tag, values first.
    pub(super) async fn remove_tag(&self, tag: &str) -> bool {
        let (quotes, reports) = join!(self.quotes.remove_tag(tag), self.reports.remove_tag(tag));
        let pages = self.purge_pages(tag).await;
        quotes.is_complete() && reports.is_complete() && pages
    }

    /// Tenants share no page, so each one's is purged.
    async fn purge_pages(&self, tag: &str) -> bool {
        let mut complete = self.pages.purge_tag(None, tag).await.is_complete();
        for tenant in &*self.tenants {
            complete &= self.pages.purge_tag(Some(tenant), tag).await.is_complete();
        }
        complete
    }
}

/// A quote as it is stored.
pub(super) fn quote_entry(quote: Quote, read_ms: u64) -> Entry<Arc<Dated<Quote>>> {
    let tags = [MARKET.to_owned(), quote_key(&quote.symbol)];
    Entry::new(Arc::new(Dated { value: quote, read_ms })).tags(tags)
}

/// A report as it is stored.
pub(super) fn report_entry(report: AffiliateReport) -> Entry<Arc<AffiliateReport>> {
    let tags = [REPORTS.to_owned(), format!("affiliate:{}", report.user)];
    Entry::new(Arc::new(report)).tags(tags)
}

/// The surrogate keys of a quote's page.
pub(super) fn quote_page_keys(symbol: &str) -> String {
    format!("{MARKET} {}", quote_key(symbol))
}

/// The surrogate keys of a page of the catalogue. It shows no volume, so orders leave it alone.
pub(super) const CATALOGUE_PAGE_KEYS: &str = "market catalogue";

fn quote_key(symbol: &str) -> String {
    format!("quote:{symbol}")
}

fn values<K, V>(name: &'static str, redis: Option<&Redis>) -> escala_cache::CacheBuilder<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    let builder = Cache::builder(name).memory(Memory::entries(ENTRIES).ttl(10 * MINUTE));
    match redis {
        Some(redis) => builder.shared(redis.clone()).shared_ttl(MINUTE),
        None => builder,
    }
}
