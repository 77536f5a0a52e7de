//! escala beside its rivals. One bench answers one question, and its first row is the bare service:
//!
//! - `cargo bench -p escala-benches --bench cache`: what does a cached value cost in memory and in
//!   Redis, how often is it there, and how much memory does it take?
//! - `cargo bench -p escala-benches --bench cluster`: what does a circuit breaker, a limit and the
//!   drain add to a call, for one thread, two and 64 tasks?
//! - `cargo bench -p escala-benches --bench http_cache`: what is left of bare axum when the HTTP
//!   cache answers, and how does `cache-proxy` do beside nginx?
//! - `cargo bench -p escala-benches --bench gateway`: how many requests does `gateway` pass on beside
//!   nginx, and how long do they take?
//! - `cargo bench -p escala-benches --bench http`: what is left of bare axum's requests per second
//!   with our whole stack on a cached read, and with the usual alternatives?
//! - `cargo bench -p escala-benches --bench layers`: what does each layer and handle add to a call?
//! - `cargo bench -p escala-benches --bench pool`: what does a checkout cost, how many lookups and
//!   inserts go through ten connections, how fairly, what is SQLite worth behind an async call, and
//!   how long do callers notice a fault of the server?
//! - `cargo bench -p escala-benches --bench replicas_postgres`: how far from the truth is the lag
//!   that the monitor tells, and how long do writes pause for a promotion?

pub mod table;
