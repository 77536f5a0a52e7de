//! Tables and seed data, the same in both databases and the same at every start: the load test
//! knows every answer in advance.

/// Symbols `S0001` to `S1000`.
pub const SYMBOLS: i64 = 1_000;
/// Users 1 to 100,000; user n was brought in by user (n + 8) / 10, user 1 by nobody.
pub const USERS: i64 = 100_000;
/// What each user has at first: 1,000,000.00.
pub const USER_CASH_CENTS: i64 = 100_000_000;
/// Raised when tables or seed data change.
pub(super) const VERSION: &str = "1";

/// Name of the nth symbol, from 1.
#[must_use]
pub fn symbol_name(n: i64) -> String {
    format!("S{n:04}")
}

/// Statements that both databases understand; they differ only in how they spell a key that is
/// given (`key`) and one that the database numbers (`serial`).
pub(super) fn tables(key: &str, serial: &str) -> String {
    format!(
        "create table if not exists meta (key text primary key, value text not null);
         create table if not exists symbols (
             symbol text primary key,
             price_cents bigint not null,
             volume bigint not null default 0);
         create table if not exists users (
             id {key},
             referrer_id bigint,
             cash_cents bigint not null check (cash_cents >= 0));
         create index if not exists users_by_referrer on users (referrer_id);
         create table if not exists orders (
             id {serial},
             user_id bigint not null,
             symbol text not null,
             quantity bigint not null check (quantity > 0),
             price_cents bigint not null,
             cost_cents bigint not null,
             settled boolean not null default false,
             idempotency_key text,
             fingerprint text not null);
         create unique index if not exists orders_by_key on orders (user_id, idempotency_key);
         create index if not exists orders_unsettled on orders (id) where not settled;
         create table if not exists settlements (
             order_id {key},
             runs bigint not null);
         create table if not exists transfers (
             id {serial},
             from_user bigint not null,
             to_user bigint not null,
             amount_cents bigint not null check (amount_cents > 0),
             idempotency_key text,
             fingerprint text not null);
         create unique index if not exists transfers_by_key on transfers (from_user, idempotency_key);
         create table if not exists ledger (
             transfer_id bigint not null,
             user_id bigint not null,
             amount_cents bigint not null,
             primary key (transfer_id, user_id));"
    )
}

/// Tells [`super::PRICES`] which price was changed. Orders change the volume only, and tell their
/// caches themselves.
pub(super) const TELL_OF_PRICES: &str = "
    create or replace function tell_of_price() returns trigger language plpgsql as
        $$ begin perform pg_notify('prices', new.symbol); return null; end $$;
    create or replace trigger tell_of_price after update of price_cents on symbols
        for each row execute function tell_of_price();";

/// What a piece costs: spreads 1.00 to 10.00 over the symbols.
pub(super) const PRICE_OF_N: &str = "100 + (n * 7919) % 901";
/// Who brought user n in; integer division.
pub(super) const REFERRER_OF_N: &str = "case when n = 1 then null else (n + 8) / 10 end";

/// One symbol more than a page holds, so that it is known whether another page follows.
pub(super) fn listings(after: &str) -> String {
    let most = super::PAGE + 1;
    format!(
        "select symbol, price_cents from symbols where symbol > {after} order by symbol limit {most}"
    )
}

/// The two-tier aggregate, for user `{user}`.
pub(super) const REPORT: &str = "
    with first as (select id from users where referrer_id = {user}),
         second as (select u.id from users u join first f on u.referrer_id = f.id),
         tiers as (select id, 10 as rate from first union all select id, 5 from second)
    select (select count(*) from users where id = {user}),
           (select count(*) from tiers),
           count(o.id),
           cast(coalesce(sum(o.cost_cents), 0) as bigint),
           cast(coalesce(sum(o.cost_cents * t.rate), 0) as bigint) / 10000
    from tiers t join orders o on o.user_id = t.id";

/// The sums of [`super::Audit`], in its order.
pub(super) const AUDIT: &str = "
    select (select cast(coalesce(sum(cash_cents), 0) as bigint) from users),
           (select cast(coalesce(sum(cost_cents), 0) as bigint) from orders),
           (select cast(value as bigint) from meta where key = 'seeded_cents'),
           (select count(*) from orders),
           (select count(*) from orders o
             where not exists (select 1 from settlements s where s.order_id = o.id)),
           (select cast(coalesce(sum(runs), 0) as bigint) from settlements),
           (select count(*) from transfers),
           (select count(*) from transfers t
             where (select count(*) from ledger l where l.transfer_id = t.id) <> 2),
           (select cast(coalesce(sum(amount_cents), 0) as bigint) from ledger),
           (select cast(coalesce((select sum(quantity) from orders), 0) as bigint))
             - (select cast(coalesce(sum(volume), 0) as bigint) from symbols)";
/// See [`super::Node::unfinished`].
pub(super) const UNSETTLED: &str =
    "select id from orders where not settled order by id limit 10000";
/// See [`super::Node::unfinished`].
pub(super) const UNBOOKED: &str = "
    select id from transfers t
    where not exists (select 1 from ledger l where l.transfer_id = t.id) order by id limit 10000";

/// Bid and ask around a price: a tenth of a percent, at least a cent, to each side.
pub(super) fn spread(price_cents: i64) -> (i64, i64) {
    let half = (price_cents / 1_000).max(1);
    (price_cents - half, price_cents + half)
}

/// What the nth symbol is sold and bought for: seed prices never change.
#[must_use]
pub fn bid_and_ask(n: i64) -> (i64, i64) {
    spread(100 + (n * 7919) % 901)
}

/// How many users the user brought in, in both tiers.
#[must_use]
pub fn referred_users(user: i64) -> i64 {
    let tier = |first: i64, last: i64| (last.min(USERS) - first + 1).max(0);
    // User n was brought in by (n + 8) / 10: user u by 10u - 8 to 10u + 1.
    let (first, last) = (10 * user - 8, 10 * user + 1);
    tier(first, last) + tier(10 * first - 8, 10 * last + 1)
}
