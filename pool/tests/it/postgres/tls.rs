//! TLS: what each `sslmode` accepts, and that refusals say why.

use std::time::Duration;

use escala_pool::{PgPool, PoolConfig, PoolError};
use tempfile::TempDir;
use testkit::{Certificates, PgCluster};
use tokio::time::{Instant, timeout};

use super::{backend, chain};

/// Each user may come in one way only; those after them are the kit's own.
const ACCESS: &str = "\
hostnossl all crypt all reject
hostssl all crypt all scram-sha-256
hostssl all plain all reject
hostnossl all plain all scram-sha-256
hostnossl all client all reject
hostssl all client all cert
";

/// A server with TLS, and the files that a client needs.
struct Tls {
    pg: PgCluster,
    folder: TempDir,
}

impl Tls {
    async fn start() -> Self {
        Self::start_with(Certificates::new().unwrap()).await
    }

    async fn start_with(certificates: Certificates) -> Self {
        let stranger = Certificates::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("authority", &certificates.authority),
            ("stranger", &stranger.authority),
            ("client", &certificates.client),
            ("client-key", &certificates.client_key),
            ("foreign-key", &stranger.client_key),
            ("server", &certificates.server),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let builder = PgCluster::builder().tls(certificates).access(ACCESS);
        let pg = builder.start().await.unwrap();
        let roles = "create role crypt login password 'hunter2'; \
                     create role plain login password 'hunter2'; create role client login";
        pg.sql(pg.primary(), roles).await.unwrap();
        Self { pg, folder }
    }

    /// In `query`, `@name` stands for the path of a file.
    fn url(&self, user: &str, query: &str) -> String {
        let query = query.replace('@', &format!("{}/", self.folder.path().display()));
        format!("postgres://{user}:hunter2@{}/postgres?{query}", self.pg.primary().addr())
    }

    /// Whether the connection is encrypted, or why there is none.
    async fn encrypted(&self, user: &str, query: &str) -> Result<bool, String> {
        let began = Instant::now();
        let config = PoolConfig::new(self.url(user, query)).max_size(1).min_idle(0);
        match PgPool::connect(config).await {
            Ok(pool) => {
                let own = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
                Ok(pool.query_one(own, &[]).await.unwrap().get(0))
            }
            Err(error) => {
                assert!(began.elapsed() < Duration::from_secs(2), "{}", chain(&error));
                let shown = chain(&error);
                assert!(error.is_connection() && !error.is_retryable(), "{shown}");
                assert!(!format!("{shown}{error:?}").contains("hunter2"), "{shown}");
                Err(shown)
            }
        }
    }

    async fn check(&self, user: &str, query: &str, expected: Result<bool, &str>) {
        match (self.encrypted(user, query).await, expected) {
            (Err(shown), Err(part)) => assert!(shown.contains(part), "{user} {query}: {shown}"),
            (result, expected) => {
                assert_eq!(
                    result.as_ref().ok(),
                    expected.as_ref().ok(),
                    "{user} {query}: {result:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn each_mode_accepts_what_it_should() {
    let tls = Tls::start().await;
    let denied = Err("pg_hba.conf");
    for (query, crypt, plain) in [
        ("sslmode=disable", denied, Ok(false)),
        ("sslmode=allow", Ok(true), Ok(false)),
        ("sslmode=prefer", Ok(true), Ok(false)),
        ("", Ok(true), Ok(false)),
        ("sslmode=require", Ok(true), denied),
        ("sslmode=require&sslrootcert=@authority", Ok(true), denied),
        ("sslmode=verify-ca&sslrootcert=@authority", Ok(true), denied),
        ("sslmode=verify-full&sslrootcert=@authority", Ok(true), denied),
    ] {
        tls.check("crypt", query, crypt).await;
        tls.check("plain", query, plain).await;
    }
    // A server that has no TLS.
    let pg = PgCluster::start(0).await.unwrap();
    let tls = Tls { pg, ..tls };
    tls.check("postgres", "sslmode=prefer", Ok(false)).await;
    tls.check("postgres", "sslmode=allow", Ok(false)).await;
    tls.check("postgres", "sslmode=require", Err("offers no TLS")).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_as_asked_is_refused() {
    let tls = Tls::start().await;
    let port = tls.pg.primary().port();
    let other_name = format!("host=db.example&hostaddr=127.0.0.1&port={port}&sslmode=");
    for (query, expected) in [
        ("sslmode=verify-ca&sslrootcert=@stranger".to_owned(), Err("invalid peer certificate")),
        // It has certificates to trust, so it is meant to trust no others.
        ("sslmode=require&sslrootcert=@stranger".to_owned(), Err("invalid peer certificate")),
        ("sslmode=verify-full&sslrootcert=system".to_owned(), Err("invalid peer certificate")),
        (format!("{other_name}verify-full&sslrootcert=@authority"), Err("not valid for name")),
        (format!("{other_name}verify-ca&sslrootcert=@authority"), Ok(true)),
        (format!("{other_name}require"), Ok(true)),
    ] {
        tls.check("crypt", &query, expected).await;
    }
    // One without an authority hands out its own certificate.
    let tls = Tls::start_with(Certificates::self_signed().unwrap()).await;
    tls.check("crypt", "sslmode=verify-full&sslrootcert=@server", Ok(true)).await;
    let refused = Err("invalid peer certificate");
    tls.check("crypt", "sslmode=verify-full&sslrootcert=@stranger", refused).await;
    let name = format!("{other_name}verify-full&sslrootcert=@server")
        .replace(&port.to_string(), &tls.pg.primary().port().to_string());
    tls.check("crypt", &name, Err("not valid for name")).await;
}

#[tokio::test]
async fn a_client_certificate_lets_its_owner_in() {
    let tls = Tls::start().await;
    let own = "sslmode=require&sslcert=@client&sslkey=@client-key";
    tls.check("client", own, Ok(true)).await;
    tls.check("client", "sslmode=require", Err("valid client certificate")).await;
    // In the preferred way it says why, not that the other way is closed.
    tls.check("client", "sslmode=prefer", Err("valid client certificate")).await;
    for (query, rule) in [
        ("sslmode=require&sslcert=@client&sslkey=@foreign-key", "sslkey"),
        ("sslmode=require&sslcert=@nowhere&sslkey=@client-key", "sslcert"),
        ("sslmode=require&sslcert=@client&sslkey=@client", "sslkey"),
        ("sslmode=verify-full&sslrootcert=@client-key", "sslrootcert"),
    ] {
        let error = PgPool::connect_lazy(PoolConfig::new(tls.url("client", query))).unwrap_err();
        assert!(matches!(error, PoolError::Config(_)) && chain(&error).contains(rule), "{query}");
    }
}

#[tokio::test]
async fn channel_binding_can_be_required() {
    let tls = Tls::start().await;
    tls.check("crypt", "sslmode=require&channel_binding=require", Ok(true)).await;
    tls.check("crypt", "sslmode=require&channel_binding=disable", Ok(true)).await;
    let refused = Err("channel binding");
    tls.check("plain", "sslmode=disable&channel_binding=require", refused).await;
}

#[tokio::test]
async fn a_cancel_is_encrypted_as_its_connection_is() {
    let tls = Tls::start().await;
    let url = tls.url("crypt", "sslmode=verify-full&sslrootcert=@authority");
    let pool = PgPool::connect(PoolConfig::new(url).max_size(1).min_idle(0)).await.unwrap();
    let process = backend(&pool).await;
    let sleeping = pool.query("select pg_sleep(60)", &[]);
    assert!(timeout(Duration::from_millis(100), sleeping).await.is_err());
    assert_eq!(backend(&pool).await, process);
    assert_eq!(pool.stats().recovered_total, 1);
    // The tap reads along above TLS.
    pool.batch_execute("begin").await.unwrap();
    assert_eq!(backend(&pool).await, process);
    assert_eq!(pool.stats().recovered_total, 2);
}
