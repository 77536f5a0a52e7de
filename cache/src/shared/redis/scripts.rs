//! What takes more than one command and must be one step: scripts that Redis keeps by their hash.

use std::sync::LazyLock;

use ::redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind};

use super::server::Server;

/// Sets KEYS[1] to ARGV[2] if what stands there begins with ARGV[1]; for ARGV[3] milliseconds,
/// or for good if that is empty. Only the beginning is read: the rest may be long.
pub(super) static SET_IF_STARTS_WITH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local start = ARGV[1]
if #start > 0 and redis.call('GETRANGE', KEYS[1], 0, #start - 1) ~= start then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1",
    )
});

/// Numbers the message ARGV[2] by KEYS[1] and sends both to the channel ARGV[1], so that no
/// number is without its message and none overtakes another on the server. A publication
/// reaches the subscribers at every node of a cluster.
pub(super) static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local number = redis.call('INCR', KEYS[1])
redis.call('PUBLISH', ARGV[1], struct.pack('>I8', number) .. ARGV[2])
return number",
    )
});

/// A script with one key.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hash: ::redis::Script::new(text).get_hash().to_owned() }
    }

    /// Runs it by its hash, and by its text where Redis has forgotten it.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        server: &Server,
        key: &str,
        arguments: &[&[u8]],
    ) -> Result<T, RedisError> {
        let known = server.query(&command("EVALSHA", &self.hash, key, arguments)).await;
        match known {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                server.query(&command("EVAL", self.text, key, arguments)).await
            }
            known => known,
        }
    }
}

fn command(name: &str, script: &str, key: &str, arguments: &[&[u8]]) -> Cmd {
    let mut command = ::redis::cmd(name);
    command.arg(script).arg(1).arg(key).arg(arguments);
    command
}
