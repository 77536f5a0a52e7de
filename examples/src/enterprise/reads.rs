//! What is read: each thing from the nearest place that may answer for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use escala_cache::{Entry, LoadError, Previous};
use escala_replicas::{ReadError, Role, Session, SessionHandle, TOKEN_LIFE};

use super::app::App;
use super::breakers::guarded;
use super::caches::{quote_entry, report_entry};
use super::domain::{AffiliateReport, Balance, Catalogue, Dated, Order, Quote};
use super::problem::Problem;
use super::store::{Node, StoreError};

type Loaded<T> = Result<T, LoadError<StoreError>>;

impl App {
    /// A quote, from memory, Redis or the database; an old one while no database answers. `None`:
    /// there is no such symbol, which is remembered for a while too.
    ///
    /// # Errors
    /// No node answers.
    pub async fn quote(&self, symbol: &str) -> Loaded<Option<Arc<Dated<Quote>>>> {
        let (app, name) = (self.clone(), symbol.to_owned());
        let load = async move |_: Previous<_>| {
            let read_ms = now_ms();
            let quote = app.read_quote(&app.fill(), &name).await;
            found(quote).map(|quote| match quote {
                Some(quote) => quote_entry(quote, read_ms),
                None => Entry::absent(),
            })
        };
        self.caches.quotes.get_or_load_with(symbol, load).await
    }

    /// Quotes of many symbols: what no layer has is read by one query.
    ///
    /// # Errors
    /// No node answers.
    pub async fn quotes(&self, symbols: &[String]) -> Loaded<HashMap<String, Arc<Dated<Quote>>>> {
        let app = self.clone();
        let load = async move |missing: Vec<String>| {
            let read_ms = now_ms();
            let missing = Arc::<[String]>::from(missing);
            let read = |node: Node| {
                let missing = Arc::clone(&missing);
                async move { node.quotes(&missing).await }
            };
            let quotes = app.read_on(&app.fill(), read).await?;
            let entry = |quote: Quote| (quote.symbol.clone(), quote_entry(quote, read_ms));
            Ok(quotes.into_iter().map(entry).collect::<HashMap<_, _>>())
        };
        self.caches.quotes.get_or_load_many(symbols, load).await
    }

    /// A quote as the primary has it, past every cache: for administrators.
    ///
    /// # Errors
    /// There is no such symbol; the primary does not answer.
    pub async fn quote_now(&self, symbol: &str) -> Result<Quote, StoreError> {
        self.read_quote(&Session::pinned_to_primary(), symbol).await
    }

    async fn read_quote(&self, session: &Session, symbol: &str) -> Result<Quote, StoreError> {
        let name = Arc::<str>::from(symbol);
        let read = |node: Node| {
            let name = Arc::clone(&name);
            async move { node.quote(&name).await }
        };
        self.read_on(session, read).await
    }

    /// A page of the catalogue, from the database: its answers are cached whole.
    ///
    /// # Errors
    /// No node answers.
    pub async fn catalogue(&self, after: &str) -> Result<Catalogue, StoreError> {
        let after = Arc::<str>::from(after);
        let read = |node: Node| {
            let after = Arc::clone(&after);
            async move { node.catalogue(&after).await }
        };
        self.read_on(&self.fill(), read).await
    }

    /// A user's report, cached. `None`: there is no such user.
    ///
    /// # Errors
    /// No node answers.
    pub async fn report(&self, user: i64) -> Loaded<Option<Arc<AffiliateReport>>> {
        let app = self.clone();
        let load = async move |_: Previous<_>| {
            let read = |node: Node| async move { node.report(user).await };
            let report = found(app.read_on(&app.fill(), read).await)?;
            Ok(report.map_or_else(Entry::absent, report_entry))
        };
        self.caches.reports.get_or_load_with(&user, load).await
    }

    /// A user's cash, from a replica that has what the session did to it.
    ///
    /// # Errors
    /// There is no such user; no node answers.
    pub async fn balance(&self, session: &SessionHandle, user: i64) -> Result<Balance, StoreError> {
        self.read_for(session, |node: Node| async move { node.balance(user).await }).await
    }

    /// An order, from a replica that has all that the session placed. Of one that it does not know,
    /// the primary is asked: somebody may have been told its number by whoever placed it.
    ///
    /// # Errors
    /// There is no such order; no node answers.
    pub async fn order(&self, session: &SessionHandle, id: i64) -> Result<Order, StoreError> {
        let read = |node: Node| async move { node.order(id).await };
        match self.read_for(session, read).await {
            Err(StoreError::Absent { .. })
                if session.served().is_none_or(|served| served.role != Role::Primary) =>
            {
                self.read_on(&Session::pinned_to_primary(), read).await
            }
            result => result,
        }
    }

    /// Has a report computed anew in the background lane.
    ///
    /// # Errors
    /// There is no such user; the lane is full.
    pub async fn rebuild_report(&self, session: &SessionHandle, user: i64) -> Result<(), Problem> {
        self.balance(session, user).await?;
        let rebuild = super::jobs::rebuild(user);
        self.queue.enqueue(rebuild).await.map_err(|_| Problem::lane_full())?;
        Ok(())
    }

    /// What a fill must see by now.
    fn fill(&self) -> Session {
        let changed = *self.changed_elsewhere.lock();
        match changed {
            Some(at) if at.elapsed() < TOKEN_LIFE => Session::pinned_to_primary(),
            _ => self.fill.lock().clone(),
        }
    }

    /// Reads on a node that answers; the next one is asked if a node is away.
    async fn read_on<T, F>(
        &self,
        session: &Session,
        read: impl FnMut(Node) -> F + Send,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.database_reads.fetch_add(1, Ordering::Relaxed);
        let read = self.db.read_with(session, StoreError::fault, read);
        guarded(&self.breakers.reads, async { read.await.map_err(failure) }).await
    }

    /// As [`read_on`](Self::read_on), for a client, who may be told which node it was.
    async fn read_for<T, F>(
        &self,
        session: &SessionHandle,
        read: impl FnMut(Node) -> F + Send,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        self.database_reads.fetch_add(1, Ordering::Relaxed);
        let read = session.read_with(&self.db, StoreError::fault, read);
        guarded(&self.breakers.reads, async { read.await.map_err(failure) }).await
    }
}

fn failure(error: ReadError<StoreError>) -> StoreError {
    match error {
        ReadError::NoNode(error) => StoreError::no_node(error),
        ReadError::Operation(error) => error,
        _ => StoreError::NoNode,
    }
}

/// That there is nothing is an answer, not a failure.
fn found<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Absent { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The wall clock: values are compared with it in other processes.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
