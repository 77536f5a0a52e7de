//! The kit's own tests: each server really starts, breaks and comes back.

mod brokers;
mod nginx;
mod patroni;
mod pgbouncer;
mod postgres;
mod proxy;
mod redis;
mod redis_topologies;
