//! Batches against a real server: `= ANY($1)` and `UNNEST`.

use escala_pool::{BatchConfig, BatchWriter, Batcher, PgPool, PoolError};

use super::{cluster, ids, pool, with_table};

fn names(pool: &PgPool) -> Batcher<i64, String> {
    let pool = pool.clone();
    let load = move |ids: Vec<i64>| {
        let pool = pool.clone();
        async move {
            let sql =
                "select id, 'user ' || id from generate_series(1::int8, 500) id where id = any($1)";
            let rows = pool.query(sql, &[&ids]).await?;
            Ok::<_, PoolError>(rows.into_iter().map(|row| (row.get(0), row.get(1))))
        }
    };
    Batcher::new(BatchConfig::new(), load).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_look_up_in_few_statements() {
    let pg = cluster().await;
    let pool = pool(&pg, 4).await;
    let names = names(&pool);
    let tasks: Vec<_> = (0..64_i64)
        .map(|task| {
            let names = names.clone();
            tokio::spawn(async move {
                for round in 0..20 {
                    let id = (task * 31 + round) % 600;
                    let expected = (1..=500).contains(&id).then(|| format!("user {id}"));
                    assert_eq!(names.get(id).await.unwrap(), expected);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = names.stats();
    assert_eq!(stats.succeeded_total, 64 * 20);
    assert!(stats.batches_total < 64 * 20 / 4, "{stats:?}");
    pool.close().await;
    let error = names.get(1).await.unwrap_err();
    assert!(error.is_connection(), "{error:?}");
    assert!(matches!(error.cause(), Some(PoolError::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_inserts_is_one_statement_and_a_duplicate_fails_only_its_own_caller() {
    let pg = cluster().await;
    let pool = with_table(&pg, 4).await;
    let inserting = pool.clone();
    let write = move |ids: Vec<i32>| {
        let pool = inserting.clone();
        async move {
            let sql = "insert into t select * from unnest($1::int4[]) returning id";
            let rows = pool.query(sql, &[&ids]).await?;
            Ok::<_, PoolError>(rows.iter().map(|row| row.get::<_, i32>(0)).collect())
        }
    };
    let writer = BatchWriter::new(BatchConfig::new(), PoolError::is_data, write).unwrap();
    // Each id is written by two tasks; one of them is refused.
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let writer = writer.clone();
            (task / 2, tokio::spawn(async move { writer.write(task / 2).await }))
        })
        .collect();
    let (mut written, mut refused) = (0, 0);
    for (id, task) in tasks {
        match task.await.unwrap() {
            Ok(found) => {
                assert_eq!(found, id);
                written += 1;
            }
            Err(error) => {
                let cause: &PoolError = error.cause().unwrap();
                assert_eq!(cause.sqlstate(), Some("23505"));
                refused += 1;
            }
        }
    }
    assert_eq!((written, refused), (10, 10));
    assert_eq!(ids(&pg).await, "0,1,2,3,4,5,6,7,8,9");
}
