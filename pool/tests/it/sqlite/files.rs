//! What stands on the disk: the copy, the log, what `kill -9` leaves.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use escala_pool::sqlite::rusqlite::{self, Connection};
use escala_pool::{PoolError, SqliteConfig, SqlitePool, Synchronous};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::{block, file, open};
use crate::scripted::assert_adds_up;

/// Holds the file and the first number of what a child writes.
const ROLE: &str = "ESCALA_POOL_TEST_WRITER";
/// Begins each line that says what was acknowledged, among those that the test runner prints.
const MARK: &str = "> ";
/// No child lives longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the tasks it was given to when it is dropped.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Tasks that write numbers from `first` on, read each back, and tell of it.
fn write_and_read(
    pool: &SqlitePool,
    tasks: i64,
    first: i64,
    tell: fn(i64),
) -> (Running, Vec<tokio::task::JoinHandle<Result<i64, PoolError>>>) {
    let on = Arc::new(AtomicBool::new(true));
    let tasks = (0..tasks).map(|task| {
        let (pool, on) = (pool.clone(), Arc::clone(&on));
        tokio::spawn(async move {
            let mut written = 0;
            while on.load(Ordering::Relaxed) {
                let id = first + task * 1_000_000 + written;
                pool.execute("insert into t values (?1)", &[&id]).await?;
                tell(id);
                written += 1;
                pool.query_one("select id from t where id = ?1", &[&id]).await?;
            }
            Ok(written)
        })
    });
    let tasks = tasks.collect();
    (Running(on), tasks)
}

/// Not a test by itself: what a child process runs. Without the variable it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_of_another_test_writes_until_it_is_killed() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (first, path) = role.split_once(' ').unwrap();
    let pool = SqlitePool::open(SqliteConfig::new(path)).await.unwrap();
    // One write to the pipe each, so that lines stay whole.
    let tell = |id| {
        use std::io::Write as _;
        let _gone = std::io::stdout().write_all(format!("\n{MARK}{id}\n").as_bytes());
        let _gone = std::io::stdout().flush();
    };
    let (_running, tasks) = write_and_read(&pool, 64, first.parse().unwrap(), tell);
    let all = async {
        for task in tasks {
            if let Err(error) = task.await.unwrap() {
                let text = format!("\n{MARK}{error:?}\n");
                std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).unwrap();
            }
        }
    };
    timeout(PATIENCE, all).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9_and_nobody_sees_a_locked_database() {
    let (_folder, path) = file();
    let pool = open(&path).await;
    let mut acknowledged = BTreeSet::new();
    for round in 1..=3_usize {
        // Two processes write: the child with 64 tasks, and this one with eight.
        let first = round as i64 * 100_000_000;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["sqlite::files::a_child_of_another_test_writes_until_it_is_killed", "--exact"])
            .arg("--nocapture")
            .env(ROLE, format!("{first} {}", path.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (running, tasks) = write_and_read(&pool, 8, -first, |_| {});
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut seen, mut killed) = (0, false);
        let listening = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let Some(answer) = line.strip_prefix(MARK) else { continue };
                let id: i64 = answer.parse().unwrap_or_else(|_| panic!("{answer}"));
                acknowledged.insert(id);
                seen += 1;
                if seen == 300 * round {
                    child.start_kill().unwrap();
                    killed = true;
                }
            }
        };
        timeout(PATIENCE, listening).await.unwrap();
        assert!(killed);
        child.wait().await.unwrap();
        drop(running);
        for task in tasks {
            assert!(task.await.unwrap().unwrap() > 0, "this process came to write too");
        }
    }
    assert_adds_up(&pool.stats());
    pool.close().await;
    let pool = SqlitePool::open(SqliteConfig::new(&path)).await.unwrap();
    let rows = pool.query("select id from t where id > 0", &[]).await.unwrap();
    let kept: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), acknowledged.len());
    let check = pool.query_one("pragma integrity_check", &[]).await.unwrap();
    assert_eq!(check.get::<String>(0), "ok");
}

#[tokio::test]
async fn a_lock_that_another_process_keeps_is_saturation() {
    let (_folder, path) = file();
    drop(open(&path).await);
    let config = SqliteConfig::new(&path).busy_timeout(Duration::from_millis(100));
    let pool = SqlitePool::open(config).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let error = pool.execute("insert into t values (1)", &[]).await.unwrap_err();
    assert!(error.is_saturated() && error.is_retryable() && error.is_timeout(), "{error:?}");
    other.execute_batch("commit").unwrap();
    assert_eq!(pool.execute("insert into t values (1)", &[]).await.unwrap(), 1);
}

/// The numbers in a copy, which is sound.
fn numbers(copy: &Path) -> BTreeSet<i64> {
    let conn = Connection::open(copy).unwrap();
    let check: String = conn.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mode: String = conn.query_row("pragma journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    let mut rows = conn.prepare("select id from t").unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_copy_that_fails_leaves_what_stood_there_and_a_whole_one_replaces_it_at_once() {
    let (folder, path) = file();
    let pool = open(&path).await;
    pool.execute("insert into t values (1)", &[]).await.unwrap();
    let copy = folder.path().join("copy.db");
    pool.backup(&copy).await.unwrap();
    // Who has it open goes on reading what was there: it was replaced, not written over.
    let reader = Connection::open(&copy).unwrap();
    let count = |conn: &Connection| -> i64 {
        conn.query_row("select count(*) from t", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&reader), 1);
    pool.execute("insert into t values (2)", &[]).await.unwrap();
    pool.backup(&copy).await.unwrap();
    assert_eq!((count(&reader), numbers(&copy)), (1, BTreeSet::from([1, 2])));
    drop(reader);
    // It ends with the pool, half-way.
    let ballast = "create table ballast as with recursive n(i) as (select 1 union all select i + 1 \
                   from n where i < 3000) select hex(randomblob(2000)) from n";
    pool.batch_execute(ballast).await.unwrap();
    let closes = async {
        while names(folder.path()).iter().all(|name| !name.ends_with(".part")) {
            tokio::task::yield_now().await;
        }
        pool.close().await
    };
    let (failed, _report) = tokio::join!(pool.backup(&copy), closes);
    assert!(matches!(failed, Err(PoolError::Closed)), "{failed:?}");
    assert_eq!(numbers(&copy), BTreeSet::from([1, 2]));
    // A folder cannot be replaced by a file.
    let pool = open(&path).await;
    let occupied = folder.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("kept"), "").unwrap();
    let error = pool.backup(&occupied).await.unwrap_err();
    assert!(matches!(error, PoolError::Backup(_)), "{error:?}");
    assert_eq!(names(&occupied), BTreeSet::from(["kept".to_owned()]));
    assert!(names(folder.path()).iter().all(|name| !name.ends_with(".part")));
}

#[tokio::test]
async fn copies_are_made_in_turn() {
    let (folder, path) = file();
    let pool = open(&path).await;
    pool.batch_execute("create table ballast (text)").await.unwrap();
    let ballast = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 3000) \
                   insert into ballast select hex(randomblob(2000)) from n";
    pool.execute(ballast, &[]).await.unwrap();
    let parts =
        |folder: &Path| names(folder).into_iter().filter(|name| name.ends_with(".part")).count();
    let copies = ["a.db", "b.db", "c.db"].map(|name| {
        let (pool, copy) = (pool.clone(), folder.path().join(name));
        tokio::spawn(async move { pool.backup(copy).await })
    });
    let mut most = 0;
    while !copies.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(parts(folder.path()));
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    for copy in copies {
        copy.await.unwrap().unwrap();
    }
    assert_eq!(most, 1, "one at a time");
    for name in ["a.db", "b.db", "c.db"] {
        assert!(numbers(&folder.path().join(name)).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_64_tasks_write_is_one_sound_state() {
    let (folder, path) = file();
    let pool = open(&path).await;
    pool.batch_execute("create table ballast (text)").await.unwrap();
    let ballast = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000) \
                   insert into ballast select hex(randomblob(2000)) from n";
    pool.execute(ballast, &[]).await.unwrap();
    let copy = folder.path().join("copy.db");
    fs::write(&copy, "what stood there before").unwrap();
    let (running, tasks) = write_and_read(&pool, 64, 0, |_| {});
    for _ in 0..3 {
        let before = pool.query("select id from t", &[]).await.unwrap();
        let before: BTreeSet<i64> = before.iter().map(|row| row.get(0)).collect();
        timeout(PATIENCE, pool.backup(&copy)).await.unwrap().unwrap();
        let copied = numbers(&copy);
        assert!(before.is_subset(&copied), "what was acknowledged before the copy is in it");
        // Each task waits for one write before it makes the next, so a state has no gaps.
        for id in &copied {
            assert!(id % 1_000_000 == 0 || copied.contains(&(id - 1)), "{id}");
        }
    }
    drop(running);
    for task in tasks {
        assert!(task.await.unwrap().unwrap() > 0);
    }
    let copied: SqlitePool = SqlitePool::open(SqliteConfig::new(&copy)).await.unwrap();
    assert_eq!(copied.query("select 1 from ballast", &[]).await.unwrap().len(), 1000);
    copied.close().await;
    let expected = ["copy.db", "test.db", "test.db-shm", "test.db-wal"].map(str::to_owned);
    assert_eq!(names(folder.path()), expected.into(), "no file is left behind");
}

#[cfg(unix)]
#[tokio::test]
async fn a_copy_is_as_private_as_the_database() {
    use std::os::unix::fs::PermissionsExt as _;

    let (folder, path) = file();
    let pool = open(&path).await;
    let copy = folder.path().join("copy.db");
    for mode in [0o600, 0o640] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        pool.backup(&copy).await.unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[tokio::test]
async fn a_copy_never_takes_the_place_of_a_database_in_use() {
    let (folder, path) = file();
    let pool = open(&path).await;
    let other_path = folder.path().join("other.db");
    let other = open(&other_path).await;
    other.execute("insert into t values (1)", &[]).await.unwrap();
    let crashed = folder.path().join("crashed.db");
    fs::write(folder.path().join("crashed.db-journal"), "half a transaction").unwrap();
    for target in [&path, &other_path, &crashed] {
        let error = pool.backup(target).await.unwrap_err();
        assert!(matches!(error, PoolError::Backup(_)), "{error:?}");
    }
    let nowhere = folder.path().join("nowhere").join("copy.db");
    assert!(matches!(pool.backup(&nowhere).await, Err(PoolError::Backup(_))));
    assert_eq!(numbers_of(&other).await, 1);
    assert!(names(folder.path()).iter().all(|name| !name.contains(".part")));
}

async fn numbers_of(pool: &SqlitePool) -> usize {
    pool.query("select 1 from t", &[]).await.unwrap().len()
}

#[tokio::test]
async fn a_closed_pool_leaves_one_file() {
    let (folder, path) = file();
    // Made by another program, without a log.
    Connection::open(&path).unwrap().execute_batch("create table t (id)").unwrap();
    for round in 0..20 {
        let pool = SqlitePool::open(SqliteConfig::new(&path)).await.unwrap();
        if round % 2 > 0 {
            pool.execute("insert into t values (1)", &[]).await.unwrap();
        }
        pool.query("select count(*) from t", &[]).await.unwrap();
        pool.close().await;
        assert_eq!(names(folder.path()), ["test.db".to_owned()].into());
    }
}

#[tokio::test]
async fn a_pool_that_closes_gives_its_copy_up() {
    let (folder, path) = file();
    let pool = open(&path).await;
    pool.close().await;
    let error = pool.backup(folder.path().join("copy.db")).await.unwrap_err();
    assert!(matches!(error, PoolError::Closed), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_under_constant_readers() {
    let (folder, path) = file();
    let config = SqliteConfig::new(&path).checkpoint_pages(100).max_log(1 << 20);
    let pool = SqlitePool::open(config).await.unwrap();
    pool.batch_execute("create table t (id integer primary key, text)").await.unwrap();
    let on = Arc::new(AtomicBool::new(true));
    // More readers than threads, so that at every moment somebody reads from the log.
    let read = |conn: &Connection| {
        conn.execute_batch("begin; select count(*) from t")?;
        // A read that takes its time.
        std::thread::sleep(Duration::from_millis(5));
        Ok::<_, rusqlite::Error>(())
    };
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (pool, on) = (pool.clone(), Arc::clone(&on));
            tokio::spawn(async move {
                while on.load(Ordering::Relaxed) {
                    pool.read(read).await.unwrap();
                }
            })
        })
        .collect();
    let mut longest = 0;
    for _ in 0..400 {
        let text = "x".repeat(40_000);
        pool.execute("insert into t (text) values (?1)", &[&text]).await.unwrap();
        longest = longest.max(fs::metadata(folder.path().join("test.db-wal")).unwrap().len());
    }
    on.store(false, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    // 16 MB were written.
    assert!(longest < 4 << 20, "the log grew to {longest} bytes");
}

#[tokio::test]
async fn settings_reach_the_connections() {
    let (_folder, path) = file();
    for (synchronous, expected) in [(Synchronous::Normal, 1), (Synchronous::Full, 2)] {
        let config = SqliteConfig::new(&path).synchronous(synchronous).temp_in_memory();
        let config = config.cache_size(1 << 20).mmap_size(1 << 20);
        let pool = SqlitePool::open(config).await.unwrap();
        let pragma = |name: &'static str| {
            let pool = pool.clone();
            async move {
                let sql = format!("pragma {name}");
                let read =
                    move |conn: &Connection| conn.query_row(&sql, [], |row| row.get::<_, i64>(0));
                let reader = pool.read(read.clone()).await.unwrap();
                (reader, pool.write(read).await.unwrap())
            }
        };
        assert_eq!(pragma("synchronous").await.1, expected);
        assert_eq!(pragma("cache_size").await, (-1024, -1024));
        assert_eq!(pragma("mmap_size").await, (1 << 20, 1 << 20));
        assert_eq!(pragma("temp_store").await, (2, 2));
        assert_eq!(pragma("journal_size_limit").await.1, 64 << 20);
    }
    let error = SqlitePool::open(SqliteConfig::new(&path).max_log(1)).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().starts_with("max_log"));
}

#[tokio::test]
async fn a_copy_that_nobody_waits_for_is_removed() {
    let (folder, path) = file();
    let pool = open(&path).await;
    let copy = folder.path().join("copy.db");
    drop(timeout(Duration::ZERO, pool.backup(&copy)).await);
    // The thread ends by itself; a second copy waits for nothing of it.
    let hold = block(&pool, true).await;
    pool.backup(&copy).await.unwrap();
    drop(hold);
    let left = async {
        while names(folder.path()).iter().any(|name| name.contains(".part")) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, left).await.unwrap();
}

#[cfg(feature = "serde")]
#[test]
fn settings_may_stand_in_a_file() {
    let text = r#"{ "path": "shop.db", "synchronous": "full", "busy_timeout": "2s" }"#;
    let config: SqliteConfig = serde_json::from_str(text).unwrap();
    assert_eq!(config.synchronous, Synchronous::Full);
    assert_eq!((config.busy_timeout, config.readers), (Duration::from_secs(2), 2));
    assert!(serde_json::from_str::<SqliteConfig>(r#"{ "synchronous": "off" }"#).is_err());
}
