//! Joins single lookups into one call for many keys, and single writes into one group.
//!
//! A [`Batcher`] asks for the first key at once. Keys that arrive while a batch is under way become
//! the next one, so that a batch grows with the load and nobody waits for a timer: a database that
//! answers in a millisecond is asked some thousand times a second, however many callers there are. A
//! [`BatchWriter`] does the same for writes. [`BatchLayer`] puts a [`Batcher`] in front of a tower
//! service for many keys.
//!
//! Use it for lookups by key that many tasks make at the same time, such as
//! `.. WHERE id = ANY($1)`. It gains nothing when one task asks for one key after the other, and
//! a statement whose cost grows faster than its keys is better asked alone.
//!
//! # Example
//! ```
//! use escala_pool::{BatchConfig, Batcher};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // With PostgreSQL: `pool.query("select id, name from users where id = any($1)", &[&ids])`.
//! let names = Batcher::new(BatchConfig::new(), |ids: Vec<i64>| async move {
//!     let rows = ids.into_iter().filter(|id| *id < 100).map(|id| (id, format!("user {id}")));
//!     Ok::<_, std::io::Error>(rows.collect::<Vec<_>>())
//! })?;
//! assert_eq!(names.get(7).await?.as_deref(), Some("user 7"));
//! assert_eq!(names.get_many([100, 8]).await?, [None, Some("user 8".to_owned())]);
//! # Ok(())
//! # }
//! ```
//!
//! Writes become one `INSERT .. SELECT FROM UNNEST`; a row that the database refuses fails only the
//! one who wrote it:
//! ```no_run
//! # #[cfg(feature = "postgres")] mod shop {
//! use escala_pool::{BatchConfig, BatchWriter, ConfigError, PgPool, PoolError};
//!
//! fn orders(pool: PgPool) -> Result<BatchWriter<(i64, i64), i64>, ConfigError> {
//!     BatchWriter::new(BatchConfig::new(), PoolError::is_data, move |orders: Vec<(i64, i64)>| {
//!         let pool = pool.clone();
//!         async move {
//!             let (accounts, prices): (Vec<i64>, Vec<i64>) = orders.into_iter().unzip();
//!             let sql = "insert into orders (account, price) \
//!                        select * from unnest($1::int8[], $2::int8[]) returning id";
//!             let rows = pool.query(sql, &[&accounts, &prices]).await?;
//!             Ok::<_, PoolError>(rows.iter().map(|row| row.get(0)).collect())
//!         }
//!     })
//! }
//! # }
//! ```
//!
//! # Readiness and clones
//! A [`Batcher`] is always ready; what it must turn away it turns away in `call`. The service below
//! is cloned, and each clone is made ready before its keys are taken out of the line. Clones of a
//! batcher share everything.
//!
//! # State
//! One line per batcher, so one per call of [`BatchLayer::layer`](tower_layer::Layer::layer). The
//! clones that `Router::layer` makes of the resulting service share it.
//!
//! # Freshness
//! Equal keys are asked for once if they wait at the same time. A lookup never joins a batch that
//! was sent before it began: what its caller has written, it sees.
//!
//! # Cancellation
//! A dropped lookup disturbs nobody. A key whose callers have all left before it was sent is not
//! asked for; a batch that was sent runs to its end in a task of its own. A write that was sent may
//! take effect unseen.
//!
//! # Errors
//! A failed batch fails each of its lookups with [`BatchError::Failed`], which shares the source's
//! error; a panic or an overlong call with an error of its own. Other batches are not touched.
//!
//! # Limits
//! `max_batch` keys a batch, `max_in_flight` batches at a time, `max_waiters` lookups in the line,
//! `timeout` for each call.
//!
//! # Cost
//! Per lookup two short locks, three hashes of the key and about two allocations; per batch one task
//! that is woken. A batch on its own connection leaves the rest of the pool to others.

mod config;
mod engine;
mod error;
mod layer;
mod line;
mod lookup;
mod stats;
mod write;

pub use self::config::BatchConfig;
pub use self::error::BatchError;
pub use self::layer::BatchLayer;
pub use self::lookup::{Batcher, LookupFuture};
pub use self::stats::BatchStats;
pub use self::write::BatchWriter;
