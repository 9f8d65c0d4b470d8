//! Signing keys in a file, so that they rotate without a restart: read again on SIGHUP and whenever the
//! content has changed. A file that does not read leaves the keys in use as they are, and says so once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use forecastle_api::{KeyRing, KeySet};
use tokio::signal::unix::{SignalKind, signal};

/// The keys that the file holds now, in the same form as the flag, or one on a line beside comments (#).
///
/// # Errors
/// What is wrong with the file; never what stands in it.
pub(crate) fn read(path: &Path) -> anyhow::Result<KeyRing> {
    let text = std::fs::read_to_string(path).context("read signing keys file")?;
    Ok(KeySet::parse(&text).context("read signing keys file")?.into())
}

/// Keeps `keys` at what the file holds, until the process ends. `every` bounds how late a change is seen
/// without a signal.
pub(crate) async fn follow(path: PathBuf, keys: KeyRing, every: Duration) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::error!("watch SIGHUP");
        return;
    };
    let mut seen: Option<String> = None;
    let mut ticks = tokio::time::interval(every);
    loop {
        let is_asked = tokio::select! {
            told = hangup.recv() => told.is_some(),
            _ = ticks.tick() => false,
        };
        match tokio::fs::read_to_string(&path).await {
            Ok(text) if is_asked || seen.as_ref() != Some(&text) => {
                match KeySet::parse(&text) {
                    Ok(set) => {
                        if seen.is_some() {
                            tracing::info!("signing keys read again");
                        }
                        keys.replace(set);
                    }
                    Err(error) => tracing::error!(error = %error, "signing keys file does not read; keys unchanged"),
                }
                seen = Some(text);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(kind = ?error.kind(), "signing keys file is not there; keys unchanged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED_A: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    const SEED_B: &str = "_wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    /// A file of this test's own, gone with it.
    struct KeyFile(PathBuf);

    impl KeyFile {
        fn new(content: &str) -> Self {
            let file = Self(std::env::temp_dir().join(format!("forecastle-keys-{}", std::process::id())));
            file.write(content);
            file
        }

        /// In one step, as a deployment does.
        fn write(&self, content: &str) {
            let next = self.0.with_extension("next");
            std::fs::write(&next, content).unwrap();
            std::fs::rename(&next, &self.0).unwrap();
        }
    }

    impl Drop for KeyFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Polls until these kids are in use, at most 10 s.
    async fn until(keys: &KeyRing, kids: &str) {
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while format!("{:?}", keys.current()) != kids {
            assert!(tokio::time::Instant::now() < end, "still {:?}", keys.current());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_and_a_broken_one_changes_nothing() {
        let file = KeyFile::new(&format!("a:{SEED_A}\n"));
        let keys = read(&file.0).unwrap();
        let follower = tokio::spawn(follow(file.0.clone(), keys.clone(), Duration::from_millis(10)));
        until(&keys, "[\"a\"]").await;
        file.write(&format!("a:{SEED_A}\nb:{SEED_B}\n"));
        until(&keys, "[\"a\", \"b\"]").await;
        file.write("nonsense");
        file.write(&format!("# the new one signs\nb:{SEED_B}\na:{SEED_A}\n"));
        until(&keys, "[\"b\", \"a\"]").await;
        follower.abort();
        assert!(follower.await.unwrap_err().is_cancelled());
        file.write("nonsense");
        assert!(!format!("{:#}", read(&file.0).unwrap_err()).contains("nonsense"));
    }

    #[tokio::test]
    async fn a_signal_has_the_file_read_at_once() {
        let file = KeyFile::new(&format!("a:{SEED_A}"));
        let keys = read(&file.0).unwrap();
        let follower = tokio::spawn(follow(file.0.clone(), keys.clone(), Duration::from_secs(3600)));
        // The first look shows that the signal is being watched for: it comes after.
        keys.replace(KeySet::parse(&format!("b:{SEED_B}")).unwrap());
        until(&keys, "[\"a\"]").await;
        file.write(&format!("b:{SEED_B}"));
        let sent = std::process::Command::new("kill").args(["-HUP", &std::process::id().to_string()]).status();
        assert!(sent.unwrap().success());
        until(&keys, "[\"b\"]").await;
        follower.abort();
    }
}
