//! One PostgreSQL connection that knows what was left undone on it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, CopyInSink, CopyOutStream, Error, Row, RowStream};

use super::cancel::Backend;
use super::connect::Connected;
use super::endpoint::Endpoint;
use super::error::ServerError;
use super::prepared::{Known, Prepared, Types};
use super::statements::Cache;
use super::wire::{TransactionStatus, Wire};
use crate::error::PoolError;

/// The values of a statement, in the order `$1`, `$2` and so on.
pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A client, its statements, and what is known of the state it is in. The flags are relaxed: a
/// lease moves between threads through the locks of the pool.
#[derive(Debug)]
pub(crate) struct PgConnection {
    pub(super) client: Client,
    /// What passed the socket. It does not know of requests that the driver has yet to write.
    pub(super) wire: Arc<Wire>,
    /// The task that drives the socket.
    task: AbortHandle,
    /// Where the connection really went, so that a cancel goes there too.
    endpoint: Endpoint,
    port: Option<u16>,
    statements: Mutex<Cache<Prepared>>,
    /// `Some` if statements have no names.
    unnamed: Option<Known>,
    preparing: tokio::sync::Mutex<()>,
    /// A call was dropped before its end: the server may still work on it, or not even have it.
    interrupted: AtomicBool,
    /// The server gave up the transaction, since it met another one.
    conflict: AtomicBool,
    /// It must not be used again, although it looks well.
    doomed: AtomicBool,
}

impl PgConnection {
    pub(super) fn new(
        connected: Connected,
        statement_cache: usize,
        unnamed: Option<Known>,
    ) -> Self {
        let Connected { client, task, wire, endpoint, port, mailbox: _ } = connected;
        Self {
            client,
            wire,
            task,
            endpoint,
            port,
            statements: Mutex::new(Cache::new(statement_cache)),
            unnamed,
            preparing: tokio::sync::Mutex::new(()),
            interrupted: AtomicBool::new(false),
            conflict: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
        }
    }

    /// Nobody else must use it.
    pub(super) fn is_broken(&self) -> bool {
        self.is_gone() || self.doomed.load(Ordering::Relaxed)
    }

    /// Nothing can be sent on it any more.
    pub(super) fn is_gone(&self) -> bool {
        let state = self.wire.state();
        self.client.is_closed() || state.lost || state.closed
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// To be called when a call was dropped before its end.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    /// Whether the next user would find something of this one: a transaction, a query, a COPY.
    pub(super) fn is_dirty(&self) -> bool {
        let state = self.wire.state();
        self.is_interrupted()
            || state.is_busy()
            || state.doubtful
            || state.status != TransactionStatus::Idle
    }

    /// To be called when the server has answered everything.
    pub(super) fn settled(&self) {
        self.interrupted.store(false, Ordering::Relaxed);
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How other sessions of the server find this one; `None` where that is known to be in vain.
    pub(super) fn backend(&self) -> Option<Backend> {
        // Without names for statements there is a pooler, and each transaction is on some backend.
        let port = self.port.filter(|_| self.unnamed.is_none())?;
        Some(Backend { pid: self.wire.backend()?, port })
    }

    /// A bare Sync: one round trip, nothing to parse or plan.
    pub(super) async fn test(&self) -> Result<(), ServerError> {
        let tested = self.client.check_connection().await;
        tested.map_err(|error| ServerError::new(&self.endpoint, error))
    }

    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, PoolError> {
        self.run(sql, |prepared| async move { prepared.query(&self.client, sql, params).await })
            .await
    }

    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, PoolError> {
        self.run(sql, |prepared| async move { prepared.execute(&self.client, sql, params).await })
            .await
    }

    pub(super) async fn batch_execute(&self, sql: &str) -> Result<(), PoolError> {
        self.guard(self.client.batch_execute(sql)).await
    }

    /// As [`query`](Self::query), next to others on the same connection: a call that is dropped
    /// before its end is no reason to refuse the next. `sends` is called before each
    /// request that is sent, wherever that can be told from here.
    pub(super) async fn query_shared(
        &self,
        sql: &str,
        params: Params<'_>,
        sends: impl Fn(),
    ) -> Result<Vec<Row>, Error> {
        let call = |prepared: Prepared| {
            sends();
            async move { prepared.query(&self.client, sql, params).await }
        };
        self.healed(sql, call, &sends).await
    }

    /// As [`query`](Self::query), the rows one by one.
    pub(super) async fn query_stream(
        &self,
        sql: &str,
        params: Params<'_>,
    ) -> Result<RowStream, PoolError> {
        self.run(
            sql,
            |prepared| async move { prepared.query_stream(&self.client, sql, params).await },
        )
        .await
    }

    pub(super) async fn copy_in(&self, sql: &str) -> Result<CopyInSink<Bytes>, PoolError> {
        self.guard(self.client.copy_in(sql)).await
    }

    pub(super) async fn copy_out(&self, sql: &str) -> Result<CopyOutStream, PoolError> {
        self.guard(self.client.copy_out(sql)).await
    }

    async fn run<T, F: Future<Output = Result<T, Error>>>(
        &self,
        sql: &str,
        call: impl Fn(Prepared) -> F,
    ) -> Result<T, PoolError> {
        self.guard(self.healed(sql, call, &|| {})).await
    }

    /// Runs a prepared statement. DDL between two calls makes a prepared statement stale; outside a
    /// transaction nothing has happened then, so it is prepared and run once more.
    async fn healed<T, F: Future<Output = Result<T, Error>>>(
        &self,
        sql: &str,
        call: impl Fn(Prepared) -> F,
        sends: &impl Fn(),
    ) -> Result<T, Error> {
        let outside = self.wire.transaction() == TransactionStatus::Idle;
        let prepared = self.prepare(sql, sends).await?;
        match call(prepared.clone()).await {
            Err(error) if prepared.is_stale(&error) => {
                self.forget(sql);
                // What the server refuses ends the transaction; what the driver refuses does not
                // reach it.
                if !outside && error.code().is_some() {
                    return Err(error);
                }
                let prepared = self.prepare(sql, sends).await?;
                let again = call(prepared.clone()).await;
                if let Err(error) = &again
                    && prepared.is_stale(error)
                {
                    self.forget(sql);
                    let vanishes = self.unnamed.is_none() && error.code().is_some();
                    self.doomed.fetch_or(vanishes, Ordering::Relaxed);
                }
                again
            }
            result => result,
        }
    }

    async fn prepare(&self, sql: &str, sends: &impl Fn()) -> Result<Prepared, Error> {
        if let Some(prepared) = self.prepared(sql) {
            return Ok(prepared);
        }
        // Those who share the connection and want the same statement prepare it once.
        let _turn = self.preparing.lock().await;
        if let Some(prepared) = self.prepared(sql) {
            return Ok(prepared);
        }
        sends();
        let prepared = match &self.unnamed {
            None => self.client.prepare(sql).await.map(Prepared::Named),
            Some(_) => self.types(sql).await.map(Prepared::Unnamed),
        };
        if let Err(error) = &prepared
            && error.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME)
        {
            // The driver asks for types unknown to it by statements of its own, which it never
            // prepares again. They were deallocated, or are in another session of a pooler.
            self.doomed.store(true, Ordering::Relaxed);
        }
        let prepared = prepared?;
        match (&self.unnamed, &prepared) {
            (Some(known), Prepared::Unnamed(types)) if types.built_in => {
                known.lock().insert(sql, types.clone());
            }
            _ => self.statements.lock().insert(sql, prepared.clone()),
        }
        Ok(prepared)
    }

    /// Whether a statement can be run without being prepared first.
    pub(super) fn knows(&self, sql: &str) -> bool {
        self.prepared(sql).is_some()
    }

    /// What is prepared already.
    fn prepared(&self, sql: &str) -> Option<Prepared> {
        let known = self.unnamed.as_ref().and_then(|known| known.lock().get(sql));
        known.map(Prepared::Unnamed).or_else(|| self.statements.lock().get(sql))
    }

    fn forget(&self, sql: &str) {
        if let Some(known) = &self.unnamed {
            known.lock().remove(sql);
        }
        self.statements.lock().remove(sql);
    }

    /// Asks which types a statement has, in a transaction, since a pooler may let the next message
    /// run in another session otherwise. A type of one's own the driver remembers for this
    /// connection alone.
    async fn types(&self, sql: &str) -> Result<Types, Error> {
        if self.wire.transaction() != TransactionStatus::Idle {
            return Ok(Types::of(&self.client.prepare(sql).await?));
        }
        // In this order on the wire, without waiting in between.
        let (begun, statement) = tokio::join! {
            biased;
            self.client.batch_execute("BEGIN READ ONLY"),
            self.client.prepare(sql),
        };
        // The statement is closed in the same transaction, before its end.
        let types = statement.map(|statement| Types::of(&statement));
        self.client.batch_execute("COMMIT").await?;
        begun?;
        types
    }

    /// Takes note of an error, and waits until the server is ready again: the driver passes an error
    /// on before the server says that, and in which transaction it is.
    pub(super) async fn failed(&self, error: &Error) {
        self.note(error);
        if error.code().is_some() {
            self.wire.answered_all().await;
        }
    }

    /// Takes note of an error.
    pub(super) fn note(&self, error: &Error) {
        let conflicts = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        if error.code().is_some_and(|code| conflicts.contains(code)) {
            self.conflict.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a serialization failure or a deadlock was met since this was last asked.
    pub(super) fn take_conflict(&self) -> bool {
        self.conflict.swap(false, Ordering::Relaxed)
    }

    /// Notices when a call is dropped before its end, and refuses further ones then: their answers
    /// would wait behind that of the dropped call.
    async fn guard<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, PoolError> {
        // On a lost connection the answer would be that to another call.
        if self.is_interrupted() || self.wire.state().lost {
            return Err(PoolError::Interrupted);
        }
        let unfinished = Unfinished(Some(&self.interrupted));
        let result = call.await;
        if let Err(error) = &result {
            self.failed(error).await;
        }
        unfinished.finish();
        result.map_err(PoolError::Postgres)
    }
}

impl Drop for PgConnection {
    fn drop(&mut self) {
        // A clean connection says goodbye by itself when its client is gone. Otherwise the task
        // would wait for the answer to a query that nobody wants, and keep the socket open.
        if self.is_dirty() {
            self.task.abort();
        }
    }
}

/// Sets a flag unless it was finished.
struct Unfinished<'a>(Option<&'a AtomicBool>);

impl Unfinished<'_> {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(interrupted) = self.0 {
            interrupted.store(true, Ordering::Relaxed);
        }
    }
}
