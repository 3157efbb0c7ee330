//! What a running program has printed so far.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;

/// An error quotes this much of the end of each stream: enough for the cause, little enough to be read.
const QUOTED_BYTES: usize = 16 * 1024;

#[derive(Debug, Default)]
struct Printed {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Reads both streams of a program in the background, so that the program never waits for a reader. The channel
/// closes when both streams have ended.
#[derive(Debug)]
pub(super) struct Capture {
    printed: watch::Receiver<Printed>,
}

impl Capture {
    pub(super) fn start(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> Self {
        let (sender, printed) = watch::channel(Printed::default());
        tokio::spawn(read(stdout, sender.clone(), |printed| &mut printed.stdout));
        tokio::spawn(read(stderr, sender, |printed| &mut printed.stderr));
        Self { printed }
    }

    /// The first line of either stream with `text` in it. It waits for the line's end, so that what stands behind
    /// the text (a port, say) is whole. `None` when both streams end without.
    pub(super) async fn line_with(&self, text: &str) -> Option<String> {
        let mut stderr = LineSearch::new(text);
        let mut stdout = LineSearch::new(text);
        let mut found = None;
        let mut printed = self.printed.clone();
        let ended = printed
            .wait_for(|printed| {
                found = stderr.find(&printed.stderr).or_else(|| stdout.find(&printed.stdout));
                found.is_some()
            })
            .await
            .is_err();
        if ended {
            let printed = self.printed.borrow();
            found = stderr.find_at_end(&printed.stderr).or_else(|| stdout.find_at_end(&printed.stdout));
        }
        found
    }

    /// Waits until both streams have ended.
    pub(super) async fn ended(&self) {
        // An error of this wait is the closed channel that it is for.
        let _ = self.printed.clone().wait_for(|_| false).await;
    }

    pub(super) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.printed.borrow().stdout).into_owned()
    }

    pub(super) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.printed.borrow().stderr).into_owned()
    }
}

/// Both streams as an error message quotes them.
pub(super) fn quote(stdout: &str, stderr: &str) -> String {
    format!("--- stderr\n{}\n--- stdout\n{}", end_of(stderr), end_of(stdout))
}

fn end_of(text: &str) -> &str {
    let earliest = text.len().saturating_sub(QUOTED_BYTES);
    let start = (earliest..text.len()).find(|start| text.is_char_boundary(*start)).unwrap_or(text.len());
    text[start..].trim_end()
}

async fn read(
    stream: Option<impl AsyncRead + Unpin>,
    printed: watch::Sender<Printed>,
    buffer: fn(&mut Printed) -> &mut Vec<u8>,
) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; 8 * 1024];
    // A pipe that cannot be read any more has ended, too.
    while let Ok(length @ 1..) = stream.read(&mut chunk).await {
        printed.send_modify(|printed| buffer(printed).extend_from_slice(&chunk[..length]));
    }
}

/// Looks through a growing stream line by line, each line once.
struct LineSearch<'a> {
    text: &'a str,
    searched: usize,
}

impl<'a> LineSearch<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, searched: 0 }
    }

    fn find(&mut self, stream: &[u8]) -> Option<String> {
        while let Some(length) = stream[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = &stream[self.searched..self.searched + length];
            self.searched += length + 1;
            if let Some(line) = self.matching(line) {
                return Some(line);
            }
        }
        None
    }

    /// As [`Self::find`], and the stream's last line may lack its end.
    fn find_at_end(&mut self, stream: &[u8]) -> Option<String> {
        self.find(stream).or_else(|| self.matching(&stream[self.searched..]))
    }

    fn matching(&self, line: &[u8]) -> Option<String> {
        let line = String::from_utf8_lossy(line);
        line.contains(self.text).then(|| line.into_owned())
    }
}
