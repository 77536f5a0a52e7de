//! Notifications: what is heard, what is missed, and that the latter is said.

use std::time::Duration;

use escala_pool::PoolError;
use escala_pool::postgres::{ListenEvent, Listener};
use tokio::time::{sleep, timeout};

use super::{cluster, pool};

async fn next(listener: &mut Listener) -> Option<ListenEvent> {
    timeout(Duration::from_secs(20), listener.next()).await.unwrap()
}

async fn heard(listener: &mut Listener) -> (String, String) {
    match next(listener).await {
        Some(ListenEvent::Notification(it)) => (it.channel().to_owned(), it.payload().to_owned()),
        other => panic!("{other:?}"),
    }
}

const NOTIFY: &str = "select pg_notify($1, $2)";

#[tokio::test]
async fn notifications_of_all_channels_come_in_order() {
    let pg = cluster().await;
    let pool = pool(&pg, 2).await;
    let odd = "Odd \"name\"; drop table x";
    let mut listener = pool.listen(["a", odd]).await.unwrap();
    for (channel, payload) in [("a", "1"), (odd, "2"), ("other", "3"), ("a", "")] {
        pool.execute(NOTIFY, &[&channel, &payload]).await.unwrap();
    }
    for (channel, payload) in [("a", "1"), (odd, "2"), ("a", "")] {
        assert_eq!(heard(&mut listener).await, (channel.to_owned(), payload.to_owned()));
    }
    // It has no connection of the pool.
    assert_eq!((pool.stats().leased, pool.stats().size), (0, 1));
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_said() {
    let pg = cluster().await;
    let pool = pool(&pg, 2).await;
    let mut listener = pool.listen(["a"]).await.unwrap();
    let kill = "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
                where query like 'LISTEN%' and pid <> pg_backend_pid()";
    for round in 0..3 {
        assert_eq!(pool.query(kill, &[]).await.unwrap().len(), 1, "round {round}");
        assert!(matches!(next(&mut listener).await, Some(ListenEvent::Reconnected)));
        pool.execute(NOTIFY, &[&"a", &"again"]).await.unwrap();
        assert_eq!(heard(&mut listener).await.1, "again");
    }
    pg.kill_primary().unwrap();
    pg.start_primary().await.unwrap();
    assert!(matches!(next(&mut listener).await, Some(ListenEvent::Reconnected)));
    pg.sql(pg.primary(), "notify a, 'after the crash'").await.unwrap();
    assert_eq!(heard(&mut listener).await.1, "after the crash");
}

#[tokio::test]
async fn what_is_not_read_in_time_is_counted() {
    let pg = cluster().await;
    let pool = pool(&pg, 2).await;
    let mut listener = pool.listen(["a"]).await.unwrap();
    let many = "select count(pg_notify('a', g::text)) from generate_series(1, 3000) g";
    let (mut sent, mut heard, mut lost) = (0, 0, 0);
    while lost == 0 {
        pool.execute(many, &[]).await.unwrap();
        sent += 3000;
        match next(&mut listener).await {
            Some(ListenEvent::Notification(_)) => heard += 1,
            Some(ListenEvent::Lagged(count)) => lost += count,
            other => panic!("{other:?}"),
        }
    }
    while heard + lost < sent {
        match next(&mut listener).await {
            Some(ListenEvent::Notification(_)) => heard += 1,
            Some(ListenEvent::Lagged(count)) => lost += count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard + lost, sent);
}

#[tokio::test]
async fn listeners_end_with_the_pool_or_with_themselves() {
    let pg = cluster().await;
    let pool = pool(&pg, 2).await;
    let mut listeners = Vec::new();
    let error = loop {
        match pool.listen(["a"]).await {
            Ok(listener) => listeners.push(listener),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PoolError::TooManyListeners { limit: 16 }), "{error:?}");
    assert_eq!(listeners.len(), 16);
    listeners.truncate(1);
    let backends = "select count(*) from pg_stat_activity where query like 'LISTEN%'";
    while pg.sql(pg.primary(), backends).await.unwrap() != "1" {
        sleep(Duration::from_millis(5)).await;
    }
    pool.close().await;
    assert!(next(&mut listeners[0]).await.is_none());
    assert!(matches!(pool.listen(["a"]).await, Err(PoolError::Closed)));
    while pg.sql(pg.primary(), backends).await.unwrap() != "0" {
        sleep(Duration::from_millis(5)).await;
    }
}
