//! A server that cannot be used: when its caller is told why.

use std::error::Error;

use anyhow::{bail, ensure};
use escala_pool::{PgPool, PoolConfig, PoolError};
use testkit::{Certificates, PgCluster};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::Bound;
use crate::Effort;

/// Milliseconds in which the cause must be told.
const MOST: f64 = 50.0;

/// Comes in with a password; those after it are the kit's own.
const ACCESS: &str = "host all app all scram-sha-256\n";

pub(super) async fn measure(effort: Effort) -> anyhow::Result<Vec<Bound>> {
    let certificates = Certificates::new()?;
    let folder = tempfile::tempdir()?;
    let (own, stranger) = (folder.path().join("own"), folder.path().join("stranger"));
    std::fs::write(&own, &certificates.authority)?;
    std::fs::write(&stranger, Certificates::new()?.authority)?;
    let pg = PgCluster::builder().tls(certificates).access(ACCESS).start().await?;
    pg.sql(pg.primary(), "create role app login password 'right'").await?;
    let addr = pg.primary().addr();
    let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let verified = |root: &std::path::Path| {
        let root = root.display();
        format!("postgres://app:right@{addr}/postgres?sslmode=verify-ca&sslrootcert={root}")
    };
    // Without the fault it works, so that it is the fault what is told of.
    PgPool::connect(PoolConfig::new(verified(&own))).await?.close().await;
    let mut bounds = Vec::new();
    for (fault, url, cause) in [
        ("a refused port", format!("postgres://app:right@{free}/postgres"), "refused"),
        ("a wrong password", format!("postgres://app:wrong@{addr}/postgres"), "28P01"),
        ("an unknown database", format!("postgres://app:right@{addr}/missing"), "3D000"),
        ("a bad certificate", verified(&stranger), "certificate"),
    ] {
        let mut milliseconds = Vec::new();
        for _ in 0..effort.of(100, 2) {
            milliseconds.push(told(&url, cause).await?);
        }
        bounds.push(Bound::new(format!("{fault}: ms to its cause"), milliseconds, Some(MOST)));
    }
    Ok(bounds)
}

/// Milliseconds until a new pool tells this cause.
async fn told(url: &str, cause: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    let result = PgPool::connect(PoolConfig::new(url)).await;
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    let Err(error) = result else { bail!("{cause} was expected") };
    let shown = chain(&error);
    ensure!(shown.contains(cause) || error.sqlstate() == Some(cause), "{cause}: {shown}");
    Ok(milliseconds)
}

/// The texts of an error and of all its causes.
fn chain(error: &PoolError) -> String {
    let error: &dyn Error = error;
    let texts = std::iter::successors(Some(error), |error| (*error).source());
    texts.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
