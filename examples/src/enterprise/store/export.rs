//! All orders as CSV, in pieces: none of the servers in between holds more than some of it.

use bytes::Bytes;
use escala_pool::postgres::CopyOut;
use escala_pool::{PgLease, SqlitePool};

use super::Result;

/// The first line.
const HEAD: &str = "id,user,symbol,quantity,price_cents,cost_cents,settled\n";
/// Orders in one piece of an embedded file.
const PIECE: usize = 1_000;

/// PostgreSQL writes it: one state of the table, however long it takes.
///
/// # Errors
/// The database refuses.
pub async fn copy_orders(lease: PgLease) -> Result<CopyOut<'static>> {
    let sql = "copy (select id, user_id as \"user\", symbol, quantity, price_cents, cost_cents,
                            settled::int as settled from orders order by id)
               to stdout with (format csv, header)";
    Ok(lease.into_copy_out(sql).await?)
}

/// The orders of an embedded file, by their numbers. Each piece is of its own moment, so that no read
/// keeps the log from being emptied.
#[derive(Debug)]
pub struct Pieces {
    pool: SqlitePool,
    /// The last order of the piece before; `None` before the first and after the last.
    after: Option<i64>,
    begun: bool,
}

impl Pieces {
    /// From the first order on.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self { pool, after: Some(0), begun: false }
    }

    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(after) = self.after else { return Ok(None) };
        let sql = "select id, user_id, symbol, quantity, price_cents, cost_cents, settled
                   from orders where id > ?1 order by id limit ?2";
        let rows = self.pool.query(sql, &[&after, &(PIECE as i64)]).await?;
        self.after = rows.last().filter(|_| rows.len() == PIECE).map(|row| row.get(0));
        let mut text = if std::mem::replace(&mut self.begun, true) { "" } else { HEAD }.to_owned();
        for row in &rows {
            let number = |column: usize| row.get::<i64>(column);
            // A symbol is of letters and digits, so nothing needs quotes.
            text.push_str(&format!(
                "{},{},{},{},{},{},{}\n",
                number(0),
                number(1),
                row.get::<String>(2),
                number(3),
                number(4),
                number(5),
                number(6)
            ));
        }
        Ok(Some(text.into()))
    }
}
