//! Real servers for escala's tests and load tests.
//!
#![doc = include_str!("../README.md")]

mod error;

mod account;
mod greeting;
mod ports;
mod process;
mod run_dir;
mod search;
mod server;
mod shared_memory;
mod wait;

mod nats;
mod nginx;
mod patroni;
mod pgbouncer;
mod postgres;
mod proxy;
mod pubsub_proxy;
mod rabbitmq;
mod redis;

pub use error::Error;
pub use nats::Nats;
pub use nginx::{Nginx, NginxBuilder};
pub use patroni::{PatroniCluster, PatroniMember};
pub use pgbouncer::{PgBouncer, PgBouncerBuilder};
pub use postgres::{PgBuilder, PgCluster, PgNode};
pub use proxy::FaultProxy;
pub use pubsub_proxy::{PubSubFaults, PubSubProxy};
pub use rabbitmq::RabbitMq;
pub use redis::{Certificates, Redis, RedisBuilder, RedisCluster, RedisSentinel};
