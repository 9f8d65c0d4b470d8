//! What a command is: its name, its keys, its script, and whether it may write.

/// Commands remembered of one transaction.
const QUEUED_MAX: usize = 32;
/// Commands shown in a label.
const LABEL_COMMANDS_MAX: usize = 4;

/// Commands that write, in order. Scripts and functions are counted as writing apart from these.
const WRITES: [&str; 104] = [
    "APPEND",
    "BITFIELD",
    "BITOP",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "COPY",
    "DECR",
    "DECRBY",
    "DEL",
    "EXPIRE",
    "EXPIREAT",
    "FLUSHALL",
    "FLUSHDB",
    "FUNCTION",
    "GEOADD",
    "GEORADIUS",
    "GEOSEARCHSTORE",
    "GETDEL",
    "GETEX",
    "GETSET",
    "HDEL",
    "HEXPIRE",
    "HEXPIREAT",
    "HGETDEL",
    "HGETEX",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HMSET",
    "HPERSIST",
    "HPEXPIRE",
    "HPEXPIREAT",
    "HSET",
    "HSETEX",
    "HSETNX",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LINSERT",
    "LMOVE",
    "LMPOP",
    "LPOP",
    "LPUSH",
    "LPUSHX",
    "LREM",
    "LSET",
    "LTRIM",
    "MIGRATE",
    "MOVE",
    "MSET",
    "MSETNX",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PFADD",
    "PFMERGE",
    "PSETEX",
    "PUBLISH",
    "RENAME",
    "RENAMENX",
    "RESTORE",
    "RPOP",
    "RPOPLPUSH",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SDIFFSTORE",
    "SET",
    "SETBIT",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "SINTERSTORE",
    "SMOVE",
    "SORT",
    "SPOP",
    "SPUBLISH",
    "SREM",
    "SUNIONSTORE",
    "SWAPDB",
    "TOUCH",
    "UNLINK",
    "XACK",
    "XADD",
    "XAUTOCLAIM",
    "XCLAIM",
    "XDEL",
    "XGROUP",
    "XREADGROUP",
    "XTRIM",
    "ZADD",
    "ZDIFFSTORE",
    "ZINCRBY",
    "ZINTERSTORE",
    "ZMPOP",
    "ZPOPMAX",
    "ZPOPMIN",
    "ZREM",
    "ZUNIONSTORE",
];

/// One command, or one transaction with the commands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOperation {
    /// Name in capitals.
    pub command: String,
    /// Keys as far as they were read ahead: the first at most, and those of a transaction's commands.
    pub keys: Vec<String>,
    /// The script's name where known, else its SHA-1.
    pub script: Option<String>,
    /// The SHA-1 as sent by EVALSHA.
    pub script_sha: Option<String>,
    /// It waits for the EXEC that carries it out.
    pub queued: bool,
    /// What an EXEC carries out, as far as remembered.
    pub carries_out: Vec<RedisOperation>,
}

impl RedisOperation {
    /// From a command's first words as far as they were read ahead. `script_name`: SHA-1 to name.
    pub fn new(words: &[Vec<u8>], script_name: impl Fn(&str) -> Option<String>) -> Self {
        let text = |at: usize| words.get(at).map(|word| String::from_utf8_lossy(word).into_owned());
        let command = text(0).unwrap_or_default().to_ascii_uppercase();
        let mut operation =
            Self { keys: Vec::new(), script: None, script_sha: None, queued: false, carries_out: Vec::new(), command };
        match operation.command.as_str() {
            "EVALSHA" | "EVALSHA_RO" => {
                operation.script_sha = text(1).map(|sha| sha.to_ascii_lowercase());
                operation.script =
                    operation.script_sha.as_deref().map(|sha| script_name(sha).unwrap_or_else(|| sha.to_owned()));
            }
            "EVAL" | "EVAL_RO" => operation.script = words.get(1).map(|body| super::scripts::name_of(body)),
            "FCALL" | "FCALL_RO" => operation.script = text(1),
            _ => {}
        }
        let key_at = if operation.is_script() { 3 } else { 1 };
        let has_key = !operation.is_script() || text(2).is_some_and(|count| count != "0");
        operation.keys.extend(text(key_at).filter(|_| has_key));
        operation
    }

    /// How many words must be read to know a command's key.
    pub fn words_wanted(command: &[u8]) -> usize {
        let script = [&b"EVAL"[..], b"EVAL_RO", b"EVALSHA", b"EVALSHA_RO", b"FCALL", b"FCALL_RO"];
        if script.iter().any(|name| command.eq_ignore_ascii_case(name)) {
            4
        } else if command.eq_ignore_ascii_case(b"SCRIPT") {
            3
        } else {
            2
        }
    }

    fn is_script(&self) -> bool {
        matches!(self.command.as_str(), "EVAL" | "EVAL_RO" | "EVALSHA" | "EVALSHA_RO" | "FCALL" | "FCALL_RO")
    }

    /// Whether it may change what Redis holds.
    pub fn writes(&self) -> bool {
        if self.queued {
            return false;
        }
        if self.command == "EXEC" {
            return self.carries_out.iter().any(Self::writes);
        }
        matches!(self.command.as_str(), "EVAL" | "EVALSHA" | "FCALL")
            || WRITES.binary_search(&self.command.as_str()).is_ok()
    }

    /// Remembers a command for the EXEC; beyond the bound, only that there was one that writes.
    pub fn add(&mut self, mut queued: Self) {
        queued.queued = false;
        if self.carries_out.len() < QUEUED_MAX {
            self.carries_out.push(queued);
        } else if queued.writes()
            && let Some(last) = self.carries_out.last_mut()
            && !last.writes()
        {
            *last = queued;
        }
    }

    pub fn label(&self) -> String {
        let mut text = self.command.clone();
        if !self.carries_out.is_empty() {
            let names: Vec<&str> =
                self.carries_out.iter().take(LABEL_COMMANDS_MAX).map(|one| one.command.as_str()).collect();
            let more = if self.carries_out.len() > LABEL_COMMANDS_MAX { ", …" } else { "" };
            text.push_str(&format!("[{}{more}]", names.join(", ")));
        }
        for part in self.script.iter().chain(self.keys.first()) {
            text.push(' ');
            text.push_str(part);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> RedisOperation {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        RedisOperation::new(&words, |sha| (sha == "abc").then(|| "take a token".into()))
    }

    #[test]
    fn the_table_of_writes_can_be_searched() {
        assert!(WRITES.is_sorted());
        for (words, writes) in [
            (&["set", "k"][..], true),
            (&["GET", "k"], false),
            (&["EVALSHA", "abc", "1", "k"], true),
            (&["EVAL_RO", "return 1", "0"], false),
            (&["PING"], false),
        ] {
            assert_eq!(of(words).writes(), writes, "{words:?}");
        }
    }

    #[test]
    fn keys_and_scripts_are_found_where_the_command_has_them() {
        assert_eq!(of(&["get", "user:1"]).keys, ["user:1"]);
        let script = of(&["evalsha", "ABC", "1", "limit:7"]);
        assert_eq!(script.keys, ["limit:7"]);
        assert_eq!(script.script.as_deref(), Some("take a token"));
        assert_eq!(script.label(), "EVALSHA take a token limit:7");
        assert_eq!(of(&["evalsha", "def", "0", "argument"]).keys, Vec::<String>::new());
        assert_eq!(of(&["evalsha", "def", "0"]).script.as_deref(), Some("def"));
    }

    #[test]
    fn a_transaction_writes_if_one_of_its_commands_does() {
        let mut exec = of(&["EXEC"]);
        for _ in 0..QUEUED_MAX {
            exec.add(of(&["GET", "a"]));
        }
        assert!(!exec.writes());
        exec.add(of(&["SET", "a"]));
        assert!(exec.writes(), "even beyond what is remembered");
        assert!(exec.label().starts_with("EXEC[GET, GET, GET, GET, …]"), "{}", exec.label());
    }
}
